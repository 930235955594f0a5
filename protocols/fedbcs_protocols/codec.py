"""Fixed point: float32 to integers and back, the same to the bit on every machine.

A segment of the vector (a tensor) has a range 2^e and a step 2^(e - bits + 1). A value x becomes

    q = floor(x / step + u),   u = (w + 1/2) / 2^16,   w a uniform 16-bit word

clipped to ±L with L = 2^(bits-1) - 1, and travels as q + L in 0..2L (offset binary). The rounding
is unbiased up to half the resolution of u: |E[q] - x/step| <= 2^-17; an exact multiple of the step
stays what it is. All arithmetic is exact (float64 holds every intermediate value that decides a
result), no floating-point sum is taken, so the order of operations cannot matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import LocalError, SumOutOfRange
from fedbcs_protocols.ring import Words

MIN_BITS, MAX_BITS = 8, 24
MIN_EXPONENT, MAX_EXPONENT = -80, 80
"""Bounds of a range exponent. Far outside what updates need, and steps stay so far above float32's
subnormal numbers that a processor which flushes those to zero gives the same codes."""

_CHUNK = 1 << 14


@dataclass(frozen=True)
class Segment:
    """A named run of the vector with a range of its own: values ``start`` to ``start + length``."""

    name: str
    start: int
    length: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 1:
            raise LocalError(f"segment {self.name!r} must have start >= 0 and length >= 1")

    @property
    def place(self) -> slice:
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True, eq=False, repr=False)
class Quantised:
    """``codes`` (P,) uint32 in 0..2L, and how many values were ``clipped`` (stays at the site)."""

    codes: Words
    clipped: int


def levels(bits: int) -> int:
    """L = 2^(bits-1) - 1, the largest magnitude in steps, and the offset of the code."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise LocalError(f"the codec has {MIN_BITS} to {MAX_BITS} bits, asked for {bits}")
    return (1 << (bits - 1)) - 1


def step_exponent(range_exponent: int, bits: int) -> int:
    """The exponent of the step, e - bits + 1, of a range 2^e."""
    levels(bits)
    if not MIN_EXPONENT <= range_exponent <= MAX_EXPONENT:
        raise LocalError(f"a range exponent is in {MIN_EXPONENT}..{MAX_EXPONENT}")
    return range_exponent - bits + 1


def check_segments(segments: Sequence[Segment], exponents: Sequence[int], count: int) -> None:
    """Return when the segments cover 0..count without gap or overlap, one exponent each.

    Raises :class:`LocalError`.
    """
    if len(segments) != len(exponents):
        raise LocalError(f"{len(segments)} segments but {len(exponents)} exponents")
    position = 0
    for segment in segments:
        if segment.start != position:
            raise LocalError(f"segment {segment.name!r} starts at {segment.start}, not {position}")
        position += segment.length
    if position != count:
        raise LocalError(f"the segments cover {position} values, the vector has {count}")


def quantise(
    values: NDArray[np.float32],
    segments: Sequence[Segment],
    exponents: Sequence[int],
    bits: int,
    words: NDArray[np.uint16],
) -> Quantised:
    """Codes of (P,) float32 ``values`` under range exponents, rounded by (P,) uint16 ``words``.

    ``words`` come from a public stream, so that the same update gives the same integers whatever
    carries them. Raises :class:`LocalError` for a value that is not finite and for shapes, types
    or segments that do not fit.
    """
    limit = levels(bits)
    if values.dtype != np.float32 or values.ndim != 1:
        raise LocalError("only a one-dimensional float32 vector can be quantised")
    if words.dtype != np.uint16 or words.shape != values.shape:
        raise LocalError("rounding needs one uint16 word a value")
    check_segments(segments, exponents, values.size)
    scales = [math.ldexp(1.0, -step_exponent(e, bits)) for e in exponents]

    codes = np.empty(values.size, np.uint32)
    signed = codes.view(np.int32)
    work = np.empty(_CHUNK, np.float64)
    dither = np.empty(_CHUNK, np.float64)
    clipped = 0
    for segment, scale in zip(segments, scales, strict=True):
        end = segment.start + segment.length
        for start in range(segment.start, end, _CHUNK):
            where = slice(start, min(start + _CHUNK, end))
            y = work[: where.stop - start]
            u = dither[: y.size]
            np.multiply(values[where], scale, out=y, dtype=np.float64)
            np.multiply(words[where], 2.0**-16, out=u, dtype=np.float64)
            np.add(u, 2.0**-17, out=u)
            # The offset is not added before the floor: with it the sum would need over 53 bits.
            np.add(y, u, out=y)
            np.floor(y, out=y)
            low, high = float(y.min()), float(y.max())
            # CO-3.4: what is not finite never leaves the site.
            if not (math.isfinite(low) and math.isfinite(high)):
                raise LocalError(
                    f"segment {segment.name!r} holds a value that is not finite; "
                    "the update must not be sent"
                )
            if low < -limit or high > limit:
                clipped += int(np.count_nonzero(np.abs(y) > limit))
                np.clip(y, -limit, limit, out=y)
            np.add(y, limit, out=y)
            np.copyto(signed[where], y, casting="unsafe")
    return Quantised(codes, clipped)


def centred_sum(total: Words, sites: int, bits: int) -> NDArray[np.int64]:
    """The signed sum in steps, (P,) int64: ``total`` - sites·L.

    Raises :class:`SumOutOfRange` when a value exceeds sites·2L, which no sum of honest codes does.
    A sum in range is not thereby right: this is no integrity check.
    """
    limit = levels(bits)
    if sites < 1:
        raise LocalError(f"a sum needs at least one site, got {sites}")
    if total.dtype != np.uint32 or total.ndim != 1:
        raise LocalError("a sum is a one-dimensional uint32 vector")
    # CO-4.2
    if total.size and int(total.max()) > 2 * limit * sites:
        raise SumOutOfRange(COMBINER, f"a sum of {sites} contributions is out of range")
    centred = total.astype(np.int64)
    centred -= sites * limit
    return centred


def dequantise_sum(
    total: Words,
    sites: int,
    segments: Sequence[Segment],
    exponents: Sequence[int],
    bits: int,
) -> NDArray[np.float64]:
    """The sum of the sites' values, (P,) float64: (total - sites·L)·step, exact.

    Raises as :func:`centred_sum` and :func:`check_segments`.
    """
    check_segments(segments, exponents, total.size)
    out = centred_sum(total, sites, bits).astype(np.float64)
    for segment, exponent in zip(segments, exponents, strict=True):
        out[segment.place] *= math.ldexp(1.0, step_exponent(exponent, bits))
    return out


def range_exponent(
    centred: NDArray[np.int64],
    step_exponent: int,
    *,
    previous: int,
    factor: int = 10,
    floor: int = MIN_EXPONENT,
) -> int:
    """The next range exponent of a segment: the least e with 2^e >= factor · rms(sum · step).

    ``centred`` is the segment's signed sum in steps (:func:`centred_sum`), ``step_exponent`` the
    exponent of the step it was sent with. Decided by integers alone, as
    2^(2e) · N >= factor² · Σ s² · 2^(2 step_exponent), so all parties agree to the bit. An all-zero
    segment says nothing about its scale and keeps ``previous``. The result is kept within ``floor``
    and ``MAX_EXPONENT``. Raises :class:`LocalError` for an empty segment or a sum beyond 32 bits.
    """
    if factor < 1 or not MIN_EXPONENT <= floor <= MAX_EXPONENT:
        raise LocalError("the range factor is at least 1, and its floor a range exponent")
    squares = _sum_of_squares(centred)
    if squares == 0:
        return previous
    numerator, denominator = factor * factor * squares, centred.size
    # The least k with 2^k >= numerator / denominator; then 2e >= k + 2 step_exponent.
    k = numerator.bit_length() - denominator.bit_length() - 1
    while not _at_least(k, numerator, denominator):
        k += 1
    exponent = step_exponent + -(-k // 2)
    return max(floor, min(exponent, MAX_EXPONENT))


def _at_least(k: int, numerator: int, denominator: int) -> bool:
    if k >= 0:
        return denominator << k >= numerator
    return denominator >= numerator << -k


def _sum_of_squares(values: NDArray[np.int64]) -> int:
    """Σ v² as a Python integer, exact: halves of 32 bits are summed apart and cannot overflow."""
    if values.size == 0 or values.dtype != np.int64 or values.ndim != 1:
        raise LocalError("a segment's sum is a non-empty one-dimensional int64 vector")
    if int(values.max()) >= 1 << 32 or int(values.min()) <= -(1 << 32):
        raise LocalError("a segment's sum is beyond 32 bits, which no ring here can give")
    high = low = 0
    for start in range(0, values.size, _CHUNK):
        piece = np.abs(values[start : start + _CHUNK]).astype(np.uint64)
        np.multiply(piece, piece, out=piece)
        high += int((piece >> np.uint64(32)).sum(dtype=np.uint64))
        low += int((piece & np.uint64(0xFFFFFFFF)).sum(dtype=np.uint64))
    return (high << 32) + low
