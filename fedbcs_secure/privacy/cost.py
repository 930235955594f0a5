"""What releases cost as they are made here: with whole numbers in place of a continuous Gaussian.

The accountants speak of the Gaussian mechanism. The noise that is drawn is a discrete Gaussian,
which is as good but for a little, and that is booked as well (DP-2.5).
"""

from __future__ import annotations

import math

from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.events import Events
from fedbcs_secure.privacy.wide_gaussian import MAX_EPSILON, closeness

MAX_DIMENSION = 1 << 26
"""Numbers of a release, at most."""
NARROW = 4e-5
"""What a release without sampling pays, at most."""


def cost(events: Events, delta: float) -> float:
    """Epsilon of ``events`` at ``delta``, at least what :func:`accountant.epsilon` says.

    With T releases that are e_i near a Gaussian's but for d: the Gaussian's epsilon at
    (delta - T d) exp(-Σe_i), and Σe_i more. e_i is closeness(2^26) of the wide noise, 5·10^-8; for
    releases without sampling, which may be prototypes with narrower noise, it is 4·10^-5, enough
    for 2^18 numbers of variance 2^28 / 10 (a noise multiplier of 0.5, ten shares). Beyond an
    epsilon of 32, where that is not proven, it is infinite.
    """
    if not events:
        return 0.0
    wide, less = closeness(MAX_DIMENSION)
    more = sum(n * (NARROW if e.sampling_rate == 1 else wide) for e, n in events.parts)
    count = sum(number for _, number in events.parts)
    left = (delta - count * less) * math.exp(-more)
    found = epsilon(events, left) + more if more <= 1 else math.inf
    return found if found <= MAX_EPSILON else math.inf
