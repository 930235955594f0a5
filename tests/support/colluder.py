"""A site that works for the combiner: it tells its secrets and signs whatever it is asked to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import Words, pack_blocks
from fedbcs_protocols.secagg import Setting
from fedbcs_protocols.secagg.ephemeral import Ephemeral, commitment
from fedbcs_protocols.secagg.graph import draw
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.masking import masked_blocks, pair_mask, self_mask
from fedbcs_protocols.secagg.messages import (
    Advertise,
    Certificate,
    Delivery,
    KeyList,
    key_list_digest,
)
from fedbcs_protocols.secagg.shamir import SHARE_BYTES
from fedbcs_protocols.secagg.sharing import ShareBox, SharePair, deal
from fedbcs_protocols.secagg.transcript import consistency_frame, transcript
from fedbcs_protocols.sitesets import decode_set
from fedbcs_protocols.wire import Frame, Kind, decode, seal

ANY = dict.fromkeys(Kind, 1 << 24)
"""Limits under which every frame of a test is read."""


@lru_cache(maxsize=64)
def read_table(key_list: bytes, setting: Setting) -> KeyTable:
    """The keys in a key list frame; nothing is checked."""
    graph, sites = setting.terms.graph, setting.terms.sites
    body = decode(key_list, ANY).body
    frames = KeyList.decode(body, sender=COMBINER, graph=graph, sites=sites).frames
    adverts = {
        place: Advertise.decode(decode(frame, ANY).body, sender="", graph=graph, sites=sites)
        for place, frame in enumerate(frames)
        if frame is not None
    }
    return KeyTable(adverts, graph, key_list_digest(body))


class Colluder:
    """Answers as an honest site would, unless told otherwise, and forgets nothing.

    ``changes`` replace fields of what it advertises; ``lies`` replace the shares that it deals, by
    the holder's place. ``held`` are the shares that it has of others, by place.
    """

    def __init__(self, setting: Setting, identity: Identity, name: str) -> None:
        self.setting, self.identity, self.name = setting, identity, name
        self.me = setting.places[name]
        self.ephemeral = Ephemeral.generate()
        self.changes: Mapping[str, bytes | frozenset[int]] = {}
        self.lies: Mapping[int, SharePair] = {}
        self.held: dict[int, SharePair] = {}
        terms = setting.terms
        complete = terms.graph.complete
        self._drawn = () if complete else draw(terms.sites, self.me, terms.graph.size)
        self._sharers: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()

    def holds_secrets(self) -> bool:
        return True

    def advertise(self, **changes: bytes | frozenset[int]) -> bytes:
        fields: dict[str, Any] = {
            "mask_key": public_bytes(self.ephemeral.mask_key),
            "share_key": public_bytes(self.ephemeral.share_key),
            "commitment": commitment(self.ephemeral.seed, self.setting.binding, self.name),
            "drawn": frozenset(self._drawn),
            **self.changes,
            **changes,
        }
        body = Advertise(**fields).encode(self.setting.terms.sites)
        return self._seal(Kind.ADVERTISE, 0, body)

    def share(self, key_list: bytes) -> bytes:
        self.table = read_table(key_list, self.setting)
        holders = sorted(self.table.holders(self.me))
        dealt = deal(self.ephemeral, holders, self.setting.terms.graph.threshold)
        self.held |= {self.me: dealt[self.me]} if self.me in dealt else {}
        return self._seal(Kind.SHARES, 1, self._box().seal_all({**dealt, **self.lies}))

    def masked_input(self, delivery: bytes, vector: Words) -> bytes:
        body = decode(delivery, ANY).body
        shown = Delivery.decode(body, sender=COMBINER, sites=self.setting.terms.sites)
        self._sharers = shown.sharers
        owners = sorted((self.table.owners(self.me) & shown.sharers) - {self.me})
        self.held |= self._box().open_all(owners, shown.sealed)
        own, setting = self.ephemeral, self.setting
        masks = [
            self_mask(own.seed, setting.binding, self.name, public_bytes(own.mask_key)),
            *(
                pair_mask(own.mask_key, setting, self.table, self.me, peer)
                for peer in sorted(self.table.neighbours(self.me) & shown.sharers)
            ),
        ]
        shape = setting.shape
        pieces = masked_blocks(vector, masks, shape.bits)
        packed = pack_blocks(pieces, shape.count, shape.bits)
        return self._seal(Kind.MASKED_INPUT, 2, MaskedInput(shape, packed).encode())

    def consistency(self, survivors: bytes) -> bytes:
        sites = self.setting.terms.sites
        self._survivors = decode_set(decode(survivors, ANY).body, sites, sender=COMBINER)
        return self.signed(
            transcript(self.setting, self.table.digest, self._sharers, self._survivors)
        )

    def signed(self, digest: bytes) -> bytes:
        """A *consistency* frame over any transcript."""
        return seal(consistency_frame(self.setting, self.name, digest), self.identity)

    def unmask(self, certificate: bytes) -> bytes:
        Certificate.decode(
            decode(certificate, ANY).body, sender=COMBINER, sites=self.setting.terms.sites
        )
        given = (
            pair.seed if place in self._survivors else pair.mask_key
            for place, pair in sorted(self.held.items())
            if place in self._sharers
        )
        return self._seal(Kind.UNMASK, 4, b"".join(given))

    def _box(self) -> ShareBox:
        return ShareBox(self.ephemeral.share_key, self.setting, self.table, self.me)

    def _seal(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self.setting.binding, self.name, sequence, body), self.identity)


NO_NUMBER = b"\xff" * SHARE_BYTES
"""As long as a share, but no number of the field."""
