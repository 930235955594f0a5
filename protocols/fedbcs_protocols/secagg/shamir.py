"""Shamir's secret sharing: any ``threshold`` shares give the secret, fewer say nothing about it.

Shamir, "How to share a secret", CACM 1979, over the prime field of p = 2^256 + 297. The secret is
the number a_0 < 2^256; the polynomial is

    f(x) = a_0 + a_1·x + ... + a_(t-1)·x^(t-1) mod p,   a_1 ... a_(t-1) uniform in 0..p-1

and the holder x, 1 <= x < 2^16, gets f(x). p is over 2^256, so every 32-byte string is a secret;
a share needs 33 bytes. The secret is the value at zero of the polynomial through t shares:

    f(0) = Σ_i w_i·f(x_i) mod p,   w_i = Π_(j≠i) x_j / (x_j - x_i)

A wrong share gives a wrong secret, which is noticed here only by chance: whoever combines must be
able to tell the right secret by other means.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

from fedbcs_protocols.errors import InconsistentShares, LocalError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
MAX_HOLDER = (1 << 16) - 1
"""The largest x."""
MIN_THRESHOLD = 2
"""With a threshold of one, every share is the secret."""


def split(secret: bytes, threshold: int, holders: Sequence[int]) -> tuple[bytes, ...]:
    """A fresh share of the 32-byte ``secret`` for each of ``holders``, 33 bytes each, in order.

    ``holders`` are distinct x in 1..2^16-1, ``threshold`` is from 2 to their number. The
    coefficients come from the operating system's generator. Raises :class:`LocalError`.
    """
    if not MIN_THRESHOLD <= threshold <= len(holders):
        raise LocalError(
            f"a threshold is from {MIN_THRESHOLD} to the number of holders, {len(holders)}; "
            f"got {threshold}"
        )
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return _split_with(secret, coefficients, holders)


def _split_with(
    secret: bytes, coefficients: Sequence[int], holders: Sequence[int]
) -> tuple[bytes, ...]:
    """The deterministic twin, for known-answer tests; ``coefficients`` are a_1 ... a_(t-1)."""
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        raise LocalError(f"a secret is {SECRET_BYTES} bytes")
    if not all(0 <= coefficient < PRIME for coefficient in coefficients):
        raise LocalError("a coefficient is outside the field")
    _check_holders(holders)
    falling = [*reversed(coefficients), int.from_bytes(secret, "big")]
    return tuple(_evaluate(falling, x).to_bytes(SHARE_BYTES, "big") for x in holders)


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The 32-byte secret of ``shares``, x to share, of a split with this ``threshold``.

    Takes the ``threshold`` shares of lowest x and leaves the others unread. Raises
    :class:`LocalError` for too few shares or an x that none can have, and
    :class:`InconsistentShares` for a share that is none or a result that is no secret.
    """
    if threshold < MIN_THRESHOLD:
        raise LocalError(f"a threshold is at least {MIN_THRESHOLD}, got {threshold}")
    if len(shares) < threshold:
        raise LocalError(f"{threshold} shares are needed, there are {len(shares)}")
    _check_holders(tuple(shares))
    used = tuple(sorted(shares))[:threshold]
    total = 0
    for x, weight in zip(used, _weights_at_zero(used), strict=True):
        check_share(shares[x])
        total += weight * int.from_bytes(shares[x], "big")
    secret = total % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise InconsistentShares("the shares put together are those of no secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def check_share(data: bytes) -> None:
    """Return when ``data`` is the form of a share: 33 bytes, a number below p.

    Raises :class:`InconsistentShares`. That it is a share of some secret is not thereby said.
    """
    if len(data) != SHARE_BYTES:
        raise InconsistentShares(f"a share is {SHARE_BYTES} bytes, got {len(data)}")
    if int.from_bytes(data, "big") >= PRIME:
        raise InconsistentShares("a share is outside the field")


def _check_holders(holders: Sequence[int]) -> None:
    if not all(1 <= x <= MAX_HOLDER for x in holders):
        # f(0) is the secret itself.
        raise LocalError(f"a holder's x is in 1..{MAX_HOLDER}")
    if len(set(holders)) != len(holders):
        raise LocalError("two holders have the same x")


def _evaluate(falling: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in falling:
        value = (value * x + coefficient) % PRIME
    return value


# Hundreds of secrets are put together over the same holders; the holders are public.
@lru_cache(maxsize=1024)
def _weights_at_zero(holders: tuple[int, ...]) -> tuple[int, ...]:
    """w_i of each holder, with one inversion for all: Π x_j over x_i·Π_(j≠i) (x_j - x_i)."""
    product = 1
    below: list[int] = []
    for x in holders:
        product = product * x % PRIME
        denominator = x
        for other in holders:
            if other != x:
                denominator = denominator * (other - x) % PRIME
        below.append(denominator)

    running = [1]
    for denominator in below:
        running.append(running[-1] * denominator % PRIME)
    inverse = pow(running[-1], -1, PRIME)
    weights = [0] * len(holders)
    for index in reversed(range(len(holders))):
        weights[index] = product * inverse * running[index] % PRIME
        inverse = inverse * below[index] % PRIME
    return tuple(weights)
