"""A site's side of the rounds: takes the combiner's frames, gives its own (specs/round.md)."""

from __future__ import annotations

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import UnexpectedFrame
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast
from fedbcs_protocols.ring import Words, pack, unpack
from fedbcs_protocols.secagg import SiteSession
from fedbcs_protocols.wire import Frame, Kind, Limits, decode, expect_sequence, open_frame, seal
from fedbcs_secure.federation.combine import next_state
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import CONTROL, SUM, Parties, Train
from fedbcs_secure.federation.state import GlobalState


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
        here and now, and the toolkit's own errors when training fails. Their texts are this site's
        business: a channel between institutions must answer any of them with "declined" alone.
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
