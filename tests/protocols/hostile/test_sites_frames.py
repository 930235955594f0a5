"""The other direction: what colluding or broken sites can send to an honest combiner.

A frame that does not fit is refused in its sender's name and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from colluder import ANY, Colluder
from hostile_attack import COLLUDER, OTHER_SUMS, UNREAD
from hostile_combiner import HostileCombiner
from hostile_host import only_ours
from hostile_keys import LOW_ORDER
from our_site import OurHost
from protected_sum import STAGES, make_cast, refusal

from fedbcs_protocols.errors import (
    BadKey,
    BadShare,
    BadSignature,
    Inconsistent,
    MalformedFrame,
    PeerError,
    TooFewSites,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.secagg import CombinerSession
from fedbcs_protocols.secagg.shamir import SHARE_BYTES
from fedbcs_protocols.secagg.states import CombinerState
from fedbcs_protocols.wire import Kind, decode, seal

pytestmark = only_ours("it is about this repository's combiner")

Refused = tuple[bytes, type[PeerError], str]


@pytest.fixture(scope="module")
def script() -> HostileCombiner:
    """A whole honest sum, of whose frames each test takes what it needs."""
    return HostileCombiner(make_cast(6), OurHost, colluders=[COLLUDER]).play("finished")


def _combiner(script: HostileCombiner, stage: str) -> CombinerSession:
    """One that waits for the frames of ``stage``."""
    combiner = script.cast.combine()
    for earlier in STAGES[: STAGES.index(stage)]:
        for frame in script.came[earlier].values():
            combiner.receive(frame)
        combiner.close()
    return combiner


def _changed(script: HostileCombiner, stage: str, signer: str = COLLUDER, **changes: Any) -> bytes:
    frame = decode(script.came[stage][COLLUDER], ANY)
    binding = {field: changes.pop(field) for field in OTHER_SUMS if field in changes}
    frame = replace(frame, binding=replace(frame.binding, **binding), **changes)
    return seal(frame, script.cast.sites[signer])


def _bad(script: HostileCombiner, stage: str) -> Iterator[Refused]:
    good = script.came[stage][COLLUDER]
    body = script.body(stage, COLLUDER)
    # At the length of the limit, a byte more is refused before the signature is looked at.
    yield b"", MalformedFrame, UNREAD
    yield good[:-1], MalformedFrame, UNREAD
    yield good + b"\0", MalformedFrame, UNREAD
    yield _changed(script, stage, body=body + b"\0"), MalformedFrame, COLLUDER
    yield _changed(script, stage, body=body[:-1]), _short(stage), COLLUDER
    yield _changed(script, stage, body=b""), _short(stage), COLLUDER
    yield _changed(script, stage, sequence=9), WrongBinding, COLLUDER
    yield _changed(script, stage, kind=Kind.READY), UnexpectedFrame, COLLUDER
    yield _changed(script, stage, signer="site1"), BadSignature, COLLUDER
    yield _changed(script, stage, sender="site1"), BadSignature, "site1"
    yield _changed(script, stage, sender="site9"), UnknownSender, "site9"
    yield _changed(script, stage, sender="@combiner"), UnknownSender, "@combiner"
    for field, value in OTHER_SUMS.items():
        yield _changed(script, stage, **{field: value}), WrongBinding, COLLUDER


def _short(stage: str) -> type[PeerError]:
    return Inconsistent if stage == "consistency" else MalformedFrame


@pytest.mark.parametrize("stage", STAGES)
def test_a_bad_frame_changes_nothing(script: HostileCombiner, stage: str) -> None:
    combiner = _combiner(script, stage)
    for frame, error, sender in _bad(script, stage):
        raised = refusal(lambda frame=frame: combiner.receive(frame))
        assert (type(raised), raised.sender) == (error, sender)
    assert combiner.expected == tuple(script.cast.sites)
    for name, frame in script.came[stage].items():
        combiner.receive(frame)
        again = refusal(lambda frame=frame: combiner.receive(frame))
        assert (type(again), again.sender) == (UnexpectedFrame, name)
    for later in STAGES[STAGES.index(stage) :]:
        if later != stage:
            for frame in script.came[later].values():
                combiner.receive(frame)
        combiner.close()
    assert combiner.total().tolist() == sum(script.vectors.values()).tolist()


@pytest.mark.parametrize("stage", STAGES)
def test_a_frame_of_another_stage(script: HostileCombiner, stage: str) -> None:
    combiner = _combiner(script, stage)
    for other in STAGES:
        if other != stage:
            raised = refusal(lambda other=other: combiner.receive(script.came[other]["site1"]))
            # Too long a frame is not even read.
            assert isinstance(raised, UnexpectedFrame | MalformedFrame)
    assert combiner.expected == tuple(script.cast.sites)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_site_that_has_dropped_out_does_not_come_back(
    script: HostileCombiner, stage: str
) -> None:
    before = STAGES[STAGES.index(stage) - 1]
    combiner = _combiner(script, before)
    for name, frame in script.came[before].items():
        if name != "site4":
            combiner.receive(frame)
    combiner.close()
    late = refusal(lambda: combiner.receive(script.came[before]["site4"]))
    assert isinstance(late, UnexpectedFrame | MalformedFrame)
    if stage == "consistency":
        return
    raised = refusal(lambda: combiner.receive(script.came[stage]["site4"]))
    assert (type(raised), raised.sender) == (UnexpectedFrame, "site4")
    assert "site4" not in combiner.expected


def _advert(**changes: Any) -> Callable[[Colluder, HostileCombiner], bytes]:
    return lambda colluder, script: colluder.advertise(
        **{field: make(script) for field, make in changes.items()}
    )


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_advert(mask_key=lambda s: s.body("advertise", "site1")[:32]), BadKey),
        (_advert(mask_key=lambda s: s.body("advertise", "site1")[32:64]), BadKey),
        (_advert(share_key=lambda s: s.body("advertise", "site1")[:32]), BadKey),
        (_advert(share_key=lambda s: s.body("advertise", "site1")[32:64]), BadKey),
        (_advert(mask_key=lambda s: bytes(32), share_key=lambda s: bytes(32)), BadKey),
        (_advert(mask_key=lambda s: b"\xff" * 32), MalformedFrame),
        (_advert(share_key=lambda s: (2**255 - 19).to_bytes(32, "little")), MalformedFrame),
    ],
)
def test_a_copied_or_misspelt_key(
    script: HostileCombiner,
    make: Callable[[Colluder, HostileCombiner], bytes],
    error: type[PeerError],
) -> None:
    combiner = script.cast.combine()
    combiner.receive(script.came["advertise"]["site1"])
    frame = make(Colluder(script.setting, script.cast.sites[COLLUDER], COLLUDER), script)
    raised = refusal(lambda: combiner.receive(frame))
    assert (type(raised), raised.sender) == (error, COLLUDER)
    combiner.receive(script.came["advertise"][COLLUDER])


def test_a_signature_on_something_else(script: HostileCombiner) -> None:
    combiner = _combiner(script, "consistency")
    frame = script.colluders[COLLUDER].signed(bytes(32))
    raised = refusal(lambda: combiner.receive(frame))
    assert (type(raised), raised.sender) == (Inconsistent, COLLUDER)


def test_one_false_share_among_more_than_enough_does_no_harm(script: HostileCombiner) -> None:
    combiner = _combiner(script, "unmask")
    body = bytearray(script.body("unmask", COLLUDER))
    body[SHARE_BYTES - 1] ^= 1
    for name, frame in script.came["unmask"].items():
        false = _changed(script, "unmask", body=bytes(body))
        combiner.receive(false if name == COLLUDER else frame)
    combiner.close()
    assert combiner.total().tolist() == sum(script.vectors.values()).tolist()


@pytest.mark.parametrize("share", [bytes(SHARE_BYTES), b"\xff" * SHARE_BYTES])
def test_a_false_share_among_just_enough_gives_no_false_sum(
    script: HostileCombiner, share: bytes
) -> None:
    combiner = _combiner(script, "unmask")
    body = share + script.body("unmask", COLLUDER)[SHARE_BYTES:]
    for name in ("site0", "site1", "site2"):
        combiner.receive(script.came["unmask"][name])
    combiner.receive(_changed(script, "unmask", body=body))
    raised = refusal(combiner.close)
    assert (type(raised), raised.sender) == (BadShare, "site0")
    assert combiner.state is CombinerState.FAILED


@pytest.mark.parametrize("field", ["mask_key", "share_key"])
@pytest.mark.parametrize("number", LOW_ORDER)
def test_a_key_of_low_order_costs_its_owner_only(
    script: HostileCombiner, field: str, number: int
) -> None:
    """Refused where it comes in, so the others need no second attempt."""
    cast = script.cast
    colluder = Colluder(script.setting, cast.sites[COLLUDER], COLLUDER)
    combiner = cast.combine()
    frame = colluder.advertise(**{field: number.to_bytes(32, "little")})
    raised = refusal(lambda: combiner.receive(frame))
    assert (type(raised), raised.sender) == (BadKey, COLLUDER)
    assert COLLUDER in combiner.expected
    for name, honest in script.came["advertise"].items():
        if name != COLLUDER:
            combiner.receive(honest)
    combiner.close()
    assert COLLUDER not in combiner.expected


def test_too_few_sites_end_the_attempt(script: HostileCombiner) -> None:
    combiner = script.cast.combine()
    for name in ("site0", "site1", COLLUDER):
        combiner.receive(script.came["advertise"][name])
    with pytest.raises(TooFewSites):
        combiner.close()
    assert combiner.state is CombinerState.FAILED
