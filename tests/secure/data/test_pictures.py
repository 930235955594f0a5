"""Outlines, overlays and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fedbcs_secure.data.pictures import (
    LABEL_COLOUR,
    PREDICTION_COLOUR,
    contact_sheet,
    outline,
    overlay,
)
from fedbcs_secure.data.records import Cohort, Dataset, Patient
from fedbcs_secure.errors import DataError


def test_outline_of_a_square() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    expected = mask.astype(bool)
    expected[3:6, 3:6] = False
    np.testing.assert_array_equal(outline(mask), expected)


def test_touching_classes_are_separated() -> None:
    mask = np.ones((6, 6), np.uint8)
    mask[:, 3:] = 2
    assert outline(mask)[2, 2:4].all()


@given(mask=arrays(np.uint8, (12, 14), elements=st.integers(0, 3)), width=st.integers(1, 3))
def test_outline_lies_inside_its_classes(mask: np.ndarray, width: int) -> None:
    border = outline(mask, width)
    assert not border[mask == 0].any()
    assert border.any() == (mask > 0).any()


def test_overlay_colours_and_leaves_the_rest() -> None:
    image = np.full((1, 12, 12), 0.5, np.float32)
    mask, prediction = np.zeros((2, 12, 12), np.uint8)
    mask[1:5, 1:5] = 1
    prediction[6:10, 6:10] = 1
    picture = overlay(image, mask, prediction)
    assert picture.dtype == np.uint8
    assert picture.shape == (12, 12, 3)
    assert tuple(picture[1, 1]) == LABEL_COLOUR
    assert tuple(picture[6, 6]) == PREDICTION_COLOUR
    assert (picture[~outline(mask) & ~outline(prediction)] == 128).all()


def test_stacked_shows_the_middle_slice_in_grey() -> None:
    image = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.2), np.ones((4, 4))])
    empty = np.zeros((4, 4), np.uint8)
    assert (overlay(image, empty, stacked=True) == 51).all()
    assert tuple(overlay(image, empty)[0, 0]) == (0, 51, 255)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"image must be \(1 or 3, H, W\)"):
        overlay(np.zeros((4, 4)), np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"outlines of \(4, 5\) on an image of \(4, 4\)"):
        overlay(np.zeros((1, 4, 4)), np.zeros((4, 5), np.uint8))


def relative_luminance(colour: tuple[int, int, int]) -> float:
    linear = [(c / 255) ** 2.2 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_colours_differ_on_the_blue_axis_too() -> None:
    """Red-green blindness keeps the blue-yellow axis: the pair must differ there."""
    assert abs(LABEL_COLOUR[2] - PREDICTION_COLOUR[2]) > 100
    assert abs(relative_luminance(LABEL_COLOUR) - relative_luminance(PREDICTION_COLOUR)) > 0.1


def dataset(patients: int, slices: int, size: int = 32) -> Dataset:
    def patient(site: str, number: int) -> Patient:
        masks = np.zeros((slices, size, size), np.uint8)
        masks[-1, 4:20, 4:20] = 1
        images = np.full((slices, 3, size, size), 0.25, np.float32)
        return Patient(site, f"p{number}", images, masks)

    cohorts = {
        site: Cohort(site, tuple(patient(site, i) for i in range(patients)), (), ())
        for site in ("A", "North-West_2")
    }
    return Dataset(cohorts, 2, 3)


@pytest.mark.parametrize(("patients", "slices", "columns"), [(8, 1, 6), (1, 3, 3), (2, 2, 4)])
def test_a_sheet_has_a_row_a_site_and_labelled_slices_first(
    tmp_path: Path, patients: int, slices: int, columns: int
) -> None:
    contact_sheet(dataset(patients, slices), tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    green = (pixels == LABEL_COLOUR).all(axis=-1)
    grey = (pixels == 64).all(axis=-1)
    filled = np.flatnonzero(grey.mean(axis=1) > 0.2)
    rows = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    assert len(rows) == 2
    spans = np.flatnonzero(grey[rows[0]].mean(axis=0) > 0.3)
    assert len(np.split(spans, np.flatnonzero(np.diff(spans) > 1) + 1)) == columns
    assert green[:, :240].any()
    caption = pixels[: rows[0][0], :, :]
    assert (caption < 60).all(axis=-1).any()


def test_per_site_limits_the_columns(tmp_path: Path) -> None:
    widths = []
    for per_site in (2, 4):
        contact_sheet(dataset(5, 1), tmp_path / "sheet.png", per_site)
        with Image.open(tmp_path / "sheet.png") as sheet:
            widths.append(sheet.width)
    assert widths[1] > 1.5 * widths[0]


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no slice to show"):
        contact_sheet(dataset(0, 1), tmp_path / "sheet.png")
