"""The four histology laboratories: how stain, lamp and camera turn tissue into colour.

Beer-Lambert: OD = s_h c_h H + s_e c_e E and RGB = illumination · exp(−1.15 OD), with unit stain
vectors c in optical-density space. Every field but those in :data:`CASE_MIX` moves with severity.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.synthetic.shapes import Field, blur, rescale

Colour = tuple[float, float, float]

CASE_MIX: Final = frozenset({"nucleus_um", "nuclei"})
FIELD_UM: Final = 64.0
"""Side of a patch: at 128 pixels the 0.5 µm a pixel of a 20x objective."""
_ABSORPTION: Final = 1.15
_VECTOR_JITTER: Final = 0.03
_STRENGTH_JITTER: Final = 0.15
STYLE_DRAWS: Final = 8


@dataclass(frozen=True)
class Laboratory:
    """One site's slides. Colours are (red, green, blue)."""

    nucleus_um: float
    """Case mix: median nuclear radius."""
    nuclei: float
    """Case mix: mean number of nuclei that a patch's square holds."""
    haematoxylin: Colour
    eosin: Colour
    haematoxylin_strength: float
    eosin_strength: float
    vesicular: float
    """Share of nuclei with cleared chromatin."""
    chromatin: float
    """Relative contrast of chromatin texture."""
    illumination: Colour
    tint: Colour
    """Added after development: stray light and white balance."""
    blur_px: float
    """Gaussian standard deviation, in optical density."""
    noise: float
    """Standard deviation of sensor noise, in [0, 1]."""


LABORATORIES: Final = {
    # The textbook slide.
    "A": Laboratory(
        nucleus_um=4.2,
        nuclei=26.0,
        haematoxylin=(0.65, 0.70, 0.29),
        eosin=(0.09, 0.95, 0.28),
        haematoxylin_strength=1.30,
        eosin_strength=0.62,
        vesicular=0.15,
        chromatin=0.22,
        illumination=(0.96, 0.95, 0.96),
        tint=(0.0, 0.0, 0.0),
        blur_px=0.3,
        noise=0.012,
    ),
    # Thick sections, heavy blue haematoxylin, purple background.
    "B": Laboratory(
        nucleus_um=4.0,
        nuclei=30.0,
        haematoxylin=(0.73, 0.63, 0.25),
        eosin=(0.27, 0.88, 0.32),
        haematoxylin_strength=1.55,
        eosin_strength=1.15,
        vesicular=0.40,
        chromatin=0.20,
        illumination=(0.90, 0.90, 0.97),
        tint=(0.0, 0.0, 0.03),
        blur_px=0.6,
        noise=0.02,
    ),
    # Bright scanner, strong pink eosin, crisp.
    "C": Laboratory(
        nucleus_um=4.4,
        nuclei=24.0,
        haematoxylin=(0.60, 0.74, 0.32),
        eosin=(0.05, 0.86, 0.45),
        haematoxylin_strength=1.35,
        eosin_strength=0.85,
        vesicular=0.20,
        chromatin=0.28,
        illumination=(1.0, 0.98, 0.95),
        tint=(0.03, 0.0, -0.01),
        blur_px=0.2,
        noise=0.01,
    ),
    # Faded archive slides: weak brownish haematoxylin, vesicular tumours, yellow lamp, blur.
    "D": Laboratory(
        nucleus_um=4.7,
        nuclei=21.0,
        haematoxylin=(0.54, 0.70, 0.46),
        eosin=(0.12, 0.84, 0.52),
        haematoxylin_strength=0.62,
        eosin_strength=0.72,
        vesicular=0.75,
        chromatin=0.28,
        illumination=(0.97, 0.92, 0.82),
        tint=(0.06, 0.04, 0.0),
        blur_px=1.1,
        noise=0.045,
    ),
}


def laboratory(site: str, severity: float) -> Laboratory:
    """``site``'s laboratory, its style ``severity`` of the way from site A's to its own."""
    start, end = LABORATORIES["A"], LABORATORIES[site]
    style: dict[str, Any] = {
        field.name: _between(getattr(start, field.name), getattr(end, field.name), severity)
        for field in fields(Laboratory)
        if field.name not in CASE_MIX
    }
    return replace(end, **style)


def develop(
    haematoxylin: Field,
    eosin: Field,
    lab: Laboratory,
    style_draws: Field,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The (3, H, W) colour image in [0, 1] of two (H, W) stain concentrations.

    ``style_draws`` holds the patient's 8 standard normal numbers: 3 for each stain vector, 1 for
    each strength. ``rng`` draws the noise, always the same count.
    """
    bounded = np.clip(style_draws, -2, 2)
    h_vector = _unit(np.asarray(lab.haematoxylin) + _VECTOR_JITTER * bounded[0:3])
    e_vector = _unit(np.asarray(lab.eosin) + _VECTOR_JITTER * bounded[3:6])
    # ± 15 % is the bound of a draw of ± 2.
    h_strength, e_strength = 1 + _STRENGTH_JITTER * bounded[6:8] / 2
    density = (
        lab.haematoxylin_strength * h_strength * h_vector[:, None, None] * haematoxylin
        + lab.eosin_strength * e_strength * e_vector[:, None, None] * eosin
    )
    density = blur(density, lab.blur_px)
    light = np.asarray(lab.illumination)[:, None, None] * np.exp(-_ABSORPTION * density)
    light = light + np.asarray(lab.tint)[:, None, None]
    return rescale(light + lab.noise * rng.standard_normal(light.shape))


def _unit(vector: Field) -> Field:
    positive = np.maximum(vector, 0.0)
    return np.asarray(positive / np.linalg.norm(positive), np.float64)


def _between(start: float | Colour, end: float | Colour, severity: float) -> float | Colour:
    if isinstance(start, tuple) and isinstance(end, tuple):
        red, green, blue = (
            (1 - severity) * a + severity * b for a, b in zip(start, end, strict=True)
        )
        return (red, green, blue)
    if isinstance(start, tuple) or isinstance(end, tuple):
        raise TypeError("a field is a colour at one site and a number at another")
    return (1 - severity) * start + severity * end
