"""The two tables of an encrypted sum: what follows what, and that nothing else does (CK-7)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product

import pytest
from ckks_cast import willing
from ckks_world import World

from fedbcs_protocols.ckks import states
from fedbcs_protocols.ckks.states import CombinerEvent, CombinerState, SiteEvent, SiteState
from fedbcs_protocols.errors import LocalError, PeerError, TooFewSites

STAGES = (CombinerState.ENCRYPTED, CombinerState.AGREEMENT, CombinerState.COMPLETE)


def test_what_is_not_in_the_site_table_is_refused() -> None:
    for state, event in product(SiteState, SiteEvent):
        if (state, event) in states.SITE:
            assert states.next_site_state(state, event) is states.SITE[state, event]
        else:
            with pytest.raises(LocalError, match=f"{state.name} does not allow {event.name}"):
                states.next_site_state(state, event)


def test_what_is_not_in_the_combiner_table_is_refused() -> None:
    for state, event in product(CombinerState, CombinerEvent):
        if (state, event) in states.COMBINER:
            assert states.next_combiner_state(state, event) is states.COMBINER[state, event]
        else:
            with pytest.raises(LocalError, match=f"{state.name} does not allow {event.name}"):
                states.next_combiner_state(state, event)


def test_a_site_encrypts_once_and_signs_once() -> None:
    """CK-0.2, CK-4.3: each thing once, in this order, or it leaves."""
    assert dict(states.SITE) == {
        (SiteState.FRESH, SiteEvent.ENCRYPT): SiteState.ENCRYPTED,
        (SiteState.ENCRYPTED, SiteEvent.AGREE): SiteState.AGREED,
        (SiteState.ENCRYPTED, SiteEvent.LEAVE): SiteState.LEFT,
    }


def test_the_combiners_stages_come_in_order() -> None:
    expected = {}
    for stage, after in pairwise(STAGES):
        expected[stage, CombinerEvent.FRAME] = stage
        expected[stage, CombinerEvent.CLOSE] = after
        expected[stage, CombinerEvent.TOO_FEW] = CombinerState.FAILED
    assert dict(states.COMBINER) == expected


@pytest.mark.parametrize("final", [SiteState.AGREED, SiteState.LEFT])
def test_nothing_follows_a_sites_end(final: SiteState) -> None:
    assert not any(state is final for state, _ in states.SITE)


@pytest.mark.parametrize("final", [CombinerState.COMPLETE, CombinerState.FAILED])
def test_nothing_follows_the_combiners_end(final: CombinerState) -> None:
    assert not any(state is final for state, _ in states.COMBINER)


def test_every_state_is_reached() -> None:
    assert {SiteState.FRESH, *states.SITE.values()} == set(SiteState)
    assert {CombinerState.ENCRYPTED, *states.COMBINER.values()} == set(CombinerState)


@pytest.mark.parametrize("table", [states.SITE, states.COMBINER])
def test_the_tables_cannot_be_changed(table: Mapping[object, object]) -> None:
    with pytest.raises(TypeError):
        table[object()] = object()  # type: ignore[index]


# The sessions walk the tables --------------------------------------------------------------------


def test_a_whole_sum_walks_both_tables() -> None:
    world = World(count=10)
    site, combiner = world.sessions["site0"], world.combiner()
    assert (site.state, combiner.state) == (SiteState.FRESH, CombinerState.ENCRYPTED)
    for name in world.names:
        combiner.receive(world.uploads[name])
        assert combiner.state is CombinerState.ENCRYPTED
    assert site.state is SiteState.ENCRYPTED
    combiner.close()
    assert combiner.state is CombinerState.AGREEMENT
    for name in world.names:
        combiner.receive(world.sessions[name].agree(combiner.requests[name]))
        assert combiner.state is CombinerState.AGREEMENT
    assert site.state is SiteState.AGREED
    combiner.close()
    assert combiner.state is CombinerState.COMPLETE
    with pytest.raises(LocalError, match="does not allow FRAME"):
        combiner.receive(world.uploads["site0"])
    with pytest.raises(LocalError, match="does not allow CLOSE"):
        combiner.close()


@pytest.mark.parametrize("stage", [CombinerState.ENCRYPTED, CombinerState.AGREEMENT])
def test_a_combiner_that_failed_takes_and_says_nothing(stage: CombinerState) -> None:
    world = World(count=10)
    combiner = world.combiner()
    for name in world.names[: 2 if stage is CombinerState.ENCRYPTED else 4]:
        combiner.receive(world.uploads[name])
    if stage is CombinerState.AGREEMENT:
        combiner.close()
        for name in world.names[:2]:
            combiner.receive(world.sessions[name].agree(combiner.requests[name]))
    with pytest.raises(TooFewSites, match=r"2 sites are left .* the threshold is 3"):
        combiner.close()
    assert combiner.state is CombinerState.FAILED
    assert combiner.expected == ()
    assert not combiner.requests
    for call in (
        combiner.close,
        combiner.sum_frame,
        lambda: combiner.receive(world.uploads["site3"]),
    ):
        with pytest.raises(LocalError):
            call()


def test_a_frame_that_anybody_could_send_does_not_make_a_site_leave() -> None:
    """Only the combiner's own word does; else one byte on the line would end the attempt."""
    world = World(count=10)
    site = willing(world, "site0")
    genuine = world.announcement(world.names)
    for bad in (b"", genuine[:-1], genuine[:-1] + bytes([genuine[-1] ^ 1]), genuine + b"\0"):
        with pytest.raises(PeerError):
            site.agree(bad)
        assert site.state is SiteState.ENCRYPTED
    site.agree(genuine)
    assert site.state is SiteState.AGREED
