"""Integers in the coefficients of a plaintext, and back, exactly (CK-2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.params import DEGREE, NOISE_BOUND, NOISE_VARIANCE, PRIME, ParameterSet
from fedbcs_protocols.errors import BadNoise, LocalError, SumOutOfRange
from fedbcs_protocols.ring import Words

Polynomials = NDArray[np.uint64]
"""(k, N) residues modulo q: the coefficients of k polynomials, lowest power first."""
Noise = NDArray[np.int64]

NOISE_TOLERANCE = 0.12
"""Ten standard deviations of the root mean square over the coefficients of one chunk."""


def pack(values: Words, params: ParameterSet) -> Polynomials:
    """(k, f·N) uint32 values below 2^b as k plaintexts, (k, N).

    Coefficient i holds Δ·Σ_d v_(d·N + i)·B^d (CK-2.1).
    """
    fits = values.size > 0 and values.shape[1:] == (params.capacity,)
    if not fits or int(values.max()) >> params.bits:
        raise LocalError(f"a chunk is {params.capacity} values of {params.bits} bits")
    digits = values.reshape(len(values), params.fields, DEGREE)
    out = digits[:, -1].astype(np.uint64)
    for field in range(params.fields - 2, -1, -1):
        out <<= np.uint64(params.digit_bits)
        out |= digits[:, field]
    out <<= np.uint64(params.scale_bits)
    return out


def unpack(plain: Polynomials, params: ParameterSet, added: int) -> tuple[Words, Noise]:
    """The (k, f·N) uint32 sums over ``added`` sites in k plaintexts, and the noise that they had.

    Raises :class:`SumOutOfRange` for a digit that no sum of ``added`` values can have (CK-5.3).
    """
    half = np.uint64(params.scale // 2)
    shifted = plain + half
    # Noise below zero at a sum of zero is just below q.
    shifted -= (shifted >= np.uint64(PRIME)) * np.uint64(PRIME)
    noise = (shifted & np.uint64(params.scale - 1)).astype(np.int64) - np.int64(half)
    whole = shifted >> np.uint64(params.scale_bits)
    out = np.empty((len(plain), params.fields, DEGREE), np.uint64)
    digit, mask = np.uint64(params.digit_bits), np.uint64((1 << params.digit_bits) - 1)
    for field in range(params.fields - 1):
        np.bitwise_and(whole, mask, out=out[:, field])
        whole >>= digit
    out[:, -1] = whole
    # CK-5.3; CK-5.7: whether it fits or not, the work is the same.
    fits = int(out.max()) <= added * ((1 << params.bits) - 1)
    values = out.astype(np.uint32).reshape(len(plain), -1)
    if not fits:
        raise SumOutOfRange(COMBINER, f"a decrypted value is no sum of {added} sites' values")
    return values, noise


def check_noise(noise: Noise, added: int) -> None:
    """Return when ``noise``, (k, N), is as large as that of ``added`` ciphertexts (CK-5.4).

    In each chunk. Raises :class:`BadNoise`.
    """
    size = np.sqrt(np.einsum("ij,ij->i", noise, noise) / noise.shape[1])
    expected = np.sqrt(added * NOISE_VARIANCE)
    bounded = int(np.abs(noise).max()) <= added * NOISE_BOUND
    if not bounded or float(np.abs(size / expected - 1).max()) > NOISE_TOLERANCE:
        raise BadNoise(COMBINER, "the noise of the decrypted sum is not that of its ciphertexts")
