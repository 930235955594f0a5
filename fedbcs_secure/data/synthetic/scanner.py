"""The four MRI scanners: what a site does to the same body, and to whom it sees.

Style fields move with the severity between site A's value (0) and the site's own (1). The fields
in :data:`CASE_MIX` do not: they decide which pixels are gland, and a patient keeps its mask.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.synthetic.shapes import Field, Plane, rescale

SITES: Final = ("A", "B", "C", "D")

CASE_MIX: Final = frozenset({"field_of_view_mm", "gland_volume", "rectum"})


@dataclass(frozen=True)
class Scanner:
    """One site's T2 protocol. Intensities are relative to urine = 1 before ``gamma``."""

    field_of_view_mm: float
    gland_volume: float
    """Case mix: median gland volume relative to site A's."""
    rectum: float
    """Case mix: rectum radius relative to site A's (an inflated coil widens it, and is dark)."""
    gamma: float
    fat: float
    muscle: float
    zone_contrast: float
    """Peripheral zone minus central gland."""
    coil_flare: float
    """Gain at the rectum minus the gain far away."""
    flare_width_mm: float
    bias: float
    """Standard deviation of the coefficients of the order-2 log bias field."""
    blur_row_px: float
    blur_column_px: float
    """Gaussian point spread (standard deviation)."""
    kept_rows: float
    """Share of k-space measured in the phase direction; less leaves Gibbs rings."""
    rician: float
    """Noise standard deviation, relative to the 99th percentile of the noiseless image."""


SCANNERS: Final = {
    # 3 T, body coil.
    "A": Scanner(
        field_of_view_mm=205.0,
        gland_volume=1.0,
        rectum=1.0,
        gamma=1.0,
        fat=0.68,
        muscle=0.19,
        zone_contrast=0.44,
        coil_flare=0.0,
        flare_width_mm=45.0,
        bias=0.06,
        blur_row_px=0.35,
        blur_column_px=0.35,
        kept_rows=1.0,
        rician=0.02,
    ),
    # Endorectal coil: bright around the rectum, small field, noisier.
    "B": Scanner(
        field_of_view_mm=170.0,
        gland_volume=1.0,
        rectum=1.3,
        gamma=1.0,
        fat=0.62,
        muscle=0.17,
        zone_contrast=0.40,
        coil_flare=3.2,
        flare_width_mm=30.0,
        bias=0.12,
        blur_row_px=0.4,
        blur_column_px=0.4,
        kept_rows=0.9,
        rician=0.05,
    ),
    # Fat-suppressed, compressed grey scale, coarse in the phase direction.
    "C": Scanner(
        field_of_view_mm=215.0,
        gland_volume=1.0,
        rectum=1.0,
        gamma=0.55,
        fat=0.20,
        muscle=0.17,
        zone_contrast=0.14,
        coil_flare=0.0,
        flare_width_mm=45.0,
        bias=0.25,
        blur_row_px=0.9,
        blur_column_px=0.4,
        kept_rows=0.55,
        rician=0.03,
    ),
    # Large field of view, blurred, grainy; referral centre for big glands.
    "D": Scanner(
        field_of_view_mm=265.0,
        gland_volume=2.1,
        rectum=1.0,
        gamma=1.1,
        fat=0.78,
        muscle=0.22,
        zone_contrast=0.22,
        coil_flare=0.0,
        flare_width_mm=45.0,
        bias=0.40,
        blur_row_px=0.8,
        blur_column_px=0.8,
        kept_rows=0.85,
        rician=0.08,
    ),
}


def scanner(site: str, severity: float) -> Scanner:
    """``site``'s scanner, its style ``severity`` of the way from site A's to its own."""
    start, end = SCANNERS["A"], SCANNERS[site]
    style = {
        field.name: (1 - severity) * getattr(start, field.name)
        + severity * getattr(end, field.name)
        for field in fields(Scanner)
        if field.name not in CASE_MIX
    }
    return replace(end, **style)


def acquire(
    tissue: Field,
    plane: Plane,
    device: Scanner,
    coil_xy: tuple[float, float],
    bias_draws: Field,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The magnitude image, (size, size) in [0, 1], of a (size, size) slice of relative signal.

    ``coil_xy`` is the coil's place in body coordinates (mm); ``bias_draws`` holds 5 standard
    normal numbers, the patient's position in the field. ``rng`` draws the noise, always the same
    count.
    """
    signal = np.maximum(tissue, 0) ** device.gamma
    squared = (plane.x - coil_xy[0]) ** 2 + (plane.y - coil_xy[1]) ** 2
    signal = signal * (1 + device.coil_flare * np.exp(-squared / (2 * device.flare_width_mm**2)))

    across, down = (2 / plane.extent) * plane.u[None, :], (2 / plane.extent) * plane.u[:, None]
    terms = (across, down, across * down, across**2 - 1 / 3, down**2 - 1 / 3)
    exponent = sum((c * t for c, t in zip(bias_draws, terms, strict=True)), start=np.zeros(()))
    signal = signal * np.exp(device.bias * exponent)

    rows, columns = np.fft.fftfreq(plane.size)[:, None], np.fft.rfftfreq(plane.size)[None, :]
    spread = (rows * device.blur_row_px) ** 2 + (columns * device.blur_column_px) ** 2
    transfer = np.exp(-2 * np.pi**2 * spread) * (np.abs(rows) <= 0.5 * device.kept_rows)
    signal = np.fft.irfft2(np.fft.rfft2(signal) * transfer, s=signal.shape)

    sigma = device.rician * float(np.percentile(np.abs(signal), 99))
    noise = rng.standard_normal((2, *signal.shape))
    return rescale(np.hypot(signal + sigma * noise[0], sigma * noise[1]))
