"""From a target epsilon to the smallest noise that keeps it (DP-1.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.accountant import epsilon, shown
from fedbcs_secure.privacy.events import Events, total

TOLERANCE = 1e-4
"""The noise found is larger than needed by this part of itself at most."""

MIN_NOISE, MAX_NOISE = 0.05, 1e4
"""Noise multipliers that are considered; a study document allows no more."""

MIN_EPSILON, MAX_EPSILON = 1e-3, 200.0

_NOTHING: Mapping[str, Events] = MappingProxyType({})
_TRIES = 60


def rounded_up(noise: float) -> float:
    """In four digits, upward: what a person reads and types in again is enough (DP-1.7)."""
    digits = 3 - math.floor(math.log10(noise)) if noise > 0 else 0
    near = round(noise, digits)
    if near < noise * (1 - 1e-12):
        near = math.ceil(noise * 10.0**digits) / 10.0**digits
    return near


def noise_multiplier(
    target_epsilon: float,
    delta: float,
    make: Callable[[float], Events],
    fixed: Mapping[str, Events] = _NOTHING,
) -> float:
    """The smallest noise multiplier σ with epsilon(make(σ) + fixed, delta) ≤ ``target_epsilon``.

    ``make`` says which releases have this noise; more noise must cost less. ``fixed`` are releases
    whose noise is given, by what people call them. The σ returned has itself been accounted for,
    and is at most 1e-4 of itself above the true one; it is 0.05 at the least.

    Raises :class:`PrivacyError` if there is none up to 10^4, and says which part costs how much.
    """
    if not MIN_EPSILON <= target_epsilon <= MAX_EPSILON:
        raise PrivacyError(
            f"a target epsilon is from {MIN_EPSILON:g} to {MAX_EPSILON:g}, not {target_epsilon}"
        )
    rest = total(fixed.values())

    def cost(noise: float) -> float:
        return epsilon(make(noise) + rest, delta)

    _refuse_if_spent(target_epsilon, delta, fixed)
    if (least := cost(MAX_NOISE)) > target_epsilon:
        raise PrivacyError(_too_much(target_epsilon, delta, least, fixed))
    if cost(MIN_NOISE) <= target_epsilon:
        return MIN_NOISE
    below, above = _bracket(cost, target_epsilon)
    return _narrow(cost, target_epsilon, below, above)


def _bracket(
    cost: Callable[[float], float], target: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(σ, epsilon) above and at or below the target, a factor of 2 apart or less."""
    noise = 1.0
    here = cost(noise)
    while here > target:
        other = min(2 * noise, MAX_NOISE)
        there = cost(other)
        if there <= target:
            return (noise, here), (other, there)
        noise, here = other, there
    while True:
        other = max(noise / 2, MIN_NOISE)
        there = cost(other)
        if there > target:
            return (other, there), (noise, here)
        noise, here = other, there


def _narrow(
    cost: Callable[[float], float],
    target: float,
    below: tuple[float, float],
    above: tuple[float, float],
) -> float:
    """The upper end of a bracket 1e-4 wide, by interpolation of logarithms and by bisection."""
    for attempt in range(_TRIES):
        (low, costs_more), (high, costs_less) = below, above
        if high <= low * (1 + TOLERANCE):
            break
        guess = math.sqrt(low * high)
        if attempt % 4 < 3 and math.isfinite(costs_more) and costs_more > costs_less > 0:
            part = math.log(costs_more / target) / math.log(costs_more / costs_less)
            # To either side in turn, so that both ends come close to the crossing.
            aside = (1 + 0.4 * TOLERANCE) ** (1 if attempt % 2 == 0 else -1)
            guess = low * (high / low) ** part * aside
        edge = 1 + TOLERANCE / 4
        guess = min(max(guess, low * edge), high / edge)
        here = cost(guess)
        if here <= target:
            above = (guess, here)
        else:
            below = (guess, here)
    return above[0]


def _refuse_if_spent(target: float, delta: float, fixed: Mapping[str, Events]) -> None:
    """Raise :class:`PrivacyError` when what has its noise already leaves nothing to plan with."""
    for name, events in fixed.items():
        # DP-1.5: the reason, in the words of those who can change it.
        if (alone := epsilon(events, delta)) >= target:
            raise PrivacyError(
                f"{name} alone cost epsilon {shown(alone)} at delta {delta:g}; the target is "
                f"{target:g}: give {name} more noise, make fewer of them, or raise the target"
            )
    if len(fixed) > 1 and (together := epsilon(total(fixed.values()), delta)) >= target:
        raise PrivacyError(
            f"{' and '.join(fixed)} together cost epsilon {shown(together)} at delta {delta:g}; "
            f"the target is {target:g}: give them more noise, make fewer of them, or raise the "
            "target"
        )


def _too_much(target: float, delta: float, least: float, fixed: Mapping[str, Events]) -> str:
    parts = "".join(f"; {name} are {shown(epsilon(e, delta))} of it" for name, e in fixed.items())
    return (
        f"even a noise multiplier of {MAX_NOISE:g} costs epsilon {shown(least)} at delta {delta:g}"
        f"{parts}; the target is {target:g}: plan fewer steps, or raise the target"
    )
