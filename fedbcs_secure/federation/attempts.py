"""The protected sum of a round: as many attempts as are safe, also across a crash (RO-2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedbcs_protocols.errors import BadShare, PeerError, TooFewSites
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import CombinerSession
from fedbcs_protocols.secagg.states import CombinerState
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.journal import Begun, Journals
from fedbcs_secure.federation.rounds import SUM, Parties
from fedbcs_secure.federation.state import GlobalState

MAX_ATTEMPTS = 3
"""Attempts at one sum in one process before the round is given up."""

_PEOPLE = (
    "Sites that have answered for this state will not answer again; people at the sites must "
    "decide how to go on"
)
_NOTHING = "In none of them anybody was asked to unmask, and it can be tried again"


@dataclass(frozen=True)
class Opening:
    """The *open* frame of an attempt for each site that is to be asked, and the key it is under."""

    requests: Mapping[str, bytes]
    key_id: bytes


Openings = Callable[[int], Opening]
"""How an attempt is opened; may raise RoundError."""


@dataclass(frozen=True, eq=False)
class ProtectedSum:
    """Runs sessions over ``channel`` until one has a sum; ``faults`` collects refused frames."""

    identity: Identity
    parties: Parties
    journals: Journals
    channel: Channel
    faults: dict[str, PeerError]

    def run(self, state: GlobalState, opening: Openings) -> tuple[CombinerSession, int]:
        """The finished session and the number of attempts so far.

        Goes on with the attempt that a journal holds. Raises :class:`RoundError`.
        """
        first, answered = 0, False
        begun = self.journals.latest(self.parties.binding(state, SUM))
        if begun is not None:
            first = begun.binding.attempt
            session = self._resumed(state, begun)
            if session is not None and self._carry(session, {}):
                return session, first + 1
            answered = True  # for all that is known here
            first += 1
        # RO-2.10
        for attempt in range(first, first + MAX_ATTEMPTS):
            opened = opening(attempt)
            setting = self.parties.setting(state, attempt, opened.key_id)
            journal = self.journals.begin(Begun(setting.binding, opened.key_id))
            session = CombinerSession(setting, identity=self.identity, journal=journal)
            if self._carry(session, opened.requests):
                return session, attempt + 1
        raise RoundError(
            f"round {state.round + 1} came to no sum in {MAX_ATTEMPTS} attempts: each time fewer "
            f"than {self.parties.threshold} of {len(self.parties.roster)} sites stayed. "
            + (_PEOPLE if answered or self.parties.study.max_reused_states else _NOTHING)
        )

    def _resumed(self, state: GlobalState, begun: Begun) -> CombinerSession | None:
        """The session of an attempt that a journal holds; None if it holds too little."""
        setting = self.parties.setting(state, begun.binding.attempt, begun.key_id)
        journal, records = self.journals.reopen(begun.binding)
        session = CombinerSession(setting, identity=self.identity, journal=journal)
        try:
            session.restore(records)
        except (TooFewSites, BadShare):
            return None
        # Before the first stage is closed a frame may be lost, and its site signs no other one.
        return None if session.state is CombinerState.ADVERTISE else session

    def _carry(self, session: CombinerSession, opening: Mapping[str, bytes]) -> bool:
        """Take the session to its end. False when it failed and another attempt may follow."""
        while session.state is not CombinerState.COMPLETE:
            advertising = session.state is CombinerState.ADVERTISE
            requests = opening if advertising else session.requests
            asked = {site: requests[site] for site in session.expected if site in requests}
            for site, reply in self.channel.exchange(asked):
                try:
                    session.receive(reply, line=site)
                except PeerError as error:
                    self.faults[site] = error
            answering = session.state is CombinerState.UNMASK
            try:
                session.close()
            except (TooFewSites, BadShare) as error:
                # SA-8.4: a second sum over the same state is for the sites, or a person, to allow.
                if answering and not self.parties.study.max_reused_states:
                    raise RoundError(
                        f"round {session.binding.round + 1} is lost: {error}. {_PEOPLE}"
                    ) from None
                return False
        return True
