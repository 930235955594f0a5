"""Signed frames of several sites inside one body, each in its site's place."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fedbcs_protocols.errors import MalformedFrame
from fedbcs_protocols.ring import Buffer

_COUNT = struct.Struct(">H")
_LENGTH = struct.Struct(">I")


def encode_frames(frames: Sequence[bytes | None]) -> bytes:
    """The count of places, then for each the length and the bytes of its frame, or length 0."""
    parts = [_COUNT.pack(len(frames))]
    for frame in frames:
        parts += [_LENGTH.pack(len(frame or b"")), frame or b""]
    return b"".join(parts)


def frames_limit(sites: int, longest: int) -> int:
    """The longest list for so many sites whose frames have at most ``longest`` bytes."""
    return _COUNT.size + sites * (_LENGTH.size + longest)


def decode_frames(
    body: Buffer, *, sender: str, sites: int, longest: int, what: str
) -> tuple[bytes | None, ...]:
    """The inverse of :func:`encode_frames`; ``what`` names the list in errors.

    Raises :class:`MalformedFrame` for anything else.
    """
    view = memoryview(body)
    if len(view) < _COUNT.size or _COUNT.unpack_from(view)[0] != sites:
        raise MalformedFrame(sender, f"the {what} is not one for {sites} sites")
    frames: list[bytes | None] = []
    position = _COUNT.size
    for _ in range(sites):
        if position + _LENGTH.size > len(view):
            raise MalformedFrame(sender, f"the {what} ends early")
        (length,) = _LENGTH.unpack_from(view, position)
        position += _LENGTH.size
        if length > longest or position + length > len(view):
            raise MalformedFrame(sender, f"a frame in the {what} has an impossible length")
        frames.append(bytes(view[position : position + length]) if length else None)
        position += length
    if position != len(view):
        raise MalformedFrame(sender, f"bytes after the end of the {what}")
    return tuple(frames)
