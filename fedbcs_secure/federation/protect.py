"""From an update to the integers that are masked or encrypted, the same under every protection."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.codec import Quantised, Segment, quantise
from fedbcs_protocols.derive import PublicStream
from fedbcs_protocols.ring import ring_bits
from fedbcs_secure.federation.layout import Layout, prototype_share, share
from fedbcs_secure.federation.release import Update
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study


@lru_cache(maxsize=8)
def segments(plan: Layout) -> tuple[Segment, ...]:
    """The codec's segments: a range for each weight tensor and each prototype."""
    names = [t.name for t in plan.tensors]
    names += [f"prototype/{s.view}/{s.label}" for s in plan.slots]
    out, start = [], 0
    for name, size in zip(names, plan.sizes, strict=True):
        out.append(Segment(name, start, size))
        start += size
    return tuple(out)


def modulus_bits(study: Study) -> int:
    """m: bits of a value plus what a sum over the roster needs."""
    return ring_bits(study.codec.bits, len(study.roster))


def weighted(update: Update, plan: Layout, study: Study, site: str) -> NDArray[np.float32]:
    """The site's (N,) float32 term of the weighted average: update times share, then prototypes."""
    out = np.empty(plan.length, np.float32)
    np.multiply(update.delta, np.float32(share(study, site)), out=out[: plan.parameters])
    position = plan.parameters
    for slot in plan.slots:
        place = out[position : position + plan.slot_width]
        position += plan.slot_width
        if site in slot.holders and (slot.view, slot.label) in update.prototypes:
            part = np.float32(prototype_share(study, slot, site))
            np.multiply(update.prototypes[slot.view, slot.label], part, out=place)
        else:
            place[:] = 0
    return out


def encode(update: Update, state: GlobalState, plan: Layout, study: Study, site: str) -> Quantised:
    """The site's (N,) uint32 vector of this round.

    Rounding is stochastic from a *public* stream of (seed, site, round): the vector depends on
    nothing but the update, so masked, encrypted and plain sums are equal bit for bit.
    """
    values = weighted(update, plan, study, site)
    words = PublicStream(study.seed, "rounding", site, state.round).words16(values.size)
    return quantise(values, segments(plan), state.exponents, study.codec.bits, words)
