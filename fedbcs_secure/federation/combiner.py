"""The combiner's side of the rounds: passes frames on and adds up (RO-…: specs/round.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import Inconsistent, PeerError
from fedbcs_protocols.group import NO_KEY
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import Accumulator, Words, unpack
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation import plain
from fedbcs_secure.federation.attempts import Opening, ProtectedSum
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.combine import next_state
from fedbcs_secure.federation.encrypted import EncryptedSum, named_state, summed, told_of
from fedbcs_secure.federation.journal import Journals, NoJournals
from fedbcs_secure.federation.keystage import KeyStages
from fedbcs_secure.federation.missed import MissedSums, SumShelf, Told
from fedbcs_secure.federation.readies import KeptReadies, ReadyFile
from fedbcs_secure.federation.rounds import CONTROL, SUM, AnyState, Parties
from fedbcs_secure.federation.state import GlobalState


@dataclass(frozen=True, eq=False)
class RoundResult:
    """The next state, the sites in the sum, and the attempts it took (at least 1).

    Under ``ckks`` the state is a name only: the combiner cannot read the sum. ``faults`` names
    the sites whose frames were refused, and why: for the server's own eyes.
    """

    state: AnyState
    survivors: tuple[str, ...]
    attempts: int
    faults: Mapping[str, PeerError]


class RoundCombiner:
    """The combiner's side: passes frames on and adds up. Never holds more of them than the
    running sum, and the sums that somebody still has to be told.

    Under ``prototypes = "finch"`` it also holds each site's prototypes, which that mode shows.
    With ``journals`` and a ``shelf`` on disk, a new process goes on where the last one stopped: in
    the middle of a round, and with what absent sites still have to be told. With ``readies`` on
    disk it knows how far each site's ledger was (RO-7).
    """

    def __init__(
        self,
        identity: Identity,
        parties: Parties,
        journals: Journals | None = None,
        shelf: SumShelf | None = None,
        readies: ReadyFile | None = None,
    ) -> None:
        self._identity = identity
        self._parties = parties
        self._journals = NoJournals() if journals is None else journals
        hold = parties.study.protection == "ckks"
        self._missed = MissedSums(dict(parties.roster), shelf, hold=hold)
        self._readies = KeptReadies(parties, readies)
        self._faults: dict[str, PeerError] = {}

    def run(self, channel: Channel, state: AnyState) -> RoundResult:
        """One whole round over ``channel``, to the state that every site in it reaches as well.

        Raises :class:`RoundError` when too few sites are left, or what they came to differs.
        """
        self._faults = {}
        self._catch_up(channel, state)
        if self._parties.study.protection == "ckks":
            return self._encrypted_round(channel, state)
        if not isinstance(state, GlobalState):
            raise TypeError("only an encrypted sum goes on from a state that is not known")
        return self._open_round(channel, state)

    def _catch_up(self, channel: Channel, state: AnyState) -> None:
        """Tell sites what they missed (RO-2.8), where they lack keys with those first (GK-4)."""
        grouped, everybody = self._parties.study.group_key, len(self._parties.roster)
        if not grouped or not self._missed.current:
            # A new process, or a sum that nobody heard: first whoever has the keys.
            self._faults |= self._missed.tell(channel)
        if grouped and 0 < len(self._missed.current) < everybody:
            control = self._parties.binding(state, CONTROL)
            self._key_stages(channel).admit(self._missed, control)
            self._faults |= self._missed.tell(channel)

    def _encrypted_round(self, channel: Channel, state: AnyState) -> RoundResult:
        parties, missed = self._parties, self._missed
        before = missed.last(parties.binding(state, CONTROL))
        if before is not None and missed.came_to:
            # RO-2.11: the sum was told before, and only now enough may have said what it led to.
            survivors, attempt = summed(before, parties, state)
            following = named_state(state, missed, parties)
            return RoundResult(following, survivors, attempt + 1, self._faults)
        if before is not None:
            missed.withdraw(before)
        encrypted = EncryptedSum(self._identity, parties, channel, self._faults)
        try:
            session, attempts = encrypted.run(state, lambda: self._opened(channel, state, None))
        except RoundError:
            if before is not None:
                # It may be that sites took it and were not heard.
                missed.add([before])
            raise
        missed.add([told_of(session, parties, state)])
        self._faults |= missed.tell(channel)
        following = named_state(state, missed, parties)
        return RoundResult(following, session.survivors, attempts, self._faults)

    def _open_round(self, channel: Channel, state: GlobalState) -> RoundResult:
        parties = self._parties
        individual: list[Words] | None = None
        if parties.study.protection == "none":
            attempts = 1
            survivors, total, individual = self._plain_sum(channel, state)
            self._missed.add(self._plain_frames(state, survivors, total, individual))
        else:
            protected = ProtectedSum(self._identity, parties, self._journals, channel, self._faults)
            session, attempts = protected.run(
                state, lambda attempt: self._opened(channel, state, attempt)[1]
            )
            survivors, total = session.survivors, session.total()[: parties.plan.length]
            self._missed.add([Told(session.sum_frame(), parties.binding(state, CONTROL), 2)])
        following = next_state(state, total, parties.plan, parties.study, survivors, individual)
        self._faults |= self._missed.tell(channel)
        for site, digest in self._missed.came_to.items():
            if digest != following.digest:
                self._faults[site] = Inconsistent(site, "it came to another state")
        return RoundResult(following, survivors, attempts, self._faults)

    def finished(self, state: AnyState) -> None:
        """Drop what is held of the round that began with ``state``: what followed is kept."""
        self._journals.forget(self._parties.binding(state, SUM))
        self._missed.settled()

    def _opened(
        self, channel: Channel, state: AnyState, attempt: int | None
    ) -> tuple[int, Opening]:
        """Let all sites that are up to date train, and ask those that did for their part.

        The sites say which attempt it is where ``attempt`` is None.
        """
        control = self._parties.binding(state, CONTROL)
        # RO-7.4
        starts = {
            name: self._seal(Kind.START, control, 0, self._readies.last(name))
            for name in self._parties.roster
            if name in self._missed.current
        }
        if self._parties.study.group_key:
            stages = self._key_stages(channel)
            keyed = stages.run(control, starts, self._readies)
            stages.restore(self._missed, control, keyed)
            ready, key_id = keyed.sites, keyed.key_id
            attempt = keyed.attempt if attempt is None else attempt
        else:
            ready, key_id = self._ready(channel, state, starts), NO_KEY
        attempt = attempt or 0
        frame = self._seal(Kind.OPEN, self._parties.binding(state, CONTROL, attempt), 1)
        return attempt, Opening(dict.fromkeys(sorted(ready), frame), key_id)

    def _ready(
        self, channel: Channel, state: AnyState, starts: Mapping[str, bytes]
    ) -> frozenset[str]:
        parties, ready = self._parties, set()
        binding = parties.binding(state, CONTROL)
        for site, reply in channel.exchange(starts):
            frame = self._take(site, reply, Kind.READY, binding, 0, parties.ready_bytes)
            if frame is None:
                continue
            try:
                self._readies.take(site, reply, frame.body)
            except PeerError as error:
                self._faults[site] = error
                continue
            ready.add(site)
        self._readies.keep()
        self._require(ready, state, "are ready")
        return frozenset(ready)

    def _key_stages(self, channel: Channel) -> KeyStages:
        return KeyStages(self._identity, self._parties, channel, self._faults)

    def _require(self, sites: Collection[str], state: AnyState, what: str) -> None:
        # RO-2.3: too few for a sum, so no key is made.
        if len(sites) < self._parties.threshold:
            raise RoundError(
                f"round {state.round + 1}: {len(sites)} of {len(self._parties.roster)} sites "
                f"{what}, the threshold is {self._parties.threshold}"
            )

    def _plain_sum(
        self, channel: Channel, state: GlobalState
    ) -> tuple[tuple[str, ...], Words, list[Words] | None]:
        parties, shape = self._parties, self._parties.shape
        accumulator = Accumulator(shape.count, shape.bits)
        shown: dict[str, Words] = {}
        came: set[str] = set()
        binding = parties.binding(state, SUM)
        for site, reply in channel.exchange(self._opened(channel, state, 0)[1].requests):
            frame = self._take(site, reply, Kind.PLAIN_INPUT, binding, 0, shape.body_bytes)
            if frame is None or site in came:
                continue
            try:
                message = MaskedInput.decode(frame.body, sender=site, shape=shape)
            except PeerError as error:
                self._faults[site] = error
                continue
            came.add(site)
            accumulator.add(message.packed)
            if parties.shows_prototypes:
                values = unpack(message.packed, shape.count, shape.bits)
                shown[site] = values[parties.plan.parameters :].copy()
        self._require(came, state, "sent their update")
        survivors = tuple(name for name in parties.roster if name in came)
        individual = [shown[name] for name in survivors] if shown else None
        return survivors, accumulator.total(), individual

    def _plain_frames(
        self,
        state: GlobalState,
        survivors: Sequence[str],
        total: Words,
        individual: Sequence[Words] | None,
    ) -> list[Told]:
        parties = self._parties
        control, binding = parties.binding(state, CONTROL), parties.binding(state, SUM)
        told = []
        if individual is not None:
            body = plain.encode_prototypes(parties, survivors, individual)
            told.append(Told(self._seal(Kind.PLAIN_PROTOTYPES, binding, 0, body), control, 1))
        body = plain.encode_sum(parties, survivors, total)
        return [*told, Told(self._seal(Kind.SUM, binding, 1, body), control, 2)]

    def _take(
        self, site: str, data: bytes, kind: Kind, binding: Binding, sequence: int, limit: int
    ) -> Frame | None:
        """The frame that came on the site's line; None, and a fault, when it is another's or wrong.

        RO-2.5: on a site's line only that site speaks.
        """
        try:
            frame = open_frame(
                data,
                roster={site: self._parties.roster[site]},
                expect=binding,
                limits={kind: limit},
            )
            expect_sequence(frame, sequence)
        except PeerError as error:
            self._faults[site] = error
            return None
        return frame

    def _seal(self, kind: Kind, binding: Binding, sequence: int, body: bytes = b"") -> bytes:
        return seal(Frame(kind, binding, COMBINER, sequence, body), self._identity)
