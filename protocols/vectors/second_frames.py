"""The frames of the second implementation: writing, opening, and what a good body of a kind is.

Like ``second_implementation.py`` it follows the pages in ``protocols/specs`` and shares no code
with the package; Ed25519 comes from ``cryptography``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from second_implementation import Binding, binding_bytes, members, shared, unpack

KINDS = 30
"""Kinds of frames that there are (WI-1.1)."""


def signed_part(kind: int, binding: Binding, sender: str, sequence: int, body: bytes) -> bytes:
    """The head of a frame."""
    head = b"FBCS" + bytes([1, kind]) + binding_bytes(binding)
    return head + struct.pack(">IBI", sequence, len(sender), len(body)) + sender.encode()


def message(head: bytes, body: bytes) -> bytes:
    """WI-2.1"""
    return b"fedbcs-secure frame v1\0" + head + hashlib.sha256(body).digest()


def sign(secret: str, signed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).sign(signed)


def frame(
    secret: str, kind: int, binding: Binding, sender: str, sequence: int, body: bytes
) -> bytes:
    head = signed_part(kind, binding, sender, sequence, body)
    return head + body + sign(secret, message(head, body))


def body_of(data: bytes) -> bytes:
    return data[86 + data[81] : -64]


def open_frame(
    data: bytes, binding: Binding, roster: Mapping[str, str], kind: int, limit: int
) -> str:
    """The outcome for a reader who takes one kind, ``limit`` bytes of body."""
    if not 6 + 71 + 9 + 64 < len(data) <= 6 + 71 + 9 + 32 + 64 + limit:
        return "MalformedFrame"
    _sequence, name_length, body_length = struct.unpack(">IBI", data[77:86])
    body_at = 86 + name_length
    name = data[86:body_at].decode("latin-1")
    proper = name == "@combiner" or (
        0 < len(name) <= 32
        and name[0].isalnum()
        and all(c.isalnum() or c in "_.-" for c in name)
        and name.isascii()
    )
    known = data[:5] == b"FBCS\x01" and 1 <= data[5] <= KINDS
    if len(data) != body_at + body_length + 64 or not proper or not known:
        return "MalformedFrame"
    if data[5] != kind:
        return "UnexpectedFrame"
    if body_length > limit:
        return "MalformedFrame"
    if name not in roster:
        return "UnknownSender"
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(roster[name]))
    try:
        key.verify(data[-64:], message(data[:body_at], data[body_at:-64]))
    except InvalidSignature:
        return "BadSignature"
    return "ok" if data[6:77] == binding_bytes(binding) else "WrongBinding"


# Bodies ------------------------------------------------------------------------------------------


def body_outcome(kind: str, body: bytes, reader: Mapping[str, Any]) -> str:
    """``ok`` for a body of its kind for this reader, or the name of the error."""
    if kind == "ADVERTISE" and len(body) >= 64 and any(map(_is_dull, (body[:32], body[32:64]))):
        return "BadKey"
    if kind == "JOINING":
        return standing_outcome(body, reader["sites"], reader["round"])
    if is_good_body(kind, body, reader):
        return "ok"
    return "Inconsistent" if kind == "CONSISTENCY" else "MalformedFrame"


def _is_dull(key: bytes) -> bool:
    """Whether everybody has the secret zero with this key, as X25519 itself shows."""
    if int.from_bytes(key, "little") >= 2**255 - 19:
        return False
    try:
        shared(b"\x77" * 32, key)
    except ValueError:
        return True
    return False


def is_good_body(kind: str, body: bytes, reader: Mapping[str, Any]) -> bool:
    """Whether the body is one of its kind for this reader."""
    sites = reader["sites"]
    width = (sites + 7) // 8
    match kind:
        case "ADVERTISE":
            drawn = members(body[96:], sites)
            keys = (body[:32], body[32:64])
            canonical = all(int.from_bytes(key, "little") < 2**255 - 19 for key in keys)
            return canonical and drawn is not None and len(drawn) == reader["drawn"]
        case "KEY_LIST":
            return is_frame_list(body, sites, longest=182 + 96 + width)
        case "MASKED_INPUT":
            head = struct.pack(">IHH", reader["count"], reader["bits"], sites)
            return body[:8] == head and bool(unpack(body[8:], reader["count"], reader["bits"]))
        case "SUM":
            end = _certificate_end(body, sites)
            return end is not None and is_good_body("MASKED_INPUT", body[end:], reader)
        case "SHARES":
            return len(body) == 82 * reader["pieces"]
        case "DELIVERY":
            return members(body[:width], sites) is not None and (len(body) - width) % 82 == 0
        case "SURVIVORS":
            return members(body, sites) is not None
        case "CONSISTENCY":
            return body.hex() == reader["transcript"]
        case "CERTIFICATE":
            return _certificate_end(body, sites) == len(body)
        case "UNMASK":
            return len(body) == 33 * reader["pieces"]
        case "PRESENT":
            return is_frame_list(body, sites, longest=182 + 75 + width)
        case "DEAL":
            to = members(body[36 : 36 + width], sites)
            return bool(to) and len(body) == 36 + width + 48 * (len(to) - 1)
        case "DEALT":
            length = int.from_bytes(body[:4], "big")
            return len(body) >= 4 and length <= min(
                len(body) - 4, 2 + sites * (4 + 182 + 75 + width)
            )
        case "AGGREGATE":
            inside = members(body[:width], sites)
            return inside is not None and len(body) == width + 32 + 32 * len(inside)
        case "TAKEN":
            return len(body) == 36
        case _:
            return True


def standing_outcome(body: bytes, sites: int, round_: int) -> str:
    """GK-2.1, GK-2.2, GK-2.3"""
    if len(body) != 75 + (sites + 7) // 8:
        return "MalformedFrame"
    status, epoch, began = struct.unpack(">BII", body[:9])
    name, exchange, to = body[11:43], body[43:75], members(body[75:], sites)
    fits = {
        0: epoch == 0 and not any(name) and to == [],
        1: epoch > 0 and any(name) and bool(to),
        2: epoch > 0 and not any(name) and to == [],
    }
    in_time = epoch <= 1024 * (round_ + 1) and began <= round_
    canonical = int.from_bytes(exchange, "little") < 2**255 - 19
    if not fits.get(status) or not in_time or not canonical:
        return "MalformedFrame"
    return "BadKey" if _is_dull(exchange) else "ok"


def is_frame_list(body: bytes, sites: int, longest: int) -> bool:
    """SA-2.1, GK-3.1"""
    rest = body[2:]
    for _ in range(sites):
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length or length > longest or len(rest) < 4:
            return False
        rest = rest[4 + length :]
    return body[:2] == struct.pack(">H", sites) and not rest


def _certificate_end(body: bytes, sites: int) -> int | None:
    width = (sites + 7) // 8
    sets = [members(body[at : at + width], sites) for at in range(64, 64 + 3 * width, width)]
    if sets[0] is None or sets[1] is None or sets[2] is None:
        return None
    end = 64 + 3 * width + 64 * len(sets[2])
    return end if len(body) >= end else None
