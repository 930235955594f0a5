"""The simulated hospitals: severity moves style and nothing else; sites look as described."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from fedbcs_secure.data import synthetic
from fedbcs_secure.data.records import Patient
from fedbcs_secure.data.synthetic import SITES, draw_patient
from fedbcs_secure.data.synthetic.scanner import CASE_MIX, Scanner, scanner
from fedbcs_secure.data.synthetic.stain import CASE_MIX as LAB_CASE_MIX
from fedbcs_secure.data.synthetic.stain import Laboratory, laboratory


def small(modality: synthetic.Modality, site: str, index: int, severity: float = 1.0) -> Patient:
    return draw_patient(modality, site, index, slices=3, size_px=64, severity=severity, channels=3)


@pytest.mark.parametrize("modality", ["mri", "he"])
@pytest.mark.parametrize("site", SITES)
def test_severity_leaves_the_masks_alone(modality: synthetic.Modality, site: str) -> None:
    mild, half, hard = (small(modality, site, 3, severity) for severity in (0.0, 0.5, 1.0))
    assert np.array_equal(mild.masks, half.masks)
    assert np.array_equal(mild.masks, hard.masks)
    assert mild.spacing_mm == hard.spacing_mm
    if site == "A":
        assert np.array_equal(mild.images, hard.images)
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


@pytest.mark.parametrize("site", "BCD")
def test_low_frequency_amplitudes_part_with_severity(site: str) -> None:
    # The same men in both: what moves is style.
    mild, half, hard = (low_frequencies(site, severity) for severity in (0.0, 0.5, 1.0))
    assert np.abs(hard - mild).mean() > 0.15
    assert np.abs(hard - mild).mean() > np.abs(half - mild).mean()
    assert np.abs(hard - low_frequencies("A", 1.0)).mean() > 0.2


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

    assert contrast("B") > 1.2 * contrast("A")
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


ANCHOR: dict[tuple[str, str], tuple[float, float]] = {
    ("mri", "A"): (0.3929, 0.0190),
    ("mri", "B"): (0.2561, 0.0331),
    ("mri", "C"): (0.3346, 0.0270),
    ("mri", "D"): (0.2464, 0.0214),
    ("he", "A"): (0.5765, 0.3630),
    ("he", "B"): (0.4932, 0.3319),
    ("he", "C"): (0.5860, 0.2959),
    ("he", "D"): (0.5007, 0.3070),
}


def test_summary_numbers_stay_what_they_were() -> None:
    """Anchor against accidental change; loose enough for another platform's rounding."""
    found = {
        (modality, site): (
            float(small(modality, site, 0, 0.75).images.mean()),
            float(small(modality, site, 0).masks.mean()),
        )
        for modality in get_args(synthetic.Modality)
        for site in SITES
    }
    assert found == {key: pytest.approx(value, abs=2e-3) for key, value in ANCHOR.items()}
