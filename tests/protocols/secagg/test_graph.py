from __future__ import annotations

import ast
import inspect
import secrets
from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import combinations
from math import comb, inf, lgamma, log, log2
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import binom, chisquare, hypergeom

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import graph
from fedbcs_protocols.secagg.graph import COMPLETE_UP_TO, Neighbourhood, draw, neighbourhood

FALSE_ALARM = 1e-6
TYPICAL = [(n, n - n // 10, n // 5) for n in (33, 64, 100, 200, 500, 1000)]
OTHERS = [(64, 44, 12), (64, 52, 12), (100, 80, 20), (1000, 900, 0), (64, 58, 0), (64, 64, 1)]
ONE_BIT = 1 << 32
SLACK = 2.0
"""Bits by which the rounding may make a bound in G3 or G4 too large."""


# A second way: floating point, scipy's tails and the gamma function.


def _log_comb(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -inf
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def _log_tail(others: int, marked: int, size: int, least: int) -> float:
    """log2 P[Hyp(others, marked, size) >= least]."""
    counts = np.arange(least, min(marked, size) + 1)
    if counts.size == 0:
        return -inf
    return float(logsumexp(hypergeom.logpmf(counts, others, marked, size))) / log(2)


def _thresholds(n: int, t: int, c: int, k: int) -> tuple[int, int]:
    """The least t_k by G1 and the greatest by G2."""
    counts = np.arange(k + 1)
    caught = int(np.argmax(n * hypergeom.sf(counts, n - 1, c, k) <= 2.0**-40))
    lost = int(np.argmax(n * hypergeom.sf(counts, n - 1, n - t, k) <= 2.0**-20))
    return (k + caught) // 2 + 1, k - lost


def _log_two_attempts(n: int, t: int, c: int, k: int, local: int) -> float:
    h = n - c
    one = _log_tail(n - 1, h // 2 + c, k, local)
    return _log_comb(h, h // 2) + _log_comb(h, t - c) + (t - c) * one


def _log_cuts(n: int, t: int, c: int, k: int) -> dict[int, float]:
    h, d = n - c, n - t
    every = _log_comb(n - 1, k)
    return {
        s: _log_comb(h, s)
        + _log_comb(h - s, d)
        + s * (_log_comb(s - 1 + d + c, k) - every)
        + (h - s - d) * (_log_comb(n - 1 - s, k) - every)
        for s in range(1, (h - d) // 2 + 1)
    }


def _few(n: int, c: int, k: int, most: int) -> float:
    """h·P[M + Bin <= most]."""
    h = n - c
    drawn = np.arange(k + 1)
    chance = hypergeom.pmf(k - drawn, n - 1, c, k)
    into = binom.cdf(most - drawn, np.maximum(h - 1 - drawn, 0), k / (n - 1))
    return float(h * np.sum(chance * into))


def _is_connected(n: int, t: int, c: int, k: int, slack: float = 0.0) -> bool:
    cuts = _log_cuts(n, t, c, k)
    total = 0.0
    for s in sorted(cuts, reverse=True):
        total += 2 ** min(cuts[s], 0.0)
        if total > 2.0 ** -(41 + slack):
            return bool(_few(n, c, k, n - t + s - 1) <= 2.0 ** -(41 + slack))
    return True


@pytest.mark.parametrize("setting", TYPICAL + OTHERS)
def test_the_bounds_hold_and_nothing_smaller_keeps_them(setting: tuple[int, int, int]) -> None:
    n, t, c = setting
    found = neighbourhood(*setting)
    assert not found.complete
    least, greatest = _thresholds(n, t, c, found.size)
    assert least <= found.threshold <= greatest
    assert _log_two_attempts(*setting, found.size, found.threshold) <= -40
    assert _is_connected(*setting, found.size)
    # The smallest t_k of this k.
    for local in range(least, found.threshold):
        assert _log_two_attempts(*setting, found.size, local) > -40 - SLACK
    # The smallest k: for each below, G1 and G2 leave no room, or G3 or G4 fails.
    for k in range(1, found.size):
        least, greatest = _thresholds(n, t, c, k)
        assert (
            least > greatest
            or _log_two_attempts(*setting, k, greatest) > -40 - SLACK
            or not _is_connected(*setting, k, slack=SLACK)
        )


@pytest.mark.parametrize(
    ("setting", "size", "threshold"),
    [
        ((33, 30, 6), 13, 10),
        ((64, 58, 12), 25, 19),
        ((100, 90, 20), 41, 31),
        ((200, 180, 40), 75, 56),
        ((500, 450, 100), 113, 84),
        ((1000, 900, 200), 138, 102),
        ((1024, 922, 204), 138, 102),
        ((64, 44, 12), 57, 37),
    ],
)
def test_known_neighbourhoods(setting: tuple[int, int, int], size: int, threshold: int) -> None:
    assert neighbourhood(*setting) == Neighbourhood(size, threshold, complete=False)


@given(st.integers(33, 150), st.data())
def test_every_setting_gives_a_safe_neighbourhood(sites: int, data: st.DataObject) -> None:
    colluders = data.draw(st.integers(0, sites - 2))
    threshold = data.draw(st.integers((sites + colluders) // 2 + 1, sites))
    found = neighbourhood(sites, threshold, colluders)
    if found.complete:
        assert (found.size, found.threshold) == (sites, threshold)
        return
    least, greatest = _thresholds(sites, threshold, colluders, found.size)
    assert found.size < sites - 1
    assert least <= found.threshold <= greatest <= found.size
    assert _log_two_attempts(sites, threshold, colluders, found.size, found.threshold) <= -40 + 1e-6
    assert _is_connected(sites, threshold, colluders, found.size)


@given(st.integers(1, COMPLETE_UP_TO), st.data())
def test_few_sites_have_the_complete_graph(sites: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, sites))
    colluders = data.draw(st.integers(0, sites - 1))
    expected = Neighbourhood(sites, threshold, complete=True)
    assert neighbourhood(sites, threshold, colluders) == expected


@pytest.mark.parametrize(
    "setting",
    [(64, 39, 12), (40, 24, 4), (64, 38, 12), (100, 1, 0), (33, 33, 32), (1000, 600, 200)],
)
def test_where_nothing_smaller_is_safe_the_graph_is_complete(
    setting: tuple[int, int, int],
) -> None:
    assert neighbourhood(*setting) == Neighbourhood(setting[0], setting[1], complete=True)


def test_neighbourhoods_grow_less_than_the_study() -> None:
    sizes = [neighbourhood(*setting).size for setting in TYPICAL]
    shares = [size / setting[0] for size, setting in zip(sizes, TYPICAL, strict=True)]
    assert sizes == sorted(sizes)
    # From a hundred sites to a thousand.
    assert sizes[-1] < 4 * sizes[2]
    assert shares[2:] == sorted(shares[2:], reverse=True)


@pytest.mark.parametrize(
    "setting",
    [(0, 1, 0), (1025, 1000, 10), (50, 0, 5), (50, 51, 5), (50, 40, -1), (50, 40, 50)],
)
def test_numbers_out_of_range(setting: tuple[int, int, int]) -> None:
    with pytest.raises(LocalError, match="got"):
        neighbourhood(*setting)


def test_no_float_decides() -> None:
    for node in ast.walk(ast.parse(inspect.getsource(graph))):
        assert not isinstance(node, ast.Div)
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not (isinstance(node, ast.Name) and node.id == "float")


# The integer arithmetic.


@given(st.integers(1, 2**200) | st.integers(1, 2**9000))
def test_logarithms_are_bounded_from_both_sides(number: int) -> None:
    with localcontext(prec=60):
        exact = Decimal(number).ln() / Decimal(2).ln() * 2**32
    assert graph._log2(number) <= exact + Decimal("1e-30")
    assert exact < graph._log2(number) + 2


def test_logarithms_of_powers_of_two_are_exact() -> None:
    assert all(graph._log2(1 << power) == power * ONE_BIT for power in (0, 1, 2, 127, 128, 5000))


@given(st.integers(0, 1000), st.data())
def test_logarithms_of_binomials(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    logs = graph._Logs.up_to(1000)
    exact = _log_comb(n, k) if n > 100 else log2(comb(n, k))
    assert logs.comb_low(n, k) / ONE_BIT <= exact + 1e-8
    assert logs.comb_high(n, k) / ONE_BIT >= exact - 1e-8
    assert logs.comb_high(n, k) - logs.comb_low(n, k) < 10


def test_a_power_of_two_is_rounded_up() -> None:
    for bits, expected in ((-127 << 32, 2), ((-127 << 32) + 1, 4), ((-126 << 32) - 1, 4)):
        assert graph._power_of_two(bits) == expected
    assert graph._power_of_two(-1000 << 32) == 1
    assert graph._power_of_two(3 << 32) == 1 << 131


@pytest.mark.parametrize(("marked", "size", "bits"), [(3, 4, 3), (0, 4, 5), (7, 2, 0), (8, 8, 9)])
def test_the_quantile_by_listing_all_draws(marked: int, size: int, bits: int) -> None:
    draws = [sum(x < marked for x in drawn) for drawn in combinations(range(8), size)]
    least = next(
        x
        for x in range(size + 1)
        if 9 * Fraction(sum(count > x for count in draws), len(draws)) <= Fraction(1, 2**bits)
    )
    assert graph._least_not_exceeded(9, marked, size, bits) == least


@given(st.integers(5, 60), st.data())
def test_the_quantile_against_exact_fractions(sites: int, data: st.DataObject) -> None:
    marked = data.draw(st.integers(0, sites - 1))
    size = data.draw(st.integers(1, sites - 1))
    bits = data.draw(st.integers(0, 40))
    x = graph._least_not_exceeded(sites, marked, size, bits)

    def above(bound: int) -> Fraction:
        ways = (
            comb(marked, y) * comb(sites - 1 - marked, size - y) for y in range(bound + 1, size + 1)
        )
        return Fraction(sites * sum(ways), comb(sites - 1, size))

    assert above(x) <= Fraction(1, 2**bits)
    assert x == 0 or above(x - 1) > Fraction(1, 2**bits)


@pytest.mark.parametrize(
    ("setting", "size"), [((14, 12, 2), 4), ((40, 36, 8), 10), ((20, 20, 0), 3)]
)
def test_cuts_and_few_neighbours_against_exact_fractions(
    setting: tuple[int, int, int], size: int
) -> None:
    n, t, c = setting
    h, d, every = n - c, n - t, comb(n - 1, size)
    cuts = dict(graph._cuts(graph._Setting(*setting), size))
    assert list(cuts) == list(range((h - d) // 2, 0, -1))
    for s, chance in cuts.items():
        exact = Fraction(comb(h, s) * comb(h - s, d))
        exact *= Fraction(comb(s - 1 + d + c, size), every) ** s
        exact *= Fraction(comb(n - 1 - s, size), every) ** (h - s - d)
        assert exact <= Fraction(chance, 2**128) <= 2 * exact + Fraction(1, 2**127)
    for most in (0, size, size + 3, h - 1):
        exact = Fraction(0)
        for drawn in range(min(size, h - 1, most) + 1):
            first = Fraction(comb(h - 1, drawn) * comb(c, size - drawn), every)
            for more in range(min(most - drawn, h - 1 - drawn) + 1):
                ways = comb(h - 1 - drawn, more) * size**more
                ways *= (n - 1 - size) ** (h - 1 - drawn - more)
                exact += h * first * Fraction(ways, (n - 1) ** (h - 1 - drawn))
        bound = Fraction(graph._few_neighbours(graph._Setting(*setting), size, most), 2**128)
        assert exact <= bound <= 2 * exact + Fraction(h * h * h, 2**127)


@pytest.mark.parametrize(("setting", "size", "local"), [((12, 10, 2), 6, 5), ((40, 36, 8), 12, 9)])
def test_two_attempts_against_exact_fractions(
    setting: tuple[int, int, int], size: int, local: int
) -> None:
    n, t, c = setting
    h = n - c
    marked = h // 2 + c
    good = sum(comb(marked, x) * comb(n - 1 - marked, size - x) for x in range(local, size + 1))
    exact = comb(h, h // 2) * comb(h, t - c) * Fraction(good, comb(n - 1, size)) ** (t - c)
    found = graph._two_attempts_log2(graph._Setting(*setting), size, local) / ONE_BIT
    assert abs(found - log2(exact)) < 1e-6


def test_what_cannot_happen_has_no_chance() -> None:
    # Six honest holders and two colluders never make eleven.
    assert graph._two_attempts_log2(graph._Setting(14, 13, 2), 12, 11) == -128 * ONE_BIT
    # With up to two colluders and no more than two dropped, whoever draws 5 of 6 meets a third.
    assert dict(graph._cuts(graph._Setting(7, 5, 2), 5)) == {1: 0}
    # All hold for all but one: at most the dropped ones are missing.
    assert graph._least_not_exceeded(64, 6, 62, 40) == 6


# Draws.


def test_draws_are_uniform_over_all_sets() -> None:
    """Ten sets of three of five others: chi-square at 10^-6 a test, of which there are twelve."""
    for me in range(6):
        others = [site for site in range(6) if site != me]
        for source in (Random(me), secrets.SystemRandom()):
            counts = Counter(graph._draw_with(source, 6, me, 3) for _ in range(3000))
            assert set(counts) == set(combinations(others, 3))
            assert chisquare(list(counts.values())).pvalue > FALSE_ALARM


@given(st.integers(2, 1024), st.data())
def test_a_draw_is_sorted_distinct_and_never_the_site_itself(
    sites: int, data: st.DataObject
) -> None:
    me = data.draw(st.integers(0, sites - 1))
    size = data.draw(st.integers(1, sites - 1))
    drawn = draw(sites, me, size)
    assert len(set(drawn)) == size
    assert list(drawn) == sorted(drawn)
    assert me not in drawn
    assert drawn[0] >= 0
    assert drawn[-1] < sites


def test_draws_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "SystemRandom", lambda: Random(5))
    assert draw(1000, 3, 138) == graph._draw_with(Random(5), 1000, 3, 138)


@pytest.mark.parametrize(
    ("sites", "me", "size"), [(5, -1, 2), (5, 5, 2), (5, 0, 0), (5, 0, 5), (1, 0, 1)]
)
def test_impossible_draws(sites: int, me: int, size: int) -> None:
    with pytest.raises(LocalError):
        draw(sites, me, size)


# Deliberately weak graphs: the bad event is seen, and not more often than its bound says.


def _all_draws(source: Random, n: int, k: int) -> list[frozenset[int]]:
    return [frozenset(graph._draw_with(source, n, me, k)) for me in range(n)]


def _reached(start: int, among: set[int], edges: list[set[int]]) -> set[int]:
    seen, waiting = {start}, [start]
    while waiting:
        for other in edges[waiting.pop()] & among - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def test_a_weak_graph_falls_apart_as_often_as_the_bound_allows() -> None:
    n, t, c, k, runs = 16, 14, 2, 4, 1500
    h, d = n - c, n - t
    source = Random(2)
    cut = 0
    for _ in range(runs):
        drawn = _all_draws(source, n, k)
        edges = [{j for j in range(h) if j in drawn[i] or i in drawn[j]} for i in range(h)]
        for size in range(d + 1):
            left = (set(range(h)).difference(gone) for gone in combinations(range(h), size))
            if any(_reached(min(some), some, edges) != some for some in left):
                cut += 1
                break
    bound = sum(chance for _, chance in graph._cuts(graph._Setting(n, t, c), k)) / 2**128
    assert 0 < cut / runs < bound < 0.5


def test_weak_degrees_are_seen_as_often_as_the_bound_allows() -> None:
    n, c, k, most, runs = 20, 4, 5, 3, 3000
    h = n - c
    source = Random(3)
    seen = 0
    for _ in range(runs):
        drawn = _all_draws(source, n, k)
        degrees = (sum(j in drawn[i] or i in drawn[j] for j in range(h)) for i in range(h))
        seen += min(degrees) <= most
    bound = graph._few_neighbours(graph._Setting(n, n, c), k, most) / 2**128
    assert 0 < seen / runs < bound < 0.8


def test_a_weak_threshold_lets_two_secrets_of_one_site_open() -> None:
    n, c, k, runs = 20, 5, 6, 4000
    bits = 1
    caught = graph._least_not_exceeded(n, c, k, bits)
    source = Random(4)
    for local, allowed in (((k + caught) // 2 + 1, 2.0**-bits), ((k + caught) // 2, 1.0)):
        opened = 0
        for _ in range(runs):
            colluding = [len(drawn & set(range(c))) for drawn in _all_draws(source, n, k)]
            # The server splits the honest holders in halves and adds the colluders to both.
            opened += any(x + (k - x) // 2 >= local for x in colluding)
        assert opened / runs <= allowed
        if allowed == 1.0:
            assert opened / runs > 2.0**-bits


def test_lost_attempts_are_as_rare_as_stated() -> None:
    n, d, k, bits, runs = 30, 6, 8, 2, 4000
    lost = graph._least_not_exceeded(n, d, k, bits)
    source = Random(6)
    fails = Counter[int]()
    for _ in range(runs):
        most = max(len(drawn & set(range(d))) for drawn in _all_draws(source, n, k))
        fails[lost] += most > lost
        fails[lost - 1] += most > lost - 1
    assert 0 < fails[lost] / runs <= 2.0**-bits < fails[lost - 1] / runs


def test_weak_graphs_let_two_attempts_open_as_often_as_the_bound_allows() -> None:
    n, t, c, k, local, runs = 10, 8, 2, 3, 3, 1500
    h = n - c
    source = Random(7)
    opened = 0
    for _ in range(runs):
        drawn = _all_draws(source, n, k)
        opened += any(
            sum(len(drawn[i] & {*answering, *range(h, n)}) >= local for i in range(h)) >= t - c
            for answering in combinations(range(h), h // 2)
        )
    bound = 2 ** (graph._two_attempts_log2(graph._Setting(n, t, c), k, local) / ONE_BIT)
    assert 0 < opened / runs < bound < 1
