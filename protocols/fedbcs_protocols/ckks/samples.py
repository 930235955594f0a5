"""What a ciphertext is made of: common polynomials, secrets and noise (CK-3)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks.packing import Polynomials
from fedbcs_protocols.ckks.params import DEGREE, NOISE_BOUND, PRIME, PRIME_BITS
from fedbcs_protocols.derive import Keystream, public_key_of, purpose_key

SALT_BYTES = 32

Small = NDArray[np.int64]
"""(N,) small coefficients, not reduced."""

_WORD = np.dtype("<u8")
_RESIDUE = np.uint64((1 << PRIME_BITS) - 1)
_COINS = np.uint64((1 << NOISE_BOUND) - 1)
_CRUMBS = np.arange(0, 8, 2, dtype=np.uint8)
_NO_TRIT = 3


class CommonPolynomials:
    """The polynomials a_0, a_1, ... of a sum, uniform modulo q, the same for everybody (CK-3.2)."""

    def __init__(self, binding: Binding) -> None:
        seed = hashlib.sha256(binding.encode()).digest()
        self._stream = Keystream(public_key_of(seed, ["ckks common polynomials"]))
        self._spare = np.empty(0, np.uint64)

    def next(self, count: int) -> Polynomials:
        """The next ``count`` <= 8 of them, (count, N)."""
        wanted = count * DEGREE
        words = self._spare
        while words.size < wanted:
            # One in 2^46 is left out, so almost never is there a second time.
            drawn = np.frombuffer(self._stream.next(wanted * _WORD.itemsize), _WORD) & _RESIDUE
            words = np.concatenate((words, drawn[drawn < PRIME]))
        self._spare = words[wanted:]
        return words[:wanted].reshape(count, DEGREE)


def upload_secret(group: bytes, epoch: int, binding: Binding, name: str, salt: bytes) -> Small:
    """The secret of one upload, uniform over -1, 0, 1 (CK-3.3).

    Whoever has the group's secret can derive it from the uploader's name and its public ``salt``.
    """
    stream = Keystream(purpose_key(group, "ckks upload secret", binding, epoch, name, salt))
    trits = np.empty(0, np.uint8)
    while trits.size < DEGREE:
        piece = np.frombuffer(stream.next(DEGREE // 2), np.uint8)
        crumbs = (piece[:, None] >> _CRUMBS & _NO_TRIT).reshape(-1)
        trits = np.concatenate((trits, crumbs[crumbs != _NO_TRIT]))
    return trits[:DEGREE].astype(np.int64) - 1


class NoiseStream:
    """Centred binomial noise with variance 10.5, from a key that is used once (CK-3.4)."""

    def __init__(self, key: bytes) -> None:
        self._stream = Keystream(key)

    def next(self, count: int) -> NDArray[np.int64]:
        """The noise of the next ``count`` <= 8 ciphertexts, (count, N)."""
        size = count * DEGREE * _WORD.itemsize
        words = np.frombuffer(self._stream.next(size), _WORD).reshape(count, DEGREE)
        heads: NDArray[np.int64] = np.bitwise_count(words & _COINS).astype(np.int64)
        heads -= np.bitwise_count(words >> np.uint64(NOISE_BOUND) & _COINS)
        return heads

    def __repr__(self) -> str:
        return "NoiseStream(key redacted)"
