"""What the frames of a protected sum carry: one value a kind, one canonical body each.

``decode`` is told who sent the body and what size it must have; it raises
:class:`MalformedFrame` naming the sender for everything that ``encode`` does not write.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.ring import Buffer, check_packed, packed_bytes
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES

PUBLIC_KEY_BYTES = 32
MAX_SITES = 1024

_FIELD_PRIME = 2**255 - 19

_COUNT = struct.Struct(">H")
_LENGTH = struct.Struct(">I")
_VECTOR = struct.Struct(">IHH")


@dataclass(frozen=True)
class Advertise:
    """A site's fresh X25519 public key for its masks, 32 bytes."""

    mask_public_key: bytes

    def __post_init__(self) -> None:
        if len(self.mask_public_key) != PUBLIC_KEY_BYTES:
            raise LocalError(f"a mask key is {PUBLIC_KEY_BYTES} bytes")

    def encode(self) -> bytes:
        return self.mask_public_key

    @classmethod
    def decode(cls, body: Buffer, *, sender: str) -> Advertise:
        if len(body) != PUBLIC_KEY_BYTES:
            raise MalformedFrame(sender, f"a mask key of {len(body)} bytes, not {PUBLIC_KEY_BYTES}")
        # SA-1.4: else one key has several spellings, and SA-2.4 compares spellings.
        if int.from_bytes(body, "little") >= _FIELD_PRIME:
            raise MalformedFrame(sender, "a mask key that is not in canonical form")
        return cls(bytes(body))


@dataclass(frozen=True)
class KeyList:
    """Every site's own signed *advertise* frame, in the order of the roster.

    The combiner passes the frames on as they came, so it cannot put another key in a site's name.
    """

    frames: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.frames) <= MAX_SITES:
            raise LocalError(f"a key list holds 1 to {MAX_SITES} frames")
        if any(len(frame) > _LONGEST_ADVERTISE for frame in self.frames):
            raise LocalError("a frame in the key list is longer than an advertise frame can be")

    def encode(self) -> bytes:
        parts = [_COUNT.pack(len(self.frames))]
        for frame in self.frames:
            parts += [_LENGTH.pack(len(frame)), frame]
        return b"".join(parts)

    @staticmethod
    def limit(sites: int) -> int:
        """The longest body for so many sites, in bytes."""
        return _COUNT.size + sites * (_LENGTH.size + _LONGEST_ADVERTISE)

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int) -> KeyList:
        view = memoryview(body)
        if len(view) < _COUNT.size or _COUNT.unpack_from(view)[0] != sites:
            raise MalformedFrame(sender, f"the key list does not hold {sites} frames")
        frames = []
        position = _COUNT.size
        for _ in range(sites):
            if position + _LENGTH.size > len(view):
                raise MalformedFrame(sender, "the key list ends early")
            (length,) = _LENGTH.unpack_from(view, position)
            position += _LENGTH.size
            if length > _LONGEST_ADVERTISE or position + length > len(view):
                raise MalformedFrame(sender, "a frame in the key list has an impossible length")
            frames.append(bytes(view[position : position + length]))
            position += length
        if position != len(view):
            raise MalformedFrame(sender, "bytes after the end of the key list")
        return cls(tuple(frames))


@dataclass(frozen=True)
class VectorShape:
    """What both sides must agree on about a vector: values, bits a value, sites in the sum."""

    count: int
    bits: int
    sites: int

    def __post_init__(self) -> None:
        packed_bytes(self.count, self.bits)
        if not 1 <= self.sites <= MAX_SITES:
            raise LocalError(f"a sum has 1 to {MAX_SITES} sites, got {self.sites}")

    @property
    def body_bytes(self) -> int:
        """Exact length of a body with such a vector."""
        return _VECTOR.size + packed_bytes(self.count, self.bits)


@dataclass(frozen=True)
class _PackedVector:
    shape: VectorShape
    packed: Buffer

    def __post_init__(self) -> None:
        if len(self.packed) != packed_bytes(self.shape.count, self.shape.bits):
            raise LocalError("the packed vector does not have the length of its shape")

    def encode(self) -> bytes:
        head = _VECTOR.pack(self.shape.count, self.shape.bits, self.shape.sites)
        return b"".join((head, self.packed))


def _packed_of(body: Buffer, sender: str, shape: VectorShape) -> memoryview:
    if len(body) != shape.body_bytes:
        raise MalformedFrame(sender, f"a vector of {len(body)} bytes, not {shape.body_bytes}")
    view = memoryview(body)
    if _VECTOR.unpack_from(view) != (shape.count, shape.bits, shape.sites):
        raise MalformedFrame(sender, "the vector's shape is not the one of this session")
    packed = view[_VECTOR.size :]
    try:
        check_packed(packed, shape.count, shape.bits)
    except MalformedFrame as error:
        raise MalformedFrame(sender, error.what) from None
    return packed


class MaskedInput(_PackedVector):
    """A site's masked vector, packed."""

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, shape: VectorShape) -> MaskedInput:
        """Its ``packed`` is a view of ``body``."""
        return cls(shape, _packed_of(body, sender, shape))


class SumBroadcast(_PackedVector):
    """The sum over all sites, packed."""

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, shape: VectorShape) -> SumBroadcast:
        """Its ``packed`` is a view of ``body``."""
        return cls(shape, _packed_of(body, sender, shape))


_LONGEST_ADVERTISE = MAX_OVERHEAD_BYTES + PUBLIC_KEY_BYTES
