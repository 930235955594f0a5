"""Patients and whole data sets of the four simulated hospitals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.records import Cohort, Dataset, Patient, pseudonym
from fedbcs_secure.data.synthetic.histology import draw_histology
from fedbcs_secure.data.synthetic.mri import draw_mri
from fedbcs_secure.data.synthetic.scanner import SITES
from fedbcs_secure.data.synthetic.shapes import rescale
from fedbcs_secure.errors import DataError

Modality = Literal["mri", "he"]

DEFAULT_SEVERITY: Mapping[Modality, float] = {"mri": 0.75, "he": 1.0}
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def draw_patient(
    modality: Modality,
    site: str,
    index: int,
    *,
    slices: int = 4,
    size_px: int = 128,
    severity: float = 0.75,
    seed: int = 0,
    channels: int = 1,
) -> Patient:
    """One simulated patient: images (S, C, H, W) float32 in [0, 1], masks (S, H, W) uint8 0 or 1.

    ``mri`` is axial pelvic T2 with the prostate gland as label; ``he`` is a slide's patches with
    the nuclei as label. Everything follows from (seed, modality, site, index): nothing else about
    the data set changes the patient. ``severity`` in [0, 1] moves the site's style between site
    A's and its own and leaves anatomy and masks alone. ``size_px`` changes only the sampling.
    ``slices`` spreads the MRI slices evenly from base to apex, so their heights depend on it; the
    first patches of a slide are the same whatever their number. Each image is scaled between its
    minimum and maximum. With 3 channels the MRI is repeated; with 1 the H&E is its luminance.

    Raises :class:`DataError` for a value outside these ranges.
    """
    _check_patient(modality, site, index, slices, size_px, severity, seed, channels)
    spacing: tuple[float, float] | None = None
    if modality == "mri":
        grey, masks, pixel_mm = draw_mri(
            site, index, slices=slices, size_px=size_px, severity=severity, seed=seed
        )
        images = np.repeat(grey[:, None], channels, axis=1)
        spacing = (pixel_mm, pixel_mm)
    else:
        images, masks = draw_histology(
            site, index, patches=slices, size_px=size_px, severity=severity, seed=seed
        )
        if channels == 1:
            images = _luminance(images)
    identifier = f"{modality}-{index:04d}"
    name = pseudonym(site, identifier)
    return Patient(site, name, images, masks, spacing, identifier)


def make_dataset(
    modality: Modality,
    *,
    patients: int | Mapping[str, int] = 20,
    slices: int = 4,
    size_px: int = 128,
    severity: float | None = None,
    seed: int = 0,
    channels: int = 3,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    sites: Sequence[str] = SITES,
) -> Dataset:
    """The simulated hospitals' data, split by patient: the last test, those before validate.

    ``patients`` is the number a site, or one for each site. ``severity`` None means 0.75 for
    ``mri`` and 1 for ``he``. A split whose fraction is above 0 gets at least one patient, and so
    does training.

    Raises :class:`DataError` when a site has too few patients for that, and for values outside
    the ranges of :func:`draw_patient`.
    """
    if modality not in get_args(Modality):
        raise _unknown_modality(modality)
    _check_sites(sites)
    if isinstance(patients, Mapping):
        missing = [site for site in sites if site not in patients]
        unknown = sorted(set(patients) - set(sites))
        if missing or unknown:
            raise DataError(
                f"patients names {sorted(patients)} but the sites are {list(sites)}: "
                "give one number for each site"
            )
        counts = {site: patients[site] for site in sites}
    else:
        counts = dict.fromkeys(sites, patients)
    splits = {
        site: _split(site, count, validation_fraction, test_fraction)
        for site, count in counts.items()
    }
    style = DEFAULT_SEVERITY[modality] if severity is None else severity

    cohorts = {}
    for site in sorted(sites):
        first_validation, first_test = splits[site]
        drawn = tuple(
            draw_patient(
                modality,
                site,
                index,
                slices=slices,
                size_px=size_px,
                severity=style,
                seed=seed,
                channels=channels,
            )
            for index in range(counts[site])
        )
        cohorts[site] = Cohort(
            site, drawn[:first_validation], drawn[first_validation:first_test], drawn[first_test:]
        )
    return Dataset(cohorts, classes=2, channels=channels)


def _luminance(images: NDArray[np.float32]) -> NDArray[np.float32]:
    grey = np.einsum("schw,c->shw", images, _LUMINANCE).astype(np.float64)
    return np.stack([rescale(image) for image in grey])[:, None]


def _split(site: str, count: int, validation: float, test: float) -> tuple[int, int]:
    """The first index of validation and the first of test."""
    for name, fraction in (("validation_fraction", validation), ("test_fraction", test)):
        if not 0 <= fraction < 1:
            raise DataError(f"{name} is {fraction}; it must be at least 0 and below 1")
    if validation + test >= 1:
        raise DataError(
            f"validation_fraction {validation} and test_fraction {test} leave nothing to train on; "
            "their sum must be below 1"
        )
    needed = 1 + (validation > 0) + (test > 0)
    if count < needed:
        raise DataError(
            f"site {site} has {count} patient(s), too few for {needed} splits of at least one "
            "each: simulate more patients or set a split's fraction to 0"
        )
    held_out = needed - 1
    for_test = min(max(math.floor(test * count + 0.5), 1), count - held_out) if test > 0 else 0
    left = count - for_test
    for_validation = (
        min(max(math.floor(validation * count + 0.5), 1), left - 1) if validation > 0 else 0
    )
    return left - for_validation, left


def _check_sites(sites: Sequence[str]) -> None:
    if not sites or len(set(sites)) != len(sites) or not set(sites) <= set(SITES):
        raise DataError(
            f"sites is {list(sites)}; the simulated sites are {', '.join(SITES)}, each at most once"
        )


def _unknown_modality(modality: str) -> DataError:
    return DataError(f"modality is {modality!r}; simulated are {', '.join(get_args(Modality))}")


def _check_patient(
    modality: str,
    site: str,
    index: int,
    slices: int,
    size_px: int,
    severity: float,
    seed: int,
    channels: int,
) -> None:
    if modality not in get_args(Modality):
        raise _unknown_modality(modality)
    problems = []
    if site not in SITES:
        problems.append(f"site is {site!r}; the simulated sites are {', '.join(SITES)}")
    if index < 0:
        problems.append(f"patient index is {index}; it must be 0 or more")
    if not 1 <= slices <= 256:
        problems.append(f"slices is {slices}; it must be 1 to 256")
    if not 16 <= size_px <= 2048:
        problems.append(f"size_px is {size_px}; it must be 16 to 2048")
    if not 0 <= severity <= 1:
        problems.append(f"severity is {severity}; it must be 0 (all like site A) to 1")
    if seed < 0:
        problems.append(f"seed is {seed}; it must be 0 or more")
    if channels not in (1, 3):
        problems.append(f"channels is {channels}; it must be 1 or 3")
    if problems:
        raise DataError(problems)
