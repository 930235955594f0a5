"""Known answers of key stages (GK): every secret, key and frame of three stages and a return.

Hostile frames follow, for a site that waits for the deal of the first stage. What each must raise
is written here by hand, not observed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from known_values import Json, binding_json, fixed_bytes

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.framelist import encode_frames
from fedbcs_protocols.group import GROUP_PHASE, Admission, Group, KeyStage, MemoryKeys, SiteKeys
from fedbcs_protocols.group.messages import Deal, Dealt
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.wire import Frame, Kind, decode, seal

NAMES = ("aachen", "bern", "cork", "delft")
THRESHOLD, REKEY_EVERY = 3, 3
IDENTITIES = {name: Identity.from_secret_bytes(fixed_bytes(name)) for name in NAMES}
BOSS = Identity.from_secret_bytes(fixed_bytes("combiner"))
GROUP = Group({n: i.public for n, i in IDENTITIES.items()}, BOSS.public, THRESHOLD, REKEY_EVERY)
ANY = dict.fromkeys(Kind, 1 << 20)
VICTIM = "cork"


def control_of(round: int) -> Binding:
    state = hashlib.sha256(b"state %d" % round).digest()
    return Binding(bytes(range(32)), round, 0, 0, state)


@contextmanager
def fixed(exchange: str, secret: str = "") -> Iterator[str]:
    """In here, keys and secrets are those of the labels."""
    private = X25519PrivateKey.from_private_bytes(fixed_bytes(f"exchange {exchange}"))
    with ExitStack() as stack:
        stack.enter_context(
            mock.patch.object(X25519PrivateKey, "generate", staticmethod(lambda: private))
        )
        stack.enter_context(
            mock.patch("secrets.token_bytes", return_value=fixed_bytes(f"group {secret}"))
        )
        yield fixed_bytes(f"exchange {exchange}").hex()


@dataclass
class Stage:
    """One stage: who is there, and every frame."""

    what: str
    round: int
    keepers: Mapping[str, MemoryKeys]
    names: tuple[str, ...] = NAMES
    sites: dict[str, SiteKeys] = field(default_factory=dict)
    exchange: dict[str, str] = field(default_factory=dict)
    ready: dict[str, bytes] = field(default_factory=dict)
    taken: dict[str, bytes] = field(default_factory=dict)
    secret: str = ""
    present = deal = dealt = b""

    def __post_init__(self) -> None:
        self.control = control_of(self.round)
        self.combiner = KeyStage(GROUP, identity=BOSS, control=self.control)
        for name in self.names:
            self.sites[name] = _site(name, self.keepers[name])
            with fixed(f"{name} {self.what}") as self.exchange[name]:
                self.ready[name] = self.sites[name].ready(self.control)
            self.combiner.ready(name, self.ready[name])

    def run(self) -> Stage:
        dealer = self.combiner.dealer
        if dealer is None:
            return self
        self.present = self.combiner.present_frame()
        self.secret = fixed_bytes(f"group {self.what}").hex()
        with fixed("", self.what):
            self.deal = self.sites[dealer].deal(self.present, self.control)
        self.combiner.dealt(self.deal)
        self.dealt = self.combiner.dealt_frame()
        return self

    def take(self) -> Stage:
        for name in self.combiner.waiting:
            self.taken[name] = self.sites[name].take(self.dealt, self.control)
            self.combiner.taken(name, self.taken[name])
        return self

    def json(self) -> Json:
        return {
            "what": self.what,
            "control": binding_json(self.control),
            "exchange_secrets": self.exchange,
            "ready": {name: frame.hex() for name, frame in self.ready.items()},
            "dealer": self.combiner.dealer,
            "secret": self.secret,
            "present": self.present.hex(),
            "deal": self.deal.hex(),
            "dealt": self.dealt.hex(),
            "taken": {name: frame.hex() for name, frame in self.taken.items()},
        }


def _site(name: str, keeper: MemoryKeys) -> SiteKeys:
    return SiteKeys(
        GROUP,
        identity=IDENTITIES[name],
        name=name,
        study_digest=bytes(range(32)),
        keeper=keeper,
    )


# Hostile frames ----------------------------------------------------------------------------------


def _dealt(stage: Stage, present: bytes, deal: bytes, **changes: Any) -> bytes:
    binding = replace(stage.control, phase=GROUP_PHASE)
    frame = Frame(Kind.DEALT, binding, COMBINER, 1, Dealt(present, deal).encode())
    return seal(replace(frame, **changes), BOSS)


def _resigned(frame: bytes, name: str, **changes: Any) -> bytes:
    return seal(replace(decode(frame, ANY), **changes), IDENTITIES[name])


def _lies(stage: Stage) -> Iterator[tuple[str, str, bytes]]:
    """Frames for the victim, which waits for *dealt*."""
    body = decode(stage.dealt, ANY).body
    dealt = Dealt.decode(body, sender=COMBINER, sites=len(NAMES))
    deal = Deal.decode(decode(dealt.deal, ANY).body, sender="aachen", sites=len(NAMES))
    ready = stage.ready

    def listed(**frames: bytes | None) -> bytes:
        merged = {**ready, **frames}
        return _dealt(stage, encode_frames([merged.get(name) for name in NAMES]), dealt.deal)

    def other(change: Any, signer: str = "aachen") -> bytes:
        body = replace(deal, **change).encode(len(NAMES))
        return _dealt(stage, dealt.present, _resigned(dealt.deal, signer, body=body))

    first, second, third = deal.wrapped
    bern = decode(ready["bern"], ANY)
    with fixed("another process of bern"):
        twin = _site("bern", MemoryKeys()).ready(stage.control)
    dull = bytes(bern.body[:43]) + bytes(32) + bytes(bern.body[75:])
    mine = bytes(decode(ready["cork"], ANY).body[43:75])
    copied = bytes(bern.body[:43]) + mine + bytes(bern.body[75:])
    far = b"\2" + (2**32 - 1).to_bytes(4, "big") + bytes(bern.body[5:])

    yield "the true frame", "ok", stage.dealt
    yield "a byte more", "MalformedFrame", stage.dealt + b"\0"
    yield (
        "another site's signature",
        "BadSignature",
        seal(decode(stage.dealt, ANY), IDENTITIES["bern"]),
    )
    for what, change in {
        "another round": {"round": 6},
        "the first phase": {"phase": 1},
        "another study": {"study_digest": bytes(32)},
        "another state": {"state_digest": bytes(32)},
    }.items():
        binding = replace(stage.control, **{"phase": GROUP_PHASE, **change})
        yield what, "WrongBinding", _dealt(stage, dealt.present, dealt.deal, binding=binding)
    yield "another number", "WrongBinding", _dealt(stage, dealt.present, dealt.deal, sequence=0)
    yield "the victim left out", "BadKeyList", listed(cork=None)
    yield "two sites only", "BadKeyList", listed(bern=None, delft=None)
    yield "two frames swapped", "UnknownSender", listed(bern=ready["delft"], delft=ready["bern"])
    yield "a frame of the combiner's making", "BadSignature", listed(bern=seal(bern, BOSS))
    yield (
        "a frame with another number",
        "WrongBinding",
        listed(bern=_resigned(ready["bern"], "bern", sequence=1)),
    )
    yield (
        "a frame of another round",
        "WrongBinding",
        listed(bern=_resigned(ready["bern"], "bern", binding=control_of(stage.round - 1))),
    )
    yield "a key of low order", "BadKey", listed(bern=_resigned(ready["bern"], "bern", body=dull))
    yield (
        "a copied key",
        "BadKey",
        listed(delft=None, bern=_resigned(ready["bern"], "bern", body=copied)),
    )
    yield (
        "an epoch too far",
        "MalformedFrame",
        listed(bern=_resigned(ready["bern"], "bern", body=far)),
    )
    yield "a site less", "Inconsistent", listed(delft=None)
    yield "another frame of a site", "BadShare", listed(bern=twin)
    yield (
        "another dealer",
        "UnknownSender",
        _dealt(stage, dealt.present, _resigned(dealt.deal, "bern", sender="bern")),
    )
    yield "a deal signed by another", "BadSignature", other({}, "bern")
    yield "another epoch", "Inconsistent", other({"epoch": deal.epoch + 1})
    yield "epoch 0", "Inconsistent", other({"epoch": 0})
    yield (
        "fewer members",
        "Inconsistent",
        other({"members": deal.members - {3}, "wrapped": (first, second)}),
    )
    yield "a key too few", "MalformedFrame", other({"wrapped": (first, second)})
    yield "another's ciphertext", "BadShare", other({"wrapped": (second, first, third)})
    yield "a ciphertext of zeros", "BadShare", other({"wrapped": (first, bytes(48), third)})
    yield "another name", "BadShare", other({"key_id": fixed_bytes("name of a group key")})
    yield (
        "a deal of another number",
        "WrongBinding",
        _dealt(stage, dealt.present, _resigned(dealt.deal, "aachen", sequence=1)),
    )
    yield "a deal cut short", "MalformedFrame", _dealt(stage, dealt.present, dealt.deal[:-1])
    yield "no deal", "MalformedFrame", _dealt(stage, dealt.present, b"")
    yield "no list", "MalformedFrame", _dealt(stage, b"", dealt.deal)


# The file ----------------------------------------------------------------------------------------


def _return(keepers: Mapping[str, MemoryKeys]) -> Json:
    """delft, which missed the second stage, is given what it lacks by bern."""
    away, here = control_of(8), control_of(9)
    admission = Admission(GROUP, identity=BOSS, site="delft", away=away, control=here)
    delft, bern = _site("delft", keepers["delft"]), _site("bern", keepers["bern"])
    with fixed("delft comes back") as asking:
        joining = delft.join(admission.join_frame())
    with fixed("bern helps") as helping:
        helped = bern.help(admission.help_frame(joining), here)
    admitted = admission.admitted_frame("bern", helped)
    given = bern.ring
    return {
        "away": binding_json(away),
        "control": binding_json(here),
        "exchange_secrets": {"delft": asking, "bern": helping},
        "join": admission.join_frame().hex(),
        "joining": joining.hex(),
        "help": admission.help_frame(joining).hex(),
        "helped": helped.hex(),
        "admitted": admitted.hex(),
        "epoch": given.epoch,
        "secrets": [
            {
                "epoch": s.epoch,
                "began": s.began,
                "secret": s.secret.hex(),
                "members": sorted(s.members),
            }
            for s in given.secrets
        ],
        "taken": delft.admit(admitted).hex(),
    }


def stages() -> Json:
    """A first key, one for those that are there, one that goes on, and a site that comes back."""
    keepers = {name: MemoryKeys() for name in NAMES}
    first = Stage("the first key", 7, keepers).run()
    lies = [
        {"what": what, "expect": expect, "frame": frame.hex()}
        for what, expect, frame in _lies(first)
    ]
    first.take()
    second = Stage("delft is away", 8, keepers, NAMES[:3]).run().take()
    third = Stage("the key goes on", 9, keepers, NAMES[:3]).run().take()
    return {
        "names": list(NAMES),
        "identity_secrets": {name: fixed_bytes(name).hex() for name in NAMES},
        "combiner_secret": fixed_bytes("combiner").hex(),
        "threshold": THRESHOLD,
        "rekey_every": REKEY_EVERY,
        "stages": [first.json(), second.json(), third.json()],
        "return": _return(keepers),
        "hostile": {"to": VICTIM, "cases": lies},
    }
