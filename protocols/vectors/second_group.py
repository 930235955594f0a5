"""The key stage of the second implementation (page GK): standings, deals, gifts, and a reader.

Like ``second_implementation.py`` it shares no code with the package; AES, ChaCha20-Poly1305,
X25519 and Ed25519 come from ``cryptography``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from second_frames import body_of, is_frame_list, open_frame, standing_outcome
from second_implementation import (
    Binding,
    binding_bytes,
    fields,
    members,
    shared,
    site_set,
    stream_key,
)
from second_tags import key_name

READY, PRESENT, DEAL, DEALT, TAKEN = 6, 17, 18, 19, 20
JOIN, JOINING, HELP, HELPED, ADMITTED = 21, 22, 23, 24, 25


@dataclass(frozen=True)
class Secret:
    epoch: int
    began: int
    raw: bytes
    members: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """A standing, read."""

    status: int
    epoch: int
    began: int
    key_id: bytes
    exchange: bytes
    members: tuple[int, ...]


class Refusal(Exception):
    """Its text is the name of the error."""


@dataclass(frozen=True)
class World:
    """What all agree on: names in their order, public keys, threshold, rounds that a key serves."""

    names: Sequence[str]
    roster: Mapping[str, str]
    combiner: str
    threshold: int
    rekey_every: int

    @property
    def width(self) -> int:
        return (len(self.names) + 7) // 8


def stage_binding(control: Binding) -> dict[str, Any]:
    return {**control, "attempt": 0, "phase": 2}


def standing(held: Secret | None, epoch: int, exchange: bytes, attempt: int, world: World) -> bytes:
    """GK-2.1, for a site that has the key of the last epoch, or knows of none."""
    status = 1 if held else 0
    head = struct.pack(">BIIH", status, epoch, held.began if held else 0, attempt)
    name = key_name(held.raw) if held else bytes(32)
    return head + name + exchange + site_set(held.members if held else (), len(world.names))


def read_standing(body: bytes, world: World, round_: int) -> Seen:
    outcome = standing_outcome(body, len(world.names), round_)
    if outcome != "ok":
        raise Refusal(outcome)
    status, epoch, began, _ = struct.unpack(">BIIH", body[:11])
    places = members(body[75:], len(world.names)) or []
    return Seen(status, epoch, began, body[11:43], body[43:75], tuple(places))


def _opened(
    data: bytes, binding: Binding, roster: Mapping[str, str], kind: int, limit: int, number: int
) -> bytes:
    outcome = open_frame(data, binding, roster, kind, limit)
    if outcome != "ok":
        raise Refusal(outcome)
    if struct.unpack(">I", data[77:81])[0] != number:
        raise Refusal("WrongBinding")
    return body_of(data)


def read_list(body: bytes, control: Binding, world: World) -> dict[int, Seen]:
    """GK-3.1, GK-3.2, GK-2.3"""
    longest = 182 + 75 + world.width
    if not is_frame_list(body, len(world.names), longest):
        raise Refusal("MalformedFrame")
    seen: dict[int, Seen] = {}
    for place, frame in enumerate(frames_in(body)):
        if frame:
            name = world.names[place]
            one = {name: world.roster[name]}
            inner = _opened(frame, control, one, READY, 75 + world.width, 0)
            seen[place] = read_standing(inner, world, control["round"])
    if len(seen) < world.threshold:
        raise Refusal("BadKeyList")
    if len({s.exchange for s in seen.values()}) < len(seen):
        raise Refusal("BadKey")
    return seen


def frames_in(body: bytes) -> list[bytes]:
    out, at = [], 2
    while at < len(body):
        (length,) = struct.unpack(">I", body[at : at + 4])
        out.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return out


def task(seen: Mapping[int, Seen], round_: int, rekey_every: int) -> tuple[int, int] | None:
    """GK-2.4, GK-2.5: the new epoch and its dealer's place."""
    first = seen[min(seen)]
    goes_on = (
        all(
            (s.status, s.epoch, s.key_id, s.began, s.members)
            == (1, first.epoch, first.key_id, first.began, first.members)
            for s in seen.values()
        )
        and list(first.members) == sorted(seen)
        and round_ < first.began + rekey_every
    )
    return None if goes_on else (1 + max(s.epoch for s in seen.values()), min(seen))


def present_digest(body: bytes) -> bytes:
    return hashlib.sha256(b"fedbcs-secure present v1\0" + body).digest()


def _message(
    label: str,
    secret: bytes,
    public: bytes,
    binding: Binding,
    names: Sequence[str],
    keys: Sequence[bytes],
    about: Sequence[int | bytes],
) -> tuple[ChaCha20Poly1305, bytes]:
    """GK-3.4: the cipher and the associated data."""
    key = stream_key(shared(secret, public), label, binding, names, keys)
    return ChaCha20Poly1305(key), fields([label, 1, binding_bytes(binding), *names, *about])


def deal(
    secret: bytes,
    raw: bytes,
    epoch: int,
    dealer: int,
    present: bytes,
    control: Binding,
    world: World,
) -> bytes:
    """GK-3.4"""
    seen = read_list(present, control, world)
    about = [epoch, key_name(raw), present_digest(present)]
    out = struct.pack(">I", epoch) + key_name(raw) + site_set(seen, len(world.names))
    for to in sorted(seen):
        if to != dealer:
            names = [world.names[dealer], world.names[to]]
            keys = [seen[dealer].exchange, seen[to].exchange]
            binding = stage_binding(control)
            cipher, data = _message("group deal", secret, keys[1], binding, names, keys, about)
            out += cipher.encrypt(bytes(12), raw, data)
    return out


def read_dealt(
    data: bytes, me: str, own: bytes, secret: bytes, control: Binding, world: World
) -> Secret:
    """What a site makes of *dealt*, whose *ready* frame was ``own``. Raises :class:`Refusal`."""
    binding, sites = stage_binding(control), len(world.names)
    longest = 2 + sites * (4 + 182 + 75 + world.width)
    deal_limit = 36 + world.width + 48 * sites
    limit = 4 + longest + 182 + deal_limit
    body = _opened(data, binding, {"@combiner": world.combiner}, DEALT, limit, 1)
    length = int.from_bytes(body[:4], "big")
    if len(body) < 4 or length > min(longest, len(body) - 4):
        raise Refusal("MalformedFrame")
    present, inner = body[4 : 4 + length], body[4 + length :]
    seen, mine = read_list(present, control, world), world.names.index(me)
    # GK-3.3
    if frames_in(present)[mine] != own:
        raise Refusal("BadKeyList")
    due = task(seen, control["round"], world.rekey_every)
    if due is None:
        raise Refusal("UnexpectedFrame")
    epoch, dealer = due
    one = {world.names[dealer]: world.roster[world.names[dealer]]}
    told = _opened(inner, binding, one, DEAL, deal_limit, 0)
    to = members(told[36 : 36 + world.width], sites)
    if not to or len(told) != 36 + world.width + 48 * (len(to) - 1):
        raise Refusal("MalformedFrame")
    # GK-3.5
    if int.from_bytes(told[:4], "big") != epoch or to != sorted(seen):
        raise Refusal("Inconsistent")
    at = 36 + world.width + 48 * [place for place in to if place != dealer].index(mine)
    names, keys = [world.names[dealer], me], [seen[dealer].exchange, seen[mine].exchange]
    about = [epoch, told[4:36], present_digest(present)]
    cipher, extra = _message("group deal", secret, keys[0], binding, names, keys, about)
    try:
        raw = cipher.decrypt(bytes(12), told[at : at + 48], extra)
    except InvalidTag:
        raise Refusal("BadShare") from None
    if key_name(raw) != told[4:36]:
        raise Refusal("Inconsistent")
    return Secret(epoch, control["round"], raw, tuple(to))


def gift(
    secret: bytes,
    public: bytes,
    asking: bytes,
    away: Binding,
    names: Sequence[str],
    epoch: int,
    secrets: Sequence[Secret],
    world: World,
) -> bytes:
    """The body of *helped* (GK-4.3)."""
    plain = struct.pack(">IB", epoch, len(secrets))
    for s in secrets:
        plain += (
            struct.pack(">II", s.epoch, s.began) + s.raw + site_set(s.members, len(world.names))
        )
    plain += bytes(5 + 18 * (40 + world.width) - len(plain))
    binding, keys = stage_binding(away), [public, asking]
    cipher, data = _message("group gift", secret, asking, binding, names, keys, [])
    return public + cipher.encrypt(bytes(12), plain, data)
