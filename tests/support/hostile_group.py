"""The cast of a group's key stage, the stage frame by frame, and what a combiner's lies need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.framelist import decode_frames, encode_frames
from fedbcs_protocols.group import GROUP_PHASE, Group, KeyRing, KeyStage, MemoryKeys, SiteKeys
from fedbcs_protocols.group.messages import Dealt, ready_limit
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import Frame, Kind, decode, seal

ANY = dict.fromkeys(Kind, 1 << 20)
STUDY = hashlib.sha256(b"study").digest()


def identity(label: str) -> Identity:
    return Identity.from_secret_bytes(hashlib.sha256(b"test " + label.encode()).digest())


@dataclass(frozen=True)
class GroupCast:
    """Identities of n sites and a combiner, what they keep, and the round that they are in."""

    sites: dict[str, Identity]
    boss: Identity
    group: Group
    control: Binding
    keepers: dict[str, MemoryKeys] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return self.group.names

    @property
    def binding(self) -> Binding:
        """Of the frames of the key stage."""
        return replace(self.control, attempt=0, phase=GROUP_PHASE)

    def at(self, round: int) -> GroupCast:
        """The same cast, and what its sites keep, in another round."""
        state = hashlib.sha256(b"state %d" % round).digest()
        return replace(self, control=replace(self.control, round=round, state_digest=state))

    def site(self, name: str) -> SiteKeys:
        """A new process of a site; what it keeps lasts as long as the cast."""
        return SiteKeys(
            self.group,
            identity=self.sites[name],
            name=name,
            study_digest=self.control.study_digest,
            keeper=self.keepers.setdefault(name, MemoryKeys()),
        )

    def ring(self, name: str) -> KeyRing:
        return self.site(name).ring

    def combiner(self) -> KeyStage:
        return KeyStage(self.group, identity=self.boss, control=self.control)

    def forge(self, kind: Kind, sequence: int, body: bytes, **changes: Any) -> bytes:
        """A frame of the key stage under the combiner's true signature."""
        frame = Frame(kind, self.binding, COMBINER, sequence, body)
        return seal(replace(frame, **changes), self.boss)

    def signed(self, name: str, frame: Frame, **changes: Any) -> bytes:
        """A frame under a site's true signature."""
        return seal(replace(frame, **changes), self.sites[name])

    def present(self, frames: Mapping[str, bytes] | Sequence[bytes | None]) -> bytes:
        """The body of *present* with these frames, by name or by place."""
        if isinstance(frames, Mapping):
            frames = [frames.get(name) for name in self.names]
        return encode_frames(frames)

    def listed(self, body: bytes) -> list[bytes | None]:
        """The frames in a list of *ready* frames."""
        sites, longest = self.group.sites, ready_limit(self.group.sites)
        return list(decode_frames(body, sender="a", sites=sites, longest=longest, what="list"))


def make_group(sites: int = 4, threshold: int | None = None, rekey_every: int = 3) -> GroupCast:
    """A cast of ``sites`` in round 7; at least two thirds of them make a stage."""
    cast = {f"site{i}": identity(f"site{i}") for i in range(sites)}
    boss = identity("combiner")
    roster = {name: one.public for name, one in cast.items()}
    group = Group(roster, boss.public, threshold or -(-2 * sites // 3), rekey_every)
    control = Binding(STUDY, round=7, attempt=0, phase=0, state_digest=bytes(32))
    return GroupCast(cast, boss, group, control).at(7)


class Stage:
    """A key stage among the sites that are present; ``frames`` are all that crossed the network."""

    def __init__(self, cast: GroupCast, names: Iterable[str] | None = None) -> None:
        self.cast = cast
        self.sites = {name: cast.site(name) for name in (cast.names if names is None else names)}
        self.combiner = cast.combiner()
        self.frames: list[bytes] = []
        self.readies: dict[str, bytes] = {}
        self.present = self.deal = self.dealt = b""

    def _sent(self, frame: bytes) -> bytes:
        self.frames.append(frame)
        return frame

    def ready(self) -> Stage:
        for name, site in self.sites.items():
            self.readies[name] = self._sent(site.ready(self.cast.control))
            self.combiner.ready(name, self.readies[name])
        return self

    def ask(self) -> Stage:
        """Up to the *present* frame; nothing follows if nobody has to deal."""
        if self.combiner.dealer is not None:
            self.present = self._sent(self.combiner.present_frame())
        return self

    def make(self) -> Stage:
        """Up to the *dealt* frame."""
        dealer = self.combiner.dealer
        if dealer is not None:
            self.deal = self._sent(self.sites[dealer].deal(self.present, self.cast.control))
            self.combiner.dealt(self.deal)
            self.dealt = self._sent(self.combiner.dealt_frame())
        return self

    def take(self, names: Iterable[str] | None = None) -> Stage:
        for name in self.combiner.waiting if names is None else names:
            answer = self.sites[name].take(self.dealt, self.cast.control)
            self.combiner.taken(name, self._sent(answer))
        return self

    def run(self) -> Stage:
        return self.ready().ask().make().take()

    # What a lie is made of ---------------------------------------------------------------------

    @property
    def present_body(self) -> bytes:
        return bytes(decode(self.present, ANY).body)

    @property
    def dealt_body(self) -> Dealt:
        body = decode(self.dealt, ANY).body
        return Dealt.decode(body, sender="a", sites=self.cast.group.sites)

    def dealt_with(self, present: bytes | None = None, deal: bytes | None = None) -> bytes:
        """The *dealt* frame with another list or another deal, signed by the combiner."""
        true = self.dealt_body
        body = Dealt(true.present if present is None else present, deal or true.deal).encode()
        return self.cast.forge(Kind.DEALT, 1, body)
