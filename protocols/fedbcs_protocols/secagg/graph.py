"""Who shares masks and shares with whom: all with all up to 32 sites, a random graph above.

After Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020; the bounds are our own. Of n sites at most c collude with the
server, fixed before any draw, and h = n - c are honest; at least t (the study's threshold) are
declared survivors, so at most d = n - t are declared dropped; 2t > n + c, so two sets of survivors
are never both signed by t sites in one attempt. For each attempt every site draws k others,
uniformly, and signs its draw before it sees anybody else's. The sites that it drew hold the shares
of its two secrets, t_k of which give a secret. Masks run along (i, j) if i drew j or j drew i.

:func:`neighbourhood` takes the smallest k < n - 1 for which some t_k satisfies all of the following
and the smallest such t_k; where there is none, the complete graph with k = n and t_k = t. With
Hyp(N, m, k) the number of marked ones among k of N drawn without replacement, m of them marked:

(G1, SA-9.1) *Two secrets of one site.* c_k is the least number with
n·P[Hyp(n-1, c, k) > c_k] <= 2^-40, and 2·t_k > k + c_k. A holder who answers for one secret of a
site never answers for the other, so both need 2·t_k different holders, colluders counted twice.

(G2, SA-9.2) *Availability.* n·P[Hyp(n-1, d, k) > k - t_k] <= 2^-20, if sites drop out independently
of the draws. Otherwise the attempt is lost, and nothing leaks.

(G3, SA-9.3) *Connected survivors.* Whatever at most d sites the server declares dropped once it has
seen all draws, the mask graph of the other honest sites is connected, but for a chance of 2^-40.
Then nothing opens but the sum over all of them. D are d honest sites (dropping fewer leaves a cut
that dropping more leaves too), S the smaller side of a cut, s its size:

    Σ_(s > s0) C(h, s)·C(h-s, d)·[C(s-1+d+c, k)/C(n-1, k)]^s·[C(n-1-s, k)/C(n-1, k)]^(h-s-d)
        <= 2^-41

because those in S draw from S, D and colluders only, and the rest draw nobody in S; s0 >= 0 is the
least that does. Sides of up to s0 sites have at most d + s0 - 1 honest neighbours each:

    h·P[M + Bin(h-1-M, k/(n-1)) <= d + s0 - 1] <= 2^-41,   M = k - Hyp(n-1, c, k)

where M honest sites were drawn by a site, and the binomial number drew it.

This holds for sites that were shown the same lists. A site v that was shown a shorter delivery
than those who sign the certificate is tied to them all the same (SA-9.6): its vector opens only if
t_k of its holders answer, and its own delivery had t_k of them, so by G1 one honest holder is in
both, and masks v as v masks it. The honest ones that sign are all but at most d, so G3 holds them
together.

(G4, SA-9.4) *Two attempts on one state.* An honest site answers in one attempt a state, so of two
attempts that open, one opens with the answers of at most a = ⌊h/2⌋ honest sites, chosen after all
draws. All its honest survivors, at least t - c, have t_k of their holders among those and the
colluders:

    C(h, a)·C(h, t-c)·P[Hyp(n-1, a+c, k) >= t_k]^(t-c) <= 2^-40

Chances are per attempt. A server that dislikes the draws can start another attempt, so over N of
them each bound is N times as large; a site takes part in at most 16 a round (SA-8.1).

Everything is decided by integers (SA-9.5), so all machines agree: G1 and G2 exactly, G3 and G4 by
logarithms that are rounded against us (by a bit at most). Whether k fits is not monotone in k,
because t_k is a whole number; the search goes upwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial
from random import Random

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.messages import MAX_SITES

COMPLETE_UP_TO = 32
SECRECY_BITS = 40
AVAILABILITY_BITS = 20

_FRACTION = 32
"""Logarithms are whole numbers of 2^-32 bits."""
_MANTISSA = 128
_GUARD = 128
"""Sums of probabilities are whole numbers of 2^-128."""


@dataclass(frozen=True)
class Neighbourhood:
    """``size`` holders of each site's shares, ``threshold`` of which give a secret.

    ``complete``: all sites, the site itself included, hold shares; otherwise the ``size`` others
    that the site drew.
    """

    size: int
    threshold: int
    complete: bool


@lru_cache(maxsize=256)
def neighbourhood(sites: int, threshold: int, colluders: int) -> Neighbourhood:
    """The smallest neighbourhood that keeps the bounds G1 to G4 above.

    ``sites`` is 1 to 1024, ``threshold`` how many of them must survive, ``colluders`` how many at
    most collude with the server. Raises :class:`LocalError` for numbers outside these ranges. When
    2·``threshold`` <= ``sites`` + ``colluders``, which no graph makes safe, it is the complete one.
    """
    if not 1 <= sites <= MAX_SITES:
        raise LocalError(f"a graph has 1 to {MAX_SITES} sites, got {sites}")
    if not 1 <= threshold <= sites:
        raise LocalError(f"the threshold of {sites} sites is in 1..{sites}, got {threshold}")
    if not 0 <= colluders < sites:
        raise LocalError(f"colluders are in 0..{sites - 1} of {sites} sites, got {colluders}")
    if sites > COMPLETE_UP_TO and 2 * threshold > sites + colluders:
        setting = _Setting(sites, threshold, colluders)
        for size in range(1, sites - 1):
            local = _local_threshold(setting, size)
            if local is not None and _stays_connected(setting, size):
                return Neighbourhood(size, local, complete=False)
    return Neighbourhood(sites, threshold, complete=True)


def draw(sites: int, me: int, size: int) -> tuple[int, ...]:
    """``size`` positions in 0..``sites``-1 other than ``me``, uniform among all such sets, sorted.

    From the operating system's generator. Raises :class:`LocalError`.
    """
    return _draw_with(secrets.SystemRandom(), sites, me, size)


def _draw_with(source: Random, sites: int, me: int, size: int) -> tuple[int, ...]:
    """The twin with a given generator, for tests."""
    if not 0 <= me < sites:
        raise LocalError(f"a position among {sites} sites is in 0..{sites - 1}, got {me}")
    if not 1 <= size < sites:
        raise LocalError(f"a site draws 1 to {sites - 1} others, asked for {size}")
    others = source.sample(range(sites - 1), size)
    return tuple(sorted(other + (other >= me) for other in others))


@dataclass(frozen=True)
class _Setting:
    sites: int
    threshold: int
    colluders: int

    @property
    def honest(self) -> int:
        return self.sites - self.colluders

    @property
    def dropouts(self) -> int:
        return self.sites - self.threshold


def _local_threshold(setting: _Setting, size: int) -> int | None:
    """The smallest t_k that keeps G1, G2 and G4, or none."""
    n = setting.sites
    caught = _least_not_exceeded(n, setting.colluders, size, SECRECY_BITS)
    lost = _least_not_exceeded(n, setting.dropouts, size, AVAILABILITY_BITS)
    for local in range((size + caught) // 2 + 1, size - lost + 1):
        if _two_attempts_log2(setting, size, local) <= -SECRECY_BITS << _FRACTION:
            return local
    return None


def _least_not_exceeded(sites: int, marked: int, size: int, bits: int) -> int:
    """The least x with sites·P[Hyp(sites-1, marked, size) > x] <= 2^-bits, exactly."""
    x = min(marked, size)
    unmarked = sites - 1 - marked
    draws = comb(sites - 1, size)
    term = comb(marked, x) * comb(unmarked, size - x)
    above = 0
    # Draws with x marked ones, from the most marked ones downwards.
    while (above + term) * sites << bits <= draws:
        above += term
        term = term * x * (unmarked - size + x) // ((marked - x + 1) * (size - x + 1))
        x -= 1
    return x


def _two_attempts_log2(setting: _Setting, size: int, local: int) -> int:
    """An upper bound of the logarithm of the chance in G4."""
    others, h = setting.sites - 1, setting.honest
    survivors = setting.threshold - setting.colluders
    marked = h // 2 + setting.colluders
    good = sum(
        comb(marked, x) * comb(others - marked, size - x)
        for x in range(local, min(marked, size) + 1)
    )
    if good == 0:
        return -_GUARD << _FRACTION
    logs = _Logs.up_to(setting.sites)
    one = _log2(good) + 2 - logs.comb_low(others, size)
    return logs.comb_high(h, h // 2) + logs.comb_high(h, survivors) + survivors * one


def _stays_connected(setting: _Setting, size: int) -> bool:
    """G3."""
    budget = 1 << (_GUARD - SECRECY_BITS - 1)
    total = 0
    for s, chance in _cuts(setting, size):
        total += chance
        if total > budget:
            return _few_neighbours(setting, size, setting.dropouts + s - 1) <= budget
    return True


def _cuts(setting: _Setting, size: int) -> Iterator[tuple[int, int]]:
    """The terms of the sum in G3 as (s, upper bound in units of 2^-128), s downwards."""
    others, h, d = setting.sites - 1, setting.honest, setting.dropouts
    logs = _Logs.up_to(setting.sites)
    every = logs.comb_low(others, size)
    for s in range((h - d) // 2, 0, -1):
        reach = s - 1 + d + setting.colluders
        if reach < size or others - s < size:
            yield s, 0
            continue
        rest = h - s - d
        ways = logs.comb_high(h, s) + logs.comb_high(h - s, d)
        inside = s * (logs.comb_high(reach, size) - every)
        outside = rest * (logs.comb_high(others - s, size) - every)
        yield s, _power_of_two(ways + inside + outside)


def _few_neighbours(setting: _Setting, size: int, most: int) -> int:
    """An upper bound, in 2^-128, of h times the chance of at most ``most`` honest neighbours."""
    others, h, c = setting.sites - 1, setting.honest, setting.colluders
    logs = _Logs.up_to(setting.sites)
    every, all_others = logs.comb_low(others, size), _log2(others)
    drew, drew_not = _log2(size) + 2 - all_others, _log2(others - size) + 2 - all_others
    total = 0
    for drawn in range(max(0, size - c), min(size, h - 1, most) + 1):
        rest = h - 1 - drawn
        out = logs.comb_high(h - 1, drawn) + logs.comb_high(c, size - drawn) - every
        for more in range(min(most - drawn, rest) + 1):
            into = logs.comb_high(rest, more) + more * drew + (rest - more) * drew_not
            total += _power_of_two(out + into)
    return h * total


def _power_of_two(log2: int) -> int:
    """At least 2^``log2``, and less than twice that, or 2^-128 if that is more; in 2^-128."""
    return 1 << max(0, _GUARD - (-log2 >> _FRACTION))


def _log2(number: int) -> int:
    """A whole number v of 2^-32 bits with v <= log2(``number``) < v + 2; ``number`` >= 1."""
    exponent = 0
    for step in range(_FRACTION + 1):
        if step:
            number, exponent = number * number, 2 * exponent
        # Cutting off errs downwards; all squarings together by far less than one unit.
        cut = max(0, number.bit_length() - _MANTISSA)
        number, exponent = number >> cut, exponent + cut
    return exponent + number.bit_length() - 1


@dataclass(frozen=True)
class _Logs:
    """Bounds of the logarithms of binomials, from those of factorials."""

    factorials: tuple[int, ...]

    @staticmethod
    @lru_cache(maxsize=8)
    def up_to(largest: int) -> _Logs:
        return _Logs(tuple(_log2(factorial(i)) for i in range(largest + 1)))

    def comb_low(self, n: int, k: int) -> int:
        return self.factorials[n] - self.factorials[k] - self.factorials[n - k] - 4

    def comb_high(self, n: int, k: int) -> int:
        return self.factorials[n] - self.factorials[k] - self.factorials[n - k] + 2
