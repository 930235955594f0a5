"""Both sessions together, everybody honest."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols import codec
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import ring_bits
from fedbcs_protocols.secagg import CombinerSession, SiteSession
from fedbcs_protocols.secagg.states import CombinerState, SiteState

Make = Callable[..., Any]


def run(cast: Any, vectors: dict[str, Any], order: list[str]) -> tuple[Any, dict[str, Any]]:
    combiner, sites = cast.combine(), cast.all_sites()
    for name in order:
        combiner.receive_advertise(sites[name].advertise())
    key_list = combiner.key_list()
    for name in reversed(order):
        combiner.receive_masked(sites[name].masked_input(key_list, vectors[name]))
    return combiner, sites


@given(st.integers(3, 6), st.integers(8, 16), st.integers(1, 80), st.randoms())
def test_the_sum_is_the_sum(
    make_cast: Make, sites: int, bits: int, count: int, random: Any
) -> None:
    cast = make_cast(sites, bits=ring_bits(bits, sites), count=count)
    vectors = {
        name: np.array([random.randint(0, 2**bits - 2) for _ in range(count)], np.uint32)
        for name in cast.sites
    }
    order = list(cast.sites)
    random.shuffle(order)
    combiner, sessions = run(cast, vectors, order)
    expected = [sum(column) for column in zip(*(v.tolist() for v in vectors.values()), strict=True)]
    assert combiner.sum().tolist() == expected
    frame = combiner.sum_frame()
    for session in sessions.values():
        assert session.receive_sum(frame).tolist() == expected
        assert session.state is SiteState.DONE
    assert combiner.state is CombinerState.COMPLETE


def test_floats_through_the_whole_line(make_cast: Make) -> None:
    cast = make_cast(4, bits=18, count=70)
    random = np.random.default_rng(0)
    segments = [codec.Segment("a", 0, 30), codec.Segment("b", 30, 40)]
    exponents = [2, 0]
    updates = {name: random.standard_normal(70).astype(np.float32) * 0.1 for name in cast.sites}
    words = random.integers(0, 2**16, 70, dtype=np.uint16)
    codes = {
        name: codec.quantise(update, segments, exponents, 16, words).codes
        for name, update in updates.items()
    }
    combiner, _ = run(cast, codes, list(cast.sites))
    total = codec.dequantise_sum(combiner.sum(), 4, segments, exponents, 16)
    in_the_clear = sum(codec.dequantise_sum(c, 1, segments, exponents, 16) for c in codes.values())
    assert np.array_equal(total, in_the_clear)
    assert np.abs(total - sum(u.astype(np.float64) for u in updates.values())).max() < 4 * 2**-13


def test_a_vector_is_left_as_it_is(make_cast: Make) -> None:
    cast = make_cast()
    vectors = cast.vectors()
    kept = {name: vector.copy() for name, vector in vectors.items()}
    run(cast, vectors, list(cast.sites))
    assert all(np.array_equal(vectors[name], kept[name]) for name in kept)


def test_two_sessions_never_send_the_same(make_cast: Make) -> None:
    cast = make_cast()
    assert cast.site("site0").advertise() != cast.site("site0").advertise()


def test_waiting_for(make_cast: Make) -> None:
    cast = make_cast(3)
    combiner, sites = cast.combine(), cast.all_sites()
    assert combiner.waiting_for == ("site0", "site1", "site2")
    combiner.receive_advertise(sites["site1"].advertise())
    assert combiner.waiting_for == ("site0", "site2")
    with pytest.raises(LocalError, match="site0, site2"):
        combiner.key_list()
    for name in ("site0", "site2"):
        combiner.receive_advertise(sites[name].advertise())
    assert combiner.waiting_for == ()
    key_list = combiner.key_list()
    assert combiner.waiting_for == ("site0", "site1", "site2")
    vectors = cast.vectors()
    combiner.receive_masked(sites["site2"].masked_input(key_list, vectors["site2"]))
    with pytest.raises(LocalError, match="site0, site1"):
        combiner.sum()
    with pytest.raises(LocalError):
        combiner.sum_frame()


def test_a_site_masks_one_vector(make_cast: Make) -> None:
    cast = make_cast()
    combiner, sites = cast.combine(), cast.all_sites()
    for site in sites.values():
        combiner.receive_advertise(site.advertise())
    key_list, vector = combiner.key_list(), cast.vectors()["site0"]
    sites["site0"].masked_input(key_list, vector)
    with pytest.raises(LocalError, match="MASKED does not allow MASK"):
        sites["site0"].masked_input(key_list, vector)
    with pytest.raises(LocalError, match="does not allow ADVERTISE"):
        sites["site0"].advertise()
    with pytest.raises(LocalError, match="FRESH does not allow MASK"):
        cast.site("site0").masked_input(key_list, vector)
    with pytest.raises(LocalError, match="does not allow TAKE_SUM"):
        sites["site1"].receive_sum(b"")
    with pytest.raises(LocalError, match="does not allow KEY_LIST"):
        combiner.key_list()


def test_secrets_are_dropped(make_cast: Make) -> None:
    cast = make_cast()
    _, sites = run(cast, cast.vectors(), list(cast.sites))
    assert all(session._ephemeral is None for session in sites.values())


def test_a_vector_that_does_not_fit_costs_nothing(make_cast: Make) -> None:
    cast = make_cast(4, bits=18, count=70)
    combiner, sites = cast.combine(), cast.all_sites()
    for site in sites.values():
        combiner.receive_advertise(site.advertise())
    key_list, vector = combiner.key_list(), cast.vectors()["site0"]
    too_large = vector.copy()
    too_large[3] = 2**16
    for bad in (vector[:-1], vector.astype(np.int64), too_large):
        with pytest.raises(LocalError):
            sites["site0"].masked_input(key_list, bad)
    too_large[3] = 2**16 - 1
    assert sites["site0"].masked_input(key_list, too_large)


@pytest.mark.parametrize("sites", [0, 1, 2])
def test_too_few_sites(make_cast: Make, sites: int) -> None:
    cast = make_cast(sites)
    with pytest.raises(LocalError, match="3 to 1024 sites"):
        cast.combine()
    if sites:
        with pytest.raises(LocalError, match="3 to 1024 sites"):
            cast.site("site0")


def test_a_roster_that_makes_no_sense(make_cast: Make) -> None:
    cast = make_cast(3)
    arguments = {"binding": cast.binding, "bits": 20, "count": 70}
    roster = cast.roster
    for bad in (
        {**roster, "again": roster["site0"]},
        {**roster, "boss": cast.combiner.public},
        {**roster, "@combiner": Identity.generate().public},
        {**roster, "a b": Identity.generate().public},
    ):
        with pytest.raises(LocalError):
            CombinerSession(identity=cast.combiner, roster=bad, **arguments)
        with pytest.raises(LocalError):
            SiteSession(
                identity=cast.sites["site0"],
                name="site0",
                roster=bad,
                combiner=cast.combiner.public,
                **arguments,
            )
    for name in ("site1", "nobody"):
        with pytest.raises(LocalError, match="does not list"):
            SiteSession(
                identity=cast.sites["site0"],
                name=name,
                roster=roster,
                combiner=cast.combiner.public,
                **arguments,
            )


def test_nothing_secret_is_shown(make_cast: Make) -> None:
    cast = make_cast(3)
    session = cast.site("site0")
    session.advertise()
    private = session._ephemeral
    assert private is not None
    assert private.private_bytes_raw().hex() not in repr(session)
    assert repr(session) == "SiteSession(site0, round 3, ADVERTISED)"
    assert repr(cast.combine()) == "CombinerSession(round 3, COLLECTING_KEYS)"


def test_the_combiners_memory_does_not_grow_with_the_sites(make_cast: Make) -> None:
    cast = make_cast(8, bits=20, count=300_000)
    combiner, sites = cast.combine(), cast.all_sites()
    for site in sites.values():
        combiner.receive_advertise(site.advertise())
    key_list, vectors = combiner.key_list(), cast.vectors()
    peaks = []
    for name, site in sites.items():
        frame = site.masked_input(key_list, vectors[name])
        tracemalloc.start()
        combiner.receive_masked(frame)
        peaks.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
    assert max(current for current, _ in peaks) < 20_000
    assert max(peak for _, peak in peaks) < 3 * 2**20
