"""Known answers of key stages, by the package and by the second implementation."""

from __future__ import annotations

import struct
from typing import Any
from unittest import mock

import pytest
import second_group as second
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from known_answers import as_binding, load
from second_frames import body_of, frame
from second_implementation import key_list, public_half
from second_tags import key_name

from fedbcs_protocols.errors import PeerError
from fedbcs_protocols.group import Admission, Group, GroupSecret, KeyStage, MemoryKeys, SiteKeys
from fedbcs_protocols.identity import Identity

FILE = load("group.json")
NAMES = FILE["names"]
IDENTITIES = {
    name: Identity.from_secret_bytes(bytes.fromhex(secret))
    for name, secret in FILE["identity_secrets"].items()
}
BOSS = Identity.from_secret_bytes(bytes.fromhex(FILE["combiner_secret"]))
GROUP = Group(
    {name: IDENTITIES[name].public for name in NAMES},
    BOSS.public,
    FILE["threshold"],
    FILE["rekey_every"],
)
WORLD = second.World(
    NAMES,
    {name: IDENTITIES[name].public.raw.hex() for name in NAMES},
    BOSS.public.raw.hex(),
    FILE["threshold"],
    FILE["rekey_every"],
)
FIRST = FILE["stages"][0]


def unhex(told: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(told[key])


def from_site(name: str, kind: int, binding: Any, number: int, body: bytes) -> str:
    return frame(FILE["identity_secrets"][name], kind, binding, name, number, body).hex()


def from_combiner(kind: int, binding: Any, number: int, body: bytes) -> str:
    return frame(FILE["combiner_secret"], kind, binding, "@combiner", number, body).hex()


# By the second implementation --------------------------------------------------------------------


def test_stages_by_the_second_implementation() -> None:
    held: dict[str, second.Secret] = {}
    for told in FILE["stages"]:
        control = told["control"]
        binding = second.stage_binding(control)
        listed = [b""] * len(NAMES)
        for name, secret in told["exchange_secrets"].items():
            mine = held.get(name)
            body = second.standing(
                mine, mine.epoch if mine else 0, public_half(bytes.fromhex(secret)), 0, WORLD
            )
            assert from_site(name, second.READY, control, 0, body) == told["ready"][name]
            listed[NAMES.index(name)] = bytes.fromhex(told["ready"][name])
        present = key_list(listed)
        seen = second.read_list(present, control, WORLD)
        due = second.task(seen, control["round"], FILE["rekey_every"])
        if due is None:
            assert told["dealer"] is None
            assert told["deal"] == told["dealt"] == told["present"] == ""
            continue
        epoch, dealer = due
        assert told["dealer"] == NAMES[dealer]
        assert from_combiner(second.PRESENT, binding, 0, present) == told["present"]
        exchange = bytes.fromhex(told["exchange_secrets"][NAMES[dealer]])
        raw = unhex(told, "secret")
        body = second.deal(exchange, raw, epoch, dealer, present, control, WORLD)
        assert from_site(NAMES[dealer], second.DEAL, binding, 0, body) == told["deal"]
        dealt = struct.pack(">I", len(present)) + present + unhex(told, "deal")
        assert from_combiner(second.DEALT, binding, 1, dealt) == told["dealt"]
        made = second.Secret(epoch, control["round"], raw, tuple(sorted(seen)))
        for name, secret in told["exchange_secrets"].items():
            if name != NAMES[dealer]:
                own = bytes.fromhex(told["ready"][name])
                taken = second.read_dealt(
                    unhex(told, "dealt"), name, own, bytes.fromhex(secret), control, WORLD
                )
                assert taken == made
                answer = struct.pack(">I", epoch) + key_name(raw)
                assert from_site(name, second.TAKEN, binding, 1, answer) == told["taken"][name]
            held[name] = made


def test_a_return_by_the_second_implementation() -> None:
    told = FILE["return"]
    away, here = (second.stage_binding(told[key]) for key in ("away", "control"))
    exchange = {name: bytes.fromhex(s) for name, s in told["exchange_secrets"].items()}
    first = second.Secret(1, 7, unhex(FIRST, "secret"), (0, 1, 2, 3))
    assert from_combiner(second.JOIN, away, 2, b"") == told["join"]
    asking = public_half(exchange["delft"])
    body = second.standing(first, 1, asking, 0, WORLD)
    assert from_site("delft", second.JOINING, away, 2, body) == told["joining"]
    assert from_combiner(second.HELP, here, 3, unhex(told, "joining")) == told["help"]
    secrets = [
        second.Secret(s["epoch"], s["began"], unhex(s, "secret"), tuple(s["members"]))
        for s in told["secrets"]
    ]
    assert secrets[0] == first
    helped = second.gift(
        exchange["bern"],
        public_half(exchange["bern"]),
        asking,
        told["away"],
        ["bern", "delft"],
        told["epoch"],
        secrets,
        WORLD,
    )
    assert from_site("bern", second.HELPED, here, 3, helped) == told["helped"]
    assert from_combiner(second.ADMITTED, away, 4, unhex(told, "helped")) == told["admitted"]
    answer = struct.pack(">I", told["epoch"]) + key_name(secrets[-1].raw)
    assert from_site("delft", second.TAKEN, away, 4, answer) == told["taken"]


# By the package ----------------------------------------------------------------------------------


def site(name: str, keeper: MemoryKeys) -> SiteKeys:
    study = bytes.fromhex(FIRST["control"]["study_digest"])
    return SiteKeys(GROUP, identity=IDENTITIES[name], name=name, study_digest=study, keeper=keeper)


def fixed(exchange: str) -> Any:
    """In here, a fresh key is this one."""
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(exchange))
    return mock.patch.multiple(
        "fedbcs_protocols.group.site.X25519PrivateKey", generate=staticmethod(lambda: private)
    )


def test_stages_by_the_package() -> None:
    """The sessions write these frames, byte for byte, and read them."""
    keepers = {name: MemoryKeys() for name in NAMES}
    for told in FILE["stages"]:
        control = as_binding(told["control"])
        stage = KeyStage(GROUP, identity=BOSS, control=control)
        sites = {name: site(name, keepers[name]) for name in told["ready"]}
        for name, ready in told["ready"].items():
            with fixed(told["exchange_secrets"][name]):
                assert sites[name].ready(control).hex() == ready
            stage.ready(name, bytes.fromhex(ready))
        assert stage.dealer == told["dealer"]
        if told["dealer"] is not None:
            assert stage.present_frame().hex() == told["present"]
            with mock.patch("secrets.token_bytes", return_value=unhex(told, "secret")):
                deal = sites[told["dealer"]].deal(unhex(told, "present"), control)
            assert deal.hex() == told["deal"]
            stage.dealt(deal)
            assert stage.dealt_frame().hex() == told["dealt"]
            for name in stage.waiting:
                taken = sites[name].take(unhex(told, "dealt"), control)
                assert taken.hex() == told["taken"][name]
                stage.taken(name, taken)
        assert stage.holders == set(told["ready"])
    told = FILE["return"]
    away, here = as_binding(told["away"]), as_binding(told["control"])
    admission = Admission(GROUP, identity=BOSS, site="delft", away=away, control=here)
    delft, bern = site("delft", keepers["delft"]), site("bern", keepers["bern"])
    assert admission.join_frame().hex() == told["join"]
    with fixed(told["exchange_secrets"]["delft"]):
        assert delft.join(unhex(told, "join")).hex() == told["joining"]
    assert admission.help_frame(unhex(told, "joining")).hex() == told["help"]
    with fixed(told["exchange_secrets"]["bern"]):
        assert bern.help(unhex(told, "help"), here).hex() == told["helped"]
    assert admission.admitted_frame("bern", unhex(told, "helped")).hex() == told["admitted"]
    assert delft.admit(unhex(told, "admitted")).hex() == told["taken"]
    assert delft.ring.secrets == tuple(
        GroupSecret(s["epoch"], s["began"], frozenset(s["members"]), unhex(s, "secret"))
        for s in told["secrets"]
    )


LIES = pytest.mark.parametrize("case", FILE["hostile"]["cases"], ids=lambda case: case["what"])


@LIES
def test_lies(case: dict[str, str]) -> None:
    """GK-3.1 to GK-3.5, for a site that waits for the deal of the first stage."""
    me, data = FILE["hostile"]["to"], bytes.fromhex(case["frame"])
    exchange = FIRST["exchange_secrets"][me]
    own = bytes.fromhex(FIRST["ready"][me])
    try:
        second.read_dealt(data, me, own, bytes.fromhex(exchange), FIRST["control"], WORLD)
        outcome = "ok"
    except second.Refusal as error:
        outcome = str(error)
    assert outcome == case["expect"]

    control, victim = as_binding(FIRST["control"]), site(me, MemoryKeys())
    with fixed(exchange):
        victim.ready(control)
    try:
        victim.take(data, control)
        outcome = "ok"
    except PeerError as error:
        outcome = type(error).__name__
    assert outcome == case["expect"]
    assert (victim.ring.current is not None) == (outcome == "ok")


def test_the_frames_hold_no_secret() -> None:
    """GK-7.1"""
    hidden = [s for told in FILE["stages"] for s in told["exchange_secrets"].values()]
    hidden += [told["secret"] for told in FILE["stages"] if told["secret"]]
    sent = [f for t in FILE["stages"] for f in (*t["ready"].values(), *t["taken"].values())]
    sent += [t[key] for t in FILE["stages"] for key in ("present", "deal", "dealt")]
    sent += [FILE["return"][key] for key in ("joining", "help", "helped", "admitted", "taken")]
    assert len(hidden) == 12
    assert not [h for h in hidden for data in sent if h[:20] in data]
    assert body_of(unhex(FIRST, "deal"))[4:36].hex() in FIRST["dealt"]
