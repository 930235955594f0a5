"""The combiner's part in the group's key, over a channel (GK-3, GK-4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from fedbcs_protocols.binding import COMBINER, DIGEST_BYTES, Binding
from fedbcs_protocols.errors import PeerError, TooFewSites
from fedbcs_protocols.group import Admission, KeyStage
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import (
    MAX_BODY_BYTES,
    Frame,
    Kind,
    expect_sequence,
    open_frame,
    seal,
)
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.checkpoint import (
    CHECKPOINT_SEQUENCE,
    RESTORE_SEQUENCE,
    SEALED_SEQUENCE,
    Checkpoint,
)
from fedbcs_secure.federation.missed import MissedSums
from fedbcs_secure.federation.readies import KeptReadies
from fedbcs_secure.federation.rounds import Parties


@dataclass(frozen=True)
class Keyed:
    """The sites that can take part in a sum, the name of their key, and the first attempt.

    ``ready`` said that they are at the state; ``present`` is the list of their frames.
    """

    sites: frozenset[str]
    ready: frozenset[str]
    key_id: bytes
    attempt: int
    present: bytes


@dataclass(frozen=True, eq=False)
class KeyStages:
    """Runs key stages over ``channel``; ``faults`` collects refused frames."""

    identity: Identity
    parties: Parties
    channel: Channel
    faults: dict[str, PeerError]

    def run(self, control: Binding, starts: Mapping[str, bytes], readies: KeptReadies) -> Keyed:
        """Let sites say that they are ready, and see to it that they share a key.

        ``starts``: each one's *start* frame. Raises :class:`RoundError` when too few of them do.
        """
        stage = KeyStage(self.parties.group, identity=self.identity, control=control)
        for site, reply in self.channel.exchange(starts):
            with self._faults_of(site):
                head = stage.ready(site, reply)
                try:
                    readies.take(site, reply, head)
                except PeerError:
                    stage.without(site)
                    raise
        readies.keep()
        ready = frozenset(stage.sites)
        declined: list[str] = []
        try:
            if self._deal(stage, declined):
                request = stage.dealt_frame()
                for site, reply in self.channel.exchange(dict.fromkeys(stage.waiting, request)):
                    with self._faults_of(site):
                        stage.taken(site, reply)
        except TooFewSites as error:
            raise self._failed(control, str(error), declined) from None
        if len(stage.holders) < self.parties.threshold:
            declined += stage.waiting
            why = (
                f"{len(stage.holders)} of {len(self.parties.roster)} sites have the group's key, "
                f"the threshold is {self.parties.threshold}"
            )
            raise self._failed(control, why, declined)
        return Keyed(stage.holders, ready, stage.key_id, stage.attempt, stage.present)

    def _failed(self, control: Binding, why: str, declined: list[str]) -> RoundError:
        """What a person at the server can do about it (RO-7.5)."""
        if declined:
            names = ", ".join(sorted(declined))
            why += (
                f". {names} declined the sites that are ready, or did not answer: ask there. One "
                "site whose ledger's number fell is declined by all that saw it"
            )
        return RoundError(f"round {control.round + 1}: {why}")

    def _deal(self, stage: KeyStage, declined: list[str]) -> bool:
        """Whether a key was dealt; a site that should deal and does not is passed over (GK-7.5).

        Those are added to ``declined``.
        """
        while (dealer := stage.dealer) is not None:
            reply = self._ask(dealer, stage.present_frame())
            if reply is not None:
                with self._faults_of(dealer):
                    stage.dealt(reply)
                    return True
            stage.without(dealer)
            declined.append(dealer)
        return False

    def admit(self, missed: MissedSums, control: Binding) -> None:
        """Give sites that were away the keys of what they missed (GK-4)."""
        for site in self.parties.roster:
            told = missed.lacks(site)
            if told is None:
                continue
            self._admit(site, told.binding, control, missed.current)

    def restore(self, missed: MissedSums, control: Binding, keyed: Keyed) -> None:
        """Bring sites that lost their state, or missed too much, to the current one (RO-6).

        A site that was told everything, or does not take what it is told, and still is not ready
        may have lost what it had. One that is ready and took no key is given that only.
        """
        wanting = [s for s in self.parties.roster if s not in keyed.sites]
        given = [s for s in wanting if self._admit(s, control, control, keyed.sites)]
        back = [s for s in given if s not in keyed.ready]
        if not back:
            return
        checkpoint = self._checkpoint(control, keyed)
        if checkpoint is None:
            return
        frame = Frame(Kind.RESTORE, control, COMBINER, RESTORE_SEQUENCE, checkpoint.encode())
        request = seal(frame, self.identity)
        for site, reply in self.channel.exchange(dict.fromkeys(back, request)):
            with self._faults_of(site):
                self._open(site, reply, Kind.ACCEPTED, control, RESTORE_SEQUENCE, DIGEST_BYTES)
                missed.restored(site)

    def _checkpoint(self, control: Binding, keyed: Keyed) -> Checkpoint | None:
        """The sealed state of the first site that gives it."""
        frame = Frame(Kind.CHECKPOINT, control, COMBINER, CHECKPOINT_SEQUENCE, b"")
        for site in self._in_turn(keyed.sites, control):
            sealed = self._ask(site, seal(frame, self.identity))
            if sealed is None:
                continue
            with self._faults_of(site):
                limit = MAX_BODY_BYTES
                self._open(site, sealed, Kind.SEALED_STATE, control, SEALED_SEQUENCE, limit)
                return Checkpoint(keyed.present, sealed)
        return None

    def _admit(self, site: str, away: Binding, control: Binding, helpers: frozenset[str]) -> bool:
        """Whether a site that was away took keys from another one."""
        admission = Admission(
            self.parties.group, identity=self.identity, site=site, away=away, control=control
        )
        joining = self._ask(site, admission.join_frame())
        if joining is None:
            return False
        with self._faults_of(site):
            request = admission.help_frame(joining)
            for helper in self._in_turn(helpers, control):
                helped, keys = self._ask(helper, request), None
                if helped is not None:
                    with self._faults_of(helper):
                        keys = admission.admitted_frame(helper, helped)
                if keys is None:
                    continue
                taken = self._ask(site, keys)
                if taken is not None:
                    admission.admitted(taken)
                    return True
        return False

    def _in_turn(self, sites: frozenset[str], control: Binding) -> list[str]:
        """In the order of the roster, beginning with another one each round: a site that gives

        something that does not help must not keep others away for ever.
        """
        names = [s for s in self.parties.roster if s in sites]
        start = control.round % max(len(names), 1)
        return [*names[start:], *names[:start]]

    def _open(
        self, site: str, data: bytes, kind: Kind, binding: Binding, sequence: int, limit: int
    ) -> Frame:
        roster = {site: self.parties.roster[site]}
        frame = open_frame(data, roster=roster, expect=binding, limits={kind: limit})
        expect_sequence(frame, sequence)
        return frame

    def _ask(self, site: str, request: bytes) -> bytes | None:
        return next((r for s, r in self.channel.exchange({site: request}) if s == site), None)

    @contextmanager
    def _faults_of(self, site: str) -> Iterator[None]:
        """A frame that is refused is its site's fault, and the round goes on without it."""
        try:
            yield
        except PeerError as error:
            self.faults[site] = error
