"""Frames that a combiner must refuse, at no cost to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from protected_sum import STAGES, make_cast, refusal

from fedbcs_protocols.errors import (
    BadKey,
    BadSignature,
    Inconsistent,
    MalformedFrame,
    PeerError,
    TooFewSites,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg.states import CombinerState
from fedbcs_protocols.wire import MAX_BODY_BYTES, Kind, decode

SITES = 5
Start = Callable[..., Any]


@pytest.mark.parametrize("stage", STAGES)
def test_a_frame_that_does_not_fit_changes_nothing(combiner_play: Start, stage: str) -> None:
    play = combiner_play().until(stage)
    cast, combiner = play.cast, play.combiner
    good = play.frame(stage, "site1")
    body = decode(good, dict.fromkeys(Kind, MAX_BODY_BYTES)).body
    eve = Identity.generate()
    other_sum = combiner_play(make_cast(SITES).changed(attempt=7)).frame("advertise", "site1")
    bad: list[tuple[bytes, type[PeerError]]] = [
        (b"", MalformedFrame),
        (good[:-1], MalformedFrame),
        (good + b"\0", MalformedFrame),
        (play.resealed(good, signer=eve), BadSignature),
        (play.resealed(good, signer=cast.sites["site2"]), BadSignature),
        (play.resealed(good, sender="eve", signer=eve), UnknownSender),
        (play.resealed(good, sender="@combiner", signer=cast.combiner), UnknownSender),
        (play.resealed(good, sequence=9), WrongBinding),
        (play.resealed(good, kind=Kind.SUM), UnexpectedFrame),
        (play.resealed(good, body=bytes(body)[:-1]), PeerError),
        (play.resealed(good, body=bytes(body) + b"\0"), MalformedFrame),
        (other_sum, WrongBinding if stage == "advertise" else PeerError),
    ]
    bad += [
        (play.resealed(good, binding=cast.changed(**change).binding), WrongBinding)
        for change in ({"attempt": 1}, {"round": 4}, {"phase": 0}, {"state_digest": bytes(32)})
    ]
    before = play.look()
    for frame, error in bad:
        assert isinstance(refusal(lambda frame=frame: combiner.receive(frame)), error)
        assert play.look() == before
    combiner.receive(good)
    before = play.look()
    with pytest.raises(UnexpectedFrame, match="comes twice"):
        combiner.receive(good)
    # Another genuine frame in the same place is no better.
    with pytest.raises(PeerError):
        combiner.receive(play.resealed(good, body=bytes(body)[::-1]))
    assert play.look() == before


@pytest.mark.parametrize("stage", STAGES)
def test_a_frame_on_another_sites_line(combiner_play: Start, stage: str) -> None:
    play = combiner_play().until(stage)
    frame = play.frame(stage, "site1")
    before = play.look()
    with pytest.raises(UnexpectedFrame, match="came on the line of site2") as caught:
        play.combiner.receive(frame, line="site2")
    assert caught.value.sender == "site1"
    assert play.look() == before
    play.combiner.receive(frame, line="site1")


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_late_frames(combiner_play: Start, stage: str) -> None:
    """A frame that comes after the end of its stage is refused in every later one."""
    play = combiner_play().until(stage)
    late = play.frame(stage, "site2")
    play.stage(stage, "site2")
    play.combiner.close()
    for later in STAGES[STAGES.index(stage) + 1 :]:
        before = play.look()
        # Of another kind, or longer than anything that is expected by now.
        with pytest.raises((UnexpectedFrame, MalformedFrame)):
            play.combiner.receive(late)
        assert play.look() == before
        play.stage(later)
        play.combiner.close()
    assert "site2" not in play.combiner.survivors or stage == "consistency"


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_what_a_dropped_site_still_sends(combiner_play: Start, stage: str) -> None:
    """It was asked before the end of the stage, so it could answer the next request; it is out."""
    play = combiner_play().until(stage)
    combiner = play.combiner
    play.stage(stage, "site2")
    combiner.close()
    for later in STAGES[STAGES.index(stage) + 1 :]:
        assert "site2" not in combiner.expected
        assert "site2" not in combiner.requests
        # Any frame of the right kind and form, genuinely signed by the site.
        other = play.frame(later, combiner.expected[0])
        frame = play.resealed(other, sender="site2", signer=play.cast.sites["site2"])
        before = play.look()
        with pytest.raises(UnexpectedFrame, match="dropped out") as caught:
            combiner.receive(frame)
        assert caught.value.sender == "site2"
        assert play.look() == before
        play.stage(later)
        combiner.close()
    assert combiner.state is CombinerState.COMPLETE


@pytest.mark.parametrize("ending", ["COMPLETE", "FAILED"])
def test_frames_after_the_end(combiner_play: Start, ending: str) -> None:
    play = combiner_play().until("unmask")
    play.stage("unmask", *(("site0", "site2") if ending == "FAILED" else ()))
    if ending == "FAILED":
        with pytest.raises(TooFewSites):
            play.combiner.close()
    else:
        play.combiner.close()
    before = play.look()
    for (_, name), frame in play.frames.items():
        with pytest.raises(UnexpectedFrame, match=f"when the sum is {ending}") as caught:
            play.combiner.receive(frame)
        assert caught.value.sender == name
        for cut in (b"", frame[:9], frame[:-1], frame + b"\0"):
            with pytest.raises(MalformedFrame):
                play.combiner.receive(cut)
    assert play.look() == before


def test_a_key_that_stands_in_the_list_already(combiner_play: Start) -> None:
    play = combiner_play()
    first = play.frame("advertise", "site0")
    keys = bytes(decode(first, {Kind.ADVERTISE: 96}).body)
    play.combiner.receive(first)
    own = bytes(decode(play.frame("advertise", "site1"), {Kind.ADVERTISE: 96}).body)
    for body in (
        keys[:32] + own[32:],
        own[:32] + keys[:32] + own[64:],
        keys[32:64] + own[32:],
        own[:32] + own[:32] + own[64:],
    ):
        frame = play.resealed(play.frame("advertise", "site1"), body=body)
        with pytest.raises(BadKey, match="already") as caught:
            play.combiner.receive(frame)
        assert caught.value.sender == "site1"
    play.combiner.receive(play.frame("advertise", "site1"))


def test_a_signature_on_another_transcript(combiner_play: Start) -> None:
    play = combiner_play().until("consistency")
    frame = play.resealed(play.frame("consistency", "site1"), body=bytes(32))
    with pytest.raises(Inconsistent, match="another transcript") as caught:
        play.combiner.receive(frame)
    assert caught.value.sender == "site1"
