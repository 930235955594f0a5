"""A federation in one process: real frames, real masks, a function call for a wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedbcs_protocols.identity import Identity
from fedbcs_secure.federation.channel import CountingChannel
from fedbcs_secure.federation.combiner import RoundCombiner
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.rounds import Parties, Train
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.study import Study


class MemoryChannel:
    """Hands each frame to the sites one after another."""

    def __init__(self, sites: Mapping[str, SiteRunner]) -> None:
        self._sites = dict(sites)

    def broadcast(self, frame: bytes) -> Iterator[tuple[str, bytes]]:
        for name, site in self._sites.items():
            yield name, site.handle(frame)


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """The next state, each site's training loss and clipped values (which a simulation may see),

    and the bytes of one site.
    """

    state: GlobalState
    losses: dict[str, float]
    clipped: dict[str, int]
    bytes_up: int
    bytes_down: int


class MemoryFederation:
    """All parties of a study. Identities are fresh from the system's generator in each process."""

    def __init__(self, study: Study, plan: Layout, train: Train) -> None:
        self._identities = {entry.name: Identity.generate() for entry in study.roster}
        server = Identity.generate()
        self._parties = Parties(
            study=study,
            plan=plan,
            roster={name: identity.public for name, identity in self._identities.items()},
            combiner=server.public,
        )
        self._combiner = RoundCombiner(server, self._parties)
        self._train = train
        self._losses: dict[str, float] = {}
        self._sites: dict[str, SiteRunner] = {}

    def run_round(self, state: GlobalState) -> RoundOutcome:
        """One round from ``state``. Raises RuntimeError if a site ends in another state."""
        if not self._sites:
            self._sites = {
                name: SiteRunner(name, identity, self._parties, state, self._record)
                for name, identity in self._identities.items()
            }
        channel = CountingChannel(MemoryChannel(self._sites))
        following = self._combiner.run(channel, state)
        for site in self._sites.values():
            if site.state.digest != following.digest:
                raise RuntimeError(f"site {site.name} computed another state than the combiner")
        up, down = channel.take()
        clipped = {name: site.clipped for name, site in self._sites.items()}
        return RoundOutcome(following, dict(self._losses), clipped, up, down)

    def _record(self, site: str, state: GlobalState) -> LocalResult:
        result = self._train(site, state)
        self._losses[site] = result.loss
        return result
