"""Exact sums at the last number of sites for each number of fields, and one step further.

The inputs are the worst that there are: all at an extreme, and those that put everything into one
coefficient of the polynomial, where the bound Δ·√2·M of CK-1.3 is reached and not only approached.
"""

from __future__ import annotations

import numpy as np
import pytest
from ckks_world import SECRET, scratch

from fedbcs_protocols.ckks import ParameterSet, parameter_set
from fedbcs_protocols.ckks.cipher import SecretContext
from fedbcs_protocols.ckks.packing import check_noise, pack, unpack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.errors import LocalError, PeerError
from fedbcs_protocols.ring import Words, add_in_place, ring_bits

LAST = [(11, 8), (102, 8), (6, 9), (3, 10), (10, 12), (5, 13), (3, 14), (73, 16), (43, 17)]
LAST += [(25, 18), (8, 20), (5, 21), (65, 16), (33, 17), (18, 20)]
LAST += [(65, 8), (65, 12), (65, 17), (65, 20), (65, 24)]
# The last that fit for the other numbers of bits and fields, with two of the worst inputs.
OTHERS = [(58, 9), (32, 10), (18, 11), (122, 15), (14, 19), (4, 21)]
MANY = [(532, 12), (512, 23), (1024, 12), (1024, 16), (1024, 22)]
KINDS = (
    "random",
    "all maximum",
    "all minimum",
    "alternating",
    "turning",
    "one coefficient",
    "signs",
)


def pattern(kind: str, params: ParameterSet) -> Words:
    """A vector that every site sends."""
    high = (1 << params.bits) - 1
    tile = {
        "all maximum": (high,),
        "all minimum": (0,),
        "alternating": (0, high),
        # Slots in turn at 45° and 225°.
        "turning": (high, high, 0, 0),
        # At 45° and 135°: the slots of X^(N/4), since 3^j mod 8 is 1 and 3 in turn.
        "one coefficient": (high, high, 0, high),
    }[kind]
    return np.tile(np.array(tile, np.uint32), params.capacity // len(tile))


def vectors(kind: str, params: ParameterSet) -> list[Words]:
    if kind == "random":
        random, top = np.random.default_rng(7), 1 << params.bits
        return [
            random.integers(0, top, params.capacity, dtype=np.uint32) for _ in range(params.sites)
        ]
    if kind == "signs":
        # Both digits of a component at the same end, which one by chance: the largest rms there is,
        # where float64 in SEAL's transforms adds most (CK-1.3).
        high = np.random.default_rng(8).integers(0, 2, DEGREE) * ((1 << params.bits) - 1)
        return [np.tile(high.astype(np.uint32), params.fields)] * params.sites
    return [pattern(kind, params)] * params.sites


def encrypted_sum(params: ParameterSet, given: list[Words]) -> tuple[Words, float]:
    """By a fresh encryption for each site."""
    context, total = SecretContext(params, scratch(), SECRET, bytes(32), 1), None
    slots = {id(values): pack(values, params) for values in given}
    for values in given:
        fresh = context.fresh(context.encrypt(slots[id(values)]), "x")
        if total is None:
            total = fresh
        else:
            context.evaluator.add_inplace(total, fresh)
    return unpack(context.decrypt(context.both(context.sum_bytes(total), "x")), params, len(given))


def ring_sum(params: ParameterSet, given: list[Words]) -> Words:
    """What secagg's ring gives, added modulo 2^m."""
    bits, total = ring_bits(params.bits, params.sites), np.zeros(params.capacity, np.uint32)
    for values in given:
        add_in_place(total, values, bits)
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edge", LAST, ids=lambda edge: f"n {edge[0]}, b {edge[1]}")
def test_the_last_that_fits(edge: tuple[int, int], kind: str) -> None:
    """CK-1.3, CK-1.5, CK-2.1: the integers' sum and the ring's, bit for bit."""
    params = parameter_set(*edge)
    given = vectors(kind, params)
    got, squares = encrypted_sum(params, given)
    assert (got == sum(values.astype(np.int64) for values in given)).all()
    assert (got == ring_sum(params, given)).all()
    check_noise(squares, DEGREE, params, params.sites)


@pytest.mark.parametrize("kind", ["signs", "one coefficient"])
@pytest.mark.parametrize("edge", OTHERS, ids=lambda edge: f"n {edge[0]}, b {edge[1]}")
def test_the_last_of_every_other_set(edge: tuple[int, int], kind: str) -> None:
    params = parameter_set(*edge)
    given = vectors(kind, params)
    got, squares = encrypted_sum(params, given)
    assert (got == sum(values.astype(np.int64) for values in given)).all()
    check_noise(squares, DEGREE, params, params.sites)


@pytest.mark.parametrize("edge", MANY, ids=lambda edge: f"n {edge[0]}, b {edge[1]}")
def test_many_sites(edge: tuple[int, int]) -> None:
    params = parameter_set(*edge)
    given = vectors("one coefficient", params)
    got, squares = encrypted_sum(params, given)
    assert (got == sum(values.astype(np.int64) for values in given)).all()
    assert (got == ring_sum(params, given)).all()
    check_noise(squares, DEGREE, params, params.sites)


# One step further --------------------------------------------------------------------------------


def unproven(sites: int, bits: int, fields: int, scale: float | None = None) -> ParameterSet:
    """A set that is refused, all the same."""
    with pytest.raises(LocalError, match="do not fit"):
        ParameterSet(sites, bits, fields)
    params = object.__new__(ParameterSet)
    values = {"sites": sites, "bits": bits, "fields": fields}
    for name, value in {**values, **({} if scale is None else {"scale": scale})}.items():
        object.__setattr__(params, name, value)
    return params


def goes_wrong(params: ParameterSet, kind: str) -> bool:
    given = vectors(kind, params)
    try:
        got, _ = encrypted_sum(params, given)
    except (PeerError, ValueError):
        # SEAL has an error of its own for what does not fit at all.
        return True
    return bool((got != sum(values.astype(np.int64) for values in given)).any())


@pytest.mark.parametrize(("sites", "fields"), [(4, 3), (32, 3)])
def test_three_fields_of_sixteen_bits(sites: int, fields: int) -> None:
    """CK-1.4: at the scale that the message leaves, the noise is larger than half a step."""
    params = unproven(sites, 16, fields)
    assert params.margin_bits < -7
    assert params.margin_sigmas < 1
    for kind in ("random", "all maximum"):
        assert goes_wrong(params, kind)


def room_at(sites: int, bits: int, fields: int, beyond: float) -> ParameterSet:
    """A set whose scale is so many bits more than the message leaves room for."""
    room = ParameterSet(sites, bits, fields).room
    params = object.__new__(ParameterSet)
    fields_of = {"sites": sites, "bits": bits, "fields": fields, "scale": room * 2**beyond}
    for name, value in fields_of.items():
        object.__setattr__(params, name, value)
    return params


@pytest.mark.parametrize(("sites", "bits"), [(8, 20), (73, 16), (10, 12)])
def test_the_bound_is_reached(sites: int, bits: int) -> None:
    """CK-1.3: all of √2 is needed. Less than 1 % over it, one input wraps, and only that one."""
    fields = parameter_set(sites, bits).fields
    params = room_at(sites, bits, fields, 0.01)
    assert goes_wrong(params, "one coefficient")
    for kind in ("random", "all maximum", "alternating"):
        assert not goes_wrong(params, kind)
    assert not goes_wrong(room_at(sites, bits, fields, 0.0), "one coefficient")


@pytest.mark.parametrize(("sites", "bits", "fields"), [(16, 20, 2), (20, 12, 3)])
def test_random_inputs_do_not_show_it(sites: int, bits: int, fields: int) -> None:
    """CK-1.4: with the scale that the noise needs, a refused set passes with random vectors."""
    needed = unproven(sites, bits, fields).needed_scale
    params = unproven(sites, bits, fields, needed)
    assert not goes_wrong(params, "random")
    for kind in ("all maximum", "all minimum", "one coefficient"):
        assert goes_wrong(params, kind)
