from __future__ import annotations

import hashlib
import pickle
import struct

import numpy as np
import pytest
import second_ckks as second
from ckks_world import SECRET, scratch
from hypothesis import given
from hypothesis import strategies as st
from tenseal import sealapi

from fedbcs_protocols.ckks import cipher as c
from fedbcs_protocols.ckks.cipher import Context, SecretContext, pack_words, unpack_words
from fedbcs_protocols.ckks.packing import pack
from fedbcs_protocols.ckks.params import DEGREE, PRIME, parameter_set
from fedbcs_protocols.errors import BadCiphertext, LocalError

PARAMS = parameter_set(4, 16)
STUDY = bytes(32)


def site(secret: bytes = SECRET, study: bytes = STUDY, epoch: int = 1) -> SecretContext:
    return SecretContext(PARAMS, scratch(), secret, study, epoch)


ZEROS = pack(np.zeros(PARAMS.capacity, np.uint32), PARAMS)


# Words -------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_words_come_back(seed: int) -> None:
    """CK-3.2"""
    words = np.random.default_rng(seed).integers(0, PRIME, DEGREE, dtype=np.uint64)
    words[:3] = (0, PRIME - 1, 1)
    data = pack_words(words)
    assert len(data) == c.POLYNOMIAL_BYTES == 30720
    assert np.array_equal(unpack_words(data, "x"), words)


def test_where_a_word_stands() -> None:
    """CK-3.2, word by word."""
    words = np.random.default_rng(0).integers(0, PRIME, DEGREE, dtype=np.uint64)
    packed = np.frombuffer(pack_words(words), "<u8").tolist()
    listed = words.tolist()
    for i, j in ((0, 0), (0, 255), (7, 31), (14, 0), (14, 255)):
        word = packed[256 * i + j]
        assert word % 2**60 == listed[256 * i + j]
        assert word >> 60 == listed[256 * 15 + j] >> (4 * i) & 15


@pytest.mark.parametrize("place", [0, 1, 255, 256, 3839, 3840, 4095])
@pytest.mark.parametrize("word", [PRIME, PRIME + 1, 2**60 - 1])
def test_no_residue(place: int, word: int) -> None:
    """CK-3.3"""
    words = np.zeros(DEGREE, np.uint64)
    words[place] = word
    with pytest.raises(BadCiphertext, match="no residue"):
        unpack_words(pack_words(words), "x")


@pytest.mark.parametrize("size", [0, 1, 30719, 30721, 61440])
def test_words_of_another_length(size: int) -> None:
    with pytest.raises(BadCiphertext, match="x: a polynomial of"):
        unpack_words(bytes(size), "x")


# Ciphertexts -------------------------------------------------------------------------------------


def test_equal_vectors_never_look_alike() -> None:
    """CK-3.1"""
    data = [site().encrypt(ZEROS) for _ in range(200)]
    assert {len(each) for each in data} == {c.FRESH_BYTES} == {30784}
    assert len({each[:64] for each in data}) == 200
    assert len({each[64:128] for each in data}) == 200


@pytest.mark.parametrize("size", [0, 63, 64, 30783, 30785, 61440])
def test_a_fresh_ciphertext_of_another_length(size: int) -> None:
    with pytest.raises(BadCiphertext, match="mallory: a ciphertext of"):
        Context(PARAMS, scratch()).fresh(bytes(size), "mallory")


@pytest.mark.parametrize("size", [0, 61439, 61441, 30784])
def test_a_sum_of_another_length(size: int) -> None:
    with pytest.raises(BadCiphertext, match="a ciphertext of"):
        Context(PARAMS, scratch()).both(bytes(size), "x")


def test_a_ciphertext_that_hides_nothing() -> None:
    """CK-3.5"""
    with pytest.raises(BadCiphertext, match="hides nothing"):
        Context(PARAMS, scratch()).both(pack_words(np.ones(DEGREE, np.uint64)) + bytes(30720), "x")


def test_what_was_read_is_written_again() -> None:
    context = Context(PARAMS, scratch())
    data = context.sum_bytes(context.fresh(site().encrypt(ZEROS), "x"))
    assert context.sum_bytes(context.both(data, "x")) == data


def test_after_a_refused_one_the_next_is_read_right() -> None:
    """Room that is used again holds nothing of the last one."""
    context, cipher = Context(PARAMS, scratch()), site()
    good = cipher.encrypt(ZEROS)
    before = context.sum_bytes(context.fresh(good, "x"))
    with pytest.raises(BadCiphertext):
        context.fresh(good[:64] + b"\xff" * 30720, "x")
    assert context.sum_bytes(context.fresh(good, "x")) == before


# Keys --------------------------------------------------------------------------------------------


def key_of(secret: bytes, study: bytes, epoch: int) -> list[int]:
    """The key in NTT form: what the decryption of (0, 1) gives."""
    context = site(secret, study, epoch)
    one = pack_words(np.zeros(DEGREE, np.uint64)) + pack_words(np.ones(DEGREE, np.uint64))
    plain = sealapi.Plaintext()
    context._decryptor.decrypt(context.both(one, "x"), plain)
    return [plain.data(at) for at in range(DEGREE)]


def test_sites_with_the_same_secret_have_the_same_key() -> None:
    """CK-4.1"""
    assert key_of(SECRET, STUDY, 1) == key_of(SECRET, STUDY, 1)
    others = [key_of(SECRET, STUDY, 2), key_of(bytes(32), STUDY, 1), key_of(SECRET, b"s" * 32, 1)]
    assert key_of(SECRET, STUDY, 1) not in others
    slots = site().decrypt(site().fresh(site().encrypt(ZEROS), "x"))
    assert np.abs(slots - ZEROS).max() < 1


def test_a_build_that_draws_other_keys_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-4.1: the known key is the second implementation's too, which SEAL has no part in."""
    key = second.secret_key(bytes(32), bytes(32), 1)
    words = second.transformed([value % PRIME for value in key])
    digest = hashlib.sha256(struct.pack(f"<{DEGREE}Q", *words)).digest()
    assert digest == c._KNOWN_KEY
    monkeypatch.setattr(c, "_build_is_checked", False)
    site()
    assert c._build_is_checked
    monkeypatch.setattr(c, "_build_is_checked", False)
    monkeypatch.setattr(c, "_KNOWN_KEY", bytes(32))
    with pytest.raises(LocalError, match="other secret keys"):
        site()
    # Who has no key has nothing to check.
    Context(parameter_set(4, 16), scratch())


def test_the_key_is_ternary_and_even() -> None:
    """CK-4.1: a chi-square of 8 keys' coefficients, false alarm 10^-6."""
    counts = np.zeros(3, int)
    for epoch in range(1, 9):
        polynomial = coefficients(key_of(SECRET, STUDY, epoch))
        assert set(polynomial) <= {0, 1, PRIME - 1}
        counts += [polynomial.count(value) for value in (0, 1, PRIME - 1)]
    expected = counts.sum() / 3
    assert ((counts - expected) ** 2 / expected).sum() < 27.6


def coefficients(words: list[int]) -> list[int]:
    """From SEAL's NTT form: word i is the value at ψ^(2·rev(i) + 1), ψ the least such root."""
    root = least_root()
    values = list(words)
    # The inverse of Cooley and Tukey's butterflies, Gentleman and Sande's.
    inverse = pow(root, -1, PRIME)
    powers = [1] * DEGREE
    for at in range(1, DEGREE):
        powers[at] = powers[at - 1] * inverse % PRIME
    bits = DEGREE.bit_length() - 1
    step, groups = 1, DEGREE // 2
    while groups >= 1:
        for group in range(groups):
            w = powers[int(f"{groups + group:0{bits}b}"[::-1], 2)]
            start = 2 * group * step
            for at in range(start, start + step):
                a, b = values[at], values[at + step]
                values[at] = (a + b) % PRIME
                values[at + step] = (a - b) * w % PRIME
        step, groups = 2 * step, groups // 2
    scale = pow(DEGREE, -1, PRIME)
    return [value * scale % PRIME for value in values]


def least_root() -> int:
    exponent = (PRIME - 1) // (2 * DEGREE)
    found = next(
        r for g in range(2, 100) if pow(r := pow(g, exponent, PRIME), DEGREE, PRIME) == PRIME - 1
    )
    square, best, root = found * found % PRIME, found, found
    for _ in range(DEGREE):
        root = root * square % PRIME
        best = min(best, root)
    return best


def test_a_key_says_nothing_of_itself() -> None:
    context = site()
    assert "redacted" in repr(context)
    with pytest.raises(TypeError):
        pickle.dumps(context)


# What SEAL saves ---------------------------------------------------------------------------------


def saved() -> bytes:
    context = site()
    context.encoder.encode([0j] * (DEGREE // 2), PARAMS.scale, context._plain)
    context._encryptor.encrypt_symmetric(context._plain).save(scratch().path)
    return scratch().read()


def test_words_are_stored_as_they_are() -> None:
    data = saved()
    content = bytes(c._content(data))
    assert content in data
    assert len(data) - len(content) < 64


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0), (2, 0), (5, 7), (8, 0), (16, 0), (20, 0x61), (23, 4), (23, 2)]
)
def test_a_form_that_is_not_known(at: int, value: int) -> None:
    """A build of SEAL that saves otherwise is found at once, and nothing is sent."""
    data = bytearray(saved())
    assert data[at] != value
    data[at] = value
    with pytest.raises(LocalError):
        c._content(bytes(data))


def test_without_compression_too() -> None:
    data = saved()
    content = bytes(c._content(data))
    header = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 0, 0, 16 + len(content))
    assert bytes(c._content(header + content)) == content
