"""The combiner's side of the group's keys: passes signed frames on, and never holds a key."""

from __future__ import annotations

from dataclasses import replace

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import BadKey, Inconsistent, LocalError, TooFewSites, UnexpectedFrame
from fedbcs_protocols.framelist import encode_frames
from fedbcs_protocols.group.messages import Deal, Dealt, Taken, helped_length
from fedbcs_protocols.group.setting import GROUP_PHASE, Group
from fedbcs_protocols.group.standing import Standing
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal


class KeyStage:
    """One round's key stage, from the *ready* frames of the sites that are present::

        ready(site, frame)              each site's word
        dealer, present_frame()         whom to ask for a deal, None if nobody need deal
        dealt(frame)                    the dealer's frame
        dealt_frame()                   for all others in ``waiting``
        taken(site, frame)              each one's answer
        holders, key_id, attempt        who can take part in a sum, under which key

    Frames that do not fit raise a :class:`PeerError` naming their sender and change nothing.
    """

    def __init__(self, group: Group, *, identity: Identity, control: Binding) -> None:
        if identity.public != group.combiner:
            raise LocalError("the identity is not the combiner's of this group")
        self._group = group
        self._identity = identity
        self._control = control
        self._binding = replace(control, attempt=0, phase=GROUP_PHASE)
        self._ready: dict[int, bytes] = {}
        self._standings: dict[int, Standing] = {}
        self._present = b""
        self._deal_frame = b""
        self._deal: Deal | None = None
        self._holders: set[int] = set()

    def ready(self, site: str, data: Buffer) -> bytes:
        """Take a site's *ready* frame, once; returns the annex in it."""
        place = self._group.names.index(site)
        said = self._group.open_ready(data, self._control, place=place)
        standing = said.standing
        if place in self._ready or self._present:
            raise UnexpectedFrame(site, "its ready frame comes twice, or too late")
        # GK-2.3: the second of two equal keys is its sender's fault alone.
        if any(s.exchange == standing.exchange for s in self._standings.values()):
            raise BadKey(site, "its exchange key is another site's")
        self._ready[place], self._standings[place] = bytes(data), standing
        return said.annex

    def without(self, site: str) -> None:
        """Go on as if ``site`` had never been ready: it did not deal, or its annex is refused."""
        place = self._group.names.index(site)
        del self._ready[place], self._standings[place]
        self._present = b""

    @property
    def sites(self) -> tuple[str, ...]:
        """Who is ready, in the order of the roster."""
        return tuple(self._group.names[place] for place in sorted(self._ready))

    @property
    def dealer(self) -> str | None:
        """The site that has to deal; None if all hold a key that goes on.

        Raises :class:`TooFewSites`.
        """
        if len(self._ready) < self._group.threshold:
            raise TooFewSites(
                f"{len(self._ready)} of {self._group.sites} sites are ready, the threshold is "
                f"{self._group.threshold}"
            )
        task = self._group.task(self._standings, self._control.round)
        if task is None:
            self._holders = set(self._ready)
            return None
        return self._group.names[task.dealer]

    def present_frame(self) -> bytes:
        """The signed list of *ready* frames, for the dealer (GK-3.1)."""
        self._present = self.present
        return self._seal(Kind.PRESENT, self._binding, 0, self._present)

    def dealt(self, data: Buffer) -> None:
        """Take the dealer's frame."""
        dealer = self.dealer
        if dealer is None or not self._present:
            raise LocalError("nobody was asked to deal")
        frame = self._open(data, dealer, Kind.DEAL, 0, Deal.limit(self._group.sites))
        self._deal = Deal.decode(frame.body, sender=dealer, sites=self._group.sites)
        self._deal_frame = bytes(data)
        self._holders = {self._group.names.index(dealer)}

    def dealt_frame(self) -> bytes:
        """The deal for all others, with the list that it is over (GK-3.1)."""
        body = Dealt(self._present, self._deal_frame).encode()
        return self._seal(Kind.DEALT, self._binding, 1, body)

    @property
    def present(self) -> bytes:
        """The list of *ready* frames."""
        return encode_frames([self._ready.get(place) for place in range(self._group.sites)])

    @property
    def waiting(self) -> tuple[str, ...]:
        """Those that have not said that they took the key."""
        return tuple(s for s in self.sites if self._group.names.index(s) not in self._holders)

    def taken(self, site: str, data: Buffer) -> None:
        """Take a site's answer."""
        frame = self._open(data, site, Kind.TAKEN, 1, Taken.LENGTH)
        taken = Taken.decode(frame.body, sender=site)
        # GK-3.7
        if site not in self.sites:
            raise UnexpectedFrame(site, "it takes a key in a stage that it is not in")
        if self._deal is None or (taken.epoch, taken.key_id) != (self._deal.epoch, self.key_id):
            raise Inconsistent(site, "it took another key than was dealt")
        self._holders.add(self._group.names.index(site))

    @property
    def holders(self) -> frozenset[str]:
        """The sites that can take part in a sum."""
        return frozenset(self._group.names[place] for place in self._holders)

    @property
    def key_id(self) -> bytes:
        """The name of the key of this round."""
        if self._deal is not None:
            return self._deal.key_id
        return self._standings[min(self._standings)].key_id

    @property
    def attempt(self) -> int:
        """The first attempt that all holders take part in, at most the last there is.

        A single site's word counts up to one more than the next one's (GK-2.6): it cannot use the
        numbers up.
        """
        wanted = sorted(self._standings[place].attempt for place in self._holders)
        highest, second = ([0, 0, *wanted])[-1], ([0, 0, *wanted])[-2]
        return min(highest, second + 1, MAX_ATTEMPTS - 1)

    def _open(self, data: Buffer, site: str, kind: Kind, sequence: int, limit: int) -> Frame:
        frame = open_frame(
            data,
            roster={site: self._group.roster[site]},
            expect=self._binding,
            limits={kind: limit},
        )
        expect_sequence(frame, sequence)
        return frame

    def _seal(self, kind: Kind, binding: Binding, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, binding, COMBINER, sequence, body), self._identity)


class Admission:
    """Keys for one site that was away, from one that was not (GK-4)::

        join_frame()            to the site that was away; its answer goes to
        help_frame(joining)     to a site that is up to date; its answer goes to
        admitted_frame(helped)  to the site that was away, which says what it took

    ``away`` is the binding of what the site that was away has to be told first, ``control`` that of
    the round that the others are in.
    """

    def __init__(
        self, group: Group, *, identity: Identity, site: str, away: Binding, control: Binding
    ) -> None:
        self._group = group
        self._identity = identity
        self._site = site
        self._away = replace(away, attempt=0, phase=GROUP_PHASE)
        self._here = replace(control, attempt=0, phase=GROUP_PHASE)

    def join_frame(self) -> bytes:
        return self._seal(Kind.JOIN, self._away, 2, b"")

    def help_frame(self, joining: Buffer) -> bytes:
        """Raises a :class:`PeerError` for an answer that does not fit."""
        limit = Standing.length(self._group.sites)
        self._check(joining, self._site, Kind.JOINING, self._away, 2, limit)
        return self._seal(Kind.HELP, self._here, 3, bytes(joining))

    def admitted_frame(self, helper: str, helped: Buffer) -> bytes:
        """Raises a :class:`PeerError` for an answer that does not fit."""
        limit = helped_length(self._group.sites)
        self._check(helped, helper, Kind.HELPED, self._here, 3, limit)
        return self._seal(Kind.ADMITTED, self._away, 4, bytes(helped))

    def admitted(self, data: Buffer) -> None:
        """Return when ``data`` is the site's word that it took keys."""
        self._check(data, self._site, Kind.TAKEN, self._away, 4, Taken.LENGTH)

    def _check(
        self, data: Buffer, site: str, kind: Kind, binding: Binding, sequence: int, limit: int
    ) -> None:
        frame = open_frame(
            data, roster={site: self._group.roster[site]}, expect=binding, limits={kind: limit}
        )
        expect_sequence(frame, sequence)

    def _seal(self, kind: Kind, binding: Binding, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, binding, COMBINER, sequence, body), self._identity)
