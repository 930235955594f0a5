"""The two state machines of a protected sum, as literal tables.

A site::

    FRESH -- advertise --> ADVERTISED -- send the masked input --> MASKED -- take the sum --> DONE
                               |                                     |
                               +------------ bad frame --------------+--> FAILED

A session is for one binding and is used once. A site that saw a bad frame from the combiner, signed
and for this sum, gives its secrets up and takes no further part in the attempt: nothing it could
still send would help it. Bytes that are not the combiner's, which anybody can send, change nothing.

The combiner::

    COLLECTING_KEYS -- last key --> KEYS_COMPLETE -- key list --> COLLECTING_INPUTS
        -- last input --> COMPLETE

A bad frame leaves the combiner where it is: otherwise anybody who can reach it could end a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from fedbcs_protocols.errors import LocalError


class SiteState(Enum):
    FRESH = auto()
    ADVERTISED = auto()
    MASKED = auto()
    DONE = auto()
    FAILED = auto()


class SiteEvent(Enum):
    ADVERTISE = auto()
    MASK = auto()
    TAKE_SUM = auto()
    BAD_FRAME = auto()


SITE: Mapping[tuple[SiteState, SiteEvent], SiteState] = MappingProxyType(
    {
        (SiteState.FRESH, SiteEvent.ADVERTISE): SiteState.ADVERTISED,
        (SiteState.ADVERTISED, SiteEvent.MASK): SiteState.MASKED,
        (SiteState.ADVERTISED, SiteEvent.BAD_FRAME): SiteState.FAILED,
        (SiteState.MASKED, SiteEvent.TAKE_SUM): SiteState.DONE,
        (SiteState.MASKED, SiteEvent.BAD_FRAME): SiteState.FAILED,
    }
)


class CombinerState(Enum):
    COLLECTING_KEYS = auto()
    KEYS_COMPLETE = auto()
    COLLECTING_INPUTS = auto()
    COMPLETE = auto()


class CombinerEvent(Enum):
    KEY = auto()
    LAST_KEY = auto()
    KEY_LIST = auto()
    INPUT = auto()
    LAST_INPUT = auto()
    SUM = auto()


COMBINER: Mapping[tuple[CombinerState, CombinerEvent], CombinerState] = MappingProxyType(
    {
        (CombinerState.COLLECTING_KEYS, CombinerEvent.KEY): CombinerState.COLLECTING_KEYS,
        (CombinerState.COLLECTING_KEYS, CombinerEvent.LAST_KEY): CombinerState.KEYS_COMPLETE,
        (CombinerState.KEYS_COMPLETE, CombinerEvent.KEY_LIST): CombinerState.COLLECTING_INPUTS,
        (CombinerState.COLLECTING_INPUTS, CombinerEvent.INPUT): CombinerState.COLLECTING_INPUTS,
        (CombinerState.COLLECTING_INPUTS, CombinerEvent.LAST_INPUT): CombinerState.COMPLETE,
        (CombinerState.COMPLETE, CombinerEvent.SUM): CombinerState.COMPLETE,
    }
)


def next_site_state(state: SiteState, event: SiteEvent) -> SiteState:
    """The table's entry; :class:`LocalError` where there is none."""
    if (state, event) not in SITE:
        raise LocalError(f"a site's session in state {state.name} does not allow {event.name}")
    return SITE[state, event]


def next_combiner_state(state: CombinerState, event: CombinerEvent) -> CombinerState:
    """The table's entry; :class:`LocalError` where there is none."""
    if (state, event) not in COMBINER:
        raise LocalError(f"a combiner's session in state {state.name} does not allow {event.name}")
    return COMBINER[state, event]
