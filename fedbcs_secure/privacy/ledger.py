"""What a site has spent on its patients, for all studies and restarts: what makes it refuse (DP-5).

One SQLite file a site. A release is stored, then booked, then handed out; so nothing leaves a site
that is not in its ledger, and a round that is asked for again gets the same bytes or nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, Self

from fedbcs_protocols.identity import Identity
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.audit import Verified, audit
from fedbcs_secure.privacy.chain import (
    MAX_PATIENTS,
    Body,
    Book,
    Entry,
    Head,
    Opened,
    PolicyChange,
    Refusal,
    Release,
    Row,
    bad_entry,
    seal,
)
from fedbcs_secure.privacy.events import Events
from fedbcs_secure.privacy.histories import PATIENT_BYTES, Cost, History, worst
from fedbcs_secure.privacy.policy import (
    NO_MORE,
    PolicyRefused,
    Reason,
    SitePolicy,
    refuse_spend,
    refuse_terms,
)
from fedbcs_secure.privacy.releases import (
    HeadFile,
    ReleaseFiles,
    purpose_key,
)
from fedbcs_secure.privacy.store import Store

_MAX_CACHED = 4096


@dataclass(frozen=True)
class Claim:
    """A release that a site is about to make: which, what it costs, and about whom.

    ``study`` and ``state``: 32-byte digests. ``events``: its cost. ``alone``: its cost if no other
    site adds the noise that the study shares; None: nothing is shared. ``patients``: identifiers
    of all whose data it could have used, also of those who were not sampled.
    """

    study: bytes
    round: int
    state: bytes
    events: Events
    patients: frozenset[str] = field(repr=False)
    alone: Events | None = None


@dataclass(frozen=True)
class StudySpend:
    """One study in a statement: its releases, and the epsilon of that study by itself."""

    study: bytes
    rounds: int
    epsilon: float


@dataclass(frozen=True)
class Statement:
    """What a ledger says for people: all at the policy's ``delta``, of the patient worst off."""

    epsilon: float
    delta: float
    cap: float
    remaining: float
    local_epsilon: float
    local_cap: float | None
    releases: int
    refusals: int
    studies: tuple[StudySpend, ...]
    head: Head


def now() -> str:
    """The time, for people who read an entry."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """The open ledger of a site. Use :meth:`open`; threads may share it, processes may not.

    All methods raise :class:`LedgerError` when something is wrong with the ledger. After an error
    while writing it must be closed and opened again, which finds out what is on the disk.
    """

    def __init__(
        self,
        store: Store,
        head_file: HeadFile,
        files: ReleaseFiles,
        identity: Identity,
        patient_key: bytes,
        policy: SitePolicy,
        cost: Cost,
        clock: Callable[[], str],
    ) -> None:
        self.policy = policy
        self._store, self._head_file, self._files = store, head_file, files
        self._identity, self._patient_key = identity, patient_key
        self._cost_of, self._clock = cost, clock
        self._book = Book()
        self._refusals = 0
        self._cache: dict[Events, float] = {}
        self._process = os.getpid()
        self._mutex = threading.RLock()
        self._broken = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        head: Path,
        identity: Identity,
        storage_key: bytes,
        policy: SitePolicy | None = None,
        releases: Path | None = None,
        cost: Cost | None = None,
        clock: Callable[[], str] = now,
        trust_ledger: bool = False,
    ) -> Ledger:
        """The ledger at ``path``, made if the site has none yet.

        ``head``: the file that says how far the ledger reaches; keep it where no backup of the
        ledger is restored over it. ``releases``: the folder of the encrypted releases, by default
        beside the ledger. ``cost``: by default the accountant's. ``trust_ledger``: a person is sure
        that a ledger without a head is the latest. Raises :class:`LedgerError` when the ledger is
        in use, damaged, missing, another site's, or older than the head says.
        """
        files = ReleaseFiles(
            releases or path.parent / "releases", purpose_key(storage_key, "releases")
        )
        patient_key = purpose_key(storage_key, "patients")
        store = Store.open(path)
        try:
            ledger = cls(
                store,
                HeadFile(head),
                files,
                identity,
                patient_key,
                policy or SitePolicy(),
                cost or _accountant,
                clock,
            )
            ledger._begin(path, trust_ledger)
        except BaseException:
            store.close()
            raise
        return ledger

    def _begin(self, path: Path, trust_ledger: bool) -> None:
        last: Row | None = None
        for row in self._store.rows():
            self._count(self._book.take(row).body)
            last = row
        known = self._head_file.read(self._identity.public)
        if last is None:
            if known is not None or self._files.slots():
                raise LedgerError(
                    f"the ledger {path} is missing or empty, though there was one: its head or its "
                    "releases are there. Put back the latest ledger; without it the site cannot "
                    "know what it has spent, and takes no part"
                )
            self._append(Opened(self._identity.public.raw, self._key_check()))
        else:
            self._check_owner(path)
            # DP-5.2: by the chain, the last signature is over all entries.
            try:
                last.check_signature(self._identity.public)
            except LedgerError as error:
                raise bad_entry(last.sequence, error) from None
            self._check_head(path, known, trust_ledger)
        # DP-5.5
        self._files.settle(self._book.releases, self.head)
        booked = self._book.policy
        if booked is None or booked.digest != self.policy.digest:
            self._append(PolicyChange(self.policy.digest, self.policy.text))
        if known != self.head:
            self._head_file.write(self.head, self._identity)

    def _check_owner(self, path: Path) -> None:
        opened = self._book.opened
        if opened is None or opened.site != self._identity.public.raw:
            raise LedgerError(
                f"{path} is the ledger of another site, or of another key of this one; find the "
                "ledger that belongs to this key"
            )
        if not hmac.compare_digest(opened.key_check, self._key_check()):
            raise LedgerError(
                f"{path} was kept under another storage key, so its patients would not be known "
                "again; use the key file that the ledger was opened with"
            )

    def _check_head(self, path: Path, known: Head | None, trust_ledger: bool) -> None:
        """DP-5.6"""
        if known is None:
            if self._book.releases and not trust_ledger:
                raise LedgerError(
                    f"the head {self._head_file.path} is missing, so nobody can say whether {path} "
                    "is the latest ledger. Put the head back. If it is lost, and nobody can have "
                    "restored an older ledger, open the ledger with trust_ledger"
                )
        elif known.sequence > self.head.sequence:
            raise LedgerError(
                f"{path} ends at entry {self.head.sequence}, but had {known.sequence} before: an "
                "older copy was restored, or the end was lost. Put back the latest ledger with its "
                "-wal file; without it the site cannot know what it has spent, and takes no part"
            )
        elif not self._book.contains(known):
            raise LedgerError(
                f"{path} has another entry {known.sequence} than before: an older copy was "
                "restored and went on from there. Put back the ledger that the head "
                f"{self._head_file.path} belongs to; until then the site takes no part"
            )

    @property
    def head(self) -> Head:
        """Number and hash of the last entry, to go into frames."""
        with self._mutex:
            return self._book.head

    def contains(self, sequence: int, digest: bytes) -> bool:
        """Whether entry ``sequence`` of this ledger has the hash ``digest``.

        For the heads in this site's own signed frames that peers still have: if one is not in the
        ledger, an older copy was restored (DP-5.6). ``(0, zeros)`` is in every ledger.
        """
        with self._mutex:
            return self._book.contains(Head(sequence, digest))

    def release(self, claim: Claim, make: Callable[[], bytes]) -> bytes:
        """The bytes of this round's release: booked and on the disk, or the same as last time.

        ``make`` draws the noise; it is called once, after the policy agreed, and not at all when
        the round was released before. Raises :class:`PolicyRefused`, with an entry in the ledger,
        when the budget does not suffice, when the policy forbids the claim, and when an earlier
        release of the round cannot be repeated (DP-5.4).
        """
        with self._using():
            slot = claim.study, claim.round
            alone = claim.events if claim.alone is None else claim.alone
            draft = Release(
                *slot, claim.state, claim.events, alone, bytes(32), self._hashes(claim.patients)
            )
            if slot in self._book.releases:
                return self._again(claim)
            self._allow(draft)
            data = bytes(make())
            if slot in self._book.releases:
                raise LedgerError("the making of a release released the same round")
            with self._writing():
                self._files.write(slot, claim.state, self.head, data)
            digest = hashlib.sha256(data).digest()
            self._append(
                Release(*slot, claim.state, draft.events, alone, digest, draft.patients),
                move_head=True,
            )
            return data

    def refuse(self, study: bytes, number: int, reason: Reason, cost: float = 0.0) -> None:
        """Book that the site declined; once for each round and reason, however often asked."""
        with self._using():
            if (study, number, reason) not in self._book.refusals:
                cost = math.inf if math.isnan(cost) else cost
                self._append(Refusal(study, number, reason, cost), move_head=True)

    def forget(self, study: bytes, before_round: int) -> None:
        """Delete the bytes of a study's releases before this round: they cannot be repeated then.

        Their entries stay, and with them what they cost.
        """
        with self._using():
            self._files.forget(study, before_round)

    def spent(self) -> float:
        """The epsilon of the patient worst off, at the policy's delta."""
        with self._using():
            return self._book.histories.worst(self._cost)

    @property
    def remaining(self) -> float:
        """What is left for the patient worst off, as a difference of epsilons; at least 0.

        What a study would lead to is :meth:`would_cost`: epsilons do not add up.
        """
        return max(0.0, self.policy.epsilon - self.spent())

    def would_cost(self, events: Events, patients: Iterable[str]) -> float:
        """The epsilon of the worst off of ``patients`` after ``events``. Nothing is booked."""
        with self._using():
            hashes = self._hashes(frozenset(patients))
            after = self._book.histories.after(hashes, History(events, events))
            return worst((history.events for history in after), self._cost)

    def next_cost(self, events: Events) -> float:
        """The epsilon after ``events`` of whoever is worst off now. Nothing is booked."""
        with self._using():
            after = [h.events + events for h in self._book.histories.different()]
            return worst(after or [events], self._cost)

    def history(self) -> Iterator[tuple[int, Entry]]:
        """All entries in order, with their numbers."""
        with self._using():
            for row in self._store.rows():
                yield row.sequence, Entry.decode(row.content)

    def statement(self) -> Statement:
        """The ledger's state for people, such as ``budget`` prints."""
        with self._using():
            book, epsilon = self._book, self.spent()
            different = book.histories.different()
            studies = tuple(
                StudySpend(study, sum(s == study for s, _ in book.releases), h.worst(self._cost))
                for study, h in book.studies.items()
            )
            return Statement(
                epsilon=epsilon,
                delta=self.policy.delta,
                cap=self.policy.epsilon,
                remaining=max(0.0, self.policy.epsilon - epsilon),
                local_epsilon=worst((history.alone for history in different), self._cost),
                local_cap=self.policy.local_epsilon,
                releases=len(book.releases),
                refusals=self._refusals,
                studies=studies,
                head=self.head,
            )

    def verify(self) -> Verified:
        """Walk the whole ledger on the disk: every hash, signature, number, slot and budget.

        Raises :class:`LedgerError` that names the first bad entry (DP-5.7).
        """
        with self._using():
            self._store.check_pages()
            found = audit(self._store.rows, self._identity.public, self._cost_of)
            # SHA-256 of equal heads stands for equal ledgers.
            if found.head != self.head:
                raise LedgerError(
                    f"the ledger ends at entry {found.head.sequence}, not as it did at "
                    f"{self.head.sequence}: it was changed by another program. Put back the latest "
                    "good copy, and take no part until then"
                )
            return found

    def close(self) -> None:
        """Let another process have the ledger. It cannot be used afterwards."""
        with self._mutex:
            self._broken = True
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self.head.sequence} entries)"

    def _again(self, claim: Claim) -> bytes:
        """DP-5.4: the same bytes or none."""
        booked = self._book.releases[claim.study, claim.round]
        if booked.state != claim.state:
            text = (
                f"this site has released round {claim.round} of this study for another state; a "
                f"second release of a round is a second spend. {NO_MORE}"
            )
            self._decline(claim, PolicyRefused(Reason.OTHER_STATE, text))
        data = self._files.read((claim.study, claim.round), claim.state)
        if data is None or hashlib.sha256(data).digest() != booked.digest:
            text = (
                f"this site has released round {claim.round} of this study, and no longer has the "
                "bytes; new noise would be a second release of the same data. The site takes no "
                "part in this round"
            )
            self._decline(claim, PolicyRefused(Reason.LOST, text))
        return data

    def _allow(self, draft: Release) -> None:
        """Return when the policy allows the release. Budget and policy decide, never the data."""
        release = History(draft.events, draft.alone)
        before = self._book.histories.after(draft.patients, History())
        after = self._book.histories.after(draft.patients, release)
        try:
            # DP-6.3
            refuse_terms(
                self.policy,
                study=draft.study,
                noise_multiplier=min(event.noise_multiplier for event, _ in draft.events.parts),
                shared=draft.alone != draft.events,
            )
            # DP-5.3
            spent, leads_to = (worst((h.events for h in hs), self._cost) for hs in (before, after))
            refuse_spend(self.policy, spent, leads_to)
            if self.policy.local_epsilon is not None:
                spent, leads_to = (
                    worst((h.alone for h in hs), self._cost) for hs in (before, after)
                )
                refuse_spend(self.policy, spent, leads_to, local=True)
        except PolicyRefused as refusal:
            self._decline(draft, refusal)

    def _decline(self, claim: Claim | Release, refusal: PolicyRefused) -> NoReturn:
        self.refuse(claim.study, claim.round, refusal.reason, refusal.cost)
        raise refusal

    def _append(self, body: Body, *, move_head: bool = False) -> None:
        with self._writing():
            behind = self.head
            row = seal(Entry(self._clock(), body), behind, self._identity)
            self._store.append(row, behind)
            self._book.take(row)
            self._count(body)
            # DP-5.5: nothing is handed out before the head knows of it.
            if move_head:
                self._head_file.write(self.head, self._identity)

    def _count(self, body: Body) -> None:
        self._refusals += isinstance(body, Refusal)

    def _cost(self, events: Events) -> float:
        if events not in self._cache:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[events] = self._cost_of(events, self.policy.delta)
        return self._cache[events]

    def _hashes(self, patients: frozenset[str]) -> bytes:
        if not 1 <= len(patients) <= MAX_PATIENTS:
            raise LedgerError(
                f"a release is about 1 to {MAX_PATIENTS} patients, not {len(patients)}"
            )
        return b"".join(sorted({self._hash(patient) for patient in patients}))

    def _hash(self, patient: str) -> bytes:
        # Systems write an accented letter as one character or as two; it is one patient.
        text = unicodedata.normalize("NFC", patient).encode("utf-8", "surrogatepass")
        return hmac.digest(self._patient_key, b"patient\x00" + text, "sha256")[:PATIENT_BYTES]

    def _key_check(self) -> bytes:
        return hmac.digest(self._patient_key, b"key check\x00", "sha256")

    @contextmanager
    def _using(self) -> Iterator[None]:
        # A forked child would write behind a head that its parent has moved.
        if self._process != os.getpid():
            raise LedgerError(
                "the ledger belongs to the process that opened it; in a forked process open it "
                "anew, after the other has closed it"
            )
        with self._mutex:
            if self._broken:
                raise LedgerError(
                    "the ledger is closed, or could not be written to before; open it again"
                )
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What is on the disk after an error, only a new start can tell."""
        try:
            yield
        except BaseException:
            self._broken = True
            raise


def _accountant(events: Events, delta: float) -> float:
    from fedbcs_secure.privacy.cost import cost

    return cost(events, delta)
