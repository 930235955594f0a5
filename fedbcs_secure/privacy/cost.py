"""What releases cost as they are made here: with whole numbers in place of a continuous Gaussian.

The accountants speak of the Gaussian mechanism. The noise that is drawn is a discrete Gaussian,
which is as good but for a little, and that is booked as well (DP-2.5).
"""

from __future__ import annotations

import math

from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.events import Events
from fedbcs_secure.privacy.wide_gaussian import closeness

MAX_DIMENSION = 1 << 26
"""Numbers of a release, at most."""


def cost(events: Events, delta: float) -> float:
    """Epsilon of ``events`` at ``delta``, at least what :func:`accountant.epsilon` says.

    With T releases of at most 2^26 numbers, (e, d) = closeness(2^26): the Gaussian's epsilon at
    (delta - T d) exp(-T e), and T e more. That is 5·10^-8 a release.
    """
    if not events:
        return 0.0
    more, less = closeness(MAX_DIMENSION)
    count = sum(number for _, number in events.parts)
    return epsilon(events, (delta - count * less) * math.exp(-count * more)) + count * more
