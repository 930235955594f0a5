"""Patients in a ledger: keyed hashes, so the ledger alone does not tell who they are (DP-5.3)."""

from __future__ import annotations

import hmac
import unicodedata
from dataclasses import dataclass, field

from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.entries import MAX_PATIENTS
from fedbcs_secure.privacy.histories import PATIENT_BYTES
from fedbcs_secure.privacy.releases import purpose_key


@dataclass(frozen=True)
class PatientKey:
    """The key of the hashes of one site's patients."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, storage_key: bytes) -> PatientKey:
        """Raises :class:`LedgerError` for a storage key of another length."""
        return cls(purpose_key(storage_key, "patients"))

    def hashes(self, patients: frozenset[str]) -> bytes:
        """As an entry has them: 16 bytes each, sorted, one after another.

        Raises :class:`LedgerError` for nobody, and for more than an entry holds.
        """
        if not 1 <= len(patients) <= MAX_PATIENTS:
            raise LedgerError(
                f"a release is about 1 to {MAX_PATIENTS} patients, not {len(patients)}"
            )
        return b"".join(sorted({self._hash(patient) for patient in patients}))

    def check(self) -> bytes:
        """32 bytes that tell this key from another, and nothing else of it."""
        return hmac.digest(self.key, b"key check\x00", "sha256")

    def _hash(self, patient: str) -> bytes:
        # Systems write an accented letter as one character or as two; it is one patient.
        text = unicodedata.normalize("NFC", patient).encode("utf-8", "surrogatepass")
        return hmac.digest(self.key, b"patient\x00" + text, "sha256")[:PATIENT_BYTES]
