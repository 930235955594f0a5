"""Sets of sites as bits: the one form in which frames say who is meant."""

from __future__ import annotations

from collections.abc import Iterable

from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.ring import Buffer


def set_bytes(sites: int) -> int:
    """Length of a set over a roster of so many sites: ceil(sites / 8)."""
    return -(-sites // 8)


def encode_set(places: Iterable[int], sites: int) -> bytes:
    """Bit p mod 8, lowest first, of byte p div 8 for each place p (SA-1.5)."""
    bits = 0
    for place in places:
        if not 0 <= place < sites:
            raise LocalError(f"place {place} is outside a roster of {sites} sites")
        bits |= 1 << place
    return bits.to_bytes(set_bytes(sites), "little")


def decode_set(data: Buffer, sites: int, *, sender: str) -> frozenset[int]:
    """The inverse of :func:`encode_set`; raises :class:`MalformedFrame` for any other bytes."""
    bits = int.from_bytes(data, "little")
    if len(data) != set_bytes(sites) or bits >> sites:
        raise MalformedFrame(sender, f"a set of sites that is none over {sites} sites")
    return frozenset(place for place in range(sites) if bits >> place & 1)
