"""The manifest: a CSV with the columns ``site,patient,image,label,split``.

``site`` and ``split`` are optional. One row is one image file; rows of one patient are its slices
in row order. Relative paths are relative to the manifest. ``split`` is train, validation (or val)
or test; the same patient id at two sites means two patients.
"""

from __future__ import annotations

import csv
import io
from os.path import normpath
from pathlib import Path

from fedbcs_secure.data.listing import (
    MAX_LIST_LINES,
    FilePair,
    Listing,
    PatientFiles,
    duplicate_images,
    name_problem,
    read_text,
)
from fedbcs_secure.data.records import Split
from fedbcs_secure.errors import DataError

REQUIRED = ("patient", "image", "label")
OPTIONAL = ("site", "split")
SPLIT_WORDS: dict[str, Split | None] = {
    "": None,
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
DEFAULT_SITE = "A"


def _header(path: Path, row: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in row]
    problems = []
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    missing = [name for name in REQUIRED if name not in columns]
    if unknown:
        hint = "; separate columns with commas" if ";" in "".join(unknown) else ""
        problems.append(
            f"{path}: unknown column(s) {', '.join(name[:60] or '(empty)' for name in unknown)}: "
            f"expected only site, patient, image, label, split{hint}"
        )
    if missing:
        problems.append(f"{path}: no column {', '.join(missing)}: expected it in the first line")
    if len(set(columns)) < len(columns):
        problems.append(f"{path}: a column appears twice: expected each once")
    if problems:
        raise DataError(problems)
    return columns


def _rows(path: Path) -> list[tuple[int, dict[str, str] | None]]:
    """(line number, values by column); None for a row with the wrong number of fields."""
    rows: list[tuple[int, dict[str, str] | None]] = []
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = _header(path, next(reader, []))
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if len(rows) == MAX_LIST_LINES:
                raise DataError(f"{path}: over {MAX_LIST_LINES} rows: expected fewer; split it")
            values = [value.strip() for value in row]
            fits = len(values) == len(columns)
            rows.append(
                (reader.line_num, dict(zip(columns, values, strict=True)) if fits else None)
            )
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num} is not CSV ({error}): "
            "expected comma-separated fields, quoted where they hold commas"
        ) from None
    return rows


def _row_problem(values: dict[str, str], site: str) -> str | None:
    problem = name_problem(site, values["patient"])
    if problem:
        return problem
    who = f"site {site}, patient {values['patient']}"
    for column in ("image", "label"):
        if not values[column] or "\x00" in values[column]:
            return f"{who}: no {column}: expected a path"
    if values["image"] == values["label"]:
        return f"{who}: image and label are both {values['image']}: expected two files"
    if values.get("split", "").lower() not in SPLIT_WORDS:
        return f"{who}: split {values['split'][:40]!r}: expected train, validation (val) or test"
    return None


def _grouped(
    rows: list[tuple[str, str, FilePair, Split | None]],
) -> tuple[tuple[PatientFiles, ...], list[str]]:
    """Patients in order of first appearance; a patient in two splits is a problem."""
    pairs: dict[tuple[str, str], list[FilePair]] = {}
    splits: dict[tuple[str, str], dict[Split | None, None]] = {}
    for site, patient_id, pair, split in rows:
        pairs.setdefault((site, patient_id), []).append(pair)
        splits.setdefault((site, patient_id), {})[split] = None
    patients, problems = [], []
    for (site, patient_id), files in pairs.items():
        found = splits[site, patient_id]
        if len(found) > 1:
            names = " and ".join(sorted(name or "(none)" for name in found))
            problems.append(
                f"site {site}, patient {patient_id}: in splits {names}: "
                "expected all images of a patient in one split"
            )
        patients.append(PatientFiles(site, patient_id, tuple(files), next(iter(found))))
    return tuple(patients), problems


def read_manifest(path: Path, *, site: str | None = None) -> Listing:
    """List a manifest; wrong rows become problems, the others stay.

    ``site`` names the site of a manifest without that column (default "A"). Raises
    :class:`DataError` when the file as a whole is unusable: unreadable, no CSV, wrong header.
    """
    rows: list[tuple[str, str, FilePair, Split | None]] = []
    problems: list[str] = []
    for line, values in _rows(path):
        if values is None:
            problems.append(f"{path}, line {line}: expected as many fields as the header has")
            continue
        where = values.get("site", site or DEFAULT_SITE)
        problem = _row_problem(values, where)
        if problem:
            problems.append(f"{path}, line {line}: {problem}")
            continue
        image, label = (Path(normpath(path.parent / values[name])) for name in ("image", "label"))
        split = SPLIT_WORDS[values.get("split", "").lower()]
        rows.append((where, values["patient"], FilePair(image, label), split))
    if not rows and not problems:
        problems.append(f"{path}: no rows: expected one for each image")
    patients, conflicts = _grouped(rows)
    problems += conflicts + duplicate_images(patients)
    return Listing("manifest", patients, tuple(problems))
