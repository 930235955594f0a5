from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols import ring
from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.messages import MAX_SITES, MaskedInput, SumBroadcast, VectorShape

SHAPE = VectorShape(count=40, bits=20, sites=4)
PACKED = ring.pack(np.arange(40, dtype=np.uint32), 20)
VECTORS = [MaskedInput, SumBroadcast]

shapes = st.builds(VectorShape, st.integers(1, 100), st.integers(8, 32), st.integers(1, MAX_SITES))


@pytest.mark.parametrize("kind", VECTORS)
@given(shapes, st.integers(0, 2**32))
def test_decode_is_the_inverse_of_encode(
    kind: type[MaskedInput] | type[SumBroadcast], shape: VectorShape, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << shape.bits, shape.count, dtype=np.uint32)
    message = kind(shape, ring.pack(values, shape.bits))
    body = message.encode()
    assert len(body) == shape.body_bytes
    decoded = kind.decode(body, sender="a", shape=shape)
    assert decoded == message
    assert isinstance(decoded.packed, memoryview)
    assert np.array_equal(ring.unpack(decoded.packed, shape.count, shape.bits), values)


@given(st.data())
def test_what_is_accepted_is_what_is_written(data: st.DataObject) -> None:
    body = bytearray(MaskedInput(SHAPE, PACKED).encode())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[len(body) - data.draw(st.integers(0, 2)) :]
    body += data.draw(st.binary(max_size=2))
    try:
        decoded = MaskedInput.decode(bytes(body), sender="a", shape=SHAPE)
    except MalformedFrame:
        return
    assert decoded.encode() == body


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
@pytest.mark.parametrize("kind", VECTORS)
def test_another_shape_is_refused(
    kind: type[MaskedInput] | type[SumBroadcast], other: VectorShape
) -> None:
    with pytest.raises(MalformedFrame) as caught:
        kind.decode(kind(SHAPE, PACKED).encode(), sender="a", shape=other)
    assert caught.value.sender == "a"


def test_another_form_is_refused() -> None:
    body = MaskedInput(SHAPE, PACKED).encode()
    filled = bytearray(body)
    filled[-1] |= 0x80
    for bad in (b"", body[:-1], body + b"\0", bytes(filled)):
        with pytest.raises(MalformedFrame) as caught:
            MaskedInput.decode(bad, sender="a", shape=SHAPE)
        assert caught.value.sender == "a"


def test_misuse() -> None:
    for build in (
        lambda: MaskedInput(SHAPE, PACKED[:-1]),
        lambda: VectorShape(count=0, bits=20, sites=4),
        lambda: VectorShape(count=1, bits=33, sites=4),
        lambda: VectorShape(count=1, bits=7, sites=4),
        lambda: VectorShape(count=1, bits=20, sites=0),
        lambda: VectorShape(count=1, bits=20, sites=MAX_SITES + 1),
    ):
        with pytest.raises(LocalError):
            build()
