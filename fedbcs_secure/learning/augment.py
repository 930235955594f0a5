"""Random views of a training slice, by MONAI, from a seed of its own.

Each image has its own seed (study seed, site, patient, slice, epoch), so what happens to it does
not depend on batch order, on other patients or on the process.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandAxisFlipd,
)
from numpy.typing import NDArray

_DEGREE = np.pi / 180


def image_seed(seed: int, *, site: str, patient: str, index: int, epoch: int) -> int:
    """A 32-bit seed for one slice in one epoch (``epoch`` counts through all rounds)."""
    digest = hashlib.sha256(b"augment\x00")
    for part in (site.encode(), patient.encode()):
        digest.update(struct.pack("<I", len(part)) + part)
    digest.update(struct.pack("<QIQ", seed, index, epoch))
    return int.from_bytes(digest.digest()[:4], "little")


class Augmentation:
    """Flip, small affine (±15°, ±10 % scale, ±5 % shift) and gamma; labels by nearest neighbour."""

    def __init__(self) -> None:
        self._transform = Compose(
            [
                RandAxisFlipd(("image", "label"), prob=0.5),
                RandAffined(
                    ("image", "label"),
                    prob=0.5,
                    rotate_range=(15 * _DEGREE,),
                    scale_range=(0.1, 0.1),
                    translate_range=(0.05, 0.05),
                    mode=("bilinear", "nearest"),
                    padding_mode="reflection",
                ),
                RandAdjustContrastd(("image",), prob=0.3, gamma=(0.7, 1.5)),
            ]
        )

    def __call__(
        self, image: NDArray[np.float32], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """``image`` (C, H, W) and ``mask`` (H, W) under the random view that ``seed`` names."""
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            self._transform.set_random_state(seed=seed)
            out = self._transform({"image": image, "label": mask[None].astype(np.float32)})
        finally:
            set_track_meta(tracked)
        return (
            np.ascontiguousarray(out["image"], dtype=np.float32),
            np.ascontiguousarray(out["label"][0], dtype=np.uint8),
        )
