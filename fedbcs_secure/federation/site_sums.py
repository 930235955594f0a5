"""A site's part in the sum of a round, one class a protection.

Each opens an attempt, answers the frames of its stages, and reads the sum at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fedbcs_protocols import ckks
from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.messages import Announced
from fedbcs_protocols.ckks.messages import sum_limit as encrypted_limit
from fedbcs_protocols.errors import BadTag, Inconsistent, Refused, UnexpectedFrame
from fedbcs_protocols.group import NO_KEY, SiteKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import Words, pack
from fedbcs_protocols.secagg import Guard, MarkKeeper, SiteSession, open_sum
from fedbcs_protocols.secagg.messages import Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.outcome import sum_limit
from fedbcs_protocols.sitesets import set_bytes
from fedbcs_protocols.tags import Tagger
from fedbcs_protocols.wire import Frame, Kind, Limits, expect_sequence, open_frame, seal
from fedbcs_secure.federation import plain
from fedbcs_secure.federation.rounds import SUM, Parties
from fedbcs_secure.federation.scratch import ScratchFile
from fedbcs_secure.federation.state import GlobalState


@dataclass(frozen=True, eq=False)
class Sum:
    """The (N,) uint32 ``total`` over ``survivors``; ``individual`` where the study shows it."""

    survivors: tuple[str, ...]
    total: Words = field(repr=False)
    individual: list[Words] | None = field(default=None, repr=False)


class SiteSum(Protocol):
    """A site's part in the sums of a study under one protection."""

    def limits(self, state: GlobalState) -> Limits:
        """The kinds of frames that it answers, *sum* included, and the longest body of each."""
        ...

    def open(self, state: GlobalState, attempt: int, vector: Words) -> bytes:
        """The first frame of an attempt; what is left of the last one is dropped."""
        ...

    def stage(self, kind: Kind, data: bytes, state: GlobalState, vector: Words) -> bytes:
        """The answer to a frame of a later stage."""
        ...

    def read(self, data: bytes, state: GlobalState) -> Sum:
        """What the combiner's *sum* frame says, after every check there is."""
        ...

    def forget(self) -> None:
        """Drop what was held for the round, which is over."""
        ...


class PlainSum:
    """Without protection: vectors in the clear (RO-5)."""

    def __init__(self, name: str, identity: Identity, parties: Parties) -> None:
        self._name, self._identity, self._parties = name, identity, parties
        self._individual: tuple[tuple[str, ...], list[Words]] | None = None

    def limits(self, state: GlobalState) -> Limits:
        limits = {Kind.SUM: plain.sum_limit(self._parties)}
        if self._parties.shows_prototypes:
            limits[Kind.PLAIN_PROTOTYPES] = plain.prototypes_limit(self._parties)
        return limits

    def open(self, state: GlobalState, attempt: int, vector: Words) -> bytes:
        shape = self._parties.shape
        body = MaskedInput(shape, pack(vector, shape.bits)).encode()
        binding = self._parties.binding(state, SUM, attempt)
        return seal(Frame(Kind.PLAIN_INPUT, binding, self._name, 0, body), self._identity)

    def stage(self, kind: Kind, data: bytes, state: GlobalState, vector: Words) -> bytes:
        raise UnexpectedFrame(COMBINER, f"a {kind.name} frame in a round without protection")

    def take_prototypes(self, data: bytes, state: GlobalState) -> None:
        """Keep every survivor's prototypes for the sum that follows (RO-5.2)."""
        limit = plain.prototypes_limit(self._parties)
        frame = self._receive(data, Kind.PLAIN_PROTOTYPES, state, 0, limit)
        self._individual = plain.decode_prototypes(self._parties, frame.body)

    def read(self, data: bytes, state: GlobalState) -> Sum:
        frame = self._receive(data, Kind.SUM, state, 1, plain.sum_limit(self._parties))
        survivors, total = plain.decode_sum(self._parties, frame.body)
        if not self._parties.shows_prototypes:
            return Sum(survivors, total)
        if self._individual is None:
            raise UnexpectedFrame(COMBINER, "the sum came before the prototypes")
        names, individual = self._individual
        if names != survivors:
            raise Inconsistent(COMBINER, "the prototypes are not those of the sites in the sum")
        return Sum(survivors, total, individual)

    def forget(self) -> None:
        self._individual = None

    def _receive(
        self, data: bytes, kind: Kind, state: GlobalState, sequence: int, limit: int
    ) -> Frame:
        frame = open_frame(
            data,
            roster={COMBINER: self._parties.combiner},
            expect=self._parties.binding(state, SUM),
            limits={kind: limit},
        )
        expect_sequence(frame, sequence)
        return frame


class SecaggSum:
    """Masked vectors (SA); with ``keys`` the sums are verified (VS)."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        parties: Parties,
        guard: Guard,
        marks: MarkKeeper,
        keys: SiteKeys | None,
    ) -> None:
        self._name, self._identity, self._parties = name, identity, parties
        self._guard, self._marks, self._keys = guard, marks, keys
        self._session: SiteSession | None = None
        self._key_id = NO_KEY
        self._signed: dict[int, bytes] = {}
        """Attempt to transcript, for what this process signed in this round."""
        self.reused = 0

    def limits(self, state: GlobalState) -> Limits:
        terms = self._parties.terms
        return {
            Kind.SUM: sum_limit(self._parties.setting(state, 0)),
            Kind.KEY_LIST: KeyList.limit(terms.graph, terms.sites),
            Kind.DELIVERY: Delivery.limit(terms.sites),
            Kind.SURVIVORS: set_bytes(terms.sites),
            Kind.CERTIFICATE: Certificate.limit(terms.sites),
        }

    def open(self, state: GlobalState, attempt: int, vector: Words) -> bytes:
        self._key_id = self._keys.usable(state.round).key_id if self._keys else NO_KEY
        if self._keys:
            self._keys.end_stage()
        session = SiteSession(
            self._parties.setting(state, attempt, self._key_id),
            identity=self._identity,
            name=self._name,
            guard=self._guard,
            marks=self._marks,
        )
        reply = session.advertise()
        self.reused += session.reused > 0
        # With the old session its secrets go: an attempt that was left is never answered again.
        self._session = session
        return reply

    def stage(self, kind: Kind, data: bytes, state: GlobalState, vector: Words) -> bytes:
        session = self._session
        if session is None:
            raise UnexpectedFrame(COMBINER, "a stage of a sum that was not opened here")
        match kind:
            case Kind.KEY_LIST:
                return session.share(data)
            case Kind.DELIVERY:
                tagged = self._tagged(vector, state, session.binding.attempt)
                return session.masked_input(data, tagged)
            case Kind.SURVIVORS:
                reply = session.consistency(data)
                if session.transcript is not None:
                    self._signed[session.binding.attempt] = session.transcript
                return reply
            case _:
                return session.unmask(data)

    def read(self, data: bytes, state: GlobalState) -> Sum:
        # RO-2.7: no sum without the signatures of enough sites on who is in it.
        outcome = open_sum(data, self._parties.setting(state, 0), self._seen(state))
        if self._keys is None:
            return Sum(outcome.survivors, outcome.total)
        # GK-6.3
        self._keys.ring.check_refusals()
        tagger = self._tagger(state, outcome.attempt, outcome.key_id)
        try:
            # VS-3.2
            total = tagger.opened(outcome.total, self._parties.plan.length, outcome.survivors)
        except BadTag:
            # GK-6.2
            self._keys.burn(outcome.key_id)
            raise
        return Sum(outcome.survivors, total)

    def forget(self) -> None:
        self._session, self._signed = None, {}

    def _tagged(self, vector: Words, state: GlobalState, attempt: int) -> Words:
        if self._keys is None:
            return vector
        return self._tagger(state, attempt, self._key_id).tagged(vector, self._name)

    def _tagger(self, state: GlobalState, attempt: int, key_id: bytes) -> Tagger:
        secret = self._keys.ring.find(key_id) if self._keys else None
        if secret is None:
            raise Refused("this site does not have the key of this sum's tags, or has given it up")
        binding = self._parties.binding(state, SUM, attempt)
        return Tagger(secret.secret, secret.epoch, binding, self._parties.study.codec.bits)

    def _seen(self, state: GlobalState) -> Mapping[int, bytes]:
        """What the site signed in this round, a restart included as far as it answered."""
        marks = self._marks.read()
        answer = marks.answer(self._parties.binding(state, SUM)) if marks else None
        return self._signed | ({answer.attempt: answer.transcript} if answer else {})


class CkksSum:
    """Ciphertexts under secrets that come from the group's (CK)."""

    def __init__(
        self, name: str, identity: Identity, parties: Parties, guard: Guard, keys: SiteKeys
    ) -> None:
        self._name, self._identity, self._parties = name, identity, parties
        self._guard, self._keys = guard, keys
        self._scratch = ScratchFile()
        # CK-3.5: before anything is written down or sent.
        ckks.check_build(self._scratch)
        self._session: ckks.CkksSession | None = None
        self._signed: dict[int, bytes] = {}

    def limits(self, state: GlobalState) -> Limits:
        return {
            Kind.SUM: encrypted_limit(self._parties.encrypted(state, 0, NO_KEY)),
            Kind.AGGREGATE: Announced.limit(len(self._parties.roster)),
        }

    def open(self, state: GlobalState, attempt: int, vector: Words) -> bytes:
        key_id = self._keys.usable(state.round).key_id
        self._keys.end_stage()
        session = ckks.CkksSession(
            self._parties.encrypted(state, attempt, key_id),
            identity=self._identity,
            name=self._name,
            guard=self._guard,
            keys=self._keys,
            scratch=self._scratch,
        )
        reply = session.encrypt(vector)
        self._session = session
        return reply

    def stage(self, kind: Kind, data: bytes, state: GlobalState, vector: Words) -> bytes:
        session = self._session
        if session is None:
            raise UnexpectedFrame(COMBINER, "a stage of a sum that was not opened here")
        reply = session.agree(data)
        if session.transcript is not None:
            self._signed[session.binding.attempt] = session.transcript
        return reply

    def read(self, data: bytes, state: GlobalState) -> Sum:
        outcome = ckks.open_sum(
            data,
            self._parties.encrypted(state, 0, NO_KEY),
            seen=self._signed,
            keys=self._keys,
            scratch=self._scratch,
        )
        return Sum(outcome.survivors, outcome.total)

    def forget(self) -> None:
        self._session, self._signed = None, {}
