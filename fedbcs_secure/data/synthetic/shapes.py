"""What both modalities draw with: a sampling plane, soft star-shaped outlines, random fields.

Lengths are in the unit of the plane (mm for MRI, µm for histology). Everything is defined in
continuous coordinates, so a patient drawn at 64 and at 128 pixels is the same patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
Window = tuple[slice, slice]

_HARMONICS = np.arange(2, 7)  # k = 1 would move an outline, not change its form
_MAX_MODES = 40


@dataclass(frozen=True, eq=False)
class Plane:
    """A square picture of ``extent`` units, ``size`` pixels a side, seen by body coordinates.

    ``x`` (to the right) and ``y`` (downwards) are (size, size) body coordinates of the pixel
    centres, after shift, tilt and warp. ``u`` holds the (size,) undistorted centres, −extent/2
    to extent/2. ``slack`` bounds how far the warp moves a point.
    """

    extent: float
    size: int
    tilt: float
    shift: tuple[float, float]
    slack: float
    u: Field
    x: Field
    y: Field

    @property
    def pixel(self) -> float:
        return self.extent / self.size

    def window(self, x: float, y: float, reach: float) -> Window:
        """The rows and columns that a disc of radius ``reach`` around body point (x, y) touches."""
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        column = cos * x - sin * y + self.shift[0]
        row = sin * x + cos * y + self.shift[1]
        reach = reach + self.slack + 2 * self.pixel

        def span(centre: float) -> slice:
            first = math.floor((centre - reach + self.extent / 2) / self.pixel)
            last = math.ceil((centre + reach + self.extent / 2) / self.pixel)
            return slice(min(max(first, 0), self.size), min(max(last, 0), self.size))

        return span(row), span(column)


def make_plane(
    extent: float,
    size: int,
    *,
    tilt: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    warp: tuple[Field, Field] | None = None,
) -> Plane:
    """A plane whose body is moved by ``shift``, turned by ``tilt`` (rad) and bent by ``warp``.

    ``warp`` holds the two (size, size) displacements in the plane's unit.
    """
    u = (np.arange(size) + 0.5) / size * extent - extent / 2
    dx, dy = u[None, :] - shift[0], u[:, None] - shift[1]
    cos, sin = math.cos(tilt), math.sin(tilt)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    slack = 0.0
    if warp is not None:
        x, y = x + warp[0], y + warp[1]
        slack = float(max(np.abs(warp[0]).max(), np.abs(warp[1]).max()))
    return Plane(extent, size, tilt, shift, slack, u, x, y)


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed outline around (x, y): an ellipse times 1 + Σ a_k cos(kθ + φ_k).

    The ellipse has half axes (a, b), turned by ``angle`` (rad) from x towards y.

    ``wobble`` is (2, K) complex, a_k e^{iφ_k} for k = 2..6 at the base and at the apex; between
    them the form changes linearly with z in [−1, 1].
    """

    x: float
    y: float
    a: float
    b: float
    angle: float
    wobble: NDArray[np.complex128]
    z: float = 0.0

    def at(self, z: float) -> Outline:
        return replace(self, z=z)

    def moved(self, x: float, y: float) -> Outline:
        """The same form with its centre at (x, y)."""
        return replace(self, x=x, y=y)

    def scaled(self, factor: float) -> Outline:
        return replace(self, a=self.a * factor, b=self.b * factor)

    def grown(self, margin: float) -> Outline:
        """The outline with both half axes ``margin`` longer (shorter where negative)."""
        return replace(self, a=max(self.a + margin, 1e-3), b=max(self.b + margin, 1e-3))

    @property
    def reach(self) -> float:
        """No point of the outline is farther from its centre."""
        return max(self.a, self.b) * (1 + float(np.abs(self.wobble).sum(axis=1).max()))

    def depth(self, x: Field, y: Field) -> Field:
        """Distance to the outline along the ray from the centre, positive inside."""
        dx, dy = x - self.x, y - self.y
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        point = (cos * dx + sin * dy) / self.a + 1j * ((cos * dy - sin * dx) / self.b)
        rho = np.abs(point)
        away = rho > 1e-9
        unit = np.where(away, point / np.where(away, rho, 1.0), 1.0)
        mix = (1 + self.z) / 2
        coefficients = (1 - mix) * self.wobble[0] + mix * self.wobble[1]
        series = np.zeros_like(unit)
        for coefficient in coefficients[::-1]:  # Horner
            series = (series + coefficient) * unit
        radius = np.maximum(1 + (series * unit).real, 0.2)
        stretch = np.where(away, np.hypot(dx, dy) / np.where(away, rho, 1.0), min(self.a, self.b))
        return np.asarray(stretch * (radius - rho), np.float64)

    def cover(self, x: Field, y: Field, softness: float) -> Field:
        """1 inside, 0 outside, a smooth step ``softness`` to either side of the outline."""
        t = np.clip(0.5 + self.depth(x, y) / (2 * softness), 0, 1)
        return np.asarray(t * t * (3 - 2 * t), np.float64)


def draw_outline(
    rng: np.random.Generator,
    x: float,
    y: float,
    a: float,
    b: float,
    *,
    angle: float = 0.0,
    roughness: float = 0.06,
    change: float = 0.5,
) -> Outline:
    """An outline with random harmonics of amplitude ``roughness`` / k.

    ``change`` in [0, 1] says how far the apex's harmonics are independent of the base's.
    """
    draws = rng.standard_normal((2, 2, _HARMONICS.size))
    base, other = (draws[:, 0] + 1j * draws[:, 1]) * (roughness / math.sqrt(2)) / _HARMONICS
    limit = 2.5 * roughness / _HARMONICS  # a rare draw must not fold the outline
    both = np.stack([base, math.sqrt(1 - change**2) * base + change * other])
    size = np.abs(both)
    return Outline(x, y, a, b, angle, both * np.minimum(1, limit / np.maximum(size, 1e-12)))


@dataclass(frozen=True, eq=False)
class Waves:
    """A smooth random field as its Fourier modes.

    ``amplitude`` is (2M + 1, M + 1) complex: rows −M..M, columns 0..M.
    """

    amplitude: NDArray[np.complex128]

    def on(self, size: int) -> Field:
        """The field at the pixel centres of a (size, size) grid, without modes it cannot hold."""
        modes = self.amplitude.shape[1] - 1
        held = min(modes, (size - 1) // 2)
        rows, columns = np.arange(-held, held + 1)[:, None], np.arange(held + 1)[None, :]
        spectrum = np.zeros((size, size // 2 + 1), np.complex128)
        # Pixel centres lie half a pixel in, whatever the size.
        spectrum[rows % size, columns] = self.amplitude[
            modes - held : modes + held + 1, : held + 1
        ] * np.exp(1j * np.pi * (rows + columns) / size)
        spectrum[:, 0] *= 2  # the conjugates of this column are missing; the others' are implied
        return np.asarray(np.fft.irfft2(spectrum, s=(size, size)) * (size * size / 2), np.float64)


def draw_waves(
    rng: np.random.Generator,
    extent: float,
    wavelength: float | tuple[float, float],
    angle: float = 0.0,
) -> Waves:
    """A Gaussian random field over a square of ``extent``, mean 0, standard deviation about 1.

    Modes get random amplitudes under a Gaussian envelope, which leaves structure of about
    ``wavelength`` (or of (along, across) the direction ``angle``, rad) and makes it periodic.
    """
    along, across = (wavelength, wavelength) if isinstance(wavelength, float) else wavelength
    modes = min(math.ceil(1.6 * extent / min(along, across)), _MAX_MODES)
    ky, kx = np.arange(-modes, modes + 1)[:, None], np.arange(modes + 1)[None, :]
    cos, sin = math.cos(angle), math.sin(angle)
    k_along, k_across = cos * kx + sin * ky, cos * ky - sin * kx
    envelope = np.exp(-((k_along * along) ** 2 + (k_across * across) ** 2) / extent**2)
    envelope[: modes + 1, 0] = 0  # the mean, and conjugates of the modes below it
    draws = rng.standard_normal((2, 2 * modes + 1, modes + 1))
    norm = math.sqrt(float((envelope**2).sum()))
    return Waves((draws[0] + 1j * draws[1]) * (envelope / norm))


def random_field(
    rng: np.random.Generator,
    extent: float,
    size: int,
    wavelength: float | tuple[float, float],
    angle: float = 0.0,
) -> Field:
    """:func:`draw_waves` on a (size, size) grid. The draws do not depend on ``size``."""
    return draw_waves(rng, extent, wavelength, angle).on(size)


def blur(image: Field, sigma: float) -> Field:
    """Gaussian blur of the last two axes, ``sigma`` in pixels, mirrored at the border."""
    if sigma < 0.05:
        return image
    reach = min(math.ceil(3 * sigma), image.shape[-1] - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (-2, -1):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (reach, reach)
        wide = np.moveaxis(np.pad(image, pad, mode="reflect"), axis, -1)
        length = wide.shape[-1] - 2 * reach
        smooth = sum(
            (weight * wide[..., i : i + length] for i, weight in enumerate(kernel)),
            start=np.zeros(()),
        )
        image = np.moveaxis(np.asarray(smooth, np.float64), -1, axis)
    return image


def rescale(image: Field) -> NDArray[np.float32]:
    """The image between its minimum and maximum, as float32 in [0, 1]; all 0 where it is flat."""
    low, high = float(image.min()), float(image.max())
    if high - low < 1e-9:
        return np.zeros(image.shape, np.float32)
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
