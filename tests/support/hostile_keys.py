"""Attacks by the key list: too short, mixed, with keys that are not their owners' or not keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from colluder import ANY
from hostile_attack import COLLUDER, OTHER_SUMS, VICTIM, Attack, Forge, again
from hostile_combiner import HostileCombiner

from fedbcs_protocols.wire import Kind, decode, seal

LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
)
"""The points of Curve25519 and its twist that give everybody the same secret, zero."""


def attacks() -> Iterator[Attack]:
    """Those of this module."""
    yield from _key_lists()
    yield from _keys()


def _key_lists() -> Iterator[Attack]:
    def listed(**frames: bytes | None) -> Forge:
        return lambda s: s.key_list(frames)

    def own_of_another_process(s: HostileCombiner) -> bytes:
        return s.key_list({VICTIM: s.twin(VICTIM).advertise()})

    def swapped(s: HostileCombiner) -> bytes:
        came = s.came["advertise"]
        return s.key_list({"site1": came["site2"], "site2": came["site1"]})

    def one_twice(s: HostileCombiner) -> bytes:
        return s.key_list({"site2": s.came["advertise"]["site1"]})

    def for_five(s: HostileCombiner) -> bytes:
        body = bytearray(decode(s.key_list(), ANY).body)
        body[1] = 5
        return s.forge(Kind.KEY_LIST, 0, bytes(body))

    def a_length_that_lies(s: HostileCombiner) -> bytes:
        body = bytearray(decode(s.key_list(), ANY).body)
        body[2:6] = b"\xff\xff\xff\xff"
        return s.forge(Kind.KEY_LIST, 0, bytes(body))

    yield Attack(
        "keys of fewer than t sites",
        "SA-2.1",
        "share",
        listed(site1=None, site2=None, site3=None),
        "BadKeyList",
    )
    yield Attack(
        "keys of the victim alone",
        "SA-2.1",
        "share",
        listed(**{f"site{i}": None for i in range(1, 6)}),
        "BadKeyList",
    )
    yield Attack("the victim's keys left out", "SA-2.3", "share", listed(site0=None), "BadKeyList")
    yield Attack(
        "keys of another process of the victim's",
        "SA-2.3",
        "share",
        own_of_another_process,
        "BadKeyList",
    )
    yield Attack("two sites' frames swapped", "SA-2.1", "share", swapped, "BadKeyList")
    yield Attack("one site's frame in two places", "SA-2.1", "share", one_twice, "BadKeyList")
    yield Attack("a list for fewer sites", "SA-2.1", "share", for_five, "MalformedFrame")
    yield Attack(
        "an inner length of 4 GiB", "SA-2.1", "share", a_length_that_lies, "MalformedFrame"
    )
    for field, value in OTHER_SUMS.items():
        yield Attack(
            f"an honest site's keys from another {field.split('_')[0]}",
            "SA-2.2",
            "share",
            _key_from_elsewhere(field, value),
            "WrongBinding",
            "site3",
            field=field.replace("_", " "),
        )


def _key_from_elsewhere(field: str, value: Any) -> Forge:
    def forge(s: HostileCombiner) -> bytes:
        other = s.elsewhere("share", **{field: value})
        return s.key_list({"site3": other.came["advertise"]["site3"]})

    return forge


def _keys() -> Iterator[Attack]:
    def in_its_name(s: HostileCombiner) -> bytes:
        frame = decode(s.came["advertise"]["site1"], ANY)
        return s.key_list({"site1": seal(frame, s.cast.combiner)})

    def strangers(s: HostileCombiner) -> bytes:
        return s.key_list({COLLUDER: again(s, COLLUDER, sender="site9")})

    def another_kind(s: HostileCombiner) -> bytes:
        return s.key_list({COLLUDER: again(s, COLLUDER, kind=Kind.SHARES)})

    def numbered(s: HostileCombiner) -> bytes:
        return s.key_list({COLLUDER: again(s, COLLUDER, sequence=1)})

    def keyed(**keys: Callable[[HostileCombiner], bytes]) -> Forge:
        def forge(s: HostileCombiner) -> bytes:
            changes = {field: key(s) for field, key in keys.items()}
            return s.key_list({COLLUDER: s.colluders[COLLUDER].advertise(**changes)})

        return forge

    def key_of(name: str, at: int) -> Callable[[HostileCombiner], bytes]:
        return lambda s: s.body("advertise", name)[at : at + 32]

    yield Attack(
        "the combiner's keys in a site's name",
        "SA-2.2",
        "share",
        in_its_name,
        "BadSignature",
        "site1",
    )
    yield Attack(
        "a stranger's keys in a site's place",
        "SA-2.2",
        "share",
        strangers,
        "UnknownSender",
        "site9",
    )
    yield Attack(
        "another kind of frame in a site's place",
        "SA-2.2",
        "share",
        another_kind,
        "UnexpectedFrame",
        COLLUDER,
    )
    yield Attack(
        "an inner frame with another number",
        "SA-2.2",
        "share",
        numbered,
        "WrongBinding",
        COLLUDER,
        field="sequence",
    )
    for name, forge in {
        "a mask key that is another site's": keyed(mask_key=key_of("site1", 0)),
        "a share key that is another site's": keyed(share_key=key_of("site1", 32)),
        "a mask key that is another site's share key": keyed(mask_key=key_of("site1", 32)),
        "a share key that is the victim's mask key": keyed(share_key=key_of(VICTIM, 0)),
        "one key for masks and shares": keyed(mask_key=key_of(COLLUDER, 32)),
    }.items():
        yield Attack(name, "SA-2.4", "share", forge, "BadKey", COLLUDER)
    for number in LOW_ORDER:
        key = number.to_bytes(32, "little")
        yield Attack(
            "a share key of low order",
            "SA-2.5",
            "share",
            keyed(share_key=_just(key)),
            "BadKey",
            COLLUDER,
        )
        yield Attack(
            "a mask key of low order",
            "SA-2.5",
            "share",
            keyed(mask_key=_just(key)),
            "BadKey",
            COLLUDER,
        )
    for number in (2**255 - 19, 2**255 - 18, 2**255 + 9, 2**256 - 1):
        key = number.to_bytes(32, "little")
        yield Attack(
            "a key in another spelling",
            "SA-1.4",
            "share",
            keyed(mask_key=_just(key)),
            "MalformedFrame",
            COLLUDER,
        )


def _just(key: bytes) -> Forge:
    return lambda s: key
