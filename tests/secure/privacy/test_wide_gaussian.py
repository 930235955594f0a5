"""Wide noise: its table and its convolution against exact arithmetic, its draws by chi-square.

Statistical tests read fixed streams. Their thresholds are set for a false alarm in 10^6.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.discrete_gaussian import discrete_gaussian, log_mass
from fedbcs_secure.privacy.randomness import KEY_BYTES, SecretStream
from fedbcs_secure.privacy.wide_gaussian import (
    BASE_WIDTH,
    DISTANCE,
    FACTOR,
    TAIL_BITS,
    WIDTH,
    WIDTH_SQUARED,
    base_table,
    closeness,
    wide_gaussian,
)

FALSE_ALARM = 1e-6
REACH = 17 * BASE_WIDTH
COUNT = 1 << 20


class Scripted(SecretStream):
    """Hands out the words it is given."""

    def __init__(self, words: list[int]) -> None:
        super().__init__(bytes(KEY_BYTES), private=False)
        self.words = list(words)

    def words64(self, count: int) -> NDArray[np.uint64]:
        head, self.words = self.words[:count], self.words[count:]
        return np.array(head, np.uint64)


@pytest.fixture(scope="module")
def drawn() -> NDArray[np.int64]:
    return wide_gaussian(COUNT, SecretStream.for_tests(1))


def p_value(observed: NDArray[np.int64], expected: NDArray[np.float64] | float) -> float:
    statistic = float((np.square(observed - expected) / expected).sum())
    return float(chi2.sf(statistic, len(observed) - 1))


def quantiles_p_value(values: NDArray[np.int64]) -> float:
    """256 bins of equal mass; the widths of their steps, 1e-6 W, are below what shows."""
    edges = WIDTH * norm.ppf(np.arange(1, 256) / 256)
    observed = np.bincount(np.searchsorted(edges, values), minlength=256)
    return p_value(observed, len(values) / 256)


def test_the_width_is_what_it_says() -> None:
    assert Fraction(2**20 * (1 + 2**18)) == WIDTH_SQUARED
    assert math.isclose(WIDTH**2, WIDTH_SQUARED)
    assert 2**19 < WIDTH < 2**19 + 2
    assert math.gcd(1, FACTOR) == 1


def test_smoothing_condition() -> None:
    with mpmath.workdps(60):
        tau2 = mpmath.mpf(BASE_WIDTH**2) / (1 + FACTOR**2)
        assert tau2 > 3.99998
        theta = 2 * mpmath.fsum(mpmath.exp(-2 * mpmath.pi**2 * tau2 * m * m) for m in range(1, 6))
        assert theta < mpmath.mpf(2) ** -112.9
        both = mpmath.log((1 + theta) / (1 - theta))
        assert both < mpmath.mpf(2) ** -111.8
        assert both + mpmath.mpf(2) ** -149 < DISTANCE
        cut = 4 * mpmath.exp(-(mpmath.mpf(17) ** 2) / 2)
        assert cut < mpmath.mpf(2) ** -(TAIL_BITS + 1)


def test_the_convolution_is_a_discrete_gaussian() -> None:
    """All pairs that make x, summed: the mass over exp(-x²/2W²) is the same for all x."""
    rng = np.random.default_rng(1)
    places = [0, 1, 255, 256, 511, 10**6, *map(int, rng.integers(-5 * 10**6, 5 * 10**6, 40))]
    with mpmath.workdps(80):
        unit = mpmath.mpf(2 * BASE_WIDTH**2)
        logs = []
        for x in places:
            centre = x // FACTOR
            pairs = [(x - FACTOR * j, j) for j in range(centre - 40, centre + 41)]
            terms = [mpmath.exp(-(a * a + b * b) / unit) for a, b in pairs]
            scaled = mpmath.exp(-mpmath.mpf(x * x) / (2 * WIDTH_SQUARED.numerator))
            logs.append(mpmath.log(mpmath.fsum(terms) / scaled))
        assert 0 < max(logs) - min(logs) < DISTANCE


def test_the_table_is_exact() -> None:
    table = base_table()
    edges = [0, *table.cumulative, 1 << 384]
    assert len(edges) == 2 * REACH + 2
    with mpmath.workprec(460):
        weights = [mpmath.exp(mpmath.mpf(-x * x) / (2 * BASE_WIDTH**2)) for x in range(REACH + 1)]
        total = 2 * mpmath.fsum(weights) - 1
        unit = mpmath.mpf(2) ** 384 / total
        limit = mpmath.mpf(2) ** -150
        for x in range(-REACH, REACH + 1):
            exact = weights[abs(x)] * unit
            held = edges[x + REACH + 1] - edges[x + REACH]
            assert abs(held - exact) < limit * exact, x


def at_uniform(uniform: int) -> int:
    """The value at uniform · 2^-384, as the sampler finds it."""
    words = [uniform >> 64 * i & (2**64 - 1) for i in range(5, -1, -1)]
    first = np.array(words[:1], np.uint64)
    return int(base_table().invert(first, Scripted(words[1:]))[0])


@settings(max_examples=300)
@given(st.integers(0, 2 * REACH - 1), st.integers(-2, 2), st.sampled_from([0, 64, 320, 330]))
def test_inversion_at_the_edges(index: int, step: int, bits: int) -> None:
    cumulative = base_table().cumulative
    uniform = min(max(cumulative[index] + (step << bits), 0), (1 << 384) - 1)
    assert at_uniform(uniform) == bisect_right(cumulative, uniform) - REACH


@given(st.integers(0, (1 << 384) - 1))
def test_inversion_anywhere(uniform: int) -> None:
    assert at_uniform(uniform) == bisect_right(base_table().cumulative, uniform) - REACH


def test_inversion_at_the_ends() -> None:
    assert at_uniform(0) == -REACH
    assert at_uniform((1 << 384) - 1) == REACH
    # Words that no mass shares need no more.
    assert base_table().invert(np.array([1 << 63], np.uint64), Scripted([])).tolist() == [0]


def test_moments(drawn: NDArray[np.int64]) -> None:
    scaled = drawn / WIDTH
    assert drawn.dtype == np.int64
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (scaled**power).mean() - expected
        assert abs(error) < 5 * math.sqrt(variance / COUNT), power
    neighbours = float(np.mean(scaled[1:] * scaled[:-1]))
    assert abs(neighbours) < 5 / math.sqrt(COUNT)


def test_quantiles(drawn: NDArray[np.int64]) -> None:
    assert quantiles_p_value(drawn) > FALSE_ALARM


@pytest.mark.parametrize("modulus", [2, 16, 509, FACTOR, 2 * FACTOR, 4096])
def test_low_digits_are_uniform(drawn: NDArray[np.int64], modulus: int) -> None:
    observed = np.bincount(drawn % modulus, minlength=modulus)
    assert p_value(observed, COUNT / modulus) > FALSE_ALARM


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_five_percent_in_scale_are_caught(drawn: NDArray[np.int64], factor: float) -> None:
    few = drawn[: 1 << 16]
    assert quantiles_p_value(few) > FALSE_ALARM
    assert quantiles_p_value(np.rint(few * factor).astype(np.int64)) < FALSE_ALARM


def test_the_base_is_the_base(drawn: NDArray[np.int64]) -> None:
    """The table's draws by the exact sampler's, in two-sample chi-square."""
    words = SecretStream.for_tests(2).words64(100_000)
    ours = base_table().invert(words, SecretStream.for_tests(3))
    exact = discrete_gaussian(Fraction(BASE_WIDTH**2), 100_000, SecretStream.for_tests(4))
    edges = BASE_WIDTH * norm.ppf(np.arange(1, 200) / 200)
    counts = [np.bincount(np.searchsorted(edges, x), minlength=200) for x in (ours, exact)]
    statistic = float((np.square(counts[0] - counts[1]) / (counts[0] + counts[1])).sum())
    assert chi2.sf(statistic, 199) > FALSE_ALARM


def test_noise_is_not_reused() -> None:
    stream = SecretStream.for_tests(5)
    first, second = wide_gaussian(100_000, stream), wide_gaussian(100_000, stream)
    again = wide_gaussian(100_000, SecretStream.for_tests(5))

    def correlated(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
        return bool(abs(np.corrcoef(a, b)[0, 1]) > 5 / math.sqrt(len(a)))

    assert not correlated(first, second)
    # Nor one batch after the other.
    assert not correlated(first[:30_000], first[1 << 15 : (1 << 15) + 30_000])
    assert correlated(first, again)
    assert np.array_equal(first, again)
    assert not np.array_equal(wide_gaussian(4), wide_gaussian(4))


def test_counts() -> None:
    assert wide_gaussian(0).shape == (0,)
    assert wide_gaussian((1 << 15) + 1).shape == ((1 << 15) + 1,)
    with pytest.raises(PrivacyError, match="0 or more"):
        wide_gaussian(-1)


def log_ratio(z: int) -> mpmath.mpf:
    """log P(R = z)/N_Z(z) of closeness, to 60 digits."""
    with mpmath.workdps(70):
        w = mpmath.sqrt(WIDTH_SQUARED.numerator)
        half = mpmath.mpf(0.5)
        rounded = mpmath.ncdf((half - z) / w) - mpmath.ncdf((-half - z) / w)
        return mpmath.log(rounded * w / mpmath.npdf(z / w))


def test_one_coordinates_log_ratio() -> None:
    """The expansion that closeness rests on, against masses to 70 digits."""
    w2 = mpmath.mpf(WIDTH_SQUARED.numerator)
    for z in (0, 1, 1000, 524289, 10**6, 5 * 10**6, 10**7):
        with mpmath.workdps(70):
            q = z * z / w2
            error = log_ratio(z) - (q - 1) / (24 * w2)
            assert -(q**2) / (960 * w2**2) <= error <= (q - 1) ** 2 / (512 * w2**2)


@pytest.mark.parametrize("dimension", [1 << 16, 1 << 24])
@pytest.mark.parametrize("side", [-1, 1])
def test_closeness_is_met_and_not_wide(dimension: int, side: int) -> None:
    """A noise as short, or as long, as the proof lets it be: all coordinates of one size."""
    eta = closeness(dimension)[0] / 2
    t = 105
    spread = 2 * math.sqrt(dimension * t) + (2 * t if side > 0 else 0)
    z = round(WIDTH * math.sqrt(1 + side * spread / dimension))
    total = side * dimension * log_ratio(z)
    assert 0.9 * eta < total < eta


@pytest.mark.parametrize("dimension", [1, 20, 500])
def test_closeness_by_simulation(dimension: int) -> None:
    """With a width of 4, where the two differ visibly, no sum of log ratios is above the bound."""
    sigma2 = Fraction(16)
    bound = closeness(dimension, sigma2)[0] / 2
    count = 200_000 // dimension * dimension
    rng = np.random.default_rng(1)
    rounded = np.rint(4 * rng.standard_normal(count)).astype(np.int64)
    discrete = discrete_gaussian(sigma2, count, SecretStream.for_tests(6))
    support = np.arange(-40, 41)
    masses = norm.sf((np.abs(support) - 0.5) / 4) - norm.sf((np.abs(support) + 0.5) / 4)
    ratios = np.log(masses) - log_mass(sigma2, support)
    for values in (rounded, discrete):
        sums = ratios[values + 40].reshape(-1, dimension).sum(axis=1)
        assert np.abs(sums).max() < bound
    assert bound < 100 * np.abs(sums).max()


def test_closeness_figures() -> None:
    for bits in (20, 24, 26):
        epsilon, delta = closeness(1 << bits)
        assert epsilon < 2.0 ** (bits / 2 - 37)
        assert delta < 2.0**-102
    figures = [closeness(1 << bits) for bits in range(31)]
    assert figures == sorted(figures)
    assert closeness(1)[0] > 0
    for wrong in (0, -1, (1 << 30) + 1):
        with pytest.raises(PrivacyError, match="from 1 to"):
            closeness(wrong)
    with pytest.raises(PrivacyError, match="16 or more"):
        closeness(1, Fraction(15))


@pytest.mark.parametrize("before", [1, 2, 9])
def test_shares_add_up_to_a_discrete_gaussian(before: int) -> None:
    """One more share of variance 16 beside the sum of those before, as if that were exact."""
    share, rest = 16, 16 * before
    with mpmath.workdps(120):
        logs = []
        for x in range(-50, 51, 7):
            # The middle of the terms' Gaussian, and 75 deviations on each side.
            middle = x * share // (share + rest)
            terms = (
                mpmath.exp(-mpmath.mpf(j * j) / (2 * share) - mpmath.mpf((x - j) ** 2) / (2 * rest))
                for j in range(middle - 300, middle + 301)
            )
            logs.append(mpmath.log(mpmath.fsum(terms)) + mpmath.mpf(x * x) / (2 * (share + rest)))
        assert 0 < max(logs) - min(logs) < mpmath.mpf(2) ** -225
        assert 2**20 * mpmath.mpf(2) ** -225 < DISTANCE / 1000
