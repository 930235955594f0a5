"""PNG, JPEG and TIFF: decoding, and writing masks in the same formats.

Orientation tags (EXIF, TIFF) are ignored for images and labels alike: both are taken as stored.
TIFF goes through tifffile (16 bits, float, many pages), and through pillow for the compressions
that tifffile cannot decode by itself.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from fedbcs_secure.data.raw import MAX_SIDE_PX, Raw, check_size, decoding
from fedbcs_secure.errors import DataError

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")

_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")
# none, deflate (two codes), packbits, lzma; predictors none and horizontal
_TIFFFILE_COMPRESSIONS = (1, 8, 32946, 32773, 34925)
_TIFFFILE_PREDICTORS = (1, 2)
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE = 0, 1, 2, 3
_ORIENTATION_TAG = 274

# What tifffile has to say about a damaged file is in our error; without a handler it would print.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def _frame(image: Image.Image, *, label: bool) -> NDArray[Any]:
    """(H, W, C) of one pillow frame; a palette means indices in a label, colours in an image."""
    if image.mode in _GREY_MODES or (image.mode == "P" and label):
        pixels = np.asarray(image)
        return pixels.astype(np.uint8)[..., None] if pixels.dtype == bool else pixels[..., None]
    if image.mode in ("LA", "La", "PA") and (image.mode != "PA" or label):
        return np.asarray(image.getchannel(0))[..., None]
    return np.asarray(image.convert("RGB"))


def _one_channel(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """A label's (S, H, W, 1); colour labels are accepted only when all channels agree."""
    if pixels.shape[-1] > 1 and not (pixels == pixels[..., :1]).all():
        raise DataError(
            f"{path}: a label with colours: expected one grey value a pixel; "
            "export class values, not a picture of them"
        )
    return pixels[..., :1]


def read_raster(path: Path, *, label: bool = False) -> Raw:
    """Read a PNG or JPEG as one slice. Raises :class:`DataError`."""
    with decoding(path), Image.open(path, formats=("PNG", "JPEG")) as image:
        check_size(path, (image.height, image.width))
        pixels = _frame(image, label=label)[None]
        lossy = image.format == "JPEG"
    if label:
        pixels = _one_channel(path, pixels)
    return Raw(path, "raster", pixels, file_shape=pixels.shape[1:3], lossy=lossy)


def _by_axes(path: Path, pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    """Order a TIFF series' axes as (S, H, W, C), dropping alpha.

    Y and X are rows and columns, S and C colours; the one remaining axis longer than 1, whatever
    the file calls it (pages, depth, time), is the slices.
    """
    keep = [i for i, axis in enumerate(axes) if axis in "YX" or pixels.shape[i] > 1]
    axes = "".join(axes[i] for i in keep)
    pixels = pixels.reshape([pixels.shape[i] for i in keep])
    colours = [i for i, axis in enumerate(axes) if axis in "SC"]
    slices = [i for i, axis in enumerate(axes) if axis not in "SCYX"]
    count = pixels.shape[colours[0]] if colours else 1
    # S are a pixel's samples, alpha perhaps among them; C are channels, which only 3 make a colour
    known = count in ((3,) if "C" in axes else (1, 2, 3, 4))
    if "Y" not in axes or "X" not in axes or len(colours) > 1 or len(slices) > 1 or not known:
        raise DataError(
            f"{path}: TIFF axes {axes} of shape {pixels.shape}: expected rows and columns, "
            "1 or 3 channels and at most one axis of slices; split it"
        )
    pixels = pixels.transpose([*slices, axes.index("Y"), axes.index("X"), *colours])
    if not slices:
        pixels = pixels[None]
    if not colours:
        pixels = pixels[..., None]
    return pixels[..., :3] if count >= 3 else pixels[..., :1]


def _read_tiff_by_pillow(path: Path, *, label: bool) -> NDArray[Any]:
    with Image.open(path, formats=("TIFF",)) as image:
        frames = int(getattr(image, "n_frames", 1))
        check_size(path, (frames, image.height, image.width))
        pages = []
        for index in range(frames):
            image.seek(index)
            if getattr(image, "tag_v2", {}).get(_ORIENTATION_TAG, 1) != 1:
                raise DataError(
                    f"{path}: a rotated TIFF in a compression that can only be read rotated: "
                    "expected orientation 1; save it without compression"
                )
            check_size(path, (frames, image.height, image.width))
            pages.append(_frame(image, label=label))
    return np.stack(pages)


def _pages(file: BinaryIO, size: int) -> int | None:
    """How many directories a TIFF's chain has; None when the chain breaks off or turns back."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"\x2b\x00", b"\x00\x2b")
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    (offset,) = struct.unpack_from(order + offset_format, head, 8 if big else 4)
    seen: set[int] = set()
    while offset:
        if offset in seen or offset >= size:
            return None
        seen.add(offset)
        file.seek(offset)
        (entries,) = struct.unpack(
            order + count_format, file.read(struct.calcsize(order + count_format))
        )
        at = file.tell() + entries * entry_bytes
        if at >= size:
            return None
        file.seek(at)
        (offset,) = struct.unpack(
            order + offset_format, file.read(struct.calcsize(order + offset_format))
        )
    return len(seen)


def _check_whole(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a TIFF that ends early: tifffile drops its lost pages or fills them with zeros."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        pages = _pages(stream, size)
    series = file.series[0]
    start = series.dataoffset
    whole = start is None or start + series.nbytes <= size
    for page in series.pages:
        segments = zip(page.dataoffsets, page.databytecounts, strict=True) if page else ()
        whole = whole and page is not None and all(a > 0 and a + n <= size for a, n in segments)
    if not whole or pages is None or pages < len(file.pages):
        raise DataError(
            f"{path}: truncated: its pages or their pixels lie beyond the end of the file: "
            "expected a whole TIFF; export or copy it again"
        )


def read_tiff(path: Path, *, label: bool = False) -> Raw:
    """Read a TIFF; several pages of one shape are the slices of a volume.

    Raises :class:`DataError`, also for pages of different shapes and for inverted grey.
    """
    with decoding(path), tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise DataError(
                f"{path}: {len(file.series)} images of different shapes in one TIFF: "
                "expected one image or pages of one shape; save one of them alone"
            )
        series, page = file.series[0], file.series[0].keyframe
        check_size(path, tuple(series.shape))
        _check_whole(path, file)
        if page.photometric == _MINISWHITE:
            raise DataError(
                f"{path}: inverted grey (0 is white): expected 0 = black; save it as plain grey"
            )
        native = (
            page.compression in _TIFFFILE_COMPRESSIONS
            and page.predictor in _TIFFFILE_PREDICTORS
            and page.photometric in (_MINISBLACK, _RGB, *((_PALETTE,) if label else ()))
        )
        if native:
            pixels = _by_axes(path, series.asarray(), series.axes)
        else:
            pixels = _read_tiff_by_pillow(path, label=label)
        lossy = page.compression in (6, 7)
    if label:
        pixels = _one_channel(path, pixels)
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    slices, rows, columns, _ = pixels.shape
    shape = (rows, columns) if slices == 1 else (slices, rows, columns)
    return Raw(path, "tiff", pixels, file_shape=shape, lossy=lossy)


def write_raster(path: Path, array: NDArray[Any]) -> None:
    """Write a mask (H, W) as PNG, 8 or 16 bits, without loss. Raises :class:`DataError`."""
    if path.suffix.lower() != ".png" or array.ndim != 2 or max(array.shape) > MAX_SIDE_PX:
        raise DataError(
            f"{path}: a mask of shape {array.shape} is written as PNG: "
            "expected (rows, columns) and a name ending in .png"
        )
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: PNG holds values 0..65535, the labels need {array.dtype}")
    with path.open("wb") as file:
        Image.fromarray(array).save(file, format="PNG")


def write_tiff(path: Path, array: NDArray[Any]) -> None:
    """Write a mask (H, W) or (S, H, W) as deflated TIFF. Raises :class:`DataError`."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise DataError(f"{path}: this mask is written as TIFF: name it .tif or .tiff")
    tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")
