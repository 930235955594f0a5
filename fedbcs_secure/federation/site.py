"""A site's side of the rounds: takes the combiner's frames, gives its own (specs/round.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import Inconsistent, UnexpectedFrame
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import Words, pack
from fedbcs_protocols.secagg import Guard, MarkKeeper, Setting, SiteSession, open_sum
from fedbcs_protocols.secagg.messages import Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.outcome import SUM_SEQUENCE, sum_limit
from fedbcs_protocols.sitesets import set_bytes
from fedbcs_protocols.wire import Frame, Kind, Limits, decode, expect_sequence, open_frame, seal
from fedbcs_secure.federation import plain
from fedbcs_secure.federation.combine import next_state
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import CONTROL, SUM, Parties, Train
from fedbcs_secure.federation.state import GlobalState

_ACCEPTED = {Kind.PLAIN_PROTOTYPES: 1, Kind.SUM: 2}
_TOLD_PLAIN = {Kind.PLAIN_PROTOTYPES: 0, Kind.SUM: 1}
"""What a site says *accepted* to, and the sequence of that."""


class SiteRunner:
    """A site's side: takes the combiner's frames, gives its own. Holds the site's global state.

    ``guard`` is what the site's own staff demands; ``marks`` keeps what the site must never forget,
    durably outside simulations. Raises :class:`fedbcs_protocols.errors.Refused` when the guard
    does not admit the study.
    """

    def __init__(
        self,
        name: str,
        identity: Identity,
        parties: Parties,
        state: GlobalState,
        train: Train,
        *,
        guard: Guard,
        marks: MarkKeeper,
    ) -> None:
        if parties.study.protection == "secagg":
            # SA-0.5, before the site trains for nothing.
            guard.admit(parties.terms, parties.roster, name)
            for slot in parties.plan.slots:
                if name in slot.holders:
                    guard.admit_part(slot.holders, parties.terms, parties.roster, name)
        self.name = name
        self.state = state
        self.clipped = 0
        """Values of the last vector that were out of range; for this site's eyes only."""
        self.reused = 0
        """Answers that this site has given again for a state; for its staff to look into."""
        self._identity = identity
        self._parties = parties
        self._train = train
        self._guard = guard
        self._marks = marks
        self._vector: Words | None = None
        self._session: SiteSession | None = None
        self._signed: dict[int, bytes] = {}
        """Attempt to transcript, for what this process signed in this round."""
        self._individual: tuple[tuple[str, ...], list[Words]] | None = None
        """Each survivor's prototypes, where the study shows them."""
        self._last: tuple[bytes, bytes] | None = None
        """Digest of the last request that was answered, and the answer."""

    def handle(self, data: bytes) -> bytes:
        """The reply to one frame of the combiner.

        The same frame twice in a row gets the same reply (RO-2.9), so that a combiner that crashed
        can ask again. Raises a :class:`fedbcs_protocols.errors.ProtocolError` for a frame that does
        not belong here and now, and the toolkit's own errors when training fails. Their texts are
        this site's business: a channel between institutions must answer any of them with
        "declined" alone.
        """
        # WI-1.2: what is too long or no frame is not even hashed.
        decode(data, self._limits())
        request = hashlib.sha256(data).digest()
        if self._last is not None and self._last[0] == request:
            return self._last[1]
        reply = self._answer(data)
        self._last = request, reply
        return reply

    def _answer(self, data: bytes) -> bytes:
        frame = decode(data, self._limits())
        if frame.kind in _ACCEPTED and frame.binding.round < self.state.round:
            return self._accept_again(data, frame)
        match frame.kind:
            case Kind.START:
                return self._start(data)
            case Kind.OPEN:
                return self._open(data)
            case Kind.PLAIN_PROTOTYPES:
                return self._take_prototypes(data)
            case Kind.SUM:
                return self._finish(data)
            case Kind.KEY_LIST:
                return self._in_session().share(data)
            case Kind.DELIVERY:
                return self._in_session().masked_input(data, self._ready())
            case Kind.SURVIVORS:
                return self._sign(data)
            case _:
                return self._in_session().unmask(data)

    def _limits(self) -> Limits:
        """What may come at all; sessions and stages narrow it down."""
        parties = self._parties
        if parties.study.protection == "none":
            limits = {Kind.START: 0, Kind.OPEN: 0, Kind.SUM: plain.sum_limit(parties)}
            if parties.shows_prototypes:
                limits[Kind.PLAIN_PROTOTYPES] = plain.prototypes_limit(parties)
            return limits
        terms = parties.terms
        return {
            Kind.START: 0,
            Kind.OPEN: 0,
            Kind.SUM: sum_limit(self._setting(0)),
            Kind.KEY_LIST: KeyList.limit(terms.graph, terms.sites),
            Kind.DELIVERY: Delivery.limit(terms.sites),
            Kind.SURVIVORS: set_bytes(terms.sites),
            Kind.CERTIFICATE: Certificate.limit(terms.sites),
        }

    def _setting(self, attempt: int) -> Setting:
        return self._parties.setting(self.state, attempt)

    def _receive(
        self, data: bytes, kind: Kind, phase: int, sequence: int, limit: int = 0, attempt: int = 0
    ) -> Frame:
        frame = open_frame(
            data,
            roster={COMBINER: self._parties.combiner},
            expect=self._parties.binding(self.state, phase, attempt),
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
        parties = self._parties
        # RO-2.1: asked again, it says that it is ready, but does not train again.
        if self._vector is None:
            result = self._train(self.name, self.state)
            update = form_update(result, self.state, parties.plan, self.name)
            quantised = encode(update, self.state, parties.plan, parties.study, self.name)
            self._vector, self.clipped = quantised.codes, quantised.clipped
        return self._reply(Kind.READY, parties.binding(self.state, CONTROL), 0)

    def _open(self, data: bytes) -> bytes:
        # RO-2.2: which attempt it is, the combiner says; the marks see to it that it only rises.
        attempt = decode(data, {Kind.OPEN: 0}).binding.attempt
        self._receive(data, Kind.OPEN, CONTROL, 1, attempt=attempt)
        vector = self._ready()
        if self._parties.study.protection == "none":
            shape = self._parties.shape
            body = MaskedInput(shape, pack(vector, shape.bits)).encode()
            binding = self._parties.binding(self.state, SUM, attempt)
            return self._reply(Kind.PLAIN_INPUT, binding, 0, body)
        session = SiteSession(
            self._setting(attempt),
            identity=self._identity,
            name=self.name,
            guard=self._guard,
            marks=self._marks,
        )
        reply = session.advertise()
        self.reused += session.reused > 0
        # With the old session its secrets go: an attempt that was left is never answered again.
        self._session = session
        return reply

    def _in_session(self) -> SiteSession:
        if self._session is None:
            raise UnexpectedFrame(COMBINER, "a stage of a sum that was not opened here")
        return self._session

    def _sign(self, data: bytes) -> bytes:
        session = self._in_session()
        reply = session.consistency(data)
        if session.transcript is not None:
            self._signed[session.binding.attempt] = session.transcript
        return reply

    def _take_prototypes(self, data: bytes) -> bytes:
        limit = plain.prototypes_limit(self._parties)
        frame = self._receive(data, Kind.PLAIN_PROTOTYPES, SUM, 0, limit)
        self._individual = plain.decode_prototypes(self._parties, frame.body)
        return self._accepted(Kind.PLAIN_PROTOTYPES, self._parties.binding(self.state, CONTROL))

    def _finish(self, data: bytes) -> bytes:
        parties = self._parties
        individual: list[Words] | None = None
        if parties.study.protection == "none":
            limit = plain.sum_limit(parties)
            frame = self._receive(data, Kind.SUM, SUM, 1, limit)
            survivors, total = plain.decode_sum(parties, frame.body)
            if parties.shows_prototypes:
                individual = self._prototypes_of(survivors)
        else:
            # RO-2.7: no sum without the signatures of enough sites on who is in it.
            outcome = open_sum(data, self._setting(0), self._seen())
            survivors, total = outcome.survivors, outcome.total
        following = next_state(
            self.state, total, parties.plan, parties.study, survivors, individual
        )
        reply = self._accepted(Kind.SUM, parties.binding(self.state, CONTROL))
        self.state = following
        self._vector, self._session, self._individual = None, None, None
        self._signed = {}
        return reply

    def _prototypes_of(self, survivors: tuple[str, ...]) -> list[Words]:
        if self._individual is None:
            raise UnexpectedFrame(COMBINER, "the sum came before the prototypes")
        names, individual = self._individual
        if names != survivors:
            raise Inconsistent(COMBINER, "the prototypes are not those of the sites in the sum")
        return individual

    def _accept_again(self, data: bytes, frame: Frame) -> bytes:
        """For a sum of a round that is over here: a combiner that was started anew, like a site

        that was, no longer knows that it was accepted. Nothing is read but the signature.
        """
        expect = replace(frame.binding, study_digest=self._parties.digest, phase=SUM)
        told = open_frame(
            data,
            roster={COMBINER: self._parties.combiner},
            expect=expect,
            limits=self._limits(),
        )
        protected = self._parties.study.protection == "secagg"
        expect_sequence(told, SUM_SEQUENCE if protected else _TOLD_PLAIN[frame.kind])
        return self._accepted(frame.kind, replace(expect, attempt=0, phase=CONTROL))

    def _accepted(self, kind: Kind, binding: Binding) -> bytes:
        return self._reply(Kind.ACCEPTED, binding, _ACCEPTED[kind])

    def _seen(self) -> Mapping[int, bytes]:
        """What the site signed in this round, a restart included as far as it answered."""
        marks = self._marks.read()
        answer = marks.answer(self._parties.binding(self.state, SUM)) if marks else None
        return self._signed | ({answer.attempt: answer.transcript} if answer else {})

    def _ready(self) -> Words:
        if self._vector is None:
            raise UnexpectedFrame(COMBINER, "the round has not been started")
        return self._vector
