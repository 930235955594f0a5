"""Attacks by frames that are not the combiner's, not of this moment, or not what they must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from colluder import ANY
from hostile_attack import COLLUDER, KINDS, OTHER_SUMS, UNREAD, VICTIM, Attack, Fate, Forge
from hostile_combiner import HostileCombiner
from protected_sum import STAGES

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.wire import Kind, decode, seal


def attacks() -> Iterator[Attack]:
    """Those of this module."""
    yield from _bytes_that_anybody_can_send()
    yield from _genuine_at_the_wrong_time()
    yield from _nonsense_under_the_true_key()


# What needs no key of the combiner's, or only its old frames -------------------------------------


def _bytes_that_anybody_can_send() -> Iterator[Attack]:
    def on(stage: str, change: Callable[[bytes], bytes]) -> Forge:
        return lambda s: change(s.honest(stage, VICTIM))

    def resealed(stage: str, signer: str | None, **changes: Any) -> Forge:
        def forge(s: HostileCombiner) -> bytes:
            frame = replace(decode(s.honest(stage, VICTIM), ANY), **changes)
            return seal(frame, s.cast.sites[signer]) if signer else frame.encode()

        return forge

    def reflected(stage: str) -> Forge:
        return lambda s: s.came[STAGES[STAGES.index(stage) - 1]][VICTIM]

    # A masked vector is too long to be a list of survivors, so it is not read.
    long_for = {"consistency": ("WI-1.2", "MalformedFrame", UNREAD)}
    malformed: tuple[tuple[str, str, Callable[[bytes], bytes]], ...] = (
        ("no bytes", "WI-1.1", lambda frame: b""),
        ("a frame cut in half", "WI-1.3", lambda frame: frame[: len(frame) // 2]),
        ("a frame without its last byte", "WI-1.3", lambda frame: frame[:-1]),
        ("a frame with a byte more", "WI-1.3", lambda frame: frame + b"\0"),
        ("ten megabytes after a frame", "WI-1.2", lambda frame: frame + bytes(10_000_000)),
        ("a frame that says its body is 4 GiB", "WI-1.3", _claims_four_gigabytes),
    )
    for stage in KINDS:
        for name, clause, change in malformed:
            yield Attack(
                name, clause, stage, on(stage, change), "MalformedFrame", UNREAD, Fate.STAYS
            )
        zeros = bytes(64)
        for name, forge, clause, refusal, sender in (
            (
                "the combiner's frame under a site's key",
                resealed(stage, COLLUDER),
                "WI-2.2",
                "BadSignature",
                COMBINER,
            ),
            (
                "the combiner's frame under no key",
                resealed(stage, None, signature=zeros),
                "WI-2.2",
                "BadSignature",
                COMBINER,
            ),
            (
                "the combiner's frame in a site's name and under its key",
                resealed(stage, COLLUDER, sender=COLLUDER),
                "WI-2.2",
                "UnknownSender",
                COLLUDER,
            ),
            (
                "the victim's own last frame",
                reflected(stage),
                *long_for.get(stage, ("WI-1.5", "UnexpectedFrame", VICTIM)),
            ),
        ):
            yield Attack(name, clause, stage, forge, refusal, sender, Fate.STAYS)


def _claims_four_gigabytes(frame: bytes) -> bytes:
    start = 6 + 71 + 5
    return frame[:start] + b"\xff\xff\xff\xff" + frame[start + 4 :]


def _genuine_at_the_wrong_time() -> Iterator[Attack]:
    def of_another_sum(stage: str, field: str, value: Any) -> Forge:
        # A combiner that kept a frame of another sum, and its twin with the body of this one.
        def forge(s: HostileCombiner) -> bytes:
            frame = decode(s.honest(stage, VICTIM), ANY)
            return s.forge(frame.kind, frame.sequence, bytes(frame.body), **{field: value})

        return forge

    def another(stage: str, **changes: Any) -> Forge:
        def forge(s: HostileCombiner) -> bytes:
            frame = decode(s.honest(stage, VICTIM), ANY)
            fields = {"kind": frame.kind, "sequence": frame.sequence, **changes}
            return s.forge(fields.pop("kind"), fields.pop("sequence"), bytes(frame.body), **fields)

        return forge

    for stage, kind in KINDS.items():
        for field, value in OTHER_SUMS.items():
            yield Attack(
                f"a frame of another {field.split('_')[0]}",
                "WI-2.3",
                stage,
                of_another_sum(stage, field, value),
                "WrongBinding",
                fate=Fate.STAYS,
                field=field.replace("_", " "),
            )
        yield Attack(
            "a frame with another number",
            "WI-2.4",
            stage,
            another(stage, sequence=7),
            "WrongBinding",
            fate=Fate.STAYS,
            field="sequence",
        )
        for wrong in (*KINDS.values(), Kind.SUM, Kind.START, Kind.OPEN):
            if wrong is not kind:
                yield Attack(
                    "a frame of another kind",
                    "WI-1.5",
                    stage,
                    another(stage, kind=wrong),
                    "UnexpectedFrame",
                    fate=Fate.STAYS,
                )
    for at in (*STAGES, "finished"):
        for call, kind in KINDS.items():
            if call == at:
                continue
            later = at == "advertise" or (
                at != "finished" and STAGES.index(call) > STAGES.index(at)
            )
            yield Attack(
                f"{kind.name.lower().replace('_', ' ')} too early"
                if later
                else f"a second {kind.name.lower().replace('_', ' ')}",
                "SA-11",
                at,
                _blank(call) if later else _repeated(call),
                "UnexpectedFrame",
                fate=Fate.STAYS,
                call=call,
            )

    fewer = [f"site{i}" for i in "01235"]
    yield Attack(
        "another list of survivors after the signature",
        "SA-5.3",
        "unmask",
        lambda s: s.survivors(fewer),
        "UnexpectedFrame",
        fate=Fate.STAYS,
        call="consistency",
    )
    yield Attack(
        "another certificate after the answer",
        "SA-6.4",
        "finished",
        lambda s: s.certificate(survivors=fewer, signatures={name: bytes(64) for name in fewer}),
        "UnexpectedFrame",
        fate=Fate.STAYS,
        call="unmask",
    )
    yield Attack(
        "another delivery after the masked vector",
        "SA-4.7",
        "consistency",
        lambda s: s.delivery(VICTIM, fewer),
        "UnexpectedFrame",
        fate=Fate.STAYS,
        call="masked_input",
    )


def _repeated(stage: str) -> Forge:
    return lambda s: s.honest(stage, VICTIM)


def _blank(stage: str) -> Forge:
    return lambda s: s.forge(KINDS[stage], STAGES.index(stage) - 1, b"\0")


# What the combiner says under its true key -------------------------------------------------------

BODIES = {
    "share": "SA-2.1",
    "masked_input": "SA-4.1",
    "consistency": "SA-5.1",
    "unmask": "SA-6.1",
}
"""The clause that says what the combiner's frame of each stage holds."""


def _nonsense_under_the_true_key() -> Iterator[Attack]:
    def body(stage: str, change: Callable[[bytes], bytes]) -> Forge:
        def forge(s: HostileCombiner) -> bytes:
            frame = decode(s.honest(stage, VICTIM), ANY)
            return s.forge(frame.kind, frame.sequence, change(bytes(frame.body)))

        return forge

    for stage in KINDS:
        clause = BODIES[stage]
        yield Attack("an empty body", clause, stage, body(stage, lambda b: b""), "MalformedFrame")
        # A longer body than any honest one is not read at all.
        full = stage in {"consistency", "unmask"}
        yield Attack(
            "a body longer than any" if full else "a body with a byte more",
            "WI-1.5" if full else clause,
            stage,
            body(stage, lambda b: b + b"\0"),
            "MalformedFrame",
            fate=Fate.STAYS if full else Fate.LEAVES,
        )
        if stage != "consistency":
            yield Attack(
                "a body without its last byte",
                clause,
                stage,
                body(stage, lambda b: b[:-1]),
                "MalformedFrame",
            )
