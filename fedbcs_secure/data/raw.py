"""One decoded file, before any scaling: what the readers of ``raster`` and ``nifti`` return."""

from __future__ import annotations

import hashlib
import lzma
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image

from fedbcs_secure.errors import DataError

MAX_SIDE_PX = 20_000
MAX_VOXELS = 200_000_000

Kind = Literal["raster", "tiff", "nifti"]

# What pillow, tifffile, nibabel and the decompressors raise on damaged or hostile bytes.
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    Image.DecompressionBombError,
    ImageFileError,
    HeaderDataError,
)


@dataclass(frozen=True, eq=False)
class Raw:
    """Pixels as stored.

    ``pixels`` is (S, H, W, C) in the file's dtype, C in {1, 3}; ``file_shape`` is the array shape
    that a label of the same geometry has in the file's own axis order; ``spacing_mm`` is the
    (row, column) pixel size where the format states one.
    """

    path: Path
    kind: Kind
    pixels: NDArray[Any]
    file_shape: tuple[int, ...]
    lossy: bool = False
    spacing_mm: tuple[float, float] | None = None
    affine: NDArray[np.float64] | None = None
    header: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns, _ = self.pixels.shape
        return slices, rows, columns

    @property
    def digest(self) -> str:
        """SHA-256 of shape, dtype and pixels: equal for equal content under any file name."""
        head = f"{self.pixels.shape} {self.pixels.dtype.str}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


def check_size(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse a declared shape before anything is allocated for it. Raises :class:`DataError`."""
    voxels = 1
    for side in shape:
        voxels *= int(side)
    if not shape or min(shape) < 1 or max(shape) > MAX_SIDE_PX or voxels > MAX_VOXELS:
        declared = " x ".join(str(side) for side in shape)
        raise DataError(
            f"{path}: its header declares {declared} pixels: expected at least 1 and at most "
            f"{MAX_SIDE_PX} a side and {MAX_VOXELS:.0e} in all; crop or tile it"
        )


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on ``path`` into a :class:`DataError` that names the file."""
    if not path.is_file():
        raise DataError(f"{path}: missing: expected a file there; correct the path or restore it")
    try:
        yield
    except _DECODE_ERRORS as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"{path}: unreadable or truncated ({reason}): "
            "expected a whole image file; export or copy it again"
        ) from error
