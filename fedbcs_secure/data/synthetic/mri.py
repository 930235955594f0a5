"""Pelvic T2 MRI with the prostate gland as label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.synthetic.anatomy import Anatomy, draw_anatomy, radius_at
from fedbcs_secure.data.synthetic.scanner import SITES, Scanner, acquire, scanner
from fedbcs_secure.data.synthetic.shapes import (
    Field,
    Outline,
    Plane,
    make_plane,
    random_field,
)

_CODE = 0
_Z_LIMIT = 0.82
_MIDDLE = 0.62  # signal half-way between the two zones


def draw_mri(
    site: str, index: int, *, slices: int, size_px: int, severity: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8], float]:
    """Images (S, H, W) float32 in [0, 1], gland masks (S, H, W) uint8, and the pixel size in mm.

    Slices lie evenly between z = −0.82 (base) and 0.82 (apex); one slice is mid-gland.
    """
    key = [seed, _CODE, SITES.index(site), index]
    device = scanner(site, severity)
    man = draw_anatomy(np.random.default_rng(key), device, size_px)
    bias_draws = np.random.default_rng([*key, 0]).standard_normal(5)
    plane = make_plane(
        device.field_of_view_mm, size_px, tilt=man.tilt, shift=man.shift, warp=man.warp
    )
    heights = np.linspace(-_Z_LIMIT, _Z_LIMIT, slices) if slices > 1 else np.zeros(1)
    images = np.empty((slices, size_px, size_px), np.float32)
    masks = np.empty((slices, size_px, size_px), np.uint8)
    coil = (man.rectum.x, man.rectum.y)
    for i, z in enumerate(heights.tolist()):
        rng = np.random.default_rng([*key, 1 + i])
        canvas = _Canvas.blank(rng, plane, device)
        _paint_surroundings(canvas, man, z)
        gland = man.gland.at(z).scaled(radius_at(z))
        _paint_gland(canvas, man, gland, z)
        images[i] = acquire(canvas.signal, plane, device, coil, bias_draws, rng)
        masks[i] = _mask(plane, gland)
    return images, masks, plane.pixel


def _mask(plane: Plane, gland: Outline) -> NDArray[np.uint8]:
    depth = gland.depth(plane.x, plane.y)
    # On a very coarse grid the apex may lie between pixel centres: keep the nearest one.
    return (depth > min(0.0, float(depth.max()) - 1e-9)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Canvas:
    """A (size, size) slice of relative signal being painted, and its two textures."""

    plane: Plane
    signal: Field
    coarse: Field
    fine: Field
    tissues: dict[str, float]
    zone_contrast: float

    @classmethod
    def blank(cls, rng: np.random.Generator, plane: Plane, device: Scanner) -> _Canvas:
        extent, size = plane.extent, plane.size
        coarse = random_field(rng, extent, size, 22.0)
        fine = random_field(rng, extent, size, 7.0)
        return cls(
            plane, np.zeros((size, size)), coarse, fine, _tissues(device), device.zone_contrast
        )

    def paint(
        self,
        outline: Outline,
        value: float,
        *,
        soft: float = 0.8,
        coarse: float = 0.0,
        fine: float = 0.05,
        strength: float = 1.0,
    ) -> None:
        """Lay ``value``, with relative texture, over what is inside ``outline``."""
        window = self.plane.window(outline.x, outline.y, outline.reach + soft)
        x, y = self.plane.x[window], self.plane.y[window]
        if x.size == 0:
            return
        cover = strength * outline.cover(x, y, max(soft, 0.5 * self.plane.pixel))
        grain = 1 + coarse * self.coarse[window] + fine * self.fine[window]
        self.signal[window] += cover * (value * grain - self.signal[window])

    def strands(self, outline: Outline, amount: float) -> None:
        """Darken thin curved lines, up to ``amount``: septa in fat."""
        line = np.exp(-((self.coarse / 0.13) ** 2))
        cover = outline.cover(self.plane.x, self.plane.y, 2.0)
        self.signal[:] = self.signal * (1 - amount * cover * line)

    def tissue(self, outline: Outline, name: str, **options: float) -> None:
        self.paint(outline, self.tissues[name], **options)


def _tissues(device: Scanner) -> dict[str, float]:
    """T2 signal of each tissue; fat-containing ones follow the scanner's fat."""
    return {
        "skin": 0.30,
        "fat": device.fat,
        "marrow": 0.10 + 0.55 * device.fat,
        "head": 0.10 + 0.72 * device.fat,
        "bone": 0.08 + 0.40 * device.fat,
        "muscle": device.muscle,
        "joint": 0.7 * device.muscle + 0.10,
        "cortex": 0.05,
        "vessel": 0.06,
        "vein": 0.55,
        "wall": device.muscle + 0.13,
        "mucosa": device.muscle + 0.38,
        "gas": 0.03,
        "content": 0.36,
        "urine": 1.0,
        "capsule": 0.22,
        "fluid": 0.88,
    }


def _paint_surroundings(canvas: _Canvas, man: Anatomy, z: float) -> None:
    body = man.body.at(z)
    canvas.tissue(body, "skin")
    canvas.tissue(body.grown(-2.0), "fat", coarse=0.05, fine=0.07)
    # Fascia and the fat between the organs.
    inside = body.grown(-man.fat_mm)
    canvas.paint(inside, 0.80 * canvas.tissues["fat"], soft=1.5, coarse=0.07, fine=0.09)
    canvas.strands(inside, 0.30)
    gland_scale = radius_at(z)
    for organ, outline in man.organs:
        height = 1 - ((z - organ.middle) / organ.half) ** 2
        if height <= 0.05:
            continue
        shape = outline.at(z).scaled(math.sqrt(height))
        inwards = organ.follow * man.gland.a * (1 - gland_scale)
        shape = shape.moved(shape.x - math.copysign(inwards, shape.x), shape.y)
        if organ.rim:
            canvas.tissue(shape.grown(organ.rim), organ.rim_tissue)
        coarse, fine = (0.12, 0.16) if organ.tissue == "muscle" else (0.06, 0.08)
        canvas.tissue(shape, organ.tissue, coarse=coarse, fine=fine)
    _paint_bladder(canvas, man, z)
    for tube in man.plexus:
        side = math.copysign(man.gland.a * (1 - gland_scale), tube.x)
        canvas.tissue(tube.moved(tube.x - side, tube.y), "fluid", soft=1.2, strength=0.6)
    rectum = man.rectum.at(z).moved(
        man.rectum.x, man.rectum.y - 0.7 * man.gland.b * (1 - gland_scale)
    )
    canvas.tissue(rectum, "wall")
    canvas.tissue(rectum.grown(-2.4), "mucosa", fine=0.15)
    filling = "gas" if man.gas else "content"
    canvas.tissue(rectum.grown(-4.0), filling, coarse=0.25, fine=0.35)
    if z < -0.45:
        for tube in man.vesicles:
            canvas.tissue(tube.grown(0.8), "wall")
            canvas.tissue(tube, "fluid")


def _paint_bladder(canvas: _Canvas, man: Anatomy, z: float) -> None:
    """The bladder sits on the gland's base: wide at z = −1, gone below z = −0.1."""
    height = 1 - ((z + 1.3) / 1.2) ** 2
    if height <= 0.03:
        return
    bladder = man.bladder.at(z).scaled(math.sqrt(height))
    canvas.tissue(bladder.grown(2.6), "wall", fine=0.08)
    canvas.tissue(bladder, "urine", fine=0.01)


def _paint_gland(canvas: _Canvas, man: Anatomy, gland: Outline, z: float) -> None:
    half = canvas.zone_contrast / 2
    peripheral, central = _MIDDLE + half, _MIDDLE - half
    canvas.tissue(gland.grown(0.6), "capsule")
    canvas.paint(gland.grown(-1.0), peripheral, coarse=0.06, fine=0.08)

    # Base: nearly all central gland. Apex: nearly all peripheral zone.
    share = radius_at(z) * (1.22 - 0.26 * (z + 1))
    core = man.central.at(z).scaled(share)
    core = core.moved(core.x, core.y * radius_at(z) * (1.0 + 0.15 * z))
    canvas.paint(core.grown(0.9), 0.55 * central, soft=1.0)
    canvas.paint(core, central, soft=1.0, coarse=0.14, fine=0.22)
    for nodule in man.nodules:
        rest = nodule.radius**2 - (0.5 * (nodule.z - z)) ** 2
        inside = math.hypot(nodule.x, nodule.y) < 0.85
        if rest <= 0 or not inside:
            continue
        radius = math.sqrt(rest) * 0.5 * (core.a + core.b)
        value = central * (1 + nodule.brightness)
        ball = core.moved(core.x + nodule.x * core.a, core.y + nodule.y * core.b)
        ball = ball.scaled(radius / (0.5 * (core.a + core.b)))
        canvas.paint(ball.grown(0.7), 0.55 * central, strength=0.7)
        canvas.paint(ball.grown(-0.3), value, fine=0.20)
    # Anterior fibromuscular stroma, urethra.
    front = core.moved(core.x, gland.y - 0.80 * gland.b).scaled(0.55)
    canvas.paint(front, canvas.tissues["muscle"] + 0.08, soft=2.0, strength=0.75, fine=0.1)
    tube = core.moved(core.x, core.y + 0.25 * core.b)
    tube = tube.scaled(2.6 / max(core.a, core.b))
    canvas.paint(tube.grown(1.0), 0.6 * central, strength=0.8)
    canvas.paint(tube, _MIDDLE + 0.2, strength=0.8)
