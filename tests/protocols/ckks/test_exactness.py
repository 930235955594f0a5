"""The encrypted sum is the integers' sum, bit for bit, at every corner of what is supported.

And beyond: a set that the proof refuses is shown to go wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from ckks_world import SECRET, World, binding, scratch
from numpy.typing import NDArray

from fedbcs_protocols.ckks.cipher import Decryptor, Encryptor
from fedbcs_protocols.ckks.packing import Noise, check_noise, unpack
from fedbcs_protocols.ckks.params import DEGREE, NOISE_BOUND, ParameterSet, parameter_set
from fedbcs_protocols.ckks.samples import NoiseStream, Small, upload_secret
from fedbcs_protocols.ckks.words import add_residues, unpack_words
from fedbcs_protocols.errors import LocalError, SumOutOfRange
from fedbcs_protocols.ring import Accumulator, Words, ring_bits
from fedbcs_protocols.ring import pack as ring_pack

KINDS = ("random", "all maximum", "all minimum", "alternating")
"""A batch has one chunk of each."""
SITES = (3, 4, 8, 9, 16, 17, 64)
BITS = (8, 12, 16, 17, 20, 24)


def proven(sites: int, bits: int, fields: int) -> bool:
    try:
        ParameterSet(sites, bits, fields)
    except LocalError:
        return False
    return True


LAST = [
    (next(n for n in range(1024, 0, -1) if proven(n, bits, fields)), bits, fields)
    for bits in range(8, 25)
    for fields in range(1, 5)
    if proven(1, bits, fields)
]
"""The most sites for each number of bits and fields."""


def batch(params: ParameterSet, site: int) -> Words:
    """One site's chunks, one of each kind."""
    high, random = (1 << params.bits) - 1, np.random.default_rng((params.sites, params.bits, site))
    out = np.zeros((len(KINDS), params.capacity), np.uint32)
    out[0] = random.integers(0, high, params.capacity, endpoint=True)
    out[1] = high
    # Places in turn, and the fields of a place in turn.
    places = np.arange(params.capacity)
    out[3] = np.where((places % DEGREE + places // DEGREE) % 2, high, 0)
    return out


def encrypted_sum(
    params: ParameterSet, given: Sequence[Words], weights: Sequence[int] | None = None
) -> tuple[Words, Noise]:
    """By an upload under a secret and noise of its own for each, as often as its weight says.

    Weights stand for sites that happen to send the same ciphertexts: the worst that noise can do.
    """
    total = np.zeros((len(given[0]), DEGREE), np.uint64)
    opening: list[Small] = []
    counts = [1] * len(given) if weights is None else weights
    for at, (values, count) in enumerate(zip(given, counts, strict=True)):
        drawn = hashlib.sha256(b"upload %d" % at).digest()
        secret = upload_secret(SECRET, 1, binding(), f"site{at}", drawn)
        noise_key = hashlib.sha256(drawn).digest()
        data = Encryptor(params, binding(), secret, noise_key, scratch()).encrypt(values)
        size = len(data) // len(values)
        upload = np.array(
            [unpack_words(data[i : i + size], "x") for i in range(0, len(data), size)]
        )
        for _ in range(count):
            add_residues(total, upload)
        opening.append(count * secret)
    plain = Decryptor(binding(), opening, scratch()).decrypt(total)
    return unpack(plain, params, sum(counts))


def weighed(sites: int) -> list[int]:
    """At most three uploads that stand for all sites."""
    return [1] * sites if sites <= 3 else [sites - sites // 3 - 1, sites // 3, 1]


def exact_sum(given: Sequence[Words], weights: Sequence[int]) -> NDArray[np.int64]:
    return np.sum([w * v.astype(np.int64) for v, w in zip(given, weights, strict=True)], axis=0)


# What is supported -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sites", SITES)
def test_the_sum_is_the_integers_sum(sites: int, bits: int) -> None:
    """CK-1.4, CK-2.1: an upload for each site. It is also what the ring of secagg adds up to."""
    params = parameter_set(sites, bits)
    given = [batch(params, site) for site in range(sites)]
    got, noise = encrypted_sum(params, given)
    assert np.array_equal(got, exact_sum(given, [1] * sites))
    check_noise(noise, sites)
    width = ring_bits(bits, sites)
    ring = Accumulator(got.size, width)
    for values in given:
        ring.add(ring_pack(values.reshape(-1), width))
    assert np.array_equal(got.reshape(-1), ring.total())


@pytest.mark.parametrize("last", LAST, ids=lambda s: f"n {s[0]}, b {s[1]}, f {s[2]}")
def test_the_last_that_fits(last: tuple[int, int, int]) -> None:
    """CK-1.4, CK-1.5"""
    params, weights = ParameterSet(*last), weighed(last[0])
    given = [batch(params, site) for site in range(len(weights))]
    got, noise = encrypted_sum(params, given, weights)
    assert np.array_equal(got, exact_sum(given, weights))
    assert int(np.abs(noise).max()) <= NOISE_BOUND * params.sites


def noisiest(self: NoiseStream, count: int) -> Noise:
    """All that the coins can do: up, down, and in turn."""
    out = np.full((count, DEGREE), NOISE_BOUND)
    out[2] = -NOISE_BOUND
    out[0, ::3] = out[3, 1::2] = -NOISE_BOUND
    return out


@pytest.mark.parametrize("last", LAST, ids=lambda s: f"n {s[0]}, b {s[1]}, f {s[2]}")
def test_the_largest_noise(last: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-1.3: 21·n, up at the largest sum and down at zero, and it is returned to the last bit."""
    params, weights = ParameterSet(*last), weighed(last[0])
    given = [batch(params, site) for site in range(len(weights))]
    stream = NoiseStream(bytes(32))
    monkeypatch.setattr(NoiseStream, "next", noisiest)
    got, noise = encrypted_sum(params, given, weights)
    assert np.array_equal(got, exact_sum(given, weights))
    assert np.array_equal(noise, params.sites * stream.next(len(KINDS)))


@pytest.mark.parametrize("sites", [100, 128])
def test_many_sites(sites: int) -> None:
    """Each with noise of its own, as it is."""
    params = parameter_set(sites, 16)
    given = [batch(params, site) for site in range(sites)]
    got, noise = encrypted_sum(params, given)
    assert np.array_equal(got, exact_sum(given, [1] * sites))
    check_noise(noise, sites)


# One step further --------------------------------------------------------------------------------


class Unproven(ParameterSet):
    """A set past the check, with as many bits of scale as it is told."""

    given_scale_bits: int | None = None

    def __post_init__(self) -> None:
        pass

    @property
    def scale_bits(self) -> int:
        given = self.given_scale_bits
        return super().scale_bits if given is None else given


def unproven(sites: int, bits: int, fields: int) -> ParameterSet:
    """A set that is refused, all the same."""
    with pytest.raises(LocalError, match=r"do not fit into a ciphertext: \d+\.\d bits too many"):
        ParameterSet(sites, bits, fields)
    params = Unproven(sites, bits, fields)
    assert params.margin_bits < 0
    return params


def scaled(sites: int, bits: int, fields: int, scale_bits: int) -> ParameterSet:
    params = Unproven(sites, bits, fields)
    object.__setattr__(params, "given_scale_bits", scale_bits)
    assert params.scale == 2**scale_bits
    return params


def wrong(params: ParameterSet) -> set[str]:
    """The kinds of chunks whose sum comes out wrong, or not at all."""
    weights = weighed(params.sites)
    given = [batch(params, site) for site in range(len(weights))]
    out = set()
    for at, kind in enumerate(KINDS):
        some = [values[at : at + 1] for values in given]
        try:
            got, _ = encrypted_sum(params, some, weights)
        except SumOutOfRange:
            out.add(kind)
            continue
        if not np.array_equal(got, exact_sum(some, weights)):
            out.add(kind)
    return out


@pytest.mark.parametrize(
    "beyond", [(17, 20, 2), (9, 13, 3), (65, 9, 3), (257, 14, 2), (65, 17, 2), (5, 11, 4)]
)
def test_a_set_over_the_edge_is_refused_and_fails(beyond: tuple[int, int, int]) -> None:
    """CK-1.4: the largest sum wraps round q."""
    sites, bits, fields = beyond
    assert (sites - 1, bits, fields) in LAST
    assert {"all maximum", "alternating"} <= wrong(unproven(*beyond))
    assert not wrong(ParameterSet(sites - 1, bits, fields))


def test_random_inputs_do_not_show_it() -> None:
    """CK-1.4: so the check is by the largest sum, and no trial run replaces it."""
    params = unproven(17, 20, 2)
    weights = [1] * 17
    given = [batch(params, site)[:1] for site in range(17)]
    got, noise = encrypted_sum(params, given, weights)
    assert np.array_equal(got, exact_sum(given, weights))
    check_noise(noise, 17)
    assert "all maximum" in wrong(params)


@pytest.mark.parametrize(("sites", "bits", "fields"), [(4, 16, 3), (32, 16, 3), (8, 20, 3)])
def test_far_over_the_edge(sites: int, bits: int, fields: int) -> None:
    """Here random vectors come out wrong as well, and only zeros do not."""
    assert wrong(unproven(sites, bits, fields)) == {"random", "all maximum", "alternating"}


@pytest.mark.parametrize("sites", [4, 8, 64])
def test_half_the_scale_is_not_enough(sites: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-1.3: 21·n is less than Δ/2, and more than Δ/4; noise as large as it can be tells."""
    bits = parameter_set(sites, 12).scale_bits
    monkeypatch.setattr(NoiseStream, "next", lambda s, k: noisiest(s, 4)[1 : k + 1])
    assert not wrong(scaled(sites, 12, 2, bits))
    assert wrong(scaled(sites, 12, 2, bits - 1)) == set(KINDS)


def test_at_a_small_scale_ordinary_noise_is_enough() -> None:
    """CK-1.3: half a step at 1.2 standard deviations."""
    assert wrong(scaled(4, 16, 2, 4)) == set(KINDS)


# Whole sums --------------------------------------------------------------------------------------


def test_a_whole_sum(small: World) -> None:
    frame = small.run()
    for name in small.names:
        outcome = small.open(name, frame, {0: small.sessions[name].transcript})
        assert outcome.survivors == small.names
        assert outcome.total.tolist() == small.total


@pytest.mark.parametrize(
    "count",
    [1, 8183, 8184, 8185, 8188, 16371, 16372, 16373, 30000, 32747, 32748, 32749, 65500, 65501],
)
def test_every_length_of_the_last_chunk(count: int) -> None:
    """CK-2.3: and of the last batch of four."""
    world = World(count=count)
    outcome = world.open("site1", world.run())
    assert outcome.total.tolist() == world.total


@pytest.mark.parametrize(("sites", "bits"), [(8, 14), (16, 8), (5, 24)])
def test_a_whole_sum_of_other_sets(sites: int, bits: int) -> None:
    world = World(sites=sites, bits=bits, count=20000)
    assert world.open("site2", world.run()).total.tolist() == world.total


def test_a_site_that_is_missing_is_not_in_the_sum() -> None:
    world = World(count=9000)
    world.uploads  # noqa: B018
    frame = world.run(("site0", "site2", "site3"))
    outcome = world.open("site1", frame)
    assert outcome.survivors == ("site0", "site2", "site3")
    expected = sum(world.vectors[n].astype(np.uint64) for n in outcome.survivors)
    assert np.array_equal(outcome.total, expected)
