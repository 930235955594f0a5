"""One round, seen from a site and from the combiner.

Train first, then run the short stages, so that a slow site is missed before keys are spent::

    combiner                     site
    START  ------------------->  trains, forms its vector
           <-------------------  READY
    OPEN   ------------------->
           <-------------------  ADVERTISE            | PLAIN_INPUT   (protection "none")
    KEY_LIST ----------------->
           <-------------------  MASKED_INPUT
    SUM    ------------------->  next state
           <-------------------  ACCEPTED

Clauses (RO-…) are those of ``protocols/specs/round.md``. Every frame is signed and bound to study,
round, attempt, phase and state. Control frames are of phase 0, those of the sum of phase 1. Under
``prototypes = "finch"`` a PLAIN_PROTOTYPES frame with each site's prototypes goes before SUM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedbcs_protocols.binding import COMBINER, Binding, encode_fields
from fedbcs_protocols.errors import LocalError, UnexpectedFrame
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.ring import Accumulator, Words, pack, unpack
from fedbcs_protocols.secagg import CombinerSession, SiteSession
from fedbcs_protocols.wire import Frame, Kind, Limits, decode, expect_sequence, open_frame, seal
from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.combine import next_state
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.protect import encode, modulus_bits
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.study import Study

CONTROL, SUM = 0, 1
Train = Callable[[str, GlobalState], LocalResult]
"""Local training: (site, state) to its result."""


@dataclass(frozen=True, eq=False)
class Parties:
    """What all sides agree on before the first round: study, layout, public identities."""

    study: Study
    plan: Layout
    roster: Mapping[str, PublicIdentity]
    combiner: PublicIdentity

    def __post_init__(self) -> None:
        names = tuple(entry.name for entry in self.study.roster)
        if not self.study.federated or not names:
            raise StudyError("a round needs a federated method and a roster")
        # RO-1.4
        if tuple(self.roster) != names:
            raise StudyError("the identities are not those of the study's roster, in its order")

    @cached_property
    def digest(self) -> bytes:
        """What frames and keys are bound to: the study and everybody's identity (RO-1.1)."""
        fields: list[bytes | str] = ["fedbcs-secure parties v1", self.study.digest]
        for name, identity in self.roster.items():
            fields += [name, identity.raw]
        return hashlib.sha256(encode_fields(*fields, self.combiner.raw)).digest()

    def binding(self, state: GlobalState, phase: int, attempt: int = 0) -> Binding:
        return Binding(self.digest, state.round, attempt, phase, state.digest)

    @property
    def shape(self) -> VectorShape:
        return VectorShape(self.plan.length, modulus_bits(self.study), len(self.roster))

    @property
    def prototypes_shape(self) -> VectorShape:
        """All sites' prototype parts, one after another (FINCH only)."""
        values = len(self.plan.slots) * self.plan.fused_channels * len(self.roster)
        return VectorShape(values, modulus_bits(self.study), len(self.roster))

    @property
    def shows_prototypes(self) -> bool:
        return self.study.alignment.prototypes == "finch" and bool(self.plan.slots)


class SiteRunner:
    """A site's side: takes the combiner's frames, gives its own. Holds the site's global state."""

    def __init__(
        self, name: str, identity: Identity, parties: Parties, state: GlobalState, train: Train
    ) -> None:
        self.name = name
        self.state = state
        self._identity = identity
        self._parties = parties
        self._train = train
        self._vector: Words | None = None
        self._session: SiteSession | None = None
        self._sent_plain = False
        self.clipped = 0
        """Values of the last vector that were out of range; for this site's eyes only."""
        self._individual: list[Words] | None = None

    def handle(self, data: bytes) -> bytes:
        """The reply to one frame of the combiner.

        Raises a :class:`fedbcs_protocols.errors.ProtocolError` for a frame that does not belong
        here and now.
        """
        kind = decode(data, self._limits()).kind
        match kind:
            case Kind.START:
                return self._start(data)
            case Kind.OPEN:
                return self._open(data)
            case Kind.KEY_LIST:
                return self._mask(data)
            case Kind.PLAIN_PROTOTYPES:
                return self._take_prototypes(data)
            case _:
                return self._finish(data)

    def _limits(self) -> Limits:
        shape = self._parties.shape
        limits = {Kind.START: 0, Kind.OPEN: 0, Kind.SUM: shape.body_bytes}
        if self._session is not None:
            # The session checks the list's own, tighter limit.
            limits[Kind.KEY_LIST] = 1 << 20
        if self._parties.shows_prototypes:
            limits[Kind.PLAIN_PROTOTYPES] = self._parties.prototypes_shape.body_bytes
        return limits

    def _receive(self, data: bytes, kind: Kind, phase: int, sequence: int, limit: int = 0) -> Frame:
        frame = open_frame(
            data,
            roster={COMBINER: self._parties.combiner},
            expect=self._parties.binding(self.state, phase),
            limits={kind: limit},
        )
        expect_sequence(frame, sequence)
        return frame

    def _reply(self, kind: Kind, binding: Binding, sequence: int, body: bytes = b"") -> bytes:
        return seal(Frame(kind, binding, self.name, sequence, body), self._identity)

    def _start(self, data: bytes) -> bytes:
        self._receive(data, Kind.START, CONTROL, 0)
        # RO-2.6
        if self.state.round >= self._parties.study.rounds:
            raise UnexpectedFrame(COMBINER, "the study's rounds are over")
        # RO-2.1
        if self._vector is not None:
            raise UnexpectedFrame(COMBINER, "this round has been started already")
        result = self._train(self.name, self.state)
        parties = self._parties
        update = form_update(result, self.state, parties.plan, self.name)
        quantised = encode(update, self.state, parties.plan, parties.study, self.name)
        self._vector, self.clipped = quantised.codes, quantised.clipped
        return self._reply(Kind.READY, parties.binding(self.state, CONTROL), 0)

    def _open(self, data: bytes) -> bytes:
        self._receive(data, Kind.OPEN, CONTROL, 1)
        vector = self._ready()
        binding = self._parties.binding(self.state, SUM)
        if self._parties.study.protection == "none":
            body = MaskedInput(self._parties.shape, pack(vector, self._parties.shape.bits))
            self._sent_plain = True
            return self._reply(Kind.PLAIN_INPUT, binding, 0, body.encode())
        # RO-2.2
        if self._session is not None:
            raise UnexpectedFrame(COMBINER, "the sum of this round has been opened already")
        self._session = SiteSession(
            identity=self._identity,
            name=self.name,
            roster=self._parties.roster,
            combiner=self._parties.combiner,
            binding=binding,
            bits=self._parties.shape.bits,
            count=self._parties.shape.count,
        )
        return self._session.advertise()

    def _mask(self, data: bytes) -> bytes:
        if self._session is None:
            raise UnexpectedFrame(COMBINER, "a key list before the sum was opened")
        return self._session.masked_input(data, self._ready())

    def _take_prototypes(self, data: bytes) -> bytes:
        shape = self._parties.prototypes_shape
        frame = self._receive(data, Kind.PLAIN_PROTOTYPES, SUM, 0, shape.body_bytes)
        message = SumBroadcast.decode(frame.body, sender=COMBINER, shape=shape)
        flat = unpack(message.packed, shape.count, shape.bits)
        self._individual = list(flat.reshape(len(self._parties.roster), -1))
        return self._reply(Kind.ACCEPTED, self._parties.binding(self.state, CONTROL), 1)

    def _finish(self, data: bytes) -> bytes:
        self._ready()
        parties = self._parties
        # RO-2.7: no sum without this site's own part in it.
        if self._session is not None:
            total = self._session.receive_sum(data)
        elif not self._sent_plain:
            raise UnexpectedFrame(COMBINER, "a sum that this site has no part in")
        else:
            frame = self._receive(data, Kind.SUM, SUM, 1, parties.shape.body_bytes)
            message = SumBroadcast.decode(frame.body, sender=COMBINER, shape=parties.shape)
            total = unpack(message.packed, parties.shape.count, parties.shape.bits)
        if parties.shows_prototypes and self._individual is None:
            raise UnexpectedFrame(COMBINER, "the sum came before the prototypes")
        following = next_state(self.state, total, parties.plan, parties.study, self._individual)
        reply = self._reply(Kind.ACCEPTED, parties.binding(self.state, CONTROL), 2)
        self.state = following
        self._vector, self._session, self._individual = None, None, None
        self._sent_plain = False
        return reply

    def _ready(self) -> Words:
        if self._vector is None:
            raise UnexpectedFrame(COMBINER, "the round has not been started")
        return self._vector


class RoundCombiner:
    """The combiner's side: passes frames on and adds up. Never holds more than the running sum.

    Under ``prototypes = "finch"`` it also holds each site's prototypes, which that mode shows.
    """

    def __init__(self, identity: Identity, parties: Parties) -> None:
        self._identity = identity
        self._parties = parties

    def run(self, channel: Channel, state: GlobalState) -> GlobalState:
        """One whole round over ``channel``; returns the state that every site reached as well."""
        parties = self._parties
        control = parties.binding(state, CONTROL)
        self._collect(channel, self._seal(Kind.START, control, 0), Kind.READY, control, 0)
        opening = self._seal(Kind.OPEN, control, 1)
        individual: list[Words] | None = None
        if parties.study.protection == "none":
            total, individual = self._plain_sum(channel, opening, state)
            packed = pack(total, parties.shape.bits)
            closing = self._seal(
                Kind.SUM,
                parties.binding(state, SUM),
                1,
                SumBroadcast(parties.shape, packed).encode(),
            )
            if individual is not None:
                self._show_prototypes(channel, state, individual)
        else:
            session = CombinerSession(
                identity=self._identity,
                roster=parties.roster,
                binding=parties.binding(state, SUM),
                bits=parties.shape.bits,
                count=parties.shape.count,
            )
            for site, reply in channel.broadcast(opening):
                session.receive_advertise(self._on_line(site, reply))
            for site, reply in channel.broadcast(session.key_list()):
                session.receive_masked(self._on_line(site, reply))
            total, closing = session.sum(), session.sum_frame()
        following = next_state(state, total, parties.plan, parties.study, individual)
        self._collect(channel, closing, Kind.ACCEPTED, control, 2)
        return following

    def _plain_sum(
        self, channel: Channel, opening: bytes, state: GlobalState
    ) -> tuple[Words, list[Words] | None]:
        parties, shape = self._parties, self._parties.shape
        accumulator = Accumulator(shape.count, shape.bits)
        shown: dict[str, Words] = {}
        answered: set[str] = set()
        for site, reply in channel.broadcast(opening):
            frame = self._take(
                site, reply, Kind.PLAIN_INPUT, parties.binding(state, SUM), 0, shape.body_bytes
            )
            message = MaskedInput.decode(frame.body, sender=site, shape=shape)
            if site in answered:
                raise UnexpectedFrame(site, "its vector comes twice")
            answered.add(site)
            accumulator.add(message.packed)
            if parties.shows_prototypes:
                values = unpack(message.packed, shape.count, shape.bits)
                shown[site] = values[parties.plan.parameters :].copy()
        self._require_all(answered, Kind.OPEN)
        return accumulator.total(), [shown[name] for name in parties.roster] if shown else None

    def _show_prototypes(
        self, channel: Channel, state: GlobalState, individual: Sequence[Words]
    ) -> None:
        shape = self._parties.prototypes_shape
        packed = pack(np.concatenate(individual), shape.bits)
        frame = self._seal(
            Kind.PLAIN_PROTOTYPES,
            self._parties.binding(state, SUM),
            0,
            SumBroadcast(shape, packed).encode(),
        )
        self._collect(channel, frame, Kind.ACCEPTED, self._parties.binding(state, CONTROL), 1)

    def _collect(
        self, channel: Channel, frame: bytes, kind: Kind, binding: Binding, sequence: int
    ) -> None:
        answered: set[str] = set()
        for site, reply in channel.broadcast(frame):
            self._take(site, reply, kind, binding, sequence, 0)
            answered.add(site)
        self._require_all(answered, kind)

    def _require_all(self, answered: set[str], kind: Kind) -> None:
        missing = [name for name in self._parties.roster if name not in answered]
        if missing:
            raise LocalError(f"no {kind.name} answered by {', '.join(missing)}")

    def _on_line(self, site: str, data: bytes) -> bytes:
        """``data``, when the sender it names is the site whose line it came on (RO-2.5).

        The session proves that the sender is who it says.
        """
        limits = {Kind.ADVERTISE: 32, Kind.MASKED_INPUT: self._parties.shape.body_bytes}
        sender = decode(data, limits).sender
        if sender != site:
            raise UnexpectedFrame(sender, f"its frame came on the line of {site}")
        return data

    def _take(
        self, site: str, data: bytes, kind: Kind, binding: Binding, sequence: int, limit: int
    ) -> Frame:
        frame = open_frame(data, roster=self._parties.roster, expect=binding, limits={kind: limit})
        # RO-2.5
        if frame.sender != site:
            raise UnexpectedFrame(frame.sender, f"its frame came on the line of {site}")
        expect_sequence(frame, sequence)
        return frame

    def _seal(self, kind: Kind, binding: Binding, sequence: int, body: bytes = b"") -> bytes:
        return seal(Frame(kind, binding, COMBINER, sequence, body), self._identity)
