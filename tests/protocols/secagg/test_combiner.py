from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from protected_sum import STAGES, make_cast, run_sum

from fedbcs_protocols.errors import LocalError, TooFewSites
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import CombinerSession, NoJournal
from fedbcs_protocols.secagg.messages import SEALED_SHARES_BYTES, Advertise
from fedbcs_protocols.secagg.states import CombinerState
from fedbcs_protocols.wire import Kind, decode

SITES = 5
Start = Callable[..., Any]
STATES = (
    CombinerState.ADVERTISE,
    CombinerState.SHARES,
    CombinerState.MASKED_INPUT,
    CombinerState.CONSISTENCY,
    CombinerState.UNMASK,
)


def test_who_is_expected_and_asked(combiner_play: Start) -> None:
    play = combiner_play()
    combiner = play.combiner
    everybody = tuple(play.cast.sites)
    assert (combiner.expected, combiner.requests, combiner.survivors) == (everybody, {}, ())
    gone: list[str] = []
    leaving = {"masked_input": "site3"}
    for state, stage in zip(STATES, STAGES, strict=True):
        assert combiner.state is state
        left = tuple(name for name in everybody if name not in gone)
        assert combiner.expected == left
        if stage != "advertise":
            assert tuple(combiner.requests) == left
        last = leaving.get(stage, "")
        for name in reversed(left):
            if name != last:
                combiner.receive(play.frame(stage, name))
                assert name not in combiner.expected
        assert combiner.expected == ((last,) if last else ())
        gone += [last]
        combiner.close()
    assert combiner.state is CombinerState.COMPLETE
    assert (combiner.expected, combiner.requests) == ((), {})
    assert combiner.survivors == ("site0", "site1", "site2", "site4")


def test_no_sum_before_the_end(combiner_play: Start) -> None:
    play = combiner_play()
    for stage in STAGES:
        for call in (play.combiner.total, play.combiner.sum_frame):
            with pytest.raises(LocalError, match="there is no sum in state"):
                call()
        play.stage(stage)
        play.combiner.close()
    play.combiner.total()
    with pytest.raises(LocalError, match="does not allow CLOSE"):
        play.combiner.close()


@pytest.mark.parametrize("stage", STAGES)
def test_too_few_sites_end_the_attempt(combiner_play: Start, stage: str) -> None:
    play = combiner_play().until(stage)
    combiner = play.combiner
    assert play.cast.terms.threshold == 4
    play.stage(stage, "site0", "site2")
    with pytest.raises(TooFewSites, match=r"3 sites are left at the end of .*, the threshold is 4"):
        combiner.close()
    assert combiner.state is CombinerState.FAILED
    assert (combiner.expected, combiner.requests) == ((), {})
    for call in (combiner.close, combiner.total, combiner.sum_frame):
        with pytest.raises(LocalError, match="FAILED"):
            call()


def test_deliveries_hold_what_is_for_their_site(combiner_play: Start) -> None:
    play = combiner_play().until("share")
    play.stage("share", "site3")
    play.combiner.close()
    shares = {
        name: bytes(decode(play.frame("share", name), {Kind.SHARES: 10_000}).body)
        for name in ("site0", "site1", "site2", "site4")
    }
    everybody = list(play.cast.sites)
    for to in shares:
        delivery = decode(play.combiner.requests[to], {Kind.DELIVERY: 10_000}).body
        expected = b"\x17"
        for owner, body in shares.items():
            if owner != to:
                at = [name for name in everybody if name != owner].index(to) * SEALED_SHARES_BYTES
                expected += body[at : at + SEALED_SHARES_BYTES]
        assert bytes(delivery) == expected


def test_the_combiner_of_the_setting() -> None:
    cast = make_cast(3)
    for wrong in (Identity.generate(), cast.sites["site0"]):
        with pytest.raises(LocalError, match="not the combiner's"):
            CombinerSession(cast.setting, identity=wrong, journal=NoJournal())


def test_total_is_asked_for_twice() -> None:
    done = run_sum(make_cast(3), make_cast(3).vectors())
    assert np.array_equal(done.total(), done.total())
    assert done.sum_frame() == done.sum_frame()


def test_its_memory_does_not_grow_with_the_sites(combiner_play: Start) -> None:
    """The k-th masked input costs what the first does, and leaves next to nothing behind."""
    play = combiner_play(make_cast(8, bits=20, count=300_000)).until("masked_input")
    peaks = []
    for name in play.cast.sites:
        frame = play.frame("masked_input", name)
        del play.frames["masked_input", name]
        tracemalloc.start()
        play.combiner.receive(frame)
        peaks.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
    assert max(current for current, _ in peaks) < 20_000
    # Vectors are 750 kB packed and 1.2 MB unpacked; work is done on blocks of 1 MiB.
    assert max(peak for _, peak in peaks) < 3 * 2**20
    assert peaks[-1][1] < peaks[1][1] + 100_000


def test_advertised_draws_reach_the_table() -> None:
    cast = make_cast(40, bits=24)
    combiner = cast.combine()
    frames = {name: cast.site(name).advertise() for name in list(cast.sites)[:36]}
    limit = Advertise.length(cast.terms.graph, 40)
    for frame in frames.values():
        combiner.receive(frame)
    combiner.close()
    for place in range(36):
        advert = Advertise.decode(
            decode(frames[f"site{place}"], {Kind.ADVERTISE: limit}).body,
            sender="a",
            graph=cast.terms.graph,
            sites=40,
        )
        assert combiner._table.holders(place) == advert.drawn & frozenset(range(36))
