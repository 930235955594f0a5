"""Frames with a few bytes changed: only the named errors come, whoever signed."""

from __future__ import annotations

import pytest
from colluder import ANY
from hostile_attack import COLLUDER, KINDS, VICTIM
from hostile_combiner import HostileCombiner, OpenHost, Refusal, attempt
from hypothesis import given, settings
from hypothesis import strategies as st
from protected_sum import STAGES, make_cast, refusal

from fedbcs_protocols.errors import PeerError
from fedbcs_protocols.wire import decode

FEW = settings(max_examples=20, deadline=None)


def _mutated(data: st.DataObject, original: bytes) -> bytes:
    mutated = bytearray(original)
    position = data.draw(st.integers(0, len(original) - 1))
    if data.draw(st.booleans()):
        mutated[position] ^= data.draw(st.integers(1, 255))
    else:
        end = position + data.draw(st.integers(0, 9))
        mutated[position:end] = data.draw(st.binary(min_size=1, max_size=8))
    return bytes(mutated)


@pytest.mark.parametrize("stage", KINDS)
@given(data=st.data())
@FEW
def test_a_frame_that_was_changed_on_the_way(
    open_host: OpenHost, stage: str, data: st.DataObject
) -> None:
    """Not the combiner's any more: the session goes on as if it had not come."""
    script = HostileCombiner(make_cast(4), open_host).play(stage)
    honest = script.honest(stage, VICTIM)
    mutated = _mutated(data, honest)
    if mutated != honest:
        with pytest.raises(Refusal):
            script.ask(VICTIM, stage, mutated)
    assert script.ask(VICTIM, stage, honest)


@pytest.mark.parametrize("stage", KINDS)
@given(data=st.data())
@FEW
def test_a_body_that_the_combiner_changed_and_signed(
    open_host: OpenHost, stage: str, data: st.DataObject
) -> None:
    """What is inside the signature is checked as well; there is no second try."""
    script = HostileCombiner(make_cast(4), open_host, colluders=["site3"]).play(stage)
    frame = decode(script.honest(stage, VICTIM), ANY)
    body = _mutated(data, bytes(frame.body))
    if body == frame.body:
        return
    forged = script.forge(frame.kind, frame.sequence, body)
    answer = attempt(lambda: script.ask(VICTIM, stage, forged))
    if isinstance(answer, Refusal):
        assert answer.kind not in {"LocalError", "InconsistentShares"}
        return
    # A list of survivors has no redundancy: another one that fits is only another list. The next
    # stage compares.
    assert stage == "consistency"
    assert answer
    script.came["consistency"] = {}
    for name in ("site1", "site2", "site3"):
        script.came["consistency"][name] = script.ask(name, stage, script.survivors())
    script.came["consistency"][VICTIM] = answer
    with pytest.raises(Refusal) as caught:
        script.ask(VICTIM, "unmask", script.certificate())
    assert caught.value.kind == "Inconsistent"


@pytest.mark.parametrize("stage", STAGES)
@given(data=st.data())
@FEW
def test_a_sites_frame_that_was_changed_on_the_way(
    open_host: OpenHost, stage: str, data: st.DataObject
) -> None:
    script = HostileCombiner(make_cast(4), open_host).play(stage)
    combiner = script.cast.combine()
    for earlier in STAGES[: STAGES.index(stage)]:
        for frame in script.came[earlier].values():
            combiner.receive(frame)
        combiner.close()
    honest = script.ask("site1", stage, script.honest(stage, "site1"))
    mutated = _mutated(data, honest)
    if mutated != honest:
        assert isinstance(refusal(lambda: combiner.receive(mutated)), PeerError)
    combiner.receive(honest)
    assert COLLUDER not in combiner.expected
