"""What a key list says: whose keys are there, who masks with whom, who holds whose shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import BadKey, BadKeyList, MalformedFrame
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.messages import Advertise, KeyList, key_list_digest
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame


@dataclass(frozen=True, eq=False)
class KeyTable:
    """The keys in a list, by place, and the graph that follows from the draws in it (SA-0.6)."""

    adverts: Mapping[int, Advertise]
    graph: Neighbourhood
    digest: bytes

    @cached_property
    def present(self) -> frozenset[int]:
        """The places of the sites in the list."""
        return frozenset(self.adverts)

    @cached_property
    def _drawn_by(self) -> Mapping[int, frozenset[int]]:
        drawn_by: dict[int, set[int]] = {place: set() for place in self.adverts}
        for place, advert in self.adverts.items():
            for other in advert.drawn & self.present:
                drawn_by[other].add(place)
        return {place: frozenset(others) for place, others in drawn_by.items()}

    def holders(self, place: int) -> frozenset[int]:
        """Those in the list who get shares of this site's secrets."""
        return self.present if self.graph.complete else self.adverts[place].drawn & self.present

    def recipients(self, place: int) -> tuple[int, ...]:
        """The holders other than the site itself, in the order in which their shares are sent."""
        return tuple(sorted(self.holders(place) - {place}))

    def owners(self, place: int) -> frozenset[int]:
        """Those in the list whose shares this site holds."""
        return self.present if self.graph.complete else self._drawn_by[place]

    def neighbours(self, place: int) -> frozenset[int]:
        """Those in the list with whom this site shares a mask."""
        if self.graph.complete:
            return self.present - {place}
        return self.holders(place) | self._drawn_by[place]


def open_advertise(data: Buffer, setting: Setting) -> tuple[Frame, Advertise]:
    """A site's *advertise* frame and what it carries; raises a :class:`PeerError` naming it."""
    graph, sites = setting.terms.graph, setting.terms.sites
    frame = open_frame(
        data,
        roster=setting.roster,
        expect=setting.binding,
        limits={Kind.ADVERTISE: Advertise.length(graph, sites)},
    )
    expect_sequence(frame, 0)
    advert = Advertise.decode(frame.body, sender=frame.sender, graph=graph, sites=sites)
    # SA-1.6
    if setting.places[frame.sender] in advert.drawn:
        raise MalformedFrame(frame.sender, "it drew itself")
    return frame, advert


def read_key_list(body: Buffer, setting: Setting, me: str, advertised: bytes) -> KeyTable:
    """The table in the combiner's list, checked by site ``me``, whose own frame is ``advertised``.

    Raises :class:`PeerError` of the kind and in the name of whoever is to blame.
    """
    terms = setting.terms
    listed = KeyList.decode(body, sender=COMBINER, graph=terms.graph, sites=terms.sites)
    # SA-2.3: this site's key is the one it sent.
    if listed.frames[setting.places[me]] != advertised:
        raise BadKeyList(COMBINER, "this site's own frame was replaced or left out")
    # SA-2.1: too short a list would become a sum over too few.
    present = sum(frame is not None for frame in listed.frames)
    if present < terms.threshold:
        raise BadKeyList(COMBINER, f"keys of {present} sites, the threshold is {terms.threshold}")
    adverts: dict[int, Advertise] = {}
    for place, inner in enumerate(listed.frames):
        if inner is None:
            continue
        # SA-2.2: each key comes in its site's own signed frame, for this very sum.
        frame, adverts[place] = open_advertise(inner, setting)
        # SA-2.1: every frame in its site's place.
        if frame.sender != setting.names[place]:
            raise BadKeyList(COMBINER, f"the frame in place {place} is another site's")
    check_distinct(adverts, setting)
    return KeyTable(adverts, terms.graph, key_list_digest(body))


def check_distinct(adverts: Mapping[int, Advertise], setting: Setting) -> None:
    """Raise :class:`BadKey` when a key stands in the table twice (SA-2.4)."""
    seen: set[bytes] = set()
    for place, advert in adverts.items():
        for key in (advert.mask_key, advert.share_key):
            if key in seen:
                raise BadKey(setting.names[place], "one of its keys stands in the list already")
            seen.add(key)
