"""The targets of one decoder each, with the errors that they may raise and their first inputs."""

from __future__ import annotations

import decoders
import numpy as np
from harness import Target

from fedbcs_protocols import ring
from fedbcs_protocols.errors import (
    BadKey,
    InconsistentShares,
    LocalError,
    MalformedFrame,
    PeerError,
    Refused,
)
from fedbcs_protocols.framelist import encode_frames
from fedbcs_protocols.group import GroupSecret, KeyRing
from fedbcs_protocols.group.messages import Deal, Dealt, encode_gift
from fedbcs_protocols.secagg.journal import CLOSE, frame_record
from fedbcs_protocols.secagg.marks import Answer, Marks
from fedbcs_protocols.secagg.messages import Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.shamir import PRIME, _split_with
from fedbcs_protocols.sitesets import encode_set
from fedbcs_protocols.wire import Frame, Kind, seal


def _sealed(body: bytes, kind: Kind = Kind.ADVERTISE) -> bytes:
    return seal(Frame(kind, decoders.BINDING, decoders.SENDER, 0, body), decoders.IDENTITY)


def _packed(bits: int, count: int) -> bytes:
    values = np.arange(count, dtype=np.uint32) * np.uint32(77)
    return ring.pack(values & ring.modulus_mask(bits), bits)


def _shaped(bits: int, count: int, headed: bool) -> tuple[bytes, bytes]:
    """A vector as ``decoders`` reads it in either way."""
    size, packed = (count - 1).to_bytes(2, "big"), _packed(bits, count)
    # The same number of bits, below and from 128 on.
    low, high = bits - 8, next(b for b in range(128, 256) if b % 25 == bits - 8)
    head = decoders.head_of(bits, count) if headed else b""
    return bytes([low]) + size + head + packed, bytes([high]) + size + packed


_KEYS = bytes(range(96))
_HIGH = (2**255 - 21).to_bytes(32, "little")
"""The largest key; the next number is of low order, and the one after it no key."""
_FRAMES = tuple(_sealed(_KEYS) if place % 4 == 1 else None for place in range(decoders.SITES))
_SIGNED = {place: bytes([place]) * 64 for place in (0, 3, 11)}
_CERTIFICATE = Certificate(
    bytes(32), b"k" * 32, frozenset(range(12)), frozenset({0, 3, 5, 11}), _SIGNED
)
_AT = (1, 2, 700)
_SPLIT = dict(zip(_AT, _split_with(bytes(range(32)), [5, PRIME - 1], _AT), strict=True))
_ANSWERS = tuple(Answer(phase, 1, 1, bytes(32)) for phase in range(3))
_SHAPES = ((8, 1), (18, 5), (21, 64), (32, 100))
_PACKED = tuple(seed for shape in _SHAPES for seed in _shaped(*shape, False))
_VECTORS = tuple(seed for shape in _SHAPES for seed in _shaped(*shape, True))

_SECRETS = tuple(
    GroupSecret(epoch, epoch - 1, frozenset({0, epoch, 11}), bytes([epoch]) * 32)
    for epoch in (1, 2, 9)
)
_STANDINGS = tuple(
    b"\7" + ring_.standing(_HIGH, 7).encode(decoders.SITES)
    for ring_ in (
        KeyRing(bytes(32), decoders.SITES),
        KeyRing(bytes(32), decoders.SITES, 2, False, _SECRETS[:2]),
        KeyRing(bytes(32), decoders.SITES, 9, True, _SECRETS[:2], (7, 3)),
    )
)
_RINGS = tuple(
    head + KeyRing(bytes(32), decoders.SITES, 9, head == b"\0", _SECRETS[:count]).encode()[:end]
    for count in (0, 3)
    for head, end in ((b"\0", None), (b"\x80", -32))
)
_GIFTS = tuple(
    b"\x80" + encode_gift(9, _SECRETS[:count], decoders.SITES)[: 5 + 42 * count]
    for count in range(4)
)
_DEAL = Deal(3, bytes(32), frozenset({0, 4, 11}), (b"\1" * 48, b"\2" * 48)).encode(decoders.SITES)
_LISTS = tuple(
    len(frames).to_bytes(2, "big") + b"\x20" + encode_frames(frames)
    for frames in ((), (None,), (b"one", None, b"three"), (bytes(32),) * 5)
)

ONE_EACH = (
    Target(
        "wire_decode",
        decoders.wire_decode,
        (PeerError,),
        tuple(_sealed(b"body" * 3, kind) for kind in Kind),
        slots=14,
    ),
    Target(
        "wire_open", decoders.wire_open, (PeerError,), (_sealed(b"body"), _sealed(b"")), slots=4
    ),
    Target("binding", decoders.binding, (LocalError,), (decoders.BINDING.encode(),), slots=6),
    Target("identity", decoders.identity, (LocalError,), (decoders.IDENTITY.public.raw,), slots=4),
    Target(
        "advertise_complete",
        decoders.advertise_complete,
        (MalformedFrame, BadKey),
        (_KEYS, _HIGH + _KEYS[32:]),
    ),
    Target(
        "advertise_sparse",
        decoders.advertise_sparse,
        (MalformedFrame, BadKey),
        (
            _KEYS + encode_set({1, 8, 11}, decoders.SITES),
            _KEYS[:32] + _HIGH + _KEYS[64:] + b"\x0e\0",
        ),
    ),
    Target(
        "key_list", decoders.key_list, (MalformedFrame,), (KeyList(_FRAMES).encode(),), slots=15
    ),
    Target("frame_list", decoders.frame_list, (MalformedFrame,), _LISTS, slots=6),
    Target("standing", decoders.standing, (MalformedFrame, BadKey), _STANDINGS, slots=6),
    Target(
        "ready",
        decoders.ready,
        (MalformedFrame, BadKey),
        tuple(each + bytes(40) for each in _STANDINGS),
        slots=6,
    ),
    Target("deal", decoders.deal, (MalformedFrame,), (_DEAL, _DEAL[:36] + b"\0\x08"), slots=6),
    Target(
        "dealt",
        decoders.dealt,
        (MalformedFrame,),
        (Dealt(encode_frames(_FRAMES), _sealed(_DEAL, Kind.DEAL)).encode(), bytes(4)),
        slots=8,
    ),
    Target("taken", decoders.taken, (MalformedFrame,), (bytes(36),), slots=2),
    Target("gift", decoders.gift, (MalformedFrame,), _GIFTS, slots=6),
    Target("key_ring", decoders.key_ring, (LocalError, MalformedFrame), _RINGS, slots=6),
    Target(
        "delivery",
        decoders.delivery,
        (MalformedFrame,),
        (Delivery(frozenset({0, 9}), (bytes(82), b"\1" * 82)).encode(decoders.SITES),),
    ),
    Target(
        "certificate",
        decoders.certificate,
        (MalformedFrame,),
        (_CERTIFICATE.encode(decoders.SITES),),
        slots=15,
    ),
    Target(
        "certificate_start",
        decoders.certificate_start,
        (MalformedFrame,),
        (_CERTIFICATE.encode(decoders.SITES) + b"rest",),
    ),
    Target("pieces", decoders.pieces, (MalformedFrame,), (b"\2" + bytes(66), b"\0")),
    Target(
        "site_set",
        decoders.site_set,
        (MalformedFrame,),
        (b"\0\x0b\xff\x0f", b"\0\0\1", b"\3\xff" + bytes(128)),
    ),
    Target("masked_input", decoders.masked_input, (MalformedFrame,), _VECTORS),
    Target("sum_broadcast", decoders.sum_broadcast, (MalformedFrame,), _VECTORS, slots=6),
    Target("ring_check", decoders.ring_check, (MalformedFrame,), _PACKED, slots=6),
    Target(
        "ring_unpack",
        decoders.ring_unpack,
        (MalformedFrame,),
        _PACKED,
        slots=8,
    ),
    Target(
        "share", decoders.share, (InconsistentShares,), (bytes(33), (PRIME - 1).to_bytes(33, "big"))
    ),
    Target(
        "shares",
        decoders.shares,
        (InconsistentShares, LocalError),
        (b"\3" + b"".join(x.to_bytes(2, "big") + s for x, s in _SPLIT.items()),),
        slots=8,
    ),
    Target("journal", decoders.journal, (LocalError,), (CLOSE, frame_record(b"frame"))),
    Target(
        "marks",
        decoders.marks,
        (LocalError, Refused),
        (
            Marks(decoders.BINDING).encode(),
            Marks(decoders.BINDING, _ANSWERS, b"\x0f").encode(),
        ),
    ),
)
