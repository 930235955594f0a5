"""Pairwise masks: what one site of a pair adds, the other subtracts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.derive import KEYSTREAM_WORDS, Keystream, stream_key
from fedbcs_protocols.errors import BadKey, LocalError
from fedbcs_protocols.ring import BLOCK, Words, blocks, modulus_mask

MASK_LABEL = "secagg pairwise mask"


@dataclass(frozen=True)
class PairMask:
    """The mask that a site shares with one other: its stream key, and whether this side adds it."""

    key: bytes = field(repr=False)
    adds: bool


def pair_mask(
    private: X25519PrivateKey,
    binding: Binding,
    sites: Sequence[tuple[str, bytes]],
    me: int,
    peer: int,
) -> PairMask:
    """The mask of sites ``me`` and ``peer``, positions in ``sites``, the roster of (name, key).

    The one earlier in the roster adds (SA-3.1); both derive the same key, because names and keys
    go in with the earlier first. Raises :class:`BadKey` for a peer's key of low order.
    """
    if me == peer:
        raise LocalError("a site has no mask with itself")
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(sites[peer][1]))
    except ValueError:
        # SA-2.5: the shared secret would be zero, known to everybody.
        raise BadKey(sites[peer][0], "its mask key is of low order") from None
    first, second = sites[min(me, peer)], sites[max(me, peer)]
    # SA-3.2
    key = stream_key(shared, MASK_LABEL, binding, (first[0], second[0]), (first[1], second[1]))
    return PairMask(key, adds=me < peer)


class Masker:
    """Adds the masks of all pairs to a vector, piece after piece, modulo 2^bits. Used once."""

    def __init__(self, pairs: Sequence[PairMask], bits: int) -> None:
        self._streams = [(Keystream(pair.key), pair.adds) for pair in pairs]
        self._modulus_mask = modulus_mask(bits)

    def apply(self, values: Words) -> None:
        """Mask the next ``values.size`` values in place."""
        # Pieces of 256 KiB: keystream and values stay in the cache while every pair is added.
        for start in range(0, values.size, KEYSTREAM_WORDS):
            piece = values[start : start + KEYSTREAM_WORDS]
            for stream, adds in self._streams:
                # SA-3.4
                words = np.frombuffer(stream.next(4 * piece.size), "<u4")
                (np.add if adds else np.subtract)(piece, words, out=piece)
            np.bitwise_and(piece, self._modulus_mask, out=piece)

    def __repr__(self) -> str:
        return f"Masker({len(self._streams)} keys redacted)"


def masked_blocks(vector: Words, pairs: Sequence[PairMask], bits: int) -> Iterator[Words]:
    """The masked vector in pieces for :func:`fedbcs_protocols.ring.pack_blocks`.

    ``vector`` itself stays as it is; the yielded array is reused.
    """
    masker = Masker(pairs, bits)
    scratch = np.empty(min(vector.size, BLOCK), np.uint32)
    for where in blocks(vector.size):
        piece = scratch[: where.stop - where.start]
        piece[:] = vector[where]
        masker.apply(piece)
        yield piece
