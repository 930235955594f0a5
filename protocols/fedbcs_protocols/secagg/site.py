"""A site's session in one protected sum."""

from __future__ import annotations

import numpy as np

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import (
    BadKeyList,
    BadSiteList,
    Inconsistent,
    LocalError,
    MalformedFrame,
    ProtocolError,
    UnexpectedFrame,
)
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import Words, pack_blocks
from fedbcs_protocols.secagg.ephemeral import Ephemeral, commitment
from fedbcs_protocols.secagg.graph import draw
from fedbcs_protocols.secagg.keytable import KeyTable, read_key_list
from fedbcs_protocols.secagg.marks import MarkKeeper, advertising
from fedbcs_protocols.secagg.masking import Mask, masked_blocks, pair_mask, self_mask
from fedbcs_protocols.secagg.messages import Advertise, Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.setting import Guard, Setting
from fedbcs_protocols.secagg.sharing import ShareBox, SharePair, deal
from fedbcs_protocols.secagg.states import SITE, SiteEvent, SiteState, next_site_state
from fedbcs_protocols.secagg.transcript import check_certificate, consistency_frame, transcript
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal


class SiteSession:
    """One site's part in one sum, five frames out for four frames in, in this order::

        advertise()                      the first frame
        share(key list)                  its shares
        masked_input(delivery, vector)   its vector under masks
        consistency(survivors)           its signature on what it saw
        unmask(certificate)              its shares, one kind a site

    The session is for one binding and is used once; a restarted process starts a new attempt.
    Secrets come from the operating system's generator, live only in this object, and are dropped
    when they have done their work or the site leaves the attempt. ``transcript`` is what the site
    signed in *consistency*, None before. ``reused`` is how often the site had answered for this
    state before, 0 unless the study allows that: something to tell its staff.

    Raises :class:`Refused` where this site's guard or marks forbid to go on, :class:`LocalError`
    for arguments that do not fit, :class:`UnexpectedFrame` for a genuine frame of the combiner's
    at the wrong time, and another :class:`PeerError` for one that is not the combiner's for this
    sum, or says what it must not. A site that finds a fault inside a genuine frame, or may not
    answer it, has left the attempt (``state`` is LEFT); otherwise nothing has changed.
    """

    def __init__(
        self, setting: Setting, *, identity: Identity, name: str, guard: Guard, marks: MarkKeeper
    ) -> None:
        if setting.roster.get(name) != identity.public:
            raise LocalError(f"the roster does not list {name!r} with this identity")
        # SA-0.5: before there is anything to lose.
        guard.admit(setting.terms, setting.roster, name)
        self.state = SiteState.FRESH
        self.transcript: bytes | None = None
        self.reused = 0
        self._setting = setting
        self._identity = identity
        self._name = name
        self._me = setting.places[name]
        self._guard = guard
        self._marks = marks
        self._drawn: tuple[int, ...] | None = None
        self._ephemeral: Ephemeral | None = None
        self._advertised = b""
        self._table: KeyTable | None = None
        self._sharers: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()
        self._held: dict[int, SharePair] = {}

    @property
    def binding(self) -> Binding:
        """What the session is for."""
        return self._setting.binding

    def _seed_for_tests(self, ephemeral: Ephemeral, drawn: tuple[int, ...] = ()) -> None:
        """Make the session deterministic: for known answers only, secrets used twice leak."""
        self._ephemeral, self._drawn = ephemeral, drawn

    def advertise(self) -> bytes:
        """The signed frame with this site's fresh keys, commitment and draw (SA-1.1).

        The mark is durable before this returns. Raises :class:`Refused` when the marks say that
        the site has gone further, or has answered for this state already.
        """
        following = next_site_state(self.state, SiteEvent.ADVERTISE)
        setting, terms = self._setting, self._setting.terms
        # SA-8.1
        marks = advertising(self._marks.read(), setting.binding, terms.max_reused_states)
        self._marks.write(marks)
        before = marks.answer(setting.binding)
        self.reused = before.times if before else 0
        if self._ephemeral is None:
            self._ephemeral = Ephemeral.generate()
        if self._drawn is None:
            complete = terms.graph.complete
            self._drawn = () if complete else draw(terms.sites, self._me, terms.graph.size)
        body = Advertise(
            public_bytes(self._ephemeral.mask_key),
            public_bytes(self._ephemeral.share_key),
            commitment(self._ephemeral.seed, setting.binding, self._name),
            frozenset(self._drawn),
        ).encode(terms.sites)
        self._advertised = self._seal(Kind.ADVERTISE, 0, body)
        self.state = following
        return self._advertised

    def share(self, key_list: bytes) -> bytes:
        """The signed frame with a share of both secrets for each holder (SA-3.2)."""
        terms = self._setting.terms
        limit = KeyList.limit(terms.graph, terms.sites)
        frame = self._open(key_list, Kind.KEY_LIST, 0, limit, SiteEvent.SHARE)
        try:
            table = read_key_list(frame.body, self._setting, self._name, self._advertised)
            # SA-2.1
            if len(table.holders(self._me)) < terms.graph.threshold:
                raise BadKeyList(
                    COMBINER, "too few of the sites that this site drew are in it, or stayed"
                )
            ephemeral = self._secrets()
            shares = deal(ephemeral, sorted(table.holders(self._me)), terms.graph.threshold)
            box = ShareBox(ephemeral.share_key, self._setting, table, self._me)
            body = box.seal_all(shares)
        except ProtocolError:
            self._leave()
            raise
        self._table = table
        # A site is a holder of its own shares in a complete graph only.
        self._held = {self._me: shares[self._me]} if self._me in shares else {}
        self.state = next_site_state(self.state, SiteEvent.SHARE)
        return self._seal(Kind.SHARES, 1, body)

    def masked_input(self, delivery: bytes, vector: Words) -> bytes:
        """The signed frame with ``vector`` under the masks (SA-4.3 to SA-4.7).

        ``vector`` is (count,) uint32 and stays as it is; one that does not fit raises
        :class:`LocalError` and changes nothing.
        """
        self._check_vector(vector)
        limit = Delivery.limit(self._setting.terms.sites)
        frame = self._open(delivery, Kind.DELIVERY, 1, limit, SiteEvent.MASK)
        try:
            sharers, held = self._take_delivery(frame)
            masks = self._masks(sharers)
        except ProtocolError:
            self._leave()
            raise
        self._sharers = sharers
        self._held |= held
        # SA-4.7: from here on the session cannot mask a second vector, whatever happens.
        self._ephemeral = None
        self.state = next_site_state(self.state, SiteEvent.MASK)
        shape = self._setting.shape
        packed = pack_blocks(masked_blocks(vector, masks, shape.bits), vector.size, shape.bits)
        return self._seal(Kind.MASKED_INPUT, 2, MaskedInput(shape, packed).encode())

    def consistency(self, survivors: bytes) -> bytes:
        """The signed frame with the digest of all that this site saw (SA-5.3)."""
        limit = set_bytes(self._setting.terms.sites)
        frame = self._open(survivors, Kind.SURVIVORS, 2, limit, SiteEvent.SIGN)
        try:
            listed = decode_set(frame.body, self._setting.terms.sites, sender=COMBINER)
            # SA-5.1
            self._check_set("survivors", listed, within=self._sharers)
            # SA-5.2
            names = [self._setting.names[place] for place in listed]
            self._guard.allow(names, self._setting.roster, self._name, self._last_survivors())
        except ProtocolError:
            self._leave()
            raise
        self._survivors = listed
        table = self._the_table()
        self.transcript = transcript(self._setting, table.digest, self._sharers, listed)
        self.state = next_site_state(self.state, SiteEvent.SIGN)
        return seal(consistency_frame(self._setting, self._name, self.transcript), self._identity)

    def unmask(self, certificate: bytes) -> bytes:
        """The signed frame with one share for each site whose shares this site holds (SA-6.4).

        The answer is booked, durably, before this returns; the session then holds no secret.
        """
        terms = self._setting.terms
        limit = Certificate.limit(terms.sites)
        frame = self._open(certificate, Kind.CERTIFICATE, 3, limit, SiteEvent.ANSWER)
        try:
            shown = Certificate.decode(frame.body, sender=COMBINER, sites=terms.sites)
            # SA-6.2
            if check_certificate(shown, self._setting) != self.transcript:
                raise Inconsistent(COMBINER, "the certificate is not over what this site signed")
            self._book_answer()
        except ProtocolError:
            self._leave()
            raise
        # SA-6.4: survivors are among the sharers, so no site is asked for both of its secrets.
        body = b"".join(
            pair.seed if place in self._survivors else pair.mask_key
            for place, pair in sorted(self._held.items())
        )
        self._held = {}
        self.state = next_site_state(self.state, SiteEvent.ANSWER)
        return self._seal(Kind.UNMASK, 4, body)

    def _take_delivery(self, frame: Frame) -> tuple[frozenset[int], dict[int, SharePair]]:
        table = self._the_table()
        delivered = Delivery.decode(frame.body, sender=COMBINER, sites=self._setting.terms.sites)
        # SA-4.1
        self._check_set("sharers", delivered.sharers, within=table.present)
        owners = sorted((table.owners(self._me) & delivered.sharers) - {self._me})
        if len(owners) != len(delivered.sealed):
            raise MalformedFrame(COMBINER, f"{len(delivered.sealed)} shares of {len(owners)}")
        box = ShareBox(self._secrets().share_key, self._setting, table, self._me)
        return delivered.sharers, box.open_all(owners, delivered.sealed)

    def _masks(self, sharers: frozenset[int]) -> list[Mask]:
        table, ephemeral, setting = self._the_table(), self._secrets(), self._setting
        mask_key = table.adverts[self._me].mask_key
        pairs = [
            pair_mask(ephemeral.mask_key, setting, table, self._me, peer)
            for peer in sorted(table.neighbours(self._me) & sharers)
        ]
        return [self_mask(ephemeral.seed, setting.binding, self._name, mask_key), *pairs]

    def _check_set(self, what: str, places: frozenset[int], *, within: frozenset[int]) -> None:
        """Raise :class:`BadSiteList` for a set that this site must not go on with."""
        terms = self._setting.terms
        if not places <= within:
            raise BadSiteList(COMBINER, f"the {what} hold a site that is not in the stage before")
        if self._me not in places:
            raise BadSiteList(COMBINER, f"the {what} leave this site out")
        if len(places) < terms.threshold:
            raise BadSiteList(COMBINER, f"{len(places)} {what}, the threshold is {terms.threshold}")
        mine = len(self._the_table().holders(self._me) & places)
        if mine < terms.graph.threshold:
            raise BadSiteList(
                COMBINER,
                f"{mine} of this site's holders are among the {what}, "
                f"the local threshold is {terms.graph.threshold}",
            )

    def _book_answer(self) -> None:
        """SA-6.3"""
        marks = self._marks.read()
        if marks is None or self.transcript is None:
            raise LocalError("an answer before anything was advertised and signed")
        terms = self._setting.terms
        survivors = encode_set(self._survivors, terms.sites)
        self._marks.write(
            marks.answered(
                self._setting.binding, self.transcript, survivors, terms.max_reused_states
            )
        )

    def _last_survivors(self) -> frozenset[str] | None:
        marks = self._marks.read()
        if marks is None or not marks.survivors:
            return None
        places = decode_set(marks.survivors, self._setting.terms.sites, sender=self._name)
        return frozenset(self._setting.names[place] for place in places)

    def _check_vector(self, vector: Words) -> None:
        shape = self._setting.shape
        if vector.dtype != np.uint32 or vector.shape != (shape.count,):
            raise LocalError(f"the vector must be ({shape.count},) uint32")
        # SA-4.6: the sum over all sites must not wrap.
        largest = ((1 << shape.bits) - 1) // shape.sites
        if int(vector.max()) > largest:
            raise LocalError(
                f"a value is over {largest}, the most that {shape.sites} sites can add up "
                f"in {shape.bits} bits"
            )

    def _secrets(self) -> Ephemeral:
        if self._ephemeral is None:
            raise LocalError("the session has dropped its secrets")
        return self._ephemeral

    def _the_table(self) -> KeyTable:
        if self._table is None:
            raise LocalError("the session has seen no key list")
        return self._table

    def _open(self, data: bytes, kind: Kind, sequence: int, limit: int, event: SiteEvent) -> Frame:
        setting = self._setting
        frame = open_frame(
            data, roster={COMBINER: setting.combiner}, expect=setting.binding, limits={kind: limit}
        )
        expect_sequence(frame, sequence)
        if (self.state, event) not in SITE:
            raise UnexpectedFrame(
                COMBINER, f"a {kind.name} frame in state {self.state.name}: too early, or again"
            )
        return frame

    def _seal(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self._setting.binding, self._name, sequence, body), self._identity)

    def _leave(self) -> None:
        self.state = next_site_state(self.state, SiteEvent.LEAVE)
        self._ephemeral = None
        self._held = {}

    def __repr__(self) -> str:
        return f"SiteSession({self._name}, round {self._setting.binding.round}, {self.state.name})"
