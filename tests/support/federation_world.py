"""A federation over lines that a test can cut, round after round; its parties can be restarted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from federation_fixtures import (
    ANYTHING,
    FUSED,
    TENSORS,
    Cast,
    Lines,
    Silent,
    make_study,
)

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.group import KeyKeeper, KeyRing
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import MarkKeeper
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.combiner import RoundCombiner, RoundResult
from fedbcs_secure.federation.journal import Journals
from fedbcs_secure.federation.layout import layout
from fedbcs_secure.federation.missed import SumShelf
from fedbcs_secure.federation.rounds import CONTROL, AnyState, Parties
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

PROTECTIONS: dict[str, dict[str, object]] = {
    "verified": {},
    "unverified": {"verified_sum": False},
    "ckks": {"protection": "ckks"},
    "none": {"protection": "none"},
}
"""What a study says for each way that a sum can take."""
GROUPED = {name: PROTECTIONS[name] for name in ("verified", "ckks")}
"""Those with a group key."""


@dataclass
class World:
    """The parties of a study, and where they are; sites' memories can be wiped."""

    study: Study
    shelf: SumShelf | None = None
    journals: Journals | None = None
    marks: dict[str, MarkKeeper] = field(default_factory=dict)
    keys: dict[str, KeyKeeper] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fused = FUSED if self.study.alignment.form != "off" else 0
        plan = layout(self.study, TENSORS, fused)
        weights = np.random.default_rng(0).standard_normal(plan.parameters).astype(np.float32)
        self.beginning = initial_state(self.study, plan, weights)
        self.state: AnyState = self.beginning
        self.cast = Cast(self.study, plan, self.marks, self.keys)
        self.lines = Lines(self.cast.sites(self.beginning))
        self.restart_combiner()

    @property
    def parties(self) -> Parties:
        return self.cast.parties

    @property
    def server(self) -> Identity:
        return self.cast.server

    @property
    def identities(self) -> dict[str, Identity]:
        return self.cast.identities

    def restart_combiner(self) -> None:
        """A new process, with what the last one kept on disk."""
        self.combiner = RoundCombiner(self.server, self.parties, self.journals, self.shelf)

    def site(self, name: str, state: GlobalState | None = None) -> SiteRunner:
        """A new process of a site, at the state that the study begins with or another."""
        return self.cast.site(name, state or self.beginning)

    def restart(self, *names: str) -> None:
        """New processes at these sites, with the states, marks and keys that they kept."""
        for name in names:
            self.lines.sites[name] = self.site(name, self.at(name))

    def wipe(self, *names: str) -> None:
        """These sites lose their disks: state, marks and keys; identities are kept elsewhere."""
        for name in names:
            self.marks.pop(name)
            self.keys.pop(name)
            self.lines.sites[name] = self.site(name)

    def round(self, silent: Silent | None = None) -> RoundResult:
        """One round, in which no site may come to a state of its own."""
        self.lines.silent = silent
        try:
            result = self.combiner.run(self.lines, self.state)
        finally:
            self.lines.silent = None
        self.state = result.state
        return result

    def at(self, name: str) -> GlobalState:
        return self.lines.sites[name].state

    def ring(self, name: str) -> KeyRing:
        """What a site keeps of its keys."""
        ring = self.keys[name].read()
        assert ring is not None
        return ring

    def behind(self) -> str:
        """The sites that are not at the current state, bit for bit."""
        for name in self.identities:
            if self.at(name).digest == self.state.digest:
                there = self.at(name).encode()
        return "".join(name for name in self.identities if self.at(name).encode() != there)

    def asked(self, kind: Kind) -> str:
        """The sites that were sent a frame of this kind."""
        return "".join(
            name
            for name, frames in self.lines.down.items()
            if any(decode(frame, ANYTHING).kind is kind for frame in frames)
        )

    def seen(self) -> bytes:
        """All that ever passed over the lines."""
        both = (*self.lines.up.values(), *self.lines.down.values())
        return b"".join(frame for frames in both for frame in frames)

    def control(self, state: AnyState | None = None) -> Binding:
        return self.parties.binding(state or self.state, CONTROL)

    def frame(self, kind: Kind, binding: Binding, sequence: int, body: bytes = b"") -> bytes:
        """A frame that the combiner signed, whatever is in it."""
        return self.cast.frame(kind, binding, sequence, body)


def world(
    names: str = "ABCD",
    shelf: SumShelf | None = None,
    journals: Journals | None = None,
    **values: object,
) -> World:
    return World(make_study(names, **({"rounds": 60} | values)), shelf, journals)


def away(names: str, *kinds: Kind) -> Silent:
    """These sites do not get frames of these kinds, or of any."""
    return lambda name, frame: name in names and (not kinds or frame.kind in kinds)
