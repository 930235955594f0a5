"""The combiner's session in one protected sum."""

from __future__ import annotations

from collections.abc import Mapping

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import BadKey, LocalError, UnexpectedFrame
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.messages import Advertise, KeyList, MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.ring import Accumulator, Words, pack
from fedbcs_protocols.secagg.roster import ADVERTISE_LIMIT, check_roster
from fedbcs_protocols.secagg.states import CombinerEvent, CombinerState, next_combiner_state
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal


class CombinerSession:
    """The combiner's part in one sum over all sites of the roster.

    Arguments as for :class:`fedbcs_protocols.secagg.SiteSession`. Masked vectors are added as they
    come, so memory does not grow with the number of sites. A frame that does not fit raises a
    :class:`PeerError` naming its sender and changes nothing.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        roster: Mapping[str, PublicIdentity],
        binding: Binding,
        bits: int,
        count: int,
    ) -> None:
        check_roster(roster, identity.public)
        self.state = CombinerState.COLLECTING_KEYS
        self._identity = identity
        self._roster = dict(roster)
        self._binding = binding
        self._shape = VectorShape(count=count, bits=bits, sites=len(roster))
        self._adverts: dict[str, bytes] = {}
        self._keys: dict[bytes, str] = {}
        self._summed: set[str] = set()
        self._accumulator = Accumulator(count, bits)

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The sites whose next frame has not come, in the order of the roster."""
        if self.state is CombinerState.COLLECTING_KEYS:
            return tuple(name for name in self._roster if name not in self._adverts)
        if self.state is CombinerState.COLLECTING_INPUTS:
            return tuple(name for name in self._roster if name not in self._summed)
        return ()

    def receive_advertise(self, data: bytes) -> None:
        """Take a site's mask key (SA-1.2)."""
        frame = open_frame(data, roster=self._roster, expect=self._binding, limits=ADVERTISE_LIMIT)
        expect_sequence(frame, 0)
        sender = frame.sender
        # SA-1.3: one key a site, and only while keys are collected.
        if self.state is not CombinerState.COLLECTING_KEYS or sender in self._adverts:
            raise UnexpectedFrame(sender, "its mask key comes twice or too late")
        # SA-1.4 is checked by the decoder.
        key = Advertise.decode(frame.body, sender=sender).mask_public_key
        # SA-2.4
        if key in self._keys:
            raise BadKey(sender, "its mask key is also another site's")
        last = len(self._adverts) + 1 == len(self._roster)
        self.state = next_combiner_state(
            self.state, CombinerEvent.LAST_KEY if last else CombinerEvent.KEY
        )
        self._adverts[sender] = bytes(data)
        self._keys[key] = sender

    def key_list(self) -> bytes:
        """The signed frame with every site's own frame (SA-2.1), when all have come."""
        if self.state is CombinerState.COLLECTING_KEYS:
            raise LocalError(f"no key yet from {', '.join(self.waiting_for)}")
        self.state = next_combiner_state(self.state, CombinerEvent.KEY_LIST)
        body = KeyList(tuple(self._adverts[name] for name in self._roster)).encode()
        return self._seal(Kind.KEY_LIST, 0, body)

    def receive_masked(self, data: bytes) -> None:
        """Add a site's masked vector to the sum (SA-4.1)."""
        frame = open_frame(
            data,
            roster=self._roster,
            expect=self._binding,
            limits={Kind.MASKED_INPUT: self._shape.body_bytes},
        )
        expect_sequence(frame, 1)
        sender = frame.sender
        # SA-4.2: one vector a site, and only while vectors are collected.
        if self.state is not CombinerState.COLLECTING_INPUTS or sender in self._summed:
            raise UnexpectedFrame(sender, "its masked input comes twice, too early or too late")
        message = MaskedInput.decode(frame.body, sender=sender, shape=self._shape)
        last = len(self._summed) + 1 == len(self._roster)
        following = next_combiner_state(
            self.state, CombinerEvent.LAST_INPUT if last else CombinerEvent.INPUT
        )
        self._accumulator.add(message.packed)
        self._summed.add(sender)
        self.state = following

    def sum(self) -> Words:
        """The (count,) uint32 sum of all sites' vectors, once the last has come (SA-4.3)."""
        if self.state is CombinerState.COLLECTING_INPUTS:
            raise LocalError(f"no masked input yet from {', '.join(self.waiting_for)}")
        self.state = next_combiner_state(self.state, CombinerEvent.SUM)
        return self._accumulator.total()

    def sum_frame(self) -> bytes:
        """The signed frame that tells the sites the sum."""
        packed = pack(self.sum(), self._shape.bits)
        return self._seal(Kind.SUM, 1, SumBroadcast(self._shape, packed).encode())

    def _seal(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self._binding, COMBINER, sequence, body), self._identity)

    def __repr__(self) -> str:
        return f"CombinerSession(round {self._binding.round}, {self.state.name})"
