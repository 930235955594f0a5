"""What a source names before a pixel is read: patients, their files and their stated splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from fedbcs_secure.data.images import SliceRule
from fedbcs_secure.data.records import Split
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import SiteName

SourceKind = Literal["synthetic-mri", "synthetic-he", "manifest", "nuclei", "prostate"]

MAX_LIST_BYTES = 50_000_000
MAX_LIST_LINES = 1_000_000
_MAX_ID_CHARS = 512

_SITE_NAME: TypeAdapter[str] = TypeAdapter(SiteName)


@dataclass(frozen=True)
class FilePair:
    """One image file and its label file."""

    image: Path
    label: Path


@dataclass(frozen=True)
class PatientFiles:
    """One patient of one site by its original id, files in order; ``split`` None: not stated."""

    site: str
    patient_id: str
    pairs: tuple[FilePair, ...]
    split: Split | None = None


@dataclass(frozen=True)
class Listing:
    """All patients of a source, and the problems met while listing them."""

    kind: SourceKind
    patients: tuple[PatientFiles, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    rule: SliceRule = "all"

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(sorted({patient.site for patient in self.patients}))


def name_problem(site: str, patient_id: str) -> str | None:
    """What is wrong with a site name or a patient id, or None."""
    try:
        _SITE_NAME.validate_python(site)
    except ValidationError:
        return f"site name {site[:40]!r}: expected 1 to 32 letters, digits, '_', '.' or '-'"
    if not patient_id or len(patient_id) > _MAX_ID_CHARS or not patient_id.isprintable():
        return f"patient id {patient_id[:40]!r}: expected 1 to {_MAX_ID_CHARS} printable characters"
    return None


def read_text(path: Path) -> str:
    """A list file's text (UTF-8, with or without byte order mark).

    Raises :class:`DataError`: missing, over 50 MB, not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise DataError(
                f"{path}: over {MAX_LIST_BYTES // 10**6} MB: expected a list of files; split it"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}): expected a text file"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8: expected plain text; save it as UTF-8") from None


def duplicate_images(patients: tuple[PatientFiles, ...]) -> list[str]:
    """A sentence for each image file that is listed more than once."""
    seen: dict[Path, PatientFiles] = {}
    problems = []
    for patient in patients:
        who = f"site {patient.site}, patient {patient.patient_id}"
        for pair in patient.pairs:
            if pair.image not in seen:
                seen[pair.image] = patient
                continue
            first = seen[pair.image]
            also = (
                ""
                if first is patient
                else f" (first for site {first.site}, patient {first.patient_id})"
            )
            problems.append(f"{who}: image {pair.image} is listed twice{also}: expected once")
    return problems
