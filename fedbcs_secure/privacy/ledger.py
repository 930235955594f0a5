"""What a site has spent on its patients, for all studies and restarts: what makes it refuse (DP-5).

One SQLite file a site. A release is stored, then booked, then handed out; so nothing leaves a site
that is not in its ledger, and a round that is asked for again gets the same bytes or nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, Self

from fedbcs_protocols.identity import Identity
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy import opening
from fedbcs_secure.privacy.audit import Verified, audit
from fedbcs_secure.privacy.chain import Book, Head, seal
from fedbcs_secure.privacy.claim import Claim
from fedbcs_secure.privacy.entries import Body, Entry, Opened, PolicyChange, Refusal, Release
from fedbcs_secure.privacy.events import Events, Unit
from fedbcs_secure.privacy.guard import Guard
from fedbcs_secure.privacy.histories import Cost, History, Prices, spend
from fedbcs_secure.privacy.patients import PatientKey
from fedbcs_secure.privacy.policy import NO_MORE, PolicyRefused, Reason, SitePolicy
from fedbcs_secure.privacy.releases import HeadFile, ReleaseFiles, purpose_key
from fedbcs_secure.privacy.shown import HeadKey, ShownHead
from fedbcs_secure.privacy.spending import refuse_release
from fedbcs_secure.privacy.statement import Statement, state
from fedbcs_secure.privacy.store import Store

__all__ = ["Claim", "Ledger"]


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
        patients: PatientKey,
        shows: HeadKey,
        policy: SitePolicy,
        cost: Cost,
        clock: Callable[[], str],
    ) -> None:
        self.policy = policy
        self._store, self._head_file, self._files = store, head_file, files
        self._identity, self._patients, self._shows = identity, patients, shows
        self._cost_of, self._clock = cost, clock
        self._price = Prices(cost, policy.delta)
        self._book = Book()
        self._guard = Guard()

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
        patients = PatientKey.of(storage_key)
        store = Store.open(path)
        try:
            ledger = cls(
                store,
                HeadFile(head),
                files,
                identity,
                patients,
                HeadKey.of(storage_key),
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
        self._book, last = opening.read(self._store)
        site = self._identity.public
        known = self._head_file.read(site)
        if last is None:
            opening.check_new(path, known, bool(self._files.slots()))
            self._append(Opened(site.raw, self._patients.check()))
        else:
            opening.check_owner(path, self._book, site, self._patients)
            opening.check_signature(last, site)
            opening.check_head(path, self._book, self._head_file.path, known, trust_ledger)
        # DP-5.5
        self._files.settle(self._book.releases, self.head)
        booked = self._book.policy
        if booked is None or booked.digest != self.policy.digest:
            self._append(PolicyChange(self.policy.digest, self.policy.text))
        if known != self.head:
            self._head_file.write(self.head, self._identity)

    @property
    def head(self) -> Head:
        """Number and hash of the last entry: for this site's own eyes."""
        with self._guard.mutex:
            return self._book.head

    def show_head(self, study: bytes) -> ShownHead:
        """What may be known of the head in frames that are bound to ``study``."""
        return self._shows.shown(study, self.head)

    def has_shown(self, study: bytes, shown: ShownHead) -> bool:
        """Whether this very ledger could show that, now or before.

        For what peers still have in this site's own signed frames: if not, an older copy of the
        ledger was restored (DP-5.6).
        """
        with self._guard.mutex:
            then = self._book.at(shown.sequence)
        if then is None:
            return False
        return hmac.compare_digest(self._shows.shown(study, then).value, shown.value)

    def release(self, claim: Claim, make: Callable[[], bytes]) -> bytes:
        """The bytes of this round's release: booked and on the disk, or the same as last time.

        ``make`` draws the noise; it is called once, after the policy agreed, and not at all when
        the round was released before. Raises :class:`PolicyRefused`, with an entry in the ledger,
        when the budget does not suffice, when the policy forbids the claim, and when an earlier
        release of the round cannot be repeated (DP-5.4).
        """
        with self._guard.using():
            draft = claim.draft(self._patients)
            if claim.slot in self._book.releases:
                return self._again(claim)
            self._allow(draft)
            data = bytes(make())
            if claim.slot in self._book.releases:
                raise LedgerError("the making of a release released the same round")
            with self._guard.writing():
                self._files.write(claim.slot, claim.state, self.head, data)
            digest = hashlib.sha256(data).digest()
            self._append(replace(draft, digest=digest), move_head=True)
            self._files.forget_unbooked()
            return data

    def refuse(self, study: bytes, number: int, reason: Reason, cost: float = 0.0) -> None:
        """Book that the site declined; once for each round and reason, however often asked."""
        with self._guard.using():
            if (study, number, reason) not in self._book.refusals:
                cost = math.inf if math.isnan(cost) else cost
                self._append(Refusal(study, number, reason, cost), move_head=True)

    def forget(self, study: bytes, before_round: int) -> None:
        """Delete the bytes of a study's releases before this round: they cannot be repeated then.

        Their entries stay, and with them what they cost.
        """
        with self._guard.using():
            self._files.forget(study, before_round)

    def spent(self) -> float:
        """The epsilon of the patient worst off, at the policy's delta and unit."""
        with self._guard.using():
            return self._book.histories.spend(self.policy.unit, self._price)

    @property
    def remaining(self) -> float:
        """What is left for the patient worst off, as a difference of epsilons; at least 0.

        What a study would lead to is :meth:`would_cost`: epsilons do not add up.
        """
        return max(0.0, self.policy.epsilon - self.spent())

    def would_cost(self, events: Events, patients: Iterable[str], unit: Unit) -> float:
        """The epsilon of the worst off of ``patients`` after ``events``, which hide ``unit``.

        Nothing is booked.
        """
        with self._guard.using():
            hashes = self._patients.hashes(frozenset(patients))
            after = self._book.histories.after(hashes, History(events, events, unit))
            return spend(after, self.policy.unit, self._price)

    def next_cost(self, events: Events, unit: Unit) -> float:
        """The same of whoever is worst off now."""
        with self._guard.using():
            release = History(events, events, unit)
            after = [history + release for history in self._book.histories.different()]
            return spend(after or [release], self.policy.unit, self._price)

    def history(self) -> Iterator[tuple[int, Entry]]:
        """All entries in order, with their numbers."""
        with self._guard.using():
            for row in self._store.rows():
                yield row.sequence, Entry.decode(row.content)

    def statement(self) -> Statement:
        """The ledger's state for people, such as ``budget`` prints."""
        with self._guard.using():
            return state(self._book, self.policy, self._price)

    def verify(self) -> Verified:
        """Walk the whole ledger on the disk: every hash, signature, number, slot and budget.

        Raises :class:`LedgerError` that names the first bad entry (DP-5.7).
        """
        with self._guard.using():
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
        with self._guard.mutex:
            self._guard.end()
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self.head.sequence} entries)"

    def _again(self, claim: Claim) -> bytes:
        """DP-5.4: the same bytes or none."""
        booked = self._book.releases[claim.slot]
        if booked.state != claim.state:
            text = (
                f"this site has released round {claim.round} of this study for another state; a "
                f"second release of a round is a second spend. {NO_MORE}"
            )
            self._decline(claim, PolicyRefused(Reason.OTHER_STATE, text))
        data = self._files.read(claim.slot, claim.state)
        if data is None or hashlib.sha256(data).digest() != booked.digest:
            text = (
                f"this site has released round {claim.round} of this study, and no longer has the "
                "bytes; new noise would be a second release of the same data. The site takes no "
                "part in this round"
            )
            self._decline(claim, PolicyRefused(Reason.LOST, text))
        return data

    def _allow(self, draft: Release) -> None:
        try:
            refuse_release(self.policy, draft, self._book.histories, self._price)
        except PolicyRefused as refusal:
            self._decline(draft, refusal)

    def _decline(self, claim: Claim | Release, refusal: PolicyRefused) -> NoReturn:
        self.refuse(claim.study, claim.round, refusal.reason, refusal.cost)
        raise refusal

    def _append(self, body: Body, *, move_head: bool = False) -> None:
        with self._guard.writing():
            behind = self.head
            row = seal(Entry(self._clock(), body), behind, self._identity)
            self._store.append(row, behind)
            self._book.take(row)
            # DP-5.5: nothing is handed out before the head knows of it.
            if move_head:
                self._head_file.write(self.head, self._identity)


def _accountant(events: Events, delta: float) -> float:
    from fedbcs_secure.privacy.cost import cost

    return cost(events, delta)
