"""How a ledger's entries are chained and signed, and what they add up to (DP-5.2).

An entry's hash is SHA-256 over its number, the hash before it and its content, in the injective
encoding of ``fedbcs_protocols.binding``; the site signs number and hash. So the last signature
stands for all entries. No SQLite here, no files and no clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from fedbcs_protocols.binding import DIGEST_BYTES, encode_fields
from fedbcs_protocols.errors import BadSignature
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.entries import Body, Entry, Opened, PolicyChange, Refusal
from fedbcs_secure.privacy.histories import Histories
from fedbcs_secure.privacy.policy import Reason

MAX_CONTENT_BYTES = 1 << 25

_HASH_LABEL = "fedbcs-secure ledger entry v1"
_SIGNATURE_LABEL = "fedbcs-secure ledger signature v1"


@dataclass(frozen=True)
class Head:
    """How far a ledger reaches: the number of its last entry, from 1, and that entry's hash."""

    sequence: int
    hash: bytes


START = Head(0, bytes(DIGEST_BYTES))
"""What the first entry is chained to."""


@dataclass(frozen=True)
class Row:
    """An entry as it is stored."""

    sequence: int
    content: bytes = field(repr=False)
    hash: bytes
    signature: bytes

    def check_hash(self, previous: bytes) -> None:
        """Raises :class:`LedgerError`."""
        if hash_of(self.sequence, previous, self.content) != self.hash:
            raise LedgerError("its hash is not that of its content behind the entry before it")

    def check_signature(self, site: PublicIdentity) -> None:
        """Raises :class:`LedgerError`."""
        try:
            message = encode_fields(_SIGNATURE_LABEL, self.sequence, self.hash)
            site.verify(self.signature, message)
        except BadSignature:
            raise LedgerError("its signature is not this site's") from None

    @property
    def head(self) -> Head:
        return Head(self.sequence, self.hash)


def hash_of(sequence: int, previous: bytes, content: bytes) -> bytes:
    """The hash of an entry (DP-5.2)."""
    encoded = encode_fields(_HASH_LABEL, sequence, previous, content)
    return hashlib.sha256(encoded).digest()


def seal(entry: Entry, behind: Head, identity: Identity) -> Row:
    """The signed row of an entry that comes next behind ``behind``."""
    content = entry.encode()
    if len(content) > MAX_CONTENT_BYTES:
        raise LedgerError(f"an entry of {len(content)} bytes; at most {MAX_CONTENT_BYTES} fit")
    sequence = behind.sequence + 1
    digest = hash_of(sequence, behind.hash, content)
    signature = identity.sign(encode_fields(_SIGNATURE_LABEL, sequence, digest))
    return Row(sequence, content, digest, signature)


@dataclass(frozen=True)
class Booked:
    """What is needed of a release that was booked, to hand it out again."""

    state: bytes
    digest: bytes


class Book:
    """What the entries so far add up to; takes them one by one and checks each (DP-5.7)."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = [START.hash]
        self.opened: Opened | None = None
        self.policy: PolicyChange | None = None
        self.releases: dict[tuple[bytes, int], Booked] = {}
        self.refusals: set[tuple[bytes, int, Reason]] = set()
        self.histories = Histories()
        self.studies: dict[bytes, Histories] = {}

    @property
    def head(self) -> Head:
        return Head(len(self.hashes) - 1, self.hashes[-1])

    def contains(self, head: Head) -> bool:
        """Whether ``head`` was the end of this very chain once."""
        return self.at(head.sequence) == head

    def at(self, sequence: int) -> Head | None:
        """The end of the chain when it had so many entries; None if it has fewer."""
        if not 0 <= sequence < len(self.hashes):
            return None
        return Head(sequence, self.hashes[sequence])

    def take(self, row: Row) -> Entry:
        """The next entry. Raises :class:`LedgerError` that names the entry if it cannot be."""
        expected = self.head.sequence + 1
        if row.sequence != expected:
            raise LedgerError(
                f"entry {expected} of the ledger is missing: {row.sequence} comes in its place"
            )
        try:
            row.check_hash(self.head.hash)
            entry = Entry.decode(row.content)
            self._enter(entry.body)
        except LedgerError as error:
            raise bad_entry(row.sequence, error) from None
        self.hashes.append(row.hash)
        return entry

    def _enter(self, body: Body) -> None:
        if (self.opened is None) != isinstance(body, Opened):
            raise LedgerError("a ledger begins with the entry that says whose it is, and only once")
        if isinstance(body, Opened):
            self.opened = body
        elif isinstance(body, PolicyChange):
            self.policy = body
        elif isinstance(body, Refusal):
            self.refusals.add((body.study, body.round, body.reason))
        elif self.policy is None:
            raise LedgerError("a release before there was a policy")
        elif (body.study, body.round) in self.releases:
            # DP-5.4
            raise LedgerError("a second release of one round of one study")
        else:
            self.releases[body.study, body.round] = Booked(body.state, body.digest)
            self.histories.add(body.patients, body.history)
            self.studies.setdefault(body.study, Histories()).add(body.patients, body.history)


def bad_entry(sequence: int, error: LedgerError) -> LedgerError:
    """``error`` with the number of the entry that it is about."""
    return LedgerError(
        f"entry {sequence} of the ledger is wrong: {error}. The ledger was changed or damaged; put "
        "back the latest good copy, and take no part until then"
    )
