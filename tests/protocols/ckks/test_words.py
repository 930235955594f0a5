"""Polynomials on the wire (CK-3.6, CK-3.7), and their sums."""

from __future__ import annotations

import struct

import ckks_slowly as slowly
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, add_residues, pack_words, unpack_words
from fedbcs_protocols.errors import BadCiphertext


def drawn(seed: int, top: int = PRIME) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, top, DEGREE, dtype=np.uint64)


# The form ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_words_come_back(seed: int) -> None:
    """CK-3.6"""
    words = drawn(seed)
    words[:3], words[-3:] = (0, PRIME - 1, 1), (PRIME - 1, 0, 1)
    data = pack_words(words)
    assert len(data) == POLYNOMIAL_BYTES == 30720
    assert np.array_equal(unpack_words(data, "x"), words)


@pytest.mark.parametrize("seed", range(3))
def test_the_form_is_that_of_the_page(seed: int) -> None:
    """CK-3.6, number by number."""
    words = drawn(seed)
    words[seed::7] = PRIME - 1
    assert pack_words(words) == slowly.written(words.tolist())


@pytest.mark.parametrize("place", [0, 1, 255, 256, 3839, 3840, 3841, 4095])
def test_where_a_number_stands(place: int) -> None:
    """CK-3.6: byte by byte, for a number that has sixteen different digits but for the first."""
    words = np.zeros(DEGREE, np.uint64)
    words[place] = 0x0EDC_BA98_7654_3210
    expected = bytearray(POLYNOMIAL_BYTES)
    if place < 15 * 256:
        expected[8 * place : 8 * place + 8] = bytes.fromhex("1032547698badc0e")
    else:
        for row, digit in enumerate(range(15)):
            # The lowest four bits go to the first row, above its own sixty.
            expected[8 * (256 * row + place - 15 * 256) + 7] = digit << 4
    assert pack_words(words) == bytes(expected)
    assert np.array_equal(unpack_words(bytes(expected), "x"), words)


def test_the_form_does_not_depend_on_the_machine() -> None:
    words = drawn(1)
    swapped = words.astype(">u8")
    assert pack_words(swapped) == pack_words(words)
    (first,) = struct.unpack_from("<Q", pack_words(words))
    assert first % 2**60 == int(words[0])


@given(st.integers(0, 2**32 - 1), st.integers(0, DEGREE - 1), st.integers(PRIME, 2**60 - 1))
def test_one_form_for_each_polynomial(seed: int, place: int, word: int) -> None:
    """CK-3.7: all bytes of the right length are a polynomial's only form, or no residue."""
    data = np.random.default_rng(seed).bytes(POLYNOMIAL_BYTES)
    words = unpack_words(data, "x")
    assert pack_words(words) == data
    words[place] = word
    with pytest.raises(BadCiphertext):
        unpack_words(pack_words(words), "x")
    words[place] = PRIME - 1
    assert np.array_equal(unpack_words(pack_words(words), "x"), words)


@given(st.integers(0, 8 * POLYNOMIAL_BYTES - 1))
def test_every_bit_counts(bit: int) -> None:
    """No two byte strings stand for one ciphertext."""
    words = drawn(3)
    data = bytearray(pack_words(words))
    data[bit // 8] ^= 1 << bit % 8
    try:
        changed = unpack_words(data, "x")
    except BadCiphertext:
        return
    assert (changed != words).sum() == 1


@pytest.mark.parametrize("place", [0, 1, 255, 256, 3839, 3840, 4095])
@pytest.mark.parametrize("word", [PRIME, PRIME + 1, 2**60 - 1])
def test_no_residue(place: int, word: int) -> None:
    """CK-3.7"""
    words = np.zeros(DEGREE, np.uint64)
    words[place] = word
    with pytest.raises(BadCiphertext, match="mallory: a coefficient that is no residue"):
        unpack_words(pack_words(words), "mallory")
    words[place] = PRIME - 1
    assert int(unpack_words(pack_words(words), "mallory")[place]) == PRIME - 1


@pytest.mark.parametrize("size", [0, 1, 8, 30712, 30719, 30721, 30728, 32768, 61440])
def test_words_of_another_length(size: int) -> None:
    """CK-3.7"""
    with pytest.raises(BadCiphertext, match=f"x: a ciphertext of {size} bytes, not 30720"):
        unpack_words(bytes(size), "x")


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_any_buffer_at_any_place(form: type) -> None:
    """A ciphertext stands wherever the frame has it."""
    words = drawn(4)
    data = form(b"odd" + pack_words(words) + b"end")
    assert np.array_equal(unpack_words(data[3:-3], "x"), words)


def test_room_that_is_used_again_holds_nothing_of_the_last() -> None:
    """Also after one that was refused."""
    room, words = np.full(DEGREE, 2**64 - 1, np.uint64), drawn(5)
    assert unpack_words(pack_words(words), "x", room) is room
    assert np.array_equal(room, words)
    with pytest.raises(BadCiphertext):
        unpack_words(b"\xff" * POLYNOMIAL_BYTES, "x", room)
    unpack_words(pack_words(words), "x", room)
    assert np.array_equal(room, words)


def test_what_was_read_can_be_changed() -> None:
    """It is no view of the frame."""
    data = bytearray(pack_words(drawn(6)))
    words = unpack_words(data, "x")
    words += np.uint64(1)
    assert data == pack_words(drawn(6))


# Sums --------------------------------------------------------------------------------------------

EDGES = (0, 1, 2, PRIME // 2, PRIME // 2 + 1, PRIME - 2, PRIME - 1)


def test_sums_of_residues() -> None:
    """CK-3.5: all pairs of edges; what comes out is a residue again."""
    pairs = [(a, b) for a in EDGES for b in EDGES]
    total = np.array([a for a, _ in pairs], np.uint64)
    add_residues(total, np.array([b for _, b in pairs], np.uint64))
    assert total.tolist() == [(a + b) % PRIME for a, b in pairs]


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_sums_of_many(seed: int, count: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, PRIME, (count, 2, 8), dtype=np.uint64)
    numbers[:, 0, 0] = PRIME - 1
    total = np.zeros((2, 8), np.uint64)
    kept = numbers.copy()
    for each in numbers:
        add_residues(total, each)
    columns = numbers.reshape(count, -1).T.tolist()
    exact = [sum(column) % PRIME for column in columns]
    assert total.reshape(-1).tolist() == exact
    assert np.array_equal(numbers, kept)
