"""Unpacking against whole numbers, wherever a residue can stand (CK-2.1, CK-5.2, CK-5.3).

A site unpacks whatever a combiner made, so *every* number below q must be read for what it is:
digits and noise, or a refusal. Python's integers say what is right.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedbcs_protocols.ckks import ParameterSet
from fedbcs_protocols.ckks.packing import unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.errors import LocalError, SumOutOfRange

SETS: list[tuple[int, int, int]] = []
for fields in (1, 2, 3, 4):
    for bits in range(8, 25):
        for sites in (1, 2, 3, 4, 5, 8, 9, 16, 33, 64, 100, 128, 256, 511, 512, 1024):
            try:
                ParameterSet(sites, bits, fields)
            except LocalError:
                continue
            SETS.append((sites, bits, fields))
TIGHT = [(4, 11, 4), (8, 14, 3), (64, 10, 3), (4, 24, 2), (16, 21, 2), (64, 18, 2), (256, 15, 2)]
"""Those that leave less than a bit between the largest sum and q."""


def expected(residue: int, params: ParameterSet, added: int) -> tuple[list[int], int] | None:
    """Digits from the lowest on, and noise; None for what no sum is."""
    half = params.scale // 2
    # The last half step below q is noise below zero.
    number = residue - PRIME if residue >= PRIME - half else residue
    whole, over = divmod(number + half, params.scale)
    base, digits = 2**params.digit_bits, []
    for _ in range(params.fields - 1):
        whole, digit = divmod(whole, base)
        digits.append(digit)
    digits.append(whole)
    if max(digits) > added * (2**params.bits - 1):
        return None
    return digits, over - half


def got(residue: int, params: ParameterSet, added: int) -> tuple[list[int], int] | None:
    try:
        values, noise = unpack(np.full((2, DEGREE), residue, np.uint64), params, added)
    except SumOutOfRange:
        return None
    rows = values.reshape(2, params.fields, DEGREE)
    assert (rows == rows[:1, :, :1]).all()
    assert (noise == noise[0, 0]).all()
    return [int(value) for value in rows[0, :, 0]], int(noise[0, 0])


def around(params: ParameterSet) -> list[int]:
    """Residues at the borders of steps, of digits, of the largest sum, and of q."""
    step, half, digit = params.scale, params.scale // 2, params.digit_bits
    marks = [0, PRIME, step * params.largest, step * (params.largest + 1)]
    for field in range(params.fields):
        most = params.sites * ((1 << params.bits) - 1)
        for value in (1, (1 << params.bits) - 1, most, most + 1, 1 << digit):
            marks.append(step * (value << (digit * field)))
    nears = (-step, -half - 1, -half, -half + 1, -1, 0, 1, half - 1, half, half + 1, step)
    return sorted({mark + near for mark in marks for near in nears if 0 <= mark + near < PRIME})


@pytest.mark.parametrize(
    "chosen", [*SETS[:: len(SETS) // 30], *TIGHT], ids=lambda s: "-".join(map(str, s))
)
def test_every_border(chosen: tuple[int, int, int]) -> None:
    """CK-5.3: what is no sum is refused, and only that."""
    params = ParameterSet(*chosen)
    found = set()
    for residue in around(params):
        for added in {1, params.sites}:
            right = expected(residue, params, added)
            assert got(residue, params, added) == right, (residue, added)
            found.add(right is None)
    assert found == {True, False}


@given(st.sampled_from(SETS), st.data())
def test_any_residue(chosen: tuple[int, int, int], data: st.DataObject) -> None:
    params = ParameterSet(*chosen)
    added = data.draw(st.integers(1, params.sites))
    residue = data.draw(
        st.integers(0, PRIME - 1)
        | st.integers(0, params.scale * params.largest)
        | st.integers(PRIME - params.scale, PRIME - 1)
    )
    assert got(residue, params, added) == expected(residue, params, added)


def turns(chosen: tuple[int, int, int]) -> int:
    """How many whole rounds of all digits there are between zero and q."""
    params = ParameterSet(*chosen)
    return (PRIME - params.scale) // (params.scale << (params.digit_bits * params.fields))


@given(st.sampled_from([s for s in SETS if turns(s)]), st.integers(0, 2**60))
@example((4, 16, 2), 0)
def test_no_multiple_of_a_step_comes_back_round(chosen: tuple[int, int, int], drawn: int) -> None:
    """The last digit has no B to wrap at: nothing too large is read as something small."""
    params = ParameterSet(*chosen)
    rounds = 1 + drawn % turns(chosen)
    residue = params.scale * rounds << (params.digit_bits * params.fields)
    assert got(residue, params, params.sites) is None


@pytest.mark.parametrize("chosen", TIGHT, ids=lambda s: "-".join(map(str, s)))
def test_nothing_lies_between_the_largest_sum_and_zero(chosen: tuple[int, int, int]) -> None:
    """CK-1.4: the largest with the most noise, then refusals, then zero with the least."""
    params = ParameterSet(*chosen)
    half, most = params.scale // 2, params.scale * params.largest
    top = [params.sites * (2**params.bits - 1)] * params.fields
    assert got(most + half - 1, params, params.sites) == (top, half - 1)
    assert got(PRIME - half, params, params.sites) == ([0] * params.fields, -half)
    for residue in (most + half, PRIME - half - 1):
        assert most + half <= residue < PRIME - half
        assert got(residue, params, params.sites) is None
