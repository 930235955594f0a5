"""The two state machines of a protected sum, as literal tables.

A site's session goes through five stages and leaves the attempt, with its secrets dropped, at the
first thing that the combiner's genuine frame should not hold, or that its own policy forbids:
nothing it could still send would help it. Bytes that are not the combiner's, which anybody can
send, and genuine frames at the wrong time change nothing.

The combiner's session closes a stage when its caller says so. Frames that do not fit change
nothing, otherwise anybody who can reach it could end a round; too few sites at the end of a stage
end the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from fedbcs_protocols.errors import LocalError


class SiteState(Enum):
    FRESH = auto()
    ADVERTISED = auto()
    SHARED = auto()
    MASKED = auto()
    SIGNED = auto()
    ANSWERED = auto()
    LEFT = auto()


class SiteEvent(Enum):
    ADVERTISE = auto()
    SHARE = auto()
    MASK = auto()
    SIGN = auto()
    ANSWER = auto()
    LEAVE = auto()


SITE: Mapping[tuple[SiteState, SiteEvent], SiteState] = MappingProxyType(
    {
        (SiteState.FRESH, SiteEvent.ADVERTISE): SiteState.ADVERTISED,
        (SiteState.ADVERTISED, SiteEvent.SHARE): SiteState.SHARED,
        (SiteState.ADVERTISED, SiteEvent.LEAVE): SiteState.LEFT,
        (SiteState.SHARED, SiteEvent.MASK): SiteState.MASKED,
        (SiteState.SHARED, SiteEvent.LEAVE): SiteState.LEFT,
        (SiteState.MASKED, SiteEvent.SIGN): SiteState.SIGNED,
        (SiteState.MASKED, SiteEvent.LEAVE): SiteState.LEFT,
        (SiteState.SIGNED, SiteEvent.ANSWER): SiteState.ANSWERED,
        (SiteState.SIGNED, SiteEvent.LEAVE): SiteState.LEFT,
    }
)


class CombinerState(Enum):
    ADVERTISE = auto()
    SHARES = auto()
    MASKED_INPUT = auto()
    CONSISTENCY = auto()
    UNMASK = auto()
    COMPLETE = auto()
    FAILED = auto()


class CombinerEvent(Enum):
    FRAME = auto()
    CLOSE = auto()
    TOO_FEW = auto()


COMBINER: Mapping[tuple[CombinerState, CombinerEvent], CombinerState] = MappingProxyType(
    {
        (CombinerState.ADVERTISE, CombinerEvent.FRAME): CombinerState.ADVERTISE,
        (CombinerState.ADVERTISE, CombinerEvent.CLOSE): CombinerState.SHARES,
        (CombinerState.ADVERTISE, CombinerEvent.TOO_FEW): CombinerState.FAILED,
        (CombinerState.SHARES, CombinerEvent.FRAME): CombinerState.SHARES,
        (CombinerState.SHARES, CombinerEvent.CLOSE): CombinerState.MASKED_INPUT,
        (CombinerState.SHARES, CombinerEvent.TOO_FEW): CombinerState.FAILED,
        (CombinerState.MASKED_INPUT, CombinerEvent.FRAME): CombinerState.MASKED_INPUT,
        (CombinerState.MASKED_INPUT, CombinerEvent.CLOSE): CombinerState.CONSISTENCY,
        (CombinerState.MASKED_INPUT, CombinerEvent.TOO_FEW): CombinerState.FAILED,
        (CombinerState.CONSISTENCY, CombinerEvent.FRAME): CombinerState.CONSISTENCY,
        (CombinerState.CONSISTENCY, CombinerEvent.CLOSE): CombinerState.UNMASK,
        (CombinerState.CONSISTENCY, CombinerEvent.TOO_FEW): CombinerState.FAILED,
        (CombinerState.UNMASK, CombinerEvent.FRAME): CombinerState.UNMASK,
        (CombinerState.UNMASK, CombinerEvent.CLOSE): CombinerState.COMPLETE,
        (CombinerState.UNMASK, CombinerEvent.TOO_FEW): CombinerState.FAILED,
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
