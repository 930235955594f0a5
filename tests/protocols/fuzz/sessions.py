"""Targets that run whole sessions on frames which are wrong but signed with the true keys.

An input says how a genuine frame is changed before it is signed again: its first byte the stage,
the next how the rest is read (``edited``, or a builder of the stage's own). So the fuzzer gets
past every signature. Here are the frames that are read outside a session, and the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from combiner_session import combiner_target, restore_target
from harness import GENEROUS, Target, edited, require, same
from site_session import signed_for, site_target
from worlds import Script, SmallGraph, World, built_certificate

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import LocalError, PeerError, ProtocolError, Refused, TooFewSites
from fedbcs_protocols.secagg import Terms, open_sum
from fedbcs_protocols.secagg.keytable import open_advertise
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.wire import decode, seal


def sum_target(world: World) -> Callable[[bytes], None]:
    """The *sum* frame, forged under the combiner's key; only what t sites signed may open."""
    genuine = decode(world.sum_frame, GENEROUS)
    end = Certificate.decode_from(genuine.body, sender=COMBINER, sites=world.setting.terms.sites)[1]

    seen = {genuine.binding.attempt: world.signed or b""}

    def run(data: bytes) -> None:
        how = data[0] if data else 0
        if how < 128:
            body = edited(bytes(genuine.body), data[1:])
        else:
            body = built_certificate(world, Script(data[1:])) + bytes(genuine.body[end:])
        attempt = genuine.binding.attempt + (how % 16 == 15)
        binding = replace(genuine.binding, attempt=attempt)
        frame = seal(replace(genuine, body=body, binding=binding), world.boss)
        outcome = open_sum(frame, world.setting, seen)
        require(signed_for(world, body) == world.signed, "a certificate for another sum")
        require(outcome.transcript == world.signed, "a sum over another transcript")
        require(outcome.survivors == world.names, "a sum over other sites")

    return run


def raw_sum_target(world: World) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        open_sum(data, world.setting, {})
        require(decode(data, GENEROUS).sender == COMBINER, "a sum that is not the combiner's")

    return run


def advert_target(world: World) -> Callable[[bytes], None]:
    """An *advertise* frame that its site signed."""

    def run(data: bytes) -> None:
        name = world.names[(data[0] if data else 0) % len(world.names)]
        genuine = decode(world.frames["advertise"][name], GENEROUS)
        frame = replace(genuine, body=edited(bytes(genuine.body), data[1:]))
        opened, advert = open_advertise(seal(frame, world.identities[name]), world.setting)
        same(advert.encode(world.setting.terms.sites), bytes(opened.body))

    return run


# The list ----------------------------------------------------------------------------------------

COMPLETE = World(Terms(4, 3, 1))
SPARSE = World(SmallGraph(7, 5, 1))
LEFT = World(Terms(5, 4, 1), leaver=True)

_BUILT = 96
"""The second byte of an input whose body a builder makes."""
_FEW_SIGNERS = bytes((0, 0, 0, 0xFC))
_OTHER_SURVIVORS = bytes((0, 0, 8, 8))
_SITE_SEEDS = (
    *(
        bytes([stage, how, *rest])
        for stage in range(4)
        for how, rest in ((0, ()), (0, (1, 0, 5, 1)), (_BUILT, (255,) * 8), (70, (0,)))
    ),
    # Two frames in each other's places, one frame twice, one key twice, a list without two.
    bytes((0, _BUILT, 0, 160, 2, 160, 1)),
    bytes((0, _BUILT, 0, 160, 2)),
    bytes((0, _BUILT, 0, 188, 2)),
    bytes((0, _BUILT, 0, 130, 130)),
    # What opens is no share; sets of all, without this site, without two of its holders.
    bytes((1, _BUILT, 0xFF, 193)) + bytes(33) + b"\xff" * 33,
    *(bytes((stage, _BUILT, places)) for stage in (1, 2) for places in (0x7F, 0x1F, 0x0E, 0x79)),
    # Signatures of too few, of all on another list, of enough on other survivors.
    bytes((3, _BUILT)) + _FEW_SIGNERS,
    bytes((3, _BUILT, 200)),
    bytes((3, _BUILT)) + _OTHER_SURVIVORS,
)
_SITE_ERRORS = (PeerError, Refused)
_COMBINER_SEEDS = (
    *(
        bytes([stage, 1, how, *rest])
        for stage in range(5)
        for how, rest in ((0, ()), (4, (0, 0, 3, 9)), (0, (4, 0, 7, 0)))
    ),
    # A key that another site has, and one key twice.
    bytes((0, 1, 7, 2, 0, 0, 0)),
    bytes((0, 1, 1, 1, 0, 0, 0)),
)
_COMBINER_ERRORS = (PeerError, TooFewSites)


def _slow(
    name: str,
    run: Callable[[bytes], None],
    allowed: tuple[type[ProtocolError], ...],
    seeds: tuple[bytes, ...],
    instead: str,
    every: int = 64,
) -> Target:
    return Target(name, run, allowed, seeds, slots=1, every=every, instead=instead, bounded=False)


SESSIONS = (
    _slow("site_complete", site_target(COMPLETE), _SITE_ERRORS, _SITE_SEEDS, "delivery"),
    _slow("site_left", site_target(LEFT), _SITE_ERRORS, _SITE_SEEDS, "key_list"),
    _slow("site_sparse", site_target(SPARSE), _SITE_ERRORS, _SITE_SEEDS, "certificate"),
    _slow(
        "combiner_complete",
        combiner_target(COMPLETE),
        _COMBINER_ERRORS,
        _COMBINER_SEEDS,
        "advertise_complete",
    ),
    _slow(
        "combiner_sparse",
        combiner_target(SPARSE),
        _COMBINER_ERRORS,
        _COMBINER_SEEDS,
        "advertise_sparse",
    ),
    _slow(
        "restore",
        restore_target(COMPLETE),
        (PeerError, TooFewSites, LocalError),
        (b"", bytes(4) + b"\xff", bytes(9) + b"\xe1\0\0\5\1"),
        "journal",
    ),
    _slow(
        "sum",
        sum_target(COMPLETE),
        (PeerError,),
        (b"\0", b"\x80" + bytes(4), b"\x80" + _FEW_SIGNERS, b"\x80" + _OTHER_SURVIVORS, b"\x8f"),
        "marks",
        16,
    ),
    _slow(
        "raw_sum",
        raw_sum_target(COMPLETE),
        (PeerError,),
        (COMPLETE.sum_frame,),
        "sum_broadcast",
        8,
    ),
    _slow("advert", advert_target(SPARSE), (PeerError,), (b"\0", b"\1\0\0\x60\7"), "key_list", 8),
)
