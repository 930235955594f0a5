"""The combiner's side of the rounds: passes frames on and adds up (RO-…: specs/round.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import LocalError, UnexpectedFrame
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast
from fedbcs_protocols.ring import Accumulator, Words, pack, unpack
from fedbcs_protocols.secagg import CombinerSession
from fedbcs_protocols.wire import Frame, Kind, decode, expect_sequence, open_frame, seal
from fedbcs_secure.federation.channel import Channel
from fedbcs_secure.federation.combine import next_state
from fedbcs_secure.federation.rounds import CONTROL, SUM, Parties
from fedbcs_secure.federation.state import GlobalState


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
