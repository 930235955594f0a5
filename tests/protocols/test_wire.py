from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import (
    BadSignature,
    LocalError,
    MalformedFrame,
    ProtocolError,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import (
    MAX_OVERHEAD_BYTES,
    Frame,
    Kind,
    Limits,
    decode,
    expect_sequence,
    open_frame,
    seal,
)

ANNA = Identity.from_secret_bytes(bytes(range(32)))
BOB = Identity.from_secret_bytes(bytes(range(1, 33)))
BINDING = Binding(b"s" * 32, 3, 1, 2, b"t" * 32)
FRAME = Frame(Kind.ADVERTISE, BINDING, "anna", 5, b"a body of some bytes")
SEALED = seal(FRAME, ANNA)
LIMITS: Limits = {Kind.ADVERTISE: 40}

digests = st.binary(min_size=32, max_size=32)
frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    binding=st.builds(
        Binding,
        digests,
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**16 - 1),
        st.integers(0, 255),
        digests,
    ),
    sender=st.one_of(
        st.just(COMBINER),
        st.from_regex(r"[A-Za-z0-9][\w.-]{0,31}\Z", fullmatch=True).filter(str.isascii),
    ),
    sequence=st.integers(0, 2**32 - 1),
    body=st.binary(max_size=60),
    signature=st.binary(min_size=64, max_size=64),
)
ALL: Limits = dict.fromkeys(Kind, 60)


def opened(data: bytes | bytearray | memoryview, **changes: Any) -> Frame:
    arguments: dict[str, Any] = {
        "roster": {"anna": ANNA.public, "bob": BOB.public},
        "expect": BINDING,
        "limits": LIMITS,
    }
    return open_frame(data, **{**arguments, **changes})


@given(frames)
def test_encode_decode(frame: Frame) -> None:
    data = frame.encode()
    assert decode(data, ALL) == frame
    assert len(data) <= MAX_OVERHEAD_BYTES + len(frame.body)


@given(st.binary(max_size=300))
def test_noise_is_no_frame(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode(data, ALL)


@given(frames, st.data())
def test_what_decode_accepts_encode_writes(frame: Frame, data: st.DataObject) -> None:
    """One frame, one encoding: a mutated frame is refused or is another frame's own encoding."""
    mutated = bytearray(frame.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        other = decode(bytes(mutated), ALL)
    except ProtocolError:
        return
    assert other.encode() == mutated


@given(st.data())
def test_every_mutation_is_refused(data: st.DataObject) -> None:
    mutated = bytearray(SEALED)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(mutated)))
        action = data.draw(st.sampled_from(["flip", "insert", "delete", "cut"]))
        if action == "flip" and position < len(mutated):
            mutated[position] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "insert":
            mutated[position:position] = data.draw(st.binary(min_size=1, max_size=8))
        elif action == "delete":
            del mutated[position : position + data.draw(st.integers(1, 8))]
        else:
            del mutated[position:]
    if mutated == SEALED:
        return
    with pytest.raises(ProtocolError):
        opened(bytes(mutated))


def test_every_single_bit_counts() -> None:
    for position in range(len(SEALED)):
        mutated = bytearray(SEALED)
        mutated[position] ^= 1
        with pytest.raises(ProtocolError):
            opened(bytes(mutated))


def test_open_returns_the_frame() -> None:
    frame = opened(SEALED)
    assert replace(frame, signature=FRAME.signature) == FRAME
    assert opened(bytearray(SEALED)) == opened(memoryview(SEALED)) == frame


def test_the_body_is_a_view() -> None:
    body = opened(SEALED).body
    assert isinstance(body, memoryview)
    assert body.obj is SEALED
    assert body.readonly


def test_anothers_signature() -> None:
    with pytest.raises(BadSignature) as caught:
        opened(seal(FRAME, BOB))
    assert caught.value.sender == "anna"


def test_a_signature_is_for_frames_only() -> None:
    """Without the domain tag a signature from elsewhere could be used as a frame's."""
    naked = FRAME.signed_message().removeprefix(b"fedbcs-secure frame v1\x00")
    assert naked != FRAME.signed_message()
    with pytest.raises(BadSignature):
        opened(replace(FRAME, signature=ANNA.sign(naked)).encode())


def test_unknown_sender() -> None:
    with pytest.raises(UnknownSender) as caught:
        opened(SEALED, roster={"bob": BOB.public})
    assert caught.value.sender == "anna"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"study_digest": bytes(32)}, "study digest"),
        ({"round": 4}, "round"),
        ({"attempt": 0}, "attempt"),
        ({"phase": 0}, "phase"),
        ({"state_digest": bytes(32)}, "state digest"),
        ({"attempt": 0, "state_digest": bytes(32)}, "attempt"),
    ],
)
def test_wrong_binding_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(WrongBinding) as caught:
        opened(SEALED, expect=replace(BINDING, **change))
    assert caught.value.field == field
    assert caught.value.sender == "anna"


def test_sequence() -> None:
    expect_sequence(FRAME, 5)
    with pytest.raises(WrongBinding, match="sequence"):
        expect_sequence(FRAME, 4)


def test_kinds_and_limits() -> None:
    with pytest.raises(UnexpectedFrame, match="ADVERTISE"):
        opened(SEALED, limits={Kind.SUM: 40})
    with pytest.raises(MalformedFrame, match="20 bytes, at most 19"):
        opened(SEALED, limits={Kind.ADVERTISE: 19})
    with pytest.raises(MalformedFrame, match="no frame that is expected"):
        opened(SEALED + bytes(100), limits=LIMITS)
    with pytest.raises(UnexpectedFrame):
        opened(SEALED, limits={})
    opened(SEALED, limits={Kind.ADVERTISE: 20})


@pytest.mark.parametrize(
    "change",
    [
        {"sender": ""},
        {"sender": "ä"},
        {"sender": "x" * 33},
        {"sequence": -1},
        {"sequence": 2**32},
        {"signature": bytes(63)},
    ],
)
def test_frames_without_encoding(change: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        replace(FRAME, **change)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_frame_shows_no_body(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    """It may be a share, or a vector in the clear."""
    frame = replace(FRAME, body=kind(FRAME.body))
    for text in (repr(frame), str(frame), f"{[frame]}"):
        assert "anna" in text
        for shown in ("body", "some bytes", FRAME.body.hex(), str(list(FRAME.body))):
            assert shown not in text


def test_texts_hold_no_contents() -> None:
    mutated = bytearray(SEALED)
    mutated[-1] ^= 1
    with pytest.raises(BadSignature) as caught:
        opened(bytes(mutated))
    text = str(caught.value)
    assert "body of some" not in text
    assert SEALED[-8:].hex() not in text
