from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.group import GroupSecret
from fedbcs_protocols.group.messages import (
    WRAPPED_BYTES,
    Deal,
    Dealt,
    Taken,
    decode_gift,
    encode_gift,
    gift_bytes,
    present_digest,
    present_limit,
    ready_limit,
)
from fedbcs_protocols.group.standing import Standing

SITES = 11
numbers = st.integers(0, 2**32 - 1)
names = st.binary(min_size=32, max_size=32)
places = st.frozensets(st.integers(0, SITES - 1), min_size=1)


@st.composite
def deals(draw: st.DrawFn) -> Deal:
    members = draw(places)
    wrapped = tuple(
        draw(st.binary(min_size=WRAPPED_BYTES, max_size=WRAPPED_BYTES)) for _ in members
    )[1:]
    return Deal(draw(numbers), draw(names), members, wrapped)


def _refused(read: object, body: bytes) -> None:
    with pytest.raises(MalformedFrame) as caught:
        read(body)  # type: ignore[operator]
    assert caught.value.sender == "bern"


def _deal(body: bytes) -> Deal:
    return Deal.decode(body, sender="bern", sites=SITES)


@given(deals())
def test_deal(deal: Deal) -> None:
    body = deal.encode(SITES)
    bits = sum(1 << place for place in deal.members).to_bytes(2, "little")
    # GK-3.4
    assert body == struct.pack(">I", deal.epoch) + deal.key_id + bits + b"".join(deal.wrapped)
    assert _deal(body) == deal
    assert len(body) <= Deal.limit(SITES)
    for bad in (body[:-1], body + b"\0", body + bytes(48), body[:37], b""):
        _refused(_deal, bad)


@given(deals(), st.data())
def test_what_a_deal_accepts_it_writes(deal: Deal, data: st.DataObject) -> None:
    body = bytearray(deal.encode(SITES))
    at = data.draw(st.integers(0, min(37, len(body) - 1)))
    body[at] = data.draw(st.integers(0, 255))
    try:
        assert _deal(bytes(body)).encode(SITES) == body
    except MalformedFrame:
        return


def test_a_deal_for_nobody() -> None:
    head = struct.pack(">I", 1) + bytes(32)
    for rest in (b"\0\0", b"\0\0" + bytes(48), b"\1\0" + bytes(48), b"\0\x08", b"\0"):
        _refused(_deal, head + rest)
    assert _deal(head + b"\1\0").wrapped == ()


def test_dealt() -> None:
    """GK-3.1: the list, its length before it, and the deal."""
    for present, deal in ((b"list", b"deal"), (b"", b"deal"), (b"list", b""), (b"", b"")):
        dealt = Dealt(present, deal)
        body = dealt.encode()
        assert body == struct.pack(">I", len(present)) + present + deal
        assert Dealt.decode(body, sender="bern", sites=SITES) == dealt
    for bad in (b"", b"\0\0\0", b"\0\0\0\5list", b"\xff" * 4 + b"list"):
        _refused(lambda body: Dealt.decode(body, sender="bern", sites=SITES), bad)
    longest = bytes(present_limit(SITES))
    assert Dealt.decode(Dealt(longest, b"").encode(), sender="bern", sites=SITES).present == longest
    more = Dealt(longest + b"\0", b"").encode()
    _refused(lambda body: Dealt.decode(body, sender="bern", sites=SITES), more)


def test_limits() -> None:
    standing = 1 + 4 + 4 + 2 + 32 + 32 + 2
    overhead = 6 + 71 + 9 + 32 + 64
    assert ready_limit(SITES) == overhead + Standing.length(SITES) == overhead + standing
    assert present_limit(SITES) == 2 + SITES * (4 + overhead + standing)
    # A key for everybody, the dealer too, is more than any deal has.
    assert Deal.limit(SITES) == 4 + 32 + 2 + SITES * 48
    assert Dealt.limit(SITES) == 4 + present_limit(SITES) + overhead + Deal.limit(SITES)


@given(numbers, names)
def test_taken(epoch: int, name: bytes) -> None:
    """GK-3.7"""
    body = Taken(epoch, name).encode()
    assert body == struct.pack(">I", epoch) + name
    assert Taken.decode(body, sender="bern") == Taken(epoch, name)
    assert Taken.decode(memoryview(body), sender="bern") == Taken(epoch, name)
    for bad in (b"", body[:-1], body + b"\0"):
        _refused(lambda b: Taken.decode(b, sender="bern"), bad)


def test_the_digest_of_a_list() -> None:
    expected = hashlib.sha256(b"fedbcs-secure present v1\0list").digest()
    assert present_digest(b"list") == present_digest(memoryview(b"list")) == expected


# Gifts -------------------------------------------------------------------------------------------


def _secrets(count: int, first: int = 1) -> tuple[GroupSecret, ...]:
    return tuple(
        GroupSecret(first + i, i, frozenset({i % SITES, 0}), hashlib.sha256(b"%d" % i).digest())
        for i in range(count)
    )


def _gift(data: bytes, sites: int = SITES) -> tuple[int, tuple[GroupSecret, ...]]:
    return decode_gift(data, sites, sender="bern")


@pytest.mark.parametrize("count", [0, 1, 2, 17, 18])
def test_gift(count: int) -> None:
    """GK-4.3: always of the same length, whatever is in it."""
    given_ = _secrets(count)
    data = encode_gift(40, given_, SITES)
    assert len(data) == gift_bytes(SITES) == 5 + 18 * (4 + 4 + 32 + 2)
    assert _gift(data) == (40, given_)
    assert data[:5] == struct.pack(">IB", 40, count)
    if count:
        s = given_[0]
        assert data[5:47] == struct.pack(">II", s.epoch, s.began) + s.secret + b"\1\0"


def test_what_is_no_gift() -> None:
    good = encode_gift(2, _secrets(2), SITES)
    for bad in (b"", good[:-1], good + b"\0", good[:-1] + b"\1", good[:4] + b"\1" + good[5:]):
        _refused(_gift, bad)
    # More than a site keeps, a key of an epoch that is not yet, of none, and a strange member.
    _refused(_gift, good[:4] + bytes([19]) + good[5:])
    _refused(_gift, good[:4] + b"\xff" + good[5:])
    _refused(_gift, encode_gift(1, _secrets(2), SITES))
    _refused(_gift, good[:4] + b"\3" + good[5:])
    _refused(_gift, good[:46] + b"\x08" + good[47:])
    with pytest.raises(LocalError):
        encode_gift(2, (replace(_secrets(1)[0], members=frozenset({SITES})),), SITES)


@given(st.integers(0, 18), st.data())
def test_what_a_gift_accepts_it_writes(count: int, data: st.DataObject) -> None:
    body = bytearray(encode_gift(20, _secrets(count), SITES))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        epoch, found = _gift(bytes(body))
    except MalformedFrame:
        return
    assert encode_gift(epoch, found, SITES) == body
