"""The simulated hospitals: reproducible, independent patients, well formed and split."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fedbcs_secure.data import synthetic
from fedbcs_secure.data.records import SPLITS, Dataset, Patient
from fedbcs_secure.data.synthetic import SITES, draw_patient, make_dataset
from fedbcs_secure.data.synthetic.scanner import scanner
from fedbcs_secure.errors import DataError

MODALITIES: tuple[synthetic.Modality, ...] = ("mri", "he")
both = pytest.mark.parametrize("modality", MODALITIES)


def small(modality: synthetic.Modality, site: str, index: int, severity: float = 1.0) -> Patient:
    return draw_patient(modality, site, index, slices=3, size_px=64, severity=severity, channels=3)


def digest(patient: Patient) -> str:
    return hashlib.sha256(patient.images.tobytes() + patient.masks.tobytes()).hexdigest()


def same(one: Patient, other: Patient) -> bool:
    return one.patient == other.patient and digest(one) == digest(other)


# --- who a patient is -----------------------------------------------------------------------


@both
def test_another_process_draws_the_same_bytes(modality: synthetic.Modality) -> None:
    program = (
        "import hashlib\n"
        "from fedbcs_secure.data.synthetic import draw_patient\n"
        f"p = draw_patient({modality!r}, 'C', 2, slices=3, size_px=64, severity=1.0, channels=3)\n"
        "print(hashlib.sha256(p.images.tobytes() + p.masks.tobytes()).hexdigest())"
    )
    root = Path(synthetic.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": "123"},
    )
    assert done.stdout.strip() == digest(small(modality, "C", 2))


@both
def test_a_patient_does_not_depend_on_the_others(modality: synthetic.Modality) -> None:
    few = make_dataset(modality, patients=3, slices=2, size_px=32)
    many = make_dataset(modality, patients={"D": 5, "B": 4}, slices=2, size_px=32, sites=("D", "B"))

    def by_name(data: Dataset, site: str) -> dict[str, Patient]:
        cohort = data.cohorts[site]
        return {p.patient: p for name in SPLITS for p in cohort.split(name)}

    for site in ("B", "D"):
        expected, found = by_name(few, site), by_name(many, site)
        assert expected.keys() < found.keys()
        assert all(same(patient, found[name]) for name, patient in expected.items())


@both
def test_patients_sites_and_seeds_differ(modality: synthetic.Modality) -> None:
    drawn = [
        draw_patient(modality, site, index, slices=1, size_px=32, severity=0, seed=seed)
        for site in SITES
        for index in (0, 1)
        for seed in (0, 1)
    ]
    assert len({digest(p) for p in drawn}) == len(drawn)
    assert len({p.masks.tobytes() for p in drawn}) == len(drawn)
    assert len({(p.site, p.patient) for p in drawn}) == len(drawn) // 2


def test_the_first_patches_of_a_slide_do_not_depend_on_how_many_follow() -> None:
    two = draw_patient("he", "B", 1, slices=2, size_px=32)
    four = draw_patient("he", "B", 1, slices=4, size_px=32)
    assert np.array_equal(two.images, four.images[:2])
    assert np.array_equal(two.masks, four.masks[:2])


def test_more_slices_cut_the_same_gland() -> None:
    three = draw_patient("mri", "A", 4, slices=3, size_px=64)
    five = draw_patient("mri", "A", 4, slices=5, size_px=64)
    # Base, middle and apex of three slices are slices 0, 2 and 4 of five.
    assert np.array_equal(three.masks, five.masks[::2])


@both
@pytest.mark.parametrize("site", SITES)
def test_size_only_samples_the_same_patient(modality: synthetic.Modality, site: str) -> None:
    coarse = draw_patient(modality, site, 0, slices=2, size_px=48).masks.astype(float)
    fine = draw_patient(modality, site, 0, slices=2, size_px=144).masks.astype(float)
    assert np.array_equal(coarse, fine[:, 1::3, 1::3])


def test_names_are_pseudonyms_and_spacing_is_the_field_of_view() -> None:
    for site in SITES:
        mri = draw_patient("mri", site, 7, slices=1, size_px=32)
        he = draw_patient("he", site, 7, slices=1, size_px=32)
        assert mri.patient.startswith("p")
        assert mri.patient != he.patient
        assert he.spacing_mm is None
        assert mri.spacing_mm is not None
        assert mri.spacing_mm[0] * 32 == pytest.approx(scanner(site, 1.0).field_of_view_mm)
        assert 120 <= mri.spacing_mm[1] * 32 <= 300


# --- form and range -------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    modality=st.sampled_from(MODALITIES),
    site=st.sampled_from(SITES),
    index=st.integers(0, 10_000),
    slices=st.integers(1, 3),
    size_px=st.integers(16, 72),
    severity=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    channels=st.sampled_from((1, 3)),
)
def test_every_patient_is_well_formed(
    modality: synthetic.Modality,
    site: str,
    index: int,
    slices: int,
    size_px: int,
    severity: float,
    seed: int,
    channels: int,
) -> None:
    patient = draw_patient(
        modality,
        site,
        index,
        slices=slices,
        size_px=size_px,
        severity=severity,
        seed=seed,
        channels=channels,
    )
    assert patient.images.shape == (slices, channels, size_px, size_px)
    assert patient.images.dtype == np.float32
    assert patient.masks.dtype == np.uint8
    for image, mask in zip(patient.images, patient.masks, strict=True):
        assert float(image.min()) == 0
        assert float(image.max()) == 1
        assert set(np.unique(mask)) <= {0, 1}
        if modality == "mri":
            assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
            assert mask.mean() < 0.25
        elif size_px >= 32:
            assert 0.02 < mask.mean() < 0.75


@pytest.mark.parametrize("site", SITES)
def test_the_gland_lies_inside_the_picture_and_narrows_to_the_apex(site: str) -> None:
    for index in range(6):
        masks = draw_patient("mri", site, index, slices=3, size_px=64).masks
        border = masks.astype(bool)
        border[:, 2:-2, 2:-2] = False
        assert not border.any()
        base, middle, apex = masks.sum((1, 2), dtype=int)
        assert apex < base < middle


def test_channels_repeat_the_mri_and_make_the_slide_grey() -> None:
    mri = draw_patient("mri", "B", 0, slices=1, size_px=32, channels=3)
    assert np.array_equal(mri.images[:, 0], mri.images[:, 2])
    assert np.array_equal(
        mri.images[:, :1], draw_patient("mri", "B", 0, slices=1, size_px=32).images
    )
    colour = draw_patient("he", "B", 0, slices=1, size_px=32, channels=3).images[0]
    grey = draw_patient("he", "B", 0, slices=1, size_px=32).images[0, 0]
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    assert np.corrcoef(grey.ravel(), luminance.ravel())[0, 1] > 0.999
    assert not np.allclose(colour[0], colour[1], atol=0.05)


# --- data sets --------------------------------------------------------------------------------


@both
def test_a_dataset_splits_each_site_by_patient(modality: synthetic.Modality) -> None:
    data = make_dataset(modality, patients=5, slices=1, size_px=16)
    assert data.sites == SITES
    assert (data.classes, data.channels) == (2, 3)
    for site, cohort in data.cohorts.items():
        assert [len(cohort.split(name)) for name in SPLITS] == [3, 1, 1]
        names = [p.patient for name in SPLITS for p in cohort.split(name)]
        expected = [draw_patient(modality, site, i, slices=1, size_px=16).patient for i in range(5)]
        assert names == expected


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 12),
    validation=st.sampled_from((0.0, 0.01, 0.1, 0.3, 0.49)),
    test=st.sampled_from((0.0, 0.01, 0.2, 0.4, 0.5)),
)
def test_no_split_that_was_asked_for_is_empty(count: int, validation: float, test: float) -> None:
    def draw() -> Dataset:
        return make_dataset(
            "mri",
            patients=count,
            slices=1,
            size_px=16,
            sites=("B",),
            validation_fraction=validation,
            test_fraction=test,
        )

    if count < 1 + (validation > 0) + (test > 0):
        with pytest.raises(DataError, match="too few"):
            draw()
        return
    cohort = draw().cohorts["B"]
    sizes = [len(cohort.split(name)) for name in SPLITS]
    assert sum(sizes) == count
    assert sizes[0] >= 1
    assert (sizes[1] > 0) == (validation > 0)
    assert (sizes[2] > 0) == (test > 0)


def test_default_severity_is_the_recipes() -> None:
    def first(modality: synthetic.Modality, severity: float | None) -> Patient:
        data = make_dataset(
            modality, patients=3, slices=1, size_px=16, severity=severity, sites=("D",)
        )
        return data.cohorts["D"].train[0]

    assert same(first("mri", None), first("mri", 0.75))
    assert same(first("he", None), first("he", 1.0))
    assert not same(first("mri", None), first("mri", 1.0))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"site": "E"}, "site is 'E'"),
        ({"modality": "ct"}, "modality is 'ct'"),
        ({"index": -1}, "index is -1"),
        ({"slices": 0}, "slices is 0"),
        ({"size_px": 8}, "size_px is 8"),
        ({"severity": 1.5}, "severity is 1.5"),
        ({"severity": float("nan")}, "severity is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"channels": 2}, "channels is 2"),
    ],
)
def test_bad_patients_are_refused(change: dict[str, Any], sentence: str) -> None:
    good: dict[str, Any] = {"modality": "mri", "site": "A", "index": 0, "size_px": 16}
    with pytest.raises(DataError, match=sentence):
        draw_patient(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"modality": "ct"}, "modality is 'ct'"),
        ({"sites": ()}, "sites is"),
        ({"sites": ("A", "A")}, "sites is"),
        ({"sites": ("A", "Z")}, "sites is"),
        ({"patients": 2}, "site A has 2 patient"),
        ({"patients": {"A": 3}}, "one number for each site"),
        ({"patients": dict.fromkeys("ABCDE", 3)}, "one number for each site"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"validation_fraction": -0.1}, "validation_fraction is -0.1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.6}, "nothing to train on"),
    ],
)
def test_bad_datasets_are_refused(change: dict[str, Any], sentence: str) -> None:
    good: dict[str, Any] = {"modality": "mri", "patients": 3, "slices": 1, "size_px": 16}
    with pytest.raises(DataError, match=sentence):
        make_dataset(**{**good, **change})
