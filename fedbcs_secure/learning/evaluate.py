"""Predictions and their quality: Dice of a patient's whole stack, surface distances of its slices.

HD95 and ASSD come from MONAI, in pixels, or in mm where the patient's spacing is known. MONAI's
inf and nan for an empty side would make a mean useless or drop the worst slices, so here:

- neither label nor prediction has the class: Dice 1, distance 0;
- only one has it: Dice 0, distance = the image diagonal.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import DataError
from fedbcs_secure.learning.unet import UNet

Unit = Literal["px", "mm", "mixed"]
Masks = NDArray[np.integer]
Spacing = tuple[float, float]

_PERCENTILE = 95


class Surface(NamedTuple):
    """Surface distances (S, K−1) float64 of each slice and foreground class."""

    hd95: NDArray[np.float64]
    assd: NDArray[np.float64]


@dataclass(frozen=True)
class PatientMetrics:
    """One patient's result. ``dice``, ``hd95`` and ``assd`` are means over foreground classes; the
    tuples hold classes 1..K−1. Distances are in ``unit``, or None where they were not asked for."""

    patient: str
    slices: int
    dice: float
    hd95: float | None
    assd: float | None
    unit: Unit
    dice_per_class: tuple[float, ...]
    hd95_per_class: tuple[float, ...] | None
    assd_per_class: tuple[float, ...] | None


@dataclass(frozen=True)
class SiteMetrics:
    """Means over a site's patients, each patient counting once.

    Distances are None where a patient lacks them, and where some patients are measured in pixels
    and others in mm (``unit`` = ``mixed``).
    """

    patients: int
    dice: float
    hd95: float | None
    assd: float | None
    unit: Unit
    dice_per_class: tuple[float, ...]
    hd95_per_class: tuple[float, ...] | None
    assd_per_class: tuple[float, ...] | None


@torch.no_grad()
def predict(
    model: UNet,
    images: NDArray[np.float32],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
) -> NDArray[np.uint8]:
    """The most likely class of each pixel: (S, C, H, W) float32 to (S, H, W) uint8.

    ``model`` is on ``device`` already; its training mode is restored afterwards.
    """
    training = model.training
    model.eval()
    masks = np.zeros((images.shape[0], *images.shape[2:]), np.uint8)
    try:
        for start in range(0, len(images), batch_size):
            batch = torch.as_tensor(np.ascontiguousarray(images[start : start + batch_size]))
            logits = model(batch.to(device)).logits
            masks[start : start + batch_size] = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
    finally:
        model.train(training)
    return masks


def dice_scores(prediction: Masks, labels: Masks, classes: int) -> NDArray[np.float64]:
    """Dice (K,) of every class over all pixels of two masks of one shape; 1 where both lack it."""
    both = np.bincount(labels[prediction == labels].ravel(), minlength=classes)
    sizes = np.bincount(prediction.ravel(), minlength=classes) + np.bincount(
        labels.ravel(), minlength=classes
    )
    return np.where(sizes == 0, 1.0, 2 * both / np.maximum(sizes, 1))[:classes]


def raw_surface(
    prediction: Masks,
    labels: Masks,
    classes: int,
    spacing: Spacing | None = None,
    *,
    symmetric: bool = True,
) -> Surface:
    """MONAI's HD95 and ASSD of (S, H, W) masks, with its inf and nan for empty sides.

    With ``symmetric = False`` the second is the directed mean distance from prediction to label,
    which is what the published code reports as ASSD.
    """
    # here, not above: importing MONAI takes longer than importing torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    index = np.arange(1, classes)[:, None, None]
    predicted, true = (
        torch.from_numpy(np.asarray(mask)[:, None] == index) for mask in (prediction, labels)
    )
    options = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        # MONAI warns of each empty mask, which the results say as inf and nan, and of its own
        # deprecated calls
        warnings.simplefilter("ignore")
        hd95 = compute_hausdorff_distance(predicted, true, percentile=_PERCENTILE, **options)
        assd = compute_average_surface_distance(predicted, true, symmetric=symmetric, **options)
    return Surface(hd95.double().numpy(), assd.double().numpy())


def slice_distances(
    prediction: Masks, labels: Masks, classes: int, spacing: Spacing | None = None
) -> Surface:
    """Mean HD95 and ASSD, each (K−1,), over the slices where label or prediction has the class.

    A slice where only one of them has it counts as the image diagonal; a class that is nowhere has
    distance 0.
    """
    index = np.arange(1, classes)[:, None, None]
    predicted, true = ((m[:, None] == index).any(axis=(2, 3)) for m in (prediction, labels))
    step = (1.0, 1.0) if spacing is None else spacing
    height, width = labels.shape[1:]
    diagonal = math.hypot(height * step[0], width * step[1])
    counted = (predicted | true).sum(axis=0)
    raw = raw_surface(prediction, labels, classes, spacing)

    def mean(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = np.where(predicted & true, distances, np.where(predicted ^ true, diagonal, 0.0))
        return filled.sum(axis=0) / np.maximum(counted, 1)

    return Surface(mean(raw.hd95), mean(raw.assd))


def patient_metrics(
    patient: Patient, prediction: Masks, classes: int, *, with_distances: bool = True
) -> PatientMetrics:
    """The metrics of one patient from its predicted masks (S, H, W)."""
    dice = tuple(dice_scores(prediction, patient.masks, classes)[1:].tolist())
    hd95 = assd = None
    if with_distances:
        surface = slice_distances(prediction, patient.masks, classes, patient.spacing_mm)
        hd95, assd = tuple(surface.hd95.tolist()), tuple(surface.assd.tolist())
    return PatientMetrics(
        patient=patient.patient,
        slices=patient.slices,
        dice=float(np.mean(dice)),
        hd95=None if hd95 is None else float(np.mean(hd95)),
        assd=None if assd is None else float(np.mean(assd)),
        unit="px" if patient.spacing_mm is None else "mm",
        dice_per_class=dice,
        hd95_per_class=hd95,
        assd_per_class=assd,
    )


def evaluate_patients(
    model: UNet,
    patients: Sequence[Patient],
    *,
    device: torch.device | str,
    batch_size: int = 8,
    with_distances: bool = True,
) -> list[PatientMetrics]:
    """Metrics of each patient, in their order, under ``model`` (on ``device`` already)."""
    classes = model.config.classes
    results = []
    for patient in patients:
        prediction = predict(model, patient.images, device=device, batch_size=batch_size)
        results.append(patient_metrics(patient, prediction, classes, with_distances=with_distances))
    return results


def summarise(patients: Sequence[PatientMetrics]) -> SiteMetrics:
    """A site's means. Raises :class:`DataError` for a site without patients."""
    if not patients:
        raise DataError(
            "there is no patient to average over: the split is empty; "
            "check the study's validation and test fractions, or skip this evaluation"
        )
    units = {p.unit for p in patients}
    unit: Unit = units.pop() if len(units) == 1 else "mixed"

    def distances(
        per_patient: Sequence[tuple[float, ...] | None],
    ) -> tuple[float, ...] | None:
        known = [row for row in per_patient if row is not None]
        if unit == "mixed" or len(known) < len(per_patient):
            return None
        return tuple(np.mean(known, axis=0).tolist())

    dice = tuple(np.mean([p.dice_per_class for p in patients], axis=0).tolist())
    hd95 = distances([p.hd95_per_class for p in patients])
    assd = distances([p.assd_per_class for p in patients])
    return SiteMetrics(
        patients=len(patients),
        dice=float(np.mean(dice)),
        hd95=None if hd95 is None else float(np.mean(hd95)),
        assd=None if assd is None else float(np.mean(assd)),
        unit=unit,
        dice_per_class=dice,
        hd95_per_class=hd95,
        assd_per_class=assd,
    )
