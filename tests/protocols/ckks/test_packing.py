"""Integers in slots, and back (CK-2.1, CK-5.3), without any encryption."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from second_ckks import Parameters, packed, unpacked

from fedbcs_protocols.ckks import ParameterSet, parameter_set
from fedbcs_protocols.ckks.packing import check_noise, pack, unpack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.errors import BadNoise, LocalError, SumOutOfRange

SETS = [(3, 8), (11, 8), (103, 8), (10, 12), (533, 12), (4, 16), (73, 16), (43, 17), (8, 20)]
SETS += [(1024, 16), (1024, 22), (256, 24)]
PARAMS = pytest.mark.parametrize(
    "params", [parameter_set(*s) for s in SETS], ids=lambda p: f"{p.sites}-{p.bits}-{p.fields}"
)
FOUR = parameter_set(4, 16)


def drawn(params: ParameterSet, seed: int = 0) -> NDArray[np.uint32]:
    random = np.random.default_rng(seed)
    return random.integers(0, 1 << params.bits, params.capacity, dtype=np.uint32)


@PARAMS
def test_components_are_those_of_the_page(params: ParameterSet) -> None:
    """CK-2.1, by the second implementation, to the last bit."""
    values = drawn(params)
    expected = packed(values.tolist(), Parameters(params.sites, params.bits))
    assert pack(values, params).view(np.float64).tolist() == expected


@PARAMS
@pytest.mark.parametrize("kind", ["random", "all", "none"])
def test_sums_come_back(params: ParameterSet, kind: str) -> None:
    """CK-2.1: whole sums over some and over all sites, by weights that stand for vectors."""
    top = (1 << params.bits) - 1
    for added in (1, 2, params.sites):
        one, other = drawn(params, 1), drawn(params, 2)
        if kind != "random":
            one = other = np.full(params.capacity, top if kind == "all" else 0, np.uint32)
        slots = (added - 1) * pack(one, params) + pack(other, params)
        total, squares = unpack(slots, params, added)
        assert squares == 0
        assert (total == (added - 1) * one.astype(np.uint64) + other).all()
        whole = [int(component) for component in slots.view(np.float64)]
        assert total.tolist() == unpacked(whole, Parameters(params.sites, params.bits), added)


@given(st.data())
def test_any_digits(data: st.DataObject) -> None:
    """Every digit of a sum, next to every other."""
    params = parameter_set(*data.draw(st.sampled_from(SETS)))
    added = data.draw(st.integers(1, params.sites))
    top = (1 << params.bits) - 1
    digit = st.integers(0, added * top) | st.sampled_from([0, added * top])
    digits = data.draw(st.lists(digit, min_size=params.fields, max_size=params.fields))
    component = sum(
        (d - added * 2 ** (params.bits - 1)) * params.base**i for i, d in enumerate(digits)
    )
    total, _ = unpack(np.full(DEGREE // 2, complex(component, component)), params, added)
    assert total.reshape(params.fields, -1)[:, 0].tolist() == digits


@PARAMS
def test_noise_is_rounded_off(params: ParameterSet) -> None:
    """CK-5.2: up to half a step; its squares are added up."""
    values, random = drawn(params), np.random.default_rng(1)
    noise = random.uniform(-0.49, 0.49, DEGREE)
    slots = (pack(values, params).view(np.float64) + noise).view(np.complex128)
    total, squares = unpack(slots, params, 1)
    assert (total == values).all()
    assert squares == pytest.approx(float(noise @ noise), rel=0.02)


@PARAMS
def test_a_digit_that_no_sum_has(params: ParameterSet) -> None:
    """CK-5.3: below the least and above the most, in each field, at the last place as well."""
    added, half = params.sites, 1 << (params.bits - 1)
    for field in range(params.fields):
        for place in (0, DEGREE - 1):
            for digit in (-added * half - 1, added * (half - 1) + 1):
                if field < params.fields - 1 and not -params.base // 2 <= digit < params.base // 2:
                    # Such a digit cannot even be written: it is another one, with a carry.
                    continue
                components = np.zeros(DEGREE)
                components[place] = digit * params.base**field
                with pytest.raises(SumOutOfRange):
                    unpack(components.view(np.complex128), params, added)


@pytest.mark.parametrize("added", [1, 3, 4])
def test_fewer_sites_have_fewer_sums(added: int) -> None:
    """CK-5.3 is for the number of members, not of sites."""
    top = (added + 1) * 65535 - added * 32768
    components = np.zeros(DEGREE)
    components[7] = top - 65535
    unpack(components.view(np.complex128), FOUR, added)
    components[7] += 1
    with pytest.raises(SumOutOfRange):
        unpack(components.view(np.complex128), FOUR, added)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**52, -(2.0**52), 2.0**63, 1e300])
def test_what_is_no_number_of_ours(value: float) -> None:
    components = np.zeros(DEGREE)
    components[9] = value
    with pytest.raises(SumOutOfRange):
        unpack(components.view(np.complex128), FOUR, 3)


@pytest.mark.parametrize("change", ["short", "long", "two-dimensional", "too big"])
def test_what_is_not_packed(change: str) -> None:
    values = {
        "short": drawn(FOUR)[:-1],
        "long": np.append(drawn(FOUR), np.uint32(1)),
        "two-dimensional": drawn(FOUR).reshape(2, -1),
        "too big": np.full(FOUR.capacity, 1 << 16, np.uint32),
    }[change]
    with pytest.raises(LocalError):
        pack(values, FOUR)


@pytest.mark.parametrize("added", [1, 3, 4])
def test_the_noise_that_is_expected(added: int) -> None:
    """CK-5.4: for the members, whether or not their encoders round alike; with 8 % on both sides.

    Nothing at all is no noise either.
    """
    components = 3 * DEGREE
    least, most = (
        k * DEGREE / 2 / FOUR.scale**2 * components
        for k in (10.5 * added, 10.5 * added + added**2 / 12)
    )
    for squares in (least * 0.921**2, least, most, most * 1.079**2):
        check_noise(squares, components, FOUR, added)
    for squares in (0, least * 0.919**2, most * 1.081**2, 4 * most, np.nan, np.inf):
        with pytest.raises(BadNoise):
            check_noise(squares, components, FOUR, added)
    for other in {1, 3, 4} - {added}:
        with pytest.raises(BadNoise):
            check_noise(least, components, FOUR, other)
