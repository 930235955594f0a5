"""Entries of a site's ledger: what they say, how they are chained and signed, what they add up to.

An entry's hash is SHA-256 over its number, the hash before it and its content, in the injective
encoding of ``fedbcs_protocols.binding``; the site signs number and hash. So the last signature
stands for all entries (DP-5.2). No SQLite here, no files and no clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from fedbcs_protocols.binding import DIGEST_BYTES, encode_fields
from fedbcs_protocols.errors import BadSignature, LocalError
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_secure.errors import LedgerError, PrivacyError
from fedbcs_secure.privacy.events import Events
from fedbcs_secure.privacy.histories import PATIENT_BYTES, Histories, History, split
from fedbcs_secure.privacy.policy import (
    Reason,
    digest_of,
)

MAX_PATIENTS = 1_000_000
MAX_CONTENT_BYTES = 1 << 25
MAX_ROUND = (1 << 32) - 1
MAX_TIME_CHARACTERS = 40

_HASH_LABEL = "fedbcs-secure ledger entry v1"
_SIGNATURE_LABEL = "fedbcs-secure ledger signature v1"

Field = bytes | str | int


@dataclass(frozen=True)
class Head:
    """How far a ledger reaches: the number of its last entry, from 1, and that entry's hash."""

    sequence: int
    hash: bytes


START = Head(0, bytes(DIGEST_BYTES))
"""What the first entry is chained to."""


@dataclass(frozen=True)
class Opened:
    """The first entry: whose ledger it is. ``key_check`` tells one storage key from another."""

    site: bytes
    key_check: bytes

    KIND: ClassVar[str] = "opened"

    def __post_init__(self) -> None:
        _digest("site's key", self.site)
        _digest("key check", self.key_check)

    def fields(self) -> tuple[Field, ...]:
        return self.site, self.key_check

    @classmethod
    def of(cls, site: Any, key_check: Any) -> Opened:
        return cls(site, key_check)


@dataclass(frozen=True)
class Release:
    """A release: what it cost, about whom, and the SHA-256 of its bytes.

    ``events``: with the noise of all who share it; ``alone``: with this site's noise only (the
    same, where nothing is shared). ``patients``: keyed hashes of 16 bytes, sorted, one after
    another.
    """

    study: bytes
    round: int
    state: bytes
    events: Events
    alone: Events
    digest: bytes
    patients: bytes = field(repr=False)

    KIND: ClassVar[str] = "release"

    def __post_init__(self) -> None:
        _slot(self.study, self.round)
        _digest("state digest", self.state)
        _digest("release digest", self.digest)
        hashes = list(split(self.patients))
        if not 1 <= len(hashes) <= MAX_PATIENTS or len(self.patients) % PATIENT_BYTES:
            raise LedgerError(f"a release is about 1 to {MAX_PATIENTS} patients")
        if any(one >= two for one, two in pairwise(hashes)):
            raise LedgerError("the patients of a release are not sorted, or one stands there twice")
        if not self.events or not self.alone:
            raise LedgerError("a release without privacy events")

    def fields(self) -> tuple[Field, ...]:
        costs = self.events.encode(), self.alone.encode()
        return self.study, self.round, self.state, *costs, self.digest, self.patients

    @classmethod
    def of(cls, study: Any, number: Any, state: Any, *rest: Any) -> Release:
        events, alone, digest, patients = rest
        return cls(
            study, number, state, Events.decode(events), Events.decode(alone), digest, patients
        )


@dataclass(frozen=True)
class Refusal:
    """The site declined. ``cost``: the epsilon that the release would have led to; 0: not asked."""

    study: bytes
    round: int
    reason: Reason
    cost: float

    KIND: ClassVar[str] = "refusal"

    def __post_init__(self) -> None:
        _slot(self.study, self.round)
        if not self.cost >= 0:
            raise LedgerError("the cost of what was refused is 0 or more")

    def fields(self) -> tuple[Field, ...]:
        return self.study, self.round, self.reason.value, repr(float(self.cost))

    @classmethod
    def of(cls, study: Any, number: Any, reason: Any, cost: Any) -> Refusal:
        return cls(study, number, Reason(reason), float(cost))


@dataclass(frozen=True)
class PolicyChange:
    """The site's policy from here on: its digest, and its canonical text with all caps."""

    digest: bytes
    text: str

    KIND: ClassVar[str] = "policy"

    def __post_init__(self) -> None:
        _digest("policy digest", self.digest)
        if self.digest != digest_of(self.text):
            raise LedgerError("the policy's digest is not that of its text")

    def fields(self) -> tuple[Field, ...]:
        return self.digest, self.text

    @classmethod
    def of(cls, digest: Any, text: Any) -> PolicyChange:
        return cls(digest, text)


Body = Opened | Release | Refusal | PolicyChange
_KINDS: dict[str, type[Body]] = {
    kind.KIND: kind for kind in (Opened, Release, Refusal, PolicyChange)
}


@dataclass(frozen=True)
class Entry:
    """What an entry says. ``time`` is for people; nothing follows from it."""

    time: str
    body: Body

    def encode(self) -> bytes:
        return encode_fields(self.body.KIND, self.time[:MAX_TIME_CHARACTERS], *self.body.fields())

    @classmethod
    def decode(cls, content: bytes) -> Entry:
        """Raises :class:`LedgerError` for anything but the canonical form."""
        try:
            kind, time, *fields = _fields(content)
            entry = cls(str(time), _KINDS[str(kind)].of(*fields))
            if entry.encode() == content:
                return entry
        except (ValueError, TypeError, KeyError, AttributeError, PrivacyError, LocalError):
            pass
        raise LedgerError("its content is not in the canonical form")


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
        return 0 <= head.sequence < len(self.hashes) and self.hashes[head.sequence] == head.hash

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
            release = History(body.events, body.alone)
            self.releases[body.study, body.round] = Booked(body.state, body.digest)
            self.histories.add(body.patients, release)
            self.studies.setdefault(body.study, Histories()).add(body.patients, release)


def bad_entry(sequence: int, error: LedgerError) -> LedgerError:
    """``error`` with the number of the entry that it is about."""
    return LedgerError(
        f"entry {sequence} of the ledger is wrong: {error}. The ledger was changed or damaged; put "
        "back the latest good copy, and take no part until then"
    )


def _fields(data: bytes) -> list[Field]:
    """The inverse of ``encode_fields``. Raises ValueError."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, size = data[at : at + 1], int.from_bytes(data[at + 1 : at + 5], "big")
        part = data[at + 5 : at + 5 + size]
        if len(part) != size:
            raise ValueError("cut short")
        at += 5 + size
        fields.append(
            part.decode() if tag == b"s" else int.from_bytes(part, "big") if tag == b"i" else part
        )
    return fields


def _digest(what: str, value: object) -> None:
    if not isinstance(value, bytes) or len(value) != DIGEST_BYTES:
        raise LedgerError(f"the {what} is not {DIGEST_BYTES} bytes")


def _slot(study: object, number: object) -> None:
    _digest("study digest", study)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_ROUND:
        raise LedgerError(f"a round is from 0 to {MAX_ROUND}")
