from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product

import pytest

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import states
from fedbcs_protocols.secagg.states import CombinerEvent, CombinerState, SiteEvent, SiteState

SITE_PATH = (
    (SiteState.FRESH, SiteEvent.ADVERTISE),
    (SiteState.ADVERTISED, SiteEvent.SHARE),
    (SiteState.SHARED, SiteEvent.MASK),
    (SiteState.MASKED, SiteEvent.SIGN),
    (SiteState.SIGNED, SiteEvent.ANSWER),
    (SiteState.ANSWERED, None),
)
STAGES = (
    CombinerState.ADVERTISE,
    CombinerState.SHARES,
    CombinerState.MASKED_INPUT,
    CombinerState.CONSISTENCY,
    CombinerState.UNMASK,
    CombinerState.COMPLETE,
)


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


def test_a_sites_path_is_the_five_stages_and_leaving() -> None:
    expected = {(state, event): after for (state, event), (after, _) in pairwise(SITE_PATH)}
    begun = (SiteState.ADVERTISED, SiteState.SHARED, SiteState.MASKED, SiteState.SIGNED)
    expected |= {(state, SiteEvent.LEAVE): SiteState.LEFT for state in begun}
    assert dict(states.SITE) == expected


def test_the_combiners_stages_come_in_order() -> None:
    expected = {}
    for stage, after in pairwise(STAGES):
        expected[stage, CombinerEvent.FRAME] = stage
        expected[stage, CombinerEvent.CLOSE] = after
        expected[stage, CombinerEvent.TOO_FEW] = CombinerState.FAILED
    assert dict(states.COMBINER) == expected


def _reached(start: SiteState) -> set[SiteState]:
    reached = {start}
    while True:
        further = {to for (state, _), to in states.SITE.items() if state in reached} | reached
        if further == reached:
            return reached
        reached = further


@pytest.mark.parametrize("event", [event for event in SiteEvent if event is not SiteEvent.LEAVE])
def test_a_site_does_each_thing_once_on_every_path(event: SiteEvent) -> None:
    for (_, done), after in states.SITE.items():
        if done is event:
            assert not any((state, event) in states.SITE for state in _reached(after))


@pytest.mark.parametrize("final", [SiteState.LEFT, SiteState.ANSWERED])
def test_nothing_follows_the_end(final: SiteState) -> None:
    assert _reached(final) == {final}


def test_every_state_is_reached() -> None:
    assert _reached(SiteState.FRESH) == set(SiteState)
    assert {CombinerState.ADVERTISE, *states.COMBINER.values()} == set(CombinerState)


@pytest.mark.parametrize("table", [states.SITE, states.COMBINER])
def test_the_tables_cannot_be_changed(table: Mapping[object, object]) -> None:
    with pytest.raises(TypeError):
        table[object()] = object()  # type: ignore[index]
