"""The simulated hospitals: reproducible, independent patients, style apart from anatomy."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fedbcs_secure.data import synthetic
from fedbcs_secure.data.records import SPLITS, Dataset, Patient
from fedbcs_secure.data.synthetic import SITES, draw_patient, make_dataset
from fedbcs_secure.data.synthetic.scanner import CASE_MIX, Scanner, scanner
from fedbcs_secure.data.synthetic.shapes import blur, draw_outline, draw_waves, make_plane
from fedbcs_secure.data.synthetic.stain import CASE_MIX as LAB_CASE_MIX
from fedbcs_secure.data.synthetic.stain import Laboratory, laboratory
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


# --- severity moves style and nothing else ----------------------------------------------------


@both
@pytest.mark.parametrize("site", SITES)
def test_severity_leaves_the_masks_alone(modality: synthetic.Modality, site: str) -> None:
    mild, half, hard = (small(modality, site, 3, severity) for severity in (0.0, 0.5, 1.0))
    assert np.array_equal(mild.masks, half.masks)
    assert np.array_equal(mild.masks, hard.masks)
    assert mild.spacing_mm == hard.spacing_mm
    if site == "A":
        assert same(mild, hard)
    else:
        assert np.abs(mild.images - half.images).mean() > 0.01
        assert np.abs(mild.images - hard.images).mean() > np.abs(mild.images - half.images).mean()


@pytest.mark.parametrize("site", SITES)
def test_style_runs_from_site_a_to_the_site_itself(site: str) -> None:
    for field in fields(Scanner):
        start, own = (getattr(scanner(s, 1.0), field.name) for s in ("A", site))
        at_zero, half_way = (getattr(scanner(site, s), field.name) for s in (0.0, 0.5))
        if field.name in CASE_MIX:
            assert at_zero == half_way == own
        else:
            assert at_zero == start
            assert half_way == pytest.approx((start + own) / 2)
    for field in fields(Laboratory):
        start, own = (getattr(laboratory(s, 1.0), field.name) for s in ("A", site))
        expected = own if field.name in LAB_CASE_MIX else start
        assert getattr(laboratory(site, 0.0), field.name) == expected


def mean_colours(severity: float) -> dict[str, np.ndarray]:
    return {
        site: np.mean([small("he", site, i, severity).images.mean((0, 2, 3)) for i in range(4)], 0)
        for site in SITES
    }


def test_colours_agree_at_severity_0_and_part_at_1() -> None:
    mild, hard = mean_colours(0.0), mean_colours(1.0)
    for site in "BCD":
        near = np.abs(mild[site] - mild["A"]).max()
        far = np.abs(hard[site] - hard["A"]).max()
        assert near < 0.08 < far


def low_frequencies(site: str, severity: float) -> np.ndarray:
    """Mean log amplitude of the 5 x 5 lowest frequencies, over 6 patients."""
    logs = []
    for index in range(6):
        spectrum = np.abs(np.fft.fft2(small("mri", site, index, severity).images[:, 0]))
        lowest = np.fft.fftshift(spectrum, axes=(1, 2))[:, 30:35, 30:35]
        logs.append(np.log(lowest + 1e-6).mean(0))
    return np.asarray(np.mean(logs, 0))


def test_low_frequency_amplitudes_part_with_severity() -> None:
    reference = low_frequencies("A", 1.0)
    for site in "BCD":
        centre = (2, 2)
        hard = abs(low_frequencies(site, 1.0)[centre] - reference[centre])
        assert hard > 0.15
    gaps = [
        np.abs(low_frequencies(site, severity) - reference).mean()
        for site in "BD"
        for severity in (0.0, 1.0)
    ]
    assert gaps[1] > gaps[0]
    assert gaps[3] > gaps[2]


def test_sites_look_as_described() -> None:
    def mri(site: str) -> np.ndarray:
        return np.concatenate([small("mri", site, i).images[:, 0] for i in range(4)])

    def gland(site: str) -> np.ndarray:
        return np.concatenate([small("mri", site, i).masks for i in range(4)]).astype(bool)

    pictures = {site: mri(site) for site in SITES}
    glands = {site: gland(site) for site in SITES}

    def contrast(site: str) -> float:
        """Gland signal over the picture's mean: high near a coil, and where fat is suppressed."""
        return float(pictures[site][glands[site]].mean() / pictures[site].mean())

    assert contrast("B") > 1.5 * contrast("A")
    assert contrast("C") > 1.2 * contrast("A")
    # Air of the large field of view: Rician, hence not black.
    corners = {site: pictures[site][:, :4, :4] for site in "CD"}
    assert corners["D"].std() > 1.5 * corners["C"].std()


def test_site_d_refers_big_glands() -> None:
    def area_mm2(site: str) -> float:
        areas = []
        for index in range(12):
            patient = draw_patient("mri", site, index, slices=1, size_px=64)
            assert patient.spacing_mm is not None
            areas.append(patient.masks.sum() * patient.spacing_mm[0] ** 2)
        return float(np.mean(areas))

    assert area_mm2("D") > 1.3 * area_mm2("A")
    assert 1000 < area_mm2("A") < 2200


def test_summary_numbers_stay_what_they_were() -> None:
    """Anchor against accidental change; loose enough for another platform's rounding."""
    found = {
        (modality, site): (
            float(small(modality, site, 0, 0.75).images.mean()),
            float(small(modality, site, 0).masks.mean()),
        )
        for modality in MODALITIES
        for site in SITES
    }
    assert found == {key: pytest.approx(value, abs=2e-3) for key, value in ANCHOR.items()}


ANCHOR: dict[tuple[str, str], tuple[float, float]] = {}


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
def test_bad_patients_are_refused(change: dict[str, object], sentence: str) -> None:
    good: dict[str, object] = {"modality": "mri", "site": "A", "index": 0, "size_px": 16}
    with pytest.raises(DataError, match=sentence):
        draw_patient(**{**good, **change})  # type: ignore[arg-type]  # wrong on purpose


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
def test_bad_datasets_are_refused(change: dict[str, object], sentence: str) -> None:
    good: dict[str, object] = {"modality": "mri", "patients": 3, "slices": 1, "size_px": 16}
    with pytest.raises(DataError, match=sentence):
        make_dataset(**{**good, **change})  # type: ignore[arg-type]  # wrong on purpose


# --- what they are drawn with -------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    centre=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    axes=st.tuples(st.floats(3, 30), st.floats(3, 30)),
    tilt=st.floats(-0.5, 0.5),
)
def test_an_outline_lies_inside_its_window(
    seed: int, centre: tuple[float, float], axes: tuple[float, float], tilt: float
) -> None:
    plane = make_plane(100.0, 40, tilt=tilt, shift=(5.0, -3.0))
    outline = draw_outline(np.random.default_rng(seed), *centre, *axes, roughness=0.1)
    inside = outline.depth(plane.x, plane.y) > 0
    rest = inside.copy()
    rest[plane.window(outline.x, outline.y, outline.reach)] = False
    assert not rest.any()
    cover = outline.cover(plane.x, plane.y, 1.0)
    assert ((cover > 0.5) == inside).all()


def test_waves_have_unit_variance_and_one_value_at_every_size() -> None:
    rng = np.random.default_rng(5)
    waves = [draw_waves(rng, 100.0, (20.0, 8.0), 0.4) for _ in range(40)]
    assert np.std([w.on(48) for w in waves]) == pytest.approx(1, abs=0.05)
    assert np.allclose(waves[0].on(48), waves[0].on(144)[1::3, 1::3])


def test_blur_keeps_a_flat_image_and_spreads_a_point() -> None:
    flat = np.full((3, 20, 20), 0.3)
    assert np.allclose(blur(flat, 1.5), flat)
    point = np.zeros((21, 21))
    point[10, 10] = 1
    spread = blur(point, 1.5)
    rows = np.arange(21) - 10
    assert spread.sum() == pytest.approx(1)
    assert (spread.sum(1) * rows**2).sum() == pytest.approx(1.5**2, rel=0.05)
    assert blur(point, 0.0) is point
