"""A federation in one process: real frames, real masks, a function call for a wire."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from fedbcs_protocols.errors import Refused
from fedbcs_protocols.group import MemoryKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import Guard, MemoryMarks
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.booking import Books
from fedbcs_secure.federation.channel import CountingChannel
from fedbcs_secure.federation.combiner import RoundCombiner
from fedbcs_secure.federation.dropouts import Drop, DroppingChannel
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.machine import choose_keystream
from fedbcs_secure.federation.readies import ReadyFile
from fedbcs_secure.federation.rounds import Parties, Train
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.study import Study


class MemoryChannel:
    """Hands each site its frame, one after another. A site whose policy refuses does not answer.

    Any other error of a site is raised: in one process it is a mistake of ours.
    """

    def __init__(self, sites: Mapping[str, SiteRunner]) -> None:
        self._sites = dict(sites)
        self.declined: dict[str, str] = {}
        """Why sites did not answer; between institutions nobody would be told."""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, frame in requests.items():
            try:
                reply = self._sites[name].handle(frame)
            except Refused as refusal:
                # What follows from the first refusal is not why.
                self.declined.setdefault(name, str(refusal))
                continue
            yield name, reply


@dataclass(frozen=True, eq=False)
class Lasting:
    """What the parties of a simulated study keep beyond a process, where sites have ledgers.

    A new process then has the same identities, so what sites signed before is still theirs.
    """

    identities: Mapping[str, Identity] = field(repr=False)
    server: Identity = field(repr=False)
    readies: ReadyFile


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """The next state, each site's training loss and clipped values (which a simulation may see),

    the sites in the sum, the attempts it took, the sites that answered again for a state that they
    had answered for, and the bytes of one site.
    """

    state: GlobalState
    losses: dict[str, float]
    clipped: dict[str, int]
    survivors: tuple[str, ...]
    attempts: int
    reused: tuple[str, ...]
    bytes_up: int
    bytes_down: int
    declined: dict[str, str]


class MemoryFederation:
    """All parties of a study. Identities are fresh from the system's generator in each process.

    Each site has verified all others; ``drops`` make sites vanish on purpose; ``books`` are the
    sites' ledgers in a study with differential privacy, and ``lasting`` says who they are in every
    process.
    """

    def __init__(
        self,
        study: Study,
        plan: Layout,
        train: Train,
        drops: Collection[Drop] = (),
        books: Mapping[str, Books] | None = None,
        lasting: Lasting | None = None,
    ) -> None:
        names = [entry.name for entry in study.roster]
        given = lasting.identities if lasting else {n: Identity.generate() for n in names}
        self._identities = {name: given[name] for name in names}
        server = lasting.server if lasting else Identity.generate()
        choose_keystream()
        self._parties = Parties(
            study=study,
            plan=plan,
            roster={name: identity.public for name, identity in self._identities.items()},
            combiner=server.public,
        )
        readies = lasting.readies if lasting else None
        self._combiner = RoundCombiner(server, self._parties, readies=readies)
        self._train = train
        self._drops = tuple(drops)
        self._books = dict(books or {})
        self._losses: dict[str, float] = {}
        self._sites: dict[str, SiteRunner] = {}

    def run_round(self, state: GlobalState) -> RoundOutcome:
        """One round from ``state``.

        Raises :class:`RoundError` when too few sites stay, :class:`Refused` if sites' policies are
        why, and RuntimeError if a site that stayed ends in another state or sends what the combiner
        refuses.
        """
        self._sites = self._sites or self._new_sites(state)
        self._losses = {}
        before = {name: site.reused for name, site in self._sites.items()}
        at_once = self._parties.study.protection != "secagg"
        lines = MemoryChannel(self._sites)
        channel = CountingChannel(lines)
        dropping = DroppingChannel(channel, self._drops, state.round, at_once=at_once)
        try:
            result = self._combiner.run(dropping, state)
        except RoundError as error:
            if not lines.declined:
                raise
            why = "".join(f"\n  site {name}: {text}" for name, text in lines.declined.items())
            raise Refused(f"{error}. Sites that declined:{why}") from None
        self._combiner.finished(state)
        if result.faults:
            raise RuntimeError(f"the combiner refused frames: {dict(result.faults)}")
        for site in self._sites.values():
            if site.state.round > state.round and site.state.digest != result.state.digest:
                raise RuntimeError(f"site {site.name} came to another state than the others")
        following = result.state
        if not isinstance(following, GlobalState):
            following = next(s.state for s in self._sites.values() if s.state.round > state.round)
        up, down = channel.take()
        clipped = {name: self._sites[name].clipped for name in self._losses}
        return RoundOutcome(
            state=following,
            losses=self._losses,
            clipped=clipped,
            survivors=result.survivors,
            attempts=result.attempts,
            reused=tuple(n for n, site in self._sites.items() if site.reused > before[n]),
            bytes_up=up,
            bytes_down=down,
            declined=lines.declined,
        )

    def _new_sites(self, state: GlobalState) -> dict[str, SiteRunner]:
        identities = self._identities
        guard = Guard(frozenset(each.public.fingerprint for each in identities.values()))
        return {
            name: SiteRunner(
                name,
                identity,
                self._parties,
                state,
                self._record,
                guard=guard,
                marks=MemoryMarks(),
                keys=MemoryKeys(),
                books=self._books.get(name),
            )
            for name, identity in identities.items()
        }

    def _record(self, site: str, state: GlobalState) -> LocalResult:
        result = self._train(site, state)
        self._losses[site] = result.loss
        return result
