"""The secret that the sites of a group share and the combiner never has (GK-1)."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.derive import PROTOCOL_VERSION
from fedbcs_protocols.errors import LocalError

SECRET_BYTES = KEY_ID_BYTES = 32
NO_KEY = bytes(KEY_ID_BYTES)
"""In the place of a key's name: there is none."""

_KEY_ID_LABEL = "group key"


@dataclass(frozen=True)
class GroupSecret:
    """32 random bytes, the number of their epoch, and the round in which that began.

    ``members`` are the places of the sites that were given it. Its representation shows no secret,
    and it cannot be pickled.
    """

    epoch: int
    began: int
    members: frozenset[int]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.epoch < 1 << 32 or not 0 <= self.began < 1 << 32:
            raise LocalError("epochs count from 1, rounds from 0, both below 2^32")
        if len(self.secret) != SECRET_BYTES:
            raise LocalError(f"a group's secret is {SECRET_BYTES} bytes")

    @classmethod
    def generate(cls, epoch: int, began: int, members: frozenset[int]) -> GroupSecret:
        """A new one from the operating system's generator."""
        return cls(epoch, began, members, secrets.token_bytes(SECRET_BYTES))

    @property
    def key_id(self) -> bytes:
        """32 bytes that name the secret and tell nothing of it (GK-1.2)."""
        return key_id(self.secret)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("the secrets of a group are not pickled")


def key_id(secret: bytes) -> bytes:
    """SHA-256 over the list (WI-3.1) of ``"group key"``, 1, the secret (GK-1.2)."""
    return hashlib.sha256(encode_fields(_KEY_ID_LABEL, PROTOCOL_VERSION, secret)).digest()
