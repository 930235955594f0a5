"""Signed frames: one canonical binary form, checked before anything is allocated.

Layout, integers big-endian (WI-1.1)::

    "FBCS"  version 1  kind 1  study 32  round 4  attempt 2  phase 1  state 32
    sequence 4  name length 1  body length 4  name  body  signature 64

The signature is Ed25519 over a domain tag, everything before the body, and SHA-256 of the body.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

from fedbcs_protocols.binding import MAX_NAME_BYTES, Binding, is_name
from fedbcs_protocols.errors import (
    LocalError,
    MalformedFrame,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.identity import SIGNATURE_BYTES, Identity, PublicIdentity
from fedbcs_protocols.ring import Buffer

MAGIC = b"FBCS"
VERSION = 1
MAX_BODY_BYTES = 2**32 - 1
UNSIGNED = bytes(SIGNATURE_BYTES)

_DOMAIN = b"fedbcs-secure frame v1\x00"
_START = struct.Struct(">4sBB")
_END = struct.Struct(">IBI")
_FIXED_BYTES = _START.size + Binding.ENCODED_BYTES + _END.size
MAX_OVERHEAD_BYTES = _FIXED_BYTES + MAX_NAME_BYTES + SIGNATURE_BYTES
"""A frame is at most this much longer than its body."""
_UNREAD = "unread frame"


class Kind(IntEnum):
    """What a frame carries. Numbers are never reused."""

    ADVERTISE = 1
    KEY_LIST = 2
    MASKED_INPUT = 3
    SUM = 4
    START = 5
    READY = 6
    OPEN = 7
    ACCEPTED = 8
    PLAIN_INPUT = 9
    PLAIN_PROTOTYPES = 10
    SHARES = 11
    DELIVERY = 12
    SURVIVORS = 13
    CONSISTENCY = 14
    CERTIFICATE = 15
    UNMASK = 16
    PRESENT = 17
    DEAL = 18
    DEALT = 19
    TAKEN = 20
    JOIN = 21
    JOINING = 22
    HELP = 23
    HELPED = 24
    ADMITTED = 25
    ENCRYPTED = 26
    AGGREGATE = 27
    CHECKPOINT = 28
    SEALED_STATE = 29
    RESTORE = 30


Limits = Mapping[Kind, int]
"""The kinds that are welcome, and the longest body of each in bytes."""


@dataclass(frozen=True)
class Frame:
    """One message with everything that binds it.

    ``sequence`` numbers a sender's frames within a binding, from 0. ``body`` may be a view into the
    bytes that were received. Raises :class:`LocalError` for a field that has no encoding.
    """

    kind: Kind
    binding: Binding
    sender: str
    sequence: int
    body: Buffer = field(repr=False)
    signature: bytes = UNSIGNED

    def __post_init__(self) -> None:
        if not is_name(self.sender):
            raise LocalError("a sender is a site's name or the combiner's")
        if not 0 <= self.sequence < 1 << 32:
            raise LocalError("a sequence number is in 0..2^32-1")
        if len(self.body) > MAX_BODY_BYTES:
            raise LocalError("a body is below 4 GiB")
        if len(self.signature) != SIGNATURE_BYTES:
            raise LocalError(f"a signature is {SIGNATURE_BYTES} bytes")

    @property
    def header(self) -> bytes:
        """Everything before the body."""
        name = self.sender.encode("ascii")
        return b"".join(
            (
                _START.pack(MAGIC, VERSION, self.kind),
                self.binding.encode(),
                _END.pack(self.sequence, len(name), len(self.body)),
                name,
            )
        )

    def signed_message(self) -> bytes:
        """The bytes under the signature (WI-2.1)."""
        return _DOMAIN + self.header + hashlib.sha256(self.body).digest()

    def encode(self) -> bytes:
        """The frame's canonical bytes; the body is copied once."""
        return b"".join((self.header, self.body, self.signature))


def seal(frame: Frame, identity: Identity) -> bytes:
    """The encoded frame under ``identity``'s signature."""
    return replace(frame, signature=identity.sign(frame.signed_message())).encode()


def decode(data: Buffer, limits: Limits) -> Frame:
    """The frame that ``data`` is the canonical form of; nothing is verified but the form.

    The body is a view of ``data``. Raises :class:`MalformedFrame` for anything that
    :meth:`Frame.encode` does not write, trailing bytes and bodies over their limit included, and
    :class:`UnexpectedFrame` for a kind that ``limits`` does not name.
    """
    view = memoryview(data).toreadonly()
    # WI-1.2: lengths are checked before anything is read, copied or allocated.
    longest = MAX_OVERHEAD_BYTES + max(limits.values(), default=0)
    if not _FIXED_BYTES + SIGNATURE_BYTES < len(view) <= longest:
        raise MalformedFrame(_UNREAD, f"{len(view)} bytes are no frame that is expected here")
    magic, version, kind_number = _START.unpack_from(view)
    if magic != MAGIC or version != VERSION:
        raise MalformedFrame(_UNREAD, f"not a version {VERSION} frame of this protocol")
    sequence, name_length, body_length = _END.unpack_from(view, _START.size + Binding.ENCODED_BYTES)
    # WI-1.3: the lengths say exactly where the frame ends.
    body_start = _FIXED_BYTES + name_length
    if len(view) != body_start + body_length + SIGNATURE_BYTES:
        raise MalformedFrame(_UNREAD, "the lengths inside the frame do not add up to its own")
    # WI-1.4: a name has one spelling, in ASCII.
    sender = bytes(view[_FIXED_BYTES:body_start]).decode("ascii", errors="replace")
    if not is_name(sender):
        raise MalformedFrame(_UNREAD, "the sender's name is not one that a roster can hold")
    # WI-1.5: only the kinds, and only as much of each, as this moment allows.
    if kind_number not in _KINDS:
        raise MalformedFrame(sender, f"there is no frame of kind {kind_number}")
    kind = _KINDS[kind_number]
    if kind not in limits:
        raise UnexpectedFrame(sender, f"a frame of kind {kind.name} is not expected here")
    if body_length > limits[kind]:
        raise MalformedFrame(sender, f"a body of {body_length} bytes, at most {limits[kind]}")
    return Frame(
        kind=kind,
        binding=Binding.decode(view[_START.size : _START.size + Binding.ENCODED_BYTES]),
        sender=sender,
        sequence=sequence,
        body=view[body_start : body_start + body_length],
        signature=bytes(view[body_start + body_length :]),
    )


def open_frame(
    data: Buffer, *, roster: Mapping[str, PublicIdentity], expect: Binding, limits: Limits
) -> Frame:
    """The frame in ``data``, proven to come from its sender and to belong to ``expect``.

    ``roster`` holds whoever may speak here. Raises as :func:`decode`, :class:`UnknownSender`,
    :class:`BadSignature`, and :class:`WrongBinding` naming the first field that differs.
    """
    frame = decode(data, limits)
    # WI-2.2: the sender is one whom this side knows.
    if frame.sender not in roster:
        raise UnknownSender(frame.sender, "not among those who may speak here")
    # WI-2.1
    roster[frame.sender].verify(frame.signature, frame.signed_message(), signer=frame.sender)
    # WI-2.3: study, round, attempt, phase and state are this session's.
    for name in ("study_digest", "round", "attempt", "phase", "state_digest"):
        if getattr(frame.binding, name) != getattr(expect, name):
            raise WrongBinding(frame.sender, name.replace("_", " "))
    return frame


def expect_sequence(frame: Frame, sequence: int) -> None:
    """Raises :class:`WrongBinding` unless the frame has this number (WI-2.4)."""
    if frame.sequence != sequence:
        raise WrongBinding(frame.sender, "sequence")


_KINDS: Mapping[int, Kind] = MappingProxyType({int(kind): kind for kind in Kind})
