"""What would become of a combiner that took a peer's vector apart with TenSEAL: it dies here."""

from __future__ import annotations

from collections.abc import Iterator

import tenseal
from ckks_cast import Attack
from family_forms import tenseal_vector, vector_of_20000, vector_without_ciphertexts


def _context() -> tenseal.Context:
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        8192,
        coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.global_scale = 2**40
    return context


def _read_beyond() -> None:
    context = _context()
    assert tenseal_vector(2048)[:1] == vector_of_20000()[:1]
    # Values that nobody sent: memory behind the plaintext.
    assert len(tenseal.ckks_vector_from(context, vector_of_20000()).decrypt()) == 20000


def _add_nothing() -> None:
    context = _context()
    mine = tenseal.ckks_vector(context, [1.0] * 2048)
    mine += tenseal.ckks_vector_from(context, vector_without_ciphertexts())


def attacks() -> Iterator[Attack]:
    yield Attack("CK-3.5", "TenSEAL shows what is behind a vector that claims more", _read_beyond)
    yield Attack("CK-3.5", "TenSEAL adds a vector without ciphertexts", _add_nothing)
