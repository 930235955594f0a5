"""Good and hostile bodies of the group's key stage (GK-2 to GK-4), as ``known_bodies.py``.

And of the encrypted sum, but for those with ciphertexts: ``known_ckks.py`` has them.
"""

from __future__ import annotations

import struct

from known_bodies import BAD, SITES, TRANSCRIPT, Body, places, sealed
from known_values import BINDING, fixed_bytes

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.wire import Kind

WRAPPED = 48
OVERHEAD = 6 + 71 + 9 + 32 + 64
STANDING = 1 + 4 + 4 + 2 + 32 + 32 + 2
PRESENT_LIMIT = 2 + SITES * (4 + OVERHEAD + STANDING)
DEAL_LIMIT = 4 + 32 + 2 + SITES * WRAPPED
HELPED = 32 + 5 + 18 * (4 + 4 + 32 + 2) + 16
AGGREGATE_LIMIT = 2 + 32 + SITES * 32
LAST_EPOCH = 2**32 - 2**16

KEY_ID = fixed_bytes("name of a group key")
EXCHANGE = fixed_bytes("exchange")[:31] + b"\0"
MEMBERS = places(0, 4, 11)


def standing(
    status: int = 1,
    epoch: int = 5,
    began: int = 6,
    attempt: int = 2,
    key_id: bytes = KEY_ID,
    exchange: bytes = EXCHANGE,
    members: bytes = MEMBERS,
) -> bytes:
    head = struct.pack(">BIIH", status, epoch, began, attempt)
    return head + key_id + exchange + members


def _standing() -> Body:
    none, nobody = bytes(32), places()
    prime, low = ((2**255 - 19 - i).to_bytes(32, "little") for i in (0, 1))
    good = standing()
    return Body(
        Kind.JOINING,
        "aachen",
        STANDING,
        good,
        (
            ("an empty body", BAD, b""),
            ("cut short", BAD, good[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("status 3", BAD, standing(status=3)),
            ("status 255", BAD, standing(status=255)),
            ("no key, but a name", BAD, standing(status=0, epoch=0, members=nobody)),
            ("no key, but members", BAD, standing(status=0, epoch=0, key_id=none)),
            ("no key, but an epoch", BAD, standing(status=0, key_id=none, members=nobody)),
            ("a key without an epoch", BAD, standing(epoch=0)),
            ("a key without a name", BAD, standing(key_id=none)),
            ("a key without members", BAD, standing(members=nobody)),
            ("a key given up, but its name", BAD, standing(status=2, members=nobody)),
            ("a key given up, but its members", BAD, standing(status=2, key_id=none)),
            ("a key given up of no epoch", BAD, standing(2, 0, 0, 0, none, EXCHANGE, nobody)),
            ("an epoch too far", BAD, standing(epoch=LAST_EPOCH + 1)),
            ("the last epoch of all", BAD, standing(epoch=2**32 - 1)),
            ("a first round to come", BAD, standing(began=BINDING.round + 1)),
            ("a member beyond the roster", BAD, standing(members=places(0, 12))),
            ("an exchange key of 2^255 - 19", BAD, standing(exchange=prime)),
            ("an exchange key with its highest bit set", BAD, standing(exchange=b"\x99" * 32)),
            ("an exchange key of zero", "BadKey", standing(exchange=none)),
            ("an exchange key of 2^255 - 20", "BadKey", standing(exchange=low)),
        ),
    )


def listed(*frames: bytes, count: int = SITES) -> bytes:
    parts = (struct.pack(">I", len(frame)) + frame for frame in frames)
    return struct.pack(">H", count) + b"".join(parts)


def _ready() -> bytes:
    return sealed(Kind.READY, standing(), binding=BINDING)


def _present() -> Body:
    empty, inner = [b""] * (SITES - 1), _ready()
    good = listed(*empty[:4], inner, *empty[4:])
    return Body(
        Kind.PRESENT,
        COMBINER,
        PRESENT_LIMIT,
        good,
        (
            ("an empty body", BAD, b""),
            ("a count of 11", BAD, listed(*empty, inner, count=11)),
            ("11 frames", BAD, listed(*empty)),
            ("ends inside a frame", BAD, listed(*empty, inner)[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("a frame over the longest", BAD, listed(*empty, bytes(OVERHEAD + STANDING + 1))),
        ),
    )


def _deal() -> Body:
    head, keys = struct.pack(">I", 6) + KEY_ID, bytes(range(WRAPPED)) * 2
    good = head + MEMBERS + keys
    return Body(
        Kind.DEAL,
        "aachen",
        DEAL_LIMIT,
        good,
        (
            ("an empty body", BAD, b""),
            ("cut inside the name", BAD, good[:35]),
            ("half a set", BAD, good[:37]),
            ("a set without keys", BAD, good[:38]),
            ("cut short", BAD, good[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("a key for the dealer too", BAD, good + bytes(WRAPPED)),
            ("a key too few", BAD, good[:-WRAPPED]),
            ("a key for nobody", BAD, head + places() + keys),
            ("nobody, no key", BAD, head + places()),
            ("a member beyond the roster", BAD, head + places(0, 4, 12) + keys),
        ),
    )


def _dealt() -> Body:
    present, deal = _present().good, sealed(Kind.DEAL, _deal().good)
    good = struct.pack(">I", len(present)) + present + deal
    return Body(
        Kind.DEALT,
        COMBINER,
        4 + PRESENT_LIMIT + OVERHEAD + DEAL_LIMIT,
        good,
        (
            ("an empty body", BAD, b""),
            ("half a length", BAD, good[:2]),
            ("a length over the body", BAD, struct.pack(">I", len(good) - 3) + good[4:]),
            ("a length of 4 GiB", BAD, b"\xff" * 4 + good[4:]),
            (
                "a list over the longest",
                BAD,
                struct.pack(">I", PRESENT_LIMIT + 1) + bytes(PRESENT_LIMIT + 1) + deal,
            ),
        ),
    )


def _taken() -> Body:
    good = struct.pack(">I", 6) + KEY_ID
    return Body(
        Kind.TAKEN,
        "aachen",
        36,
        good,
        (
            ("an empty body", BAD, b""),
            ("cut short", BAD, good[:-1]),
            ("a name alone", BAD, KEY_ID),
        ),
    )


def _aggregate() -> Body:
    """CK-4.3"""
    digest, salts = fixed_bytes("aggregate"), [fixed_bytes(f"salt {i}") for i in range(3)]
    good = MEMBERS + digest + b"".join(salts)
    return Body(
        Kind.AGGREGATE,
        COMBINER,
        AGGREGATE_LIMIT,
        good,
        (
            ("an empty body", BAD, b""),
            ("half a set", BAD, good[:1]),
            ("a set alone", BAD, good[:2]),
            ("cut inside the digest", BAD, good[:33]),
            ("no salts", BAD, good[:34]),
            ("a salt too few", BAD, good[:-32]),
            ("cut short", BAD, good[:-1]),
            ("a trailing byte", BAD, good + b"\0"),
            ("a salt too many", BAD, good + salts[0]),
            ("a member more than salts", BAD, places(0, 4, 7, 11) + good[2:]),
            ("a member less than salts", BAD, places(0, 11) + good[2:]),
            ("a member beyond the roster", BAD, places(0, 4, 12) + good[2:]),
        ),
    )


def group_bodies() -> tuple[Body, ...]:
    return (
        _present(),
        _deal(),
        _dealt(),
        _taken(),
        Body(Kind.JOIN, COMBINER, 0, b""),
        _standing(),
        # What these carry is a frame or ciphertexts, read as such by whom it is for.
        Body(Kind.HELP, COMBINER, OVERHEAD + STANDING, sealed(Kind.JOINING, standing())),
        Body(Kind.HELPED, "aachen", HELPED, bytes(range(256)) * 3),
        Body(Kind.ADMITTED, COMBINER, OVERHEAD + HELPED, sealed(Kind.HELPED, TRANSCRIPT)),
        Body(Kind.ENCRYPTED, "aachen", 64, bytes(range(64))),
        _aggregate(),
        Body(Kind.CHECKPOINT, COMBINER, 64, bytes(range(64))),
        Body(Kind.SEALED_STATE, "aachen", 64, bytes(range(64))),
        Body(Kind.RESTORE, COMBINER, 64, bytes(range(64))),
    )
