"""Bodies of every wrong length, count and roster: each is refused and names its sender.

Values and signatures are in ``test_messages.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from ckks_world import ANY, World

from fedbcs_protocols.ckks.messages import (
    Agreement,
    Announced,
    Encrypted,
    decode_sum,
    encode_sum,
    sum_limit,
)
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES
from fedbcs_protocols.errors import Inconsistent, MalformedFrame
from fedbcs_protocols.wire import decode

WIDE = pytest.mark.parametrize("sites", [3, 8, 9, 16, 17, 1024])


@cache
def world() -> World:
    return World(count=9000)


@cache
def upload() -> bytes:
    return bytes(decode(world().uploads["site0"], ANY).body)


@cache
def told() -> bytes:
    return bytes(decode(world().forged([bytes(POLYNOMIAL_BYTES)] * 2), ANY).body)


def malformed(read: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(MalformedFrame) as caught:
        read(body)
    assert caught.value.sender == "mallory"


def read_upload(body: bytes) -> Encrypted:
    return Encrypted.decode(body, sender="mallory", setting=world().setting)


def read_sum(body: bytes) -> object:
    return decode_sum(body, sender="mallory", setting=world().setting)


def test_an_upload_cut_anywhere() -> None:
    """CK-3.8: its length is exact."""
    body = upload()
    assert len(body) == 100 + 2 * POLYNOMIAL_BYTES
    read_upload(body)
    for size in (*range(200), *range(200, len(body), 211), len(body) - 1):
        malformed(read_upload, body[:size])
    for more in (1, 4, 64, POLYNOMIAL_BYTES, 2 * POLYNOMIAL_BYTES):
        malformed(read_upload, body + bytes(more))


@pytest.mark.parametrize("count", [0, 1, 3, 255, 2**31, 2**32 - 1])
def test_an_upload_that_says_another_number_of_chunks(count: int) -> None:
    body = bytearray(upload())
    body[96:100] = count.to_bytes(4, "big")
    with pytest.raises(Inconsistent, match="mallory: its ciphertexts have other parameters"):
        read_upload(bytes(body))


@WIDE
def test_an_announcement_cut_anywhere(sites: int) -> None:
    """CK-4.3, for sets of one byte and of many."""
    salts = {place: bytes([place % 256]) * 32 for place in (0, sites // 2, sites - 1)}
    body = Announced(salts, b"d" * 32).encode(sites)
    assert len(body) == (sites + 7) // 8 + 32 + 3 * 32
    assert Announced.limit(sites) == (sites + 7) // 8 + 32 + sites * 32

    def read(data: bytes) -> Announced:
        return Announced.decode(data, sender="mallory", sites=sites)

    assert read(body) == Announced(salts, b"d" * 32)
    for size in range(len(body)):
        malformed(read, body[:size])
    for more in (b"\0", b"\xff", bytes(32), bytes(33)):
        malformed(read, body + more)


@WIDE
def test_places_beyond_the_roster(sites: int) -> None:
    """A bit that stands for nobody is no member, and no signer."""
    body = Announced(dict.fromkeys(range(sites), b"s" * 32), bytes(32)).encode(sites)
    width = (sites + 7) // 8
    signed = bytes(32) + body + bytes(width)
    for spare in range(sites, 8 * width):
        high = bytearray(width)
        high[spare // 8] = 1 << (spare % 8)
        malformed(
            lambda data: Announced.decode(data, sender="mallory", sites=sites),
            bytes(high) + bytes(64),
        )
        malformed(
            lambda data: Agreement.decode_from(data, sender="mallory", sites=sites),
            signed[:-width] + bytes(high) + bytes(64),
        )


@pytest.mark.parametrize("signers", [(), (0,), (1, 2), (0, 1, 2, 3)])
def test_an_agreement_cut_anywhere(signers: tuple[int, ...]) -> None:
    """CK-4.4: as many signatures as there are signers; what follows is left."""
    agreement = Agreement(
        b"k" * 32,
        Announced(dict.fromkeys(range(4), b"s" * 32), b"d" * 32),
        {place: bytes([place]) * 64 for place in signers},
    )
    body = agreement.encode(4)
    assert len(body) == 194 + 64 * len(signers) <= Agreement.limit(4) == 194 + 4 * 64

    def read(data: bytes) -> tuple[Agreement, int]:
        return Agreement.decode_from(data, sender="mallory", sites=4)

    for size in range(len(body)):
        malformed(read, body[:size])
    for more in (b"", b"\0", bytes(64), body):
        assert read(body + more) == (agreement, len(body))


def test_a_sum_cut_anywhere() -> None:
    """CK-4.5"""
    body, head = told(), len(told()) - 2 * POLYNOMIAL_BYTES
    assert len(body) == sum_limit(world().setting)
    read_sum(body)
    for size in (*range(head + 2), *range(head + 2, len(body), 997), len(body) - 1):
        malformed(read_sum, body[:size])
    for more in (1, 4, POLYNOMIAL_BYTES // 2, POLYNOMIAL_BYTES):
        malformed(read_sum, body + bytes(more))


@pytest.mark.parametrize("count", [0, 1, 3, 2**32 - 1])
def test_a_sum_that_says_another_number_of_chunks(count: int) -> None:
    body, at = bytearray(told()), len(told()) - 2 * POLYNOMIAL_BYTES - 4
    body[at : at + 4] = count.to_bytes(4, "big")
    malformed(read_sum, bytes(body))


def test_a_sum_with_signers_added_or_left_out() -> None:
    """The signatures are counted by the set, so that all behind it moves, and the length is off."""
    for signers in range(16):
        body = bytearray(told())
        assert body[193] == 0x0F
        body[193] = signers
        if signers != 0x0F:
            malformed(read_sum, bytes(body))


def test_what_was_read_is_written_again() -> None:
    agreement, ciphertexts = decode_sum(told(), sender="x", setting=world().setting)
    assert encode_sum(agreement, ciphertexts, world().setting) == told()
    sent = read_upload(upload())
    pieces = b"".join(map(bytes, sent.ciphertexts()))
    assert Encrypted.head(world().setting, sent.salt) + pieces == upload()
