"""The discrete Gaussian on the integers, drawn exactly (DP-2.3).

    P(X = k) = exp(-k² / 2σ²) / Σ_j exp(-j² / 2σ²),  k an integer

By rejection from the discrete Laplace distribution: Canonne, Kamath, Steinke, "The Discrete
Gaussian for Differential Privacy" (NeurIPS 2020, arXiv:2004.00010), algorithms 1 to 3, on arrays.
No floating-point number takes part in a draw: all decisions compare random with other integers.
The number of words that a draw takes depends on its value, so time must stay unobserved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.randomness import SecretStream

MAX_NUMERATOR = 1 << 50
MAX_DENOMINATOR = 1 << 25
"""Of a variance. All products of the sampler then fit into 63 bits."""

REACH = 64
"""Standard deviations that a value can be from 0 at the least; the mass beyond is under 2^-2900."""

_BATCH = 1 << 16
# The proposal is within e^-4096 of never having as many whole parts.
_MOST_WHOLE = 1 << 12


def discrete_gaussian(
    sigma2: Fraction, count: int, stream: SecretStream | None = None
) -> NDArray[np.int64]:
    """``count`` independent draws with parameter ``sigma2`` = σ², shape (count,).

    σ² is a fraction above 0; its numerator is at most 2^50 and its denominator at most 2^25
    (:func:`round_up` makes such a one of any). For σ of 1 and more the variance is below σ² by
    less than 10^-6 of it; for small σ it is much smaller, and the draws are nearly all 0. Without
    a ``stream`` a fresh secret one is taken. Raises :class:`PrivacyError`.
    """
    proposal = _Proposal.of(sigma2)
    if count < 0:
        raise PrivacyError(f"a number of random values is 0 or more, not {count}")
    stream = SecretStream.fresh() if stream is None else stream
    out = np.empty(count, np.int64)
    done = 0
    while done < count:
        missing = count - done
        # Cutting off a surplus is fair: whether a value is kept depends on its place alone.
        drawn = proposal.draw(min(2 * missing + 16, _BATCH), stream)[:missing]
        out[done : done + len(drawn)] = drawn
        done += len(drawn)
    return out


def round_up(variance: Fraction) -> Fraction:
    """The least variance not below it that :func:`discrete_gaussian` takes on a binary grid.

    Above ``variance`` by at most max(2^-25, 2^-48 ``variance``). Raises :class:`PrivacyError` for
    one that is not above 0 or beyond 2^50.
    """
    if not 0 < variance <= MAX_NUMERATOR:
        raise PrivacyError("the variance of noise on a grid is above 0 and at most 2^50")
    whole = math.ceil(variance)
    scale = max(1, min(MAX_DENOMINATOR, MAX_NUMERATOR >> whole.bit_length()))
    return Fraction(math.ceil(variance * scale), scale)


@dataclass(frozen=True)
class _Proposal:
    """|Y| with mass proportional to exp(-y · ``per`` / ``scale``), accepted by a coin of

    exp(-(``unit`` · |Y| - ``centre``)² · ``factor`` / ``divisor``).

    Both exponents add up to -Y² / 2σ² and a constant if centre/unit = σ² · per/scale. Near σ that
    accepts three of four; below 1 the rate is 1, as in the paper.
    """

    scale: int
    per: int
    unit: int
    centre: int
    factor: int
    divisor: int

    @classmethod
    def of(cls, sigma2: Fraction) -> _Proposal:
        n, m = sigma2.numerator, sigma2.denominator
        # DP-2.3: products fit into 63 bits.
        if not (0 < n <= MAX_NUMERATOR and m <= MAX_DENOMINATOR):
            raise PrivacyError(
                "the variance of a discrete Gaussian is a fraction above 0 with a numerator of at"
                " most 2^50 and a denominator of at most 2^25; round_up() makes one"
            )
        if n < m:
            return cls(1, 1, m, n, 1, 2 * n * m)
        centre = math.isqrt(n // m)
        common = math.gcd(n, centre * m)
        return cls(n // common, centre * m // common, 1, centre, m, 2 * n)

    def draw(self, tries: int, stream: SecretStream) -> NDArray[np.int64]:
        """The accepted ones of ``tries`` proposals, in order."""
        size = self._laplace_sizes(tries, stream)
        negative = stream.below(2, len(size)) == 1
        reach = (math.isqrt((1 << 62) // self.factor) + self.centre) // self.unit
        # DP-2.3: zero has one sign.
        possible = ~(negative & (size == 0)) & (size <= reach)
        size, negative = size[possible], negative[possible]
        whole, rest = np.divmod((self.unit * size - self.centre) ** 2 * self.factor, self.divisor)
        accepted = exp_minus(rest, self.divisor, stream)
        at = np.flatnonzero(accepted)
        accepted[at] = _all_whole(whole[at], stream)
        values: NDArray[np.int64] = np.where(negative, -size, size)[accepted]
        return values

    def _laplace_sizes(self, tries: int, stream: SecretStream) -> NDArray[np.int64]:
        """Algorithm 2 without its sign: U + scale · V, divided by ``per``."""
        part = stream.below(self.scale, tries)
        part = part[exp_minus(part, self.scale, stream)]
        whole = np.zeros(len(part), np.int64)
        alive = np.arange(len(part))
        while len(alive):
            alive = alive[exp_minus(np.ones(len(alive), np.int64), 1, stream)]
            whole[alive] += 1
        fits = whole < _MOST_WHOLE
        sizes: NDArray[np.int64] = (part[fits] + self.scale * whole[fits]) // self.per
        return sizes


def exp_minus(
    numerators: NDArray[np.int64], denominator: int, stream: SecretStream
) -> NDArray[np.bool_]:
    """Events of probability exp(-γ) exactly, γ = numerators/denominator in [0, 1] (algorithm 1).

    The first K at which a coin of γ/K fails is odd with that probability: the alternating sum of
    γ^k/k!. Each coin is an integer below K · denominator, which fits for K up to 2^12.
    """
    odd = np.zeros(len(numerators), np.bool_)
    alive = np.arange(len(numerators))
    left = numerators
    k = 1
    while len(alive):
        goes_on = stream.below(k * denominator, len(alive)) < left
        if k % 2:
            odd[alive[~goes_on]] = True
        alive, left = alive[goes_on], left[goes_on]
        k += 1
    return odd


def _all_whole(counts: NDArray[np.int64], stream: SecretStream) -> NDArray[np.bool_]:
    """Events of probability exp(-count): so many coins of 1/e all succeed."""
    result = np.zeros(len(counts), np.bool_)
    alive = np.arange(len(counts))
    tossed = 0
    while len(alive):
        through = counts[alive] == tossed
        result[alive[through]] = True
        alive = alive[~through]
        alive = alive[exp_minus(np.ones(len(alive), np.int64), 1, stream)]
        tossed += 1
    return result


def log_mass(sigma2: Fraction, values: NDArray[np.int64]) -> NDArray[np.float64]:
    """log P(X = value); its absolute error is below 10^-14 (1 + value² / 2σ²)."""
    s2 = float(sigma2)
    if s2 < 1:
        total = 1 + 2 * math.fsum(math.exp(-k * k / (2 * s2)) for k in range(1, 10))
    else:
        # Poisson's summation: the same sum by its Fourier series.
        waves = math.fsum(math.exp(-2 * math.pi**2 * s2 * k * k) for k in range(1, 4))
        total = math.sqrt(2 * math.pi * s2) * (1 + 2 * waves)
    exponents: NDArray[np.float64] = np.square(np.asarray(values, np.float64)) / (-2 * s2)
    return exponents - math.log(total)


def mass(sigma2: Fraction, values: NDArray[np.int64]) -> NDArray[np.float64]:
    """P(X = value), as exact as :func:`log_mass`."""
    return np.exp(log_mass(sigma2, values))


def tail(sigma2: Fraction, most: int) -> float:
    """A bound from above on P(|X| > ``most``), most ≥ 0: 2 exp(-(most + 1)² / 2σ²), at most 1.

    The discrete Gaussian is subgaussian with σ (Canonne and others, lemma 9 and its corollary).
    """
    if most < 0:
        return 1.0
    exponent = float((most + 1) ** 2 / (2 * sigma2))
    # Rounding may not take it below, nor to nothing.
    bound = 2 * math.exp(-exponent * (1 - 2.0**-50)) * (1 + 2.0**-50)
    return min(1.0, max(bound, 5e-324))
