"""The algebra of releases: multisets that are equal when written alike."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.events import MAX_COUNT, MAX_PARTS, Events, Gaussian, total

GAUSSIANS = st.builds(
    Gaussian,
    st.floats(0, 1e6, allow_subnormal=True),
    st.floats(0, 1, exclude_min=True, allow_subnormal=True),
)
PARTS = st.lists(st.tuples(GAUSSIANS, st.integers(1, 10**6)), max_size=8)
EVENTS = st.builds(Events, PARTS.map(tuple))


@given(EVENTS, EVENTS, EVENTS)
def test_addition_is_commutative_and_associative_with_nothing_as_zero(
    a: Events, b: Events, c: Events
) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == total([a, b, c])
    assert a + Events() == a
    assert hash(a + b) == hash(b + a)
    assert total([]) == Events()


@given(PARTS, st.randoms(use_true_random=False))
def test_order_is_no_matter_and_no_part_appears_twice(
    parts: list[tuple[Gaussian, int]], shuffler: object
) -> None:
    events = Events(tuple(parts))
    mixed = list(parts)
    shuffler.shuffle(mixed)  # type: ignore[attr-defined]
    assert Events(tuple(mixed)) == events
    assert len({event for event, _ in events.parts}) == len(events.parts)
    assert sum(n for _, n in events.parts) == sum(n for _, n in parts)


@given(EVENTS, st.integers(0, 20), st.integers(0, 20))
def test_times_adds_up(events: Events, m: int, n: int) -> None:
    assert events.times(m) + events.times(n) == events.times(m + n)
    assert events.times(m).times(n) == events.times(m * n)
    assert events.times(0) == Events()


@given(EVENTS)
def test_the_written_form_is_canonical_and_loses_nothing(events: Events) -> None:
    text = events.encode()
    assert Events.decode(text) == events
    assert Events.decode(text).encode() == text
    assert bool(events) == (text != "[]")


@given(EVENTS, st.integers(0, 200), st.characters(codec="ascii"))
def test_another_text_is_refused_or_means_something_else(
    events: Events, at: int, other: str
) -> None:
    text = events.encode()
    at %= len(text)
    changed = text[:at] + other + text[at + 1 :]
    try:
        found = Events.decode(changed)
    except PrivacyError:
        return
    assert (found == events) == (changed == text)
    assert found.encode() == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[[1.0,1.0]]",
        "[[1,1.0,1]]",
        "[[1.0,1.0,1.0]]",
        "[[1.0,1.0,0]]",
        "[[1.0,1.0,true]]",
        "[[1.0,0.0,1]]",
        "[[1.0,1.5,1]]",
        "[[-1.0,1.0,1]]",
        "[[NaN,1.0,1]]",
        "[[Infinity,1.0,1]]",
        "[[1e999,1.0,1]]",
        '[["1.0",1.0,1]]',
        " []",
        "[[1.0,1.0,1],[1.0,1.0,1]]",
        "[[2.0,1.0,1],[1.0,1.0,1]]",
        "[" * 100_000,
        f"[[1.0,1.0,{10**10}]]",
    ],
)
def test_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(PrivacyError):
        Events.decode(text)


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf])
def test_noise_out_of_range(noise: float) -> None:
    with pytest.raises(PrivacyError, match="noise multiplier"):
        Gaussian(noise)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_rate_out_of_range(rate: float) -> None:
    with pytest.raises(PrivacyError, match="sampling rate"):
        Gaussian(1.0, rate)


@pytest.mark.parametrize("count", [0, -1, True, 1.0, MAX_COUNT + 1])
def test_counts_out_of_range(count: int) -> None:
    with pytest.raises(PrivacyError, match="times"):
        Events(((Gaussian(1.0), count),))


def test_more_than_can_be_accounted_for() -> None:
    with pytest.raises(PrivacyError):
        Gaussian(1.0).times(MAX_COUNT) + Gaussian(1.0).times(1)
    many = tuple((Gaussian(1.0 + k), 1) for k in range(MAX_PARTS + 1))
    Events(many[1:])
    with pytest.raises(PrivacyError):
        Events(many)


def test_private_means_noise_in_every_release() -> None:
    assert Events().private
    assert Gaussian(1.0).times(3).private
    assert not (Gaussian(1.0).times(3) + Gaussian(0.0).times(1)).private


def test_equal_numbers_are_written_alike() -> None:
    assert Gaussian(-0.0) == Gaussian(0)
    assert Gaussian(-0.0, 1).times(1).encode() == Gaussian(0).times(1).encode() == "[[0.0,1.0,1]]"
