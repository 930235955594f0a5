from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from protected_sum import STAGES, answer, make_cast

from fedbcs_protocols.errors import (
    BadSignature,
    LocalError,
    MalformedFrame,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.secagg import MemoryMarks, SiteSession
from fedbcs_protocols.secagg.shamir import combine
from fedbcs_protocols.secagg.states import SiteState
from fedbcs_protocols.wire import MAX_BODY_BYTES, Frame, Kind, decode

SITES = 5
Start = Callable[..., Any]
REQUESTS = STAGES[1:]
AFTER = {
    "advertise": SiteState.ADVERTISED,
    "share": SiteState.SHARED,
    "masked_input": SiteState.MASKED,
    "consistency": SiteState.SIGNED,
    "unmask": SiteState.ANSWERED,
}


def _open(frame: bytes) -> Frame:
    return decode(frame, dict.fromkeys(Kind, MAX_BODY_BYTES))


def test_the_five_frames() -> None:
    cast = make_cast(SITES)
    sites, vectors, combiner = cast.all_sites(), cast.vectors(), cast.combine()
    assert {site.state for site in sites.values()} == {SiteState.FRESH}
    kinds = (Kind.ADVERTISE, Kind.SHARES, Kind.MASKED_INPUT, Kind.CONSISTENCY, Kind.UNMASK)
    for sequence, (stage, kind) in enumerate(zip(STAGES, kinds, strict=True)):
        for name, site in sites.items():
            frame = answer(site, stage, combiner.requests.get(name, b""), vectors[name])
            opened = _open(frame)
            assert (opened.kind, opened.sequence, opened.sender) == (kind, sequence, name)
            assert opened.binding == cast.binding
            assert site.state is AFTER[stage]
            assert (site.transcript is not None) == (stage in ("consistency", "unmask"))
            combiner.receive(frame)
        combiner.close()


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_done_twice_or_out_of_turn(site_play: Start, stage: str) -> None:
    play = site_play(stage)
    # Genuine frames of the combiner for this sum, at the wrong time.
    requests = {later: site_play(later).request for later in REQUESTS if later != stage}
    given = b"" if stage == "advertise" else play.request
    before = play.site.state
    for other_stage, request in requests.items():
        with pytest.raises(UnexpectedFrame, match=f"in state {before.name}: too early"):
            play.answer(request, other_stage)
        assert play.site.state is before
    if stage != "advertise":
        with pytest.raises(LocalError, match="does not allow ADVERTISE"):
            play.site.advertise()
    assert play.answer(given)
    after = play.site.state
    error = LocalError if stage == "advertise" else UnexpectedFrame
    with pytest.raises(error):
        play.answer(given)
    assert play.site.state is after is AFTER[stage]


@pytest.mark.parametrize("stage", REQUESTS)
def test_what_is_not_the_combiners_changes_nothing(site_play: Start, stage: str) -> None:
    play = site_play(stage)
    before = play.site.state
    elsewhere = play.cast.changed
    for request, error in (
        (b"", MalformedFrame),
        (play.request[:-1], MalformedFrame),
        (play.request + b"\0", MalformedFrame),
        (play.forged(Identity.generate()), BadSignature),
        (play.forged(play.cast.sites["site2"]), BadSignature),
        (play.forged(play.cast.sites["site2"], sender="site2"), UnknownSender),
        (play.forged(sequence=9), WrongBinding),
        (play.forged(kind=Kind.SUM), UnexpectedFrame),
        (play.forged(binding=elsewhere(attempt=1).binding), WrongBinding),
        (play.forged(binding=elsewhere(round=4).binding), WrongBinding),
        (play.forged(binding=elsewhere(phase=2).binding), WrongBinding),
        (play.forged(binding=elsewhere(state_digest=bytes(32)).binding), WrongBinding),
    ):
        with pytest.raises(error):
            play.answer(request)
        assert play.site.state is before
    assert play.answer()


def test_who_the_site_is() -> None:
    cast = make_cast(SITES)
    for name, identity in (
        ("site1", cast.sites["site0"]),
        ("site0", Identity.generate()),
        ("nobody", cast.sites["site0"]),
        ("@combiner", cast.combiner),
    ):
        with pytest.raises(LocalError, match="does not list"):
            SiteSession(
                cast.setting, identity=identity, name=name, guard=cast.guard, marks=MemoryMarks()
            )


def test_an_answer_holds_one_kind_a_site() -> None:
    """Seeds of those that stayed, mask keys of those that left, and they are the right ones."""
    cast = make_cast(SITES)
    sites = cast.all_sites()
    secrets = {}
    for place, site in enumerate(sites.values()):
        site.advertise()
        assert site._ephemeral is not None
        secrets[place] = site._ephemeral
    combiner = cast.combine()
    for site in sites.values():
        combiner.receive(site._advertised)
    combiner.close()
    vectors, answers = cast.vectors(), {}
    for stage in STAGES[1:]:
        for name in combiner.expected:
            if (stage, name) != ("masked_input", "site3"):
                frame = answer(sites[name], stage, combiner.requests[name], vectors[name])
                combiner.receive(frame)
                answers[name] = bytes(_open(frame).body)
        combiner.close()
    holders = [0, 1, 2, 4]
    for owner in range(SITES):
        shares = {
            holder + 1: answers[f"site{holder}"][33 * owner : 33 * owner + 33] for holder in holders
        }
        secret = combine(shares, 4)
        expected = secrets[owner]
        key = expected.mask_key.private_bytes_raw()
        assert secret == (key if owner == 3 else expected.seed)


def test_a_vector_that_does_not_fit_costs_nothing(site_play: Start) -> None:
    play = site_play("masked_input")
    vector = play.vectors["site1"]
    largest = (2**20 - 1) // SITES
    too_large = vector.copy()
    too_large[3] = largest + 1
    for bad in (vector[:-1], vector.astype(np.int64), vector.reshape(7, 10), too_large):
        with pytest.raises(LocalError):
            play.site.masked_input(play.request, bad)
        assert play.site.state is SiteState.SHARED
    too_large[3] = largest
    kept = too_large.copy()
    assert play.site.masked_input(play.request, too_large)
    assert np.array_equal(too_large, kept)


def test_a_masked_input_has_the_agreed_shape(site_play: Start) -> None:
    play = site_play("masked_input")
    body = _open(play.answer()).body
    MaskedInput.decode(body, sender="site1", shape=play.cast.setting.shape)


def test_sessions_have_secrets_of_their_own() -> None:
    cast = make_cast(SITES)
    seen: set[bytes] = set()
    for attempt in range(5):
        body = bytes(_open(cast.changed(attempt=attempt).site("site0").advertise()).body)
        seen |= {body[at : at + 32] for at in (0, 32, 64)}
    assert len(seen) == 15


@pytest.mark.parametrize("bits", [20, 32])
def test_memory_of_a_masked_input(site_play: Start, bits: int) -> None:
    play = site_play("masked_input", make_cast(3, bits=bits, count=1_000_000))
    vector, request = play.vectors["site1"], play.request
    tracemalloc.start()
    play.site.masked_input(request, vector)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * vector.nbytes
