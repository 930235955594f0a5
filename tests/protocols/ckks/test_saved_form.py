"""What SEAL saved is read strictly: no endless loop, no half of it, no index error."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ckks_world import scratch
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.ckks import products
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.products import _content
from fedbcs_protocols.errors import LocalError

RAW, RUN, COMPRESSED = 0, 1, 2
FRAME = struct.pack("<IBQ", 0xFD2FB528, 0x20 | 3 << 6, 0)


def saved(piece: bytes, mode: int = 2, **changes: int) -> bytes:
    header = {"magic": 0xA15E, "header": 16, "size": 16 + len(piece), **changes}
    start = struct.pack("<HB", header["magic"], header["header"])
    return start + struct.pack("<BBBHQ", 4, 3, mode, 0, header["size"]) + piece


def block(data: bytes, last: bool = True, kind: int = RAW, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    return (length << 3 | kind << 1 | last).to_bytes(3, "little") + data


GOOD = saved(FRAME + block(b"one ", last=False) + block(b"two"))


def test_blocks_that_are_stored_as_they_are() -> None:
    assert bytes(_content(GOOD)) == b"one two"
    assert bytes(_content(saved(FRAME + block(b"one")))) == b"one"
    assert bytes(_content(saved(b"as it is", mode=0))) == b"as it is"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:3],
        GOOD[:16],
        saved(b""),
        saved(FRAME[:4]),
        saved(FRAME),
        saved(FRAME + block(b"one", last=False)),
        saved(FRAME + block(b"one", size=4)),
        saved(FRAME + block(b"one", size=2**20)),
        saved(FRAME + block(b"o", kind=RUN)),
        saved(FRAME + block(b"one", last=False) + block(b"one", kind=COMPRESSED)),
        saved(FRAME + block(b"one"), mode=1),
        saved(FRAME + block(b"one"), mode=3),
        saved(FRAME + block(b"one"), magic=0xA15F),
        saved(FRAME + block(b"one"), header=17),
        saved(FRAME + block(b"one"), size=0),
        saved(FRAME + block(b"one"), size=36),
        saved(b"\x29" + FRAME[1:] + block(b"one")),
        # A checksum, a dictionary, a window: other frame headers.
        saved(FRAME[:4] + b"\xe4" + FRAME[5:] + block(b"one")),
        saved(FRAME[:4] + b"\xe1" + FRAME[5:] + block(b"one")),
        saved(FRAME[:4] + b"\xc0" + FRAME[5:] + block(b"one")),
    ],
    ids=range(21),
)
def test_another_form(data: bytes) -> None:
    with pytest.raises(LocalError):
        _content(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_damage_of_any_kind(place: int, value: int, end: int) -> None:
    """It ends, with something or with the one error."""
    damaged = bytearray(GOOD[:end])
    if place < end:
        damaged[place] = value
    try:
        _content(bytes(damaged))
    except LocalError:
        return


# What SEAL saves indeed ---------------------------------------------------------------------------


def seals_own() -> bytes:
    """Four polynomials as SEAL wrote them."""
    ring = products._Ring(scratch())
    words = np.random.default_rng(0).integers(0, PRIME, (4, DEGREE), dtype=np.uint64)
    ring._loaded(words).save(scratch().path)
    return scratch().read()


def test_words_are_stored_as_they_are() -> None:
    data = seals_own()
    content = bytes(_content(data))
    words = np.random.default_rng(0).integers(0, PRIME, (4, DEGREE), dtype=np.uint64)
    assert content.endswith(words.astype("<u8").tobytes())
    assert len(data) - len(content) < 64


def test_what_is_loaded_is_what_was_given() -> None:
    """Word by word, without any arithmetic in between."""
    ring = products._Ring(scratch())
    words = np.random.default_rng(1).integers(0, PRIME, (4, DEGREE), dtype=np.uint64)
    words[:, ::100] = PRIME - 1
    assert np.array_equal(ring._words(ring._loaded(words), 4), words)


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0), (2, 0), (5, 1), (5, 7), (8, 0), (16, 0), (20, 0x61)]
)
def test_another_form_of_the_same(at: int, value: int) -> None:
    """A build of SEAL that saves otherwise is found at once, and nothing is sent."""
    data = bytearray(seals_own())
    assert data[at] != value
    data[at] = value
    with pytest.raises(LocalError):
        _content(bytes(data))


def test_without_compression_too() -> None:
    content = bytes(_content(seals_own()))
    assert bytes(_content(saved(content, mode=0))) == content


def test_polynomials_with_a_pattern_are_refused() -> None:
    """SEAL compresses them, and what is compressed is not read."""
    ring = products._Ring(scratch())
    with pytest.raises(LocalError, match="compressed"):
        ring._words(ring._loaded(np.ones((4, DEGREE), np.uint64)), 4)
