"""Float arithmetic of unpacking against whole numbers, where it has the least room (CK-2.1).

Components go up to 2^52, and a quotient of one by B may be just below a whole number: the next one
up must not be taken for it. Python's integers say what is right.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedbcs_protocols.ckks import ParameterSet
from fedbcs_protocols.ckks.packing import pack, unpack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.errors import LocalError, SumOutOfRange

SETS: list[tuple[int, int, int]] = []
for fields in (2, 3, 4):
    for bits in range(8, 25):
        for sites in (3, 4, 5, 7, 8, 11, 20, 25, 33, 43, 64, 73, 100, 103, 257, 511, 533, 999):
            try:
                ParameterSet(sites, bits, fields)
            except LocalError:
                continue
            SETS.append((sites, bits, fields))
"""All with more than one digit, over several sizes of B that are no power of two."""


def digits_of(component: int, params: ParameterSet) -> list[int]:
    """By Python's integers: each nearest to zero, -B/2 ≤ d < B/2, and what is left."""
    out, half = [], params.base // 2
    for _ in range(params.fields - 1):
        digit = (component + half) % params.base - half
        out.append(digit)
        component = (component - digit) // params.base
    return [*out, component]


def expected(component: int, params: ParameterSet, added: int) -> list[int] | None:
    half, most = 1 << (params.bits - 1), added * ((1 << params.bits) - 1)
    values = [digit + added * half for digit in digits_of(component, params)]
    return values if min(values) >= 0 and max(values) <= most else None


def got(component: int, params: ParameterSet, added: int) -> list[int] | None:
    try:
        values, squares = unpack(np.full(DEGREE // 2, complex(component, component)), params, added)
    except SumOutOfRange:
        return None
    assert squares == 0
    rows = values.reshape(params.fields, DEGREE)
    assert (rows == rows[:, :1]).all()
    return [int(value) for value in rows[:, 0]]


def around(params: ParameterSet) -> list[int]:
    """Components whose quotients are at a border, small and large ones."""
    base, half = params.base, params.base // 2
    out = []
    for factor in (0, 1, 2, 3, half - 1, half, base - 1, base, base**2 // 2, 2**52 // base - 1):
        for near in (-half - 1, -half, -half + 1, -1, 0, 1, half - 2, half - 1, half, half + 1):
            out += [factor * base + near, -factor * base + near]
    out += [params.largest + near for near in (-1, 0, 1)]
    out += [-params.largest + near for near in (-1, 0, 1)]
    out += [sign * (2**52 - near) for sign in (1, -1) for near in (1, 2, 3, half, base)]
    return [component for component in out if abs(component) < 2**52]


@pytest.mark.parametrize(
    "chosen", SETS[:: max(1, len(SETS) // 40)], ids=lambda s: "-".join(map(str, s))
)
def test_every_border(chosen: tuple[int, int, int]) -> None:
    """CK-5.3 as well: what is no sum is refused, and only that."""
    params = ParameterSet(*chosen)
    found = set()
    for component in around(params):
        for added in (1, params.sites):
            right = expected(component, params, added)
            assert got(component, params, added) == right, (component, added)
            found.add(right is None)
    assert found == {True, False}


@given(st.sampled_from(SETS), st.data())
def test_any_component(chosen: tuple[int, int, int], data: st.DataObject) -> None:
    params = ParameterSet(*chosen)
    added = data.draw(st.integers(1, params.sites))
    component = data.draw(
        st.integers(-(2**52) + 1, 2**52 - 1) | st.integers(-params.largest, params.largest)
    )
    assert got(component, params, added) == expected(component, params, added)


@given(st.sampled_from(SETS), st.integers(-(2**20), 2**20), st.booleans())
@example((3, 8, 4), 0, True)
def test_the_digit_that_has_two_names(chosen: tuple[int, int, int], upper: int, low: bool) -> None:
    """-B/2 is a digit, and B/2 is not: it is -B/2 and one more in the next."""
    params = ParameterSet(*chosen)
    half = params.base // 2
    component = upper * params.base + (-half if low else half)
    if abs(component) >= 2**52 or params.fields > 2:
        component = -half if low else half
        upper = 0
    digits = digits_of(component, params)
    assert digits[0] == -half
    assert digits[1] == upper + (not low)
    # All sites at their least: the digit of a sum that stands at the border.
    least = np.zeros(params.capacity, np.uint32)
    total, _ = unpack(params.sites * pack(least, params), params, params.sites)
    assert not total.any()
    assert got(component, params, params.sites) == expected(component, params, params.sites)


@pytest.mark.parametrize("component", [2**52, -(2**52), 2**52 + 1, 2**53, -(2**60)])
def test_beyond_what_is_exact(component: int) -> None:
    assert got(component, ParameterSet(4, 16, 2), 4) is None


def test_what_is_refused_for_its_last_digit_only() -> None:
    """The last digit has no B to wrap at, so that nothing that is too large can come back round."""
    params = ParameterSet(4, 16, 2)
    for turns in (1, 2, 1 << 14, (2**52 - 1) // params.base**2):
        if abs(turns * params.base**2) < 2**52:
            assert got(turns * params.base**2, params, 4) is None
            assert got(-turns * params.base**2, params, 4) is None
