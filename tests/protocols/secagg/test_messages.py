from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import BadKey, LocalError, MalformedFrame
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.messages import (
    SEALED_SHARES_BYTES,
    Advertise,
    Certificate,
    Delivery,
    KeyList,
    cut,
    key_list_digest,
)

COMPLETE = Neighbourhood(20, 11, complete=True)
SPARSE = Neighbourhood(4, 3, complete=False)
SITES = 20
PRIME = 2**255 - 19

keys = st.binary(min_size=32, max_size=32).map(
    lambda secret: X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
)
digests = st.binary(min_size=32, max_size=32)
places = st.frozensets(st.integers(0, SITES - 1))
draws = st.frozensets(st.integers(0, SITES - 1), min_size=4, max_size=4)
key_lists = st.builds(
    KeyList,
    st.lists(st.none() | st.binary(min_size=1, max_size=60), min_size=1, max_size=6).map(tuple),
)
deliveries = st.builds(
    Delivery,
    places,
    st.lists(st.binary(min_size=SEALED_SHARES_BYTES, max_size=SEALED_SHARES_BYTES), max_size=5).map(
        tuple
    ),
)
certificates = st.builds(
    Certificate,
    digests,
    digests,
    places,
    places,
    st.dictionaries(st.integers(0, SITES - 1), st.binary(min_size=64, max_size=64), max_size=6),
)


def _advertise(body: bytes, graph: Neighbourhood) -> Advertise:
    return Advertise.decode(body, sender="a", graph=graph, sites=SITES)


def _key_list(body: bytes, sites: int) -> KeyList:
    return KeyList.decode(body, sender="c", graph=COMPLETE, sites=sites)


def _delivery(body: bytes) -> Delivery:
    return Delivery.decode(body, sender="c", sites=SITES)


def _certificate(body: bytes) -> Certificate:
    return Certificate.decode(body, sender="c", sites=SITES)


def _damaged(data: st.DataObject, body: bytes) -> bytes:
    """Some other bytes near ``body``, or the same."""
    changed = bytearray(body)
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    del changed[len(changed) - data.draw(st.integers(0, min(3, len(changed)))) :]
    return bytes(changed + data.draw(st.binary(max_size=3)))


def _accepts_only_what_it_writes(
    decode: Callable[[bytes], Any], encode: Callable[[Any], bytes], body: bytes
) -> None:
    try:
        decoded = decode(body)
    except (MalformedFrame, BadKey):
        return
    assert encode(decoded) == body


@given(keys, keys, digests)
def test_advertise_in_a_complete_graph(mask_key: bytes, share_key: bytes, digest: bytes) -> None:
    message = Advertise(mask_key, share_key, digest)
    body = message.encode(SITES)
    assert body == mask_key + share_key + digest
    assert len(body) == Advertise.length(COMPLETE, SITES)
    assert _advertise(body, COMPLETE) == message
    with pytest.raises(MalformedFrame, match="96 bytes"):
        _advertise(body, SPARSE)


@given(keys, keys, digests, draws)
def test_advertise_in_a_sparse_graph(
    mask_key: bytes, share_key: bytes, digest: bytes, drawn: frozenset[int]
) -> None:
    message = Advertise(mask_key, share_key, digest, drawn)
    body = message.encode(SITES)
    assert len(body) == Advertise.length(SPARSE, SITES) == 99
    assert _advertise(body, SPARSE) == message
    with pytest.raises(MalformedFrame, match="99 bytes"):
        _advertise(body, COMPLETE)


@given(keys, keys, places)
def test_a_draw_has_exactly_k_members(
    mask_key: bytes, share_key: bytes, drawn: frozenset[int]
) -> None:
    head = mask_key + share_key + bytes(32)
    body = head + sum(1 << place for place in drawn).to_bytes(3, "little")
    if len(drawn) == SPARSE.size:
        assert _advertise(body, SPARSE).drawn == drawn
    else:
        with pytest.raises(MalformedFrame, match="a draw of"):
            _advertise(body, SPARSE)


@pytest.mark.parametrize("number", [PRIME, PRIME + 1, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1])
@pytest.mark.parametrize("at", [0, 32])
@given(key=keys)
def test_second_spellings_of_a_key(number: int, at: int, key: bytes) -> None:
    body = bytearray(key + key + bytes(32))
    assert _advertise(bytes(body), COMPLETE).mask_key == key
    body[at : at + 32] = number.to_bytes(32, "little")
    with pytest.raises(MalformedFrame, match="canonical") as caught:
        _advertise(bytes(body), COMPLETE)
    assert caught.value.sender == "a"


@pytest.mark.parametrize("graph", [COMPLETE, SPARSE])
@given(keys, digests, draws, st.data())
def test_what_an_advertise_accepts_it_writes(
    graph: Neighbourhood, key: bytes, digest: bytes, drawn: frozenset[int], data: st.DataObject
) -> None:
    message = Advertise(key, key, digest, frozenset() if graph.complete else drawn)
    body = _damaged(data, message.encode(SITES))
    _accepts_only_what_it_writes(
        lambda b: _advertise(b, graph),
        lambda m: m.encode(SITES),
        body,
    )


@given(key_lists)
def test_key_list(message: KeyList) -> None:
    body = message.encode()
    sites = len(message.frames)
    assert _key_list(body, sites) == message
    assert len(body) <= KeyList.limit(COMPLETE, sites)
    for other in (sites + 1, max(1, sites - 1)):
        if other != sites:
            with pytest.raises(MalformedFrame, match="not one for"):
                _key_list(body, other)


@given(key_lists, st.data())
def test_what_a_key_list_accepts_it_writes(message: KeyList, data: st.DataObject) -> None:
    sites = len(message.frames)
    body = _damaged(data, message.encode())
    _accepts_only_what_it_writes(
        lambda b: _key_list(b, sites),
        lambda m: m.encode(),
        body,
    )


def test_a_frame_in_a_key_list_is_bounded() -> None:
    longest = 0
    for length in range(1, 600):
        try:
            _key_list(KeyList((bytes(length), None)).encode(), 2)
        except MalformedFrame:
            continue
        longest = length
    assert KeyList.limit(COMPLETE, 2) == len(KeyList((bytes(longest), bytes(longest))).encode())
    lies = b"\0\2" + b"\xff" * 4 + bytes(200)
    for body in (b"", b"\0", b"\0\2", b"\0\2\0\0", lies):
        with pytest.raises(MalformedFrame) as caught:
            _key_list(body, 2)
        assert caught.value.sender == "c"


@given(deliveries)
def test_delivery(message: Delivery) -> None:
    body = message.encode(SITES)
    assert _delivery(body) == message
    assert len(body) <= Delivery.limit(SITES)


@given(deliveries, st.data())
def test_what_a_delivery_accepts_it_writes(message: Delivery, data: st.DataObject) -> None:
    body = _damaged(data, message.encode(SITES))
    _accepts_only_what_it_writes(
        _delivery,
        lambda m: m.encode(SITES),
        body,
    )


def test_a_delivery_is_bounded() -> None:
    full = Delivery(frozenset(range(SITES)), (bytes(SEALED_SHARES_BYTES),) * SITES)
    assert len(full.encode(SITES)) == Delivery.limit(SITES)
    more = Delivery(full.sharers, (*full.sealed, full.sealed[0])).encode(SITES)
    for body in (more, b"", bytes(2), full.encode(SITES)[:-1], full.encode(SITES) + b"\0"):
        with pytest.raises(MalformedFrame) as caught:
            _delivery(body)
        assert caught.value.sender == "c"


@given(certificates, st.binary(max_size=5))
def test_certificate(message: Certificate, rest: bytes) -> None:
    body = message.encode(SITES)
    assert _certificate(body) == message
    assert len(body) <= Certificate.limit(SITES)
    decoded, end = Certificate.decode_from(body + rest, sender="c", sites=SITES)
    assert (decoded, end) == (message, len(body))


@given(certificates, st.data())
def test_what_a_certificate_accepts_it_writes(message: Certificate, data: st.DataObject) -> None:
    body = _damaged(data, message.encode(SITES))
    _accepts_only_what_it_writes(
        _certificate,
        lambda m: m.encode(SITES),
        body,
    )


def test_signatures_stand_in_the_order_of_places() -> None:
    signatures = {9: b"9" * 64, 2: b"2" * 64}
    body = Certificate(bytes(32), b"k" * 32, frozenset(), frozenset(), signatures).encode(SITES)
    assert body.startswith(bytes(32) + b"k" * 32)
    assert body.endswith(b"2" * 64 + b"9" * 64)
    for bad in (body[:-1], body + b"\0", b""):
        with pytest.raises(MalformedFrame):
            _certificate(bad)


@given(st.binary(max_size=40), st.integers(0, 6), st.integers(1, 8))
def test_cut(body: bytes, count: int, size: int) -> None:
    if len(body) != count * size:
        with pytest.raises(MalformedFrame) as caught:
            cut(body, count, size, sender="a", what="shares")
        assert caught.value.sender == "a"
        return
    pieces = cut(body, count, size, sender="a", what="shares")
    assert b"".join(pieces) == body
    assert len(pieces) == count


def test_the_digest_of_a_key_list() -> None:
    body = KeyList((b"one", None)).encode()
    expected = hashlib.sha256(b"fedbcs-secure key list v1\0" + body).digest()
    assert key_list_digest(body) == key_list_digest(memoryview(body)) == expected


def test_misuse() -> None:
    for build in (
        lambda: KeyList(()),
        lambda: KeyList((None,) * 1025),
        lambda: Advertise(bytes(32), bytes(32), bytes(32), frozenset({SITES})).encode(SITES),
        lambda: Delivery(frozenset({SITES}), ()).encode(SITES),
        lambda: Certificate(bytes(32), bytes(32), frozenset({-1}), frozenset(), {}).encode(SITES),
    ):
        with pytest.raises(LocalError):
            build()
