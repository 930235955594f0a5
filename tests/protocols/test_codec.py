from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_protocols import codec
from fedbcs_protocols.codec import Segment
from fedbcs_protocols.errors import LocalError, SumOutOfRange
from fedbcs_protocols.ring import modulus_mask, ring_bits

bit_widths = st.integers(8, 24)
exponents = st.integers(-80, 80)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def quantise(
    values: NDArray[np.float32], exponent: int, bits: int, words: NDArray[np.uint16]
) -> codec.Quantised:
    return codec.quantise(values, [Segment("all", 0, values.size)], [exponent], bits, words)


def oracle(value: float, exponent: int, bits: int, word: int) -> tuple[int, bool]:
    """CO-3 with exact fractions: the code, and whether it was clipped."""
    limit = 2 ** (bits - 1) - 1
    steps = Fraction(value) / Fraction(2) ** (exponent - bits + 1)
    rounded = math.floor(steps + Fraction(2 * word + 1, 2**17))
    clipped = max(-limit, min(limit, rounded))
    return clipped + limit, clipped != rounded


@given(
    st.lists(st.tuples(floats, st.integers(0, 2**16 - 1)), min_size=1, max_size=40),
    exponents,
    bit_widths,
)
def test_quantise_against_fractions(
    pairs: list[tuple[float, int]], exponent: int, bits: int
) -> None:
    values = np.array([value for value, _ in pairs], np.float32)
    words = np.array([word for _, word in pairs], np.uint16)
    expected = [
        oracle(float(value), exponent, bits, word)
        for value, (_, word) in zip(values, pairs, strict=True)
    ]
    out = quantise(values, exponent, bits, words)
    assert out.codes.tolist() == [code for code, _ in expected]
    assert out.clipped == sum(clipped for _, clipped in expected)


@given(st.integers(-(2**16), 2**16), st.integers(-3, 3), st.integers(0, 2**16 - 1), bit_widths)
def test_floor_is_exact_where_it_is_close(level: int, nudge: int, word: int, bits: int) -> None:
    """x + u within a few units in the last place of an integer: the worst place for rounding."""
    close = np.float32(level - (2 * word + 1) / 2**17)
    for _ in range(abs(nudge)):
        close = np.nextafter(close, np.float32(math.copysign(math.inf, nudge)))
    out = quantise(np.array([close]), bits - 1, bits, np.array([word], np.uint16))
    assert out.codes[0] == oracle(float(close), bits - 1, bits, word)[0]


@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 0.5, -7.75, 100.001, -1e-6, 2.0**-17, 126.99])
def test_rounding_is_unbiased(value: float) -> None:
    """Over all 2^16 words the mean is the value, up to half the resolution of the word."""
    words = np.arange(2**16, dtype=np.uint16)
    values = np.full(2**16, value, np.float32)
    codes = quantise(values, 15, 16, words).codes.astype(np.int64) - (2**15 - 1)
    assert abs(Fraction(int(codes.sum()), 2**16) - Fraction(float(values[0]))) <= Fraction(1, 2**17)


@given(st.integers(-(2**15) + 1, 2**15 - 1), st.integers(0, 2**16 - 1))
def test_whole_steps_are_not_changed(level: int, word: int) -> None:
    out = quantise(np.array([level], np.float32), 15, 16, np.array([word], np.uint16))
    assert out.codes[0] == level + 2**15 - 1
    assert out.clipped == 0


@given(bit_widths, st.integers(1, 64))
def test_the_largest_contributions_do_not_wrap(bits: int, sites: int) -> None:
    huge = quantise(np.full(3, 1e30, np.float32), 0, bits, np.zeros(3, np.uint16))
    assert huge.clipped == 3
    assert huge.codes.tolist() == [2**bits - 2] * 3
    total = huge.codes.astype(np.uint64) * sites
    assert int(total.max()) <= int(modulus_mask(ring_bits(bits, sites)))
    centred = codec.centred_sum(total.astype(np.uint32), sites, bits)
    assert centred.tolist() == [sites * (2 ** (bits - 1) - 1)] * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 20_000, 39_999])
def test_what_is_not_finite_is_refused(bad: float, position: int) -> None:
    values = np.zeros(40_000, np.float32)
    values[position] = bad
    with pytest.raises(LocalError, match="'all' holds a value that is not finite"):
        quantise(values, 0, 16, np.zeros(40_000, np.uint16))


def test_segments_have_their_own_steps() -> None:
    values = np.array([1.0, 0.25, 0.25], np.float32)
    segments = [Segment("a", 0, 1), Segment("b", 1, 2)]
    out = codec.quantise(values, segments, [1, -1], 8, np.zeros(3, np.uint16))
    assert (out.codes.astype(int) - 127).tolist() == [64, 64, 64]
    back = codec.dequantise_sum(out.codes, 1, segments, [1, -1], 8)
    assert back.dtype == np.float64
    assert back.tolist() == [1.0, 0.25, 0.25]


@given(st.lists(st.integers(0, 5 * (2**16 - 2)), min_size=1, max_size=20), exponents)
def test_dequantise_is_exact(total: list[int], exponent: int) -> None:
    out = codec.dequantise_sum(
        np.array(total, np.uint32), 5, [Segment("a", 0, len(total))], [exponent], 16
    )
    step = Fraction(2) ** (exponent - 15)
    assert [Fraction(float(v)) for v in out] == [(t - 5 * (2**15 - 1)) * step for t in total]


def test_a_sum_out_of_range_is_the_combiners_fault() -> None:
    total = np.array([0, 3 * (2**16 - 2) + 1], np.uint32)
    with pytest.raises(SumOutOfRange) as caught:
        codec.centred_sum(total, 3, 16)
    assert caught.value.sender == "@combiner"
    assert codec.centred_sum(total[:1], 3, 16).tolist() == [-3 * (2**15 - 1)]


def test_misuse() -> None:
    values, words = np.zeros(4, np.float32), np.zeros(4, np.uint16)
    whole = [Segment("a", 0, 4)]
    bad_pairs: list[tuple[Any, Any]] = [
        (values.astype(np.float64), words),
        (values.reshape(2, 2), words.reshape(2, 2)),
        (values, words[:3]),
        (values, words.astype(np.uint32)),
    ]
    for bad_values, bad_words in bad_pairs:
        with pytest.raises(LocalError):
            codec.quantise(bad_values, whole, [0], 16, bad_words)
    for segments, exponent_list in (
        (whole, []),
        ([Segment("a", 0, 3)], [0]),
        ([Segment("a", 1, 3)], [0]),
        ([Segment("a", 0, 3), Segment("b", 2, 2)], [0, 0]),
        (whole, [81]),
        (whole, [-81]),
    ):
        with pytest.raises(LocalError):
            codec.quantise(values, segments, exponent_list, 16, words)
    for bits in (7, 25):
        with pytest.raises(LocalError, match="bits"):
            codec.quantise(values, whole, [0], bits, words)
    for start, length in ((-1, 1), (0, 0)):
        with pytest.raises(LocalError):
            Segment("a", start, length)
    wrong_type: Any = np.zeros(1, np.int64)
    with pytest.raises(LocalError):
        codec.centred_sum(np.zeros(1, np.uint32), 0, 16)
    with pytest.raises(LocalError):
        codec.centred_sum(wrong_type, 1, 16)


def range_oracle(sums: list[int], step: int, factor: int) -> int:
    """The least e in -80..80 with 4^e >= factor²·mean(s²)·4^step, by counting."""
    square = Fraction(factor**2 * sum(s * s for s in sums), len(sums)) * Fraction(4) ** step
    return next(e for e in range(-80, 81) if Fraction(4) ** e >= square or e == 80)


@given(
    st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=30).filter(any),
    st.integers(-103, 70),
    st.sampled_from([1, 2, 6, 10, 100]),
)
def test_range_exponent_against_fractions(sums: list[int], step: int, factor: int) -> None:
    out = codec.range_exponent(np.array(sums, np.int64), step, previous=5, factor=factor)
    assert out == range_oracle(sums, step, factor)


@given(st.integers(0, 15), st.integers(-20, 20), st.integers(1, 9))
def test_range_exponent_at_a_power_of_two(power: int, step: int, count: int) -> None:
    """Exactly on the border the smaller exponent is taken, one beyond it the next."""
    sums = np.full(count, 2**power, np.int64)
    assert codec.range_exponent(sums, step, previous=0, factor=1) == power + step
    sums[0] += 1
    assert codec.range_exponent(sums, step, previous=0, factor=1) == power + step + 1


def test_a_silent_segment_keeps_its_range() -> None:
    assert codec.range_exponent(np.zeros(9, np.int64), -30, previous=-7) == -7


def test_range_exponent_has_a_floor_and_a_ceiling() -> None:
    one = np.ones(1, np.int64)
    assert codec.range_exponent(one, -100, previous=0) == -80
    assert codec.range_exponent(one, -50, previous=0, floor=-20) == -20
    assert codec.range_exponent(one * 2**31, 70, previous=0) == 80


def test_squares_do_not_overflow() -> None:
    sums = np.full(100_000, -(2**32) + 1, np.int64)
    assert codec.range_exponent(sums, 0, previous=0, factor=1) == 32


def test_misuse_of_range_exponent() -> None:
    good = np.ones(3, np.int64)
    bad: list[Any] = [good[:0], good.astype(np.int32), good.reshape(1, 3), good * 2**32]
    for values in bad:
        with pytest.raises(LocalError):
            codec.range_exponent(values, 0, previous=0)
    with pytest.raises(LocalError):
        codec.range_exponent(good, 0, previous=0, factor=0)
    with pytest.raises(LocalError):
        codec.range_exponent(good, 0, previous=0, floor=-81)
