"""Sums that sites have not accepted yet: a site that was away catches up with them, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedbcs_protocols.binding import DIGEST_BYTES, Binding
from fedbcs_protocols.errors import MalformedFrame, PeerError
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.wire import Kind, expect_sequence, open_frame
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.files import write_durably

MAX_MISSED = 16
"""A site that missed more frames than this comes back by a checkpoint only (RO-6), if the study has

a key of the group's: bounds what the combiner keeps."""


@dataclass(frozen=True, eq=False)
class Told:
    """A frame that every site is told, and what its *accepted* is bound to and numbered."""

    frame: bytes
    binding: Binding
    sequence: int


@dataclass(frozen=True)
class SumShelf:
    """Keeps what somebody still has to be told in a folder, for a combiner that is started anew."""

    folder: Path

    def put(self, told: Told) -> None:
        """Keep it; on the disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = told.binding.encode() + bytes([told.sequence]) + told.frame
        write_durably(self._path(told), data, mode=0o600)

    def kept(self) -> list[Told]:
        """Everything that is kept, oldest first."""
        return [_told(path.read_bytes()) for path in sorted(self.folder.glob("*.sum"))]

    def drop(self, told: Told) -> None:
        """Keep it no longer."""
        self._path(told).unlink(missing_ok=True)

    def _path(self, told: Told) -> Path:
        return self.folder / f"{told.binding.round:010d}-{told.sequence}.sum"


def _told(data: bytes) -> Told:
    head = Binding.ENCODED_BYTES
    return Told(data[head + 1 :], Binding.decode(data[:head]), data[head])


class MissedSums:
    """For each site the frames that it has not accepted, oldest first. Nothing in it is secret.

    With a ``shelf`` a new process knows what the last one had to tell; sites that have accepted it
    already say so again. With ``hold`` the last frame stays on the shelf until :meth:`settled`,
    whoever accepted it: only by telling it again does a new process hear what it led to.
    """

    def __init__(
        self,
        roster: dict[str, PublicIdentity],
        shelf: SumShelf | None = None,
        *,
        hold: bool = False,
    ) -> None:
        self._roster = roster
        self._hold = hold
        self._came_to: dict[str, bytes] = {}
        self._lost: set[str] = set()
        self._last: Told | None = None
        self._shelf = shelf
        self._waiting: dict[str, list[Told]] = {name: [] for name in roster}
        self._append(shelf.kept() if shelf is not None else [])

    @property
    def current(self) -> frozenset[str]:
        """The sites that have accepted everything."""
        up = (name for name, waiting in self._waiting.items() if not waiting)
        return frozenset(up) - self._lost

    @property
    def lost(self) -> frozenset[str]:
        """The sites that missed more than is kept."""
        return frozenset(self._lost)

    def restored(self, site: str) -> None:
        """The site is at the current state again, by another way."""
        before = self._told()
        self._waiting[site] = []
        self._lost.discard(site)
        self._drop(before)

    def lacks(self, site: str) -> Told | None:
        """What a site has to be told first; None if it has accepted everything, or is lost."""
        return self._waiting[site][0] if self._waiting[site] else None

    @property
    def came_to(self) -> Mapping[str, bytes]:
        """The digest of the state that each site came to by the frame that was added last."""
        return dict(self._came_to)

    def last(self, binding: Binding) -> Told | None:
        """The frame that was added last, if it is about ``binding``."""
        return self._last if self._last and self._last.binding == binding else None

    def withdraw(self, told: Told) -> None:
        """Tell a frame no more, which nobody has accepted."""
        before = self._told()
        for waiting in self._waiting.values():
            waiting[:] = [each for each in waiting if each is not told]
        self._drop(before)

    def settled(self) -> None:
        """What the last frame led to is kept elsewhere."""
        before = [self._last] if self._last else []
        self._last = None
        self._drop(before)

    def add(self, frames: Iterable[Told]) -> None:
        """Frames that every site is to be told from now on."""
        new = list(frames)
        if self._shelf is not None:
            for told in new:
                self._shelf.put(told)
        self._append(new)

    def tell(self, channel: Channel) -> dict[str, PeerError]:
        """Send each site what it lacks (RO-2.8), until it does not answer; returns refusals."""
        before = self._told()
        faults: dict[str, PeerError] = {}
        asking = {name for name, waiting in self._waiting.items() if waiting}
        while asking:
            requests = {name: self._waiting[name][0].frame for name in sorted(asking)}
            asking, answered = set(), set()
            for site, reply in channel.exchange(requests):
                if site in answered:
                    continue
                answered.add(site)
                try:
                    self._accept(site, reply)
                except PeerError as error:
                    faults[site] = error
                    continue
                self._waiting[site].pop(0)
                if self._waiting[site]:
                    asking.add(site)
        self._drop(before)
        return faults

    def _append(self, frames: Iterable[Told]) -> None:
        before = self._told() + ([self._last] if self._last else [])
        for told in frames:
            before.append(told)
            self._last, self._came_to = told, {}
            for name, waiting in self._waiting.items():
                waiting.append(told)
                if len(waiting) > MAX_MISSED:
                    # Without the first it can follow none of the others.
                    self._lost.add(name)
                if name in self._lost:
                    waiting.clear()
        self._drop(before)

    def _told(self) -> list[Told]:
        """What somebody waits for."""
        return list({id(told): told for each in self._waiting.values() for told in each}.values())

    def _drop(self, before: Iterable[Told]) -> None:
        """Take off the shelf what nobody waits for any more."""
        if self._shelf is None:
            return
        held = [self._last] if self._hold and self._last else []
        # By place on the shelf: a round that is tried again puts its frame where the first was.
        needed = {(told.binding.round, told.sequence) for told in (*self._told(), *held)}
        for told in before:
            if (told.binding.round, told.sequence) not in needed:
                self._shelf.drop(told)

    def _accept(self, site: str, reply: bytes) -> None:
        told = self._waiting[site][0]
        frame = open_frame(
            reply,
            roster={site: self._roster[site]},
            expect=told.binding,
            limits={Kind.ACCEPTED: DIGEST_BYTES},
        )
        expect_sequence(frame, told.sequence)
        # RO-2.11
        if len(frame.body) != DIGEST_BYTES:
            raise MalformedFrame(site, f"the name of a state in {len(frame.body)} bytes")
        if told is self._last:
            self._came_to[site] = bytes(frame.body)
