"""Ciphertexts: what they are made of, what opens them, and what does not (CK-3)."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import ckks_slowly as slowly
import numpy as np
import pytest
from ckks_world import SECRET, World, binding, scratch
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks import ParameterSet, parameter_set
from fedbcs_protocols.ckks import cipher as c
from fedbcs_protocols.ckks.cipher import Decryptor, Encryptor
from fedbcs_protocols.ckks.packing import check_noise, unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.products import BATCH
from fedbcs_protocols.ckks.samples import NoiseStream, Small, upload_secret
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, add_residues, unpack_words
from fedbcs_protocols.errors import BadNoise, LocalError, SumOutOfRange
from fedbcs_protocols.ring import Words

PARAMS = parameter_set(4, 16)
TIGHT = parameter_set(8, 14)
"""Where chance gives digits that a sum can have: a digit has room for hardly more (CK-1.5)."""
SALT = hashlib.sha256(b"a salt").digest()
NOISE_KEY = hashlib.sha256(b"a noise key").digest()
SECRET_OF_ONE = upload_secret(SECRET, 1, binding(), "site0", SALT)


def encryptor(secret: Small = SECRET_OF_ONE, noise_key: bytes = NOISE_KEY) -> Encryptor:
    return Encryptor(PARAMS, binding(), secret, noise_key, scratch())


def drawn(count: int, params: ParameterSet = PARAMS, seed: int = 0) -> Words:
    random = np.random.default_rng(seed)
    return random.integers(0, 1 << params.bits, (count, params.capacity), dtype=np.uint32)


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + POLYNOMIAL_BYTES] for at in range(0, len(data), POLYNOMIAL_BYTES)]


def polynomials(data: bytes) -> NDArray[np.uint64]:
    return np.array([unpack_words(piece, "x") for piece in pieces(data)])


def less(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The difference modulo q."""
    return (one + (np.uint64(PRIME) - other)) % np.uint64(PRIME)


# What a ciphertext is ----------------------------------------------------------------------------


@pytest.mark.parametrize("params", [PARAMS, TIGHT], ids=["4-16-2", "8-14-3"])
def test_a_ciphertext_is_that_of_the_page(params: ParameterSet) -> None:
    """CK-3.1: all of an upload from its secret's inputs and the key of its noise, to the last bit.

    Two batches, the second of which is short; with the largest and the least values.
    """
    values = drawn(6, params)
    values[1], values[2] = (1 << params.bits) - 1, 0
    secret = upload_secret(SECRET, 3, binding(5), "site2", SALT)
    cipher = Encryptor(params, binding(5), secret, NOISE_KEY, scratch())
    got = cipher.encrypt(values[:4]) + cipher.encrypt(values[4:])
    s = slowly.upload_secret(SECRET, 3, binding(5), "site2", SALT)
    common, noise = slowly.common_polynomials(binding(5), 6), slowly.noise(NOISE_KEY, 6)
    for at, piece in enumerate(pieces(got)):
        m = slowly.packed(values[at].tolist(), params.sites, params.bits, params.fields)
        mask = slowly.product(common[at], s)
        b = [(x + e - a) % slowly.Q for x, e, a in zip(m, noise[at], mask, strict=True)]
        assert piece == slowly.written(b), at


def test_what_decryption_gives() -> None:
    """CK-3.5: the plaintext and the noise, nothing else."""
    values = drawn(6)
    cipher, opening = encryptor(), Decryptor(binding(), [SECRET_OF_ONE], scratch())
    noise = slowly.noise(NOISE_KEY, 6)
    for some in (slice(0, 4), slice(4, 6)):
        plain = opening.decrypt(polynomials(cipher.encrypt(values[some])))
        for at, got in enumerate(plain.tolist(), some.start):
            m = slowly.packed(values[at].tolist(), 4, 16, 2)
            assert got == [(x + e) % PRIME for x, e in zip(m, noise[at], strict=True)]


def test_decryption_takes_a_list_and_leaves_it_as_it_was() -> None:
    given = polynomials(encryptor().encrypt(drawn(3)))
    kept = given.copy()
    listed = Decryptor(binding(), [SECRET_OF_ONE], scratch()).decrypt(list(given))
    stacked = Decryptor(binding(), iter([SECRET_OF_ONE]), scratch()).decrypt(given)
    assert np.array_equal(listed, stacked)
    assert np.array_equal(given, kept)


@pytest.mark.parametrize("mask", [0, 1, 20, 21, 22, PRIME // 2, PRIME - 22, PRIME - 21, PRIME - 1])
@pytest.mark.parametrize("value", [0, 1, 65535])
def test_reduction_at_its_borders(mask: int, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-3.7: whatever the mask and the noise are, b is a residue, and the right one."""
    noise = np.resize(np.arange(-21, 22), (1, DEGREE))
    masks = np.full((1, DEGREE), mask, np.uint64)
    monkeypatch.setattr(c._Masks, "next", lambda self, count: masks)
    monkeypatch.setattr(NoiseStream, "next", lambda self, count: noise)
    (data,) = pieces(encryptor().encrypt(np.full((1, PARAMS.capacity), value, np.uint32)))
    m = value * (1 + 2**PARAMS.digit_bits) * PARAMS.scale
    expected = [(m + e - mask) % PRIME for e in noise[0].tolist()]
    assert unpack_words(data, "x").tolist() == expected


# Batches -----------------------------------------------------------------------------------------


def test_batches_are_one_stream() -> None:
    """CK-3.2, CK-3.4: a short batch, which can only be the last, is the start of a whole one."""
    values = drawn(8)
    whole = encryptor()
    data = whole.encrypt(values[:4]) + whole.encrypt(values[4:])
    for count in (1, 2, 3, 4, 5, 6, 7):
        cipher = encryptor()
        got = b"".join(cipher.encrypt(values[at : min(at + 4, count)]) for at in range(0, count, 4))
        assert pieces(got) == pieces(data)[:count]
    # Each chunk has a mask and noise of its own.
    same = encryptor()
    zeros = np.zeros((4, PARAMS.capacity), np.uint32)
    words = np.concatenate([polynomials(same.encrypt(zeros)) for _ in range(2)])
    assert len(np.unique(words)) == 8 * DEGREE


def test_decryption_in_batches() -> None:
    values, cipher = drawn(6), encryptor()
    sent = polynomials(cipher.encrypt(values[:4]) + cipher.encrypt(values[4:]))
    for count in (1, 3, 4, 5, 6):
        opening = Decryptor(binding(), [SECRET_OF_ONE], scratch())
        for at in range(0, count, 4):
            some = slice(at, min(at + 4, count))
            total, noise = unpack(opening.decrypt(sent[some]), PARAMS, 1)
            assert np.array_equal(total, values[some])
            check_noise(noise, 1)


@pytest.mark.parametrize("counts", [(1, 1), (3, 4), (4, 2, 4), (5,), (8,), (4, 5)])
def test_only_the_last_batch_is_short(counts: Sequence[int]) -> None:
    """A mask is never used for another chunk, and none is left out."""
    assert BATCH == 4
    cipher, opening = encryptor(), Decryptor(binding(), [SECRET_OF_ONE], scratch())
    zeros = np.zeros((8, DEGREE), np.uint64)
    for count in counts[:-1]:
        cipher.encrypt(drawn(count))
        opening.decrypt(zeros[:count])
    with pytest.raises(LocalError, match="whole batches"):
        cipher.encrypt(drawn(counts[-1]))
    with pytest.raises(LocalError, match="whole batches"):
        opening.decrypt(zeros[: counts[-1]])


def test_no_chunks_are_no_batch() -> None:
    opening = Decryptor(binding(), [SECRET_OF_ONE], scratch())
    with pytest.raises(LocalError, match="whole batches"):
        opening.decrypt([])


# What opens, and what does not -------------------------------------------------------------------


class Uploads:
    """A full sum's uploads of four chunks, and whoever can open what is made of them."""

    def __init__(self, params: ParameterSet) -> None:
        self.params = params
        self.names = [f"site{at}" for at in range(params.sites)]
        self.values = [drawn(4, params, at) for at in range(params.sites)]
        self.sent = {
            name: self.sending(name, values, self.secret(name))
            for name, values in zip(self.names, self.values, strict=True)
        }

    def salt(self, name: str) -> bytes:
        return hashlib.sha256(f"salt of {name}".encode()).digest()

    def secret(self, site: str, **changes: Any) -> Small:
        given = {"group": SECRET, "epoch": 1, "binding": binding(), "name": site}
        return upload_secret(**{**given, "salt": self.salt(site), **changes})

    def sending(self, name: str, values: Words, secret: Small) -> NDArray[np.uint64]:
        noise_key = hashlib.sha256(f"noise of {name}".encode()).digest()
        cipher = Encryptor(self.params, binding(), secret, noise_key, scratch())
        return polynomials(cipher.encrypt(values))

    def total(self, names: Sequence[str]) -> NDArray[np.uint64]:
        out = np.zeros((4, DEGREE), np.uint64)
        for name in names:
            add_residues(out, self.sent[name])
        return out

    def plain(
        self,
        total: NDArray[np.uint64],
        secrets: Sequence[Small] | None = None,
        place: Binding | None = None,
    ) -> NDArray[np.uint64]:
        """What a site opens that was told that all sites are in it."""
        opening = [self.secret(name) for name in self.names] if secrets is None else secrets
        return Decryptor(place or binding(), opening, scratch()).decrypt(total)


@lru_cache(maxsize=2)
def uploads_of(params: ParameterSet) -> Uploads:
    return Uploads(params)


BOTH = pytest.mark.parametrize("params", [PARAMS, TIGHT], ids=["4-16-2", "8-14-3"])


@BOTH
def test_the_honest_sum_opens(params: ParameterSet) -> None:
    """CK-3.5"""
    uploads = uploads_of(params)
    plain = uploads.plain(uploads.total(uploads.names))
    total, noise = unpack(plain, uploads.params, uploads.params.sites)
    assert np.array_equal(total, np.sum(uploads.values, axis=0))
    check_noise(noise, uploads.params.sites)


def wrongly(uploads: Uploads, kind: str) -> NDArray[np.uint64]:
    """What does not open, one case each."""
    names, total = uploads.names, uploads.total(uploads.names)
    secrets = [uploads.secret(name) for name in names]
    first, rest = names[0], secrets[1:]
    match kind:
        case "one missing":
            return uploads.plain(uploads.total(names[1:]))
        case "one too many":
            more = uploads.sending("mallory", uploads.values[0], uploads.secret("mallory"))
            add_residues(total, more)
            return uploads.plain(total)
        case "one twice":
            return uploads.plain(uploads.total([*names, first]))
        case "one twice, one missing":
            return uploads.plain(uploads.total([first, *names[:-1]]))
        case "one alone":
            return uploads.plain(uploads.total([first]))
        case "nothing":
            return uploads.plain(np.zeros((4, DEGREE), np.uint64))
        case "one less another":
            return uploads.plain(less(uploads.sent[first], uploads.sent[names[1]]))
        case "chunks swapped":
            return uploads.plain(total[[1, 0, 3, 2]])
        case "one site's chunks swapped":
            out = uploads.total(names[1:])
            add_residues(out, uploads.sent[first][[1, 0, 3, 2]])
            return uploads.plain(out)
        case "another salt":
            return uploads.plain(total, [uploads.secret(first, salt=bytes(32)), *rest])
        case "another epoch":
            return uploads.plain(total, [uploads.secret(first, epoch=2), *rest])
        case "another group":
            return uploads.plain(total, [uploads.secret(n, group=bytes(32)) for n in names])
        case "another name":
            return uploads.plain(total, [uploads.secret(first, name=names[1]), *rest])
        case "a secret too few":
            return uploads.plain(total, rest)
        case "a secret twice":
            return uploads.plain(total, [*secrets, secrets[0]])
        case "common polynomials of another attempt":
            return uploads.plain(total, place=binding(0, 1))
        case "all of another attempt":
            place = binding(0, 1)
            moved = [uploads.secret(name, binding=place) for name in names]
            return uploads.plain(total, moved, place)
        case "all of another state":
            place = replace(binding(), state_digest=bytes(32))
            moved = [uploads.secret(name, binding=place) for name in names]
            return uploads.plain(total, moved, place)
        case "no secret":
            # What the combiner has.
            return total
    raise AssertionError(kind)


CASES = """one missing|one too many|one twice|one twice, one missing|one alone|nothing
one less another|chunks swapped|one site's chunks swapped|another salt|another epoch|another group
another name|a secret too few|a secret twice|common polynomials of another attempt
all of another attempt|all of another state|no secret"""


@BOTH
@pytest.mark.parametrize("kind", CASES.replace("\n", "|").split("|"))
def test_nothing_else_opens(params: ParameterSet, kind: str) -> None:
    """CK-3.5: it is as good as random, and CK-5.3 or CK-5.4 refuses every chunk of it."""
    uploads = uploads_of(params)
    sites, plain = uploads.params.sites, wrongly(uploads, kind)
    # A chi-square of every chunk over 16 equal parts of the numbers below q, false alarm 10^-6.
    for chunk in plain:
        counts = np.bincount((chunk // np.uint64(PRIME // 16 + 1)).astype(int), minlength=16)
        assert ((counts - DEGREE / 16) ** 2 / (DEGREE / 16)).sum() < 56.5
    for at in range(4):
        with pytest.raises((SumOutOfRange, BadNoise)):
            check_noise(unpack(plain[at : at + 1], uploads.params, sites)[1], sites)


def test_where_digits_have_no_room_the_noise_refuses() -> None:
    """CK-5.4: chance can give digits that a sum can have; its noise is never right."""
    uploads, refused = uploads_of(TIGHT), 0
    for kind in ("one missing", "another salt", "chunks swapped", "no secret"):
        plain = wrongly(uploads, kind)
        for at in range(4):
            try:
                _, noise = unpack(plain[at : at + 1], TIGHT, 8)
            except SumOutOfRange:
                continue
            refused += 1
            with pytest.raises(BadNoise):
                check_noise(noise, 8)
    assert refused > 0


# Two uploads -------------------------------------------------------------------------------------


def test_equal_vectors_never_look_alike() -> None:
    """CK-3.3, CK-3.4: the same site, vector, key and sum, twice: no number is the same.

    Their difference is under the difference of two secrets, so it says nothing either.
    """
    worlds = [World(count=9000) for _ in range(2)]
    assert np.array_equal(*(world.vectors["site0"] for world in worlds))
    assert worlds[0].key == worlds[1].key
    assert len({world.salt("site0") for world in worlds}) == 2
    one, other = (polynomials(b"".join(world.chunks("site0"))) for world in worlds)
    assert len(one) == 2
    assert not np.intersect1d(one, other).size
    counts = np.bincount((less(one, other) >> np.uint64(56)).astype(int).reshape(-1), minlength=16)
    assert ((counts - counts.sum() / 16) ** 2 / (counts.sum() / 16)).sum() < 56.5


def test_what_a_salt_is_for() -> None:
    """CK-3.3: under one secret the difference of two uploads is that of what they hold."""
    values = drawn(1)
    one = polynomials(encryptor(noise_key=bytes(32)).encrypt(values))
    other = polynomials(encryptor(noise_key=NOISE_KEY).encrypt(values))
    difference = less(one, other)
    assert ((difference < 43) | (difference > PRIME - 43)).all()
    fresh = upload_secret(SECRET, 1, binding(), "site0", bytes(32))
    other = polynomials(encryptor(fresh).encrypt(values))
    difference = less(one, other)
    assert not ((difference < 2**40) | (difference > PRIME - 2**40)).any()


def test_ciphertexts_look_uniform() -> None:
    """CK-3.1: even those of zeros. A chi-square over 64 equal parts, false alarm 10^-6."""
    zeros = np.zeros((4, PARAMS.capacity), np.uint32)
    numbers = polynomials(encryptor().encrypt(zeros)).reshape(-1)
    counts = np.bincount((numbers // np.uint64(PRIME // 64 + 1)).astype(int), minlength=64)
    assert ((counts - numbers.size / 64) ** 2 / (numbers.size / 64)).sum() < 131


# Nothing leaks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["encryptor", "decryptor"])
def test_they_say_nothing_of_themselves(kind: str) -> None:
    made: object = encryptor()
    if kind == "decryptor":
        made = Decryptor(binding(), [SECRET_OF_ONE], scratch())
    assert repr(made) == str(made) == f"{kind.capitalize()}(secret redacted)"
    with pytest.raises(TypeError):
        pickle.dumps(made)
