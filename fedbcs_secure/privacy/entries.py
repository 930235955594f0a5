"""Entries of a site's ledger: what each kind says, and the one form of its bytes (DP-5.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from fedbcs_protocols.binding import DIGEST_BYTES, encode_fields
from fedbcs_protocols.errors import LocalError
from fedbcs_secure.errors import LedgerError, PrivacyError
from fedbcs_secure.privacy.events import UNITS, Events, Unit
from fedbcs_secure.privacy.histories import PATIENT_BYTES, History, split
from fedbcs_secure.privacy.policy import Reason, digest_of

MAX_PATIENTS = 1_000_000
MAX_ROUND = (1 << 32) - 1
MAX_TIME_CHARACTERS = 40

Field = bytes | str | int


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
    """A release: what it hides at what cost, about whom, and the SHA-256 of its bytes.

    ``unit``: what it hides, a patient with all images or a single image (DP-5.10). ``events``:
    with the noise of all who share it; ``alone``: with this site's noise only (the same, where
    nothing is shared). ``patients``: keyed hashes of 16 bytes, sorted, one after another.
    """

    study: bytes
    round: int
    state: bytes
    unit: Unit
    events: Events
    alone: Events
    digest: bytes
    patients: bytes = field(repr=False)

    KIND: ClassVar[str] = "release"

    def __post_init__(self) -> None:
        _slot(self.study, self.round)
        _digest("state digest", self.state)
        _digest("release digest", self.digest)
        if self.unit not in UNITS:
            raise LedgerError("a release hides patients or single images, and says which")
        hashes = list(split(self.patients))
        if not 1 <= len(hashes) <= MAX_PATIENTS or len(self.patients) % PATIENT_BYTES:
            raise LedgerError(f"a release is about 1 to {MAX_PATIENTS} patients")
        if any(one >= two for one, two in pairwise(hashes)):
            raise LedgerError("the patients of a release are not sorted, or one stands there twice")
        if not self.events or not self.alone:
            raise LedgerError("a release without privacy events")

    def fields(self) -> tuple[Field, ...]:
        costs = self.events.encode(), self.alone.encode()
        return self.study, self.round, self.state, self.unit, *costs, self.digest, self.patients

    @property
    def history(self) -> History:
        """What it adds to the history of each of its patients."""
        return History(self.events, self.alone, self.unit)

    @classmethod
    def of(cls, study: Any, number: Any, state: Any, unit: Any, *rest: Any) -> Release:
        events, alone, digest, patients = rest
        costs = Events.decode(events), Events.decode(alone)
        return cls(study, number, state, unit, *costs, digest, patients)


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
