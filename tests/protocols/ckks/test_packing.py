"""Integers in coefficients, and back (CK-2.1, CK-5.3), without any encryption."""

from __future__ import annotations

import numpy as np
import pytest
from ckks_slowly import packed
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_protocols.ckks import ParameterSet, parameter_set
from fedbcs_protocols.ckks.packing import pack, unpack
from fedbcs_protocols.ckks.params import DEGREE, NOISE_BOUND, PRIME
from fedbcs_protocols.errors import LocalError, SumOutOfRange

SETS = [(3, 8), (16, 8), (128, 8), (16, 12), (1024, 12), (4, 16), (128, 16), (64, 17), (16, 20)]
SETS += [(8, 14), (4, 11), (4, 24), (1024, 16), (1024, 22), (256, 24)]
PARAMS = pytest.mark.parametrize(
    "params", [parameter_set(*s) for s in SETS], ids=lambda p: f"{p.sites}-{p.bits}-{p.fields}"
)
FOUR = parameter_set(4, 16)
KINDS = ("random", "all maximum", "all minimum", "alternating", "fields in turn")


def drawn(params: ParameterSet, count: int = 1, seed: int = 0) -> NDArray[np.uint32]:
    random = np.random.default_rng(seed)
    return random.integers(0, 1 << params.bits, (count, params.capacity), dtype=np.uint32)


def sums(params: ParameterSet, added: int, kind: str) -> NDArray[np.uint32]:
    """One chunk of a sum."""
    most, places = added * ((1 << params.bits) - 1), np.arange(params.capacity)
    if kind == "random":
        return np.random.default_rng(1).integers(0, most, places.size, np.uint32, endpoint=True)
    up = {
        "all maximum": places >= 0,
        "all minimum": places < 0,
        "alternating": places % 2 == 1,
        "fields in turn": places // DEGREE % 2 == 0,
    }[kind]
    return np.where(up, most, 0).astype(np.uint32)


def residues(numbers: list[int]) -> NDArray[np.uint64]:
    return np.array([[number % PRIME for number in numbers]], np.uint64)


def one(params: ParameterSet, place: int, digits: list[int], noise: int = 0) -> NDArray[np.uint64]:
    """A plaintext of zeros but for one coefficient."""
    out = np.zeros((1, DEGREE), np.uint64)
    whole = sum(digit << (at * params.digit_bits) for at, digit in enumerate(digits))
    out[0, place] = (whole * params.scale + noise) % PRIME
    return out


@PARAMS
def test_coefficients_are_those_of_the_page(params: ParameterSet) -> None:
    """CK-2.1, in Python's integers; a batch is its chunks."""
    values = drawn(params, 3)
    values[1], values[2, ::2] = (1 << params.bits) - 1, 0
    expected = [packed(v.tolist(), params.sites, params.bits, params.fields) for v in values]
    assert pack(values, params).tolist() == expected
    assert pack(values[1:2], params).tolist() == expected[1:2]


@PARAMS
@pytest.mark.parametrize("kind", KINDS)
def test_sums_come_back_with_their_noise(params: ParameterSet, kind: str) -> None:
    """CK-2.1, CK-5.2: at every corner, with the most noise of either sign in it."""
    for added in {1, 2, params.sites}:
        total = sums(params, added, kind)
        whole = packed(total.tolist(), params.sites, params.bits, params.fields)
        bound = NOISE_BOUND * added
        noise = np.random.default_rng(2).integers(-bound, bound, DEGREE, endpoint=True)
        noise[:4] = bound, -bound, 0, -1
        plain = residues([m + e for m, e in zip(whole, noise.tolist(), strict=True)])
        values, measured = unpack(plain, params, added)
        assert np.array_equal(values, total[None])
        assert np.array_equal(measured, noise[None])
        assert (values.dtype, measured.dtype) == (np.uint32, np.int64)


@PARAMS
def test_packed_sums_are_sums_of_what_is_packed(params: ParameterSet) -> None:
    """CK-2.1: digits add up without carrying over, up to the last number of sites."""
    values = drawn(params, 4)
    # By weights that stand for sites.
    weights = [params.sites // 2, 1] if params.sites > 2 else [1]
    plain = sum(w * pack(values[at : at + 1], params) for at, w in enumerate(weights))
    total, noise = unpack(plain, params, sum(weights))
    exact = sum(w * values[at].astype(np.uint64) for at, w in enumerate(weights))
    assert np.array_equal(total[0], exact)
    assert not noise.any()


def test_chunks_do_not_mix() -> None:
    values = drawn(FOUR, 4)
    total, _ = unpack(pack(values, FOUR), FOUR, 1)
    assert np.array_equal(total, values)


@given(st.data())
def test_any_digits(data: st.DataObject) -> None:
    """Every digit of a sum, next to every other, with any noise that there can be."""
    params = parameter_set(*data.draw(st.sampled_from(SETS)))
    added = data.draw(st.integers(1, params.sites))
    most, bound = added * ((1 << params.bits) - 1), NOISE_BOUND * added
    digit = st.integers(0, most) | st.sampled_from([0, most])
    digits = data.draw(st.lists(digit, min_size=params.fields, max_size=params.fields))
    noise = data.draw(st.integers(-bound, bound))
    total, measured = unpack(one(params, 5, digits, noise), params, added)
    assert total.reshape(params.fields, -1)[:, 5].tolist() == digits
    assert measured[0, 5] == noise


# Noise -------------------------------------------------------------------------------------------


@PARAMS
def test_noise_below_zero_at_zero(params: ParameterSet) -> None:
    """CK-5.2: it stands just below q, and is no large number."""
    for noise in (-1, -NOISE_BOUND * params.sites, -params.scale // 2):
        total, measured = unpack(residues([noise] * DEGREE), params, params.sites)
        assert not total.any()
        assert (measured == noise).all()


@PARAMS
def test_noise_of_half_a_step(params: ParameterSet) -> None:
    """CK-1.3: from -Δ/2 to Δ/2 - 1; one further is the next whole number."""
    half, added, top = params.scale // 2, params.sites, params.fields - 1
    most = added * ((1 << params.bits) - 1)
    for digit in {1, most // 2, most - 1}:
        digits = [digit] * params.fields
        for noise in (-half, half - 1):
            total, measured = unpack(one(params, 7, digits, noise), params, added)
            assert total.reshape(params.fields, -1)[:, 7].tolist() == digits
            assert measured[0, 7] == noise
        for noise, turned, other in ((half, -half, 1), (-half - 1, half - 1, -1)):
            total, measured = unpack(one(params, 7, digits, noise), params, added)
            got = total.reshape(params.fields, -1)[:, 7].tolist()
            assert got == [digit + other, *digits[1:]]
            assert len(got) == top + 1
            assert measured[0, 7] == turned


# What no sum has ---------------------------------------------------------------------------------


@PARAMS
def test_a_digit_that_no_sum_has(params: ParameterSet) -> None:
    """CK-5.3: just above the most, in each field, at the first and the last place."""
    for added in {1, params.sites}:
        most = added * ((1 << params.bits) - 1)
        for field in range(params.fields):
            for place in (0, DEGREE - 1):
                digits = [0] * params.fields
                digits[field] = most
                unpack(one(params, place, digits), params, added)
                digits[field] = most + 1
                with pytest.raises(SumOutOfRange, match=f"no sum of {added} sites"):
                    unpack(one(params, place, digits), params, added)


@pytest.mark.parametrize("chunk", [0, 1, 3])
def test_one_bad_chunk_among_good_ones(chunk: int) -> None:
    """CK-5.3"""
    plain = pack(drawn(FOUR, 4), FOUR)
    unpack(plain, FOUR, 3)
    plain[chunk] += one(FOUR, 9, [0, 3 * 65535 + 1])[0]
    with pytest.raises(SumOutOfRange):
        unpack(plain, FOUR, 3)


@pytest.mark.parametrize("added", [1, 3, 4])
def test_fewer_sites_have_fewer_sums(added: int) -> None:
    """CK-5.3 is for the number of members, not of sites."""
    for digits in ([added * 65535, 0], [0, added * 65535]):
        unpack(one(FOUR, 7, digits), FOUR, added)
        with pytest.raises(SumOutOfRange):
            unpack(one(FOUR, 7, [d + (d > 0) for d in digits]), FOUR, added)


@pytest.mark.parametrize("change", ["short", "long", "one-dimensional", "too big", "much too big"])
def test_what_is_not_packed(change: str) -> None:
    values = drawn(FOUR, 2)
    wrong = {
        "short": values[:, :-1],
        "long": np.append(values, values[:, :1], axis=1),
        "one-dimensional": values[0],
        "too big": np.where(np.arange(FOUR.capacity) == 9, 1 << 16, values).astype(np.uint32),
        "much too big": values | np.uint32(1 << 31),
    }[change]
    with pytest.raises(LocalError, match="a chunk is 8192 values of 16 bits"):
        pack(wrong, FOUR)


def test_the_largest_values_of_other_sets_are_not_packed() -> None:
    for params in (parameter_set(3, 8), parameter_set(256, 24)):
        values = np.full((1, params.capacity), (1 << params.bits) - 1, np.uint32)
        pack(values, params)
        values[0, -1] += 1
        with pytest.raises(LocalError):
            pack(values, params)
