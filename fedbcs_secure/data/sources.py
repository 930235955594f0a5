"""From a source's name to a ``Dataset``: synthetic sites, manifests, the paper's layouts.

``load`` reads everything and raises one error with all problems; ``check`` (next module) shares
its steps and never raises. Everything here stays at the site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fedbcs_secure.data.images import FileFacts, LoadedPair, SliceRule, load_pair
from fedbcs_secure.data.layouts import (
    REQUIRED_CONTRACT,
    detect_layout,
    read_nuclei,
    read_prostate,
)
from fedbcs_secure.data.listing import Listing, PatientFiles, SourceKind
from fedbcs_secure.data.manifest import read_manifest
from fedbcs_secure.data.records import SPLITS, Cohort, Dataset, Patient, Split, pseudonym
from fedbcs_secure.data.splits import assign_splits, empty_split_problem
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

Progress = Callable[[int, int], None]
"""Called with (patients done, patients in all)."""

SYNTHETIC: dict[str, Literal["mri", "he"]] = {"synthetic-mri": "mri", "synthetic-he": "he"}


@dataclass(frozen=True, eq=False)
class PatientRead:
    """What came of one patient's files: the patient or problems, and facts of what was readable."""

    patient: Patient | None
    problems: tuple[str, ...]
    facts: tuple[FileFacts, ...]


def detect(source: str) -> SourceKind:
    """What kind of source a name or path is. Raises :class:`DataError` when it is none."""
    if source == "synthetic-mri":
        return "synthetic-mri"
    if source == "synthetic-he":
        return "synthetic-he"
    path = Path(source)
    if path.is_file():
        return "manifest"
    if not path.is_dir():
        raise DataError(
            f"{source}: no such file or folder: expected a manifest CSV, a folder with manifest.csv"
            f" or one of the known layouts, {' or '.join(SYNTHETIC)}"
        )
    if (path / "manifest.csv").is_file():
        return "manifest"
    layout = detect_layout(path)
    if layout is None:
        raise DataError(
            f"{source}: a folder of unknown layout: expected manifest.csv in it, or sub-folders "
            "(one a site) with train.txt (nuclei lists) or with CaseNN.nii.gz files (prostate MRI)"
        )
    return layout


def contract_for(source: str, contract: DataContract) -> DataContract:
    """``contract`` with what the source's layout calls for (see ``REQUIRED_CONTRACT``).

    Raises :class:`DataError` when the source is of no known kind.
    """
    kind = detect(source)
    if kind == "nuclei" or kind == "prostate":
        merged = {**contract.model_dump(), **REQUIRED_CONTRACT[kind]}
        return DataContract.model_validate(merged)
    return contract


def _contract_problem(kind: SourceKind, contract: DataContract) -> str | None:
    if kind not in ("nuclei", "prostate"):
        return None
    wrong = [
        f"{key} = {value!r} (is {getattr(contract, key)!r})"
        for key, value in REQUIRED_CONTRACT[kind].items()
        if getattr(contract, key) != value
    ]
    if not wrong:
        return None
    # Not overridden here: the contract is part of what all sites approved, and a model must read
    # new images as it read these.
    return (
        f"the {kind} layout expects data.{', data.'.join(wrong)}: set it so in the study, "
        "or list the files in a manifest"
    )


def list_files(
    source: str,
    contract: DataContract,
    *,
    seed: int = 0,
    fold: int | None = None,
    site: str | None = None,
    sites: Sequence[str] = (),
    assign: bool = True,
    strict_layout: bool = True,
) -> Listing:
    """List a source of files, with every patient's split decided as far as possible.

    ``sites``, ``strict_layout`` as of :func:`load`; ``assign = False`` puts patients without a
    stated split into ``test``.

    ``site`` names the site of a manifest without a site column; of any other source it keeps only
    that site. Raises :class:`DataError` only when nothing can be listed.
    """
    kind = detect(source)
    path = Path(source)
    if kind == "manifest":
        listing = read_manifest(path / "manifest.csv" if path.is_dir() else path, site=site)
    elif kind == "nuclei":
        listing = read_nuclei(path, fold=fold)
    else:
        listing = read_prostate(path, fold=fold)
    problems = list(listing.problems)
    if fold is not None and kind == "manifest":
        problems.append(f"{source}: fold = {fold}: expected none, a manifest has no folds")
    problem = _contract_problem(kind, contract) if strict_layout else None
    if problem:
        problems.append(problem)
    unknown = sorted(set(sites) - set(listing.sites))
    if unknown:
        problems.append(f"{source}: no site {', '.join(unknown)}; has {', '.join(listing.sites)}")
    if site is not None and listing.patients and site not in listing.sites:
        problems.append(f"{source}: no site {site}: expected one of {', '.join(listing.sites)}")
    chosen = set(sites or listing.sites)
    patients = [p for p in listing.patients if p.site in chosen and site in (None, p.site)]
    decided: list[PatientFiles] = []
    for name in sorted({patient.site for patient in patients}):
        own = [patient for patient in patients if patient.site == name]
        if not assign:
            decided += [replace(patient, split=patient.split or "test") for patient in own]
            continue
        try:
            splits = assign_splits(
                {patient.patient_id: patient.split for patient in own},
                name,
                validation_fraction=contract.validation_fraction,
                test_fraction=contract.test_fraction,
                seed=seed,
                independent=contract.split == "independent",
            )
        except DataError as error:
            problems += error.problems
            decided += own
            continue
        decided += [replace(patient, split=splits[patient.patient_id]) for patient in own]
    return replace(listing, patients=tuple(decided), problems=tuple(problems))


def _one_spacing(pairs: Sequence[LoadedPair]) -> tuple[float, float] | None:
    """The spacing that all files of a patient share (to 1 %), else None."""
    spacings = [pair.spacing_mm for pair in pairs]
    first = spacings[0]
    if first is None:
        return None
    same = all(other is not None and np.allclose(other, first, rtol=0.01) for other in spacings)
    return first if same else None


def read_patient(
    files: PatientFiles,
    contract: DataContract,
    *,
    rule: SliceRule = "all",
    key: bytes = b"",
    by_image: bool = False,
) -> PatientRead:
    """Read all files of one patient; problems are collected, each with site, patient and file.

    With one there is no patient; ``by_image`` keeps the files that can be read.
    """
    pairs: list[LoadedPair] = []
    problems: list[str] = []
    for pair in files.pairs:
        try:
            pairs.append(load_pair(pair.image, pair.label, contract, rule=rule))
        except DataError as error:
            who = f"site {files.site}, patient {files.patient_id}"
            problems += [f"{who}: {problem}" for problem in error.problems]
    facts = tuple(pair.facts for pair in pairs)
    if not pairs or (problems and not by_image):
        return PatientRead(None, tuple(problems), facts)
    patient = Patient(
        site=files.site,
        patient=pseudonym(files.site, files.patient_id, key),
        images=np.concatenate([pair.images for pair in pairs]),
        masks=np.concatenate([pair.masks for pair in pairs]),
        spacing_mm=_one_spacing(pairs),
        source_id=files.patient_id,
    )
    return PatientRead(patient, tuple(problems), facts)


def missing_splits(
    listing: Listing, require_splits: Sequence[Split], *, independent: bool = False
) -> list[str]:
    """A sentence for each site and required split without a patient."""
    problems = []
    for site in listing.sites:
        found = {patient.split for patient in listing.patients if patient.site == site}
        if None in found:
            continue  # undecided, which is a problem of its own
        problems += [
            empty_split_problem(site, s, independent=independent)
            for s in require_splits
            if s not in found
        ]
    return problems


def load_synthetic(
    source: str,
    contract: DataContract,
    *,
    seed: int = 0,
    patients: int = 20,
    slices: int = 4,
    severity: float | None = None,
    fold: int | None = None,
) -> Dataset:
    """The simulated hospitals. Raises :class:`DataError` for a contract with more classes."""
    if contract.labels != "nonzero":
        raise DataError(
            f'{source} has one foreground class: expected data.labels = "nonzero", data.classes = 2'
        )
    if fold is not None:
        raise DataError(f"{source}: fold = {fold}: expected none, a synthetic source has no folds")
    from fedbcs_secure.data.synthetic import make_dataset

    return make_dataset(
        SYNTHETIC[source],
        patients=patients,
        slices=slices,
        size_px=contract.size_px,
        severity=severity,
        seed=seed,
        channels=contract.channels,
        validation_fraction=contract.validation_fraction,
        test_fraction=contract.test_fraction,
    )


def only_sites(dataset: Dataset, sites: Sequence[str]) -> Dataset:
    """``dataset`` reduced to ``sites``; none named keeps all.

    Raises :class:`DataError` when one is not there.
    """
    unknown = sorted(set(sites) - set(dataset.sites))
    if unknown:
        raise DataError(
            f"the data have no site {', '.join(unknown)}; there are {', '.join(dataset.sites)}"
        )
    if not sites:
        return dataset
    return replace(dataset, cohorts={name: dataset.cohorts[name] for name in sites})


def load(
    source: str,
    contract: DataContract,
    *,
    seed: int = 0,
    fold: int | None = None,
    site: str | None = None,
    sites: Sequence[str] = (),
    patients: int = 20,
    slices: int = 4,
    severity: float | None = None,
    require_splits: Sequence[Split] = ("train", "test"),
    strict_layout: bool = True,
    progress: Progress | None = None,
    key: bytes = b"",
    unread: Callable[[str], None] | None = None,
    by_image: bool = False,
) -> Dataset:
    """Load a source whole, or only ``sites`` of it.

    ``source`` is ``synthetic-mri``, ``synthetic-he``, a manifest CSV, a folder with manifest.csv,
    or the root of a nuclei or prostate layout. ``fold`` picks a layout's fold; ``site`` names the
    site of a manifest without a site column, and elsewhere keeps only that site; ``patients``,
    ``slices`` and ``severity`` are for synthetic sources; ``key`` for the patients' pseudonyms.
    Every site needs a patient in each of ``require_splits``; with none required, patients whose
    split is not stated are not split at all but all in ``test``. ``strict_layout`` refuses a
    contract that reads a known layout in another way than its users do. With ``unread`` a patient
    whose files cannot be read is left out, and it is called with a sentence for each problem: under
    differential privacy one patient's files must not decide whether there is a release (DP-3.4).
    ``by_image`` leaves out the file alone (``unit = "slice"``).

    Raises :class:`DataError` with all problems, each naming file, patient and expectation.
    """
    if source in SYNTHETIC:
        dataset = load_synthetic(
            source,
            contract,
            seed=seed,
            patients=patients,
            slices=slices,
            severity=severity,
            fold=fold,
        )
        return only_sites(dataset, sites or ((site,) if site else ()))
    independent = contract.split == "independent"
    listing = list_files(
        source,
        contract,
        seed=seed,
        fold=fold,
        site=site,
        sites=sites,
        assign=bool(require_splits),
        strict_layout=strict_layout,
    )
    problems = [
        *listing.problems,
        *missing_splits(listing, require_splits, independent=independent),
    ]
    found: dict[str, dict[Split, list[Patient]]] = {
        name: {split: [] for split in SPLITS} for name in listing.sites
    }
    for done, files in enumerate(listing.patients, 1):
        result = read_patient(
            files, contract, rule=listing.rule, key=key, by_image=by_image and unread is not None
        )
        if unread is None:
            problems += result.problems
        else:
            for problem in result.problems:
                unread(problem)
        if result.patient is not None and files.split is not None and not problems:
            found[files.site][files.split].append(result.patient)
        if progress is not None:
            progress(done, len(listing.patients))
    problems += [
        empty_split_problem(name, split, independent=independent)
        for name, by in found.items()
        for split in require_splits
        if unread is not None and not by[split] and not problems
    ]
    if problems:
        raise DataError(problems)
    cohorts = {
        name: Cohort(name, tuple(by["train"]), tuple(by["validation"]), tuple(by["test"]))
        for name, by in found.items()
    }
    return Dataset(cohorts, contract.classes, contract.channels)
