from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import MalformedFrame
from fedbcs_protocols.framelist import decode_frames, encode_frames, frames_limit

LONGEST = 40
lists = st.lists(st.none() | st.binary(min_size=1, max_size=LONGEST), min_size=1, max_size=7).map(
    tuple
)


def _decode(body: bytes, sites: int, longest: int = LONGEST) -> tuple[bytes | None, ...]:
    return decode_frames(body, sender="bern", sites=sites, longest=longest, what="list")


def _refused(body: bytes, sites: int, match: str, longest: int = LONGEST) -> None:
    with pytest.raises(MalformedFrame, match=match) as caught:
        _decode(body, sites, longest)
    assert caught.value.sender == "bern"


@given(lists)
def test_there_and_back(frames: tuple[bytes | None, ...]) -> None:
    body = encode_frames(frames)
    # Written out: SA-2.1, GK-3.1.
    assert body == struct.pack(">H", len(frames)) + b"".join(
        struct.pack(">I", len(frame or b"")) + (frame or b"") for frame in frames
    )
    assert _decode(body, len(frames)) == frames
    assert _decode(memoryview(body), len(frames)) == frames
    assert len(body) <= frames_limit(len(frames), LONGEST)
    for other in {len(frames) + 1, len(frames) - 1, 0}:
        _refused(body, other, f"the list is not one for {other} sites")


def test_the_limit_is_reached() -> None:
    assert len(encode_frames([bytes(LONGEST)] * 5)) == frames_limit(5, LONGEST)
    assert encode_frames([]) == b"\0\0"
    assert _decode(b"\0\0", 0) == ()


@given(lists, st.data())
def test_what_is_accepted_is_what_is_written(
    frames: tuple[bytes | None, ...], data: st.DataObject
) -> None:
    body = bytearray(encode_frames(frames))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[len(body) - data.draw(st.integers(0, min(4, len(body)))) :]
    body += data.draw(st.binary(max_size=4))
    try:
        decoded = _decode(bytes(body), len(frames))
    except MalformedFrame:
        return
    assert encode_frames(decoded) == body


def test_what_is_no_list() -> None:
    good = encode_frames([b"abc", None])
    for body in (b"", b"\0"):
        _refused(body, 2, "not one for 2")
    for end in range(2, len(good)):
        _refused(good[:end], 2, "ends early|impossible length")
    _refused(good + b"\0", 2, "after the end of the list")
    _refused(encode_frames([bytes(LONGEST + 1), None]), 2, "a frame in the list has an impossible")
    _refused(b"\0\2" + b"\xff" * 4 + bytes(100), 2, "impossible", longest=1 << 33)


def test_frames_are_copies() -> None:
    """A view into a buffer that is used again would change under the reader."""
    body = bytearray(encode_frames([b"abc"]))
    (frame,) = _decode(body, 1)
    body[-1] = 0
    assert frame == b"abc"
    assert isinstance(frame, bytes)
