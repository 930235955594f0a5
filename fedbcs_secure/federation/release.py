"""The one place where a site's result becomes something that can leave it.

An unprotected :class:`Update` exists only between this module and ``protect``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.errors import FedBCSError
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult


@dataclass(frozen=True, eq=False)
class Update:
    """What a site wants to contribute in a round, in the clear: it stays in this process.

    ``delta`` is (P,) float32; ``prototypes`` maps (view, class) to (3d,) float32.
    """

    round: int
    delta: NDArray[np.float32]
    prototypes: Mapping[tuple[int, int], NDArray[np.float32]]

    def __repr__(self) -> str:
        return f"Update(round={self.round}, values redacted)"


def form_update(result: LocalResult, state: GlobalState, plan: Layout, site: str) -> Update:
    """The site's update of this round.

    A class that the study says the site holds, but that had no pixel this round, contributes the
    global prototype as it is (zero before there is one), so that nothing shows its absence.
    Raises :class:`FedBCSError` when training gave values that are not finite.
    """
    if not np.isfinite(result.delta).all():
        raise FedBCSError(f"training at site {site} gave weights that are not finite")
    if plan.private:
        # DP-4.6: noised sums if they were due, and nothing else.
        return Update(state.round, result.delta, result.prototype_sums)
    current = {(p.view, p.label): p.rows.mean(axis=0) for p in state.prototypes}
    prototypes: dict[tuple[int, int], NDArray[np.float32]] = {}
    for slot in plan.slots:
        if site not in slot.holders:
            continue
        means, present = result.prototypes[slot.view]
        key = (slot.view, slot.label)
        if present[slot.label]:
            prototypes[key] = means[slot.label]
        else:
            prototypes[key] = current.get(key, np.zeros(plan.fused_channels, np.float32))
    return Update(state.round, result.delta, prototypes)
