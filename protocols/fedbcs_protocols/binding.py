"""Which sum a message belongs to, and the one way in which names and numbers become bytes."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from fedbcs_protocols.errors import LocalError

DIGEST_BYTES = 32
COMBINER = "@combiner"
"""The combiner's name in frames. No site can have it: theirs start with a letter or a digit."""
MAX_NAME_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_FORMAT = struct.Struct(">32sIHB32s")


def is_name(name: str) -> bool:
    """Whether ``name`` may stand in a frame: a site's (ASCII, at most 32) or the combiner's."""
    return name == COMBINER or _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Binding:
    """The five things that every frame carries and every key is derived from.

    ``study_digest`` and ``state_digest`` are 32 bytes; ``round`` < 2^32, ``attempt`` < 2^16,
    ``phase`` < 2^8. ``phase`` tells apart two sums over the same state. Raises
    :class:`LocalError` on anything else.
    """

    study_digest: bytes
    round: int
    attempt: int
    phase: int
    state_digest: bytes

    ENCODED_BYTES = _FORMAT.size

    def __post_init__(self) -> None:
        for field, digest in (("study", self.study_digest), ("state", self.state_digest)):
            if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
                raise LocalError(f"the {field} digest must be {DIGEST_BYTES} bytes")
        for field, value, bits in (
            ("round", self.round, 32),
            ("attempt", self.attempt, 16),
            ("phase", self.phase, 8),
        ):
            if not 0 <= value < 1 << bits:
                raise LocalError(f"{field} must be in 0..2^{bits}-1, got {value}")

    def encode(self) -> bytes:
        """71 bytes, big-endian, in the order of the fields."""
        return _FORMAT.pack(
            self.study_digest, self.round, self.attempt, self.phase, self.state_digest
        )

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Binding:
        """The inverse of :meth:`encode`; ``data`` must be exactly 71 bytes."""
        if len(data) != _FORMAT.size:
            raise LocalError(f"a binding is {_FORMAT.size} bytes, got {len(data)}")
        return cls(*_FORMAT.unpack(data))


def encode_fields(*fields: bytes | str | int) -> bytes:
    """An injective encoding of a list: a type letter, a 4-byte length and the content of each.

    Text is UTF-8, numbers are 8 bytes big-endian (0..2^64-1). Two different lists never share an
    encoding, so a hash or a key derived from it stands for exactly one list.
    """
    parts: list[bytes] = []
    for field in fields:
        if isinstance(field, str):
            tag, content = b"s", field.encode()
        elif isinstance(field, bytes):
            tag, content = b"b", field
        else:
            if not 0 <= field < 1 << 64:
                raise LocalError("numbers in a derivation must be in 0..2^64-1")
            tag, content = b"i", field.to_bytes(8, "big")
        parts += [tag, len(content).to_bytes(4, "big"), content]
    return b"".join(parts)
