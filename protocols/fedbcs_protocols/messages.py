"""The vectors that frames of a sum carry: one canonical body each.

``decode`` is told who sent the body and what size it must have; it raises
:class:`MalformedFrame` naming the sender for everything that ``encode`` does not write.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.ring import Buffer, check_packed, packed_bytes

MAX_SITES = 1024

_VECTOR = struct.Struct(">IHH")


@dataclass(frozen=True)
class VectorShape:
    """What both sides must agree on about a vector: values, bits a value, sites in the roster."""

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
    """The sum over all sites that stayed, packed."""

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, shape: VectorShape) -> SumBroadcast:
        """Its ``packed`` is a view of ``body``."""
        return cls(shape, _packed_of(body, sender, shape))
