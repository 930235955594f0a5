"""The integer arithmetic below the bounds of a neighbourhood, against exact fractions."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import combinations
from math import comb, log2

import pytest
from graph_bounds import log_comb
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.secagg import graph

ONE_BIT = 1 << 32


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
    exact = log_comb(n, k) if n > 100 else log2(comb(n, k))
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
