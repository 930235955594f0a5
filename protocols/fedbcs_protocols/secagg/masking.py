"""Masks: what one neighbour adds, the other subtracts; and the mask that only its site knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.derive import KEYSTREAM_WORDS, Keystream, stream_key, stream_scratch
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.exchange import agree
from fedbcs_protocols.ring import BLOCK, Words, blocks, modulus_mask
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.setting import Setting

PAIR_LABEL = "secagg pairwise mask"
SELF_LABEL = "secagg self mask"


@dataclass(frozen=True)
class Mask:
    """A mask: the key of its stream, and whether it is added or subtracted."""

    key: bytes = field(repr=False)
    adds: bool

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("secrets of a sum are not pickled")

    @property
    def removed(self) -> Mask:
        """The mask that takes this one off again."""
        return Mask(self.key, not self.adds)


def pair_mask(
    private: X25519PrivateKey, setting: Setting, table: KeyTable, me: int, peer: int
) -> Mask:
    """The mask that the site in place ``me`` shares with the one in place ``peer``.

    The one earlier in the roster adds (SA-4.3); both derive the same key, because names and keys
    go in with the earlier first. Raises :class:`BadKey` for a peer's key of low order.
    """
    if me == peer:
        raise LocalError("a site has no mask with itself")
    shared = agree(private, table.adverts[peer].mask_key, setting.names[peer])
    first, second = min(me, peer), max(me, peer)
    # SA-4.4
    key = stream_key(
        shared,
        PAIR_LABEL,
        setting.binding,
        (setting.names[first], setting.names[second]),
        (table.adverts[first].mask_key, table.adverts[second].mask_key),
    )
    return Mask(key, adds=me < peer)


def self_mask(seed: bytes, binding: Binding, name: str, mask_key: bytes) -> Mask:
    """The mask from a site's own seed (SA-4.4)."""
    key = stream_key(seed, SELF_LABEL, binding, (name, name), (mask_key, mask_key))
    return Mask(key, adds=True)


class Masker:
    """Adds masks to a vector, piece after piece, modulo 2^bits. Used once."""

    def __init__(self, masks: Sequence[Mask], bits: int) -> None:
        self._streams = [(Keystream(mask.key), mask.adds) for mask in masks]
        self._modulus_mask = modulus_mask(bits)
        self._scratch = stream_scratch()

    def apply(self, values: Words) -> None:
        """Mask the next ``values.size`` values in place."""
        # Pieces of 256 KiB: keystream and values stay in the cache while every mask is added.
        for start in range(0, values.size, KEYSTREAM_WORDS):
            piece = values[start : start + KEYSTREAM_WORDS]
            for stream, adds in self._streams:
                # SA-4.5
                words = np.frombuffer(stream.next_into(self._scratch, 4 * piece.size), "<u4")
                (np.add if adds else np.subtract)(piece, words, out=piece)
            np.bitwise_and(piece, self._modulus_mask, out=piece)

    def __repr__(self) -> str:
        return f"Masker({len(self._streams)} keys redacted)"


def masked_blocks(vector: Words, masks: Sequence[Mask], bits: int) -> Iterator[Words]:
    """The masked vector in pieces for :func:`fedbcs_protocols.ring.pack_blocks`.

    ``vector`` itself stays as it is; the yielded array is reused.
    """
    masker = Masker(masks, bits)
    scratch = np.empty(min(vector.size, BLOCK), np.uint32)
    for where in blocks(vector.size):
        piece = scratch[: where.stop - where.start]
        piece[:] = vector[where]
        masker.apply(piece)
        yield piece
