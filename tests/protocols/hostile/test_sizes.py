"""Frames that are too long, or say that they are: nothing of that size is allocated."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from colluder import ANY
from hostile_attack import COLLUDER, KINDS, VICTIM
from hostile_combiner import HostileCombiner, OpenHost, Refusal
from hostile_host import only_ours
from protected_sum import STAGES, make_cast

from fedbcs_protocols.errors import MalformedFrame
from fedbcs_protocols.wire import Kind, decode

pytestmark = only_ours("memory is measured in the process of the tests")

HUGE = 20_000_000
SMALL = 200_000
"""More than any honest frame of six sites takes to read, far less than ``HUGE``."""


def _peak(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _claiming(frame: bytes, at: int) -> bytes:
    return frame[:at] + b"\xff\xff\xff\xff" + frame[at + 4 :]


@pytest.mark.parametrize("stage", KINDS)
def test_a_site_allocates_nothing_for_a_frame_that_is_too_long(
    open_host: OpenHost, stage: str
) -> None:
    script = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER]).play(stage)
    honest = script.honest(stage, VICTIM)
    huge = (
        # Under the true key, in front of it, behind it, and lengths that only say so.
        script.forge(KINDS[stage], STAGES.index(stage) - 1, bytes(HUGE)),
        bytes(HUGE),
        honest + bytes(HUGE),
        _claiming(honest, 6 + 71 + 5),
    )
    for frame in huge:

        def refused(frame: bytes = frame) -> None:
            with pytest.raises(Refusal) as caught:
                script.ask(VICTIM, stage, frame)
            assert caught.value.kind == "MalformedFrame"

        assert _peak(refused) < SMALL
    # The measure sees what the honest frame takes, and the site has lost nothing.
    assert 1_000 < _peak(lambda: script.ask(VICTIM, stage, honest)) < 2 * SMALL


@pytest.mark.parametrize("at", [2, 2 + 4 + 6 + 71 + 5])
def test_a_length_inside_a_key_list(open_host: OpenHost, at: int) -> None:
    script = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER]).play("share")
    body = bytes(decode(script.key_list(), ANY).body)
    frame = script.forge(Kind.KEY_LIST, 0, _claiming(body, at))

    def refused() -> None:
        with pytest.raises(Refusal) as caught:
            script.site(VICTIM).share(frame)
        # The second length is in the victim's own frame, which is compared as a whole.
        assert caught.value.kind == ("MalformedFrame" if at == 2 else "BadKeyList")

    assert _peak(refused) < SMALL


@pytest.mark.parametrize("stage", STAGES)
def test_the_combiner_allocates_nothing_for_a_frame_that_is_too_long(
    open_host: OpenHost, stage: str
) -> None:
    script = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER])
    combiner = script.cast.combine()
    script.play("finished")
    for earlier in STAGES[: STAGES.index(stage)]:
        for frame in script.came[earlier].values():
            combiner.receive(frame)
        combiner.close()
    honest = script.came[stage][COLLUDER]
    for frame in (honest + bytes(HUGE), bytes(HUGE), _claiming(honest, 6 + 71 + 5)):

        def refused(frame: bytes = frame) -> None:
            with pytest.raises(MalformedFrame):
                combiner.receive(frame)

        assert _peak(refused) < SMALL
    combiner.receive(honest)
