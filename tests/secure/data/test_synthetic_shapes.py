"""What the simulated patients are drawn with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbcs_secure.data.synthetic.shapes import (
    blur,
    draw_outline,
    draw_waves,
    make_plane,
    rescale,
)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    centre=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    axes=st.tuples(st.floats(3, 30), st.floats(3, 30)),
    tilt=st.floats(-0.5, 0.5),
)
def test_an_outline_lies_inside_its_window(
    seed: int, centre: tuple[float, float], axes: tuple[float, float], tilt: float
) -> None:
    plane = make_plane(100.0, 40, tilt=tilt, shift=(5.0, -3.0))
    outline = draw_outline(np.random.default_rng(seed), *centre, *axes, roughness=0.1)
    inside = outline.depth(plane.x, plane.y) > 0
    rest = inside.copy()
    rest[plane.window(outline.x, outline.y, outline.reach)] = False
    assert not rest.any()
    cover = outline.cover(plane.x, plane.y, 1.0)
    assert ((cover > 0.5) == inside).all()


def test_waves_have_unit_variance_and_one_value_at_every_size() -> None:
    rng = np.random.default_rng(5)
    waves = [draw_waves(rng, 100.0, (20.0, 8.0), 0.4) for _ in range(40)]
    assert np.std([w.on(48) for w in waves]) == pytest.approx(1, abs=0.05)
    assert np.allclose(waves[0].on(48), waves[0].on(144)[1::3, 1::3])


def test_blur_keeps_a_flat_image_and_spreads_a_point() -> None:
    flat = np.full((3, 20, 20), 0.3)
    assert np.allclose(blur(flat, 1.5), flat)
    point = np.zeros((21, 21))
    point[10, 10] = 1
    spread = blur(point, 1.5)
    rows = np.arange(21) - 10
    assert spread.sum() == pytest.approx(1)
    assert (spread.sum(1) * rows**2).sum() == pytest.approx(1.5**2, rel=0.05)
    assert blur(point, 0.0) is point


def test_rescale_spans_0_to_1_and_takes_a_flat_image() -> None:
    ramp = rescale(np.linspace(-3, 5, 30).reshape(5, 6))
    assert ramp.dtype == np.float32
    assert (ramp.min(), ramp.max()) == (0, 1)
    assert not rescale(np.full((4, 4), 7.0)).any()
