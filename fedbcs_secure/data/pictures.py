"""Pictures of images with their outlines, and a contact sheet with a row for each site.

Labels are outlined in bluish green, predictions in orange: the two stay apart under the common
kinds of colour blindness. Pictures show patients' images and stay at the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from fedbcs_secure.data.records import SPLITS, Cohort, Dataset, Patient
from fedbcs_secure.errors import DataError

LABEL_COLOUR = (0, 215, 130)
PREDICTION_COLOUR = (255, 128, 0)

_TILE_PX = 224
_LINE_PX = 2
_GAP_PX = 6
_MARGIN_PX = 16
_FONT_PX = 18
_SMALL_PX = 13
_BACKGROUND = (255, 255, 255)
_INK = (32, 32, 32)
_SOFT_INK = (100, 100, 100)


def outline(mask: NDArray[Any], width_px: int = 1) -> NDArray[np.bool_]:
    """The inner border of every class of (H, W) ``mask``, ``width_px`` wide; also at the edge."""
    border = np.zeros(mask.shape, bool)
    for value in np.unique(mask):
        if value:
            region = mask == value
            border |= region & ~binary_erosion(region, iterations=width_px)
    return border


def _rgb(image: NDArray[Any], *, stacked: bool) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1] as (H, W, 3) uint8; ``stacked``: neighbours, so only the middle one."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image must be (1 or 3, H, W), got {image.shape}")
    shown = image[1:2] if stacked and image.shape[0] == 3 else image
    pixels = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    return np.broadcast_to(pixels, (3, *image.shape[1:])).transpose(1, 2, 0).copy()


def overlay(
    image: NDArray[Any],
    mask: NDArray[Any],
    prediction: NDArray[Any] | None = None,
    *,
    stacked: bool = False,
    width_px: int = 1,
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of (C, H, W) ``image`` in [0, 1] with its outlines.

    ``mask`` (H, W) in green, ``prediction`` (H, W) in orange, above it. ``stacked`` says that the
    channels are neighbouring slices: the middle one is shown in grey. ``width_px`` is the width of
    the lines.
    """
    picture = _rgb(image, stacked=stacked)
    for classes, colour in ((mask, LABEL_COLOUR), (prediction, PREDICTION_COLOUR)):
        if classes is None:
            continue
        if classes.shape != picture.shape[:2]:
            raise ValueError(f"outlines of {classes.shape} on an image of {picture.shape[:2]}")
        picture[outline(classes, width_px)] = colour
    return picture


def enlarged(image: NDArray[Any], mask: NDArray[Any], size_px: int) -> tuple[Any, Any]:
    """(C, H, W) smoothly and (H, W) by nearest pixel to ``size_px`` on the longer side.

    Outlines drawn afterwards are as thin as the large picture's pixels allow.
    """
    rows, columns = mask.shape
    scale = size_px / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for plane in image
    ]
    labels = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.stack(planes), np.asarray(labels)


def _chosen(cohort: Cohort, count: int) -> list[tuple[Patient, int]]:
    """Up to ``count`` slices: one of each patient by the largest label, then further slices."""
    everyone = [patient for split in SPLITS for patient in cohort.split(split)]
    ranked = [
        (patient, np.argsort(-(patient.masks > 0).sum(axis=(1, 2)), kind="stable"))
        for patient in everyone
    ]
    depth = max((len(order) for _, order in ranked), default=0)
    slices = [(p, int(order[i])) for i in range(depth) for p, order in ranked if i < len(order)]
    return slices[:count]


def _caption(cohort: Cohort) -> tuple[str, str]:
    counts = [f"{len(cohort.split(split))} {split}" for split in SPLITS if cohort.split(split)]
    slices = sum(patient.slices for split in SPLITS for patient in cohort.split(split))
    return f"Site {cohort.site}", f"patients: {', '.join(counts)}; {slices} slices"


def contact_sheet(
    dataset: Dataset,
    path: Path,
    per_site: int = 6,
    *,
    stacked: bool = False,
    captions: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG with a captioned row of outlined slices for each site.

    ``stacked`` as in :func:`overlay`; ``captions`` stand beside the sites' names instead of the
    counts of ``dataset``. Raises :class:`DataError` for a data set without slices.
    """
    rows = [
        (dataset.cohorts[site], _chosen(dataset.cohorts[site], per_site)) for site in dataset.sites
    ]
    columns = max((len(chosen) for _, chosen in rows), default=0)
    if columns == 0:
        raise DataError(f"{path}: no slice to show: expected a data set with patients")
    head_px = _FONT_PX + _GAP_PX
    row_px = head_px + _TILE_PX + 2 * _GAP_PX
    width = 2 * _MARGIN_PX + columns * _TILE_PX + (columns - 1) * _GAP_PX
    sheet = Image.new("RGB", (width, 2 * _MARGIN_PX + len(rows) * row_px), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(_FONT_PX), ImageFont.load_default(_SMALL_PX)
    for index, (cohort, chosen) in enumerate(rows):
        top = _MARGIN_PX + index * row_px
        title, detail = _caption(cohort)
        detail = (captions or {}).get(cohort.site, detail)
        baseline = top + _FONT_PX
        draw.text((_MARGIN_PX, baseline), title, _INK, font, anchor="ls")
        indent = _MARGIN_PX + round(draw.textlength(title, font)) + 2 * _GAP_PX
        draw.text((indent, baseline), detail, _SOFT_INK, small, anchor="ls")
        for column, (patient, k) in enumerate(chosen):
            image, mask = enlarged(patient.images[k], patient.masks[k], _TILE_PX)
            tile = Image.fromarray(overlay(image, mask, stacked=stacked, width_px=_LINE_PX))
            sheet.paste(tile, (_MARGIN_PX + column * (_TILE_PX + _GAP_PX), top + head_px))
    sheet.save(path, format="PNG")


def save_overlay(
    path: Path,
    image: NDArray[Any],
    mask: NDArray[Any] | None,
    prediction: NDArray[Any] | None = None,
    *,
    stacked: bool = False,
    size_px: int = 512,
) -> None:
    """Write one slice as a PNG of ``size_px``: label outline green, prediction orange."""
    some = mask if mask is not None else prediction
    if some is None:
        raise ValueError("an overlay needs a label or a prediction")
    large, first = enlarged(image, some, size_px)
    second = None
    if mask is not None and prediction is not None:
        second = enlarged(image, prediction, size_px)[1]
    if mask is None:
        picture = overlay(large, np.zeros_like(first), first, stacked=stacked, width_px=_LINE_PX)
    else:
        picture = overlay(large, first, second, stacked=stacked, width_px=_LINE_PX)
    Image.fromarray(picture).save(path)
