"""NVFLARE's recipe for encrypted averages on TenSEAL alone: what its filters and aggregator call.

That is, in 2.9 (``nvflare.app_opt.he``), with the parameters of its ``HEBuilder``: one CKKS vector
a tensor under one context of the site's; on the wire each vector goes with a serialised context of
its own, and the receiver makes a context from it for each. The server adds vector to vector,
multiplies by the reciprocal of the weights at the end, and sends the products without contexts; a
site loads them under its own context. TenSEAL itself splits a tensor that is longer than the slots.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

DEGREE = 8192
MODULUS_BITS = (60, 40, 40)
SCALE_BITS = 40

Tensors = Sequence[NDArray[np.float32]]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what TenSEAL prints on standard output for each vector that it splits."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        # It stands in the buffer of the C library, behind which Python's own is.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def serialised_context() -> bytes:
    """A site's context, secret key included, as ``HEBuilder`` writes it for each site."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=list(MODULUS_BITS),
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.generate_relin_keys()
    context.global_scale = 2**SCALE_BITS
    return bytes(
        context.serialize(
            save_public_key=True,
            save_secret_key=True,
            save_galois_keys=False,
            save_relin_keys=True,
        )
    )


class Recipe:
    """All parties of it, under one key."""

    def __init__(self) -> None:
        self._context = tenseal.context_from(serialised_context())

    def encrypt(self, tensors: Tensors) -> list[tuple[bytes, bytes]]:
        """A site's upload: each tensor's vector, and the context that goes with it."""
        vectors = [tenseal.ckks_vector(self._context, tensor.ravel()) for tensor in tensors]
        return [(vector.serialize(), vector.context().serialize()) for vector in vectors]

    def load(self, upload: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        """An upload as the server has it."""
        return [
            tenseal.ckks_vector_from(tenseal.context_from(context), vector)
            for vector, context in upload
        ]

    def add(self, total: list[Any], upload: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        """The running sum with one more upload."""
        return [sum_ + vector for sum_, vector in zip(total, self.load(upload), strict=True)]

    def average(self, total: list[Any], sites: int) -> list[bytes]:
        """The download: the sum times 1 / ``sites``, which takes a prime off the modulus."""
        return [(vector * (1.0 / sites)).serialize() for vector in total]

    def sum(self, total: list[Any]) -> list[bytes]:
        """What the download would be if the sites divided."""
        return [vector.serialize() for vector in total]

    def decrypt(self, download: Sequence[bytes]) -> list[list[float]]:
        """Each tensor's values, as the lists that TenSEAL gives."""
        key = self._context.secret_key()
        vectors = [tenseal.ckks_vector_from(self._context, data) for data in download]
        return [vector.decrypt(secret_key=key) for vector in vectors]


def upload_bytes(upload: Sequence[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Bytes of the vectors and of the contexts."""
    return sum(len(vector) for vector, _ in upload), sum(len(context) for _, context in upload)
