from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols import ring
from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.messages import Advertise, KeyList, MaskedInput, SumBroadcast, VectorShape

SHAPE = VectorShape(count=40, bits=20, sites=4)
PACKED = ring.pack(np.arange(40, dtype=np.uint32), 20)

key_lists = st.builds(KeyList, st.lists(st.binary(max_size=60), min_size=1, max_size=6).map(tuple))


@given(st.binary(min_size=32, max_size=32))
def test_advertise(key: bytes) -> None:
    if int.from_bytes(key, "little") >= 2**255 - 19:
        with pytest.raises(MalformedFrame, match="canonical"):
            Advertise.decode(key, sender="a")
        return
    assert Advertise.decode(Advertise(key).encode(), sender="a") == Advertise(key)


@pytest.mark.parametrize("number", [2**255 - 19, 2**255 - 1, 2**255 + 9, 2**256 - 1])
def test_second_spellings_of_a_key(number: int) -> None:
    with pytest.raises(MalformedFrame, match="canonical"):
        Advertise.decode(number.to_bytes(32, "little"), sender="a")


@given(key_lists)
def test_key_list(message: KeyList) -> None:
    body = message.encode()
    assert KeyList.decode(body, sender="c", sites=len(message.frames)) == message
    assert len(body) <= KeyList.limit(len(message.frames))


@given(key_lists, st.data())
def test_what_a_key_list_accepts_it_writes(message: KeyList, data: st.DataObject) -> None:
    body = bytearray(message.encode())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[len(body) - data.draw(st.integers(0, 3)) :]
    body += data.draw(st.binary(max_size=3))
    try:
        decoded = KeyList.decode(bytes(body), sender="c", sites=len(message.frames))
    except MalformedFrame:
        return
    assert decoded.encode() == body


@pytest.mark.parametrize("kind", [MaskedInput, SumBroadcast])
def test_vectors(kind: type[MaskedInput] | type[SumBroadcast]) -> None:
    body = kind(SHAPE, PACKED).encode()
    assert len(body) == SHAPE.body_bytes
    message = kind.decode(body, sender="a", shape=SHAPE)
    assert message == kind(SHAPE, PACKED)
    assert isinstance(message.packed, memoryview)


def test_a_masked_input_is_no_sum() -> None:
    both: list[object] = [MaskedInput(SHAPE, PACKED), SumBroadcast(SHAPE, PACKED)]
    assert both[0] != both[1]


@pytest.mark.parametrize(
    "other",
    [
        VectorShape(count=41, bits=20, sites=4),
        VectorShape(count=40, bits=21, sites=4),
        VectorShape(count=40, bits=20, sites=5),
        VectorShape(count=33, bits=20, sites=4),
    ],
)
def test_another_shape_is_refused(other: VectorShape) -> None:
    with pytest.raises(MalformedFrame) as caught:
        MaskedInput.decode(MaskedInput(SHAPE, PACKED).encode(), sender="a", shape=other)
    assert caught.value.sender == "a"


def test_another_form_is_refused() -> None:
    body = MaskedInput(SHAPE, PACKED).encode()
    filled = bytearray(body)
    filled[-1] |= 0x80
    for bad in (b"", body[:-1], body + b"\0", bytes(filled)):
        with pytest.raises(MalformedFrame) as caught:
            MaskedInput.decode(bad, sender="a", shape=SHAPE)
        assert caught.value.sender == "a"
    for length in (0, 31, 33):
        with pytest.raises(MalformedFrame):
            Advertise.decode(bytes(length), sender="a")


def test_misuse() -> None:
    for build in (
        lambda: Advertise(bytes(31)),
        lambda: KeyList(()),
        lambda: KeyList((bytes(1000),)),
        lambda: KeyList((b"",) * 1025),
        lambda: MaskedInput(SHAPE, PACKED[:-1]),
        lambda: VectorShape(count=0, bits=20, sites=4),
        lambda: VectorShape(count=1, bits=33, sites=4),
        lambda: VectorShape(count=1, bits=20, sites=1025),
    ):
        with pytest.raises(LocalError):
            build()
