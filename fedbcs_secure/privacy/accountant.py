"""From releases to (epsilon, delta): by privacy loss distributions, and two cross-checks (DP-1).

The unit is one patient, added or removed. A release tells the two data sets apart by its privacy
loss L = log P(o)/Q(o); losses of releases add up, and

    delta(ε) = E[max(0, 1 - exp(ε - L))],   ε(delta) its inverse, the larger of both directions.

``pld`` puts the losses on a grid so that delta(ε) is never too small ("connect the dots",
Doroshenko et al., PETS 2022) and adds them by Fourier transforms (Koskela et al., AISTATS 2020;
Google's dp-accounting). It is the figure of record. ``prv`` (Gopi et al., NeurIPS 2021; Opacus) and
``rdp`` (Mironov, Talwar, Zhang 2019; dp-accounting) are independent: the first agrees with it, the
second is above.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.events import Events, Gaussian

Method = Literal["pld", "prv", "rdp"]

MIN_DELTA = 1e-10
MAX_DELTA = 0.5
MAX_LOSS = 1e4
"""Where one observation's loss may be above, epsilon is said to be infinite: nothing is hidden."""
MAX_STEPS = 10**6
"""Sampled releases of one kind; more than that dp-accounting cannot add up."""

_ROOM = 1e-12
"""Taken off delta: Fourier transforms in float64 err by less (DP-1.4)."""
_EXCESS = 5e-5
"""Most that the grid makes epsilon too large, as a part of it, where 2^20 cells suffice."""
_CELLS = 1 << 20
_COARSEST, _FINEST = -7, -26
_TAIL = 10.0
"""Standard deviations at which dp-accounting cuts the noise (mass exp(-50))."""
_MOST_NOISE, _LEAST_RATE = 1e6, 1e-9
"""Beyond, float64 has no digits left for what is then next to nothing; taken as these."""
_PRV_LARGEST = 250.0
"""Of epsilon: Opacus's exponentials overflow above, and what it says is wrong."""
_PRV_CELLS = 1 << 22
_ORDERS = (1.05, 1.1, 1.2, 1.3, 1.5, 1.75, *range(2, 64), *(64 * 2**k for k in range(7)))


@dataclass(frozen=True)
class Figures:
    """Epsilon of the same releases by three accountants, at one delta.

    ``epsilon_pld`` is what counts. ``epsilon_prv`` is None where that accountant cannot do them.
    """

    delta: float
    epsilon_pld: float
    epsilon_prv: float | None
    epsilon_rdp: float

    @property
    def agree(self) -> bool:
        """PLD and PRV within 1 % or 0.002 of each other, and RDP not below PLD."""
        pld, prv = self.epsilon_pld, self.epsilon_prv
        if math.isinf(pld):
            return math.isinf(self.epsilon_rdp) and prv in (None, math.inf)
        near = prv is None or abs(pld - prv) <= max(0.01 * pld, 0.002)
        return near and self.epsilon_rdp >= pld * (1 - 1e-3)


def epsilon(events: Events, delta: float, method: Method = "pld") -> float:
    """The smallest epsilon shown for ``events`` at ``delta``: 0 for none, infinite without noise.

    ``delta`` is from 1e-10 to 0.5. Raises :class:`PrivacyError` for other numbers, for more than
    10^6 sampled releases of one kind, and when a cross-check cannot do what PLD can.
    """
    if not MIN_DELTA <= delta <= MAX_DELTA:
        raise PrivacyError(f"delta is from {MIN_DELTA:g} to {MAX_DELTA:g}, not {delta}")
    if not events:
        return 0.0
    # DP-1.1: a release without noise is not private at any delta.
    if not _hides(events):
        return math.inf
    events = simplified(events)
    if method == "rdp":
        return _rdp(events, delta)
    if method == "prv":
        return _prv(events, delta)
    return max(float(_composed(events).get_epsilon_for_delta(delta - _ROOM)), 0.0)


def delta(events: Events, epsilon: float) -> float:
    """The smallest delta shown for ``events`` at ``epsilon``, from 0 to 10^4, by PLD.

    Never below 1e-12 where there are events. Raises :class:`PrivacyError` as :func:`epsilon` does.
    """
    if not 0 <= epsilon <= MAX_LOSS:
        raise PrivacyError(f"epsilon is from 0 to {MAX_LOSS:g}, not {epsilon}")
    if not events:
        return 0.0
    if not _hides(events):
        return 1.0
    whole = _composed(simplified(events))
    return min(float(whole.get_delta_for_epsilon(epsilon)) + _ROOM, 1.0)


def curve(events: Events, deltas: Iterable[float]) -> tuple[tuple[float, float], ...]:
    """(delta, epsilon) for each of ``deltas``, by PLD: all that there is to say about ``events``.

    Every pair holds, so whoever states one of them states a part of the truth only.
    """
    return tuple((each, epsilon(events, each)) for each in deltas)


def figures(events: Events, delta: float) -> Figures:
    """Epsilon at ``delta`` by all three accountants. Raises :class:`PrivacyError` as PLD does."""
    try:
        second: float | None = epsilon(events, delta, "prv")
    except PrivacyError:
        second = None
    return Figures(
        delta=delta,
        epsilon_pld=epsilon(events, delta),
        epsilon_prv=second,
        epsilon_rdp=epsilon(events, delta, "rdp"),
    )


def shown(epsilon: float) -> str:
    """Epsilon for people: three decimals, rounded up, so that what is read is never too small."""
    if math.isinf(epsilon):
        return "infinite"
    # 3.4 is a little above 3.4 as a binary number; that is no reason to say 3.401.
    return f"{math.ceil(epsilon * 1000 - 1e-6) / 1000:.3f}"


def simplified(events: Events) -> Events:
    """Private ``events`` in fewer parts and in the range of float64, at no less a cost (DP-1.3).

    Releases without sampling, vectors with noise σ_i, are together one with (Σ 1/σ_i²)^-1/2.
    """
    within = [
        (min(event.noise_multiplier, _MOST_NOISE), max(event.sampling_rate, _LEAST_RATE), count)
        for event, count in events.parts
    ]
    rest = tuple((Gaussian(noise, rate), count) for noise, rate, count in within if rate < 1)
    information = math.fsum(count / noise**2 for noise, rate, count in within if rate == 1)
    if information:
        rest = (*rest, (Gaussian(1 / math.sqrt(information)), 1))
    return Events(rest)


# Privacy loss distributions ----------------------------------------------------------------------


@lru_cache(maxsize=16)
def _composed(events: Events) -> Any:
    """The distribution of the sum of the losses of ``events``, simplified ones."""
    # DP-1.4: no figure rather than one that memory or rounding has spoiled.
    for event, count in events.parts:
        if count > MAX_STEPS:
            raise PrivacyError(
                f"{count} sampled releases with noise multiplier {event.noise_multiplier:g} are "
                f"more than can be accounted for ({MAX_STEPS}); plan fewer steps"
            )
    exponent = _grid(events)
    # DP-1.2: all on one grid, so that losses add up exactly.
    whole, *others = (_repeated(event, count, exponent) for event, count in events.parts)
    for other in others:
        whole = whole.compose(other)
    return whole


@lru_cache(maxsize=128)
def _repeated(event: Gaussian, count: int, exponent: int) -> Any:
    """``count`` times ``event`` on a grid of 2^exponent."""
    once = _once(event, exponent)
    return once if count == 1 else once.self_compose(count)


@lru_cache(maxsize=16)
def _once(event: Gaussian, exponent: int) -> Any:
    return privacy_loss_distribution.from_gaussian_mechanism(
        event.noise_multiplier,
        sensitivity=1.0,
        pessimistic_estimate=True,
        value_discretization_interval=2.0**exponent,
        sampling_prob=event.sampling_rate,
        use_connect_dots=True,
    )


def _grid(events: Events) -> int:
    """Exponent of the grid: coarse enough to be quick and stable, fine enough to be tight.

    Either way results are upper bounds (DP-1.2). A loss of standard deviation c, split between two
    points v apart, gains a variance of v²/6, or 0.8 c v where v > c. Epsilon grows by about half
    the part of itself that the variance does.
    """
    spreads = [(_spread(event), count) for event, count in events.parts]
    variance = math.fsum(n * c * c for c, n in spreads)
    reach = 2 * _largest_loss(events)
    least = max(_FINEST, math.ceil(math.log2(reach / _CELLS)))
    for exponent in range(_COARSEST, least, -1):
        v = 2.0**exponent
        added = math.fsum(n * min(v * v / 6, 0.8 * c * v) for c, n in spreads)
        if added <= 2 * _EXCESS * variance:
            return exponent
    return least


def _spread(event: Gaussian) -> float:
    """About the standard deviation of one release's loss."""
    inverse = 1 / event.noise_multiplier
    if inverse > 20:
        return inverse
    return min(event.sampling_rate * math.sqrt(math.expm1(inverse**2)), inverse)


def _largest_loss(events: Events) -> float:
    """About the largest loss of all together that is not cut off as too improbable."""
    variance = math.fsum(count * _spread(event) ** 2 for event, count in events.parts)
    single = max(_TAIL / e.noise_multiplier + 0.5 / e.noise_multiplier**2 for e, _ in events.parts)
    return max(variance / 2 + 8 * math.sqrt(variance), single)


def _hides(events: Events) -> bool:
    """Whether the noise hides anything, so that epsilon is a number that means something."""
    # 10^-3 alone lets losses be above MAX_LOSS, and smaller numbers' squares may not be numbers.
    if any(event.noise_multiplier < 1e-3 for event, _ in events.parts):
        return False
    return _largest_loss(simplified(events)) <= MAX_LOSS


# The cross-checks --------------------------------------------------------------------------------


def _prv(events: Events, delta: float) -> float:
    # Opacus imports torch.
    from opacus.accountants import PRVAccountant

    bound = _rdp(events, delta)
    if bound > _PRV_LARGEST:
        raise PrivacyError(
            f"epsilon is up to {bound:.0f} here, and the PRV accountant is right up to "
            f"{_PRV_LARGEST:g} only: use more noise, or PLD alone"
        )
    error = max(3e-3 * bound, 2e-4)
    steps = sum(count for _, count in events.parts)
    # Opacus's mesh and, by RDP at delta/4000, about its domain.
    mesh = error / math.sqrt(steps * math.log(12_000 / delta) / 2)
    if 2 * (_rdp(events, delta / 4000) + 3) / mesh > _PRV_CELLS:
        raise PrivacyError(
            f"{steps} releases that cost an epsilon of about {bound:.2g} need more memory than is "
            "sensible for the PRV accountant: use PLD alone"
        )
    accountant: Any = PRVAccountant()
    accountant.history = [(e.noise_multiplier, e.sampling_rate, n) for e, n in events.parts]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = float(accountant.get_epsilon(delta, eps_error=error))
    except (RuntimeError, ValueError, IndexError) as problem:
        raise PrivacyError(f"the PRV accountant cannot do these releases: {problem}") from None
    return max(found, 0.0)


def _rdp(events: Events, delta: float) -> float:
    accountant = RdpAccountant(_ORDERS)
    with _quiet():
        for event, count in events.parts:
            gaussian = dp_event.GaussianDpEvent(event.noise_multiplier)
            sampled = dp_event.PoissonSampledDpEvent(event.sampling_rate, gaussian)
            accountant.compose(sampled if event.sampling_rate < 1 else gaussian, count)
        return max(float(accountant.get_epsilon(delta)), 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's lines about orders that it leaves out, which make no bound false."""
    logger, silence = logging.getLogger("absl"), lambda _record: False
    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)
