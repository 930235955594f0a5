"""Pixels to network inputs, labels to class indices, and the values of written masks.

Intensities are scaled over the whole file: an image of PNG or JPEG, a volume of NIfTI or
multi-page TIFF; all channels together, so colours keep their ratios. Images are resized
bilinearly, after a Gaussian filter along the axes that shrink; labels take the nearest pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.raw import Kind, Raw
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def resized(
    planes: NDArray[np.float32], size: tuple[int, int], mode: Literal["bilinear", "nearest-exact"]
) -> NDArray[np.float32]:
    """(N, H, W) to (N, *size); planes are independent."""
    if planes.shape[1:] == size:
        return planes
    # Here and not above: MONAI takes seconds to import, and synthetic data does not need it.
    from monai.transforms import Resize

    shrinks = size[0] < planes.shape[1] or size[1] < planes.shape[2]
    smooth = mode == "bilinear" and shrinks
    resize = Resize(spatial_size=size, mode=mode, anti_aliasing=smooth)
    return np.asarray(resize(planes), dtype=np.float32)


def scaled(path: Path, x: NDArray[np.float32], contract: DataContract) -> NDArray[np.float32]:
    """Intensities to [0, 1] over all of ``x``; a constant image becomes 0."""
    low, high = float(x.min()), float(x.max())
    if contract.scaling == "fixed":
        if low < 0 or high > 255:
            raise DataError(
                f"{path}: values from {low:g} to {high:g}: expected 0 to 255 for "
                'data.scaling = "fixed"; use "minmax" or "percentile99"'
            )
        return x / np.float32(255)
    if low == high:
        return np.zeros_like(x)
    if contract.scaling == "percentile99":
        top = float(np.percentile(x, 99))
        # Nearly empty images have their 99th percentile at the minimum: keep their full range.
        high = top if top > low else high
    if high - low > float(np.finfo(np.float32).max):
        raise DataError(f"{path}: values from {low:g} to {high:g}: expected a range below 3e38")
    from monai.transforms import ScaleIntensityRange

    scale = ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
    return np.asarray(scale(x), dtype=np.float32)


def to_images(raw: Raw, contract: DataContract) -> NDArray[np.float32]:
    """(S, C, size, size) float32 in [0, 1]."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf and is refused below
        x = raw.pixels.astype(np.float32)
    bad = int(np.count_nonzero(~np.isfinite(x)))
    if bad:
        raise DataError(
            f"{raw.path}: {bad} NaN or infinite value(s): expected finite intensities; "
            "replace them or leave the image out"
        )
    slices, rows, columns, channels = x.shape
    stack = contract.volume == "stack3" and slices > 1
    if channels == 3 and (contract.channels == 1 or stack):
        x = (x @ _LUMINANCE)[..., None]
    x = scaled(raw.path, x, contract)
    size = (contract.size_px, contract.size_px)
    planes = x.transpose(0, 3, 1, 2).reshape(-1, rows, columns)
    planes = np.clip(resized(planes, size, "bilinear"), 0, 1)
    images = planes.reshape(slices, -1, *size)
    if stack:
        padded = np.concatenate([images[:1], images, images[-1:]])
        images = np.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1)
    elif images.shape[1] < contract.channels:
        images = np.repeat(images, contract.channels, axis=1)
    return np.ascontiguousarray(images, dtype=np.float32)


def to_classes(raw: Raw, contract: DataContract) -> NDArray[np.uint8]:
    """(S, H, W) class indices of a label file."""
    values = raw.pixels[..., 0]
    if contract.labels == "nonzero":
        wrong = ~(values >= 0)  # NaN too
        expected = "0 for background and values above 0"
        indices = (values > 0).astype(np.uint8)
    else:
        wrong = np.ones(values.shape, bool)
        indices = np.zeros(values.shape, np.uint8)
        expected = f"the values {', '.join(str(value) for value in contract.labels)}"
        for index, value in enumerate(contract.labels):
            hit = values == value
            indices[hit] = index
            wrong &= ~hit
    count = int(np.count_nonzero(wrong))
    if count:
        shown = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:5])
        raise DataError(
            f"{raw.path}: {count} pixel(s) with a label value outside the classes ({shown}): "
            f"expected {expected}; correct the file or data.labels"
        )
    return indices


def file_values(kind: Kind, contract: DataContract) -> NDArray[Any]:
    """The value that each class has in a written mask, in the smallest dtype that holds them."""
    if contract.labels == "nonzero":
        return np.array([0, 1 if kind == "nifti" else 255], np.uint8)
    low, high = min(contract.labels), max(contract.labels)
    for dtype in (np.uint8, np.uint16, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.array(contract.labels, dtype)
    raise DataError(f"data.labels spans {low} to {high}: expected values of at most 31 bits")
