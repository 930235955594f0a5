"""The encrypted sum of a round, over a channel: the combiner's part (CK)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks import CkksCombiner, CombinerState
from fedbcs_protocols.ckks.messages import decode_sum, sum_limit
from fedbcs_protocols.errors import PeerError, TooFewSites
from fedbcs_protocols.group import NO_KEY
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.attempts import MAX_ATTEMPTS, Opening
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.missed import MissedSums, Told
from fedbcs_secure.federation.rounds import CONTROL, AnyState, Parties, StateName


@dataclass(frozen=True, eq=False)
class EncryptedSum:
    """Runs sessions over ``channel`` until one has a sum; ``faults`` collects refused frames."""

    identity: Identity
    parties: Parties
    channel: Channel
    faults: dict[str, PeerError]

    def run(
        self, state: AnyState, opening: Callable[[], tuple[int, Opening]]
    ) -> tuple[CkksCombiner, int]:
        """The finished session and the number of attempts. Raises :class:`RoundError`.

        ``opening`` gives the number of the next attempt as well, which the sites decide.
        """
        for tries in range(1, MAX_ATTEMPTS + 1):
            attempt, opened = opening()
            setting = self.parties.encrypted(state, attempt, opened.key_id)
            session = CkksCombiner(setting, identity=self.identity)
            if self._carry(session, opened):
                return session, tries
        raise RoundError(
            f"round {state.round + 1} came to no sum in {MAX_ATTEMPTS} attempts: each time fewer "
            f"than {self.parties.threshold} of {len(self.parties.roster)} sites stayed. Nothing "
            "was decrypted, and it can be tried again"
        )

    def _carry(self, session: CkksCombiner, opened: Opening) -> bool:
        while session.state is not CombinerState.COMPLETE:
            uploading = session.state is CombinerState.ENCRYPTED
            requests = opened.requests if uploading else session.requests
            asked = {site: requests[site] for site in session.expected if site in requests}
            for site, reply in self.channel.exchange(asked):
                try:
                    session.receive(reply, line=site)
                except PeerError as error:
                    self.faults[site] = error
            try:
                session.close()
            except TooFewSites:
                return False
        return True


def told_of(session: CkksCombiner, parties: Parties, state: AnyState) -> Told:
    """The frame that every site is to be told."""
    return Told(session.sum_frame(), parties.binding(state, CONTROL), 2)


def summed(told: Told, parties: Parties, state: AnyState) -> tuple[tuple[str, ...], int]:
    """The sites in a sum that was told before, and its attempt, from 0."""
    setting = parties.encrypted(state, 0, NO_KEY)
    frame = decode(told.frame, {Kind.SUM: sum_limit(setting)})
    agreement, _ = decode_sum(frame.body, sender=COMBINER, setting=setting)
    members = sorted(agreement.announced.members)
    return tuple(setting.names[place] for place in members), frame.binding.attempt


def named_state(state: AnyState, missed: MissedSums, parties: Parties) -> StateName:
    """The state that the sites came to, as at least a threshold of them say alike (RO-2.11).

    Raises :class:`RoundError`: the combiner cannot read the sum, so it cannot know better.
    """
    names = Counter(missed.came_to.values())
    if not names:
        raise RoundError(
            f"round {state.round + 1}: every site declined the sum. What is wrong only they can "
            "see; ask their staff"
        )
    digest, count = names.most_common(1)[0]
    if count < parties.threshold:
        raise RoundError(
            f"round {state.round + 1}: {count} sites came to the same state, the threshold is "
            f"{parties.threshold}"
        )
    return StateName(state.round + 1, digest)
