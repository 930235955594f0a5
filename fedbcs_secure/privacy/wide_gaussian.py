"""Discrete Gaussian noise of one large width, for millions of integers a step (DP-2.4).

X = X₁ + b X₂ with X₁, X₂ independent discrete Gaussians of a base width s, drawn by inversion of a
table: the convolution of Peikert (CRYPTO 2010), Pöppelmann, Ducas, Güneysu (CHES 2014) and
Micciancio, Walter (CRYPTO 2017). With s = 1024, b = 512 the width is W = s √(1 + b²) = 524289.

*Why X is a discrete Gaussian.* Pairs with x₁ + b x₂ = x have

    x₁² + x₂² = x²/(1+b²) + (1+b²) (x₂ - c)²,   c = x b / (1+b²),

so P(X = x) is proportional to exp(-x²/2W²) · Σ_j exp(-(j - c)²/2τ²) with τ² = s²/(1+b²). By
Poisson's summation the sum over all integers j is τ√(2π) (1 + 2 Σ_{m≥1} exp(-2π²τ²m²) cos 2πmc):
the same for all x up to a factor from 1 - θ to 1 + θ, θ = 2 Σ_{m≥1} exp(-2π²τ²m²). That is the
smoothing condition, τ large enough. Here τ² = 2^20/(2^18 + 1) > 3.99998 and θ < 2^-112.9, so the
logarithms of the two distributions' masses differ by at most log((1+θ)/(1-θ)) < 2^-111.8.

*What the table adds.* It holds the cumulative masses of |x| ≤ 17 s, to 384 bits. Its relative error
is below 2^-150 for each value, that of the two together below 2^-149; so :data:`DISTANCE` is
2^-110 with room. What it cuts off has the mass 2 exp(-17²/2) < 2^-207 for each of the two, hence
:data:`TAIL_BITS`.

*Inversion is exact.* X_i is the number of cumulative masses at or below a uniform real. Its first
64 bits decide, unless they equal those of a mass; then the other 320 are drawn and whole integers
compared. Time depends on the values drawn, so it must stay unobserved.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.randomness import SecretStream

BASE_WIDTH = 1 << 10
FACTOR = 1 << 9

WIDTH_SQUARED = Fraction(BASE_WIDTH**2 * (1 + FACTOR**2))
"""W²: the parameter of the noise, in units of the grid squared."""

WIDTH = math.sqrt(WIDTH_SQUARED)
"""W ≈ 524289.0 as a float; its square is the exact number."""

DISTANCE = 2.0**-110
"""Most that the logarithm of a value's mass is off that of N_Z(0, W²) (max-log distance)."""

TAIL_BITS = 200
"""The statement about :data:`DISTANCE` holds up to a total variation of 2^-TAIL_BITS a value."""

MAX_DIMENSION = 1 << 30
MAX_EPSILON = 32.0
"""Up to which :func:`closeness` speaks."""

_REACH = 17 * BASE_WIDTH
_BITS = 384
_GUARD = 64
_GUIDE_BITS = 18
_UNDECIDED = -(1 << 15)
_BATCH = 1 << 15


def wide_gaussian(count: int, stream: SecretStream | None = None) -> NDArray[np.int64]:
    """``count`` independent values of standard deviation W, shape (count,).

    All are within ±(1 + b) 17 s, under 2^24 in size. Without a ``stream`` a fresh secret one is
    taken. Raises :class:`PrivacyError` for a negative count.
    """
    if count < 0:
        raise PrivacyError(f"a number of random values is 0 or more, not {count}")
    stream = SecretStream.fresh() if stream is None else stream
    table = base_table()
    out = np.empty(count, np.int64)
    for start in range(0, count, _BATCH):
        part = out[start : start + _BATCH]
        words = stream.words64(2 * len(part))
        part[:] = table.invert(words[len(part) :], stream)
        part *= FACTOR
        part += table.invert(words[: len(part)], stream)
    return out


@dataclass(frozen=True, eq=False, repr=False)
class BaseTable:
    """N_Z(0, s²) on |x| ≤ 17 s, in units of 2^-384.

    ``cumulative``: for each x but the last the mass of all values up to x; ``high``: their first 64
    bits; ``guide``: for the first 18 bits of a uniform the value, if these decide.
    """

    cumulative: list[int]
    high: NDArray[np.uint64]
    guide: NDArray[np.int16]

    def invert(self, words: NDArray[np.uint64], stream: SecretStream) -> NDArray[np.int16]:
        """The values at uniform reals that start with ``words``, further bits by ``stream``."""
        cells = (words >> np.uint64(64 - _GUIDE_BITS)).view(np.int64)
        values = np.take(self.guide, cells, mode="clip")
        late = np.flatnonzero(values == _UNDECIDED)
        at = np.searchsorted(self.high, words[late])
        # DP-2.4: equal words decide nothing; all other bits do.
        for i in np.flatnonzero(self.high.take(at, mode="clip") == words[late]):
            uniform = int(words[late[i]])
            for word in stream.words64(_BITS // 64 - 1):
                uniform = uniform << 64 | int(word)
            at[i] = bisect_right(self.cumulative, uniform)
        values[late] = at - _REACH
        return values


@cache
def base_table() -> BaseTable:
    """The table; made once a process, in about 0.1 s, from integers alone."""
    half = _weights()
    weights = [*reversed(half[1:]), *half]
    total = sum(weights)
    sums = list(itertools.accumulate(weights))[:-1]
    cumulative = [(part << _BITS) // total for part in sums]
    high = np.array([part >> (_BITS - 64) for part in cumulative], np.uint64)
    starts = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - _GUIDE_BITS)
    ends = starts | np.uint64((1 << (64 - _GUIDE_BITS)) - 1)
    first, last = np.searchsorted(high, starts), np.searchsorted(high, ends, side="right")
    guide = np.where(first == last, first - _REACH, _UNDECIDED).astype(np.int16)
    return BaseTable(cumulative, high, guide)


def _weights() -> list[int]:
    """exp(-x²/2s²) for x from 0 to 17 s in units of 2^-448, by w(x+1) = w(x) r^(2x+1).

    r = exp(-1/2s²) is Taylor's series. Every product is cut to 2^-448. The errors, relative to w,
    add up to less than x² 2^-440 + x 2^-448/w(x) < 2^-225: the last weights are near 2^-208.5.
    """
    bits = _BITS + _GUARD
    term = root = 1 << bits
    k = 0
    while term:
        k += 1
        term = term // (2 * BASE_WIDTH**2 * k)
        root += -term if k % 2 else term
    square = root * root >> bits
    weights = [1 << bits]
    for _ in range(_REACH):
        weights.append(weights[-1] * root >> bits)
        root = root * square >> bits
    return weights


def closeness(dimension: int, sigma2: Fraction = WIDTH_SQUARED) -> tuple[float, float]:
    """What a release of ``dimension`` integers pays for not being a continuous Gaussian (DP-2.5).

    Let T releases with noise N(0, W²), rounded to integers, be (ε, δ)-private, sampling and
    adaptive choices included, with ε ≤ :data:`MAX_EPSILON`. Then with :func:`wide_gaussian` and
    (e, d) = closeness(dimension), T e ≤ 1, they are (ε + T e, δ exp(T e) + T d)-private. The same
    holds for draws of :func:`.discrete_gaussian` with W² = ``sigma2`` of 16 and more, and for sums
    of up to 2^20 independent draws whose parameters, each 16 or more, add up to it (DP-2.6).

    *Proof.* Write Z for this noise, R for N(0, W²) rounded, q = z²/W² for a coordinate. For an
    integer z, with u uniform on [-1/2, 1/2],

        P(R = z)/N_Z(z) = (1+θ₀) E exp(-u²/2W²) cosh(zu/W²),   θ₀ < exp(-2π²W²) · 2.1.

    From y²/2 - y⁴/12 ≤ log cosh y ≤ y²/2, Jensen's inequality and Hoeffding's lemma for u² in
    [0, 1/4], the logarithm of the expectation is (q-1)/24W² + e, -q²/960W⁴ ≤ e ≤ (q-1)²/512W⁴.
    Sums over coordinates: Q = Σq is within d ± (2√(dt) + 2t) but for 2 exp(-t) (Laurent, Massart
    2000: E exp(λQ) is for discrete Gaussians what it is for continuous ones up to (1 ± θ₀)^d, and R
    is at most 1/2 a coordinate away), and max q ≤ 2(t + log 2d) + 1 but for exp(-t). So the masses
    of Z and R differ by a factor of at most exp(η) but on an event of probability β, under either.
    Both noises are added to the same integers, so that holds whatever these are: no shift by a
    patient enters. It survives mixing over samples, and T steps give Tη, Tβ. Two changes of noise
    around the Gaussian's guarantee give ε + 2Tη and δ exp(Tη) + Tβ(1 + exp(ε + Tη)). ∎

    Here t = 105. Raises :class:`PrivacyError` for a dimension outside 1 to 2^30 and ``sigma2``
    below 16.
    """
    if not 1 <= dimension <= MAX_DIMENSION:
        raise PrivacyError(f"a release has from 1 to 2^30 integers, not {dimension}")
    # DP-2.5: θ₀ would matter.
    if sigma2 < 16:
        raise PrivacyError(f"noise close to a Gaussian has a variance of 16 or more, not {sigma2}")
    t, d, w2 = 105.0, float(dimension), float(sigma2)
    spread = 2 * math.sqrt(d * t)
    rounding = math.sqrt(d / w2) / 2
    above = (math.sqrt(d + spread + 2 * t) + rounding) ** 2 - d
    below = d - max(math.sqrt(max(d - spread, 0.0)) - rounding, 0.0) ** 2
    deviation = max(above, below)
    largest = 2 * (t + math.log(2 * d)) + 1
    second = (largest * (d + deviation) + d) / (512 * w2**2)
    eta = deviation / (24 * w2) + second + d * DISTANCE
    beta = 3 * math.exp(-t) + d * 2.0**-TAIL_BITS
    # A part in 10^6 covers this function's own rounding, θ₀, and β under the table's law.
    room = 1 + 1e-6
    return 2 * eta * room, beta * (1 + math.exp(MAX_EPSILON + 1)) * room
