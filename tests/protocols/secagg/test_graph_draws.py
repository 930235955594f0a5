"""Draws of neighbours, and how often weak graphs fail next to what the bounds allow."""

from __future__ import annotations

import secrets
from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import graph
from fedbcs_protocols.secagg.graph import draw

FALSE_ALARM = 1e-6
ONE_BIT = 1 << 32


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
