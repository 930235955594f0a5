"""From files to network inputs and back.

Order of work: decode, check, scale intensities to [0, 1], resize to ``size_px`` x ``size_px``.
An image that is not square is resized to the square all the same, and ``spacing_mm`` follows on
each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.nifti import NIFTI_SUFFIXES, read_nifti, to_file_order, write_nifti
from fedbcs_secure.data.prepare import file_values, resized, to_classes, to_images
from fedbcs_secure.data.raster import (
    RASTER_SUFFIXES,
    TIFF_SUFFIXES,
    read_raster,
    read_tiff,
    write_raster,
    write_tiff,
)
from fedbcs_secure.data.raw import Kind, Raw
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

SliceRule = Literal["all", "labelled_interior"]
"""``labelled_interior``: only slices 1..n-2 whose label is not empty (the prostate layout)."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image as the network takes it, with what is needed to lead a mask back.

    ``images`` is (S, C, size, size) float32 in [0, 1]; ``shape`` the original (slices, rows,
    columns); ``file_shape`` the same in the file's axis order; ``spacing_mm`` the (row, column)
    pixel size after resizing; ``affine`` and ``header`` those of a NIfTI file.
    """

    path: Path
    kind: Kind
    images: NDArray[np.float32]
    shape: tuple[int, int, int]
    file_shape: tuple[int, ...]
    spacing_mm: tuple[float, float] | None = None
    affine: NDArray[np.float64] | None = None
    header: Any = None


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What ``check`` reports of one image and its label, at original resolution."""

    image: Path
    label: Path
    shape: tuple[int, int, int]
    channels: int
    spacing_mm: tuple[float, float] | None
    digest: str
    constant: bool
    lossy_label: bool
    affine_differs: bool
    class_pixels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LoadedPair:
    """``images`` (S, C, size, size) float32 and ``masks`` (S, size, size) uint8 of one pair."""

    images: NDArray[np.float32]
    masks: NDArray[np.uint8]
    spacing_mm: tuple[float, float] | None
    facts: FileFacts


def read_raw(path: Path, *, label: bool = False) -> Raw:
    """Decode ``path`` by its suffix. Raises :class:`DataError`."""
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return read_nifti(path)
    if name.endswith(TIFF_SUFFIXES):
        return read_tiff(path, label=label)
    if name.endswith(RASTER_SUFFIXES):
        return read_raster(path, label=label)
    known = ", ".join((*RASTER_SUFFIXES, *TIFF_SUFFIXES, *NIFTI_SUFFIXES))
    raise DataError(f"{path}: unknown kind of file: expected one of {known}; convert it")


def _new_spacing(raw: Raw, contract: DataContract) -> tuple[float, float] | None:
    if raw.spacing_mm is None:
        return None
    _, rows, columns = raw.shape
    size = contract.size_px
    return raw.spacing_mm[0] * rows / size, raw.spacing_mm[1] * columns / size


def load_image(path: Path, contract: DataContract) -> LoadedImage:
    """Read an image for prediction, keeping every slice. Raises :class:`DataError`."""
    raw = read_raw(path)
    return LoadedImage(
        path=path,
        kind=raw.kind,
        images=to_images(raw, contract),
        shape=raw.shape,
        file_shape=raw.file_shape,
        spacing_mm=_new_spacing(raw, contract),
        affine=raw.affine,
        header=raw.header,
    )


def _read_both(image: Path, label: Path, contract: DataContract) -> tuple[Raw, Raw]:
    """Both files, decoded and of one size; the problems of both are raised together."""
    raws: list[Raw] = []
    problems: list[str] = []
    for path, is_label in ((image, False), (label, True)):
        try:
            raws.append(read_raw(path, label=is_label))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    if raws[0].shape != raws[1].shape:
        sizes = [" x ".join(str(side) for side in raw.shape) for raw in raws]
        raise DataError(
            f"{image}: {sizes[0]} (slices x rows x columns) but its label {label} has {sizes[1]}: "
            "expected equal sizes; export the label on the image's grid"
        )
    return raws[0], raws[1]


def load_pair(
    image: Path, label: Path, contract: DataContract, *, rule: SliceRule = "all"
) -> LoadedPair:
    """Read an image and its label. Sizes are compared at original resolution.

    Raises :class:`DataError` with every problem of the two files.
    """
    raw, raw_label = _read_both(image, label, contract)
    problems: list[str] = []
    images = np.zeros((0,), np.float32)
    indices = np.zeros((0,), np.uint8)
    try:
        images = to_images(raw, contract)
    except DataError as error:
        problems += error.problems
    try:
        indices = to_classes(raw_label, contract)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    if rule == "labelled_interior":
        kept = [k for k in range(1, len(indices) - 1) if indices[k].any()]
        if not kept:
            raise DataError(
                f"{label}: no labelled slice between the first and the last of {len(indices)}: "
                "expected at least one; leave the case out or label it"
            )
        images, indices = images[kept], indices[kept]
    size = (contract.size_px, contract.size_px)
    masks = resized(indices.astype(np.float32), size, "nearest-exact").astype(np.uint8)
    differs = (
        raw.affine is not None
        and raw_label.affine is not None
        and not np.allclose(raw.affine, raw_label.affine, atol=1e-2)
    )
    facts = FileFacts(
        image=image,
        label=label,
        shape=raw.shape,
        channels=int(raw.pixels.shape[-1]),
        spacing_mm=raw.spacing_mm,
        digest=raw.digest,
        constant=bool(raw.pixels.min() == raw.pixels.max()),
        lossy_label=raw_label.lossy,
        affine_differs=differs,
        class_pixels=tuple(
            int(n) for n in np.bincount(indices.ravel(), minlength=contract.classes)
        ),
    )
    return LoadedPair(images, masks, _new_spacing(raw, contract), facts)


def restore_mask(
    loaded: LoadedImage, masks: NDArray[np.uint8], contract: DataContract
) -> NDArray[Any]:
    """Lead (S, size, size) class indices back to the geometry and values of the file.

    Returns an array of ``loaded.file_shape``: nearest pixel, the file's axis order, and as values
    the contract's own list, or for ``nonzero`` 0/255 (PNG, TIFF) and 0/1 (NIfTI).
    Raises :class:`DataError` when ``masks`` does not fit.
    """
    expected = (loaded.shape[0], contract.size_px, contract.size_px)
    if masks.shape != expected or masks.dtype != np.uint8:
        raise DataError(
            f"{loaded.path}: a mask of {masks.shape} {masks.dtype}: expected {expected} uint8"
        )
    if int(masks.max()) >= contract.classes:
        raise DataError(
            f"{loaded.path}: a mask with class {int(masks.max())}: "
            f"expected 0..{contract.classes - 1}"
        )
    planes = resized(masks.astype(np.float32), loaded.shape[1:], "nearest-exact")
    slices = file_values(loaded.kind, contract)[planes.astype(np.uint8)]
    if loaded.kind == "nifti":
        return to_file_order(slices, loaded.file_shape)
    return slices.reshape(loaded.file_shape)


def save_mask(loaded: LoadedImage, array: NDArray[Any], path: Path) -> None:
    """Write a restored mask: PNG for PNG and JPEG, TIFF for TIFF, NIfTI with affine and header.

    Raises :class:`DataError` when the name or the array does not fit the input's format.
    """
    if array.shape != loaded.file_shape:
        raise DataError(f"{path}: a mask of {array.shape}: expected {loaded.file_shape}")
    if loaded.kind == "raster":
        write_raster(path, array)
    elif loaded.kind == "tiff":
        write_tiff(path, array)
    elif loaded.affine is not None:
        write_nifti(path, array, loaded.affine, loaded.header)
