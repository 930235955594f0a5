"""What the short frames of a protected sum carry: one value a kind, one canonical body each.

``decode`` is told who sent the body and for how many sites it is; it raises
:class:`MalformedFrame` naming the sender for everything that ``encode`` does not write, and
:class:`BadKey` for a key that hides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.exchange import KEY_BYTES, check_key
from fedbcs_protocols.framelist import decode_frames, encode_frames, frames_limit
from fedbcs_protocols.identity import SIGNATURE_BYTES
from fedbcs_protocols.messages import MAX_SITES
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.shamir import SHARE_BYTES
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES

DIGEST_BYTES = 32
TAG_BYTES = 16
SEALED_SHARES_BYTES = 2 * SHARE_BYTES + TAG_BYTES
"""A share of the mask key and one of the seed, encrypted."""


@dataclass(frozen=True)
class Advertise:
    """A site's fresh X25519 keys, its commitment to the self-mask seed, and whom it drew.

    ``drawn`` holds places in the roster, and is empty in a complete graph.
    """

    mask_key: bytes
    share_key: bytes
    commitment: bytes
    drawn: frozenset[int] = frozenset()

    def encode(self, sites: int) -> bytes:
        drawn = encode_set(self.drawn, sites) if self.drawn else b""
        return b"".join((self.mask_key, self.share_key, self.commitment, drawn))

    @staticmethod
    def length(graph: Neighbourhood, sites: int) -> int:
        """The exact length of the body, in bytes."""
        return 2 * KEY_BYTES + DIGEST_BYTES + (0 if graph.complete else set_bytes(sites))

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, graph: Neighbourhood, sites: int) -> Advertise:
        view = memoryview(body)
        expected = cls.length(graph, sites)
        if len(view) != expected:
            raise MalformedFrame(sender, f"keys of {len(view)} bytes, not {expected}")
        mask_key, share_key, commitment = (bytes(view[at : at + 32]) for at in (0, 32, 64))
        for key in (mask_key, share_key):
            check_key(key, sender)
        drawn: frozenset[int] = frozenset()
        if not graph.complete:
            drawn = decode_set(view[96:], sites, sender=sender)
            # SA-1.6 (that the site is not in its own draw: where its place is known).
            if len(drawn) != graph.size:
                raise MalformedFrame(sender, f"a draw of {len(drawn)} sites, not {graph.size}")
        return cls(mask_key, share_key, commitment, drawn)


@dataclass(frozen=True)
class KeyList:
    """The sites' own signed *advertise* frames, each in its place; None for a site that is absent.

    The combiner passes the frames on as they came, so it cannot put another key in a site's name.
    """

    frames: tuple[bytes | None, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.frames) <= MAX_SITES:
            raise LocalError(f"a key list is for 1 to {MAX_SITES} sites")

    def encode(self) -> bytes:
        return encode_frames(self.frames)

    @staticmethod
    def limit(graph: Neighbourhood, sites: int) -> int:
        """The longest body for so many sites, in bytes."""
        return frames_limit(sites, MAX_OVERHEAD_BYTES + Advertise.length(graph, sites))

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, graph: Neighbourhood, sites: int) -> KeyList:
        longest = MAX_OVERHEAD_BYTES + Advertise.length(graph, sites)
        return cls(
            decode_frames(body, sender=sender, sites=sites, longest=longest, what="key list")
        )


def key_list_digest(body: Buffer) -> bytes:
    """Names a key list (SA-2.6)."""
    return hashlib.sha256(b"fedbcs-secure key list v1\x00" + bytes(body)).digest()


def cut(body: Buffer, count: int, size: int, *, sender: str, what: str) -> tuple[bytes, ...]:
    """``count`` pieces of ``size`` bytes; :class:`MalformedFrame` unless that is the whole body."""
    view = memoryview(body)
    if len(view) != count * size:
        raise MalformedFrame(sender, f"{len(view)} bytes of {what}, not {count} times {size}")
    return tuple(bytes(view[at : at + size]) for at in range(0, len(view), size))


@dataclass(frozen=True)
class Delivery:
    """Who sent shares (places), and those for the receiver, encrypted, by ascending sender."""

    sharers: frozenset[int]
    sealed: tuple[bytes, ...]

    def encode(self, sites: int) -> bytes:
        return encode_set(self.sharers, sites) + b"".join(self.sealed)

    @staticmethod
    def limit(sites: int) -> int:
        """The longest body, in bytes."""
        return set_bytes(sites) + sites * SEALED_SHARES_BYTES

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int) -> Delivery:
        view = memoryview(body)
        head = set_bytes(sites)
        if len(view) < head or (len(view) - head) % SEALED_SHARES_BYTES:
            raise MalformedFrame(sender, f"a delivery of {len(view)} bytes")
        count = (len(view) - head) // SEALED_SHARES_BYTES
        if count > sites:
            raise MalformedFrame(sender, "more shares than sites")
        sealed = cut(view[head:], count, SEALED_SHARES_BYTES, sender=sender, what="shares")
        return cls(decode_set(view[:head], sites, sender=sender), sealed)


@dataclass(frozen=True)
class Certificate:
    """At least t sites' signatures on who is in a sum (SA-6.1); sets hold places.

    ``key_id`` names the key of the tags; ``signatures`` maps each signer's place to its signature
    of the *consistency* frame.
    """

    key_list: bytes
    key_id: bytes
    sharers: frozenset[int]
    survivors: frozenset[int]
    signatures: Mapping[int, bytes]

    def encode(self, sites: int) -> bytes:
        sets = (encode_set(s, sites) for s in (self.sharers, self.survivors, self.signatures))
        ordered = (self.signatures[place] for place in sorted(self.signatures))
        return b"".join((self.key_list, self.key_id, *sets, *ordered))

    @staticmethod
    def limit(sites: int) -> int:
        """The longest body, in bytes."""
        return 2 * DIGEST_BYTES + 3 * set_bytes(sites) + sites * SIGNATURE_BYTES

    @classmethod
    def decode_from(cls, body: Buffer, *, sender: str, sites: int) -> tuple[Certificate, int]:
        """The certificate at the start of ``body``, and where it ends."""
        view = memoryview(body)
        width = set_bytes(sites)
        head = 2 * DIGEST_BYTES + 3 * width
        if len(view) < head:
            raise MalformedFrame(sender, f"a certificate of {len(view)} bytes")
        sharers, survivors, signers = (
            decode_set(view[at : at + width], sites, sender=sender)
            for at in range(2 * DIGEST_BYTES, head, width)
        )
        end = head + len(signers) * SIGNATURE_BYTES
        if len(view) < end:
            raise MalformedFrame(sender, "a certificate with fewer signatures than signers")
        pieces = cut(
            view[head:end], len(signers), SIGNATURE_BYTES, sender=sender, what="signatures"
        )
        signatures = dict(zip(sorted(signers), pieces, strict=True))
        key_list, key_id = bytes(view[:DIGEST_BYTES]), bytes(view[DIGEST_BYTES : 2 * DIGEST_BYTES])
        return cls(key_list, key_id, sharers, survivors, signatures), end

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int) -> Certificate:
        certificate, end = cls.decode_from(body, sender=sender, sites=sites)
        if end != len(body):
            raise MalformedFrame(sender, "bytes after the end of the certificate")
        return certificate
