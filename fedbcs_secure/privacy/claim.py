"""What a site asks its ledger for: a release that it is about to make (DP-5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedbcs_secure.privacy.entries import Release
from fedbcs_secure.privacy.events import Events, Unit
from fedbcs_secure.privacy.patients import PatientKey

_NO_DIGEST = bytes(32)


@dataclass(frozen=True)
class Claim:
    """A release that a site is about to make: which, what it hides at what cost, and about whom.

    ``study`` and ``state``: 32-byte digests. ``unit``: what it hides, patients or single images.
    ``events``: its cost. ``alone``: its cost if no other site adds the noise that the study
    shares; None: nothing is shared. ``patients``: identifiers of all whose data it could have
    used, also of those who were not sampled.
    """

    study: bytes
    round: int
    state: bytes
    unit: Unit
    events: Events
    patients: frozenset[str] = field(repr=False)
    alone: Events | None = None

    @property
    def slot(self) -> tuple[bytes, int]:
        """What is released once (DP-5.4)."""
        return self.study, self.round

    def draft(self, key: PatientKey) -> Release:
        """Its entry, but for the digest of bytes that are still to be made.

        Raises :class:`LedgerError` for what cannot be an entry.
        """
        return Release(
            self.study,
            self.round,
            self.state,
            self.unit,
            self.events,
            self.events if self.alone is None else self.alone,
            _NO_DIGEST,
            key.hashes(self.patients),
        )
