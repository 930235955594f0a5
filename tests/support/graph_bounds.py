"""The bounds G1 to G4 on a neighbourhood a second way: floating point, scipy, the gamma function.

Settings are n sites, threshold t, c colluders; k is the size of a neighbourhood, ``local`` its
threshold. Logarithms are to the base 2.
"""

from __future__ import annotations

from math import inf, lgamma, log

import numpy as np
from scipy.special import logsumexp
from scipy.stats import binom, hypergeom


def log_comb(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -inf
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def log_tail(others: int, marked: int, size: int, least: int) -> float:
    """log2 P[Hyp(others, marked, size) >= least]."""
    counts = np.arange(least, min(marked, size) + 1)
    if counts.size == 0:
        return -inf
    return float(logsumexp(hypergeom.logpmf(counts, others, marked, size))) / log(2)


def thresholds(n: int, t: int, c: int, k: int) -> tuple[int, int]:
    """The least t_k by G1 and the greatest by G2."""
    counts = np.arange(k + 1)
    caught = int(np.argmax(n * hypergeom.sf(counts, n - 1, c, k) <= 2.0**-40))
    lost = int(np.argmax(n * hypergeom.sf(counts, n - 1, n - t, k) <= 2.0**-20))
    return (k + caught) // 2 + 1, k - lost


def log_two_attempts(n: int, t: int, c: int, k: int, local: int) -> float:
    h = n - c
    one = log_tail(n - 1, h // 2 + c, k, local)
    return log_comb(h, h // 2) + log_comb(h, t - c) + (t - c) * one


def log_cuts(n: int, t: int, c: int, k: int) -> dict[int, float]:
    h, d = n - c, n - t
    every = log_comb(n - 1, k)
    return {
        s: log_comb(h, s)
        + log_comb(h - s, d)
        + s * (log_comb(s - 1 + d + c, k) - every)
        + (h - s - d) * (log_comb(n - 1 - s, k) - every)
        for s in range(1, (h - d) // 2 + 1)
    }


def few(n: int, c: int, k: int, most: int) -> float:
    """h·P[M + Bin <= most]."""
    h = n - c
    drawn = np.arange(k + 1)
    chance = hypergeom.pmf(k - drawn, n - 1, c, k)
    into = binom.cdf(most - drawn, np.maximum(h - 1 - drawn, 0), k / (n - 1))
    return float(h * np.sum(chance * into))


def is_connected(n: int, t: int, c: int, k: int, slack: float = 0.0) -> bool:
    cuts = log_cuts(n, t, c, k)
    total = 0.0
    for s in sorted(cuts, reverse=True):
        total += 2 ** min(cuts[s], 0.0)
        if total > 2.0 ** -(41 + slack):
            return bool(few(n, c, k, n - t + s - 1) <= 2.0 ** -(41 + slack))
    return True
