"""The discrete Gaussian: exact where that can be enumerated, else by chi-square and an oracle.

Statistical tests read fixed streams. Their thresholds are set for a false alarm in 10^6.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import opendp.prelude as dp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy import discrete_gaussian as module
from fedbcs_secure.privacy.discrete_gaussian import (
    MAX_DENOMINATOR,
    MAX_NUMERATOR,
    REACH,
    discrete_gaussian,
    exp_minus,
    log_mass,
    mass,
    round_up,
    tail,
)
from fedbcs_secure.privacy.randomness import KEY_BYTES, SecretStream

FALSE_ALARM = 1e-6
SCALES = [Fraction(1, 4), Fraction(16), Fraction(8193, 2), Fraction(10**8)]
COUNT = 100_000

variances = st.one_of(
    st.builds(Fraction, st.integers(1, MAX_NUMERATOR), st.integers(1, MAX_DENOMINATOR)),
    st.fractions(0, 4, max_denominator=MAX_DENOMINATOR).filter(bool),
    st.sampled_from(
        [Fraction(1, MAX_DENOMINATOR), Fraction(MAX_NUMERATOR), Fraction(MAX_NUMERATOR - 1, 3)]
    ),
)


class ScriptEnded(Exception):
    """More words were asked for than the script has."""


class Scripted(SecretStream):
    """Hands out the words it is given."""

    def __init__(self, words: tuple[int, ...]) -> None:
        super().__init__(bytes(KEY_BYTES), private=False)
        self.words = words

    def words64(self, count: int) -> NDArray[np.uint64]:
        if count > len(self.words):
            raise ScriptEnded
        head, self.words = self.words[:count], self.words[count:]
        return np.array(head, np.uint64)


def p_value(values: NDArray[np.int64], sigma2: Fraction) -> float:
    """Chi-square against the mass function, in up to 200 bins of at least 10 expected values."""
    reach = math.ceil(10 * math.sqrt(sigma2)) + 2
    support = np.arange(-reach, reach + 1)
    expected = mass(sigma2, support) * len(values)
    bins = np.floor(np.cumsum(expected) / max(20, len(values) / 200)).astype(np.int64)
    _, bins = np.unique(bins, return_inverse=True)
    observed = np.bincount(bins[np.clip(values, -reach, reach) + reach], minlength=bins[-1] + 1)
    wanted = np.bincount(bins, expected)
    # What is left at the right end joins its neighbour.
    while wanted[-1] < 10:
        wanted[-2] += wanted[-1]
        observed[-2] += observed[-1]
        wanted, observed = wanted[:-1], observed[:-1]
    assert wanted.min() >= 10
    statistic = float((np.square(observed - wanted) / wanted).sum())
    return float(chi2.sf(statistic, len(wanted) - 1))


def repeats(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether two draws are correlated, beyond 5 standard deviations (a chance of 6e-7)."""
    return bool(abs(np.corrcoef(first, second)[0, 1]) > 5 / math.sqrt(len(first)))


@pytest.mark.parametrize("sigma2", SCALES)
def test_chi_square(sigma2: Fraction) -> None:
    values = discrete_gaussian(sigma2, COUNT, SecretStream.for_tests(1))
    assert values.shape == (COUNT,)
    assert values.dtype == np.int64
    assert p_value(values, sigma2) > FALSE_ALARM


@pytest.mark.parametrize("sigma2", SCALES)
@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_five_percent_in_scale_are_caught(sigma2: Fraction, factor: float) -> None:
    wrong = round_up(sigma2 * Fraction(factor) ** 2)
    values = discrete_gaussian(wrong, COUNT, SecretStream.for_tests(2))
    assert p_value(values, wrong) > FALSE_ALARM
    assert p_value(values, sigma2) < FALSE_ALARM


@pytest.mark.parametrize("sigma2", SCALES)
def test_moments(sigma2: Fraction) -> None:
    values = discrete_gaussian(sigma2, COUNT, SecretStream.for_tests(3)).astype(np.float64)
    support = np.arange(-200, 201)
    variance = float(sigma2)
    if sigma2 < 100:
        variance = float((mass(sigma2, support) * support**2.0).sum())
    fourth = 3 * variance**2 + variance
    assert abs(values.mean()) < 5 * math.sqrt(variance / COUNT)
    assert abs(np.square(values).mean() - variance) < 5 * math.sqrt(fourth / COUNT)
    # As many above 0 as below.
    signs = np.sign(values)
    assert abs(signs.sum()) < 5 * math.sqrt(np.abs(signs).sum())


def test_reused_noise_is_caught() -> None:
    stream = SecretStream.for_tests(4)
    first, second = (discrete_gaussian(Fraction(16), 1000, stream) for _ in range(2))
    other = discrete_gaussian(Fraction(16), 1000, SecretStream.for_tests(5))
    again = discrete_gaussian(Fraction(16), 1000, SecretStream.for_tests(4))
    assert not repeats(first, second)
    assert not repeats(first, other)
    assert repeats(first, again)
    assert repeats(first, again // 2 + second)


@pytest.mark.parametrize("sigma", [0.75, 4.0])
def test_opendp_agrees(sigma: float) -> None:
    """Two-sample chi-square with OpenDP's sampler, which has no seed: false alarms 10^-9."""
    count = 20_000
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    theirs = np.array(dp.m.make_gaussian(*space, scale=sigma)([0] * count))
    ours = discrete_gaussian(Fraction(sigma) ** 2, count, SecretStream.for_tests(6))
    edge = math.floor(3 * sigma)
    counts = [
        np.bincount(np.clip(values, -edge, edge) + edge, minlength=2 * edge + 1)
        for values in (ours, theirs)
    ]
    both = counts[0] + counts[1]
    assert both.min() >= 20
    statistic = float((np.square(counts[0] - counts[1]) / both).sum())
    assert chi2.sf(statistic, 2 * edge) > 1e-9


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 1), (1, 1), (1, 2), (1, 3), (2, 3)])
def test_coins_are_exact(numerator: int, denominator: int) -> None:
    """All sequences of four integers: the mass of each outcome is the series' partial sum."""
    depth = 4
    masses = {True: Fraction(0), False: Fraction(0), None: Fraction(0)}
    sizes = [k * denominator for k in range(1, depth + 1)]
    for words in itertools.product(*map(range, sizes)):
        try:
            found = exp_minus(np.array([numerator]), denominator, Scripted(words))
            outcome = bool(found[0])
        except ScriptEnded:
            outcome = None
        masses[outcome] += Fraction(1, math.prod(sizes))
    gamma = Fraction(numerator, denominator)
    terms = [gamma**k / math.factorial(k) for k in range(depth + 1)]
    assert masses[True] == terms[0] - terms[1] + terms[2] - terms[3]
    assert masses[False] == terms[1] - terms[2] + terms[3] - terms[4]
    assert masses[None] == terms[4]


def test_coins_of_one_call_are_independent() -> None:
    """Each lane reads its own words, in turn: first all first coins, then those that go on."""
    # Lane 0: 0 < 1, then 5 >= 1: stops at 2. Lane 1: 2 >= 1: stops at 1.
    found = exp_minus(np.array([1, 1]), 3, Scripted((0, 2, 5)))
    assert found.tolist() == [False, True]


def test_whole_exponents() -> None:
    counts = np.repeat([0, 1, 2, 5], 50_000)
    found = module._all_whole(counts, SecretStream.for_tests(7)).reshape(4, -1).sum(axis=1)
    for times, count in zip(found, [0, 1, 2, 5], strict=True):
        rate = math.exp(-count)
        assert abs(times - 50_000 * rate) <= 5 * math.sqrt(50_000 * rate * (1 - rate))


@given(variances)
def test_proposal_and_coin_make_the_gaussian(sigma2: Fraction) -> None:
    """Their exponents add up to y²/2σ² and a constant, in rationals; sizes fit into 63 bits."""
    p = module._Proposal.of(sigma2)
    constant = Fraction(p.centre**2 * p.factor, p.divisor)
    for y in (0, 1, 2, 7, 10**6):
        laplace = Fraction(y * p.per, p.scale)
        coin = Fraction((p.unit * y - p.centre) ** 2 * p.factor, p.divisor)
        assert laplace + coin - constant == y * y / (2 * sigma2)
    reach = (math.isqrt(2**62 // p.factor) + p.centre) // p.unit
    assert reach**2 >= REACH**2 * sigma2
    assert max(p.unit * reach - p.centre, p.centre) ** 2 * p.factor <= 2**62
    assert p.scale * (module._MOST_WHOLE + 1) < 2**63
    assert p.divisor * 2**10 < 2**63


@given(variances)
def test_every_variance_is_drawn(sigma2: Fraction) -> None:
    values = discrete_gaussian(sigma2, 5, SecretStream.for_tests(8))
    assert np.all(np.abs(values) <= 12 * math.sqrt(sigma2) + 1)


def test_tiny_variances_give_zeros() -> None:
    for sigma2 in (Fraction(1, 2000), Fraction(1, MAX_DENOMINATOR)):
        assert not discrete_gaussian(sigma2, 10_000).any()


def test_counts_and_streams() -> None:
    assert discrete_gaussian(Fraction(4), 0).shape == (0,)
    first, second = (discrete_gaussian(Fraction(10**6), 8) for _ in range(2))
    assert not np.array_equal(first, second)
    one = discrete_gaussian(Fraction(10**6), 8, SecretStream.for_tests(9))
    assert np.array_equal(one, discrete_gaussian(Fraction(10**6), 8, SecretStream.for_tests(9)))
    with pytest.raises(PrivacyError, match="0 or more"):
        discrete_gaussian(Fraction(4), -1)


@pytest.mark.parametrize(
    "sigma2",
    [Fraction(0), Fraction(-1), Fraction(MAX_NUMERATOR + 1), Fraction(1, MAX_DENOMINATOR + 1)],
)
def test_variances_out_of_range(sigma2: Fraction) -> None:
    with pytest.raises(PrivacyError, match="round_up"):
        discrete_gaussian(sigma2, 1)


@given(st.fractions(0, MAX_NUMERATOR).filter(bool))
def test_rounding_up(variance: Fraction) -> None:
    rounded = round_up(variance)
    assert variance <= rounded <= variance + max(Fraction(1, 2**25), variance / 2**48)
    assert rounded.numerator <= MAX_NUMERATOR
    assert rounded.denominator <= MAX_DENOMINATOR


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(-1), Fraction(MAX_NUMERATOR + 1)])
def test_rounding_up_refuses(variance: Fraction) -> None:
    with pytest.raises(PrivacyError, match="above 0"):
        round_up(variance)


@pytest.mark.parametrize("sigma2", [Fraction(1, 100), Fraction(99, 100), Fraction(1), *SCALES[:3]])
def test_mass_and_tail(sigma2: Fraction) -> None:
    with mpmath.workdps(50):
        s2 = mpmath.mpf(sigma2.numerator) / sigma2.denominator
        reach = int(16 * math.sqrt(sigma2)) + 3
        weights = [mpmath.exp(-k * k / (2 * s2)) for k in range(reach)]
        total = 2 * mpmath.fsum(weights) - 1
        for k in range(0, reach, max(1, reach // 50)):
            exact = mpmath.log(weights[k] / total)
            error = abs(mpmath.mpf(float(log_mass(sigma2, np.array([k]))[0])) - exact)
            assert error < 1e-14 * (1 + k * k / (2 * s2))
            beyond = 2 * mpmath.fsum(weights[k + 1 :]) / total
            assert beyond <= tail(sigma2, k) <= 1
    assert tail(sigma2, -1) == 1
    assert tail(sigma2, 10**9) > 0
