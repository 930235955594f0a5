"""The combiner's session on a site's wrong frame, signed with its true key, and on its journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from harness import GENEROUS, edited, require, same, unfailing
from worlds import COUNT, STAGES, Script, World, fork_combiner, honest_frame, other_keys

from fedbcs_protocols.errors import PeerError, TooFewSites
from fedbcs_protocols.secagg import CombinerSession, NoJournal, open_sum
from fedbcs_protocols.secagg.journal import CLOSE, frame_record
from fedbcs_protocols.secagg.states import CombinerState
from fedbcs_protocols.wire import decode, seal


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
