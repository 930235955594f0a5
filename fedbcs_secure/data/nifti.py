"""NIfTI-1 and NIfTI-2 files (``.nii``, ``.nii.gz``).

The third stored axis is the slice axis and nothing is reoriented: slice k is ``data[:, :, k]``
transposed, so rows are the file's second axis and columns its first. nibabel is used directly:
MONAI's loader would read the pixels before a hostile header could be refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.raw import Raw, check_size, decoding
from fedbcs_secure.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def _spacing(header: Any) -> tuple[float, float] | None:
    unit = _MM.get(header.get_xyzt_units()[0], 1.0)
    columns, rows = (float(zoom) * unit for zoom in header.get_zooms()[:2])
    if not (np.isfinite([rows, columns]).all() and rows > 0 and columns > 0):
        return None
    return rows, columns


def read_nifti(path: Path) -> Raw:
    """Read a 2-D or 3-D scalar NIfTI as slices (S, H, W, 1), with its intensity scale applied.

    Raises :class:`DataError`: damaged, too large, of four dimensions, colour or complex.
    """
    with decoding(path):
        image = nib.load(path)
        shape = tuple(int(side) for side in image.shape)
        check_size(path, shape)
        if image.get_data_dtype().kind not in "iuf":
            raise DataError(
                f"{path}: voxels of type {image.get_data_dtype()}: expected one number a voxel"
            )
        spatial = shape
        while len(spatial) > 3 and spatial[-1] == 1:
            spatial = spatial[:-1]
        if len(spatial) not in (2, 3):
            raise DataError(
                f"{path}: shape {shape}: expected 2 or 3 dimensions; split channels or times"
            )
        voxels = np.asanyarray(image.dataobj).reshape((*spatial, 1)[:3])
        affine = np.array(image.affine, dtype=np.float64)
        header = image.header.copy()
        spacing = _spacing(header)
    pixels = np.ascontiguousarray(voxels.transpose(2, 1, 0))[..., None]
    return Raw(path, "nifti", pixels, shape, spacing_mm=spacing, affine=affine, header=header)


def to_file_order(slices: NDArray[Any], file_shape: tuple[int, ...]) -> NDArray[Any]:
    """(S, H, W) back to the file's axis order and shape."""
    return slices.transpose(2, 1, 0).reshape(file_shape)


def write_nifti(path: Path, array: NDArray[Any], affine: NDArray[np.float64], header: Any) -> None:
    """Write a mask with the image's affine and header.

    Header extensions are left out: they may carry the scanner's record of the patient.
    Raises :class:`DataError` for another suffix.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise DataError(f"{path}: this mask is written as NIfTI: name it .nii or .nii.gz")
    header = header.copy()
    header.extensions.clear()
    header.set_data_dtype(array.dtype)
    header["cal_min"] = header["cal_max"] = 0
    newer = isinstance(header, nib.Nifti2Header)
    image = (nib.Nifti2Image if newer else nib.Nifti1Image)(array, affine, header)
    image.header.set_slope_inter(1, 0)
    nib.save(image, path)
