"""What the frames of the key stage carry: one value a kind, one canonical body each (GK-3, GK-4).

``decode`` is told who sent the body and for how many sites it is; it raises
:class:`MalformedFrame` naming the sender for everything that ``encode`` does not write.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from fedbcs_protocols.errors import MalformedFrame
from fedbcs_protocols.exchange import KEY_BYTES
from fedbcs_protocols.framelist import frames_limit
from fedbcs_protocols.group.keyring import MAX_HELD
from fedbcs_protocols.group.secret import KEY_ID_BYTES, SECRET_BYTES, GroupSecret
from fedbcs_protocols.group.standing import Standing
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES

TAG_BYTES = 16
WRAPPED_BYTES = SECRET_BYTES + TAG_BYTES

_DEAL = struct.Struct(f">I{KEY_ID_BYTES}s")
_LENGTH = struct.Struct(">I")
_GIFT = struct.Struct(">IB")
_GIVEN = struct.Struct(f">II{SECRET_BYTES}s")


def ready_limit(sites: int, annex_bytes: int = 0) -> int:
    """The longest *ready* frame whose annex has this length."""
    return MAX_OVERHEAD_BYTES + Ready.length(sites, annex_bytes)


def present_limit(sites: int, annex_bytes: int = 0) -> int:
    """The longest list of *ready* frames."""
    return frames_limit(sites, ready_limit(sites, annex_bytes))


def present_digest(body: Buffer) -> bytes:
    """Names a list of *ready* frames (GK-3.1)."""
    return hashlib.sha256(b"fedbcs-secure present v1\x00" + bytes(body)).digest()


@dataclass(frozen=True)
class Ready:
    """A site's standing, and behind it an annex of the study's, which is only bytes here."""

    standing: Standing
    annex: bytes = b""

    def encode(self, sites: int) -> bytes:
        return self.standing.encode(sites) + self.annex

    @staticmethod
    def length(sites: int, annex_bytes: int) -> int:
        """The exact length of the body, in bytes."""
        return Standing.length(sites) + annex_bytes

    @classmethod
    def decode(
        cls, body: Buffer, *, sender: str, sites: int, round: int, annex_bytes: int
    ) -> Ready:
        """Raises :class:`MalformedFrame` or :class:`BadKey` naming the sender."""
        view, length = memoryview(body), cls.length(sites, annex_bytes)
        # GK-2.7
        if len(view) != length:
            raise MalformedFrame(sender, f"a ready of {len(view)} bytes, not {length}")
        end = Standing.length(sites)
        standing = Standing.decode(view[:end], sender=sender, sites=sites, round=round)
        return cls(standing, bytes(view[end:]))


@dataclass(frozen=True)
class Deal:
    """A new key, encrypted to each of ``members`` but the dealer, by ascending place."""

    epoch: int
    key_id: bytes
    members: frozenset[int]
    wrapped: tuple[bytes, ...]

    def encode(self, sites: int) -> bytes:
        head = _DEAL.pack(self.epoch, self.key_id)
        return b"".join((head, encode_set(self.members, sites), *self.wrapped))

    @staticmethod
    def limit(sites: int) -> int:
        """The longest body, in bytes."""
        return _DEAL.size + set_bytes(sites) + sites * WRAPPED_BYTES

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int) -> Deal:
        view = memoryview(body)
        head = _DEAL.size + set_bytes(sites)
        if len(view) < head:
            raise MalformedFrame(sender, f"a deal of {len(view)} bytes")
        epoch, key_id = _DEAL.unpack_from(view)
        members = decode_set(view[_DEAL.size : head], sites, sender=sender)
        if len(view) != head + (len(members) - 1) * WRAPPED_BYTES:
            raise MalformedFrame(sender, "a deal with more or fewer keys than sites that need one")
        wrapped = tuple(
            bytes(view[at : at + WRAPPED_BYTES]) for at in range(head, len(view), WRAPPED_BYTES)
        )
        return cls(epoch, key_id, members, wrapped)


@dataclass(frozen=True)
class Dealt:
    """The list of *ready* frames that a deal is over, and the dealer's signed frame."""

    present: bytes
    deal: bytes

    def encode(self) -> bytes:
        return b"".join((_LENGTH.pack(len(self.present)), self.present, self.deal))

    @staticmethod
    def limit(sites: int, annex_bytes: int = 0) -> int:
        """The longest body, in bytes."""
        longest = present_limit(sites, annex_bytes)
        return _LENGTH.size + longest + MAX_OVERHEAD_BYTES + Deal.limit(sites)

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int, annex_bytes: int = 0) -> Dealt:
        view = memoryview(body)
        if len(view) < _LENGTH.size:
            raise MalformedFrame(sender, f"a deal of {len(view)} bytes")
        (length,) = _LENGTH.unpack_from(view)
        if length > present_limit(sites, annex_bytes) or _LENGTH.size + length > len(view):
            raise MalformedFrame(sender, "a list of ready frames of an impossible length")
        end = _LENGTH.size + length
        return cls(bytes(view[_LENGTH.size : end]), bytes(view[end:]))


@dataclass(frozen=True)
class Taken:
    """Which key a site holds now."""

    epoch: int
    key_id: bytes

    LENGTH = 4 + KEY_ID_BYTES

    def encode(self) -> bytes:
        return self.epoch.to_bytes(4, "big") + self.key_id

    @classmethod
    def decode(cls, body: Buffer, *, sender: str) -> Taken:
        if len(body) != cls.LENGTH:
            raise MalformedFrame(sender, f"a key's name of {len(body)} bytes")
        return cls(int.from_bytes(body[:4], "big"), bytes(body[4:]))


def gift_bytes(sites: int) -> int:
    """Length of a gift before it is encrypted."""
    return _GIFT.size + MAX_HELD * (_GIVEN.size + set_bytes(sites))


def helped_length(sites: int) -> int:
    """The exact length of the body of a *helped* frame, in bytes."""
    return KEY_BYTES + gift_bytes(sites) + TAG_BYTES


def admitted_limit(sites: int) -> int:
    """The longest body of an *admitted* frame: a *helped* frame."""
    return MAX_OVERHEAD_BYTES + helped_length(sites)


def encode_gift(epoch: int, secrets: tuple[GroupSecret, ...], sites: int) -> bytes:
    """What a site that was away is given, before encryption: always of the same length (GK-4.3)."""
    parts = [_GIFT.pack(epoch, len(secrets))]
    for s in secrets:
        parts.append(_GIVEN.pack(s.epoch, s.began, s.secret) + encode_set(s.members, sites))
    return b"".join(parts).ljust(gift_bytes(sites), b"\0")


def decode_gift(data: bytes, sites: int, *, sender: str) -> tuple[int, tuple[GroupSecret, ...]]:
    """The inverse of :func:`encode_gift`."""
    if len(data) != gift_bytes(sites):
        raise MalformedFrame(sender, f"keys of {len(data)} bytes for a site that was away")
    epoch, count = _GIFT.unpack_from(data)
    width = _GIVEN.size + set_bytes(sites)
    end = _GIFT.size + count * width
    if count > MAX_HELD or any(data[end:]):
        raise MalformedFrame(sender, "keys for a site that was away, in an impossible form")
    secrets = []
    for at in range(_GIFT.size, end, width):
        number, began, secret = _GIVEN.unpack_from(data, at)
        members = decode_set(data[at + _GIVEN.size : at + width], sites, sender=sender)
        if not 1 <= number <= epoch or not members:
            raise MalformedFrame(sender, "a key of an epoch that is not yet, or of nobody")
        secrets.append(GroupSecret(number, began, members, secret))
    return epoch, tuple(secrets)
