"""Class means of the fused features: what a site contributes, and what the sites share.

A prototype is the mean fused feature (3d numbers) of one class in one view. A site's own are means
over batches, as published, or over images, for the gentle form; the global ones of a round are
constants of its losses. No gradient passes through anything here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedbcs_secure.learning.fusion import VIEWS, Features, Fusion

Per = Literal["batch", "image"]


@dataclass(frozen=True, eq=False)
class GlobalPrototypes:
    """For each view (encoder, decoder): class to (n_c, 3d), n_c >= 1; absent classes have no key.

    Raises ValueError for another number of views or an array of another rank.
    """

    views: tuple[Mapping[int, Tensor], Mapping[int, Tensor]]

    def __post_init__(self) -> None:
        if len(self.views) != len(VIEWS):
            raise ValueError(f"expected {len(VIEWS)} views, got {len(self.views)}")
        frozen = []
        for view in self.views:
            for c, rows in view.items():
                if rows.ndim != 2 or not len(rows):
                    raise ValueError(f"class {c}: expected (n, 3d) prototypes, got {rows.shape}")
            frozen.append({c: rows.detach() for c, rows in view.items()})
        object.__setattr__(self, "views", tuple(frozen))

    def mean(self, view: int, c: int) -> Tensor:
        """The unweighted mean (3d) of a class's prototypes."""
        return self.views[view][c].mean(dim=0)


class ClassMeans(NamedTuple):
    """``means`` (..., K, 3d) of a view and the pixels behind each, ``counts`` (..., K).

    A class without pixels has mean zero and count zero.
    """

    means: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        return self.counts > 0


@torch.no_grad()
def batch_class_means(
    features: Features, fusion: Fusion, labels: Tensor, classes: int
) -> tuple[ClassMeans, ClassMeans]:
    """For each view the class means (K, 3d) over all pixels of the batch, background included."""
    encoder, decoder = (
        ClassMeans(*fusion.class_means(features, v, labels, classes)) for v in VIEWS
    )
    return encoder, decoder


@torch.no_grad()
def image_class_means(
    features: Features, fusion: Fusion, labels: Tensor, classes: int
) -> tuple[ClassMeans, ClassMeans]:
    """For each view the class means (B, K, 3d) of every image by itself."""
    results = []
    for view in VIEWS:
        sums, counts = fusion.class_sums(features, view, labels, classes)
        results.append(ClassMeans(sums / counts.clamp(min=1)[..., None], counts))
    return results[0], results[1]


class PrototypeMeter:
    """A site's prototypes over an epoch: the unweighted mean over the batches (as published) or the
    images (``per = "image"``) that contain the class. Adds up in float64 on the CPU."""

    def __init__(self, fusion: Fusion, classes: int, per: Per = "batch") -> None:
        self.fusion, self.classes, self.per = fusion, classes, per
        width = fusion.prototype_width
        self._sums = [torch.zeros(classes, width, dtype=torch.float64) for _ in VIEWS]
        self._counts = [torch.zeros(classes, dtype=torch.int64) for _ in VIEWS]

    def add(self, features: Features, labels: Tensor) -> None:
        """Take in one batch: ``labels`` is (B, H, W) integers."""
        means = batch_class_means if self.per == "batch" else image_class_means
        for view, found in enumerate(means(features, self.fusion, labels, self.classes)):
            rows = found.means.reshape(-1, *found.means.shape[-2:])
            self._sums[view] += rows.sum(dim=0, dtype=torch.float32).cpu().double()
            self._counts[view] += found.present.reshape(-1, self.classes).sum(dim=0).cpu()

    def means(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.bool_]], ...]:
        """For each view the means (K, 3d) float32 and which classes were present, (K,) bool."""
        return tuple(
            ((sums / counts.clamp(min=1)[:, None]).float().numpy(), (counts > 0).numpy())
            for sums, counts in zip(self._sums, self._counts, strict=True)
        )
