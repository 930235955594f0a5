"""H&E patches with the nuclei as label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.synthetic.scanner import SITES
from fedbcs_secure.data.synthetic.shapes import (
    Field,
    Outline,
    Plane,
    draw_outline,
    draw_waves,
    make_plane,
    random_field,
)
from fedbcs_secure.data.synthetic.stain import (
    FIELD_UM,
    STYLE_DRAWS,
    Laboratory,
    develop,
    laboratory,
)

_CODE = 1
_EDGE_UM = 0.45
_TRIES = 12
_PLACING_PX = 64


def draw_histology(
    site: str, index: int, *, patches: int, size_px: int, severity: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Images (S, 3, H, W) float32 in [0, 1] and nuclei masks (S, H, W) uint8 of one patient."""
    key = [seed, _CODE, SITES.index(site), index]
    lab = laboratory(site, severity)
    tissue = _draw_tissue(np.random.default_rng(key), lab)
    style_draws = np.random.default_rng([*key, 0]).standard_normal(STYLE_DRAWS)
    plane = make_plane(FIELD_UM, size_px)
    images = np.empty((patches, 3, size_px, size_px), np.float32)
    masks = np.empty((patches, size_px, size_px), np.uint8)
    for i in range(patches):
        rng = np.random.default_rng([*key, 1 + i])
        haematoxylin, eosin, masks[i] = _paint_patch(rng, plane, tissue, lab)
        images[i] = develop(haematoxylin, eosin, lab, style_draws, rng)
    return images, masks


@dataclass(frozen=True)
class _Tissue:
    """What all patches of a patient share. Lengths in µm."""

    radius: float
    variation: float
    count: float
    elongation: float
    fibre_angle: float
    fibrous: float
    gap: float


@dataclass(frozen=True, eq=False)
class _Nucleus:
    outline: Outline
    body: Outline
    density: float
    rank: float
    """Uniform in [0, 1]: vesicular where below the laboratory's share."""
    nucleolus: tuple[float, float]


def _draw_tissue(rng: np.random.Generator, lab: Laboratory) -> _Tissue:
    unit = rng.uniform(-1, 1, 7)
    return _Tissue(
        radius=lab.nucleus_um * (1 + 0.10 * float(unit[0])),
        variation=0.14 + 0.06 * float(unit[1]),
        count=lab.nuclei * (1 + 0.20 * float(unit[2])),
        elongation=1.25 + 0.15 * float(unit[3]),
        fibre_angle=math.pi * float(unit[4]),
        fibrous=0.35 + 0.20 * float(unit[5]),
        gap=1.35 + 0.25 * float(unit[6]),
    )


def _paint_patch(
    rng: np.random.Generator, plane: Plane, tissue: _Tissue, lab: Laboratory
) -> tuple[Field, Field, NDArray[np.uint8]]:
    size = plane.size
    turn = tissue.fibre_angle + 0.3 * float(np.clip(rng.standard_normal(), -2, 2))
    fibre_waves = draw_waves(rng, FIELD_UM, (28.0, 3.2), turn)
    cloud_waves = draw_waves(rng, FIELD_UM, 30.0)
    fibres, clouds = fibre_waves.on(size), cloud_waves.on(size)
    wisps = random_field(rng, FIELD_UM, size, (14.0, 2.4), turn + 0.25)
    grain = random_field(rng, FIELD_UM, size, 2.2)
    # White gaps: lumina and cracks, where clouds and fibres are both thin.
    void = _void(clouds, fibres, tissue)
    stroma = _step(clouds * -1 + 0.4 * fibres - 0.45, 0.5)
    fibrous = np.clip(tissue.fibrous + 0.6 * stroma, 0, 1)
    bundles = 0.42 + 0.20 * fibres + 0.12 * wisps
    matrix = 0.34 + 0.05 * grain + 0.05 * clouds
    eosin = np.clip(fibrous * bundles + (1 - fibrous) * matrix, 0.04, None)
    haematoxylin = np.clip(0.07 + 0.02 * grain + 0.02 * clouds, 0, None)

    # On a grid of its own, so that the same nuclei are accepted at every size.
    closed = _void(cloud_waves.on(_PLACING_PX), fibre_waves.on(_PLACING_PX), tissue) > 0.5
    nuclei = _place_nuclei(rng, tissue, turn, closed)
    for nucleus in nuclei:
        window, cover = _cover(plane, nucleus.body, 1.4)
        level = 0.62 + 0.07 * grain[window] + 0.06 * nucleus.density
        eosin[window] += 0.75 * cover * (level - eosin[window])
        haematoxylin[window] += 0.7 * cover * (0.15 - haematoxylin[window])
    open_void = void.copy()
    for nucleus in nuclei:
        window, cover = _cover(plane, nucleus.body.grown(0.8), 1.0)
        open_void[window] *= 1 - cover
    eosin *= 1 - open_void
    haematoxylin *= 1 - open_void

    mask = np.zeros((size, size), np.uint8)
    for nucleus in nuclei:
        _paint_nucleus(plane, nucleus, lab, grain, eosin, haematoxylin, mask)
    return haematoxylin, eosin, mask


def _paint_nucleus(
    plane: Plane,
    nucleus: _Nucleus,
    lab: Laboratory,
    grain: Field,
    eosin: Field,
    haematoxylin: Field,
    mask: NDArray[np.uint8],
) -> None:
    window = plane.window(nucleus.outline.x, nucleus.outline.y, nucleus.outline.reach + _EDGE_UM)
    x, y = plane.x[window], plane.y[window]
    depth = nucleus.outline.depth(x, y)
    soft = max(_EDGE_UM, 0.5 * plane.pixel)
    cover = _step(depth, 2 * soft)
    mask[window] |= (depth > 0).astype(np.uint8)
    texture = 1 + lab.chromatin * np.clip(grain[window], -1.5, 1.5)
    if nucleus.rank < lab.vesicular:
        rim = np.exp(-(((depth - 0.5) / 0.75) ** 2))
        spot = np.hypot(x - nucleus.nucleolus[0], y - nucleus.nucleolus[1])
        body = 0.42 * texture + 0.50 * rim + 0.55 * np.exp(-((spot / 0.9) ** 2))
    else:
        body = (0.92 + 0.10 * np.exp(-(((depth - 0.4) / 0.7) ** 2))) * texture
    value = np.clip(body * (1 + 0.16 * nucleus.density), 0.15, 1.6)
    haematoxylin[window] += cover * (value - haematoxylin[window])
    eosin[window] *= 1 - 0.55 * cover


def _place_nuclei(
    rng: np.random.Generator, tissue: _Tissue, turn: float, closed: NDArray[np.bool_]
) -> list[_Nucleus]:
    """Rejection sampling: a nucleus that would overlap another, or lie in a gap, is drawn anew.

    ``closed`` is (64, 64), true where there is no tissue.
    """
    margin = 3.0
    side = FIELD_UM + 2 * margin
    wanted = int(rng.poisson(tissue.count * (side / FIELD_UM) ** 2))
    tries = rng.uniform(size=(wanted * _TRIES, 8))
    placed: list[_Nucleus] = []
    spots: list[tuple[float, float, float]] = []
    for draw in tries.tolist():
        if len(placed) == wanted:
            break
        x, y = side * (draw[0] - 0.5), side * (draw[1] - 0.5)
        row, column = (
            min(max(int((value / FIELD_UM + 0.5) * _PLACING_PX), 0), _PLACING_PX - 1)
            for value in (y, x)
        )
        if closed[row, column]:
            continue
        spindle = draw[2] < 0.22
        stretch = 2.1 if spindle else tissue.elongation * (0.85 + 0.3 * draw[3])
        radius = tissue.radius * (1 + tissue.variation * (3 * draw[4] - 1.5))
        radius *= 0.85 if spindle else 1.0
        a, b = radius * math.sqrt(stretch), radius / math.sqrt(stretch)
        bound = 0.92 * (0.65 * a + 0.35 * b)
        if any(math.hypot(x - p, y - q) < bound + r for p, q, r in spots):
            continue
        angle = turn + (0.3 * (draw[5] - 0.5) if spindle else math.pi * draw[5])
        spots.append((x, y, bound))
        placed.append(_nucleus(rng, (x, y), (a, b), angle, 2 * draw[6] - 1, draw[7]))
    return placed


def _nucleus(
    rng: np.random.Generator,
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    density: float,
    rank: float,
) -> _Nucleus:
    outline = draw_outline(rng, *centre, *axes, angle=angle, roughness=0.11)
    dx, dy, nx, ny = rng.uniform(-1, 1, 4).tolist()
    body = draw_outline(
        rng,
        centre[0] + 1.4 * dx,
        centre[1] + 1.4 * dy,
        1.25 * axes[0] + 1.6,
        1.25 * axes[1] + 2.0,
        angle=angle,
        roughness=0.22,
    )
    inner = 0.4 * axes[1]
    return _Nucleus(
        outline,
        body,
        density,
        rank,
        (centre[0] + inner * nx, centre[1] + inner * ny),
    )


def _cover(plane: Plane, outline: Outline, soft: float) -> tuple[tuple[slice, slice], Field]:
    window = plane.window(outline.x, outline.y, outline.reach + soft)
    return window, outline.cover(plane.x[window], plane.y[window], soft)


def _void(clouds: Field, fibres: Field, tissue: _Tissue) -> Field:
    return _step(clouds + 0.35 * fibres - tissue.gap, 0.12)


def _step(value: Field, width: float) -> Field:
    """A smooth step from 0 to 1 around value 0, over about ``width``."""
    t = np.clip(0.5 + value / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float64)
