"""A genuine sum and its sessions at every stage, and ways to change its frames.

Changed frames are signed again with the true keys, as a combiner or a site can that does what it
likes. A :class:`Script` is an input of the fuzzer, read as numbers.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from harness import GENEROUS, edited

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Accumulator
from fedbcs_protocols.secagg import (
    CombinerSession,
    Guard,
    MemoryMarks,
    NoJournal,
    Setting,
    SiteSession,
    Terms,
)
from fedbcs_protocols.secagg.ephemeral import Ephemeral
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.messages import Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.sharing import ShareBox, SharePair
from fedbcs_protocols.secagg.transcript import consistency_frame, transcript
from fedbcs_protocols.sitesets import encode_set
from fedbcs_protocols.wire import Frame, decode, seal

STAGES = ("advertise", "share", "masked_input", "consistency", "unmask")
BITS, COUNT = 12, 9


class SmallGraph(Terms):
    """Seven sites in a graph of the kind that a study has only above 32 sites."""

    @property
    def graph(self) -> Neighbourhood:
        return Neighbourhood(4, 3, complete=False)


def fixed(label: str) -> bytes:
    return hashlib.sha256(b"fuzz " + label.encode()).digest()


class World:
    """A genuine sum, and its sessions as they were before each stage.

    With ``leaver`` the last site is gone after *advertise*; such a world is for sites' targets.
    """

    def __init__(self, terms: Terms, *, leaver: bool = False) -> None:
        names = [f"site{place}" for place in range(terms.sites)]
        self.identities = {name: Identity.from_secret_bytes(fixed(name)) for name in names}
        self.boss = Identity.from_secret_bytes(fixed("combiner"))
        self.names = tuple(names)
        self.setting = Setting(
            {name: identity.public for name, identity in self.identities.items()},
            self.boss.public,
            Binding(fixed("study"), 3, 1, 1, fixed("state")),
            terms,
            BITS,
            COUNT,
            fixed("group key"),
        )
        self.vector = np.arange(COUNT, dtype=np.uint32)
        self.frames: dict[str, dict[str, bytes]] = {}
        """The sites' frames by stage."""
        self.requests: dict[str, dict[str, bytes]] = {}
        """The frames that they answer, by stage."""
        self.before: dict[str, SiteSession] = {}
        """The first site's session before each stage."""
        self.held: dict[str, dict[int, SharePair]] = {}
        """The shares that each site holds before the last stage."""
        self.combiners: dict[str, CombinerSession] = {}
        self.share_keys: dict[str, X25519PrivateKey] = {}
        sites = {name: self._site(name) for name in names}
        combiner = CombinerSession(self.setting, identity=self.boss, journal=NoJournal())
        for stage in STAGES:
            self.before[stage] = fork_site(sites[names[0]])
            self.combiners[stage] = fork_combiner(combiner)
            self.requests[stage] = dict(combiner.requests)
            self.held = {name: dict(site._held) for name, site in sites.items()}
            self.frames[stage] = {
                name: answer(sites[name], stage, combiner.requests.get(name, b""), self.vector)
                for name in names[: -1 if leaver and stage != "advertise" else None]
            }
            for frame in self.frames[stage].values():
                combiner.receive(frame)
            combiner.close()
        self.total = combiner.total()
        self.sum_frame = combiner.sum_frame()
        self.signed = sites[names[0]].transcript
        self.table = self.before["masked_input"]._the_table()

    def _site(self, name: str) -> SiteSession:
        place = self.names.index(name)
        guard = Guard(frozenset(i.public.fingerprint for i in self.identities.values()))
        site = SiteSession(
            self.setting,
            identity=self.identities[name],
            name=name,
            guard=guard,
            marks=MemoryMarks(),
        )
        keys = [
            X25519PrivateKey.from_private_bytes(fixed(f"{name} {w}")) for w in ("mask", "share")
        ]
        self.share_keys[name] = keys[1]
        graph, sites = self.setting.terms.graph, self.setting.terms.sites
        drawn = () if graph.complete else tuple((place + 1 + i) % sites for i in range(graph.size))
        site._seed_for_tests(Ephemeral(*keys, fixed(f"{name} seed")), tuple(sorted(drawn)))
        return site


def answer(site: SiteSession, stage: str, request: bytes, vector: np.ndarray) -> bytes:
    match stage:
        case "advertise":
            return site.advertise()
        case "share":
            return site.share(request)
        case "masked_input":
            return site.masked_input(request, vector)
        case "consistency":
            return site.consistency(request)
        case _:
            return site.unmask(request)


def fork_site(site: SiteSession) -> SiteSession:
    """A session of its own in the same state."""
    twin = copy.copy(site)
    twin._held = dict(site._held)
    twin._marks = MemoryMarks()
    kept = site._marks.read()
    if kept is not None:
        twin._marks.write(kept)
    return twin


def fork_combiner(combiner: CombinerSession) -> CombinerSession:
    twin = copy.copy(combiner)
    twin._came = dict(combiner._came)
    twin._adverts = dict(combiner._adverts)
    twin._keys = set(combiner._keys)
    twin._accumulator = Accumulator(COUNT, BITS)
    twin._accumulator._total[:] = combiner._accumulator._total
    twin._accumulator.added = combiner._accumulator.added
    return twin


# Changes of a genuine body -----------------------------------------------------------------------


def places_in(byte: int, sites: int) -> frozenset[int]:
    return frozenset(place for place in range(sites) if byte >> place & 1)


class Script:
    """Numbers from an input; zeros when it has ended."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def byte(self) -> int:
        return self.bytes(1)[0]

    def bytes(self, size: int) -> bytes:
        piece, self.rest = self.rest[:size], self.rest[size:]
        return piece.ljust(size, b"\0")


def built_key_list(world: World, script: Script) -> bytes:
    """Each place gets a genuine frame of some place, none, or one that its site signed anew."""
    frames: list[bytes | None] = []
    genuine = world.frames["advertise"]
    for name in world.names:
        choice = script.byte()
        if choice < 128:
            frames.append(genuine[name])
        elif choice < 160:
            frames.append(None)
        elif choice < 184:
            frames.append(genuine[world.names[script.byte() % len(world.names)]])
        else:
            frame = decode(genuine[name], GENEROUS)
            if choice < 192:
                body = other_keys(world, name, script)
            else:
                body = edited(bytes(frame.body), script.bytes(4 * (choice % 4)))
            sequence = int(choice % 16 == 15)
            again = replace(frame, body=body, sequence=sequence)
            frames.append(seal(again, world.identities[name]))
    return KeyList(tuple(frames)).encode()


def built_delivery(world: World, script: Script) -> bytes:
    """Any set, with genuine, wrong or foreign shares that open."""
    sites = world.setting.terms.sites
    sharers = places_in(script.byte(), sites)
    genuine = Delivery.decode(
        decode(world.requests["masked_input"][world.names[0]], GENEROUS).body,
        sender=COMBINER,
        sites=sites,
    )
    owners = sorted((world.table.owners(0) & genuine.sharers) - {0})
    pieces = dict(zip(owners, genuine.sealed, strict=True))
    sealed = []
    for owner in owners:
        if owner not in sharers:
            continue
        choice = script.byte()
        if choice < 192:
            sealed.append(pieces[owner])
            continue
        name = world.names[owner]
        box = ShareBox(world.share_keys[name], world.setting, world.table, owner)
        size = 33 if choice % 4 else choice % 64
        sealed.append(box._seal(0, SharePair(script.bytes(size), script.bytes(33))))
    return Delivery(sharers, tuple(sealed)).encode(sites)


def built_certificate(world: World, script: Script) -> bytes:
    """Any digest, key's name and sets, with true signatures of the chosen signers."""
    setting, sites = world.setting, world.setting.terms.sites
    digest = world.table.digest if script.byte() < 192 else script.bytes(32)
    if script.byte() >= 192:
        setting = replace(setting, key_id=script.bytes(32))
    sharers, survivors, signers = (places_in(script.byte() ^ 0xFF, sites) for _ in range(3))
    over = transcript(setting, digest, sharers, survivors)
    signatures = {}
    for place in signers:
        name = world.names[place]
        frame = consistency_frame(setting, name, over)
        signatures[place] = world.identities[name].sign(frame.signed_message())
    return Certificate(digest, setting.key_id, sharers, survivors, signatures).encode(sites)


def built_survivors(world: World, script: Script) -> bytes:
    sites = world.setting.terms.sites
    return encode_set(places_in(script.byte(), sites), sites)


BUILDERS: dict[str, Callable[[World, Script], bytes]] = {
    "share": built_key_list,
    "masked_input": built_delivery,
    "consistency": built_survivors,
    "unmask": built_certificate,
}


def forged(genuine: Frame, world: World, stage: str, data: bytes, by: Identity) -> bytes:
    """A frame as ``genuine``, changed as ``data`` says, under the true signature of ``by``."""
    how = data[0] if data else 0
    if how < 64 or stage not in BUILDERS:
        body = edited(bytes(genuine.body), data[1:])
    elif how < 80:
        body = data[1:]
    else:
        body = BUILDERS[stage](world, Script(data[1:]))
    sequence = genuine.sequence + (how % 32 == 31)
    return seal(replace(genuine, body=body, sequence=sequence), by)


def other_keys(world: World, name: str, script: Script) -> bytes:
    """An *advertise* body with keys, commitment and draw of sites that the script chooses."""
    bodies = [bytes(decode(world.frames["advertise"][n], GENEROUS).body) for n in world.names]
    mine = world.names.index(name)
    parts = []
    for start, end in ((0, 32), (32, 64), (64, 96), (96, None)):
        choice = script.byte()
        body = bodies[(mine + choice // 2) % len(bodies)]
        swapped = choice % 2 and end is not None and end <= 64
        parts.append(body[32 - start : 64 - start] if swapped else body[start:end])
    return b"".join(parts)


def honest_frame(world: World, combiner: CombinerSession, stage: str, name: str) -> bytes:
    """The frame of a site that goes along with whatever the combiner says."""
    if stage == "consistency":
        frame = consistency_frame(world.setting, name, combiner._transcript)
        return seal(frame, world.identities[name])
    genuine = world.frames[stage][name]
    if stage != "unmask":
        return genuine
    held = world.held[name]
    some = next(iter(held.values()))
    owners = sorted(combiner._table.owners(world.names.index(name)) & combiner._sharers)
    pairs = ((owner, held.get(owner, some)) for owner in owners)
    body = b"".join(
        pair.seed if owner in combiner._survivors else pair.mask_key for owner, pair in pairs
    )
    return seal(replace(decode(genuine, GENEROUS), body=body), world.identities[name])
