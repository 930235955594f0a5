"""The next global state from the last one and the integer sum: pure, exact, the same everywhere.

Only single float32 and float64 operations on elements (IEEE 754 fixes their results) and integer
sums; never a floating-point reduction, whose order would differ between machines. The exception is
``prototypes = "finch"``, the research mode without protection: clustering compares floating-point
products, so two machines may part there (and then refuse each other in the next round).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.codec import (
    MAX_EXPONENT,
    MIN_EXPONENT,
    centred_sum,
    dequantise_sum,
    levels,
    range_exponent,
    step_exponent,
)
from fedbcs_protocols.ring import Words
from fedbcs_secure.federation.layout import (
    Layout,
    PrototypeSlot,
    initial_exponents,
    prototype_share,
    share,
)
from fedbcs_secure.federation.protect import segments
from fedbcs_secure.federation.state import ClassPrototypes, GlobalState
from fedbcs_secure.learning.finch import aggregate
from fedbcs_secure.sections import Privacy
from fedbcs_secure.study import Study

MAX_SHRINK = 2
"""A range falls by at most this many powers of two a round.

Updates of two sites may cancel in a short segment; without a brake its range would collapse and
clip both in the next round.
"""
MAX_GROWTH = 4
"""A range grows by at most this many powers of two a round ..."""
MAX_RISE = 10
"""... and by at most this many above its initial value: a sum that the combiner made up cannot
move the weights as far as it likes."""
MAX_FALL = 16
"""... and by at most this many below its initial value, so that a tensor at rest can wake up."""


def initial_state(study: Study, plan: Layout, weights: NDArray[np.float32]) -> GlobalState:
    """State before round 0: no prototypes, ranges from the study."""
    velocity = np.zeros(weights.size if study.server_momentum else 0, np.float32)
    return GlobalState(0, weights.copy(), velocity, (), initial_exponents(study, plan))


def next_state(
    state: GlobalState,
    total: Words,
    plan: Layout,
    study: Study,
    survivors: Sequence[str] | None = None,
    individual: Sequence[Words] | None = None,
) -> GlobalState:
    """Apply the sum of a round (N,) uint32 over ``survivors`` (RO-4), None for the whole roster.

    ``individual`` holds each survivor's prototype part, in roster order: only under
    ``prototypes = "finch"``, which shows them.
    """
    roster = tuple(entry.name for entry in study.roster)
    survivors = roster if survivors is None else tuple(survivors)
    sites, bits, places = len(survivors), study.codec.bits, segments(plan)
    # RO-4.5: a refusal here would let one site end the study with one false value.
    total = np.minimum(total, np.uint32(2 * levels(bits) * sites))
    exact = dequantise_sum(total, sites, places, state.exponents, bits)
    if survivors != roster:
        _rescale(exact, survivors, plan, study)
    average = exact.astype(np.float32)
    weights, velocity = moved(state, average[: plan.parameters], study)
    exponents = _next_exponents(state, centred_sum(total, sites, bits), plan, study)
    return GlobalState(
        round=state.round + 1,
        weights=weights,
        velocity=velocity,
        prototypes=_prototypes(state, average, plan, study, survivors, individual),
        exponents=exponents,
    )


def _rescale(
    average: NDArray[np.float64], survivors: Sequence[str], plan: Layout, study: Study
) -> None:
    """Make the average that of the survivors: each part over the shares that are in it (RO-4.1)."""
    average[: plan.parameters] /= math.fsum(share(study, site) for site in survivors)
    if plan.private:
        # Sums over patients: their ratio to a number of patients needs no share.
        return
    start = plan.parameters
    for slot in plan.slots:
        part = math.fsum(prototype_share(study, slot, site) for site in survivors)
        average[start : start + plan.slot_width] /= part
        start += plan.slot_width


def moved(
    state: GlobalState, step: NDArray[np.float32], study: Study
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and velocity after ``step`` (P,), with the study's server momentum (RO-4.1)."""
    velocity = state.velocity
    if study.server_momentum:
        velocity = _settled(np.float32(study.server_momentum) * state.velocity + step)
        step = velocity
    return _settled(state.weights + step), velocity


def _settled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``values`` with everything below 2^-100 as zero: processes differ on subnormal numbers."""
    values[np.abs(values) < np.float32(2.0**-100)] = 0
    return values


def _next_exponents(
    state: GlobalState, centred: NDArray[np.int64], plan: Layout, study: Study
) -> tuple[int, ...]:
    """Ranges of the coming round: 10 rms of this sum, as a power of two, falling slowly.

    A sum of zeros only says that the step was too coarse, so its range falls too.
    """
    out = []
    initial = initial_exponents(study, plan)
    fixed = len(plan.tensors) if plan.private else len(initial)
    ranges = zip(segments(plan), state.exponents, initial, strict=True)
    for index, (place, previous, first) in enumerate(ranges):
        if index >= fixed:
            # DP-4.4
            out.append(first)
            continue
        values = centred[place.place]
        wanted = previous - MAX_SHRINK
        if values.any():
            step = step_exponent(previous, study.codec.bits)
            wanted = max(wanted, range_exponent(values, step, previous=previous))
        highest = min(previous + MAX_GROWTH, first + MAX_RISE, MAX_EXPONENT)
        lowest = max(first - MAX_FALL, MIN_EXPONENT)
        out.append(min(max(wanted, lowest), highest))
    return tuple(out)


def _prototypes(
    state: GlobalState,
    average: NDArray[np.float32],
    plan: Layout,
    study: Study,
    survivors: Sequence[str],
    individual: Sequence[Words] | None,
) -> tuple[ClassPrototypes, ...]:
    if plan.private and state.round not in study.prototype_rounds:
        return state.prototypes
    old = {(p.view, p.label): p.rows for p in state.prototypes}
    keep = np.float32(study.alignment.prototype_momentum or 0)
    out = []
    for index, slot in enumerate(plan.slots):
        if individual is None:
            begin = plan.parameters + index * plan.slot_width
            rows = average[None, begin : begin + plan.fused_channels].copy()
            if study.privacy is not None:
                patients = np.float32(_nominal(study, slot, survivors))
                if plan.counted:
                    patients = average[begin + plan.fused_channels]
                rows = _mean_of(rows, patients, study.privacy)
            before = old.get((slot.view, slot.label))
            if keep and before is not None:
                rows = _settled(keep * before + (np.float32(1) - keep) * rows)
        else:
            rows = _clustered(state, plan, study, survivors, individual, index)
        out.append(ClassPrototypes(slot.view, slot.label, rows))
    return tuple(out)


def _nominal(study: Study, slot: PrototypeSlot, survivors: Sequence[str]) -> int:
    """Patients that the roster says the holders in the sum have."""
    return sum(e.patients or 0 for e in study.roster if e.name in {*survivors} & {*slot.holders})


def _mean_of(
    sums: NDArray[np.float32], patients: np.float32, privacy: Privacy
) -> NDArray[np.float32]:
    """The noised sum of a class over a number of patients, kept to what a mean can be."""
    clip = np.float32(privacy.prototype_clip)
    return _settled(np.clip(sums / max(patients, np.float32(1)), -clip, clip))


def _clustered(
    state: GlobalState,
    plan: Layout,
    study: Study,
    survivors: Sequence[str],
    individual: Sequence[Words],
    index: int,
) -> NDArray[np.float32]:
    """FINCH over the surviving holders' own prototypes (the published server step)."""
    slot = plan.slots[index]
    place = segments(plan)[len(plan.tensors) + index]
    start = index * plan.fused_channels
    rows = []
    for name, codes in zip(survivors, individual, strict=True):
        if name not in slot.holders:
            continue
        part = codes[start : start + plan.fused_channels]
        alone = type(place)(place.name, 0, place.length)
        exponent = state.exponents[len(plan.tensors) + index]
        values = dequantise_sum(part, 1, (alone,), (exponent,), study.codec.bits)
        rows.append(values / prototype_share(study, slot, name))
    return aggregate(np.stack(rows)).astype(np.float32)
