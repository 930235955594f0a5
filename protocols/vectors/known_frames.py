"""Good and hostile frames. What each must raise is written here by hand, not observed.

First headers, for one reader; then the bodies of ``known_bodies.py`` and ``known_group_bodies.py``,
each for its kind's reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from known_bodies import (
    AACHEN,
    BAD,
    BITS,
    BOSS,
    COUNT,
    DRAWN,
    PIECES,
    SITES,
    TRANSCRIPT,
    Body,
    bodies,
    sealed,
)
from known_group_bodies import group_bodies
from known_values import BINDING, Json, binding_json, fixed_bytes

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import Frame, Kind, seal

BERN = Identity.from_secret_bytes(fixed_bytes("bern"))
Cases = Iterator[tuple[str, str, bytes]]


# Headers: the reader takes ADVERTISE, at most 32 bytes, from aachen ------------------------------


def _headers() -> Cases:
    body = fixed_bytes("body")
    good = sealed(Kind.ADVERTISE, body)
    name_at = 6 + 71 + 9

    def edited(position: int, value: int) -> bytes:
        frame = bytearray(good)
        frame[position] = value
        return bytes(frame)

    def bound(**changes: Any) -> bytes:
        binding = Binding(**{**vars(BINDING), **changes})
        return sealed(Kind.ADVERTISE, body, binding=binding)

    yield "a good frame", "ok", good
    yield "an empty body", "ok", sealed(Kind.ADVERTISE, b"")
    yield "nothing", BAD, b""
    yield "cut short", BAD, good[:-1]
    yield "cut to the header", BAD, good[:86]
    yield "a trailing byte", BAD, good + b"\0"
    yield "another magic", BAD, edited(0, 0x66)
    yield "version 2", BAD, edited(4, 2)
    yield "kind 0", BAD, edited(5, 0)
    yield "kind 31", BAD, edited(5, 31)
    yield "kind 200", BAD, edited(5, 200)
    yield "a name length of 0", BAD, edited(81, 0)
    yield "a name length of 33", BAD, edited(81, 33)
    yield "a body length of 4 GiB", BAD, good[:82] + b"\xff\xff\xff\xff" + good[86:]
    yield "a name outside ASCII", BAD, edited(name_at, 0xE4)
    yield "a name that starts with a dot", BAD, edited(name_at, 0x2E)
    yield "a body of 33 bytes", BAD, sealed(Kind.ADVERTISE, body + b"\0")
    yield "another kind", "UnexpectedFrame", sealed(Kind.SUM, body)
    yield "an unknown sender", "UnknownSender", sealed(Kind.ADVERTISE, body, sender="essen")
    yield "the combiner's name", "UnknownSender", sealed(Kind.ADVERTISE, body, sender=COMBINER)
    yield "another's signature", "BadSignature", good[:-64] + _by_bern(body)[-64:]
    yield "a changed round", "BadSignature", edited(41, good[41] ^ 1)
    yield "a changed body", "BadSignature", edited(92, good[92] ^ 1)
    yield "a changed signature", "BadSignature", edited(len(good) - 1, good[-1] ^ 1)
    yield "no signature", "BadSignature", good[:-64] + bytes(64)
    yield "another study", "WrongBinding", bound(study_digest=bytes(32))
    yield "another round", "WrongBinding", bound(round=8)
    yield "another attempt", "WrongBinding", bound(attempt=0)
    yield "another phase", "WrongBinding", bound(phase=3)
    yield "another state", "WrongBinding", bound(state_digest=bytes(32))


def _by_bern(body: bytes) -> bytes:
    return seal(Frame(Kind.ADVERTISE, BINDING, "aachen", 0, body), BERN)


# Kinds -------------------------------------------------------------------------------------------


def _of_kind(body: Body) -> Cases:
    """The reader of a kind takes that kind only, up to its limit."""
    good = sealed(body.kind, body.good, body.sender)
    other = Kind.SUM if body.kind is not Kind.SUM else Kind.START
    yield "a good frame", "ok", good
    yield "the frame cut short", BAD, good[:-1]
    yield "the frame with a trailing byte", BAD, good + b"\0"
    yield "an oversized body", BAD, sealed(body.kind, bytes(body.limit + 1), body.sender)
    yield "another kind", "UnexpectedFrame", sealed(other, b"", body.sender)
    yield "a kind changed to fit", "BadSignature", _relabelled(other, body)
    for what, expect, hostile in body.hostile:
        yield what, expect, sealed(body.kind, hostile, body.sender)


def _relabelled(kind: Kind, body: Body) -> bytes:
    frame = bytearray(sealed(kind, body.good, body.sender))
    frame[5] = body.kind
    return bytes(frame)


def _listed(cases: Cases) -> list[Json]:
    return [{"what": what, "expect": expect, "frame": data.hex()} for what, expect, data in cases]


def frames() -> Json:
    """Headers for one reader, then each kind for a reader of that kind."""
    return {
        "binding": binding_json(BINDING),
        "roster": {"aachen": AACHEN.public.raw.hex()},
        "combiner": BOSS.public.raw.hex(),
        "cases": _listed(_headers()),
        "reader": {
            "sites": SITES,
            "round": BINDING.round,
            "drawn": DRAWN,
            "bits": BITS,
            "count": COUNT,
            "pieces": PIECES,
            "transcript": TRANSCRIPT.hex(),
        },
        "kinds": [
            {
                "kind": int(body.kind),
                "name": body.kind.name,
                "sender": body.sender,
                "limit": body.limit,
                "cases": _listed(_of_kind(body)),
            }
            for body in bodies() + group_bodies()
        ],
    }
