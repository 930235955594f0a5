"""A site's side of the rounds: takes the combiner's frames, gives its own (specs/round.md)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fedbcs_protocols import ckks
from fedbcs_protocols.binding import COMBINER, DIGEST_BYTES, Binding
from fedbcs_protocols.ckks.messages import SUM_SEQUENCE as ENCRYPTED_SUM_SEQUENCE
from fedbcs_protocols.errors import LocalError, Refused, UnexpectedFrame
from fedbcs_protocols.group import KeyKeeper, SiteKeys
from fedbcs_protocols.group.messages import admitted_limit, ready_limit
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Words
from fedbcs_protocols.secagg import Guard, MarkKeeper
from fedbcs_protocols.secagg.outcome import SUM_SEQUENCE
from fedbcs_protocols.wire import Frame, Kind, Limits, decode, expect_sequence, open_frame, seal
from fedbcs_secure.federation.booking import Books, check_events
from fedbcs_secure.federation.checkpoint import (
    CHECKPOINT_SEQUENCE,
    RESTORE_SEQUENCE,
    SEALED_SEQUENCE,
    Checkpoint,
    seal_state,
)
from fedbcs_secure.federation.combine import next_state
from fedbcs_secure.federation.heads import SeenHeads, encode_head
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.readies import check_own
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import CONTROL, SUM, Parties, Train
from fedbcs_secure.federation.site_sums import CkksSum, PlainSum, SecaggSum, SiteSum
from fedbcs_secure.federation.state import GlobalState

_ACCEPTED = {Kind.PLAIN_PROTOTYPES: 1, Kind.SUM: 2}
_TOLD_PLAIN = {Kind.PLAIN_PROTOTYPES: 0, Kind.SUM: 1}
"""What a site says *accepted* to, and the sequence of that."""
_NOT_SAID = bytes(DIGEST_BYTES)


class SiteRunner:
    """A site's side: takes the combiner's frames, gives its own. Holds the site's global state.

    ``guard`` is what the site's own staff demands; ``marks`` and ``keys`` keep what the site must
    never forget, durably (and the keys encrypted) outside simulations; ``books`` are the site's
    ledger, which a study with differential privacy cannot do without. Raises
    :class:`fedbcs_protocols.errors.Refused` when the guard does not admit the study.
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
        keys: KeyKeeper,
        books: Books | None = None,
    ) -> None:
        _admit(guard, parties, name)
        if parties.study.privacy is not None and books is None:
            raise Refused("a study with [privacy] needs this site's ledger, and there is none")
        if books is not None:
            books.admit(parties.study)
        self._books = books
        self.name = name
        self.state = state
        self.clipped = 0
        """Values of the last vector that were out of range; for this site's eyes only."""
        self._identity = identity
        self._parties = parties
        self._train = train
        self._keys: SiteKeys | None = None
        if parties.study.group_key:
            self._keys = SiteKeys(
                parties.group,
                identity=identity,
                name=name,
                study_digest=parties.digest,
                keeper=keys,
                # RO-7.3
                check_annexes=SeenHeads().take if parties.head_bytes else None,
            )
        self._sum = self._protection(guard, marks)
        self._vector: Words | None = None
        self._head: bytes | None = None
        """What this round's *ready* shows of the ledger."""
        self._last: tuple[bytes, bytes] | None = None
        """Digest of the last request that was answered, and the answer."""

    @property
    def reused(self) -> int:
        """Answers that this site has given again for a state; for its staff to look into."""
        return self._sum.reused if isinstance(self._sum, SecaggSum) else 0

    @property
    def refusals(self) -> int:
        """Sums that this site has refused since a person last looked (GK-6.3)."""
        return self._keys.ring.refusals if self._keys else 0

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
            case Kind.PRESENT | Kind.DEALT | Kind.JOIN | Kind.HELP | Kind.ADMITTED:
                return self._key_stage(frame, data)
            case Kind.CHECKPOINT:
                return self._seal_state(data)
            case Kind.RESTORE:
                return self._restore(data)
            case _:
                return self._sum.stage(frame.kind, data, self.state, self._ready())

    def _limits(self) -> Limits:
        """What may come at all; sessions and stages narrow it down."""
        parties = self._parties
        limits = {Kind.START: parties.start_limit, Kind.OPEN: 0, **self._sum.limits(self.state)}
        if self._keys is not None:
            sites = len(parties.roster)
            limits |= {
                Kind.PRESENT: parties.group.present_limit,
                Kind.DEALT: parties.group.dealt_limit,
                Kind.JOIN: 0,
                Kind.HELP: ready_limit(sites),
                Kind.ADMITTED: admitted_limit(sites),
                Kind.CHECKPOINT: 0,
                Kind.RESTORE: Checkpoint.limit(sites, self.state, parties.head_bytes),
            }
        return limits

    def _protection(self, guard: Guard, marks: MarkKeeper) -> SiteSum:
        parties, keys = self._parties, self._keys
        match parties.study.protection:
            case "none":
                return PlainSum(self.name, self._identity, parties)
            case "ckks" if keys is not None:
                return CkksSum(self.name, self._identity, parties, guard, keys)
            case _:
                return SecaggSum(self.name, self._identity, parties, guard, marks, keys)

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

    def _start(self, data: bytes) -> bytes:
        parties = self._parties
        frame = self._receive(data, Kind.START, CONTROL, 0, parties.start_limit)
        # RO-2.6
        if self.state.round >= parties.study.rounds:
            raise UnexpectedFrame(COMBINER, "the study's rounds are over")
        # RO-7.4: before anything is trained or booked behind an older ledger.
        if self._books is not None and frame.body:
            check_own(frame.body, self.name, parties, self._books.ledger)
        # RO-2.1: asked again, it says that it is ready, but does not train again.
        if self._vector is None:
            # DP-5.4: booked, durably, before anything of it leaves the site.
            if self._books is not None and parties.study.privacy is not None:
                self._vector = self._books.release(parties, self.state, self._trained)
            else:
                self._vector = self._trained()
        # RO-7.1: the release of this round is in it, and what comes later is not.
        if self._head is None:
            self._head = self._show_head()
        control = parties.binding(self.state, CONTROL)
        if self._keys is not None:
            return self._keys.ready(control, self._head)
        return seal(Frame(Kind.READY, control, self.name, 0, self._head), self._identity)

    def _show_head(self) -> bytes:
        if self._books is None:
            return b""
        return encode_head(self._books.ledger.show_head(self._parties.digest))

    def _forget_round(self) -> None:
        self._vector = self._head = None
        self._sum.forget()

    def _trained(self) -> Words:
        """This round's vector. Under differential privacy the noise is in it already."""
        parties = self._parties
        result = self._train(self.name, self.state)
        if parties.study.privacy is not None:
            check_events(parties.study, self.state.round, result)
        update = form_update(result, self.state, parties.plan, self.name)
        quantised = encode(update, self.state, parties.plan, parties.study, self.name)
        self.clipped = quantised.clipped
        return quantised.codes

    def _key_stage(self, frame: Frame, data: bytes) -> bytes:
        """What has to do with the group's key (GK-3, GK-4)."""
        if self._keys is None:
            raise LocalError("this study has no key of the group's")
        if frame.kind in (Kind.JOIN, Kind.ADMITTED) and frame.binding.round < self.state.round:
            raise Refused("this site was not away: it is past that round")
        control = self._parties.binding(self.state, CONTROL)
        match frame.kind:
            case Kind.PRESENT:
                return self._keys.deal(data, control)
            case Kind.DEALT:
                return self._keys.take(data, control)
            case Kind.JOIN:
                return self._keys.join(data)
            case Kind.HELP:
                return self._keys.help(data, control)
            case _:
                return self._keys.admit(data)

    def _seal_state(self, data: bytes) -> bytes:
        """RO-6.2: this site's state, for one that lost its own; the combiner cannot read it."""
        if self._keys is None:
            raise LocalError("this study has no key of the group's")
        self._receive(data, Kind.CHECKPOINT, CONTROL, CHECKPOINT_SEQUENCE)
        control = self._parties.binding(self.state, CONTROL)
        # GK-5.1
        self._keys.usable(self.state.round)
        body = seal_state(self.state, self._keys.ring, control, self.name)
        frame = Frame(Kind.SEALED_STATE, control, self.name, SEALED_SEQUENCE, body)
        return seal(frame, self._identity)

    def _restore(self, data: bytes) -> bytes:
        """RO-6.4: go on from the state that the others are at."""
        if self._keys is None:
            raise LocalError("this study has no key of the group's")
        parties, sites = self._parties, len(self._parties.roster)
        limits = {Kind.RESTORE: Checkpoint.limit(sites, self.state, parties.head_bytes)}
        # Which state it is, the combiner says; the sites' signatures confirm it.
        control = replace(
            decode(data, limits).binding, study_digest=parties.digest, attempt=0, phase=CONTROL
        )
        frame = open_frame(data, roster={COMBINER: parties.combiner}, expect=control, limits=limits)
        expect_sequence(frame, RESTORE_SEQUENCE)
        checkpoint = Checkpoint.decode(frame.body, sites=sites, annex_bytes=parties.head_bytes)
        self.state = checkpoint.open(parties.group, self._keys.ring, control, self.state)
        self._forget_round()
        restored = Frame(Kind.ACCEPTED, control, self.name, RESTORE_SEQUENCE, self.state.digest)
        return seal(restored, self._identity)

    def _open(self, data: bytes) -> bytes:
        # RO-2.2: which attempt it is, the combiner says; what the site keeps sees to it that it
        # only rises.
        attempt = decode(data, {Kind.OPEN: 0}).binding.attempt
        self._receive(data, Kind.OPEN, CONTROL, 1, attempt=attempt)
        return self._sum.open(self.state, attempt, self._ready())

    def _take_prototypes(self, data: bytes) -> bytes:
        if not isinstance(self._sum, PlainSum):
            raise LocalError("this study shows no prototypes")
        self._sum.take_prototypes(data, self.state)
        control = self._parties.binding(self.state, CONTROL)
        return self._accepted(Kind.PLAIN_PROTOTYPES, control, _NOT_SAID)

    def _finish(self, data: bytes) -> bytes:
        parties = self._parties
        told = self._sum.read(data, self.state)
        following = next_state(
            self.state, told.total, parties.plan, parties.study, told.survivors, told.individual
        )
        control = parties.binding(self.state, CONTROL)
        reply = self._accepted(Kind.SUM, control, following.digest)
        self.state = following
        self._forget_round()
        if self._books is not None:
            self._books.finished(parties.study, following.round)
        return reply

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
        sequences = {"secagg": SUM_SEQUENCE, "ckks": ENCRYPTED_SUM_SEQUENCE}
        protection = self._parties.study.protection
        expect_sequence(told, sequences.get(protection, _TOLD_PLAIN[frame.kind]))
        last = frame.kind is Kind.SUM and frame.binding.round + 1 == self.state.round
        control = replace(expect, attempt=0, phase=CONTROL)
        return self._accepted(frame.kind, control, self.state.digest if last else _NOT_SAID)

    def _accepted(self, kind: Kind, binding: Binding, digest: bytes) -> bytes:
        """RO-2.11, CK-5.8: the state that the site came to, by its digest and nothing else."""
        frame = Frame(Kind.ACCEPTED, binding, self.name, _ACCEPTED[kind], digest)
        return seal(frame, self._identity)

    def _ready(self) -> Words:
        if self._vector is None:
            raise UnexpectedFrame(COMBINER, "the round has not been started")
        return self._vector


def _admit(guard: Guard, parties: Parties, name: str) -> None:
    """Raise :class:`Refused` before the site trains for nothing (SA-0.5, SA-0.7, CK-0.3)."""
    if parties.study.protection == "none":
        return
    guard.admit(parties.terms, parties.roster, name)
    for slot in parties.plan.slots:
        if name in slot.holders:
            guard.admit_part(slot.holders, parties.terms, parties.roster, name)
    if parties.study.protection == "ckks":
        ckks.admit(guard, parties.terms, parties.roster, name)
