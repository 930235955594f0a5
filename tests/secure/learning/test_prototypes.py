from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbcs_secure.learning.fusion import VIEWS, Features, Fusion
from fedbcs_secure.learning.prototypes import (
    GlobalPrototypes,
    PrototypeMeter,
    batch_class_means,
    image_class_means,
)

_CHANNELS = (2, 3, 4, 5)
_CLASSES = 4


def _batch(seed: int, images: int, classes: tuple[int, ...]) -> tuple[Features, Tensor]:
    g = torch.Generator().manual_seed(seed)
    encoder, decoder = (
        tuple(
            torch.randn(images, c, 16 >> k, 16 >> k, generator=g) for k, c in enumerate(_CHANNELS)
        )
        for _ in VIEWS
    )
    labels = torch.tensor(classes)[torch.randint(0, len(classes), (images, 16, 16), generator=g)]
    return Features(torch.zeros(images, _CLASSES, 16, 16), encoder, decoder), labels


@pytest.fixture
def fusion() -> Fusion:
    torch.manual_seed(0)
    return Fusion(_CHANNELS, 3)


def _dense_means(
    features: Features, fusion: Fusion, labels: Tensor, view: int
) -> dict[int, Tensor]:
    fused = fusion.fused(features, view).movedim(1, -1).detach()
    step = 16 // fused.shape[1]
    on_grid = labels[:, ::step, ::step]
    return {c: fused[on_grid == c].mean(0) for c in on_grid.unique().tolist()}


def test_batch_means_are_those_of_the_dense_map(fusion: Fusion) -> None:
    features, labels = _batch(1, 3, (0, 1, 3))
    for view, found in enumerate(batch_class_means(features, fusion, labels, _CLASSES)):
        dense = _dense_means(features, fusion, labels, view)
        assert found.present.tolist() == [c in dense for c in range(_CLASSES)]
        assert not found.means.requires_grad
        for c, expected in dense.items():
            torch.testing.assert_close(found.means[c], expected, rtol=1e-4, atol=1e-6)


def test_image_means_are_batch_means_of_single_images(fusion: Fusion) -> None:
    features, labels = _batch(2, 3, (0, 2))
    labels[1] = 0
    together = image_class_means(features, fusion, labels, _CLASSES)
    for i in range(3):
        single = Features(
            *(
                x[i : i + 1] if isinstance(x, Tensor) else tuple(m[i : i + 1] for m in x)
                for x in features
            )
        )
        alone = batch_class_means(single, fusion, labels[i : i + 1], _CLASSES)
        for view in VIEWS:
            torch.testing.assert_close(together[view].means[i], alone[view].means)
            torch.testing.assert_close(together[view].counts[i], alone[view].counts)
    assert together[0].present.tolist() == [
        [True, False, True, False],
        [True, False, False, False],
        [True, False, True, False],
    ]


@pytest.mark.parametrize("per", ["batch", "image"])
def test_meter_averages_over_what_contains_the_class(fusion: Fusion, per: str) -> None:
    batches = [_batch(3, 2, (0, 1)), _batch(4, 1, (0, 2)), _batch(5, 3, (0, 1))]
    meter = PrototypeMeter(fusion, _CLASSES, per=per)
    units: list[tuple[Features, Tensor]] = []
    for features, labels in batches:
        meter.add(features, labels)
        if per == "batch":
            units.append((features, labels))
            continue
        for i in range(len(labels)):
            encoder, decoder = (
                tuple(m[i : i + 1] for m in path) for path in (features.encoder, features.decoder)
            )
            units.append(
                (Features(features.logits[i : i + 1], encoder, decoder), labels[i : i + 1])
            )
    for view, (means, present) in enumerate(meter.means()):
        dense = [_dense_means(f, fusion, labels, view) for f, labels in units]
        assert means.shape == (_CLASSES, 9)
        assert means.dtype == np.float32
        assert present.tolist() == [any(c in d for d in dense) for c in range(_CLASSES)]
        for c in np.flatnonzero(present).tolist():
            expected = torch.stack([d[c] for d in dense if c in d]).mean(0).numpy()
            np.testing.assert_allclose(means[c], expected, rtol=1e-4, atol=1e-6)
        assert not means[~present].any()


def test_meter_without_a_batch_has_nothing(fusion: Fusion) -> None:
    for means, present in PrototypeMeter(fusion, _CLASSES).means():
        assert not means.any()
        assert not present.any()


def test_byte_labels_give_the_same_means(fusion: Fusion) -> None:
    features, labels = _batch(6, 2, (0, 1, 2))
    wide = batch_class_means(features, fusion, labels, _CLASSES)
    small = batch_class_means(features, fusion, labels.to(torch.uint8), _CLASSES)
    assert torch.equal(wide[0].means, small[0].means)


def test_global_prototypes_are_constants() -> None:
    rows = torch.ones(2, 6, requires_grad=True)
    prototypes = GlobalPrototypes(({1: rows * 2}, {}))
    assert not prototypes.views[0][1].requires_grad
    torch.testing.assert_close(prototypes.mean(0, 1), torch.full((6,), 2.0))


def test_malformed_global_prototypes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 views"):
        GlobalPrototypes(({},))
    for rows in (torch.zeros(6), torch.zeros(0, 6)):
        with pytest.raises(ValueError, match=r"\(n, 3d\)"):
            GlobalPrototypes(({0: rows}, {}))
