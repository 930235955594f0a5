"""The fuzzing targets on a fixed corpus: each seed, and what systematic damage makes of it.

``fuzz.py`` looks further, as long as it is given; these inputs run with every test.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import harness
import pytest
from harness import Target
from one_each import ONE_EACH
from sessions import SESSIONS
from targets import TARGETS

MICRO_INPUTS, SESSION_INPUTS = 5000, 300
SLACK_BYTES = 64 << 10
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)

FOUND = {
    # A key list without enough of the holders that the site drew.
    "site_sparse": (b"\0\x60\0\x82\x82",),
}
"""Inputs that were findings once."""


def damaged(seed: bytes) -> Iterator[bytes]:
    """Every bit of ``seed`` flipped, every cut, added bytes, every number at an extreme."""
    yield from (seed[:end] for end in range(len(seed)))
    yield from (seed[start:] for start in range(1, len(seed) + 1))
    yield from (seed + bytes([value]) * count for value in (0, 0xFF) for count in (1, 2, 31, 4096))
    for position in range(len(seed)):
        for bit in range(8):
            yield b"".join(
                (seed[:position], bytes([seed[position] ^ 1 << bit]), seed[position + 1 :])
            )
        yield seed[:position] + seed[position + 1 :]
        yield seed[:position] + b"\0" + seed[position:]
        for width in (1, 2, 4):
            for value in EXTREMES:
                yield seed[:position] + bytes([value]) * width + seed[position + width :]


def corpus(target: Target, most: int) -> list[bytes]:
    """The seeds of a target, former findings, and up to ``most`` of their damaged forms, spread."""
    first = [*target.seeds, *FOUND.get(target.name, ())]
    rest = list(dict.fromkeys(bad for seed in target.seeds for bad in damaged(seed)))
    # A step that shares no factor with 2, 5 and 8, so that every kind of damage is among them.
    step = max(1, len(rest) // most) | 1
    return first + rest[:: step + (2 if step % 5 == 0 else 0)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_named_errors_and_one_form(target: Target) -> None:
    for data in corpus(target, MICRO_INPUTS if target.every == 1 else SESSION_INPUTS):
        harness.check(target, data)


@pytest.mark.parametrize("target", ONE_EACH, ids=lambda target: target.name)
def test_genuine_input_is_taken(target: Target) -> None:
    """Else the test above would say nothing."""
    for seed in target.seeds:
        assert harness.check(target, seed)


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if t.bounded], ids=lambda target: target.name
)
def test_no_input_makes_a_decoder_allocate_much(target: Target) -> None:
    """At most four times the input and 64 KiB, whatever lengths and counts it claims."""
    inputs = corpus(target, MICRO_INPUTS // 10)
    for data in inputs:
        harness.check(target, data)
    tracemalloc.start()
    try:
        for data in inputs:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            harness.check(target, data)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before <= 4 * len(data) + SLACK_BYTES, data[:64].hex()
    finally:
        tracemalloc.stop()


def test_a_target_lets_nothing_else_through() -> None:
    """The targets can fail."""

    def careless(data: bytes) -> None:
        data[3]

    def forgiving(data: bytes) -> None:
        harness.same(data.rstrip(b"\0"), data)

    for run, error in ((careless, IndexError), (forgiving, harness.Finding)):
        with pytest.raises(error):
            harness.check(harness.Target("careless", run, (), ()), b"\0\0")


def test_every_target_is_chosen_by_some_byte() -> None:
    choice = harness.chooser(TARGETS)
    assert len(choice) == 256
    assert {target.name for target in choice} == {target.name for target in TARGETS}
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    for target in SESSIONS:
        assert target.instead in {other.name for other in ONE_EACH}
