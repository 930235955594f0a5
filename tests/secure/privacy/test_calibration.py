"""From a target epsilon to noise, and the reasons why not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.calibration import MAX_NOISE, MIN_NOISE, noise_multiplier, rounded_up
from fedbcs_secure.privacy.events import Events, Gaussian


def training(noise: float) -> Events:
    return Gaussian(noise, 0.2).times(500)


@pytest.mark.parametrize(("target", "expected"), [(1, 15.7), (4, 4.7), (8, 2.7)])
def test_numbers_measured_before_this_was_written(target: float, expected: float) -> None:
    """By other code, given with two digits: 30 patients, delta 3.3e-5."""
    assert noise_multiplier(target, 3.3e-5, training) == pytest.approx(expected, rel=0.015)


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.05, 50),
    st.sampled_from((0.02, 0.2, 0.7, 1.0)),
    st.integers(1, 400),
    st.sampled_from((1e-8, 1e-5, 1e-3)),
)
def test_there_and_back(target: float, q: float, count: int, delta: float) -> None:
    """The target is kept, and with 2e-4 less noise it is not."""

    def make(noise: float) -> Events:
        return Gaussian(noise, q).times(count)

    found = noise_multiplier(target, delta, make)
    assert epsilon(make(found), delta) <= target
    if found > MIN_NOISE:
        assert epsilon(make(found * (1 - 2e-4)), delta) > target


def test_what_is_given_counts() -> None:
    given_parts = {"prototype releases": Gaussian(16).times(50), "counts": Gaussian(20).times(10)}
    found = noise_multiplier(8, 3.3e-5, training, given_parts)
    rest = Gaussian(16).times(50) + Gaussian(20).times(10)
    assert epsilon(training(found) + rest, 3.3e-5) <= 8
    assert epsilon(training(found * (1 - 2e-4)) + rest, 3.3e-5) > 8
    assert found > noise_multiplier(8, 3.3e-5, training)


def test_few_calls_suffice() -> None:
    calls = []

    def make(noise: float) -> Events:
        calls.append(noise)
        return training(noise)

    noise_multiplier(4, 1e-5, make)
    assert len(calls) <= 20


def test_prototypes_alone_are_too_much() -> None:
    with pytest.raises(PrivacyError) as raised:
        noise_multiplier(8, 3.3e-5, training, {"prototype releases": Gaussian(4).times(50)})
    assert str(raised.value) == (
        "prototype releases alone cost epsilon 8.097 at delta 3.3e-05; the target is 8: give "
        "prototype releases more noise, make fewer of them, or raise the target"
    )


def test_two_parts_are_too_much_together() -> None:
    parts = {"prototype releases": Gaussian(5).times(50), "counts": Gaussian(5).times(50)}
    with pytest.raises(PrivacyError, match="prototype releases and counts together cost epsilon 9"):
        noise_multiplier(8, 3.3e-5, training, parts)


def test_no_noise_is_enough() -> None:
    with pytest.raises(PrivacyError, match="even a noise multiplier of 10000 costs epsilon 17"):
        noise_multiplier(1, 1e-5, lambda noise: Gaussian(noise).times(10**9))
    with pytest.raises(PrivacyError, match="infinite"):
        noise_multiplier(1, 1e-5, lambda noise: Gaussian(noise).times(1) + Gaussian(0).times(1))


def test_parts_that_leave_next_to_nothing() -> None:
    cost = epsilon(Gaussian(4).times(10), 1e-5)
    with pytest.raises(PrivacyError, match=r"10000 costs epsilon .*; prototypes are .* of it"):
        noise_multiplier(
            math.nextafter(cost, 99), 1e-5, lambda noise: Gaussian(noise).times(10**6),
            {"prototypes": Gaussian(4).times(10)},
        )  # fmt: skip


def test_the_least_noise_is_not_less_than_its_bound() -> None:
    assert noise_multiplier(200, 0.1, lambda noise: Gaussian(noise, 1e-3).times(1)) == MIN_NOISE
    assert MAX_NOISE == 1e4


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf, 1e-4, 201.0])
def test_targets_out_of_range(target: float) -> None:
    with pytest.raises(PrivacyError, match="target epsilon is from"):
        noise_multiplier(target, 1e-5, training)


def test_delta_out_of_range() -> None:
    with pytest.raises(PrivacyError, match="delta is from"):
        noise_multiplier(1, 0, training)


@pytest.mark.parametrize(
    ("noise", "shown"),
    [
        (2.11631, 2.117),
        (1.3158, 1.316),
        (15.52, 15.52),
        (0.89891, 0.899),
        (0.05, 0.05),
        (123.41, 123.5),
    ],
)
def test_noise_for_people_is_rounded_up(noise: float, shown: float) -> None:
    """DP-1.7: what is read and typed in again keeps the target."""
    assert rounded_up(noise) == pytest.approx(shown, rel=1e-12)
    assert rounded_up(noise) >= noise * (1 - 1e-12)
