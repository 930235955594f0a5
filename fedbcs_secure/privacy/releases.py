"""Files beside a site's ledger: encrypted releases, and the head kept apart (DP-5.5).

A file is whole and on the disk, or not there. A release is stored before it is booked, so that the
same bytes, and never fresh noise, can be sent again. Each file says behind which entry it was to be
booked: one that was not booked is what a crash left, or what a newer ledger had booked. As nobody
can tell which at once, it is put aside, under its name and ``.unbooked``::

    "FBRL"  version 1  study 32  round 8  state 32  sequence 8  previous hash 32  nonce 12  sealed
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.errors import BadSignature
from fedbcs_protocols.identity import SIGNATURE_BYTES, Identity, PublicIdentity
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.files import sync_folder, write_durably
from fedbcs_secure.privacy.chain import Booked, Head

MAX_RELEASE_BYTES = 1 << 30
STORAGE_KEY_BYTES = 32

_RELEASE = struct.Struct(">4sB32sQ32sQ32s12s")
_RELEASE_MAGIC, _VERSION = b"FBRL", 1
_NONCE_BYTES, _TAG_BYTES = 12, 16
_NAME = re.compile(r"([0-9a-f]{64})-([0-9]{10})\.release")
_ASIDE = ".unbooked"
_HEAD = struct.Struct(f">4sBQ32s{SIGNATURE_BYTES}s")
_HEAD_MAGIC = b"FBLH"
_HEAD_LABEL = "fedbcs-secure ledger head v1"

Slot = tuple[bytes, int]
"""A study's digest and a round."""


def purpose_key(storage_key: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose from the site's storage key (HKDF-SHA256).

    Raises :class:`LedgerError` for a storage key of another length.
    """
    if len(storage_key) != STORAGE_KEY_BYTES:
        raise LedgerError(f"a site's storage key is {STORAGE_KEY_BYTES} bytes")
    info = encode_fields("fedbcs-secure ledger key", 1, purpose)
    return HKDF(SHA256(), 32, salt=None, info=info).derive(storage_key)


@dataclass(frozen=True)
class ReleaseFiles:
    """A folder of releases that were booked or are about to be; for one process at a time."""

    folder: Path
    key: bytes = field(repr=False)

    def write(self, slot: Slot, state: bytes, behind: Head, data: bytes) -> None:
        """Encrypt ``data`` into the file of a (study, round), and return when it is on the disk.

        ``behind``: the last entry of the ledger now. Raises :class:`LedgerError`.
        """
        if len(data) > MAX_RELEASE_BYTES:
            raise LedgerError(
                f"a release is at most {MAX_RELEASE_BYTES} bytes, this one has {len(data)}"
            )
        nonce = secrets.token_bytes(_NONCE_BYTES)
        fields = (*slot, state, behind.sequence, behind.hash, nonce)
        head = _RELEASE.pack(_RELEASE_MAGIC, _VERSION, *fields)
        sealed = ChaCha20Poly1305(self.key).encrypt(nonce, data, head)
        try:
            private_folder(self.folder)
            write_durably(self._path(slot), head, sealed, mode=0o600)
        except OSError as error:
            raise cannot("store a release in", self.folder, error) from None

    def read(self, slot: Slot, state: bytes) -> bytes | None:
        """What :meth:`write` was given; None if it is not there whole, or is another state's."""
        opened = self._open(self._path(slot))
        if opened is None or opened[0] != (*slot, state):
            return None
        return opened[2]

    def slots(self) -> list[Slot]:
        """Whose files there are, sorted; without those that were put aside."""
        return self._slots("")

    def settle(self, booked: Mapping[Slot, Booked], head: Head) -> None:
        """Remove parts of files, put the file aside that was not booked, and others back.

        A crash leaves a file that was not booked in time, and so does an older copy of the ledger
        that was restored over the one which had booked it; when that one is back, the file is
        needed. Raises :class:`LedgerError` when a file shows that the ledger had more entries once:
        all that can be there without an entry was to be booked right behind ``head``.
        """
        for slot in self._slots(_ASIDE):
            if slot in booked:
                self._put_back(slot, booked[slot])
        for slot in self.slots():
            if slot in booked:
                continue
            path = self._path(slot)
            opened = self._open(path)
            # DP-5.6
            if opened is None or opened[0][:2] != slot or opened[1] != head:
                raise LedgerError(
                    f"{path} is a release that the ledger does not know: an older copy of the "
                    "ledger was restored, or the file is another site's, or damaged. Put back the "
                    "latest ledger; without it the site cannot know what it has spent, and takes "
                    "no part"
                )
            self._rename(path, _aside(path))
        for name in self._names():
            if name.endswith(".tmp") and _NAME.fullmatch(name.removesuffix(".tmp")):
                self._remove(self.folder / name)

    def forget(self, study: bytes, before_round: int) -> None:
        """Delete the files of a study's rounds before this one. Raises :class:`LedgerError`."""
        for end in ("", _ASIDE):
            for slot in self._slots(end):
                if slot[0] == study and slot[1] < before_round:
                    self._remove(self._path(slot, end))

    def forget_unbooked(self) -> None:
        """Delete what was put aside: the ledger went on without it."""
        for slot in self._slots(_ASIDE):
            self._remove(self._path(slot, _ASIDE))

    def _put_back(self, slot: Slot, booked: Booked) -> None:
        """Use the file put aside if it is what was booked, and is not there yet."""
        path = self._path(slot)
        if self._holds(path, slot, booked):
            self._remove(_aside(path))
        elif self._holds(_aside(path), slot, booked):
            self._rename(_aside(path), path)

    def _holds(self, path: Path, slot: Slot, booked: Booked) -> bool:
        opened = self._open(path)
        return (
            opened is not None
            and opened[0] == (*slot, booked.state)
            and hashlib.sha256(opened[2]).digest() == booked.digest
        )

    def _slots(self, end: str) -> list[Slot]:
        names = (name.removesuffix(end) for name in self._names() if name.endswith(end))
        found = [_NAME.fullmatch(name) for name in names]
        return sorted((bytes.fromhex(match[1]), int(match[2])) for match in found if match)

    def _open(self, path: Path) -> tuple[tuple[bytes, int, bytes], Head, bytes] | None:
        """((study, round, state), the entry before, the bytes); None for no whole file."""
        longest = _RELEASE.size + MAX_RELEASE_BYTES + _TAG_BYTES
        try:
            with path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size > longest:
                    return None
                head = stream.read(_RELEASE.size)
                sealed = stream.read(longest)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot("read", path, error) from None
        if len(head) < _RELEASE.size:
            return None
        magic, version, study, number, state, sequence, previous, nonce = _RELEASE.unpack(head)
        if magic != _RELEASE_MAGIC or version != _VERSION:
            return None
        try:
            data = ChaCha20Poly1305(self.key).decrypt(nonce, sealed, head)
        except InvalidTag:
            return None
        return (study, number, state), Head(sequence, previous), data

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))  # noqa: PTH208
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cannot("read", self.folder, error) from None

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise cannot("remove", path, error) from None

    def _rename(self, path: Path, to: Path) -> None:
        try:
            path.replace(to)
            sync_folder(self.folder)
        except OSError as error:
            raise cannot("rename", path, error) from None

    def _path(self, slot: Slot, end: str = "") -> Path:
        return self.folder / f"{slot[0].hex()}-{slot[1]:010d}.release{end}"


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _ASIDE)


@dataclass(frozen=True)
class HeadFile:
    """Where the ledger was when the site last released something, signed, in a place of its own."""

    path: Path

    def read(self, site: PublicIdentity) -> Head | None:
        """None if there is no file. Raises :class:`LedgerError` for anything but ``site``'s."""
        try:
            with self.path.open("rb") as stream:
                data = stream.read(_HEAD.size + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot("read the ledger's head", self.path, error) from None
        if len(data) == _HEAD.size:
            magic, version, sequence, digest, signature = _HEAD.unpack(data)
            if magic == _HEAD_MAGIC and version == _VERSION:
                try:
                    site.verify(signature, encode_fields(_HEAD_LABEL, sequence, digest))
                    return Head(sequence, digest)
                except BadSignature:
                    pass
        raise LedgerError(
            f"{self.path} is damaged, or another site's: it says how far the ledger must reach. "
            "Put the right file back. If it is lost, and nobody can have restored an older ledger, "
            "delete it and open the ledger with trust_ledger"
        )

    def write(self, head: Head, identity: Identity) -> None:
        """Return when the file is on the disk. Raises :class:`LedgerError`."""
        fields = head.sequence, head.hash
        signature = identity.sign(encode_fields(_HEAD_LABEL, *fields))
        try:
            private_folder(self.path.parent)
            data = _HEAD.pack(_HEAD_MAGIC, _VERSION, *fields, signature)
            write_durably(self.path, data, mode=0o600)
        except OSError as error:
            raise cannot("write the ledger's head", self.path, error) from None


def private_folder(folder: Path) -> None:
    """Make ``folder`` if it is not there, for its owner only. Raises :class:`OSError`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def cannot(what: str, path: Path, error: OSError) -> LedgerError:
    """A sentence about a file that could not be used."""
    return LedgerError(
        f"cannot {what} {path}: {error.strerror or error}. Nothing was released. Make room or mend "
        "the permissions, and start again: it goes on where it was"
    )
