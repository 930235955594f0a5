"""Combiners and sites that crash at a chosen moment, and what a crash does to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.group import KeyKeeper, KeyRing
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg import Journal, Marks
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.journal import Begun, FileJournal, FileJournals
from fedbcs_secure.federation.marks import FileMarks


class Crash(BaseException):
    """The process is gone; nothing in the code under test may catch it."""


def crash() -> None:
    raise Crash


@dataclass
class Moments:
    """Counts the moments at which a crash would make a difference; dies at number ``at``."""

    at: int | None = None
    die: Callable[[], None] = crash
    names: list[str] = field(default_factory=list)

    def pass_by(self, name: str) -> None:
        self.names.append(name)
        if self.at == len(self.names) - 1:
            self.die()


class DyingChannel:
    """Asks one site after another; the combiner may die with a reply in its hands."""

    def __init__(self, inner: Channel, moments: Moments) -> None:
        self._inner, self._moments = inner, moments

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            for site, reply in self._inner.exchange({name: request}):
                self._moments.pass_by(f"reply of {site}")
                yield site, reply


class BetweenExchanges:
    """The combiner dies before it asks anybody, when all that it asked before have answered."""

    def __init__(self, inner: Channel, moments: Moments) -> None:
        self._inner, self._moments = inner, moments

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self._moments.pass_by(f"before {len(requests)} requests")
        yield from list(self._inner.exchange(requests))


class DyingJournal:
    """A journal whose combiner dies between its records; knows how much of the file is safe."""

    def __init__(self, inner: FileJournal, path: Path, moments: Moments) -> None:
        self._inner, self._moments, self.path = inner, moments, path
        self.safe_bytes = path.stat().st_size

    def append(self, record: Buffer) -> None:
        self._inner.append(record)
        # In a real process it may be in memory, on the disk, or half of it: see cut_back().
        self._inner._stream.flush()
        self._moments.pass_by("append")

    def sync(self) -> None:
        self._inner.sync()
        self.safe_bytes = self.path.stat().st_size
        self._moments.pass_by("sync")

    def cut_back(self, kept: float) -> None:
        """Leave this part, 0 to 1, of what was appended since the last sync."""
        size = self.path.stat().st_size
        with self.path.open("r+b") as stream:
            stream.truncate(self.safe_bytes + int(kept * (size - self.safe_bytes)))


class DyingJournals:
    """Journals in a folder, of a combiner that dies around what it does to them."""

    def __init__(self, folder: Path, moments: Moments) -> None:
        self._inner, self._moments = FileJournals(folder), moments
        self.open: list[DyingJournal] = []

    def latest(self, first: Binding) -> Begun | None:
        return self._inner.latest(first)

    def begin(self, begun: Begun) -> Journal:
        journal = self._inner.begin(begun)
        self._moments.pass_by("begin")
        return self._dying(begun.binding, journal)

    def reopen(self, binding: Binding) -> tuple[Journal, Iterator[Buffer]]:
        journal, records = self._inner.reopen(binding)
        self._moments.pass_by("reopen")
        return self._dying(binding, journal), records

    def forget(self, binding: Binding) -> None:
        self._moments.pass_by("before forget")
        self._inner.forget(binding)
        self._moments.pass_by("after forget")

    def cut_back(self, kept: float) -> None:
        for journal in self.open:
            journal.cut_back(kept)

    def _dying(self, binding: Binding, journal: Journal) -> DyingJournal:
        assert isinstance(journal, FileJournal)
        self.open.append(DyingJournal(journal, self._inner._path(binding), self._moments))
        return self.open[-1]


@dataclass
class DyingMarks:
    """A site's marks in a file, of a process that dies before or after they are written."""

    inner: FileMarks
    moments: Moments

    def read(self) -> Marks | None:
        return self.inner.read()

    def write(self, marks: Marks) -> None:
        what = f"{self.inner.path.stem}: " + ("answer" if marks.answers else "advertise")
        self.moments.pass_by(f"before {what}")
        self.inner.write(marks)
        self.moments.pass_by(f"after {what}")


@dataclass
class DyingKeys:
    """A site's keys, of a process that dies before or after they are written."""

    inner: KeyKeeper
    moments: Moments

    def read(self) -> KeyRing | None:
        return self.inner.read()

    def write(self, ring: KeyRing) -> None:
        self.moments.pass_by("before keys")
        self.inner.write(ring)
        self.moments.pass_by("after keys")
