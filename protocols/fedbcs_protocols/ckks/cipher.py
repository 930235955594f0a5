"""Ciphertexts under secrets of their own and common polynomials (CK-3).

A CKKS ciphertext is (b, a) with b = Δm + e - a·s. Here a is common: everybody can compute it, so
only b travels. Each upload has its own s, so a sum of ciphertexts opens under the sum of their
secrets, and under nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks.packing import Polynomials, pack
from fedbcs_protocols.ckks.params import PRIME, ParameterSet
from fedbcs_protocols.ckks.products import BATCH, Products, Scratch
from fedbcs_protocols.ckks.samples import CommonPolynomials, NoiseStream, Small
from fedbcs_protocols.ckks.words import add_residues, pack_words
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.ring import Words


class _Masks:
    """a_0·s, a_1·s, ...: what hides one vector after another chunk."""

    def __init__(self, binding: Binding, secret: Small, scratch: Scratch) -> None:
        self._common = CommonPolynomials(binding)
        self._products = Products(secret, scratch)
        self._whole = True

    def next(self, count: int) -> Polynomials:
        """(count, N), all of a batch but at the end."""
        if not self._whole or not 1 <= count <= BATCH:
            raise LocalError("chunks come in whole batches; only the last may be short")
        self._whole = count == BATCH
        return self._products.of(self._common.next(BATCH))[:count]


class Encryptor:
    """Encrypts one vector under ``secret``, batch after batch; ``noise_key`` is used once."""

    def __init__(
        self,
        params: ParameterSet,
        binding: Binding,
        secret: Small,
        noise_key: bytes,
        scratch: Scratch,
    ) -> None:
        self._params = params
        self._masks = _Masks(binding, secret, scratch)
        self._noise = NoiseStream(noise_key)

    def encrypt(self, values: Words) -> bytes:
        """The ciphertexts of k chunks, (k, f·N) uint32, one after another (CK-3.1)."""
        noisy = pack(values, self._params).view(np.int64)
        # Between -2^60 and 2^60.
        noisy -= self._masks.next(len(values)).view(np.int64)
        noisy += self._noise.next(len(values))
        noisy += (noisy < 0) * np.int64(PRIME)
        # Noise below zero where the mask is q - 1, or nearly.
        noisy += (noisy < 0) * np.int64(PRIME)
        return b"".join(map(pack_words, noisy.view(np.uint64)))

    def __repr__(self) -> str:
        return "Encryptor(secret redacted)"


class Decryptor:
    """Opens one sum of ciphertexts under the sum of their ``secrets``, batch after batch."""

    def __init__(self, binding: Binding, secrets: Iterable[Small], scratch: Scratch) -> None:
        total: Small = np.sum(list(secrets), axis=0, dtype=np.int64)
        self._masks = _Masks(binding, total, scratch)

    def decrypt(self, ciphertexts: Sequence[Polynomials] | Polynomials) -> Polynomials:
        """k plaintexts, (k, N), noise and all: for ``unpack``, and never to be shown (CK-5.2)."""
        out = self._masks.next(len(ciphertexts)).copy()
        for plain, ciphertext in zip(out, ciphertexts, strict=True):
            add_residues(plain, ciphertext)
        return out

    def __repr__(self) -> str:
        return "Decryptor(secret redacted)"
