"""Shares that are not what their owners dealt, as the combiner gets them in *unmask*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from protected_sum import STAGES, make_cast

from fedbcs_protocols.errors import BadShare
from fedbcs_protocols.secagg.states import CombinerState
from fedbcs_protocols.wire import Kind, decode

SITES = 5
Start = Callable[..., Any]


def _with_false_share(play: Any, name: str, *owners: int) -> bytes:
    """The *unmask* frame of ``name`` with other shares of the sites in these places."""
    frame = play.frame("unmask", name)
    body = bytearray(decode(frame, {Kind.UNMASK: 10_000}).body)
    for owner in owners:
        body[33 * owner + 32] ^= 1
    return play.resealed(frame, body=bytes(body))


@pytest.mark.parametrize("liar", range(5))
def test_one_false_share_does_no_harm(combiner_play: Start, liar: int) -> None:
    """Five answer, four are enough; the liar lies about one that stayed and one that left."""
    play = combiner_play(make_cast(6, 4, 1)).until("masked_input")
    play.stage("masked_input", "site5")
    play.combiner.close()
    play.stage("consistency")
    play.combiner.close()
    for name in play.combiner.expected:
        lies = name == f"site{liar}"
        play.combiner.receive(
            _with_false_share(play, name, 0, 5) if lies else play.frame("unmask", name)
        )
    play.combiner.close()
    columns = zip(*(play.vectors[f"site{i}"].tolist() for i in range(5)), strict=True)
    assert play.combiner.total().tolist() == [sum(column) for column in columns]


@pytest.mark.parametrize("owner", range(SITES))
def test_false_shares_among_just_enough_name_the_owner(combiner_play: Start, owner: int) -> None:
    play = combiner_play().until("unmask")
    for name in ("site0", "site1", "site3", "site4"):
        frame = play.frame("unmask", name)
        play.combiner.receive(_with_false_share(play, name, owner) if name == "site3" else frame)
    with pytest.raises(BadShare, match="do not give what it committed to") as caught:
        play.combiner.close()
    assert caught.value.sender == f"site{owner}"
    assert play.combiner.state is CombinerState.FAILED
    assert (play.combiner.expected, play.combiner.requests) == ((), {})


def test_a_dealer_whose_shares_do_not_fit_its_commitment(combiner_play: Start) -> None:
    play = combiner_play()
    lie = bytearray(decode(play.frame("advertise", "site2"), {Kind.ADVERTISE: 96}).body)
    lie[64:] = bytes(32)
    frame = play.resealed(play.frame("advertise", "site2"), body=bytes(lie))
    # Its own session must see in the list what "it" sent.
    play.frames["advertise", "site2"] = play.sites["site2"]._advertised = frame
    for stage in STAGES[:-1]:
        play.stage(stage)
        play.combiner.close()
    play.stage("unmask")
    with pytest.raises(BadShare) as caught:
        play.combiner.close()
    assert caught.value.sender == "site2"


def test_a_false_share_too_long_to_be_one(combiner_play: Start) -> None:
    play = combiner_play().until("unmask")
    frame = play.frame("unmask", "site1")
    body = bytes(decode(frame, {Kind.UNMASK: 10_000}).body)
    play.combiner.receive(play.resealed(frame, body=b"\xff" * len(body)))
    play.stage("unmask")
    # All five answered, four are enough: nothing is lost.
    play.combiner.close()
    assert play.combiner.state is CombinerState.COMPLETE
