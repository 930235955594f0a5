"""A walk over all entries of a ledger that names the first bad one (DP-5.7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedbcs_protocols.identity import PublicIdentity
from fedbcs_secure.errors import LedgerError, PrivacyError
from fedbcs_secure.privacy.chain import Book, Head, Row, bad_entry
from fedbcs_secure.privacy.entries import Opened, PolicyChange, Refusal, Release
from fedbcs_secure.privacy.histories import Cost, History, Prices, spend, split
from fedbcs_secure.privacy.policy import SitePolicy, build_policy

VERIFY_TOLERANCE = 0.01
"""How far above a cap a booked spend may come out: releases of the accountant differ a little."""


@dataclass(frozen=True)
class Verified:
    """A ledger in which every entry is right."""

    entries: int
    releases: int
    refusals: int
    policies: int
    head: Head


class _Audit:
    """One walk over a ledger's rows with the site's public key (DP-5.7)."""

    def __init__(self, site: PublicIdentity, cost: Cost, every: bool) -> None:
        self.book = Book()
        self.over: LedgerError | None = None
        self.counts = dict.fromkeys((Opened, Release, Refusal, PolicyChange), 0)
        self._site, self._cost, self._every = site, cost, every
        self._policy = SitePolicy()
        self._touched: set[bytes] = set()
        self._last = 0
        self._price = Prices(cost, self._policy.delta)

    def step(self, row: Row) -> None:
        body = self.book.take(row).body
        self.counts[type(body)] += 1
        try:
            row.check_signature(self._site)
            if isinstance(body, Opened) and body.site != self._site.raw:
                raise LedgerError("it is the ledger of another site")
            if isinstance(body, Release):
                self._check_terms(body)
        except LedgerError as error:
            raise bad_entry(row.sequence, error) from None
        if isinstance(body, Release):
            self._last = row.sequence
            self._touched.update(split(body.patients))
            if self._every:
                self.close_period()
        elif isinstance(body, PolicyChange):
            self.close_period()
            try:
                self._policy = build_policy(json.loads(body.text))
            except (PrivacyError, ValueError, RecursionError):
                raise bad_entry(row.sequence, LedgerError("it holds no site's policy")) from None
            if self._price.delta != self._policy.delta:
                self._price = Prices(self._cost, self._policy.delta)

    def close_period(self) -> None:
        """Compare with the caps what was spent on those about whom something was released."""
        after = self.book.histories.after(b"".join(self._touched), History())
        self._touched.clear()
        policy = self._policy
        for what, cap, alone in (
            ("epsilon", policy.epsilon, False),
            ("local epsilon", policy.local_epsilon, True),
        ):
            # Not once over it, so that the first is named.
            if cap is None or self.over is not None:
                continue
            epsilon = spend(after, policy.unit, self._price, alone=alone)
            if epsilon > cap * (1 + VERIFY_TOLERANCE):
                text = f"{what} {epsilon:.3g} of a patient is over the cap of then, {cap:g}"
                self.over = bad_entry(self._last, LedgerError(text))

    def _check_terms(self, release: Release) -> None:
        noise = min(event.noise_multiplier for event, _ in release.events.parts)
        if noise < self._policy.min_noise_multiplier:
            raise LedgerError("a release with less noise than the policy of then asked for")
        if release.alone != release.events and self._policy.local_epsilon is None:
            raise LedgerError("a release with shared noise, which the policy of then forbade")
        if self._policy.studies is not None and release.study.hex() not in self._policy.studies:
            raise LedgerError("a release for a study that was not approved then")
        # DP-5.10
        if release.unit not in ("patient", self._policy.unit):
            raise LedgerError(
                "a release that hides single images only, though the policy of then asked for "
                "patients to be hidden"
            )


def audit(rows: Callable[[], Iterable[Row]], site: PublicIdentity, cost: Cost) -> Verified:
    """Check a ledger's rows as far as they can be checked with the site's public key (DP-5.7).

    Hashes, signatures, numbers, one release a (study, round), and that every release was within
    the policy of its time. Raises :class:`LedgerError` that names the first bad entry.
    """

    def walk(every: bool) -> _Audit:
        found = _Audit(site, cost, every)
        for row in rows():
            found.step(row)
        found.close_period()
        return found

    found = walk(False)
    if found.over is not None:
        # Costs only rise, so they were looked up once a policy; now entry by entry, to name one.
        raise walk(True).over or found.over
    counts = found.counts
    return Verified(
        sum(counts.values()),
        counts[Release],
        counts[Refusal],
        counts[PolicyChange],
        found.book.head,
    )
