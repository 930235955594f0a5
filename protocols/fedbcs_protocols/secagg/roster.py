"""Who takes part in a protected sum, and the rules both sessions check about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedbcs_protocols.binding import COMBINER, is_name
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.messages import MAX_SITES, PUBLIC_KEY_BYTES
from fedbcs_protocols.wire import Kind, Limits

MIN_SITES = 3
"""From a sum of two, either site can read the other's vector."""
ADVERTISE_LIMIT: Limits = MappingProxyType({Kind.ADVERTISE: PUBLIC_KEY_BYTES})


def check_roster(roster: Mapping[str, PublicIdentity], combiner: PublicIdentity) -> None:
    """Return when a protected sum over this roster makes sense (SA-0.1, SA-0.2).

    3 to 1024 sites, proper names, and nobody holds two places. Raises :class:`LocalError`.
    """
    # SA-0.1
    if not MIN_SITES <= len(roster) <= MAX_SITES:
        raise LocalError(
            f"a protected sum needs {MIN_SITES} to {MAX_SITES} sites, the roster has {len(roster)}"
        )
    for name in roster:
        if name == COMBINER or not is_name(name):
            raise LocalError(f"{name!r} is no site's name")
    # SA-0.2: one key in two places would make one party count as two.
    if len({*roster.values(), combiner}) != len(roster) + 1:
        raise LocalError("two parties have the same identity")
