from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protected_sum import make_cast

from fedbcs_protocols.errors import LocalError, Refused
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import Guard, Setting, Terms
from fedbcs_protocols.secagg.setting import default_terms, is_safe

CAST = make_cast(9)
FINGERPRINTS = tuple(identity.fingerprint for identity in CAST.roster.values())


@pytest.mark.parametrize("sites", range(3, 8))
def test_safe_means_that_two_answering_sets_share_an_honest_site(sites: int) -> None:
    """By counting sets: any two sets of t sites have more than c in common, two of t are honest."""
    for threshold in range(1, sites + 1):
        sets = [frozenset(chosen) for chosen in combinations(range(sites), threshold)]
        least = min(len(one & two) for one in sets for two in sets)
        for colluders in range(1, sites):
            expected = least > colluders and threshold - colluders >= 2
            assert is_safe(sites, threshold, colluders) == expected, (threshold, colluders)


def test_default_terms_are_safe_for_every_number_of_sites() -> None:
    for sites in range(3, 1025):
        threshold, colluders = default_terms(sites)
        terms = Terms(sites, threshold, colluders)
        assert is_safe(sites, terms.threshold, terms.colluders)
        assert colluders == max(1, sites // 5)
        if sites <= 32:
            assert not is_safe(sites, threshold - 1, colluders)
        else:
            assert threshold >= 0.9 * sites


@pytest.mark.parametrize("sites", [3, 4, 9, 32, 33, 100, 1024])
def test_default_threshold_for_stated_colluders(sites: int) -> None:
    for colluders in range(1, sites - 1):
        threshold, stated = default_terms(sites, colluders)
        assert stated == colluders
        assert threshold <= sites
        assert is_safe(sites, threshold, colluders)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sites": 0}, "3 to 1024 sites"),
        ({"sites": 2, "threshold": 2}, "3 to 1024 sites"),
        ({"sites": 1025}, "3 to 1024 sites"),
        ({"threshold": 0}, "threshold of 0"),
        ({"threshold": 10}, "threshold of 10 over 9"),
        ({"colluders": 0}, "must be 1 or more"),
        ({"colluders": 9}, "9 colluders of 9"),
        ({"max_reused_states": -1}, r"0\.\.15"),
        ({"max_reused_states": 16}, r"0\.\.15"),
    ],
)
def test_terms_outside_their_ranges(change: dict[str, int], what: str) -> None:
    good = {"sites": 9, "threshold": 6, "colluders": 1}
    assert Terms(**good).max_reused_states == 0
    assert Terms(**good, max_reused_states=15).max_reused_states == 15
    with pytest.raises(LocalError, match=what):
        Terms(**{**good, **change})


def test_the_graph_is_complete_up_to_32_sites() -> None:
    assert Terms(32, 30, 1).graph.complete
    assert (Terms(32, 30, 1).graph.size, Terms(32, 30, 1).graph.threshold) == (32, 30)
    graph = Terms(40, 36, 8).graph
    assert not graph.complete
    assert graph.threshold < graph.size < 40


@given(
    threshold=st.integers(1, 9),
    colluders=st.integers(1, 8),
    own_colluders=st.integers(0, 8),
    min_sites=st.integers(1, 9),
    listed=st.frozensets(st.integers(0, 8)),
    me=st.integers(0, 8),
)
def test_a_guard_admits_what_sa_0_5_says(
    threshold: int,
    colluders: int,
    own_colluders: int,
    min_sites: int,
    listed: frozenset[int],
    me: int,
) -> None:
    guard = Guard(frozenset(FINGERPRINTS[i] for i in listed), own_colluders, min_sites)
    # A site need not list itself.
    counted = max(colluders, own_colluders) + 9 - len(listed | {me})
    good = 2 * threshold > 9 + counted and threshold - counted >= 2 and threshold >= min_sites
    try:
        guard.admit(Terms(9, threshold, colluders), CAST.roster, f"site{me}")
    except Refused:
        assert not good
    else:
        assert good


def test_what_a_guard_says_to_its_staff() -> None:
    guard = Guard(frozenset(FINGERPRINTS[:6]))
    with pytest.raises(Refused, match="too low for 4 colluding sites \\(3 of them not verified"):
        guard.admit(Terms(9, 6, 1), CAST.roster, "site0")
    with pytest.raises(Refused, match="this site's minimum is 7"):
        replace(CAST.guard, min_sites=7).admit(Terms(9, 6, 1), CAST.roster, "site0")


def test_fingerprints_of_others_are_worth_nothing() -> None:
    strangers = frozenset(Identity.generate().public.fingerprint for _ in range(9))
    with pytest.raises(Refused):
        Guard(strangers).admit(Terms(9, 9, 1), CAST.roster, "site0")


def test_verified_survivors() -> None:
    guard = Guard(frozenset(FINGERPRINTS[:4]), min_sites=5)

    def allow(*names: str) -> None:
        guard.allow(names, CAST.roster, "site8", None)

    allow("site0", "site1", "site2", "site3", "site8")
    allow("site0", "site1", "site2", "site3", "site8", "site7")
    with pytest.raises(Refused, match="4 verified sites in the sum, this site wants 5"):
        allow("site0", "site1", "site2", "site7", "site6", "site8")
    with pytest.raises(Refused, match="4 verified"):
        # The same site twice is one site.
        allow("site0", "site0", "site1", "site2", "site8")


@given(st.frozensets(st.integers(0, 8), min_size=3), st.frozensets(st.integers(0, 8), min_size=3))
def test_single_changes(now: frozenset[int], before: frozenset[int]) -> None:
    strict = replace(CAST.guard, forbid_single_changes=True)
    names, last = ({f"site{i}" for i in places} for places in (now, before))
    CAST.guard.allow(names, CAST.roster, "site0", frozenset(last))
    strict.allow(names, CAST.roster, "site0", None)
    if len(now - before) + len(before - now) == 1:
        with pytest.raises(Refused, match="one site more or less"):
            strict.allow(names, CAST.roster, "site0", frozenset(last))
    else:
        strict.allow(names, CAST.roster, "site0", frozenset(last))


def _setting(**changes: Any) -> Setting:
    arguments = {
        "roster": CAST.roster,
        "combiner": CAST.combiner.public,
        "binding": CAST.binding,
        "terms": CAST.terms,
        "bits": 20,
        "count": 70,
    }
    return Setting(**{**arguments, **changes})


def test_places_follow_the_roster() -> None:
    roster = dict(reversed(CAST.roster.items()))
    setting = _setting(roster=roster)
    assert setting.names == tuple(f"site{i}" for i in range(8, -1, -1))
    assert all(setting.places[name] == place for place, name in enumerate(setting.names))
    assert (setting.shape.count, setting.shape.bits, setting.shape.sites) == (70, 20, 9)


def test_what_does_not_fit_together() -> None:
    roster = CAST.roster
    stranger = Identity.generate().public
    less = {name: identity for name, identity in roster.items() if name != "site0"}
    for changes in (
        {"terms": Terms(8, 6, 1)},
        {"roster": less},
        {"roster": {**less, "again": roster["site1"]}},
        {"roster": {**less, "boss": CAST.combiner.public}},
        {"roster": {**less, "@combiner": stranger}},
        {"roster": {**less, "a b": stranger}},
        {"combiner": roster["site3"]},
        {"bits": 33},
        {"bits": 7},
        {"count": 0},
    ):
        with pytest.raises(LocalError):
            _setting(**changes)
    assert _setting(roster={**less, "new": stranger}).names[-1] == "new"


@pytest.mark.parametrize(
    ("known", "own", "admitted"), [(5, 1, True), (4, 1, False), (5, 2, False), (6, 2, True)]
)
def test_a_part_that_few_sites_fill(known: int, own: int, admitted: bool) -> None:
    """SA-0.7: of the verified holders two are left when the worst comes to the worst."""
    cast = make_cast(10, threshold=8, colluders=1)
    holders = [f"site{i}" for i in range(7)]
    verified = frozenset(cast.roster[name].fingerprint for name in holders[1:known])
    guard = Guard(verified, colluders=own)
    if admitted:
        guard.admit_part(holders, cast.terms, cast.roster, "site0")
    else:
        with pytest.raises(Refused, match="verify more fingerprints"):
            guard.admit_part(holders, cast.terms, cast.roster, "site0")
