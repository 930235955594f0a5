"""The data check: everything that ``load`` would refuse, and what it would accept with a frown.

A ``Report`` holds original patient ids and file names: it stays at the site.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedbcs_secure.data.images import FileFacts
from fedbcs_secure.data.listing import PatientFiles, SourceKind
from fedbcs_secure.data.records import SPLITS, Cohort, Dataset, Patient, Split
from fedbcs_secure.data.sources import (
    SYNTHETIC,
    Progress,
    detect,
    list_files,
    load_synthetic,
    missing_splits,
    only_sites,
    read_patient,
)
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

_SHOWN = 10
PREVIEW_PATIENTS = 6


@dataclass(frozen=True)
class SiteReport:
    """One site's readable data.

    ``patients`` and ``slices`` count by split; ``sizes`` counts files by "rows x columns x
    channels" as stored; ``class_shares`` are each class's share of the label pixels as stored;
    ``spacing_mm`` is the smallest and the largest (row, column) pixel size as stored.
    """

    site: str
    patients: Mapping[Split, int]
    slices: Mapping[Split, int]
    sizes: Mapping[str, int]
    class_shares: tuple[float, ...]
    spacing_mm: tuple[tuple[float, float], tuple[float, float]] | None


@dataclass(frozen=True)
class Report:
    """What ``check`` found. ``problems`` stop a run, ``warnings`` and ``notes`` do not."""

    source: str
    kind: SourceKind | None
    sites: tuple[SiteReport, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    preview: Dataset | None = field(default=None, compare=False, repr=False)
    """A few readable patients of each site, all as ``train``, for a contact sheet."""

    @property
    def ok(self) -> bool:
        """Whether the source loads."""
        return not self.problems


@dataclass(frozen=True)
class _Seen:
    """One patient's facts, kept after the pixels are gone."""

    files: PatientFiles
    slices: int
    facts: tuple[FileFacts, ...]


def _named(items: Iterable[str]) -> str:
    names = list(dict.fromkeys(items))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _spacing_range(
    spacings: Sequence[tuple[float, float]],
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    if not spacings:
        return None
    rows, columns = zip(*spacings, strict=True)
    return (min(rows), min(columns)), (max(rows), max(columns))


def _shares(counts: Sequence[Sequence[int]], classes: int) -> tuple[float, ...]:
    total = [sum(column) for column in zip(*counts, strict=True)] or [0] * classes
    return tuple(n / max(1, sum(total)) for n in total)


def _site_report(site: str, seen: Sequence[_Seen], classes: int) -> SiteReport:
    facts = [fact for one in seen for fact in one.facts]
    return SiteReport(
        site=site,
        patients={s: sum(one.files.split == s for one in seen) for s in SPLITS},
        slices={s: sum(one.slices for one in seen if one.files.split == s) for s in SPLITS},
        sizes=Counter(f"{f.shape[1]} x {f.shape[2]} x {f.channels}" for f in facts),
        class_shares=_shares([fact.class_pixels for fact in facts], classes),
        spacing_mm=_spacing_range([f.spacing_mm for f in facts if f.spacing_mm is not None]),
    )


def _absent_classes(site: str, shares: Sequence[float]) -> list[str]:
    if not any(shares):
        return []
    absent = [str(index) for index, share in enumerate(shares) if index and share == 0]
    if not absent:
        return []
    return [f"site {site}: class {', '.join(absent)} is in no label: expected it somewhere"]


def _file_warnings(site: str, seen: Sequence[_Seen]) -> list[str]:
    facts = [fact for one in seen for fact in one.facts]
    empty = [
        one.files.patient_id
        for one in seen
        if one.facts and not any(sum(fact.class_pixels[1:]) for fact in one.facts)
    ]
    mixed = [
        one.files.patient_id
        for one in seen
        if one.facts
        and not all(
            (fact.spacing_mm is None) == (one.facts[0].spacing_mm is None)
            and np.allclose(fact.spacing_mm or 0, one.facts[0].spacing_mm or 0, rtol=0.01)
            for fact in one.facts
        )
    ]
    labels = Counter(fact.label for fact in facts)
    findings = (
        (empty, "patients without any labelled pixel"),
        ([str(f.image) for f in facts if f.constant], "images of a single value"),
        ([str(f.label) for f in facts if f.lossy_label], "labels in lossy JPEG; use PNG"),
        (
            [str(f.label) for f in facts if f.affine_differs],
            "labels whose affine differs from the image's; check that they lie over it",
        ),
        ([str(label) for label, n in labels.items() if n > 1], "labels used for several images"),
        (mixed, "patients whose files differ in pixel spacing; distances in mm are left out"),
    )
    return [f"site {site}: {what}: {_named(names)}" for names, what in findings if names]


def _duplicates(seen: Sequence[_Seen]) -> list[str]:
    """Equal image content under different names; across splits it lets a test be remembered."""
    by_digest: dict[str, list[tuple[PatientFiles, FileFacts]]] = defaultdict(list)
    for one in seen:
        for fact in one.facts:
            if not fact.constant:
                by_digest[fact.digest].append((one.files, fact))
    warnings = []
    for group in by_digest.values():
        if len(group) < 2:
            continue
        owners = {(files.site, files.patient_id) for files, _ in group}
        splits = sorted({str(files.split) for files, _ in group})
        names = _named(f"{fact.image} (site {f.site}, {f.patient_id})" for f, fact in group)
        if len(splits) > 1:
            warnings.append(
                f"leak: the same image in {' and '.join(splits)}: {names}: expected a patient's "
                "images in one split; results on it would be too good"
            )
        elif len(owners) > 1:
            warnings.append(f"the same image for {len(owners)} patients: {names}")
        else:
            warnings.append(f"the same image several times for one patient: {names}")
    return warnings


def _synthetic_site(dataset: Dataset, site: str) -> SiteReport:
    cohort = dataset.cohorts[site]
    everyone: list[Patient] = [p for split in SPLITS for p in cohort.split(split)]
    counts = [np.bincount(p.masks.ravel(), minlength=dataset.classes).tolist() for p in everyone]
    sizes: Counter[str] = Counter()
    for p in everyone:
        sizes[f"{p.images.shape[2]} x {p.images.shape[3]} x {p.images.shape[1]}"] += p.slices
    return SiteReport(
        site=site,
        patients={s: len(cohort.split(s)) for s in SPLITS},
        slices={s: sum(p.slices for p in cohort.split(s)) for s in SPLITS},
        sizes=sizes,
        class_shares=_shares(counts, dataset.classes),
        spacing_mm=_spacing_range([p.spacing_mm for p in everyone if p.spacing_mm is not None]),
    )


def check(
    source: str,
    contract: DataContract,
    *,
    seed: int = 0,
    fold: int | None = None,
    site: str | None = None,
    patients: int = 20,
    slices: int = 4,
    severity: float | None = None,
    require_splits: Sequence[Split] = ("train", "test"),
    progress: Progress | None = None,
) -> Report:
    """Read a whole source and report on it; arguments as of ``sources.load``.

    Never raises for what is wrong with data: it is in ``Report.problems``. One patient's pixels
    are in memory at a time, beside the preview's.
    """
    try:
        kind = detect(source)
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
            dataset = only_sites(dataset, (site,) if site else ())
            reports_of_sites = tuple(_synthetic_site(dataset, s) for s in dataset.sites)
            kept = {s: list(dataset.cohorts[s].train) for s in dataset.sites}
            return Report(source, kind, reports_of_sites, preview=_preview(kept, contract))
        listing = list_files(source, contract, seed=seed, fold=fold, site=site)
    except DataError as error:
        return Report(source, None, problems=tuple(error.problems))
    problems = [*listing.problems, *missing_splits(listing, require_splits)]
    seen: list[_Seen] = []
    shown: dict[str, list[Patient]] = {}
    for done, files in enumerate(listing.patients, 1):
        result = read_patient(files, contract, rule=listing.rule)
        problems += result.problems
        read = result.patient.slices if result.patient is not None else 0
        some = shown.setdefault(files.site, [])
        if result.patient is not None and len(some) < PREVIEW_PATIENTS:
            some.append(result.patient)
        seen.append(_Seen(files, read, result.facts))
        if progress is not None:
            progress(done, len(listing.patients))
    reports, warnings = [], []
    for name in listing.sites:
        own = [one for one in seen if one.files.site == name]
        report = _site_report(name, own, contract.classes)
        reports.append(report)
        warnings += _absent_classes(name, report.class_shares) + _file_warnings(name, own)
    warnings += _duplicates(seen)
    return Report(
        source,
        kind,
        tuple(reports),
        tuple(problems),
        tuple(warnings),
        notes=listing.notes,
        preview=_preview(shown, contract),
    )


def _preview(shown: Mapping[str, Sequence[Patient]], contract: DataContract) -> Dataset | None:
    cohorts = {
        name: Cohort(name, tuple(some[:PREVIEW_PATIENTS]), (), ())
        for name, some in shown.items()
        if some
    }
    return Dataset(cohorts, contract.classes, contract.channels) if cohorts else None
