"""Targets that run whole sessions on frames which are wrong but signed with the true keys.

An input says how a genuine frame is changed before it is signed again: its first byte the stage,
the next how the rest is read (``edited``, or a builder of the stage's own). So the fuzzer gets
past every signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from harness import GENEROUS, Target, edited, require, same, unfailing
from worlds import (
    COUNT,
    STAGES,
    Script,
    SmallGraph,
    World,
    answer,
    built_certificate,
    forged,
    fork_combiner,
    fork_site,
    honest_frame,
    other_keys,
)

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import (
    LocalError,
    MalformedFrame,
    PeerError,
    ProtocolError,
    Refused,
    TooFewSites,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.secagg import (
    CombinerSession,
    NoJournal,
    SiteSession,
    Terms,
    open_sum,
)
from fedbcs_protocols.secagg.journal import CLOSE, frame_record
from fedbcs_protocols.secagg.keytable import open_advertise
from fedbcs_protocols.secagg.messages import Certificate, KeyList
from fedbcs_protocols.secagg.shamir import check_share
from fedbcs_protocols.secagg.states import CombinerState, SiteState
from fedbcs_protocols.secagg.transcript import transcript
from fedbcs_protocols.wire import decode, open_frame, seal


def signed_for(world: World, body: bytes) -> bytes:
    """The transcript of a certificate that was taken, which t sites must have signed."""
    setting = world.setting
    shown, _ = Certificate.decode_from(body, sender=COMBINER, sites=setting.terms.sites)
    require(len(shown.signatures) >= setting.terms.threshold, "too few signatures were enough")
    return transcript(setting, shown.key_list, shown.sharers, shown.survivors)


def in_their_places(world: World, body: bytes) -> None:
    """Require that each frame of a key list that was taken is signed by its place's site.

    A site may name a key that is another's, as long as it stands in the list once.
    """
    terms = world.setting.terms
    listed = KeyList.decode(body, sender=COMBINER, graph=terms.graph, sites=terms.sites)
    for name, inner in zip(world.names, listed.frames, strict=True):
        if inner is not None:
            frame = decode(inner, GENEROUS)
            require(frame.sender == name, "one site's frame in another's place")
            world.setting.roster[name].verify(frame.signature, frame.signed_message())


def sound(world: World, site: SiteSession) -> None:
    """What a site has taken is what SA-2.1 to SA-5.1 let it take."""
    table, terms = site._the_table(), world.setting.terms
    keys = [key for a in table.adverts.values() for key in (a.mask_key, a.share_key)]
    require(len(keys) == len(set(keys)), "one key in two places")
    larger = table.present
    reached = {SiteState.SHARED: 1, SiteState.MASKED: 2}.get(site.state, 3)
    for places in (table.present, site._sharers, site._survivors)[:reached]:
        require(places <= larger, "a site that was not in the stage before")
        require(0 in places and len(places) >= terms.threshold, "too few, or without this site")
        mine = len(table.holders(0) & places)
        require(mine >= terms.graph.threshold, "too few of its own holders")
        larger = places
    for pair in site._held.values():
        check_share(pair.mask_key)
        check_share(pair.seed)


def site_target(world: World) -> Callable[[bytes], None]:
    """The first site's session, fed one forged frame of the combiner's and then genuine ones."""

    def run(data: bytes) -> None:
        stages = STAGES[1:]
        number = (data[0] if data else 0) % len(stages)
        stage, me = stages[number], world.names[0]
        genuine = decode(world.requests[stage][me], GENEROUS)
        frame = forged(genuine, world, stage, data[1:], world.boss)
        site = fork_site(world.before[stage])
        state, held, marks = site.state, dict(site._held), site._marks.read()
        try:
            reply = answer(site, stage, frame, world.vector)
        except (PeerError, Refused) as error:
            if site.state is SiteState.LEFT:
                require(site._ephemeral is None and not site._held, "secrets outlive the attempt")
            else:
                require(site.state is state and site._held == held, "a refused frame left a trace")
                form = (MalformedFrame, WrongBinding, UnexpectedFrame)
                require(isinstance(error, form), "the site stays after a wrong frame")
            require(site._marks.read() == marks, "a refusal changed the marks")
            raise
        with unfailing("what was taken is not sound"):
            sound(world, site)
            body = bytes(decode(frame, GENEROUS).body)
            if stage == "share":
                in_their_places(world, body)
            if stage == "unmask":
                require(signed_for(world, body) == world.signed, "answered another transcript")
                require(not site._held, "shares outlive the answer")
        with unfailing("the reply does not open"):
            opened = open_frame(
                reply, roster=world.setting.roster, expect=world.setting.binding, limits=GENEROUS
            )
            require(opened.sender == me, "a reply in another's name")
        for later in stages[number + 1 :]:
            answer(site, later, world.requests[later][me], world.vector)

    return run


def _kept(combiner: CombinerSession) -> tuple[object, ...]:
    return (
        combiner.state,
        dict(combiner._came),
        dict(combiner._adverts),
        set(combiner._keys),
        combiner._accumulator.added,
        combiner._accumulator._total.tobytes(),
    )


def combiner_target(world: World) -> Callable[[bytes], None]:
    """The combiner's session, fed one forged frame of a site's among fitting ones.

    No single site can end the sum once keys are settled. From *masked input* on, one whose frame is
    refused has left, and the sum is over the others; one false share changes nothing.
    """

    def run(data: bytes) -> None:
        number, who, how = data[:3].ljust(3, b"\0")
        number %= len(STAGES)
        stage, name = STAGES[number], world.names[who % len(world.names)]
        others = [other for other in world.names if other != name]
        first = others[: how // 2 % len(world.names)]
        genuine = decode(world.frames[stage][name], GENEROUS)
        if stage == "advertise" and how % 2:
            body = other_keys(world, name, Script(data[3:]))
        else:
            body = edited(bytes(genuine.body), data[3:])
        combiner = fork_combiner(world.combiners[stage])
        for other in first:
            combiner.receive(honest_frame(world, combiner, stage, other))
        before = _kept(combiner)
        refused = None
        try:
            combiner.receive(seal(replace(genuine, body=body), world.identities[name]))
        except PeerError as error:
            require(_kept(combiner) == before, "a refused frame left a trace")
            # A frame over every limit is not read, not even for its sender.
            require(error.sender in (name, "unread frame"), "another site is blamed")
            refused = error
        try:
            _finish(world, combiner, number, name)
        except (PeerError, TooFewSites) as error:
            require(number == 0, f"one site ended the sum in {stage}: {error}")
            raise
        _opens(world, combiner)
        _refuses(combiner, world.frames[stage][name])
        in_sum = sum(site in combiner.survivors for site in world.names)
        if number > 2 or (number == 2 and refused is not None):
            same(combiner.total().tobytes(), (world.vector * in_sum).tobytes())
        if refused is not None:
            raise refused

    return run


def _opens(world: World, combiner: CombinerSession) -> None:
    """Its sum is one that every site takes."""
    with unfailing("the combiner's own sum is refused"):
        outcome = open_sum(combiner.sum_frame(), world.setting, {})
    require(outcome.survivors == combiner.survivors, "a sum over others")


def _refuses(combiner: CombinerSession, frame: bytes) -> None:
    try:
        combiner.receive(frame)
    except PeerError:
        return
    require(False, "a frame was taken after the end")


def _finish(world: World, combiner: CombinerSession, number: int, name: str) -> None:
    """Every other frame of stage ``number``, and all of the later stages."""
    for later in STAGES[number:]:
        for other in combiner.expected:
            if other != name or later != STAGES[number]:
                combiner.receive(honest_frame(world, combiner, later, other))
        combiner.close()
    require(combiner.state is CombinerState.COMPLETE, "closed five times and not complete")


def restore_target(world: World) -> Callable[[bytes], None]:
    """A combiner that reads a journal: genuine records, left out, doubled, moved or edited."""
    records = []
    for stage in STAGES:
        records += [frame_record(frame) for frame in world.frames[stage].values()]
        records.append(CLOSE)

    def changed(script: Script) -> Iterator[bytes]:
        for number, record in enumerate(records):
            choice = script.byte()
            if choice < 224:
                yield record
            elif choice < 232:
                yield edited(record, script.bytes(4))
            elif choice < 240:
                yield records[(number + script.byte()) % len(records)]
            elif choice < 248:
                yield from (record, record)

    def run(data: bytes) -> None:
        combiner = CombinerSession(world.setting, identity=world.boss, journal=NoJournal())
        combiner.restore(changed(Script(data)))
        if combiner.state is CombinerState.COMPLETE:
            require(combiner.total().shape == (COUNT,), "a sum of another length")

    return run


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
