"""Good and hostile bodies of every kind, for frames that the sender signs.

What each must raise is written here by hand, not observed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from known_values import BINDING, Json, fixed_bytes

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import Frame, Kind, seal

AACHEN = Identity.from_secret_bytes(fixed_bytes("aachen"))
BOSS = Identity.from_secret_bytes(fixed_bytes("combiner"))

SITES, DRAWN, BITS, COUNT, PIECES = 12, 3, 18, 5, 3
"""Of the reader: so many sites, sites in a draw, bits and values of a vector, shares in a body."""
TRANSCRIPT = fixed_bytes("transcript")
BAD = "MalformedFrame"


def sealed(kind: Kind, body: bytes, sender: str = "aachen", **changes: Any) -> bytes:
    fields: Json = {"kind": kind, "binding": BINDING, "sender": sender, "sequence": 0, "body": body}
    return seal(Frame(**{**fields, **changes}), BOSS if sender == COMBINER else AACHEN)


@dataclass(frozen=True)
class Body:
    """A kind's good body, hostile ones that its sender signed, and the reader's limit."""

    kind: Kind
    sender: str
    limit: int
    good: bytes
    hostile: tuple[tuple[str, str, bytes], ...] = ()


def places(*members: int, width: int = 2) -> bytes:
    return sum(1 << place for place in members).to_bytes(width, "little")


def _advertise() -> Body:
    mask, share, commitment = (fixed_bytes(f"advertise {i}")[:31] + b"\0" for i in range(3))
    prime = (2**255 - 19).to_bytes(32, "little")
    zero, one, last = (number.to_bytes(32, "little") for number in (0, 1, 2**255 - 20))
    # The two points of order eight (RFC 7748, section 7).
    eighth = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    other = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
    draw = places(1, 8, 11)
    good = mask + share + commitment + draw
    return Body(
        Kind.ADVERTISE,
        "aachen",
        98,
        good,
        (
            ("an empty body", BAD, b""),
            ("cut short", BAD, good[:-1]),
            ("a body for a complete graph", BAD, good[:96]),
            ("a mask key of 2^255 - 19", BAD, prime + good[32:]),
            ("a mask key with its highest bit set", BAD, mask[:31] + b"\x80" + good[32:]),
            ("a share key of 2^255 - 19", BAD, mask + prime + good[64:]),
            ("a share key of all ones", BAD, mask + b"\xff" * 32 + good[64:]),
            ("a mask key of zero", "BadKey", zero + good[32:]),
            ("a mask key of one", "BadKey", one + good[32:]),
            ("a mask key of 2^255 - 20", "BadKey", last + good[32:]),
            ("a mask key of order eight", "BadKey", eighth + good[32:]),
            ("the other mask key of order eight", "BadKey", other + good[32:]),
            ("a share key of zero", "BadKey", mask + zero + good[64:]),
            ("a share key of order eight", "BadKey", mask + other + good[64:]),
            ("a bit beyond the roster", BAD, good[:96] + places(1, 8, 12)),
            ("a draw of two", BAD, good[:96] + places(1, 8)),
            ("a draw of four", BAD, good[:96] + places(1, 2, 8, 11)),
            ("no draw", BAD, good[:96] + places()),
        ),
    )


def _key_list() -> Body:
    inner = sealed(Kind.ADVERTISE, _advertise().good)
    longest = 182 + 98
    limit = 2 + SITES * (4 + longest)

    def listed(*frames: bytes, count: int = SITES) -> bytes:
        parts = (struct.pack(">I", len(frame)) + frame for frame in frames)
        return struct.pack(">H", count) + b"".join(parts)

    empty = [b""] * (SITES - 1)
    good = listed(*empty[:4], inner, *empty[4:])
    at = 2 + 4 * 4
    return Body(
        Kind.KEY_LIST,
        COMBINER,
        limit,
        good,
        (
            ("an empty body", BAD, b""),
            ("half a count", BAD, good[:1]),
            ("a count of 11", BAD, listed(*empty, inner, count=11)),
            ("a count of 13 over 12 frames", BAD, listed(*empty, inner, count=13)),
            ("11 frames", BAD, listed(*empty)),
            ("13 frames", BAD, listed(*empty, inner, b"")),
            ("ends inside a length", BAD, good[:-1]),
            ("ends inside a frame", BAD, listed(*empty, inner)[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("a length one too small", BAD, _with_length(good, at, len(inner) - 1)),
            ("a length one too large", BAD, _with_length(good, at, len(inner) + 1)),
            ("a length of 4 GiB", BAD, _with_length(good, at, 2**32 - 1)),
            ("a length that ends with the body", BAD, _with_length(good, at, len(good) - at - 4)),
            ("a frame over the longest", BAD, listed(*empty, bytes(longest + 1))),
        ),
    )


def _with_length(body: bytes, at: int, length: int) -> bytes:
    return body[:at] + struct.pack(">I", length) + body[at + 4 :]


def _delivery() -> Body:
    good = places(0, 3, 11) + fixed_bytes("sealed") * 5 + bytes(4)
    return Body(
        Kind.DELIVERY,
        COMBINER,
        2 + SITES * 82,
        good,
        (
            ("an empty body", BAD, b""),
            ("half a set", BAD, good[:1]),
            ("a bit beyond the roster", BAD, places(0, 3, 15) + good[2:]),
            ("a share cut short", BAD, good[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("a tag of 15 bytes in each", BAD, good[:2] + good[2:83] + good[84:165]),
        ),
    )


def _vector(kind: Kind, sender: str) -> Body:
    head = struct.pack(">IHH", COUNT, BITS, SITES)
    # Five values in rows 0 to 4 of one column: 90 bits, then filling.
    packed = ((1 << COUNT * BITS) - 1).to_bytes(4 * BITS, "little")
    filled = (1 << COUNT * BITS).to_bytes(4 * BITS, "little")
    last = (1 << 32 * BITS - 1).to_bytes(4 * BITS, "little")
    return Body(
        kind,
        sender,
        len(head) + len(packed),
        head + packed,
        (
            ("an empty body", BAD, b""),
            ("the head alone", BAD, head),
            ("a count of 6", BAD, struct.pack(">IHH", COUNT + 1, BITS, SITES) + packed),
            ("a count of 4 GiB", BAD, struct.pack(">IHH", 2**32 - 1, BITS, SITES) + packed),
            ("17 bits", BAD, struct.pack(">IHH", COUNT, BITS - 1, SITES) + packed),
            ("11 sites", BAD, struct.pack(">IHH", COUNT, BITS, SITES - 1) + packed),
            ("a word too few", BAD, head + packed[:-4]),
            ("cut short", BAD, head + packed[:-1]),
            ("the first bit of the filling set", BAD, head + filled),
            ("the last bit of the filling set", BAD, head + last),
        ),
    )


def _certificate() -> Body:
    names = fixed_bytes("key list") + fixed_bytes("name of a group key")
    sets = places(0, 1, 3, 5, 11) + places(0, 1, 3, 5)
    signed = fixed_bytes("signature") * 6
    good = names + sets + places(0, 1, 5) + signed
    beyond = [
        names + b"".join(sets_) + signed
        for sets_ in (
            (places(0, 1, 12), places(0, 1, 3, 5), places(0, 1, 5)),
            (places(0, 1, 3, 5), places(0, 1, 15), places(0, 1, 5)),
            (places(0, 1, 3, 5), places(0, 1, 3, 5), places(0, 1, 14)),
        )
    ]
    return Body(
        Kind.CERTIFICATE,
        COMBINER,
        64 + 3 * 2 + SITES * 64,
        good,
        (
            ("an empty body", BAD, b""),
            ("cut inside the digest", BAD, good[:31]),
            ("cut inside the key's name", BAD, good[:63]),
            ("no key's name", BAD, good[:32] + good[64:]),
            ("cut inside the sets", BAD, good[:69]),
            ("sets without signatures", BAD, good[:70]),
            ("a bit beyond the roster among the sharers", BAD, beyond[0]),
            ("a bit beyond the roster among the survivors", BAD, beyond[1]),
            ("a bit beyond the roster among the signers", BAD, beyond[2]),
            ("fewer signatures than signers", BAD, good[:-64]),
            ("more signatures than signers", BAD, good + signed[:64]),
            ("a signature cut short", BAD, good[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
        ),
    )


def _sum() -> Body:
    certificate, vector = _certificate(), _vector(Kind.MASKED_INPUT, COMBINER)
    short = certificate.good[:-64]
    return Body(
        Kind.SUM,
        COMBINER,
        certificate.limit + vector.limit,
        certificate.good + vector.good,
        (
            ("no vector", BAD, certificate.good),
            ("no certificate", BAD, vector.good),
            ("fewer signatures than signers", BAD, short + vector.good),
            ("more signatures than signers", BAD, certificate.good + bytes(64) + vector.good),
            ("a trailing byte", BAD, certificate.good + vector.good + b"\0"),
            *(
                (f"a vector: {what}", expect, certificate.good + body)
                for what, expect, body in vector.hostile
            ),
        ),
    )


def _pieces(kind: Kind, size: int) -> Body:
    good = bytes(range(1, size + 1)) * PIECES
    return Body(
        kind,
        "aachen",
        SITES * size,
        good,
        (
            ("an empty body", BAD, b""),
            ("cut short", BAD, good[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("one share too few", BAD, good[:-size]),
            ("one share too many", BAD, good + good[:size]),
        ),
    )


def _survivors() -> Body:
    return Body(
        Kind.SURVIVORS,
        COMBINER,
        2,
        places(0, 4, 11),
        (
            ("an empty body", BAD, b""),
            ("half a set", BAD, b"\1"),
            ("the first bit beyond the roster", BAD, places(0, 4, 12)),
            ("the last bit beyond the roster", BAD, places(0, 4, 15)),
        ),
    )


def _consistency() -> Body:
    return Body(
        Kind.CONSISTENCY,
        "aachen",
        32,
        TRANSCRIPT,
        (
            ("an empty body", "Inconsistent", b""),
            ("cut short", "Inconsistent", TRANSCRIPT[:-1]),
            ("another transcript", "Inconsistent", bytes([TRANSCRIPT[0] ^ 1]) + TRANSCRIPT[1:]),
        ),
    )


def bodies() -> tuple[Body, ...]:
    return (
        _advertise(),
        _key_list(),
        _vector(Kind.MASKED_INPUT, "aachen"),
        _sum(),
        Body(Kind.START, COMBINER, 0, b""),
        Body(Kind.READY, "aachen", 0, b""),
        Body(Kind.OPEN, COMBINER, 0, b""),
        Body(Kind.ACCEPTED, "aachen", 0, b""),
        # What is in the plain kinds is the study's; here they are bytes.
        Body(Kind.PLAIN_INPUT, "aachen", 64, bytes(range(64))),
        Body(Kind.PLAIN_PROTOTYPES, COMBINER, 64, bytes(range(64))),
        _pieces(Kind.SHARES, 82),
        _delivery(),
        _survivors(),
        _consistency(),
        _certificate(),
        _pieces(Kind.UNMASK, 33),
    )
