"""The combiner's session in one protected sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import (
    BadKey,
    Inconsistent,
    LocalError,
    ProtocolError,
    TooFewSites,
    UnexpectedFrame,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast
from fedbcs_protocols.ring import Accumulator, Buffer, Words, pack
from fedbcs_protocols.secagg.journal import CLOSE, Journal, frame_in, frame_record
from fedbcs_protocols.secagg.keytable import KeyTable, open_advertise
from fedbcs_protocols.secagg.messages import (
    DIGEST_BYTES,
    SEALED_SHARES_BYTES,
    Advertise,
    Certificate,
    Delivery,
    KeyList,
    cut,
    key_list_digest,
)
from fedbcs_protocols.secagg.outcome import SUM_SEQUENCE
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.secagg.shamir import SHARE_BYTES
from fedbcs_protocols.secagg.states import COMBINER as COMBINER_TABLE
from fedbcs_protocols.secagg.states import CombinerEvent, CombinerState, next_combiner_state
from fedbcs_protocols.secagg.transcript import CONSISTENCY_SEQUENCE, transcript
from fedbcs_protocols.secagg.unmasking import apply_masks, masks_left
from fedbcs_protocols.sitesets import encode_set
from fedbcs_protocols.wire import (
    MAX_BODY_BYTES,
    Frame,
    Kind,
    decode,
    expect_sequence,
    open_frame,
    seal,
)

_ANYTHING = dict.fromkeys(Kind, MAX_BODY_BYTES)


class CombinerSession:
    """The combiner's part in one sum: the frames of a stage in, the stage closed, frames out.

    :meth:`receive` takes the frames of the current stage in any order from the sites in
    ``expected``; :meth:`close` ends the stage with those that came; ``requests`` are the frames to
    send then, by site (none before *advertise*, which sites begin by themselves). After five stages
    :meth:`total` is the sum over ``survivors`` and :meth:`sum_frame` tells it. Masked vectors are
    added as they come, so memory does not grow with their number.

    A frame that does not fit raises a :class:`PeerError` naming its sender and changes nothing.
    Too few sites at the end of a stage raise :class:`TooFewSites` and end the attempt.
    """

    def __init__(self, setting: Setting, *, identity: Identity, journal: Journal) -> None:
        if identity.public != setting.combiner:
            raise LocalError("the identity is not the combiner's of this setting")
        self.state = CombinerState.ADVERTISE
        self.requests: Mapping[str, bytes] = {}
        self._setting = setting
        self._identity = identity
        self._journal = journal
        self._expected = frozenset(range(setting.terms.sites))
        self._came: dict[int, bytes] = {}
        """What this stage keeps of each site's frame, by place."""
        self._adverts: dict[int, Advertise] = {}
        self._keys: set[bytes] = set()
        self._table = KeyTable({}, setting.terms.graph, b"")
        self._sharers: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()
        self._transcript = b""
        self._certificate = b""
        self._accumulator = Accumulator(setting.count, setting.bits)
        self._total: Words | None = None

    @property
    def binding(self) -> Binding:
        """What the session is for."""
        return self._setting.binding

    @property
    def expected(self) -> tuple[str, ...]:
        """The sites whose frame of this stage has not come, in the order of the roster."""
        return tuple(self._setting.names[p] for p in sorted(self._expected - self._came.keys()))

    @property
    def survivors(self) -> tuple[str, ...]:
        """The sites in the sum, once the masked vectors are complete."""
        return tuple(self._setting.names[place] for place in sorted(self._survivors))

    def receive(self, data: Buffer, *, line: str | None = None) -> None:
        """Take one site's frame of this stage.

        ``line`` is the site at whose end of the channel the frame came out, where that is known: a
        frame that another site signed is then refused (RO-2.5).
        """
        self._take(data, self._journal, line)

    def restore(self, records: Iterable[Buffer]) -> None:
        """Go through what a journal holds, to the same state and the same requests (SA-8.5).

        For a session that has taken nothing yet. Raises as :meth:`receive` and :meth:`close`.
        """
        for record in records:
            frame = frame_in(record)
            if frame is None:
                self._close()
            else:
                self._take(frame, None, None)
        # SA-8.5: what was read back may not have been on the disk for good.
        self._journal.sync()

    def close(self) -> None:
        """End the stage with the frames that came.

        Raises :class:`TooFewSites` if they are fewer than the threshold, or, in *unmask*, too few
        to put every secret together; :class:`BadShare` if they do not fit. Both end the attempt.
        After the end, :class:`LocalError`.
        """
        self._next(CombinerEvent.CLOSE)
        # SA-8.5: what was taken is on disk before anything follows from it.
        self._journal.append(CLOSE)
        self._journal.sync()
        self._close()

    def total(self) -> Words:
        """The (count,) uint32 sum of the survivors' vectors."""
        if self._total is None:
            raise LocalError(f"there is no sum in state {self.state.name}")
        return self._total

    def sum_frame(self) -> bytes:
        """The signed frame that tells every site of the roster the sum (SA-7.2)."""
        packed = pack(self.total(), self._setting.bits)
        message = SumBroadcast(self._setting.shape, packed).encode()
        return self._seal(Kind.SUM, SUM_SEQUENCE, b"".join((self._certificate, message)))

    # One frame ---------------------------------------------------------------------------------

    def _take(self, data: Buffer, journal: Journal | None, line: str | None) -> None:
        if (self.state, CombinerEvent.FRAME) not in COMBINER_TABLE:
            sender = decode(data, _ANYTHING).sender
            raise UnexpectedFrame(sender, f"its frame comes when the sum is {self.state.name}")
        following = self._next(CombinerEvent.FRAME)
        match self.state:
            case CombinerState.ADVERTISE:
                frame, place, advert = self._open_advertise(data)
                kept = bytes(data)
            case CombinerState.SHARES:
                frame, place = self._open(data, Kind.SHARES, 1, self._longest_shares)
                count = len(self._table.recipients(place))
                # SA-3.4
                cut(frame.body, count, SEALED_SHARES_BYTES, sender=frame.sender, what="shares")
                kept = bytes(frame.body)
            case CombinerState.MASKED_INPUT:
                # SA-4.8
                shape = self._setting.shape
                frame, place = self._open(data, Kind.MASKED_INPUT, 2, shape.body_bytes)
                message = MaskedInput.decode(frame.body, sender=frame.sender, shape=shape)
                kept = b""
            case CombinerState.CONSISTENCY:
                # SA-5.4
                frame, place = self._open(
                    data, Kind.CONSISTENCY, CONSISTENCY_SEQUENCE, DIGEST_BYTES
                )
                if bytes(frame.body) != self._transcript:
                    raise Inconsistent(frame.sender, "it signed another transcript")
                kept = frame.signature
            case _:
                # SA-6.5
                frame, place = self._open(data, Kind.UNMASK, 4, self._longest_unmask)
                count = len(self._table.owners(place) & self._sharers)
                cut(frame.body, count, SHARE_BYTES, sender=frame.sender, what="shares")
                kept = bytes(frame.body)
        # RO-2.5
        if line is not None and frame.sender != line:
            raise UnexpectedFrame(frame.sender, f"its frame came on the line of {line}")
        if journal is not None:
            journal.append(frame_record(data))
        if self.state is CombinerState.ADVERTISE:
            self._adverts[place] = advert
            self._keys |= {advert.mask_key, advert.share_key}
        elif self.state is CombinerState.MASKED_INPUT:
            self._accumulator.add(message.packed)
        self._came[place] = kept
        self.state = following

    def _open_advertise(self, data: Buffer) -> tuple[Frame, int, Advertise]:
        # SA-1.3
        frame, advert = open_advertise(data, self._setting)
        place = self._welcome(frame)
        keys = {advert.mask_key, advert.share_key}
        # SA-2.4
        if len(keys) < 2 or keys & self._keys:
            raise BadKey(frame.sender, "one of its keys stands in the list already")
        return frame, place, advert

    @property
    def _longest_shares(self) -> int:
        return self._setting.terms.sites * SEALED_SHARES_BYTES

    @property
    def _longest_unmask(self) -> int:
        return self._setting.terms.sites * SHARE_BYTES

    def _open(self, data: Buffer, kind: Kind, sequence: int, limit: int) -> tuple[Frame, int]:
        """The genuine frame of a site that is expected, and the site's place."""
        setting = self._setting
        frame = open_frame(
            data, roster=setting.roster, expect=setting.binding, limits={kind: limit}
        )
        expect_sequence(frame, sequence)
        return frame, self._welcome(frame)

    def _welcome(self, frame: Frame) -> int:
        place = self._setting.places[frame.sender]
        if place not in self._expected:
            raise UnexpectedFrame(frame.sender, "it has dropped out of this attempt")
        if place in self._came:
            raise UnexpectedFrame(frame.sender, "its frame of this stage comes twice")
        return place

    # The end of a stage ------------------------------------------------------------------------

    def _close(self) -> None:
        following = self._next(CombinerEvent.CLOSE)
        came, threshold = frozenset(self._came), self._setting.terms.threshold
        # SA-8.3
        if len(came) < threshold:
            stage = self.state.name.lower().replace("_", " ")
            self._fail()
            raise TooFewSites(
                f"{len(came)} sites are left at the end of stage {stage!r}, "
                f"the threshold is {threshold}"
            )
        match self.state:
            case CombinerState.ADVERTISE:
                requests = self._key_list()
            case CombinerState.SHARES:
                requests = self._deliveries(came)
            case CombinerState.MASKED_INPUT:
                requests = self._tell_survivors(came)
            case CombinerState.CONSISTENCY:
                requests = self._certify()
            case _:
                self._unmask()
                requests, came = {}, frozenset()
        self.requests, self._expected, self._came = requests, came, {}
        self.state = following

    def _key_list(self) -> dict[str, bytes]:
        # SA-2.1
        places = range(self._setting.terms.sites)
        body = KeyList(tuple(self._came.get(place) for place in places)).encode()
        self._table = KeyTable(self._adverts, self._setting.terms.graph, key_list_digest(body))
        return self._to_all(self._came, self._seal(Kind.KEY_LIST, 0, body))

    def _deliveries(self, sharers: frozenset[int]) -> dict[str, bytes]:
        pieces: dict[int, list[bytes]] = {place: [] for place in sharers}
        for owner in sorted(sharers):
            body = memoryview(self._came[owner])
            for index, to in enumerate(self._table.recipients(owner)):
                if to in pieces:
                    at = index * SEALED_SHARES_BYTES
                    pieces[to].append(bytes(body[at : at + SEALED_SHARES_BYTES]))
        self._sharers = sharers
        sites = self._setting.terms.sites
        return {
            self._setting.names[place]: self._seal(
                Kind.DELIVERY, 1, Delivery(sharers, tuple(sealed)).encode(sites)
            )
            for place, sealed in sorted(pieces.items())
        }

    def _tell_survivors(self, survivors: frozenset[int]) -> dict[str, bytes]:
        setting = self._setting
        self._survivors = survivors
        self._transcript = transcript(setting, self._table.digest, self._sharers, survivors)
        body = encode_set(survivors, setting.terms.sites)
        return self._to_all(survivors, self._seal(Kind.SURVIVORS, 2, body))

    def _certify(self) -> dict[str, bytes]:
        signatures = {place: self._came[place] for place in sorted(self._came)}
        certificate = Certificate(
            self._table.digest, self._setting.key_id, self._sharers, self._survivors, signatures
        )
        self._certificate = certificate.encode(self._setting.terms.sites)
        return self._to_all(signatures, self._seal(Kind.CERTIFICATE, 3, self._certificate))

    def _unmask(self) -> None:
        shares: dict[int, dict[int, bytes]] = {place: {} for place in self._sharers}
        for holder, body in self._came.items():
            owners = sorted(self._table.owners(holder) & self._sharers)
            for index, owner in enumerate(owners):
                shares[owner][holder] = body[index * SHARE_BYTES : (index + 1) * SHARE_BYTES]
        needed = self._setting.terms.graph.threshold
        # SA-6.5
        short = [place for place, held in shares.items() if len(held) < needed]
        if short:
            self._fail()
            raise TooFewSites(
                f"too few shares of {len(short)} sites' secrets came to take masks off"
            )
        try:
            masks = list(
                masks_left(self._setting, self._table, self._sharers, self._survivors, shares)
            )
        except ProtocolError:
            self._fail()
            raise
        total = self._accumulator.total()
        apply_masks(total, masks, self._setting.bits)
        self._total = total

    def _to_all(self, places: Iterable[int], frame: bytes) -> dict[str, bytes]:
        return {self._setting.names[place]: frame for place in sorted(places)}

    def _next(self, event: CombinerEvent) -> CombinerState:
        return next_combiner_state(self.state, event)

    def _fail(self) -> None:
        self.state = self._next(CombinerEvent.TOO_FEW)
        self.requests, self._expected, self._came = {}, frozenset(), {}

    def _seal(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self._setting.binding, COMBINER, sequence, body), self._identity)

    def __repr__(self) -> str:
        return f"CombinerSession(round {self._setting.binding.round}, {self.state.name})"
