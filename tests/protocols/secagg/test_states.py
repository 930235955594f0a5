from __future__ import annotations

from itertools import product

import pytest

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import states
from fedbcs_protocols.secagg.states import CombinerEvent, CombinerState, SiteEvent, SiteState


def test_what_is_not_in_the_site_table_is_refused() -> None:
    for state, event in product(SiteState, SiteEvent):
        if (state, event) in states.SITE:
            assert states.next_site_state(state, event) is states.SITE[state, event]
        else:
            with pytest.raises(LocalError, match=state.name):
                states.next_site_state(state, event)


def test_what_is_not_in_the_combiner_table_is_refused() -> None:
    for state, event in product(CombinerState, CombinerEvent):
        if (state, event) in states.COMBINER:
            assert states.next_combiner_state(state, event) is states.COMBINER[state, event]
        else:
            with pytest.raises(LocalError, match=state.name):
                states.next_combiner_state(state, event)


def test_a_site_masks_once_on_every_path() -> None:
    """From no state after MASKED does any path lead to another MASK."""
    reached = {SiteState.MASKED}
    while True:
        further = {to for (state, _), to in states.SITE.items() if state in reached} | reached
        if further == reached:
            break
        reached = further
    assert not any((state, SiteEvent.MASK) in states.SITE for state in reached)


def test_every_state_is_reached() -> None:
    assert {SiteState.FRESH, *states.SITE.values()} == set(SiteState)
    assert set(states.COMBINER.values()) == set(CombinerState)
