"""The two state machines of an encrypted sum, as literal tables.

A site's session sends its ciphertexts, then signs one aggregate; it leaves at the first genuine
frame of the combiner's that says what it must not. The combiner's closes two stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from fedbcs_protocols.errors import LocalError


class SiteState(Enum):
    FRESH = auto()
    ENCRYPTED = auto()
    AGREED = auto()
    LEFT = auto()


class SiteEvent(Enum):
    ENCRYPT = auto()
    AGREE = auto()
    LEAVE = auto()


SITE: Mapping[tuple[SiteState, SiteEvent], SiteState] = MappingProxyType(
    {
        (SiteState.FRESH, SiteEvent.ENCRYPT): SiteState.ENCRYPTED,
        (SiteState.ENCRYPTED, SiteEvent.AGREE): SiteState.AGREED,
        (SiteState.ENCRYPTED, SiteEvent.LEAVE): SiteState.LEFT,
    }
)


class CombinerState(Enum):
    ENCRYPTED = auto()
    AGREEMENT = auto()
    COMPLETE = auto()
    FAILED = auto()


class CombinerEvent(Enum):
    FRAME = auto()
    CLOSE = auto()
    TOO_FEW = auto()


COMBINER: Mapping[tuple[CombinerState, CombinerEvent], CombinerState] = MappingProxyType(
    {
        (CombinerState.ENCRYPTED, CombinerEvent.FRAME): CombinerState.ENCRYPTED,
        (CombinerState.ENCRYPTED, CombinerEvent.CLOSE): CombinerState.AGREEMENT,
        (CombinerState.ENCRYPTED, CombinerEvent.TOO_FEW): CombinerState.FAILED,
        (CombinerState.AGREEMENT, CombinerEvent.FRAME): CombinerState.AGREEMENT,
        (CombinerState.AGREEMENT, CombinerEvent.CLOSE): CombinerState.COMPLETE,
        (CombinerState.AGREEMENT, CombinerEvent.TOO_FEW): CombinerState.FAILED,
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
