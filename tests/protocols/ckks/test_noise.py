"""The noise is what the proof and the check take it for (CK-3.4, CK-5.4)."""

from __future__ import annotations

import hashlib
import math

import ckks_slowly as slowly
import numpy as np
import pytest
from ckks_world import SECRET, binding, scratch
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.ckks import ParameterSet, parameter_set
from fedbcs_protocols.ckks.cipher import Decryptor, Encryptor
from fedbcs_protocols.ckks.packing import NOISE_TOLERANCE, Noise, check_noise, unpack
from fedbcs_protocols.ckks.params import DEGREE, NOISE_BOUND, NOISE_VARIANCE
from fedbcs_protocols.ckks.samples import NoiseStream, upload_secret
from fedbcs_protocols.ckks.words import add_residues, unpack_words
from fedbcs_protocols.errors import BadNoise

KEY = hashlib.sha256(b"a noise key").digest()
CHANCES = np.array([math.comb(42, 21 + value) / 2**42 for value in range(-21, 22)])
"""Heads of 21 coins less heads of 21 others: as heads of 42 coins, less 21."""


def drawn(key: bytes = KEY, batches: int = 1) -> Noise:
    stream = NoiseStream(key)
    return np.concatenate([stream.next(8) for _ in range(batches)])


def summed(added: int, chunks: int = 4) -> Noise:
    """The noise of a sum of so many ciphertexts."""
    keys = (hashlib.sha256(b"noise %d" % at).digest() for at in range(added))
    return np.sum([NoiseStream(key).next(chunks) for key in keys], axis=0)


# Fresh noise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, bytes(32), b"\xff" * 32], ids=range(3))
def test_noise_is_that_of_the_page(key: bytes) -> None:
    """CK-3.4, bit by bit."""
    assert drawn(key, 2).tolist() == slowly.noise(key, 16)


def test_noise_in_other_pieces() -> None:
    stream, whole = NoiseStream(KEY), drawn(batches=2)
    pieces = [stream.next(count).copy() for count in (1, 3, 4, 8)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_the_distribution() -> None:
    """A chi-square of 327,680 coefficients against the exact chances, false alarm 10^-6."""
    noise = drawn(batches=10)
    assert int(np.abs(noise).max()) <= NOISE_BOUND
    counts, expected = np.bincount(noise.reshape(-1) + 21, minlength=43), CHANCES * noise.size
    # The rare ones on either side are one class each.
    rare = expected < 20
    up = np.arange(43) > 21
    classes = [np.flatnonzero(rare & up), np.flatnonzero(rare & ~up)]
    classes += [np.array([at]) for at in np.flatnonzero(~rare)]
    terms = [
        (counts[some].sum() - expected[some].sum()) ** 2 / expected[some].sum() for some in classes
    ]
    freedom = len(classes) - 1
    assert freedom == 26
    # Wilson and Hilferty: 4.75 standard deviations of a normal.
    limit = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3
    assert sum(terms) < limit


def test_moments() -> None:
    """CK-1.1: within 1 % (4 standard deviations), symmetric, and no coin counts twice."""
    noise = drawn(batches=10).astype(float)
    assert (CHANCES * np.arange(-21, 22) ** 2).sum() == pytest.approx(NOISE_VARIANCE)
    assert noise.var() == pytest.approx(NOISE_VARIANCE, rel=0.01)
    assert abs(noise.mean()) < 5 * math.sqrt(NOISE_VARIANCE / noise.size)
    assert abs((noise**3).mean()) < 5 * math.sqrt(15 * NOISE_VARIANCE**3 / noise.size)
    # Neighbours, and the same place in the next polynomial, have nothing in common.
    for far in (1, DEGREE):
        flat = noise.reshape(-1)
        limit = 5 * NOISE_VARIANCE / math.sqrt(noise.size)
        assert abs((flat[far:] * flat[:-far]).mean()) < limit


def test_every_key_has_its_own_noise() -> None:
    one = drawn()
    for bit in (0, 7, 100, 255):
        other = bytearray(KEY)
        other[bit // 8] ^= 1 << bit % 8
        equal = float((drawn(bytes(other)) == one).mean())
        assert equal == pytest.approx((CHANCES**2).sum(), abs=0.01)


# The noise of a sum ------------------------------------------------------------------------------


@pytest.mark.parametrize("added", [1, 3, 4, 64])
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_standard_deviation(added: int, kind: str) -> None:
    """CK-1.3: √(10.5·k), whatever was encrypted; four chunks tell it to 0.6 %."""
    params: ParameterSet = parameter_set(64, 16)
    rng, opening = np.random.default_rng(3), []
    total = np.zeros((4, DEGREE), np.uint64)
    for at in range(added):
        values = np.zeros((4, params.capacity), np.uint32)
        if kind == "random":
            values = rng.integers(0, 1 << 16, values.shape, dtype=np.uint32)
        opening.append(upload_secret(SECRET, 1, binding(), f"site{at}", bytes(32)))
        noise_key = hashlib.sha256(b"%d" % at).digest()
        data = Encryptor(params, binding(), opening[-1], noise_key, scratch()).encrypt(values)
        for chunk in range(4):
            add_residues(total[chunk], unpack_words(data[30720 * chunk :][:30720], "x"))
    _, noise = unpack(Decryptor(binding(), opening, scratch()).decrypt(total), params, added)
    assert noise.std() == pytest.approx(math.sqrt(NOISE_VARIANCE * added), rel=0.05)
    assert abs(noise.mean()) < 5 * math.sqrt(NOISE_VARIANCE * added / noise.size)
    check_noise(noise, added)


# The check ---------------------------------------------------------------------------------------

COUNTS = (1, 2, 3, 4, 5, 8, 16, 17, 64, 200, 1024)


@pytest.mark.parametrize("added", COUNTS)
def test_honest_noise_passes(added: int) -> None:
    """CK-5.4"""
    for chunks in (1, 4):
        check_noise(summed(added, chunks), added)


def test_how_often_honest_noise_is_refused() -> None:
    """CK-5.4: the tolerance is ten standard deviations of a chunk's root mean square.

    So among 2000 chunks none is beyond half of it.
    """
    spread = math.sqrt((CHANCES * np.arange(-21, 22) ** 4).sum() / NOISE_VARIANCE**2 - 1)
    # Of one ciphertext; a sum's fourth moment is nearer a Gaussian's, which has √2.
    for each in (spread, math.sqrt(2)):
        assert 10 <= NOISE_TOLERANCE / (each / 2 / math.sqrt(DEGREE)) < 12
    sizes = np.sqrt((drawn(batches=250).astype(float) ** 2).mean(axis=1) / NOISE_VARIANCE)
    assert np.abs(sizes - 1).max() < NOISE_TOLERANCE / 2


def sized(added: int, factor: float, chunks: int = 2) -> Noise:
    """Noise with this multiple of the root mean square that it should have, in every chunk."""
    size = math.sqrt(added * NOISE_VARIANCE) * factor
    random = np.random.default_rng(added).normal(size=(chunks, DEGREE))
    random *= size / np.sqrt((random**2).mean(axis=1, keepdims=True))
    out = np.rint(random).astype(np.int64)
    return np.clip(out, -NOISE_BOUND * added, NOISE_BOUND * added)


@pytest.mark.parametrize("added", COUNTS)
def test_noise_of_another_size(added: int) -> None:
    """CK-5.4: 12 % on both sides."""
    for factor in (0.9, 1.0, 1.1):
        check_noise(sized(added, factor), added)
    for factor in (0.0, 0.5, 0.86, 1.14, 1.5):
        with pytest.raises(BadNoise):
            check_noise(sized(added, factor), added)


@pytest.mark.parametrize("added", COUNTS)
def test_no_noise_is_no_noise(added: int) -> None:
    """CK-5.4: what was never encrypted has none."""
    with pytest.raises(BadNoise):
        check_noise(np.zeros((1, DEGREE), np.int64), added)


@pytest.mark.parametrize("added", [1, 3, 4, 8])
@pytest.mark.parametrize("place", [0, 5, DEGREE - 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_coefficient_beyond_the_bound(added: int, place: int, sign: int) -> None:
    """CK-5.4: 21·k, although the root mean square hardly changes."""
    noise = summed(added)
    noise[2, place] = sign * NOISE_BOUND * added
    check_noise(noise, added)
    noise[2, place] += sign
    assert math.sqrt((noise[2] ** 2).mean() / NOISE_VARIANCE / added) < 1 + NOISE_TOLERANCE
    with pytest.raises(BadNoise):
        check_noise(noise, added)


@pytest.mark.parametrize("chunk", range(4))
@pytest.mark.parametrize("factor", [0.8, 1.2])
@pytest.mark.parametrize("added", [1, 4, 64])
def test_one_bad_chunk_among_good_ones(chunk: int, factor: float, added: int) -> None:
    """CK-5.4 is for each chunk: all four together are within the tolerance."""
    noise = sized(added, 1.0, 4)
    check_noise(noise, added)
    noise[chunk] = sized(added, factor)[0]
    together = math.sqrt((noise**2).mean() / NOISE_VARIANCE / added)
    assert abs(together - 1) < NOISE_TOLERANCE / 2
    with pytest.raises(BadNoise):
        check_noise(noise, added)


@pytest.mark.parametrize("added", [1, 3, 4])
def test_the_noise_of_another_number_of_ciphertexts(added: int) -> None:
    """CK-5.4: a site more or less is more or less noise, as long as they are few."""
    for other in {1, 2, 3, 4, 6} - {added}:
        with pytest.raises(BadNoise):
            check_noise(summed(added), other)


@given(st.integers(1, 1024), st.integers(0, 2**32 - 1))
def test_what_is_no_noise_at_all(added: int, seed: int) -> None:
    """What opens to chance is uniform over a step: beyond 21·k somewhere, and too large."""
    half = 32 * next(2**k for k in range(11) if 2**k >= added)
    noise = np.random.default_rng(seed).integers(-half, half, (1, DEGREE))
    with pytest.raises(BadNoise):
        check_noise(noise, added)
