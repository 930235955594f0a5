"""A site's session in one protected sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import BadKey, BadKeyList, LocalError, PeerError
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.messages import Advertise, KeyList, MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.ring import Words, pack_blocks, unpack
from fedbcs_protocols.secagg.masking import PairMask, masked_blocks, pair_mask
from fedbcs_protocols.secagg.roster import ADVERTISE_LIMIT, check_roster
from fedbcs_protocols.secagg.states import SiteEvent, SiteState, next_site_state
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal


class SiteSession:
    """One site's part in one sum: *advertise*, then *masked input*, then the sum.

    ``roster`` maps the sites' names to their identities, in the order that all share; ``combiner``
    is the identity that signs the combiner's frames; the vector has ``count`` values below 2^bits,
    and bits are enough for the sum of all (:func:`fedbcs_protocols.ring.ring_bits`). The session
    is for one binding and is used once; a restarted process starts a new attempt.

    The mask key is made by the operating system's generator, lives only in this object, and is
    dropped as soon as the masked input exists or the session fails. Raises :class:`LocalError` for
    arguments that do not fit and for calls out of order.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        name: str,
        roster: Mapping[str, PublicIdentity],
        combiner: PublicIdentity,
        binding: Binding,
        bits: int,
        count: int,
    ) -> None:
        check_roster(roster, combiner)
        if roster.get(name) != identity.public:
            raise LocalError(f"the roster does not list {name!r} with this identity")
        self.state = SiteState.FRESH
        self._identity = identity
        self._name = name
        self._roster = dict(roster)
        self._combiner = {COMBINER: combiner}
        self._binding = binding
        self._shape = VectorShape(count=count, bits=bits, sites=len(roster))
        self._ephemeral: X25519PrivateKey | None = None
        self._advertised = b""

    @classmethod
    def _with_ephemeral(
        cls,
        private_key: X25519PrivateKey,
        *,
        identity: Identity,
        name: str,
        roster: Mapping[str, PublicIdentity],
        combiner: PublicIdentity,
        binding: Binding,
        bits: int,
        count: int,
    ) -> SiteSession:
        """The deterministic twin, for known-answer tests: a key that is used twice leaks."""
        session = cls(
            identity=identity,
            name=name,
            roster=roster,
            combiner=combiner,
            binding=binding,
            bits=bits,
            count=count,
        )
        session._ephemeral = private_key
        return session

    def advertise(self) -> bytes:
        """The signed frame with this site's fresh mask key (SA-1.1)."""
        self.state = next_site_state(self.state, SiteEvent.ADVERTISE)
        if self._ephemeral is None:
            self._ephemeral = X25519PrivateKey.generate()
        body = Advertise(self._ephemeral.public_key().public_bytes_raw()).encode()
        self._advertised = self._seal(Kind.ADVERTISE, 0, body)
        return self._advertised

    def masked_input(self, key_list: bytes, vector: Words) -> bytes:
        """The signed frame with ``vector`` under the masks of all pairs (SA-3.1 to SA-3.5).

        ``key_list`` is the combiner's frame; ``vector`` is (count,) uint32 and stays as it is. A
        vector that does not fit raises :class:`LocalError` and changes nothing, and so does a frame
        that is not the combiner's for this sum (:class:`PeerError`): anybody can send one. A key
        list of the combiner's that does not fit raises a :class:`PeerError` and ends the session.
        """
        following = next_site_state(self.state, SiteEvent.MASK)
        self._check_vector(vector)
        frame = self._open(key_list, Kind.KEY_LIST, 0, KeyList.limit(self._shape.sites))
        try:
            pairs = self._pairs(frame)
        except PeerError:
            self._fail()
            raise
        # SA-3.5: from here on the session cannot mask a second vector, whatever happens.
        self.state = following
        self._ephemeral = None
        packed = pack_blocks(
            masked_blocks(vector, pairs, self._shape.bits), vector.size, self._shape.bits
        )
        return self._seal(Kind.MASKED_INPUT, 1, MaskedInput(self._shape, packed).encode())

    def receive_sum(self, data: bytes) -> Words:
        """The (count,) uint32 sum in the combiner's frame (SA-4.3).

        Proven is only that the combiner says so. Raises a :class:`PeerError` when the frame does
        not fit, and ends the session if it was the combiner's.
        """
        following = next_site_state(self.state, SiteEvent.TAKE_SUM)
        frame = self._open(data, Kind.SUM, 1, self._shape.body_bytes)
        try:
            message = SumBroadcast.decode(frame.body, sender=COMBINER, shape=self._shape)
        except PeerError:
            self._fail()
            raise
        self.state = following
        return unpack(message.packed, self._shape.count, self._shape.bits)

    def _check_vector(self, vector: Words) -> None:
        if vector.dtype != np.uint32 or vector.shape != (self._shape.count,):
            raise LocalError(f"the vector must be ({self._shape.count},) uint32")
        # SA-3.3: the sum over all sites must not wrap.
        largest = ((1 << self._shape.bits) - 1) // self._shape.sites
        if int(vector.max()) > largest:
            raise LocalError(
                f"a value is over {largest}, the most that {self._shape.sites} sites can add up "
                f"in {self._shape.bits} bits"
            )

    def _pairs(self, frame: Frame) -> list[PairMask]:
        private = self._ephemeral
        if private is None:
            raise LocalError("the session has no mask key")
        listed = KeyList.decode(frame.body, sender=COMBINER, sites=self._shape.sites)
        keys: list[tuple[str, bytes]] = []
        for name, inner in zip(self._roster, listed.frames, strict=True):
            # SA-2.2: each key comes in its site's own signed frame, for this very sum.
            advert = open_frame(
                inner, roster=self._roster, expect=self._binding, limits=ADVERTISE_LIMIT
            )
            expect_sequence(advert, 0)
            # SA-2.1: every site of the roster exactly once, in its order.
            if advert.sender != name:
                raise BadKeyList(COMBINER, f"the frame in the place of {name} is another site's")
            # SA-2.3: this site's key is the one it sent.
            if name == self._name and inner != self._advertised:
                raise BadKeyList(COMBINER, "this site's own frame was replaced")
            keys.append((name, Advertise.decode(advert.body, sender=name).mask_public_key))
        # SA-2.4: no two sites have the same key.
        seen: set[bytes] = set()
        for name, key in keys:
            if key in seen:
                raise BadKey(name, "its mask key is also another site's")
            seen.add(key)
        me = list(self._roster).index(self._name)
        return [
            pair_mask(private, self._binding, keys, me, peer)
            for peer in range(len(keys))
            if peer != me
        ]

    def _open(self, data: bytes, kind: Kind, sequence: int, limit: int) -> Frame:
        frame = open_frame(data, roster=self._combiner, expect=self._binding, limits={kind: limit})
        expect_sequence(frame, sequence)
        return frame

    def _seal(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self._binding, self._name, sequence, body), self._identity)

    def _fail(self) -> None:
        self.state = next_site_state(self.state, SiteEvent.BAD_FRAME)
        self._ephemeral = None

    def __repr__(self) -> str:
        return f"SiteSession({self._name}, round {self._binding.round}, {self.state.name})"
