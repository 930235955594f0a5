"""Polynomials on the wire: 4096 residues below 2^60 in 7.5 bytes each (CK-3.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.ckks.params import DEGREE, PRIME, PRIME_BITS
from fedbcs_protocols.errors import BadCiphertext
from fedbcs_protocols.ring import Buffer

POLYNOMIAL_BYTES = DEGREE * PRIME_BITS // 8
"""A ciphertext on the wire: its other polynomial is known to all."""

Polynomial = NDArray[np.uint64]

_ROWS = 16
_TOP = np.uint64(PRIME_BITS)
_MASK = np.uint64((1 << PRIME_BITS) - 1)
_SHIFTS = np.arange(0, PRIME_BITS, 4, dtype=np.uint64)[:, None]


def pack_words(words: Polynomial) -> bytes:
    """(N,) numbers below 2^60 as 7.5 bytes each: the last of 16 rows sits in the top 4 bits of the

    others (CK-3.6).
    """
    rows = words.reshape(_ROWS, -1)
    packed: Polynomial = rows[:-1] | (rows[-1] >> _SHIFTS) << _TOP
    return packed.astype("<u8").tobytes()


def unpack_words(data: Buffer, sender: str, out: Polynomial | None = None) -> Polynomial:
    """The inverse of :func:`pack_words`, into ``out`` if that is given.

    Raises :class:`BadCiphertext` for another length and for numbers from q on.
    """
    if len(data) != POLYNOMIAL_BYTES:
        raise BadCiphertext(sender, f"a ciphertext of {len(data)} bytes, not {POLYNOMIAL_BYTES}")
    packed = np.frombuffer(data, "<u8").reshape(_ROWS - 1, -1)
    words = np.empty(DEGREE, np.uint64) if out is None else out
    rows = words.reshape(_ROWS, -1)
    np.bitwise_and(packed, _MASK, out=rows[:-1])
    np.bitwise_or.reduce((packed >> _TOP) << _SHIFTS, axis=0, out=rows[-1])
    # CK-3.7: one spelling of each residue.
    if int(words.max()) >= PRIME:
        raise BadCiphertext(sender, "a coefficient that is no residue")
    return words


def add_residues(total: Polynomial, other: Polynomial) -> None:
    """``total`` += ``other`` modulo q; both residues, of any shape."""
    # Both are below 2^60, so nothing overflows.
    total += other
    total -= (total >= np.uint64(PRIME)) * np.uint64(PRIME)
