"""Vectors of integers modulo 2^m, 8 <= m <= 32, and their packed form of m bits a value.

Packed form, planar: values are taken in blocks of 32 rows by 8192 columns, row after row (the last
block has 32 rows by as few columns as hold the rest, and is filled up with zeros). Each column of
32 values becomes m words of 32 bits: value r occupies bits r·m to r·m + m - 1 of the column's m·32
bits, lowest first. Word w of all columns follows word w - 1 of all columns; words are
little-endian. So every step moves a whole row of words, which is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.errors import LocalError, MalformedFrame

Words: TypeAlias = NDArray[np.uint32]
Buffer: TypeAlias = bytes | bytearray | memoryview

MIN_BITS, MAX_BITS = 8, 32
MAX_COUNT = 2**30
ROWS = 32
COLUMNS = 8192
BLOCK = ROWS * COLUMNS
"""Values in a full block."""

_WIRE = np.dtype("<u4")


def ring_bits(bits: int, sites: int) -> int:
    """Bits m = bits + ceil(log2 sites) that hold the sum of ``sites`` values below 2^bits.

    Raises :class:`LocalError` when m leaves 8..32.
    """
    if sites < 1:
        raise LocalError(f"a sum needs at least one site, got {sites}")
    return _checked_bits(bits + (sites - 1).bit_length())


def modulus_mask(bits: int) -> np.uint32:
    """2^bits - 1."""
    return np.uint32((1 << _checked_bits(bits)) - 1)


def packed_bytes(count: int, bits: int) -> int:
    """Length of the packed form of ``count`` values."""
    full, rest = divmod(_checked_count(count), BLOCK)
    return 4 * _checked_bits(bits) * (full * COLUMNS + -(-rest // ROWS))


def add_in_place(total: Words, values: Words, bits: int) -> None:
    """``total`` += ``values`` modulo 2^bits; both (count,) uint32."""
    np.add(total, values, out=total)
    if bits < MAX_BITS:
        np.bitwise_and(total, modulus_mask(bits), out=total)


def blocks(count: int) -> Iterator[slice]:
    """The slices of a vector that are packed together."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def pack(values: Words, bits: int) -> bytes:
    """The packed form of (count,) uint32 ``values``, all below 2^bits.

    Raises :class:`LocalError` for another type or shape or a value that does not fit.
    """
    if values.dtype != np.uint32 or values.ndim != 1:
        raise LocalError("only a one-dimensional uint32 vector can be packed")
    pieces = (values[where] for where in blocks(values.size))
    return bytes(pack_blocks(pieces, values.size, bits))


def pack_blocks(pieces: Iterable[Words], count: int, bits: int) -> bytearray:
    """As :func:`pack`, from consecutive pieces cut by :func:`blocks`.

    Each piece is packed before the next is asked for, so a caller may yield the same array again
    and again. Raises :class:`LocalError` when the pieces are not those of ``count`` values.
    """
    out = bytearray(packed_bytes(count, bits))
    words = np.frombuffer(out, _WIRE)
    limit = int(modulus_mask(bits))
    scratch = np.empty(COLUMNS, np.uint32)
    position = 0
    waiting = iter(pieces)
    for where in blocks(count):
        piece = next(waiting, None)
        if piece is None or piece.shape != (where.stop - where.start,):
            raise LocalError("a piece does not have the length of its block")
        if bits < MAX_BITS and int(piece.max()) > limit:
            raise LocalError(f"a value does not fit into {bits} bits")
        columns = -(-piece.size // ROWS)
        if piece.size != ROWS * columns or not piece.flags.c_contiguous:
            padded = np.zeros(ROWS * columns, np.uint32)
            padded[: piece.size] = piece
            piece = padded
        target = words[position : position + bits * columns].reshape(bits, columns)
        _pack_block(piece.reshape(ROWS, columns), bits, target, scratch[:columns])
        position += target.size
    if next(waiting, None) is not None:
        raise LocalError("there are more pieces than blocks")
    return out


def _pack_block(
    values: Words, bits: int, out: NDArray[np.uint32], scratch: NDArray[np.uint32]
) -> None:
    for row in range(ROWS):
        word, shift = divmod(row * bits, 32)
        if shift == 0:
            out[word] = values[row]
            continue
        np.left_shift(values[row], shift, out=scratch)
        np.bitwise_or(out[word], scratch, out=out[word])
        if shift + bits > 32:
            np.right_shift(values[row], 32 - shift, out=out[word + 1])


def check_packed(data: Buffer, count: int, bits: int) -> None:
    """Return when ``data`` is the packed form of some ``count`` values of ``bits`` bits.

    Raises :class:`MalformedFrame` for another length or for filling that is not zero. Allocates
    nothing.
    """
    expected = packed_bytes(count, bits)
    # CO-2.3: exact length.
    if len(data) != expected:
        raise MalformedFrame(
            "packed vector", f"{len(data)} bytes instead of {expected} for {count} values"
        )
    # CO-2.4: one vector, one form: the filling of the last block is zero.
    rest = count % BLOCK
    columns = -(-rest // ROWS)
    tail = memoryview(data)[expected - 4 * bits * columns :]
    for index in range(rest, ROWS * columns):
        if _value_at(tail, index, columns, bits):
            raise MalformedFrame("packed vector", "the filling after the last value is not zero")


def _value_at(block: memoryview, index: int, columns: int, bits: int) -> int:
    row, column = divmod(index, columns)
    word, shift = divmod(row * bits, 32)
    start = 4 * (word * columns + column)
    value = int.from_bytes(block[start : start + 4], "little")
    if shift + bits > 32:
        start += 4 * columns
        value |= int.from_bytes(block[start : start + 4], "little") << 32
    return (value >> shift) & ((1 << bits) - 1)


def unpack(data: Buffer, count: int, bits: int) -> Words:
    """The (count,) uint32 values of a packed form.

    Length and filling are checked before the result is allocated; raises :class:`MalformedFrame`.
    """
    check_packed(data, count, bits)
    out = np.empty(count, np.uint32)
    for where, piece in unpack_blocks(data, count, bits):
        out[where] = piece
    return out


def unpack_blocks(data: Buffer, count: int, bits: int) -> Iterator[tuple[slice, Words]]:
    """Each block's place and values, in order; the array is reused for the next block.

    The caller has run :func:`check_packed`.
    """
    words = np.frombuffer(data, _WIRE)
    mask = modulus_mask(bits)
    size = min(BLOCK, ROWS * -(-count // ROWS))
    values = np.empty(size, np.uint32)
    source = np.empty(size // ROWS * bits, np.uint32)
    scratch = np.empty(COLUMNS, np.uint32)
    position = 0
    for where in blocks(count):
        length = where.stop - where.start
        columns = -(-length // ROWS)
        # A copy, because the words lie unaligned inside a frame.
        block = source[: bits * columns]
        block[:] = words[position : position + block.size]
        target = values[: ROWS * columns]
        _unpack_block(
            block.reshape(bits, columns), bits, mask, target.reshape(ROWS, columns), scratch
        )
        position += block.size
        yield where, target[:length]


def _unpack_block(
    block: Words, bits: int, mask: np.uint32, out: Words, scratch: NDArray[np.uint32]
) -> None:
    spill = scratch[: block.shape[1]]
    for row in range(ROWS):
        word, shift = divmod(row * bits, 32)
        np.right_shift(block[word], shift, out=out[row])
        if shift + bits > 32:
            np.left_shift(block[word + 1], 32 - shift, out=spill)
            np.bitwise_or(out[row], spill, out=out[row])
        if shift + bits != 32:
            np.bitwise_and(out[row], mask, out=out[row])


class Accumulator:
    """The running sum modulo 2^bits of packed vectors; more vectors need no more memory."""

    def __init__(self, count: int, bits: int) -> None:
        self.count = _checked_count(count)
        self.bits = _checked_bits(bits)
        self.added = 0
        self._total = np.zeros(count, np.uint32)

    def add(self, packed: Buffer) -> None:
        """Add one packed vector. Raises :class:`MalformedFrame` and then has added nothing."""
        check_packed(packed, self.count, self.bits)
        for where, piece in unpack_blocks(packed, self.count, self.bits):
            add_in_place(self._total[where], piece, self.bits)
        self.added += 1

    def total(self) -> Words:
        """A copy of the sum so far, (count,) uint32."""
        return self._total.copy()


def _checked_bits(bits: int) -> int:
    if not MIN_BITS <= bits <= MAX_BITS:
        raise LocalError(f"a ring has {MIN_BITS} to {MAX_BITS} bits, asked for {bits}")
    return bits


def _checked_count(count: int) -> int:
    if not 1 <= count <= MAX_COUNT:
        raise LocalError(f"a vector has 1 to 2^30 values, asked for {count}")
    return count
