"""Deliberately weak graphs: the bad event is seen, and not more often than its bound says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from random import Random

from fedbcs_protocols.secagg import graph

ONE_BIT = 1 << 32


def _all_draws(source: Random, n: int, k: int) -> list[frozenset[int]]:
    return [frozenset(graph._draw_with(source, n, me, k)) for me in range(n)]


def _edges(drawn: list[frozenset[int]], h: int) -> list[set[int]]:
    """The honest neighbours of each of the first ``h`` sites, which are the honest ones."""
    return [{j for j in range(h) if j in drawn[i] or i in drawn[j]} for i in range(h)]


def _reached(start: int, among: set[int], edges: list[set[int]]) -> set[int]:
    seen, waiting = {start}, [start]
    while waiting:
        for other in edges[waiting.pop()] & among - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def _falls_apart(edges: list[set[int]], d: int) -> bool:
    """Whether the honest sites without some ``d`` or fewer are not connected."""
    everybody = set(range(len(edges)))
    lefts = (
        everybody.difference(gone)
        for size in range(d + 1)
        for gone in combinations(everybody, size)
    )
    return any(_reached(min(left), left, edges) != left for left in lefts)


def test_a_weak_graph_falls_apart_as_often_as_the_bound_allows() -> None:
    n, t, c, k, runs = 16, 14, 2, 4, 1500
    h, d = n - c, n - t
    source = Random(2)
    cut = 0
    for _ in range(runs):
        cut += _falls_apart(_edges(_all_draws(source, n, k), h), d)
    bound = sum(chance for _, chance in graph._cuts(graph._Setting(n, t, c), k)) / 2**128
    assert 0 < cut / runs < bound < 0.5


def _groups(edges: list[set[int]], d: int) -> Iterator[tuple[set[int], set[int]]]:
    """The groups, each with sites to declare dropped, that open when shown other deliveries.

    Those in the group do not sign what the t survivors sign that the certificate needs, so the
    group and the dropped ones are at most ``d``. Each member may miss ``d`` others of its own.
    """
    everybody = set(range(len(edges)))
    for size in range(1, d + 1):
        for group in map(set, combinations(everybody, size)):
            for dropped in map(set, combinations(everybody - group, d - size)):
                if all(len(edges[i] - group - dropped) <= d for i in group):
                    yield group, dropped


WEAK = (18, 15, 2, 6)
"""n, t, c and a k that is too small for them."""


def test_other_deliveries_open_a_group_as_often_as_the_bound_allows() -> None:
    n, t, c, k = WEAK
    h, d, runs = n - c, n - t, 400
    setting = graph._Setting(n, t, c)
    source = Random(8)
    opened = 0
    for _ in range(runs):
        edges = _edges(_all_draws(source, n, k), h)
        found = next(_groups(edges, d), None)
        # By trying all groups, or by the number of neighbours: the same.
        assert (found is not None) == (min(map(len, edges)) <= 2 * d - 1)
        opened += found is not None
        # One delivery for all would not have done.
        assert found is None or not _falls_apart(edges, d)
    bound = graph._few_neighbours(setting, k, 2 * d - 1) / 2**128
    one_delivery = graph._few_neighbours(setting, k, d) / 2**128
    assert one_delivery < opened / runs < bound < 0.8


def test_other_deliveries_give_a_site_away() -> None:
    """The attack with numbers: the masks that the server can take off are all that there are."""
    n, t, c, k = WEAK
    h, d, modulus = n - c, n - t, 1 << 32
    source = Random(9)
    edges, (group, dropped) = next(
        (edges, found)
        for edges in (_edges(_all_draws(source, n, k), h) for _ in range(1000))
        for found in _groups(edges, d)
    )
    values = [source.randrange(modulus) for _ in range(h)]
    seeds = [source.randrange(modulus) for _ in range(h)]
    pairs = {pair: source.randrange(modulus) for pair in combinations(range(h), 2)}

    def mask(i: int, j: int) -> int:
        return pairs[i, j] if i < j else -pairs[j, i]

    def opened(deliveries: dict[int, set[int]]) -> int:
        total = 0
        for i in group:
            masked = values[i] + seeds[i] + sum(mask(i, j) for j in edges[i] & deliveries[i])
            total += masked - seeds[i] - sum(mask(i, j) for j in edges[i] & dropped)
        return total % modulus

    survivors = set(range(n)) - dropped
    assert len(survivors - group) >= t
    certified = {i: set(range(n)) for i in group}
    shown = {i: set(range(n)) - (edges[i] - group - dropped) for i in group}
    assert min(map(len, shown.values())) >= t
    secret = sum(values[i] for i in group) % modulus
    assert opened(shown) == secret != opened(certified)


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
