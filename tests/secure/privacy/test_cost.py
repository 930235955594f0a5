"""What is booked: the Gaussian's epsilon, and what whole numbers cost beside it (DP-2.5)."""

from __future__ import annotations

import math

import pytest

from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.cost import MAX_DIMENSION, cost
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.wide_gaussian import closeness

STEPS = Gaussian(2.7, 0.2).times(500)


def test_a_little_more_than_the_accountant_says() -> None:
    more = cost(STEPS, 1e-5) - epsilon(STEPS, 1e-5)
    least = 500 * closeness(MAX_DIMENSION)[0]
    assert least <= more < 1.2 * least + 1e-4 * cost(STEPS, 1e-5)
    assert more < 1e-3


def test_nothing_costs_nothing_and_no_noise_everything() -> None:
    assert cost(Events(), 1e-5) == 0
    assert cost(Gaussian(0.0).times(1), 1e-5) == math.inf


def test_the_more_the_dearer() -> None:
    figures = [cost(Gaussian(2.7, 0.2).times(count), 1e-5) for count in (1, 10, 100, 500)]
    assert figures == sorted(figures)
    assert cost(STEPS, 1e-6) > cost(STEPS, 1e-5)
    assert cost(STEPS, 1e-5) == pytest.approx(epsilon(STEPS, 1e-5), rel=1e-3)
