"""Prototypes under differential privacy: what one patient can move, and what noise is added."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.learning.private_prototypes import GRID, PrototypeMechanism
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.randomness import SecretStream

SLOTS = ((0, 0), (0, 1), (1, 0), (1, 1))


def mechanism(**changes: Any) -> PrototypeMechanism:
    values: dict[str, Any] = {
        "slots": SLOTS, "width": 12, "clip": 1.0, "presence": 0.0, "noise_multiplier": 4.0,
    }  # fmt: skip
    return PrototypeMechanism(**(values | changes))


def square(integers: np.ndarray) -> int:
    return sum(int(value) ** 2 for value in integers)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_one_patient_is_never_longer_than_the_sensitivity(data: st.DataObject) -> None:
    """DP-4.1, DP-4.2, in whole numbers; adding or removing is what a contribution is."""
    release = mechanism(
        presence=data.draw(st.sampled_from([0.0, 0.1, 0.5, 3.0])),
        clip=data.draw(st.sampled_from([0.01, 1.0, 300.0])),
        width=data.draw(st.sampled_from([1, 12, 768])),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size = data.draw(st.sampled_from([1e-20, 0.1, 1.0, 1e5, 1e200]))
    means = size * rng.standard_normal((4, release.width))
    present = rng.random(4) < 0.7
    integers = release.contribution(means, present)
    assert integers.shape == (release.size,)
    assert square(integers) <= release.sensitivity_squared
    rows = integers.reshape(4, -1)
    assert square(rows[:, : release.width].reshape(-1)) <= GRID**2
    assert not rows[~present].any()
    if release.presence and present.all() and size >= 1e5:
        assert square(integers) > 0.99 * release.sensitivity_squared


def test_the_sensitivity_is_that_of_the_page() -> None:
    """DP-4.2: C·√(1 + λ²), the block of presence never above λC."""
    release = mechanism(presence=0.5)
    assert release.presence_units == math.floor(0.5 * GRID / 2)
    assert release.sensitivity_squared <= GRID**2 * 1.25
    assert release.sensitivity_squared == pytest.approx(GRID**2 * 1.25, rel=1e-4)
    assert mechanism().sensitivity_squared == GRID**2


def test_rounding_the_mean_would_break_the_bound() -> None:
    """DP-4.1: toward zero. To the nearest, a vector of many small parts grows."""
    release = mechanism(width=100_000, clip=1.0)
    value = 1.0 / math.sqrt(4 * release.width)
    means = np.full((4, release.width), value)
    assert square(release.contribution(means, np.ones(4, np.bool_))) <= GRID**2
    scaled = means * GRID
    assert scaled[0, 0] % 1 > 0.5
    assert np.square(np.rint(scaled)).sum() > GRID**2


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308])
def test_means_that_are_not_finite_are_absent(bad: float) -> None:
    """DP-4.3"""
    release, means = mechanism(presence=0.5), np.ones((4, 12))
    means[2, 3] = bad
    integers = release.contribution(means, np.ones(4, np.bool_))
    assert square(integers) <= release.sensitivity_squared
    assert np.isfinite(integers).all()
    if not np.isfinite(bad):
        assert not integers.reshape(4, 13)[2].any()
        assert integers.reshape(4, 13)[[0, 1, 3], 12].all()


def test_sums_are_read_back() -> None:
    release = mechanism(presence=0.5, clip=2.0)
    rng = np.random.default_rng(1)
    cohort = [rng.standard_normal((4, 12)) * 0.1 for _ in range(9)]
    present = rng.random((9, 4)) < 0.5
    total = sum(release.contribution(m, p) for m, p in zip(cohort, present, strict=True))
    assert isinstance(total, np.ndarray)
    values = release.values(total)
    expected = sum(m * p[:, None] for m, p in zip(cohort, present, strict=True))
    assert np.allclose(values[:, :12], expected, atol=9 * 2.0 / GRID)
    assert np.allclose(values[:, 12], present.sum(axis=0))


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_noise_has_the_variance_that_is_said(parts: int) -> None:
    """DP-4.2, DP-4.5; a 5 % error in scale would be seen. False alarm 10^-6."""
    release = mechanism(width=5_000, presence=0.5, noise_multiplier=1.5, parts=parts)
    expected = Fraction(9, 4) * release.sensitivity_squared / parts
    assert release.variance == expected
    noise = release.noisy(np.zeros(release.size, np.int64), SecretStream.fresh())
    measured = np.square(noise.astype(np.float64)).mean() / float(expected)
    room = 4.9 * math.sqrt(2 / release.size)
    assert abs(measured - 1) < room < 1.05**2 - 1
    # All shares together are the noise that was asked for; alone, a site has its own.
    assert release.events == Gaussian(1.5 / math.sqrt(parts)).times(1)


def test_noise_is_added_to_the_sum_and_is_fresh() -> None:
    release = mechanism()
    total = np.arange(release.size)
    same = [release.noisy(total, SecretStream.for_tests(1)) for _ in range(2)]
    assert np.array_equal(*same)
    zero = release.noisy(np.zeros_like(total), SecretStream.for_tests(1))
    assert np.array_equal(same[0] - zero, total)
    assert not np.array_equal(
        release.noisy(total, SecretStream.fresh()), release.noisy(total, SecretStream.fresh())
    )


@pytest.mark.parametrize(
    "changes",
    [{"slots": ()}, {"parts": 0}, {"noise_multiplier": 0.0}, {"presence": 1e-9}],
    ids=str,
)
def test_what_is_no_release(changes: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError):
        mechanism(**changes)
