"""Bodies of protection "none": one canonical form each, and no sum of too few."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from federation_fixtures import FUSED, Cast, make_study
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbcs_protocols.errors import BadSiteList, PeerError
from fedbcs_protocols.ring import Words
from fedbcs_secure.federation import plain
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.rounds import Parties
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
FINCH = {"form": "faithful", "prototypes": "finch"}


@pytest.fixture
def parties(start: Start) -> Parties:
    study = make_study("ABCDE", protection="none", alignment=FINCH)
    return Cast(study, start(study)[0]).parties


def words(count: int, seed: int) -> Words:
    return np.random.default_rng(seed).integers(0, 1 << 18, count, dtype=np.uint32)


@pytest.mark.parametrize("names", ["ABCDE", "ABCE", "BCDE"])
def test_a_sum_comes_back_as_it_went(parties: Parties, names: str) -> None:
    total = words(parties.shape.count, 1)
    body = plain.encode_sum(parties, names, total)
    survivors, again = plain.decode_sum(parties, body)
    assert survivors == tuple(names)
    assert np.array_equal(again, total)
    assert len(body) == plain.sum_limit(parties)


def test_sites_are_named_in_the_rosters_order(parties: Parties) -> None:
    total = words(parties.shape.count, 1)
    one, other = (plain.encode_sum(parties, names, total) for names in ("ABCE", "ECBA"))
    assert one == other
    assert plain.decode_sum(parties, other)[0] == tuple("ABCE")


@pytest.mark.parametrize("names", ["ABCDE", "ACDE"])
def test_prototypes_come_back_as_they_went(parties: Parties, names: str) -> None:
    width = len(parties.plan.slots) * FUSED
    individual = [words(width, index) for index in range(len(names))]
    body = plain.encode_prototypes(parties, names, individual)
    survivors, again = plain.decode_prototypes(parties, body)
    assert survivors == tuple(names)
    assert [row.tolist() for row in again] == [row.tolist() for row in individual]
    assert len(body) <= plain.prototypes_limit(parties)
    assert (len(body) == plain.prototypes_limit(parties)) == (len(names) == 5)


@pytest.mark.parametrize("names", ["", "A", "ABC"])
def test_too_few_sites_are_no_sum(parties: Parties, names: str) -> None:
    """The threshold of five is four, under either protection."""
    body = plain.encode_sum(parties, names, words(parties.shape.count, 1))
    with pytest.raises(BadSiteList, match=f"a sum of {len(names)} sites, at least 4"):
        plain.decode_sum(parties, body)
    if names:
        rows = [words(len(parties.plan.slots) * FUSED, 1) for _ in names]
        with pytest.raises(BadSiteList):
            plain.decode_prototypes(parties, plain.encode_prototypes(parties, names, rows))


def test_other_lengths_and_stray_bits_are_refused(parties: Parties) -> None:
    body = plain.encode_sum(parties, "ABCD", words(parties.shape.count, 1))
    rows = [words(len(parties.plan.slots) * FUSED, i) for i in range(4)]
    shown = plain.encode_prototypes(parties, "ABCD", rows)
    for good, decode in ((body, plain.decode_sum), (shown, plain.decode_prototypes)):
        decode(parties, good)
        bad_set = bytes([good[0] | 0x20]) + good[1:]  # a sixth site
        fifth = bytes([good[0] | 0x10]) + good[1:]
        # for a sum, another set is another sum; for prototypes there is a row too few
        wrong = [b"", good[:-1], good + b"\0", bad_set, good[:1] + b"\xff" + good[2:]]
        for bad in wrong + ([fifth] if decode is plain.decode_prototypes else []):
            with pytest.raises(PeerError):
                decode(parties, bad)


@given(st.binary(max_size=600))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_a_body_or_a_named_error(parties: Parties, body: bytes) -> None:
    for decode in (plain.decode_sum, plain.decode_prototypes):
        with pytest.raises(PeerError):
            decode(parties, body)
