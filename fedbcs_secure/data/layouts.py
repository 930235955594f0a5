"""The two folder layouts that users of the published method already have.

*Nuclei*: ``ROOT/X/{train,val}.txt`` for each site X, or ``ROOT/X/5fold/X_fold{n}_{train,val}.txt``;
a line is ``image_path mask_path`` relative to ROOT. ``val`` is a list to report on, so it is the
test split here, and validation is carved from train. No list names patients: each image counts as
one patient.

*Prostate MRI*: ``ROOT/X/CaseNN.nii.gz`` and one segmentation a case, such as
``CaseNN_segmentation.nii.gz``. A sample is a labelled slice between the first and the last, with
both neighbours as channels. Fold files, if any, are ``ROOT/X/5fold/X_fold{n}_{train,val}.txt``
with a case name a line; otherwise patients are split by hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import normpath
from pathlib import Path
from typing import Any, Literal

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

Layout = Literal["nuclei", "prostate"]

REQUIRED_CONTRACT: dict[Layout, Mapping[str, Any]] = {
    "nuclei": {"labels": "nonzero", "classes": 2},
    "prostate": {
        "labels": "nonzero",
        "classes": 2,
        "channels": 3,
        "scaling": "percentile99",
        "volume": "stack3",
    },
}
"""What the data contract must say for the layout to mean what it means in the paper."""

_LISTS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "test"))
_CASE = re.compile(r"case[ _-]?(\d+)\.nii(?:\.gz)?", re.IGNORECASE)
_SEGMENTATION = re.compile(
    r"case[ _-]?(\d+)[ _-]*(?:segmentation|seg|label|mask)\.nii(?:\.gz)?", re.IGNORECASE
)
_CASE_NAME = re.compile(r"case[ _-]?(\d+)(?:\.nii(?:\.gz)?)?", re.IGNORECASE)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}): expected a readable folder"
        ) from None


def _folders(root: Path) -> list[Path]:
    return [path for path in _entries(root) if path.is_dir()]


def _has_cases(folder: Path) -> bool:
    return any(_CASE.fullmatch(path.name) for path in _entries(folder))


def detect_layout(root: Path) -> Layout | None:
    """Which layout ``root`` has, by its sub-folders: cases first, then lists; None: neither."""
    folders = _folders(root) if root.is_dir() else []
    if any(_has_cases(folder) for folder in folders):
        return "prostate"
    if any((folder / "train.txt").is_file() for folder in folders):
        return "nuclei"
    return None


def _list_path(folder: Path, name: str, fold: int | None) -> Path:
    if fold is None:
        return folder / f"{name}.txt"
    return folder / "5fold" / f"{folder.name}_fold{fold}_{name}.txt"


def _lines(path: Path) -> list[tuple[int, str]]:
    lines = read_text(path).splitlines()
    if len(lines) > MAX_LIST_LINES:
        raise DataError(f"{path}: over {MAX_LIST_LINES} lines: expected fewer; split it")
    return [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]


def _nuclei_list(
    root: Path, site: str, path: Path, split: Split
) -> tuple[list[PatientFiles], list[str]]:
    patients, problems = [], []
    for number, line in _lines(path):
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) != 2 or "\x00" in line:
            problems.append(f"{path}, line {number}: expected two paths, image and mask")
            continue
        problem = name_problem(site, parts[0])
        if problem:
            problems.append(f"{path}, line {number}: {problem}")
            continue
        image, mask = (Path(normpath(root / part)) for part in parts)
        patients.append(PatientFiles(site, parts[0], (FilePair(image, mask),), split))
    return patients, problems


def read_nuclei(root: Path, *, fold: int | None = None) -> Listing:
    """List the nuclei layout. A site without a ``val`` list has no test split.

    Raises :class:`DataError` when a list file is unreadable; wrong lines become problems.
    """
    patients: list[PatientFiles] = []
    problems: list[str] = []
    for folder in _folders(root):
        if not (folder / "train.txt").is_file():
            continue
        for name, split in _LISTS:
            path = _list_path(folder, name, fold)
            if fold is None and name == "val" and not path.exists():
                continue
            try:
                found, wrong = _nuclei_list(root, folder.name, path, split)
            except DataError as error:
                problems += error.problems
                continue
            patients += found
            problems += wrong
    kept, conflicts = _without_repeats(patients)
    note = "the lists name no patients: each image counts as one patient"
    return Listing("nuclei", kept, (*problems, *conflicts, *duplicate_images(kept)), notes=(note,))


def _without_repeats(patients: list[PatientFiles]) -> tuple[tuple[PatientFiles, ...], list[str]]:
    """Keep the first line of each image; a second one, in any list, is a problem."""
    kept: dict[tuple[str, str], PatientFiles] = {}
    problems = []
    for patient in patients:
        first = kept.setdefault((patient.site, patient.patient_id), patient)
        if first is patient:
            continue
        where = "listed twice" if first.split == patient.split else "in both train and val (test)"
        problems.append(
            f"site {patient.site}, patient {patient.patient_id}: image {patient.pairs[0].image} "
            f"is {where}: expected once"
        )
    return tuple(kept.values()), problems


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for path in _entries(folder):
        match = pattern.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1][:9]), []).append(path)
    return found


def _cases(folder: Path) -> tuple[dict[int, PatientFiles], list[str]]:
    images, masks = _numbered(folder, _CASE), _numbered(folder, _SEGMENTATION)
    cases: dict[int, PatientFiles] = {}
    problems = []
    for number, paths in images.items():
        case_id = paths[0].name.split(".", 1)[0]
        who = f"site {folder.name}, patient {case_id}"
        labels = masks.get(number, [])
        problem = name_problem(folder.name, case_id)
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            problem = f"{who}: several volumes ({names}): expected one {folder / case_id}.nii.gz"
        elif len(labels) != 1:
            names = ", ".join(path.name for path in labels) or "none"
            problem = (
                f"{who}: segmentation of {paths[0]}: {names}: "
                f"expected exactly one, such as {case_id}_segmentation.nii.gz"
            )
        if problem:
            problems.append(problem)
        else:
            cases[number] = PatientFiles(folder.name, case_id, (FilePair(paths[0], labels[0]),))
    return cases, problems


def _fold_splits(folder: Path, fold: int, cases: set[int]) -> tuple[dict[int, Split], list[str]]:
    """Splits by case number, from the fold's two lists of case names."""
    splits: dict[int, Split] = {}
    problems = []
    for name, split in _LISTS:
        path = _list_path(folder, name, fold)
        for line, text in _lines(path):
            match = _CASE_NAME.fullmatch(text.replace("\\", "/").rsplit("/", 1)[-1])
            number = int(match[1][:9]) if match else -1
            if number not in cases:
                problems.append(
                    f"{path}, line {line}: {text[:80]!r}: expected the name of a case "
                    f"in {folder}, such as Case00"
                )
            elif splits.setdefault(number, split) != split:
                problems.append(
                    f"site {folder.name}, patient {text}: in both lists of fold {fold} ({path}): "
                    "expected one"
                )
    return splits, problems


def read_prostate(root: Path, *, fold: int | None = None) -> Listing:
    """List the prostate layout; with ``fold``, cases outside its lists are left out."""
    patients: list[PatientFiles] = []
    problems: list[str] = []
    for folder in _folders(root):
        if not _has_cases(folder):
            continue
        cases, wrong = _cases(folder)
        problems += wrong
        if fold is None:
            patients += cases.values()
            continue
        try:
            splits, wrong = _fold_splits(folder, fold, set(_numbered(folder, _CASE)))
        except DataError as error:
            problems += error.problems
            continue
        problems += wrong
        patients += [
            PatientFiles(case.site, case.patient_id, case.pairs, splits[number])
            for number, case in cases.items()
            if number in splits
        ]
    return Listing("prostate", tuple(patients), tuple(problems), rule="labelled_interior")
