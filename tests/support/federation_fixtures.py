"""A small federation without images: training is a function of site and state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.group import NO_KEY, Admission, KeyKeeper, KeyStage, MemoryKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import CombinerSession, Guard, MarkKeeper, MemoryMarks, NoJournal
from fedbcs_protocols.wire import MAX_BODY_BYTES, Frame, Kind, decode, seal
from fedbcs_secure.federation.booking import Books
from fedbcs_secure.federation.combiner import RoundCombiner
from fedbcs_secure.federation.dropouts import STAGES
from fedbcs_secure.federation.journal import Journals
from fedbcs_secure.federation.keystage import KeyStages
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.readies import KeptReadies, ReadyFile
from fedbcs_secure.federation.rounds import CONTROL, AnyState, Parties, Train
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.learning.weights import TensorSpec
from fedbcs_secure.study import Study, build

TENSORS = (
    TensorSpec("enc0.conv0.weight", (4, 3, 3, 3)),
    TensorSpec("head.weight", (2, 4, 1, 1)),
    TensorSpec("head.bias", (2,)),
)
FUSED = 12
ANYTHING = dict.fromkeys(Kind, MAX_BODY_BYTES)
REQUESTS = (
    Kind.START,
    Kind.DEALT,
    Kind.OPEN,
    Kind.KEY_LIST,
    Kind.DELIVERY,
    Kind.SURVIVORS,
    Kind.CERTIFICATE,
    Kind.SUM,
)
"""What the combiner sends in the stages of a protected round, in their order."""
STAGE_OF = dict(zip(REQUESTS, STAGES, strict=True)) | {
    Kind.PRESENT: "keys",
    Kind.AGGREGATE: "consistency",
    Kind.HELP: "ready",
    Kind.JOIN: "keys",
    Kind.ADMITTED: "keys",
    Kind.CHECKPOINT: "keys",
    Kind.RESTORE: "keys",
}


def make_study(sites: str = "ABCD", **values: object) -> Study:
    roster = [
        {"name": s, "weight": float(10 + 5 * i), "steps": 3, "classes": [0, 1]}
        for i, s in enumerate(sites)
    ]
    return build({"roster": roster, **values}).resolved()


def fake_training(
    site: str, state: GlobalState, *, scale: float = 1e-3, lacking: tuple[str, ...] = ()
) -> LocalResult:
    """A reproducible stand-in for local training: seeded by site, round and weights."""
    seed = hashlib.sha256(site.encode() + state.digest).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
    delta = (scale * rng.standard_normal(state.weights.size)).astype(np.float32)
    views = []
    for _ in range(2):
        present = np.array([True, site not in lacking])
        means = rng.standard_normal((2, FUSED)).astype(np.float32)
        means[~present] = 0
        views.append((means, present))
    return LocalResult(delta, tuple(views), 0.5, 3, 0.0)


def known_identity(label: str) -> Identity:
    """The same in every process. Its secret is public: for tests only."""
    return Identity.from_secret_bytes(hashlib.sha256(b"test " + label.encode()).digest())


@dataclass(frozen=True, eq=False)
class Cast:
    """A study's parties with known identities, and each site's marks, keys and ledger."""

    study: Study
    plan: Layout
    marks: dict[str, MarkKeeper] = field(default_factory=dict)
    keys: dict[str, KeyKeeper] = field(default_factory=dict)
    books: dict[str, Books] = field(default_factory=dict)

    @cached_property
    def identities(self) -> dict[str, Identity]:
        return {entry.name: known_identity(entry.name) for entry in self.study.roster}

    @cached_property
    def server(self) -> Identity:
        return known_identity(COMBINER)

    @cached_property
    def parties(self) -> Parties:
        roster = {name: identity.public for name, identity in self.identities.items()}
        return Parties(self.study, self.plan, roster, self.server.public)

    @cached_property
    def guard(self) -> Guard:
        """One that has verified everybody."""
        roster = self.parties.roster.values()
        return Guard(frozenset(identity.fingerprint for identity in roster))

    def site(
        self,
        name: str,
        state: GlobalState,
        train: Train = fake_training,
        guard: Guard | None = None,
    ) -> SiteRunner:
        """A new process at site ``name``; its marks and keys last as long as the cast."""
        return SiteRunner(
            name,
            self.identities[name],
            self.parties,
            state,
            train,
            guard=guard or self.guard,
            marks=self.marks.setdefault(name, MemoryMarks()),
            keys=self.keys.setdefault(name, MemoryKeys()),
            books=self.books.get(name),
        )

    def sites(self, state: GlobalState) -> dict[str, SiteRunner]:
        return {name: self.site(name, state) for name in self.identities}

    def combiner(
        self, journals: Journals | None = None, readies: ReadyFile | None = None
    ) -> RoundCombiner:
        return RoundCombiner(self.server, self.parties, journals, readies=readies)

    def frame(self, kind: Kind, binding: Binding, sequence: int, body: bytes = b"") -> bytes:
        """A frame that the combiner signed, whatever is in it."""
        return seal(Frame(kind, binding, COMBINER, sequence, body), self.server)


Silent = Callable[[str, Frame], bool]
"""Whether a site does not get, or does not answer, the combiner's frame."""


class Lines:
    """Lines between institutions: whatever goes wrong at a site, it is only silent.

    Keeps copies of all that passes, as a curious server would, and the sites' own errors.
    """

    def __init__(self, sites: Mapping[str, SiteRunner], silent: Silent | None = None) -> None:
        self.sites = dict(sites)
        self.silent = silent
        self.down: dict[str, list[bytes]] = {name: [] for name in sites}
        self.up: dict[str, list[bytes]] = {name: [] for name in sites}
        self.errors: list[tuple[str, ProtocolError]] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            if self.silent is not None and self.silent(name, decode(request, ANYTHING)):
                continue
            self.down[name].append(request)
            try:
                reply = self.sites[name].handle(request)
            except ProtocolError as error:
                self.errors.append((name, error))
                continue
            self.up[name].append(reply)
            yield name, reply

    def sent(self, kind: Kind) -> dict[str, list[Frame]]:
        """The frames of a kind that sites have sent, a frame that was sent twice only once."""
        found: dict[str, list[Frame]] = {}
        for name, replies in self.up.items():
            frames = [decode(reply, ANYTHING) for reply in dict.fromkeys(replies)]
            found[name] = [frame for frame in frames if frame.kind is kind]
        return found


def gone_from(stage: str, names: str, *, attempt: int | None = None) -> Silent:
    """Sites ``names`` are silent from ``stage`` of an attempt on (None: of every attempt)."""
    first = STAGES.index(stage)

    def silent(name: str, frame: Frame) -> bool:
        if name not in names or STAGES.index(STAGE_OF[frame.kind]) < first:
            return False
        of_attempt = frame.kind not in (Kind.START, Kind.SUM)
        return attempt is None or (of_attempt and frame.binding.attempt == attempt)

    return silent


@dataclass
class Stepwise:
    """A round that the test takes stage by stage, with the combiner's session in its hands."""

    cast: Cast
    state: GlobalState
    sites: dict[str, SiteRunner]
    key_id: bytes = NO_KEY

    def control(self, attempt: int = 0) -> Binding:
        return self.cast.parties.binding(self.state, CONTROL, attempt)

    @property
    def start(self) -> bytes:
        return self.cast.frame(Kind.START, self.control(), 0)

    def open(self, attempt: int = 0) -> bytes:
        return self.cast.frame(Kind.OPEN, self.control(attempt), 1)

    def session(self, attempt: int = 0) -> CombinerSession:
        setting = self.cast.parties.setting(self.state, attempt, self.key_id)
        return CombinerSession(setting, identity=self.cast.server, journal=NoJournal())

    def ready(self) -> None:
        """Let all sites train and, where the study has one, take a key of the group's."""
        parties, faults = self.cast.parties, {}
        if parties.study.group_key:
            stages = KeyStages(self.cast.server, parties, Lines(self.sites), faults)
            starts = dict.fromkeys(self.sites, self.start)
            self.key_id = stages.run(self.control(), starts, KeptReadies(parties)).key_id
        else:
            for site in self.sites.values():
                site.handle(self.start)

    def dealt(self) -> bytes:
        """All are ready, one has dealt: the frame that the others wait for."""
        stage = KeyStage(self.cast.parties.group, identity=self.cast.server, control=self.control())
        for name, site in self.sites.items():
            stage.ready(name, site.handle(self.start))
        dealer = stage.dealer
        assert dealer is not None
        stage.dealt(self.sites[dealer].handle(stage.present_frame()))
        return stage.dealt_frame()

    def run(self, until: Kind, attempt: int = 0) -> CombinerSession:
        """Up to where the frames of kind ``until`` are ready in ``requests`` (SUM: complete)."""
        self.ready()
        session = self.session(attempt)
        for stage in REQUESTS[2 : REQUESTS.index(until)]:
            for name in session.expected:
                request = self.open(attempt) if stage is Kind.OPEN else session.requests[name]
                session.receive(self.sites[name].handle(request))
            session.close()
        return session


def give_keys(step: Stepwise, to: str, by: str, away: Binding, state: AnyState) -> None:
    """Site ``by``, which is at ``state``, gives ``to`` the keys for what it missed (GK-4)."""
    admission = Admission(
        step.cast.parties.group,
        identity=step.cast.server,
        site=to,
        away=away,
        control=step.cast.parties.binding(state, CONTROL),
    )
    joining = step.sites[to].handle(admission.join_frame())
    helped = step.sites[by].handle(admission.help_frame(joining))
    admission.admitted(step.sites[to].handle(admission.admitted_frame(by, helped)))
