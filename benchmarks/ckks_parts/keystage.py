"""A whole key stage between session objects in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.group import Group, KeyStage, MemoryKeys, SiteKeys
from fedbcs_protocols.identity import Identity

STUDY = bytes(32)
CONTROL = Binding(STUDY, 0, 0, 0, bytes(32))
"""Of the round, 0, in which the key is dealt and used."""
_T = TypeVar("_T")


@dataclass
class StageCosts:
    """CPU seconds by step: of all sites together, and of the combiner; ``sites`` took part."""

    sites: int
    combiner: float = 0.0
    ready: float = 0.0
    deal: float = 0.0
    take: float = 0.0

    @property
    def at_sites(self) -> float:
        """Of all sites."""
        return self.ready + self.deal + self.take

    @property
    def total(self) -> float:
        """Of all parties."""
        return self.combiner + self.at_sites

    @property
    def site(self) -> float:
        """Of one site that does not deal."""
        return self.ready / self.sites + self.take / (self.sites - 1)


def run(
    identities: Mapping[str, Identity], server: Identity, threshold: int
) -> tuple[Mapping[str, SiteKeys], bytes, StageCosts]:
    """The sites' keys, the name of the key that all of them took, and what it cost.

    Raises RuntimeError when a site did not take it.
    """
    roster = {name: identity.public for name, identity in identities.items()}
    group = Group(roster, server.public, threshold, 1)
    sites = {
        name: SiteKeys(group, identity=identity, name=name, study_digest=STUDY, keeper=MemoryKeys())
        for name, identity in identities.items()
    }
    costs = StageCosts(len(sites))

    def timed(who: str, act: Callable[[], _T]) -> _T:
        started = time.process_time()
        result = act()
        setattr(costs, who, getattr(costs, who) + time.process_time() - started)
        return result

    stage = timed("combiner", lambda: KeyStage(group, identity=server, control=CONTROL))
    for name, keys in sites.items():
        ready = timed("ready", lambda keys=keys: keys.ready(CONTROL))
        timed("combiner", lambda name=name, ready=ready: stage.ready(name, ready))
    dealer = timed("combiner", lambda: stage.dealer)
    if dealer is None:
        raise RuntimeError("nobody dealt a key")
    present = timed("combiner", stage.present_frame)
    deal = timed("deal", lambda: sites[dealer].deal(present, CONTROL))
    timed("combiner", lambda: stage.dealt(deal))
    dealt = timed("combiner", stage.dealt_frame)
    for name in stage.waiting:
        taken = timed("take", lambda name=name: sites[name].take(dealt, CONTROL))
        timed("combiner", lambda name=name, taken=taken: stage.taken(name, taken))
    if stage.holders != frozenset(sites):
        raise RuntimeError("a site did not take the key")
    return sites, stage.key_id, costs
