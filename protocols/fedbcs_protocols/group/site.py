"""A site's side of the group's keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import (
    BadKey,
    BadKeyList,
    Inconsistent,
    LocalError,
    Refused,
    UnexpectedFrame,
)
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.group.keyring import MAX_HELD, KeyKeeper, KeyRing
from fedbcs_protocols.group.messages import (
    Deal,
    Dealt,
    Ready,
    Taken,
    admitted_limit,
    decode_gift,
    encode_gift,
    helped_length,
    present_digest,
    ready_limit,
)
from fedbcs_protocols.group.secret import GroupSecret, key_id
from fedbcs_protocols.group.setting import GROUP_PHASE, Group
from fedbcs_protocols.group.standing import EPOCHS_A_ROUND, Standing, Task
from fedbcs_protocols.group.wrapping import DEAL_LABEL, GIFT_LABEL, Envelope
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import (
    Frame,
    Kind,
    decode,
    expect_sequence,
    open_frame,
    seal,
)

CheckAnnexes = Callable[[Mapping[str, bytes]], None]
"""Told the annexes in a list of *ready* frames, by site; raises a :class:`PeerError` to refuse."""


class SiteKeys:
    """A site's keys of one study: says where it stands, deals, takes, helps, and uses.

    The private half of the exchange key lives in this object only, from *ready* to the end of the
    key stage. Every change is kept durably before anything that follows from it leaves.
    ``check_annexes`` is asked about each list of *ready* frames before anything follows from it.

    Raises :class:`Refused` where what the site remembers forbids to go on, and another
    :class:`PeerError` for frames that do not fit; both change nothing.
    """

    def __init__(
        self,
        group: Group,
        *,
        identity: Identity,
        name: str,
        study_digest: bytes,
        keeper: KeyKeeper,
        check_annexes: CheckAnnexes | None = None,
    ) -> None:
        self._group = group
        self._identity = identity
        self._name = name
        self._me = group.names.index(name)
        self._study = study_digest
        self._keeper = keeper
        self._check_annexes = check_annexes
        self._exchange: X25519PrivateKey | None = None
        self._joining: tuple[Binding, X25519PrivateKey] | None = None
        self._ready = b""

    @property
    def ring(self) -> KeyRing:
        """What is kept."""
        ring = self._keeper.read() or KeyRing(self._study, self._group.sites)
        if ring.study_digest != self._study or ring.sites != self._group.sites:
            raise Refused("the keys kept here are another study's")
        return ring

    def keep(self, ring: KeyRing) -> None:
        """Write it durably."""
        self._keeper.write(ring)

    def ready(self, control: Binding, annex: bytes = b"") -> bytes:
        """The signed *ready* frame with a fresh exchange key (GK-2). Raises :class:`Refused`."""
        if len(annex) != self._group.annex_bytes:
            raise LocalError(f"an annex of {len(annex)} bytes, not {self._group.annex_bytes}")
        ring = self.ring
        ring.check_refusals()
        self._exchange = X25519PrivateKey.generate()
        standing = ring.standing(public_bytes(self._exchange), control.round)
        body = Ready(standing, annex).encode(self._group.sites)
        self._ready = self._seal(Kind.READY, control, 0, body)
        return self._ready

    def usable(self, round: int) -> GroupSecret:
        """The secret to use in this round (GK-5.1). Raises :class:`Refused`."""
        ring = self.ring
        ring.check_refusals()
        current = ring.current
        if current is None:
            raise Refused("this site has no key of the group's that it may use")
        if not 0 <= round - current.began < self._group.rekey_every:
            raise Refused(f"the group's key has served {self._group.rekey_every} round(s)")
        return current

    def deal(self, data: Buffer, control: Binding) -> bytes:
        """The signed *deal* frame, asked for by the combiner's *present* frame (GK-3)."""
        group, binding = self._group, _group_binding(control)
        frame = self._open(data, Kind.PRESENT, binding, 0, group.present_limit)
        standings, task = self._task(frame.body, control)
        # GK-2.5
        if task.dealer != self._me:
            raise BadKeyList(COMBINER, "it is not this site's turn to deal")
        ring, exchange, members = self.ring, self._private(), frozenset(standings)
        secret = GroupSecret.generate(task.epoch, control.round, members)
        about = (secret.epoch, secret.key_id, frame.body)
        wrapped = tuple(
            self._envelope(*about, binding, standings, self._me, to).seal(exchange, secret.secret)
            for to in sorted(members - {self._me})
        )
        # GK-5.3
        self.keep(ring.taking(secret))
        self._exchange = None
        deal = Deal(secret.epoch, secret.key_id, members, wrapped)
        return self._seal(Kind.DEAL, binding, 0, deal.encode(group.sites))

    def take(self, data: Buffer, control: Binding) -> bytes:
        """The signed *taken* frame, after the combiner's *dealt* frame (GK-3)."""
        group, binding = self._group, _group_binding(control)
        frame = self._open(data, Kind.DEALT, binding, 1, group.dealt_limit)
        dealt = Dealt.decode(
            frame.body, sender=COMBINER, sites=group.sites, annex_bytes=group.annex_bytes
        )
        standings, task = self._task(dealt.present, control)
        dealer = group.names[task.dealer]
        inner = open_frame(
            dealt.deal,
            roster={dealer: group.roster[dealer]},
            expect=binding,
            limits={Kind.DEAL: Deal.limit(group.sites)},
        )
        expect_sequence(inner, 0)
        deal = Deal.decode(inner.body, sender=dealer, sites=group.sites)
        # GK-3.5
        if deal.epoch != task.epoch or deal.members != frozenset(standings):
            raise Inconsistent(dealer, "it dealt something else than it had to")
        if task.dealer == self._me:
            raise UnexpectedFrame(COMBINER, "it is this site's own deal")
        place = sorted(deal.members - {task.dealer}).index(self._me)
        envelope = self._envelope(
            deal.epoch, deal.key_id, dealt.present, binding, standings, task.dealer, self._me
        )
        raw = envelope.open(self._private(), deal.wrapped[place])
        if key_id(raw) != deal.key_id:
            raise Inconsistent(dealer, "the key is not the one that it names")
        secret = GroupSecret(deal.epoch, control.round, deal.members, raw)
        self.keep(self.ring.taking(secret))
        self._exchange = None
        body = Taken(secret.epoch, secret.key_id).encode()
        return self._seal(Kind.TAKEN, binding, 1, body)

    def join(self, data: Buffer) -> bytes:
        """The signed *joining* frame of a site that was away (GK-4.1).

        The state that the frame names is the combiner's word; nothing but a fresh key follows.
        """
        named = decode(data, {Kind.JOIN: 0}).binding
        binding = _group_binding(replace(named, study_digest=self._study))
        self._open(data, Kind.JOIN, binding, 2, 0)
        # A key of its own: that of *ready* may be waited for at this moment.
        exchange = X25519PrivateKey.generate()
        self._joining = binding, exchange
        standing = self.ring.standing(public_bytes(exchange), binding.round)
        return self._seal(Kind.JOINING, binding, 2, standing.encode(self._group.sites))

    def help(self, data: Buffer, control: Binding) -> bytes:
        """The signed *helped* frame with this site's keys for one that was away (GK-4.2)."""
        group, binding = self._group, _group_binding(control)
        frame = self._open(data, Kind.HELP, binding, 3, ready_limit(group.sites))
        asking = decode(frame.body, {Kind.JOINING: Standing.length(group.sites)})
        # GK-4.2: it may be behind, but not ahead.
        expect = replace(asking.binding, study_digest=binding.study_digest, phase=GROUP_PHASE)
        inner = open_frame(
            frame.body,
            roster={n: key for n, key in group.roster.items() if n != self._name},
            expect=expect,
            limits={Kind.JOINING: Standing.length(group.sites)},
        )
        expect_sequence(inner, 2)
        if inner.binding.round > control.round:
            raise Inconsistent(inner.sender, "it asks for keys and is ahead of this site")
        standing = Standing.decode(
            inner.body, sender=inner.sender, sites=group.sites, round=inner.binding.round
        )
        exchange = X25519PrivateKey.generate()
        ring = self.ring
        ring.check_refusals()
        envelope = Envelope(
            GIFT_LABEL,
            expect,
            (self._name, inner.sender),
            (public_bytes(exchange), standing.exchange),
            (),
        )
        if ring.current is None:
            raise Refused("this site has no key of the group's to pass on")
        sealed = envelope.seal(exchange, encode_gift(ring.epoch, ring.secrets, group.sites))
        return self._seal(Kind.HELPED, binding, 3, envelope.keys[0] + sealed)

    def admit(self, data: Buffer) -> bytes:
        """The signed *taken* frame of a site that was away, after *admitted* (GK-4.4)."""
        if self._joining is None:
            raise UnexpectedFrame(COMBINER, "keys for a site that did not ask for any")
        group, (binding, exchange) = self._group, self._joining
        longest = helped_length(group.sites)
        frame = self._open(data, Kind.ADMITTED, binding, 4, admitted_limit(group.sites))
        expect = decode(frame.body, {Kind.HELPED: longest}).binding
        inner = open_frame(
            frame.body,
            roster={n: key for n, key in group.roster.items() if n != self._name},
            expect=replace(expect, study_digest=binding.study_digest, phase=GROUP_PHASE),
            limits={Kind.HELPED: longest},
        )
        expect_sequence(inner, 3)
        body = bytes(inner.body)
        if len(body) != longest:
            raise BadKey(inner.sender, f"keys of {len(body)} bytes, not {longest}")
        envelope = Envelope(
            GIFT_LABEL,
            binding,
            (inner.sender, self._name),
            (body[:32], public_bytes(exchange)),
            (),
        )
        plain = envelope.open(exchange, body[32:])
        epoch, secrets = decode_gift(plain, group.sites, sender=inner.sender)
        # GK-4.4: one helper that lies must not make this site unfit. The round is its own word, but
        # the combiner took its frame for one of the current round.
        latest = expect.round
        if (
            latest > binding.round + MAX_HELD
            or epoch > EPOCHS_A_ROUND * (latest + 2)
            or any(s.began > latest for s in secrets)
        ):
            raise Inconsistent(inner.sender, "the keys are of an epoch that cannot be yet")
        ring = self.ring
        # A site whose deals were lost may be ahead: it stays there, and needs the keys as well.
        ring = ring.joining(secrets, max(epoch, ring.epoch) if secrets else epoch)
        self.keep(ring)
        self._joining = None
        current = ring.current
        taken = Taken(ring.epoch, current.key_id if current else bytes(32))
        return self._seal(Kind.TAKEN, binding, 4, taken.encode())

    def end_stage(self) -> None:
        """The sum has begun: no deal of this stage is taken any more (GK-3.3)."""
        self._exchange = None

    def burn(self, key_id: bytes) -> None:
        """Give up a key after a sum under it was refused (GK-6.2); durable when this returns."""
        self.keep(self.ring.refusing(key_id))

    def _task(self, present: Buffer, control: Binding) -> tuple[Mapping[int, Standing], Task]:
        self.ring.check_refusals()
        said = self._group.read_present(present, control)
        # GK-3.3
        if not self._ready or self._group.present_frames(present)[self._me] != self._ready:
            raise BadKeyList(COMBINER, "this site's own frame was replaced or left out")
        # GK-3.8
        if self._check_annexes is not None:
            self._check_annexes({self._group.names[place]: r.annex for place, r in said.items()})
        standings = {place: ready.standing for place, ready in said.items()}
        task = self._group.task(standings, control.round)
        if task is None:
            raise UnexpectedFrame(COMBINER, "nobody needs a key")
        return standings, task

    def _envelope(
        self,
        epoch: int,
        key_id: bytes,
        present: Buffer,
        binding: Binding,
        standings: Mapping[int, Standing],
        dealer: int,
        to: int,
    ) -> Envelope:
        names = self._group.names
        return Envelope(
            DEAL_LABEL,
            binding,
            (names[dealer], names[to]),
            (standings[dealer].exchange, standings[to].exchange),
            (epoch, key_id, present_digest(present)),
        )

    def _private(self) -> X25519PrivateKey:
        if self._exchange is None:
            raise UnexpectedFrame(COMBINER, "a key comes that this site is not waiting for")
        return self._exchange

    def _open(self, data: Buffer, kind: Kind, binding: Binding, sequence: int, limit: int) -> Frame:
        frame = open_frame(
            data, roster={COMBINER: self._group.combiner}, expect=binding, limits={kind: limit}
        )
        expect_sequence(frame, sequence)
        return frame

    def _seal(self, kind: Kind, binding: Binding, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, binding, self._name, sequence, body), self._identity)

    def __repr__(self) -> str:
        return f"SiteKeys({self._name}, secrets redacted)"


def _group_binding(control: Binding) -> Binding:
    return replace(control, attempt=0, phase=GROUP_PHASE)
