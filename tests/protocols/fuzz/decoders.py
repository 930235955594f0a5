"""Targets that run one decoder each, on the bytes as they are."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
from harness import GENEROUS, Finding, Target, require, same

from fedbcs_protocols import ring
from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import (
    BadKey,
    BadSignature,
    InconsistentShares,
    LocalError,
    MalformedFrame,
    PeerError,
    Refused,
)
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.journal import CLOSE, frame_in, frame_record
from fedbcs_protocols.secagg.marks import Answer, Marks, advertising
from fedbcs_protocols.secagg.messages import Advertise, Certificate, Delivery, KeyList, cut
from fedbcs_protocols.secagg.shamir import (
    PRIME,
    SHARE_BYTES,
    _split_with,
    check_share,
    combine,
)
from fedbcs_protocols.sitesets import decode_set, encode_set
from fedbcs_protocols.wire import Frame, Kind, decode, open_frame, seal

SENDER = "aachen"
SITES = 12
"""Of the decoders' setting: twelve sites, so that four bits of a set are filling."""
SPARSE = Neighbourhood(3, 2, complete=False)
COMPLETE = Neighbourhood(SITES, 7, complete=True)
IDENTITY = Identity.from_secret_bytes(hashlib.sha256(b"fuzz " + SENDER.encode()).digest())
ROSTER = {SENDER: IDENTITY.public}
BINDING = Binding(bytes(range(32)), 7, 1, 2, bytes(range(100, 132)))


# One decoder each --------------------------------------------------------------------------------


def wire_decode(data: bytes) -> None:
    same(decode(data, GENEROUS).encode(), data)


def wire_open(data: bytes) -> None:
    frame = open_frame(data, roster=ROSTER, expect=BINDING, limits={Kind.ADVERTISE: 64})
    require(frame.sender == SENDER and frame.binding == BINDING, "another's frame was taken")
    same(frame.encode(), data)


def binding(data: bytes) -> None:
    same(Binding.decode(data).encode(), data)


def identity(data: bytes) -> None:
    public = PublicIdentity(data)
    same(public.raw, data)
    try:
        public.verify(data + data, b"message")
    except BadSignature:
        return
    raise Finding("a signature of nobody was taken")


def _advertise(data: bytes, graph: Neighbourhood) -> None:
    advert = Advertise.decode(data, sender=SENDER, graph=graph, sites=SITES)
    for key in (advert.mask_key, advert.share_key):
        require(int.from_bytes(key, "little") < 2**255 - 19, "a second spelling of a key")
    same(advert.encode(SITES), data)


def advertise_complete(data: bytes) -> None:
    _advertise(data, COMPLETE)


def advertise_sparse(data: bytes) -> None:
    _advertise(data, SPARSE)


def key_list(data: bytes) -> None:
    same(KeyList.decode(data, sender=SENDER, graph=COMPLETE, sites=SITES).encode(), data)


def delivery(data: bytes) -> None:
    same(Delivery.decode(data, sender=SENDER, sites=SITES).encode(SITES), data)


def certificate(data: bytes) -> None:
    same(Certificate.decode(data, sender=SENDER, sites=SITES).encode(SITES), data)


def certificate_start(data: bytes) -> None:
    taken, end = Certificate.decode_from(data, sender=SENDER, sites=SITES)
    same(taken.encode(SITES), data[:end])


def pieces(data: bytes) -> None:
    """The first byte says how many; as bodies of *shares* and *unmask* are taken."""
    count, body = (data[0] if data else 0), data[1:]
    same(b"".join(cut(body, count, SHARE_BYTES, sender=SENDER, what="shares")), body)


def site_set(data: bytes) -> None:
    """The first two bytes say over how many sites."""
    sites, body = 1 + int.from_bytes(data[:2], "big") % 1024, data[2:]
    same(encode_set(decode_set(body, sites, sender=SENDER), sites), body)


def _shape(data: bytes, headed: bool = False) -> tuple[VectorShape, bytes]:
    """A shape that the first three bytes choose, and a body.

    The body is the rest as it is, or, from 128 in the first byte, cut or filled up to the shape's
    length and behind the shape's own head.
    """
    start = data[:3].ljust(3, b"\0")
    count = 1 + int.from_bytes(start[1:], "big") % 300
    shape, body = VectorShape(count, 8 + start[0] % 25, SITES), data[3:]
    if start[0] < 128:
        return shape, body
    size = ring.packed_bytes(shape.count, shape.bits)
    head = _head(shape.bits, shape.count) if headed else b""
    return shape, head + body[:size].ljust(size, b"\0")


def _head(bits: int, count: int) -> bytes:
    return struct.pack(">IHH", count, bits, SITES)


def masked_input(data: bytes) -> None:
    shape, body = _shape(data, headed=True)
    same(MaskedInput.decode(body, sender=SENDER, shape=shape).encode(), body)


def sum_broadcast(data: bytes) -> None:
    shape, body = _shape(data, headed=True)
    same(SumBroadcast.decode(body, sender=SENDER, shape=shape).encode(), body)


def ring_check(data: bytes) -> None:
    shape, packed = _shape(data)
    ring.check_packed(packed, shape.count, shape.bits)


def ring_unpack(data: bytes) -> None:
    shape, packed = _shape(data)
    values = ring.unpack(packed, shape.count, shape.bits)
    require(values.shape == (shape.count,), "another number of values")
    same(ring.pack(values, shape.bits), packed)


def share(data: bytes) -> None:
    check_share(data)
    require(len(data) == SHARE_BYTES and int.from_bytes(data, "big") < PRIME, "no share was taken")


def shares(data: bytes) -> None:
    """A threshold, then a holder in two bytes and a share, again and again."""
    step = 2 + SHARE_BYTES
    held = {
        int.from_bytes(data[at : at + 2], "big"): data[at + 2 : at + step]
        for at in range(1, len(data), step)
    }
    threshold = data[0] % 8 if data else 0
    secret = combine(held, threshold)
    used = sorted(held)[:threshold]
    # Newton's form: divided differences, then the value at zero.
    slopes = [int.from_bytes(held[x], "big") for x in used]
    for level in range(1, threshold):
        for i in range(threshold - 1, level - 1, -1):
            run = pow(used[i] - used[i - level], -1, PRIME)
            slopes[i] = (slopes[i] - slopes[i - 1]) * run % PRIME
    value = 0
    for x, slope in zip(reversed(used), reversed(slopes), strict=True):
        value = (slope - value * x) % PRIME
    same(value.to_bytes(SHARE_BYTES, "big")[1:], secret)


def journal(data: bytes) -> None:
    frame = frame_in(data)
    same(CLOSE if frame is None else frame_record(frame), data)


def marks(data: bytes) -> None:
    """Read, and written again after one more attempt and one more answer."""
    kept = Marks.decode(data)
    same(kept.encode(), data)
    last = kept.binding
    following = replace(last, attempt=min(last.attempt + 1, 0xFFFF))
    written = advertising(kept, following, 255)
    same(Marks.decode(written.encode()).encode(), written.encode())
    answered = written.answered(following, bytes(32), kept.survivors, 255)
    require(Marks.decode(answered.encode()) == answered, "marks are read otherwise than written")


# The list ----------------------------------------------------------------------------------------


def _sealed(body: bytes, kind: Kind = Kind.ADVERTISE) -> bytes:
    return seal(Frame(kind, BINDING, SENDER, 0, body), IDENTITY)


def _packed(bits: int, count: int) -> bytes:
    values = np.arange(count, dtype=np.uint32) * np.uint32(77)
    return ring.pack(values & ring.modulus_mask(bits), bits)


def _shaped(bits: int, count: int, headed: bool) -> tuple[bytes, bytes]:
    """A vector as :func:`_shape` reads it in either way."""
    size, packed = (count - 1).to_bytes(2, "big"), _packed(bits, count)
    # The same number of bits, below and from 128 on.
    low, high = bits - 8, next(b for b in range(128, 256) if b % 25 == bits - 8)
    head = _head(bits, count) if headed else b""
    return bytes([low]) + size + head + packed, bytes([high]) + size + packed


_KEYS = bytes(range(96))
_HIGH = (2**255 - 21).to_bytes(32, "little")
"""The largest key; the next number is of low order, and the one after it no key."""
_FRAMES = tuple(_sealed(_KEYS) if place % 4 == 1 else None for place in range(SITES))
_SIGNED = {place: bytes([place]) * 64 for place in (0, 3, 11)}
_CERTIFICATE = Certificate(bytes(32), frozenset(range(12)), frozenset({0, 3, 5, 11}), _SIGNED)
_AT = (1, 2, 700)
_SPLIT = dict(zip(_AT, _split_with(bytes(range(32)), [5, PRIME - 1], _AT), strict=True))
_ANSWERS = tuple(Answer(phase, 1, 1, bytes(32)) for phase in range(3))
_SHAPES = ((8, 1), (18, 5), (21, 64), (32, 100))
_PACKED = tuple(seed for shape in _SHAPES for seed in _shaped(*shape, False))
_VECTORS = tuple(seed for shape in _SHAPES for seed in _shaped(*shape, True))

ONE_EACH = (
    Target(
        "wire_decode",
        wire_decode,
        (PeerError,),
        tuple(_sealed(b"body" * 3, kind) for kind in Kind),
        slots=20,
    ),
    Target("wire_open", wire_open, (PeerError,), (_sealed(b"body"), _sealed(b"")), slots=4),
    Target("binding", binding, (LocalError,), (BINDING.encode(),)),
    Target("identity", identity, (LocalError,), (IDENTITY.public.raw,), slots=4),
    Target(
        "advertise_complete",
        advertise_complete,
        (MalformedFrame, BadKey),
        (_KEYS, _HIGH + _KEYS[32:]),
    ),
    Target(
        "advertise_sparse",
        advertise_sparse,
        (MalformedFrame, BadKey),
        (_KEYS + encode_set({1, 8, 11}, SITES), _KEYS[:32] + _HIGH + _KEYS[64:] + b"\x0e\0"),
    ),
    Target("key_list", key_list, (MalformedFrame,), (KeyList(_FRAMES).encode(),), slots=15),
    Target(
        "delivery",
        delivery,
        (MalformedFrame,),
        (Delivery(frozenset({0, 9}), (bytes(82), b"\1" * 82)).encode(SITES),),
    ),
    Target("certificate", certificate, (MalformedFrame,), (_CERTIFICATE.encode(SITES),), slots=15),
    Target(
        "certificate_start",
        certificate_start,
        (MalformedFrame,),
        (_CERTIFICATE.encode(SITES) + b"rest",),
    ),
    Target("pieces", pieces, (MalformedFrame,), (b"\2" + bytes(66), b"\0")),
    Target(
        "site_set",
        site_set,
        (MalformedFrame,),
        (b"\0\x0b\xff\x0f", b"\0\0\1", b"\3\xff" + bytes(128)),
    ),
    Target("masked_input", masked_input, (MalformedFrame,), _VECTORS),
    Target("sum_broadcast", sum_broadcast, (MalformedFrame,), _VECTORS),
    Target("ring_check", ring_check, (MalformedFrame,), _PACKED),
    Target(
        "ring_unpack",
        ring_unpack,
        (MalformedFrame,),
        _PACKED,
        slots=8,
    ),
    Target("share", share, (InconsistentShares,), (bytes(33), (PRIME - 1).to_bytes(33, "big"))),
    Target(
        "shares",
        shares,
        (InconsistentShares, LocalError),
        (b"\3" + b"".join(x.to_bytes(2, "big") + s for x, s in _SPLIT.items()),),
        slots=8,
    ),
    Target("journal", journal, (LocalError,), (CLOSE, frame_record(b"frame"))),
    Target(
        "marks",
        marks,
        (LocalError, Refused),
        (
            Marks(BINDING).encode(),
            Marks(BINDING, _ANSWERS, b"\x0f").encode(),
        ),
    ),
)
