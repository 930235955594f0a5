"""Errors of the protocols: misuse on this side, misbehaviour of the other.

A text names the field, the expected and the received size or kind. It never holds a key, a mask, a
signature or a value of a vector, so it may be logged.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of every error that the protocols raise on purpose."""


class LocalError(ProtocolError):
    """This side misused the protocol: wrong argument, wrong order of calls, second use."""


class Refused(ProtocolError):
    """This side's own policy or memory forbids to go on. The text is for this side only."""


class TooFewSites(ProtocolError):
    """Fewer sites than the threshold are left, so the attempt ends without a sum."""


class PeerError(ProtocolError):
    """A peer sent something that the protocol does not allow.

    ``sender`` is the name that the frame claims. That they made the frame is proven only where the
    signature was checked first (not for :class:`MalformedFrame`, :class:`UnknownSender`,
    :class:`BadSignature`, nor an :class:`UnexpectedFrame` of an unwelcome kind or after the end);
    who delivered it, or kept it and delivered it again, is never proven.
    """

    def __init__(self, sender: str, what: str) -> None:
        self.sender = sender
        self.what = what
        super().__init__(f"{sender}: {what}")


class MalformedFrame(PeerError):
    """The bytes are not the canonical form of a frame or of its body, or are over the limit."""


class UnknownSender(PeerError):
    """The frame claims a sender who is not in the roster."""


class BadSignature(PeerError):
    """The signature is not that of the claimed sender over these bytes."""


class WrongBinding(PeerError):
    """The frame is genuine but belongs to another study, round, attempt, phase or state.

    ``field`` names the first field that differs.
    """

    def __init__(self, sender: str, field: str) -> None:
        self.field = field
        super().__init__(sender, f"the frame's {field} is not the one of this session")


class UnexpectedFrame(PeerError):
    """A genuine frame at the wrong time: of another kind, too early, too late or a second time."""


class BadKey(PeerError):
    """A key that is of low order or stands in the list twice."""


class BadKeyList(PeerError):
    """The list of keys is too short, out of order, or holds a frame that does not belong in it."""


class BadSiteList(PeerError):
    """A set of sites that is too small, leaves this site out, or holds one that cannot be in it."""


class BadShare(PeerError):
    """A share that does not open, or shares that do not give what their owner committed to."""


class Inconsistent(PeerError):
    """Sites did not see the same: a signature, a digest or a set is not the one seen here."""


class SumOutOfRange(PeerError):
    """A sum holds a value that no sum of honest contributions can have."""


class InconsistentShares(ProtocolError):
    """A share is no share, or the shares put together are those of no secret."""


class BadTag(PeerError):
    """The tags of a sum are not those of the claimed sites' values."""


class BadMembers(PeerError):
    """The sites that a sum says are in it are not those whose signatures came with it."""


class BadNoise(PeerError):
    """The noise in a decrypted sum is not that of as many honest ciphertexts."""


class BadCiphertext(PeerError):
    """Bytes that are no polynomial of residues."""
