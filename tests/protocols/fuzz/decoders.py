"""What the fuzzer runs on one decoder each, on the bytes as they are; ``one_each`` lists them."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

from harness import GENEROUS, Finding, require, same

from fedbcs_protocols import ring
from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import BadSignature
from fedbcs_protocols.framelist import decode_frames, encode_frames
from fedbcs_protocols.group import KeyRing, Standing
from fedbcs_protocols.group.messages import (
    Deal,
    Dealt,
    Ready,
    Taken,
    decode_gift,
    encode_gift,
    gift_bytes,
)
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.journal import CLOSE, frame_in, frame_record
from fedbcs_protocols.secagg.marks import Marks, advertising
from fedbcs_protocols.secagg.messages import Advertise, Certificate, Delivery, KeyList, cut
from fedbcs_protocols.secagg.shamir import PRIME, SHARE_BYTES, check_share, combine
from fedbcs_protocols.sitesets import decode_set, encode_set
from fedbcs_protocols.wire import Kind, decode, open_frame

SENDER = "aachen"
SITES = 12
"""Of the decoders' setting: twelve sites, so that four bits of a set are filling."""
SPARSE = Neighbourhood(3, 2, complete=False)
COMPLETE = Neighbourhood(SITES, 7, complete=True)
IDENTITY = Identity.from_secret_bytes(hashlib.sha256(b"fuzz " + SENDER.encode()).digest())
ROSTER = {SENDER: IDENTITY.public}
BINDING = Binding(bytes(range(32)), 7, 1, 2, bytes(range(100, 132)))


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


def frame_list(data: bytes) -> None:
    """The first two bytes say for how many sites, the third how long a frame may be."""
    start, body = data[:3].ljust(3, b"\0"), data[3:]
    sites, longest = int.from_bytes(start[:2], "big") % 40, start[2]
    frames = decode_frames(body, sender=SENDER, sites=sites, longest=longest, what="list")
    require(len(frames) == sites, "another number of places")
    require(all(0 < len(f) <= longest for f in frames if f is not None), "a frame over the longest")
    same(encode_frames(frames), body)


def standing(data: bytes) -> None:
    """In the round that the first byte says."""
    round_, body = (data[0] if data else 0), data[1:]
    taken = Standing.decode(body, sender=SENDER, sites=SITES, round=round_)
    require(taken.epoch <= 2**32 - 2**16 and taken.began <= round_, "an epoch to come")
    require(int.from_bytes(taken.exchange, "little") < 2**255 - 19, "a second spelling of a key")
    same(taken.encode(SITES), body)


def ready(data: bytes) -> None:
    """As a standing, with an annex of 40 bytes."""
    round_, body = (data[0] if data else 0), data[1:]
    taken = Ready.decode(body, sender=SENDER, sites=SITES, round=round_, annex_bytes=40)
    require(len(taken.annex) == 40, "an annex of another length")
    same(taken.encode(SITES), body)


def deal(data: bytes) -> None:
    taken = Deal.decode(data, sender=SENDER, sites=SITES)
    require(len(taken.wrapped) == len(taken.members) - 1, "keys for other than the members")
    same(taken.encode(SITES), data)


def dealt(data: bytes) -> None:
    same(Dealt.decode(data, sender=SENDER, sites=SITES).encode(), data)


def taken(data: bytes) -> None:
    same(Taken.decode(data, sender=SENDER).encode(), data)


def gift(data: bytes) -> None:
    """As it is, or, from 128 in the first byte, cut or filled up to a gift's length."""
    size, body = gift_bytes(SITES), data[1:]
    if data and data[0] >= 128:
        body = body[:size].ljust(size, b"\0")
    epoch, secrets = decode_gift(body, SITES, sender=SENDER)
    require(all(1 <= s.epoch <= epoch for s in secrets), "a key of an epoch to come")
    same(encode_gift(epoch, secrets, SITES), body)


def key_ring(data: bytes) -> None:
    """As it is, or, from 128 in the first byte, with the digest that such a file has."""
    body = data[1:]
    if data and data[0] >= 128:
        body += hashlib.sha256(body).digest()
    ring_ = KeyRing.decode(body)
    require(ring_.current is None or ring_.current.epoch == ring_.epoch, "a key that is over")
    same(ring_.encode(), body)


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
    head = head_of(shape.bits, shape.count) if headed else b""
    return shape, head + body[:size].ljust(size, b"\0")


def head_of(bits: int, count: int) -> bytes:
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
