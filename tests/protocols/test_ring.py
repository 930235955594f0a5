from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_protocols import ring
from fedbcs_protocols.errors import LocalError, MalformedFrame

bit_widths = st.integers(8, 32)
counts = st.one_of(st.integers(1, 200), st.sampled_from([ring.BLOCK - 1, ring.BLOCK + 40]))


def random_words(count: int, bits: int, seed: int) -> NDArray[np.uint32]:
    return np.random.default_rng(seed).integers(0, 1 << bits, count, dtype=np.uint32)


@given(bit_widths, counts, st.integers(0, 2**32))
def test_pack_unpack(bits: int, count: int, seed: int) -> None:
    values = random_words(count, bits, seed)
    packed = ring.pack(values, bits)
    assert len(packed) == ring.packed_bytes(count, bits)
    assert np.array_equal(ring.unpack(packed, count, bits), values)


@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("count", [1, 31, 32, 33, 1000])
def test_extreme_values(bits: int, count: int) -> None:
    values = np.full(count, (1 << bits) - 1, np.uint32)
    assert np.array_equal(ring.unpack(ring.pack(values, bits), count, bits), values)


@given(bit_widths, st.integers(1, 100), st.integers(0, 2**32))
def test_packed_form_is_that_of_the_specification(bits: int, count: int, seed: int) -> None:
    """CO-2.2 with Python integers: each column is one number of 32·bits bits."""
    values = random_words(count, bits, seed).tolist()
    columns = -(-count // 32)
    values += [0] * (32 * columns - count)
    numbers = [
        sum(values[row * columns + column] << row * bits for row in range(32))
        for column in range(columns)
    ]
    words = [number >> 32 * word & 0xFFFFFFFF for word in range(bits) for number in numbers]
    expected = b"".join(word.to_bytes(4, "little") for word in words)
    assert ring.pack(np.array(values[:count], np.uint32), bits) == expected


@given(bit_widths, st.integers(1, 100), st.data())
def test_every_packed_form_is_canonical(bits: int, count: int, data: st.DataObject) -> None:
    """What unpack accepts, pack writes again."""
    size = ring.packed_bytes(count, bits)
    noise = data.draw(st.binary(min_size=size, max_size=size))
    try:
        values = ring.unpack(noise, count, bits)
    except MalformedFrame:
        columns = -(-count // 32)
        assert 32 * columns > count
    else:
        assert ring.pack(values, bits) == noise


@pytest.mark.parametrize("bits", [8, 13, 18, 31, 32])
@pytest.mark.parametrize("count", [1, 30, 33, 63, ring.BLOCK + 1])
def test_each_filled_value_is_checked(bits: int, count: int) -> None:
    rest = count % ring.BLOCK
    columns = -(-rest // 32)
    tail = np.zeros(32 * columns, np.uint32)
    full = ring.pack(np.zeros(count - rest, np.uint32), bits) if count > rest else b""
    for index in range(rest, 32 * columns):
        for value in (1, 1 << (bits - 1)):
            tail[:] = 0
            tail[index] = value
            with pytest.raises(MalformedFrame, match="filling"):
                ring.check_packed(full + ring.pack(tail, bits), count, bits)


@pytest.mark.parametrize("change", [-4, -1, 1, 4])
def test_length_is_checked_before_allocation(change: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame, match="instead of"):
            ring.unpack(bytes(80 + change), ring.MAX_COUNT, 20)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_misuse_of_pack() -> None:
    good = np.zeros(40, np.uint32)
    bad: list[Any] = [good.astype(np.int64), good.reshape(2, 20), good[:0]]
    for values in bad:
        with pytest.raises(LocalError):
            ring.pack(values, 20)
    with pytest.raises(LocalError, match="does not fit"):
        ring.pack(np.full(40, 1 << 20, np.uint32), 20)
    for pieces in ([], [good, good], [good[:-1]]):
        with pytest.raises(LocalError, match="piece"):
            ring.pack_blocks(pieces, 40, 20)
    for bits in (7, 33):
        with pytest.raises(LocalError, match="bits"):
            ring.pack(good, bits)
    with pytest.raises(LocalError):
        ring.packed_bytes(ring.MAX_COUNT + 1, 20)


def test_strided_vectors_pack_too() -> None:
    values = random_words(2 * ring.BLOCK, 20, 0)[::2]
    assert ring.pack(values, 20) == ring.pack(values.copy(), 20)


def test_unpack_reads_from_any_offset() -> None:
    values = random_words(500, 21, 1)
    shifted = memoryview(b"xyz" + ring.pack(values, 21))[3:]
    assert np.array_equal(ring.unpack(shifted, 500, 21), values)


def test_ring_bits() -> None:
    assert [ring.ring_bits(16, n) for n in (1, 2, 3, 4, 5, 8, 9, 64, 65)] == [
        *(16, 17, 18, 18, 19, 19, 20, 22, 23)
    ]
    for bits, sites in ((30, 5), (16, 0), (7, 1)):
        with pytest.raises(LocalError):
            ring.ring_bits(bits, sites)


@given(bit_widths, st.integers(1, 8), st.integers(0, 2**32))
def test_accumulator_is_the_sum(bits: int, vectors: int, seed: int) -> None:
    values = random_words(vectors * 70, bits, seed).reshape(vectors, 70)
    accumulator = ring.Accumulator(70, bits)
    for row in values:
        accumulator.add(ring.pack(row, bits))
    expected = [sum(column) % (1 << bits) for column in values.T.tolist()]
    assert accumulator.total().tolist() == expected
    assert accumulator.added == vectors


def test_a_bad_vector_adds_nothing() -> None:
    accumulator = ring.Accumulator(70, 20)
    with pytest.raises(MalformedFrame):
        accumulator.add(bytes(3))
    assert accumulator.added == 0
    assert not accumulator.total().any()


def test_the_total_is_a_copy() -> None:
    accumulator = ring.Accumulator(1, 8)
    accumulator.total()[0] = 9
    assert accumulator.total()[0] == 0
