from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import DataError
from fedbcs_secure.learning.evaluate import (
    PatientMetrics,
    dice_scores,
    evaluate_patients,
    patient_metrics,
    predict,
    raw_surface,
    slice_distances,
    summarise,
)
from fedbcs_secure.learning.unet import NetworkConfig, UNet


def _patient(masks: np.ndarray, spacing: tuple[float, float] | None = None) -> Patient:
    images = np.zeros((masks.shape[0], 1, *masks.shape[1:]), np.float32)
    return Patient("A", "p0123456789ab", images, masks.astype(np.uint8), spacing)


def _square(top: int, left: int, side: int, value: int = 1, size: int = 16) -> np.ndarray:
    mask = np.zeros((1, size, size), np.uint8)
    mask[0, top : top + side, left : left + side] = value
    return mask


def test_matches_the_published_code(eval_golden: Any) -> None:
    logits, labels = eval_golden["logits"], eval_golden.arrays["labels"]
    classes = logits.shape[1]
    prediction = logits.argmax(dim=1).numpy()
    dice = np.mean(
        [dice_scores(p, y, classes) for p, y in zip(prediction, labels, strict=True)], axis=0
    )
    assert eval_golden.abs_error("dice_per_class", torch.from_numpy(dice)) <= 1e-5
    surface = raw_surface(prediction, labels, classes, symmetric=False)
    hd95 = torch.from_numpy(np.nanmean(surface.hd95, axis=0))
    assd = torch.from_numpy(np.nanmean(surface.assd, axis=0))
    # the published ASSD is the directed mean, from prediction to label
    assert eval_golden.abs_error("hd95_fg", hd95) <= 1e-3
    assert eval_golden.abs_error("assd_fg", assd) <= 1e-3


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_dice_is_that_of_monai(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, labels = rng.integers(0, classes, (2, 3, 9, 8))
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(m), classes).movedim(-1, 0)[None]
        for m in (prediction, labels)
    ]
    expected = compute_dice(*one_hot)[0].numpy()
    np.testing.assert_allclose(dice_scores(prediction, labels, classes), expected, rtol=1e-6)


def test_dice_of_a_patient_is_that_of_the_stack() -> None:
    labels = np.concatenate([_square(2, 2, 8), _square(2, 2, 2)])
    prediction = np.concatenate([_square(2, 2, 8), _square(10, 10, 2)])
    metrics = patient_metrics(_patient(labels), prediction, 2, with_distances=False)
    assert metrics.dice == pytest.approx(2 * 64 / (68 + 68))
    assert (metrics.hd95, metrics.assd, metrics.hd95_per_class) == (None, None, None)
    assert metrics.slices == 2


def test_distance_of_shifted_squares_in_pixels_and_millimetres() -> None:
    labels, prediction = _square(4, 4, 5), _square(4, 7, 5)
    pixels = patient_metrics(_patient(labels), prediction, 2)
    assert (pixels.unit, pixels.hd95) == ("px", pytest.approx(3.0))
    millimetres = patient_metrics(_patient(labels, (0.5, 2.0)), prediction, 2)
    assert millimetres.unit == "mm"
    assert millimetres.assd is not None
    assert pixels.assd is not None
    assert millimetres.assd > pixels.assd
    # along columns of 2 mm the right-hand edge is 3 pixels away, unless rows of 0.5 mm are nearer
    assert 3.0 < millimetres.hd95 <= 6.0


def test_empty_sides_are_defined() -> None:
    empty = np.zeros((1, 16, 16), np.uint8)
    full = _square(2, 2, 5)
    diagonal = math.hypot(16, 16)
    for label, prediction in ((full, empty), (empty, full)):
        metrics = patient_metrics(_patient(label), prediction, 2)
        assert metrics.dice == 0
        assert metrics.hd95 == metrics.assd == pytest.approx(diagonal)
    in_mm = patient_metrics(_patient(full, (3.0, 4.0)), empty, 2)
    assert in_mm.hd95 == pytest.approx(16 * 5)
    nothing = patient_metrics(_patient(empty), empty, 2)
    assert (nothing.dice, nothing.hd95, nothing.assd) == (1.0, 0.0, 0.0)


def test_raw_surface_keeps_the_inf_and_nan_of_monai_silently() -> None:
    empty, full = np.zeros((1, 16, 16), np.uint8), _square(2, 2, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        missed = raw_surface(empty, full, 2)
        neither = raw_surface(empty, empty, 2)
    assert np.isinf(missed.assd).all()
    assert not np.isfinite(missed.hd95).any()
    assert np.isnan(neither.assd).all()


def test_average_distance_is_symmetric_unless_asked() -> None:
    a, b = _square(2, 2, 8), _square(2, 2, 3)
    assert raw_surface(a, b, 2).assd == pytest.approx(raw_surface(b, a, 2).assd)
    directed = [raw_surface(*pair, 2, symmetric=False).assd[0, 0] for pair in ((a, b), (b, a))]
    assert abs(directed[0] - directed[1]) > 0.5


def test_slices_without_the_class_do_not_dilute_its_distance() -> None:
    empty = np.zeros((3, 16, 16), np.uint8)
    labels = np.concatenate([_square(4, 4, 5), empty, _square(4, 4, 5)])
    prediction = np.concatenate([_square(4, 7, 5), empty, empty[:1]])
    surface = slice_distances(prediction, labels, 2)
    assert surface.hd95.tolist() == pytest.approx([(3 + math.hypot(16, 16)) / 2])


def test_several_classes_are_reported_each_and_averaged() -> None:
    labels = _square(1, 1, 4, 1) + _square(8, 8, 4, 2) + _square(1, 10, 3, 3)
    prediction = _square(1, 1, 4, 1) + _square(8, 9, 4, 2)
    metrics = patient_metrics(_patient(labels), prediction, 5)
    assert metrics.dice_per_class == pytest.approx((1.0, 0.75, 0.0, 1.0))
    assert metrics.hd95_per_class == pytest.approx((0.0, 1.0, math.hypot(16, 16), 0.0))
    assert metrics.dice == pytest.approx(2.75 / 4)
    assert metrics.hd95 == pytest.approx((1 + math.hypot(16, 16)) / 4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations([1, 2, 3]))
def test_renaming_classes_renames_the_results(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    prediction, labels = rng.integers(0, 4, (2, 2, 10, 10))
    renamed = np.array([0, *order])
    before = patient_metrics(_patient(labels), prediction, 4)
    after = patient_metrics(_patient(renamed[labels]), renamed[prediction], 4)
    assert after.hd95_per_class is not None
    assert before.hd95_per_class is not None
    for c in (1, 2, 3):
        moved = int(renamed[c]) - 1
        assert after.dice_per_class[moved] == pytest.approx(before.dice_per_class[c - 1])
        assert after.hd95_per_class[moved] == pytest.approx(before.hd95_per_class[c - 1])


def _network(norm: Any = "instance") -> UNet:
    torch.manual_seed(0)
    return UNet(NetworkConfig(1, 3, 4, norm=norm))


def test_prediction_does_not_depend_on_the_batch_and_restores_the_mode() -> None:
    model = _network()
    images = np.random.default_rng(0).random((5, 1, 32, 32), np.float32)
    masks = predict(model, images, batch_size=2)
    assert masks.shape == (5, 32, 32)
    assert masks.dtype == np.uint8
    assert model.training
    for image, mask in zip(images, masks, strict=True):
        assert (predict(model.eval(), image[None])[0] != mask).mean() < 1e-3
    assert not model.training
    assert predict(model, images[:0]).shape == (0, 32, 32)


def test_evaluation_of_patients_is_that_of_their_predictions() -> None:
    model = _network()
    rng = np.random.default_rng(1)
    patients = [
        Patient(
            "A",
            f"p{i}",
            rng.random((n, 1, 32, 32), np.float32),
            rng.integers(0, 3, (n, 32, 32)).astype(np.uint8),
        )
        for i, n in enumerate((1, 3))
    ]
    results = evaluate_patients(model, patients, device="cpu", batch_size=2)
    assert [(r.patient, r.slices) for r in results] == [("p0", 1), ("p1", 3)]
    for patient, result in zip(patients, results, strict=True):
        assert result == patient_metrics(patient, predict(model, patient.images, batch_size=2), 3)


def _result(dice: float, distance: float | None, unit: Any = "px") -> PatientMetrics:
    row = None if distance is None else (distance,)
    return PatientMetrics("p", 1, dice, distance, distance, unit, (dice,), row, row)


def test_site_means_count_each_patient_once() -> None:
    site = summarise([_result(0.5, 2.0), _result(1.0, 6.0)])
    assert (site.patients, site.dice, site.hd95, site.assd) == (2, 0.75, 4.0, 4.0)
    assert (site.unit, site.dice_per_class, site.hd95_per_class) == ("px", (0.75,), (4.0,))


def test_distances_that_cannot_be_averaged_are_left_out() -> None:
    mixed = summarise([_result(0.5, 2.0), _result(1.0, 6.0, "mm")])
    assert (mixed.unit, mixed.hd95, mixed.assd, mixed.dice) == ("mixed", None, None, 0.75)
    partly = summarise([_result(0.5, None), _result(1.0, 6.0)])
    assert (partly.unit, partly.hd95_per_class) == ("px", None)


def test_a_site_without_patients_is_an_error() -> None:
    with pytest.raises(DataError, match="no patient"):
        summarise([])
