"""The encrypted sum is the integers' sum, bit for bit: at every corner of what is supported."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from ckks_world import SECRET, World, scratch

from fedbcs_protocols.ckks.cipher import Context, SecretContext
from fedbcs_protocols.ckks.packing import check_noise, pack, unpack
from fedbcs_protocols.ckks.params import (
    COMPONENTS,
    DEGREE,
    ParameterSet,
    parameter_set,
)
from fedbcs_protocols.errors import LocalError, PeerError
from fedbcs_protocols.ring import Accumulator, Words, ring_bits
from fedbcs_protocols.ring import pack as ring_pack

STUDY = bytes(32)
KINDS = ("random", "all maximum", "all minimum", "alternating", "one against all")
SITES = (3, 4, 8, 9, 16, 17, 18, 32, 33, 64)
BITS = (8, 12, 16, 17, 20, 24)
CORNERS = [
    (sites, bits, kind)
    for sites in SITES
    for bits in BITS
    for kind in KINDS
    if sites <= 9 or kind in ("random", "all maximum", "alternating")
]


@lru_cache(maxsize=4)
def ciphers(params: ParameterSet) -> SecretContext:
    return SecretContext(params, scratch(), SECRET, STUDY, 1)


def vectors(params: ParameterSet, kind: str) -> list[Words]:
    """Every site's chunk of (f·N,) values."""
    size, high = params.capacity, (1 << params.bits) - 1
    rng = np.random.default_rng(hash((params.sites, params.bits)) % 2**32)
    match kind:
        case "random":
            return [rng.integers(0, high + 1, size).astype(np.uint32) for _ in range(params.sites)]
        case "all maximum":
            return [np.full(size, high, np.uint32)] * params.sites
        case "all minimum":
            return [np.zeros(size, np.uint32)] * params.sites
        case "alternating":
            return [np.tile(np.array([0, high], np.uint32), size // 2)] * params.sites
        case _:
            rest = [np.zeros(size, np.uint32)] * (params.sites - 1)
            return [np.full(size, high, np.uint32), *rest]


def encrypted_sum(params: ParameterSet, chunks: list[Words]) -> tuple[Words, float]:
    """What a site reads of the sum of fresh ciphertexts, one a site."""
    cipher, context = ciphers(params), Context(params, scratch())
    total = None
    for chunk in chunks:
        fresh = context.fresh(cipher.encrypt(pack(chunk, params)), "x")
        if total is None:
            total = fresh
        else:
            context.evaluator.add_inplace(total, fresh)
    slots = cipher.decrypt(context.both(context.sum_bytes(total), "x"))
    return unpack(slots, params, len(chunks))


@pytest.mark.parametrize(("sites", "bits", "kind"), CORNERS)
def test_the_sum_is_the_integers_sum(sites: int, bits: int, kind: str) -> None:
    params = parameter_set(sites, bits)
    chunks = vectors(params, kind)
    got, squares = encrypted_sum(params, chunks)
    exact = sum(chunk.astype(np.int64) for chunk in chunks)
    assert np.array_equal(got, exact)
    check_noise(squares, DEGREE, params, sites)


@pytest.mark.parametrize(("sites", "bits"), [(1024, 16), (256, 24), (1024, 22), (1024, 8)])
def test_a_thousand_sites(sites: int, bits: int) -> None:
    params = parameter_set(sites, bits)
    for kind in ("random", "all maximum"):
        chunks = vectors(params, kind)
        got, squares = encrypted_sum(params, chunks)
        assert np.array_equal(got, sum(chunk.astype(np.int64) for chunk in chunks))
        check_noise(squares, DEGREE, params, sites)


@pytest.mark.parametrize("sites", [3, 4, 9])
def test_the_ring_of_secagg_adds_to_the_same(sites: int) -> None:
    params = parameter_set(sites, 16)
    bits = ring_bits(16, sites)
    for kind in KINDS:
        chunks = vectors(params, kind)
        ring = Accumulator(params.capacity, bits)
        for chunk in chunks:
            ring.add(ring_pack(chunk, bits))
        assert np.array_equal(encrypted_sum(params, chunks)[0], ring.total())


def beyond(sites: int, bits: int, fields: int) -> ParameterSet:
    """A set that is refused, all the same."""
    params = object.__new__(ParameterSet)
    for name, value in (("sites", sites), ("bits", bits), ("fields", fields)):
        object.__setattr__(params, name, value)
    return params


@pytest.mark.parametrize(("sites", "bits", "fields"), [(16, 20, 2), (128, 16, 2), (33, 18, 2)])
def test_a_set_over_the_edge_is_refused_and_fails(sites: int, bits: int, fields: int) -> None:
    """CK-1.4: random inputs do not show it, all-maximum ones do (the message wraps round q)."""
    with pytest.raises(LocalError, match=r"do not fit into a ciphertext: \d+\.\d bits too many"):
        ParameterSet(sites, bits, fields)
    params = beyond(sites, bits, fields)
    assert params.margin_bits < 0
    # As if there were room: the scale that the noise needs.
    object.__setattr__(params, "scale", float(np.ceil(params.needed_scale)))
    random = vectors(params, "random")
    assert np.array_equal(
        encrypted_sum(params, random)[0], sum(chunk.astype(np.int64) for chunk in random)
    )
    try:
        got, _ = encrypted_sum(params, vectors(params, "all maximum"))
    except PeerError:
        return
    assert not (got == sites * ((1 << bits) - 1)).all()


@pytest.mark.parametrize(("sites", "bits"), [(257, 24), (1000, 24), (1024, 23), (1024, 24)])
def test_a_sum_that_needs_more_than_a_word(sites: int, bits: int) -> None:
    with pytest.raises(LocalError, match="need over 32 bits"):
        parameter_set(sites, bits)


@pytest.mark.parametrize("sites", [3, 4, 8])
def test_three_fields_of_sixteen_bits_do_not_fit(sites: int) -> None:
    with pytest.raises(LocalError, match="do not fit"):
        ParameterSet(sites, 16, 3)


def test_a_whole_sum(small: World) -> None:
    frame = small.run()
    for name in small.names:
        outcome = small.open(name, frame, {0: small.sessions[name].transcript})
        assert outcome.survivors == small.names
        assert outcome.total.tolist() == small.total
    assert COMPONENTS == 1 << 23


@pytest.mark.parametrize("count", [1, 8183, 8184, 8185, 8188, 16371, 16372, 16373, 30000])
def test_every_length_of_the_last_chunk(count: int) -> None:
    world = World(count=count)
    outcome = world.open("site1", world.run())
    assert outcome.total.tolist() == world.total


def test_a_site_that_is_missing_is_not_in_the_sum() -> None:
    world = World(count=9000)
    world.uploads  # noqa: B018
    frame = world.run(("site0", "site2", "site3"))
    outcome = world.open("site1", frame)
    assert outcome.survivors == ("site0", "site2", "site3")
    expected = sum(world.vectors[n].astype(np.uint64) for n in outcome.survivors)
    assert np.array_equal(outcome.total, expected)
