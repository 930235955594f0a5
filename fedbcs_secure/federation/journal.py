"""The combiner's journals: one file an attempt, so that a crash loses no round.

A record is its length (4 bytes), the first 8 bytes of its SHA-256, and itself. A file starts with a
record that names the attempt: the encoded binding and the name of the group's key. What a crash
left half written at the end is dropped when the file is read.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.group.secret import KEY_ID_BYTES
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg import Journal, NoJournal
from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.files import sync_folder

_HEAD = struct.Struct(">I8s")


@dataclass(frozen=True)
class Begun:
    """An attempt: its binding, and the name of the key that its vector is tagged with (zeros if it

    is not).
    """

    binding: Binding
    key_id: bytes

    LENGTH = Binding.ENCODED_BYTES + KEY_ID_BYTES

    def encode(self) -> bytes:
        return self.binding.encode() + self.key_id

    @classmethod
    def decode(cls, data: bytes) -> Begun:
        head = Binding.ENCODED_BYTES
        return cls(Binding.decode(data[:head]), data[head:])


class Journals(Protocol):
    """Where a combiner keeps the journals of its attempts."""

    def latest(self, first: Binding) -> Begun | None:
        """The last attempt of a round that was begun.

        ``first`` is the binding of the round's attempt 0. None if nothing of the round is kept.
        """
        ...

    def begin(self, begun: Begun) -> Journal:
        """A new, empty journal."""
        ...

    def reopen(self, binding: Binding) -> tuple[Journal, Iterator[Buffer]]:
        """The journal of an attempt, to go on with, and what it holds so far."""
        ...

    def forget(self, binding: Binding) -> None:
        """Drop everything up to the round of ``binding``, which is finished and kept elsewhere."""
        ...


class NoJournals:
    """Keeps nothing: for simulations, where a crash takes the sites with it."""

    def latest(self, first: Binding) -> Begun | None:
        return None

    def begin(self, begun: Begun) -> Journal:
        return NoJournal()

    def reopen(self, binding: Binding) -> tuple[Journal, Iterator[Buffer]]:
        return NoJournal(), iter(())

    def forget(self, binding: Binding) -> None:
        pass


class FileJournal:
    """Appends records to an open file; :meth:`sync` brings them to the disk."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._broken = False

    def append(self, record: Buffer) -> None:
        # Behind a record that was written in part nothing would be found again.
        if self._broken:
            raise RunFolderError("the combiner's journal could not be written; start it anew")
        self._broken = True
        self._stream.write(_HEAD.pack(len(record), hashlib.sha256(record).digest()[:8]))
        self._stream.write(record)
        self._broken = False

    def sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __del__(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class FileJournals:
    """Journals in a folder, named by round, attempt, phase and the starts of the digests.

    They hold masked vectors and the shares that take the masks off the sum: what the combiner
    knows anyway, and no more.
    """

    folder: Path

    def latest(self, first: Binding) -> Begun | None:
        found: Begun | None = None
        for path in sorted(self.folder.glob(f"{first.round:010d}-*.journal")):
            with path.open("rb") as stream:
                head = next(_records(stream), None)
            if head is None or len(head) != Begun.LENGTH:
                continue  # a crash before the first sync: nothing was sent
            begun = Begun.decode(bytes(head))
            later = found is None or begun.binding.attempt > found.binding.attempt
            if later and _same_round(begun.binding, first):
                found = begun
        return found

    def begin(self, begun: Begun) -> Journal:
        # The sum is in it, for whoever can read the files.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(begun.binding)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        journal = FileJournal(os.fdopen(os.open(path, flags, 0o600), "wb"))
        journal.append(begun.encode())
        journal.sync()
        sync_folder(self.folder)
        return journal

    def reopen(self, binding: Binding) -> tuple[Journal, Iterator[Buffer]]:
        path = self._path(binding)
        with path.open("rb") as stream:
            end = sum(_HEAD.size + len(record) for record in _records(stream))
        appending = path.open("r+b")
        appending.truncate(end)
        appending.seek(end)
        journal = FileJournal(appending)
        # SA-8.5: whoever goes on acts on what is read here, so it must be on the disk.
        journal.sync()
        return journal, self._held(path)

    def forget(self, binding: Binding) -> None:
        study = binding.study_digest[:4].hex()
        for path in self.folder.glob(f"*-{study}-????????.journal"):
            # Rounds before it as well: a crash may have kept them from being dropped.
            if path.name < f"{binding.round + 1:010d}":
                path.unlink()

    def _held(self, path: Path) -> Iterator[Buffer]:
        with path.open("rb") as stream:
            records = _records(stream)
            next(records, None)
            yield from records

    def _path(self, binding: Binding) -> Path:
        name = f"{binding.round:010d}-{binding.attempt:05d}-{binding.phase}"
        digests = f"{binding.study_digest[:4].hex()}-{binding.state_digest[:4].hex()}"
        return self.folder / f"{name}-{digests}.journal"


def _records(stream: BinaryIO) -> Iterator[bytes]:
    """The whole records from the file's position on; stops at the first that is not whole."""
    left = os.fstat(stream.fileno()).st_size
    while left >= _HEAD.size:
        length, check = _HEAD.unpack(stream.read(_HEAD.size))
        left -= _HEAD.size + length
        if left < 0:
            return
        record = stream.read(length)
        if hashlib.sha256(record).digest()[:8] != check:
            return
        yield record


def _same_round(one: Binding, other: Binding) -> bool:
    def fields(b: Binding) -> tuple[bytes, int, int, bytes]:
        return b.study_digest, b.round, b.phase, b.state_digest

    return fields(one) == fields(other)
