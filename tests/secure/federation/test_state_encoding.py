"""A state as bytes: one way to write it, and nothing is read that has another digest (RO-4.4)."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedbcs_secure.federation.state import ClassPrototypes, GlobalState

DOMAIN = b"fedbcs-secure global state v1\x00"
Floats = NDArray[np.float32]

BITS = st.integers(0, 2**32 - 1)
"""Any pattern of bits that a float32 can have, the NaNs and zeros of both signs included."""


def floats(shape: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Floats]:
    return arrays(np.uint32, shape, elements=BITS).map(lambda bits: bits.view(np.float32))


FLAT = floats(st.tuples(st.integers(0, 12)))
ROWS = floats(st.tuples(st.integers(0, 3), st.integers(0, 6)))
PROTOTYPES = st.builds(ClassPrototypes, st.integers(0, 9), st.integers(0, 300), ROWS)
STATES = st.builds(
    GlobalState,
    st.integers(0, 2**32 - 1),
    FLAT,
    FLAT,
    st.lists(PROTOTYPES, max_size=4).map(tuple),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5).map(tuple),
)


def make() -> GlobalState:
    rng = np.random.default_rng(3)
    return GlobalState(
        3,
        rng.standard_normal(5).astype(np.float32),
        np.array([0.0, -0.0, np.nan, np.inf], np.float32),
        (
            ClassPrototypes(0, 1, rng.standard_normal((1, 3)).astype(np.float32)),
            ClassPrototypes(1, 11, rng.standard_normal((2, 3)).astype(np.float32)),
        ),
        (-8, 3),
    )


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(DOMAIN + data).digest()


def written_out(state: GlobalState) -> bytes:
    """RO-4.4 once more, number by number."""
    out = struct.pack("<Q", state.round)
    for flat in (state.weights, state.velocity):
        out += struct.pack(f"<Q{flat.size}I", flat.size, *flat.view(np.uint32).tolist())
    out += struct.pack("<Q", len(state.prototypes))
    for item in state.prototypes:
        out += struct.pack("<QQQQ", item.view, item.label, *item.rows.shape)
        bits = np.ascontiguousarray(item.rows).view(np.uint32).ravel()
        out += struct.pack(f"<{bits.size}I", *bits.tolist())
    return out + struct.pack(f"<Q{len(state.exponents)}i", len(state.exponents), *state.exponents)


@given(STATES)
def test_every_state_comes_back_bit_for_bit(state: GlobalState) -> None:
    data = state.encode()
    assert data == written_out(state)
    assert digest_of(data) == state.digest
    again = GlobalState.decode(data, digest=state.digest)
    assert again.encode() == data
    assert again.digest == state.digest
    assert again.round == state.round
    assert again.exponents == state.exponents
    assert all(isinstance(e, int) for e in again.exponents)
    for mine, theirs in (
        (again.weights, state.weights),
        (again.velocity, state.velocity),
        *zip((p.rows for p in again.prototypes), (p.rows for p in state.prototypes), strict=True),
    ):
        assert mine.dtype == np.float32
        assert mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()
        assert not mine.flags.writeable


def test_it_holds_no_view_of_what_it_was_read_from() -> None:
    data = bytearray(make().encode())
    state = GlobalState.decode(data, digest=make().digest)  # type: ignore[arg-type]
    data[:] = bytes(len(data))
    assert state.encode() == make().encode()


def test_every_truncation_is_refused() -> None:
    data, digest = make().encode(), make().digest
    for length in range(len(data)):
        with pytest.raises(ValueError, match="not those of the state with this digest"):
            GlobalState.decode(data[:length], digest=digest)
        # And if a digest were made for it.
        with pytest.raises(ValueError, match="no state"):
            GlobalState.decode(data[:length], digest=digest_of(data[:length]))


def test_another_digest_is_refused_before_anything_is_read() -> None:
    state = make()
    for digest in (bytes(32), b"", state.digest[:-1], hashlib.sha256(state.encode()).digest()):
        with pytest.raises(ValueError, match="not those of the state with this digest"):
            GlobalState.decode(state.encode(), digest=digest)


def test_every_flipped_byte_is_refused() -> None:
    data, digest = make().encode(), make().digest
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        with pytest.raises(ValueError, match="not those of the state with this digest"):
            GlobalState.decode(flipped, digest=digest)


@given(st.binary(max_size=40))
def test_bytes_after_the_end_are_refused_whatever_their_digest(more: bytes) -> None:
    data = make().encode() + b"\0" + more
    with pytest.raises(ValueError, match="canonical form"):
        GlobalState.decode(data, digest=digest_of(data))


@given(st.integers(0, len(make().encode()) - 1), st.integers(1, 255))
def test_bytes_with_a_digest_of_their_own_are_a_state_or_nothing(at: int, flip: int) -> None:
    """Lengths that lie and numbers out of range: never another error, never another reading."""
    data = bytearray(make().encode())
    data[at] ^= flip
    try:
        state = GlobalState.decode(bytes(data), digest=digest_of(bytes(data)))
    except ValueError:
        return
    assert state.encode() == data


NUMBERS = 2**32, 2**62, 2**63, 2**64 - 1


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", ["round", "weights", "velocity", "prototypes", "exponents"])
def test_impossible_numbers_are_refused(number: int, place: str) -> None:
    """Nothing of that size is allocated: what is there is counted first."""
    values = dict.fromkeys(("round", "weights", "velocity", "prototypes", "exponents"), 0)
    data = struct.pack("<5Q", *(values | {place: number}).values())
    with pytest.raises(ValueError):
        GlobalState.decode(data, digest=digest_of(data))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("shape", [(0, 1), (1, 0), (1, 1)])
def test_impossible_prototypes_are_refused(number: int, shape: tuple[int, int]) -> None:
    rows, columns = (number if one else 0 for one in shape)
    data = struct.pack("<4Q", 0, 0, 0, 1) + struct.pack("<4Q", 0, 0, rows, columns)
    data += struct.pack("<Q", 0)
    try:
        state = GlobalState.decode(data, digest=digest_of(data))
    except ValueError:
        return
    assert state.encode() == data
