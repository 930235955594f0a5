"""What a site says of its keys when it is ready, and what follows from all such words (GK-2)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from fedbcs_protocols.errors import BadKey, MalformedFrame
from fedbcs_protocols.exchange import KEY_BYTES, check_key
from fedbcs_protocols.group.secret import KEY_ID_BYTES, NO_KEY
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes

EPOCHS_A_ROUND = 1024
"""A single site's word on an epoch counts up to this often the rounds so far."""
MAX_EPOCH = (1 << 32) - (1 << 16)

_HEAD = struct.Struct(">BIIH")


class Status(IntEnum):
    """How a site stands to the last epoch that it knows of."""

    NONE = 0
    HOLDS = 1
    BURNED = 2


@dataclass(frozen=True)
class Standing:
    """A site's word on its keys, signed in its *ready* frame.

    ``epoch`` is the last that it knows of (0: none), ``began`` its first round, ``key_id`` and
    ``members`` those of the key if the site holds it (else zeros and none); ``exchange`` is a fresh
    X25519 key, ``attempt`` the first number of an attempt that the site would take part in.
    """

    status: Status
    epoch: int
    began: int
    attempt: int
    key_id: bytes
    members: frozenset[int]
    exchange: bytes

    def encode(self, sites: int) -> bytes:
        head = _HEAD.pack(self.status, self.epoch, self.began, self.attempt)
        return b"".join((head, self.key_id, self.exchange, encode_set(self.members, sites)))

    @staticmethod
    def length(sites: int) -> int:
        """The exact length of the body, in bytes."""
        return _HEAD.size + KEY_ID_BYTES + KEY_BYTES + set_bytes(sites)

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int, round: int) -> Standing:
        """Raises :class:`MalformedFrame` or :class:`BadKey` naming the sender."""
        view = memoryview(body)
        # GK-2.1
        if len(view) != cls.length(sites):
            raise MalformedFrame(
                sender, f"a standing of {len(view)} bytes, not {cls.length(sites)}"
            )
        status, epoch, began, attempt = _HEAD.unpack_from(view)
        key_end = _HEAD.size + KEY_ID_BYTES
        key_id = bytes(view[_HEAD.size : key_end])
        exchange = bytes(view[key_end : key_end + KEY_BYTES])
        members = decode_set(view[key_end + KEY_BYTES :], sites, sender=sender)
        if status not in (0, 1, 2):
            raise MalformedFrame(sender, f"there is no status {status}")
        holds = status == Status.HOLDS
        # GK-2.2
        if holds != (key_id != NO_KEY) or holds != bool(members) or (status == 0) != (epoch == 0):
            raise MalformedFrame(sender, "a standing that contradicts itself")
        if epoch > MAX_EPOCH or began > round:
            raise MalformedFrame(sender, "an epoch that this round cannot have come to")
        check_key(exchange, sender)
        return cls(Status(status), epoch, began, attempt, key_id, members, exchange)


@dataclass(frozen=True)
class Task:
    """A new epoch: its number, and the place of the site that makes the key and deals it."""

    epoch: int
    dealer: int


def task_of(standings: Mapping[int, Standing], round: int, rekey_every: int) -> Task | None:
    """What the sites that are present, by place, have to do before a sum; None if nothing.

    A key goes on only if all of them hold it, they are those that it was dealt to, and it is not
    due (GK-2.4). Everybody who sees the same standings comes to the same task: the lowest in the
    roster deals (GK-2.5).
    """
    keys = {(s.status, s.epoch, s.key_id, s.began, s.members) for s in standings.values()}
    status, _, _, began, members = next(iter(keys))
    if (
        len(keys) == 1
        and status is Status.HOLDS
        and members == frozenset(standings)
        and round - began < rekey_every
    ):
        return None
    # GK-2.5: nobody uses the numbers up alone.
    epochs = [s.epoch for s in standings.values()]
    believed = (e for e in epochs if e <= EPOCHS_A_ROUND * (round + 1) or epochs.count(e) > 1)
    return Task(max(believed, default=0) + 1, min(standings))


def check_distinct(standings: Mapping[str, Standing]) -> None:
    """Raise :class:`BadKey` when two sites show the same exchange key (GK-2.3)."""
    seen: set[bytes] = set()
    for name, standing in standings.items():
        if standing.exchange in seen:
            raise BadKey(name, "its exchange key is another site's")
        seen.add(standing.exchange)
