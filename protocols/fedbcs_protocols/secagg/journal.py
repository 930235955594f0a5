"""The combiner's journal: what it took and where stages ended, so that a crash loses no round."""

from __future__ import annotations

from typing import Protocol

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.ring import Buffer

FRAME, CLOSE = b"F", b"C"


class Journal(Protocol):
    """An append-only list of records for one attempt."""

    def append(self, record: Buffer) -> None:
        """Add a record; it may be lost in a crash until :meth:`sync` has returned."""
        ...

    def sync(self) -> None:
        """Return when everything appended so far is on durable storage."""
        ...


class NoJournal:
    """Keeps nothing: a combiner that crashes loses the attempt."""

    def append(self, record: Buffer) -> None:
        pass

    def sync(self) -> None:
        pass


def frame_record(frame: Buffer) -> bytes:
    """The record of a frame that was taken."""
    return b"".join((FRAME, frame))


def frame_in(record: Buffer) -> memoryview | None:
    """The frame in a record, None for the end of a stage; :class:`LocalError` for anything else."""
    kind, rest = bytes(record[:1]), memoryview(record)[1:]
    if kind == CLOSE and not rest:
        return None
    if kind != FRAME:
        raise LocalError("a record of the journal is neither a frame nor the end of a stage")
    return rest
