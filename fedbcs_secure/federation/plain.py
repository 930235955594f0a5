"""Bodies of protection "none": who is in, and vectors in the clear (RO-5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import BadSiteList
from fedbcs_protocols.messages import SumBroadcast, VectorShape
from fedbcs_protocols.ring import Buffer, Words, pack, unpack
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes
from fedbcs_secure.federation.rounds import Parties


def _shape(parties: Parties, vectors: int) -> VectorShape:
    """Of so many sites' prototype parts, one after another."""
    plan = parties.plan
    values = len(plan.slots) * plan.fused_channels * vectors
    return VectorShape(values, parties.shape.bits, len(parties.roster))


def sum_limit(parties: Parties) -> int:
    """The longest body of a plain sum, in bytes."""
    return set_bytes(len(parties.roster)) + parties.shape.body_bytes


def prototypes_limit(parties: Parties) -> int:
    """The longest body with the sites' prototypes, in bytes."""
    sites = len(parties.roster)
    return set_bytes(sites) + _shape(parties, sites).body_bytes


def encode_sum(parties: Parties, survivors: Collection[str], total: Words) -> bytes:
    """The set of sites in the sum (SA-1.5), and the sum."""
    message = SumBroadcast(parties.shape, pack(total, parties.shape.bits))
    return _set(parties, survivors) + message.encode()


def decode_sum(parties: Parties, body: Buffer) -> tuple[tuple[str, ...], Words]:
    """The inverse; raises a :class:`PeerError`."""
    survivors, rest = _split(parties, body)
    message = SumBroadcast.decode(rest, sender=COMBINER, shape=parties.shape)
    return survivors, unpack(message.packed, parties.shape.count, parties.shape.bits)


def encode_prototypes(
    parties: Parties, survivors: Collection[str], individual: Sequence[Words]
) -> bytes:
    """The set of sites in the sum, and each one's prototype part."""
    shape = _shape(parties, len(individual))
    message = SumBroadcast(shape, pack(np.concatenate(individual), shape.bits))
    return _set(parties, survivors) + message.encode()


def decode_prototypes(parties: Parties, body: Buffer) -> tuple[tuple[str, ...], list[Words]]:
    """The inverse; raises a :class:`PeerError`."""
    survivors, rest = _split(parties, body)
    shape = _shape(parties, len(survivors))
    message = SumBroadcast.decode(rest, sender=COMBINER, shape=shape)
    flat = unpack(message.packed, shape.count, shape.bits)
    return survivors, list(flat.reshape(len(survivors), -1))


def _set(parties: Parties, survivors: Collection[str]) -> bytes:
    names = tuple(parties.roster)
    return encode_set((names.index(name) for name in survivors), len(names))


def _split(parties: Parties, body: Buffer) -> tuple[tuple[str, ...], memoryview]:
    names, view = tuple(parties.roster), memoryview(body)
    width = set_bytes(len(names))
    places = decode_set(view[:width], len(names), sender=COMBINER)
    if len(places) < parties.threshold:
        raise BadSiteList(COMBINER, f"a sum of {len(places)} sites, at least {parties.threshold}")
    return tuple(names[place] for place in sorted(places)), view[width:]
