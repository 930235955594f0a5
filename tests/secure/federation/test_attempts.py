"""Attempts: a sum that fails before anybody answered is tried again, with everything fresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation_fixtures import ANYTHING, Cast, Lines, gone_from, make_study

from fedbcs_protocols.errors import Refused
from fedbcs_protocols.ring import unpack
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.attempts import MAX_ATTEMPTS
from fedbcs_secure.federation.combiner import RoundResult
from fedbcs_secure.federation.journal import FileJournals
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
BEFORE_UNMASK = ("advertise", "share", "masked_input", "consistency")


def assemble(start: Start, names: str = "ABCD", **values: Any) -> tuple[Cast, Lines, GlobalState]:
    study = make_study(names, **values)
    plan, state = start(study)
    cast = Cast(study, plan)
    return cast, Lines(cast.sites(state)), state


def undisturbed(start: Start, names: str = "ABCD", **values: Any) -> RoundResult:
    cast, lines, state = assemble(start, names, **values)
    return cast.combiner().run(lines, state)


def answers(cast: Cast, name: str, state: GlobalState) -> int:
    """How often the site has answered for the state, as its marks say."""
    marks = cast.marks[name].read()
    given = marks.answer(cast.parties.binding(state, 1)) if marks else None
    return given.times if given else 0


@pytest.mark.parametrize("stage", BEFORE_UNMASK)
def test_sites_that_are_silent_once_make_a_new_attempt(start: Start, stage: str) -> None:
    """SA-8.3: two of four vanish in attempt 0 and are there again in attempt 1."""
    cast, lines, state = assemble(start)
    lines.silent = gone_from(stage, "AB", attempt=0)
    result = cast.combiner().run(lines, state)
    assert (result.attempts, result.survivors, result.faults) == (2, ("A", "B", "C", "D"), {})
    assert result.state.digest == undisturbed(start).state.digest
    assert {site.state.digest for site in lines.sites.values()} == {result.state.digest}
    # nobody left its part of the first attempt behind: no certificate was ever shown
    certificates = {
        frame.binding.attempt
        for request in lines.down["C"]
        if (frame := decode(request, ANYTHING)).kind is Kind.CERTIFICATE
    }
    assert certificates == {1}
    assert [answers(cast, name, state) for name in "ABCD"] == [1, 1, 1, 1]


def test_a_new_attempt_has_new_keys_and_the_same_masked_vector_never_appears_twice(
    start: Start,
) -> None:
    cast, lines, state = assemble(start)
    lines.silent = lambda name, frame: (
        name in "AB" and frame.kind is Kind.SURVIVORS and frame.binding.attempt < 2
    )
    result = cast.combiner().run(lines, state)
    assert result.attempts == 3
    count, bits = cast.parties.setting(state, 0).count, cast.parties.shape.bits
    for kind, length in ((Kind.ADVERTISE, 96), (Kind.SHARES, 3 * 82)):
        for frames in lines.sent(kind).values():
            assert [frame.binding.attempt for frame in frames] == [0, 1, 2]
            pieces = [bytes(f.body[i : i + 32]) for f in frames for i in range(0, length - 31, 32)]
            assert len(set(pieces)) == len(pieces)
    for frames in lines.sent(Kind.MASKED_INPUT).values():
        vectors = [unpack(frame.body[8:], count, bits) for frame in frames]
        assert len(vectors) == 3
        for one, other in ((0, 1), (0, 2), (1, 2)):
            # 170 values of 18 bits: three equal by chance once in 10^10
            assert np.count_nonzero(vectors[one] == vectors[other]) < 3


@pytest.mark.parametrize("stage", BEFORE_UNMASK)
def test_after_the_last_attempt_the_round_is_given_up(start: Start, stage: str) -> None:
    cast, lines, state = assemble(start)
    lines.silent = lambda name, frame: (
        frame.kind is not Kind.START and gone_from(stage, "AB")(name, frame)
    )
    with pytest.raises(RoundError, match=f"round 1 came to no sum in {MAX_ATTEMPTS} attempts"):
        cast.combiner().run(lines, state)
    attempts = {frame.binding.attempt for frame in lines.sent(Kind.ADVERTISE)["C"]}
    assert attempts == set(range(MAX_ATTEMPTS)) == {0, 1, 2}
    assert [answers(cast, name, state) for name in "ABCD"] == [0, 0, 0, 0]
    assert all(site.state is state for site in lines.sites.values())


def test_too_few_that_are_ready_again_end_the_round(start: Start) -> None:
    """A site that is gone for good is missed before new keys are made."""
    cast, lines, state = assemble(start)
    seen: list[Frame] = []

    def silent(name: str, frame: Frame) -> bool:
        seen.append(frame)
        return name in "AB" and any(f.kind is Kind.DELIVERY for f in seen)

    lines.silent = silent
    with pytest.raises(RoundError, match="2 of 4 sites are ready, the threshold is 3"):
        cast.combiner().run(lines, state)


@pytest.mark.parametrize("gone", ["AB", "ABCD"])
def test_a_failure_in_unmask_is_for_people_to_decide(start: Start, gone: str) -> None:
    """SA-8.4: sites have answered, and the round is given up."""
    cast, lines, state = assemble(start)
    lines.silent = gone_from("unmask", gone, attempt=0)
    with pytest.raises(RoundError, match="round 1 is lost") as caught:
        cast.combiner().run(lines, state)
    assert "people at the sites must decide" in str(caught.value)
    assert {frame.binding.attempt for frame in lines.sent(Kind.ADVERTISE)["C"]} == {0}
    assert [answers(cast, name, state) for name in "ABCD"] == [int(n not in gone) for n in "ABCD"]


def test_who_tries_again_after_that_gets_no_second_answer(start: Start, tmp_path: Path) -> None:
    cast, lines, state = assemble(start)
    lines.silent = gone_from("unmask", "AB", attempt=0)
    journals = FileJournals(tmp_path)
    with pytest.raises(RoundError, match="people at the sites must decide"):
        cast.combiner(journals).run(lines, state)
    lines.silent = None
    with pytest.raises(RoundError) as caught:
        cast.combiner(journals).run(lines, state)
    assert "people" in str(caught.value)
    assert "nothing was learned" not in str(caught.value)
    refusals = [error for name, error in lines.errors if name in "CD"]
    assert refusals
    assert all(isinstance(error, Refused) and "has answered" in str(error) for error in refusals)
    assert [answers(cast, name, state) for name in "ABCD"] == [0, 0, 1, 1]
    assert [len(frames) for frames in lines.sent(Kind.UNMASK).values()] == [0, 0, 1, 1]


def test_a_study_may_allow_a_second_answer_and_the_marks_count_it(start: Start) -> None:
    """max_reused_states = 1: the risk of a subtraction, taken knowingly."""
    cast, lines, state = assemble(start, max_reused_states=1)
    lines.silent = gone_from("unmask", "AB", attempt=0)
    result = cast.combiner().run(lines, state)
    assert (result.attempts, result.survivors) == (2, ("A", "B", "C", "D"))
    assert result.state.digest == undisturbed(start, max_reused_states=1).state.digest
    assert [answers(cast, name, state) for name in "ABCD"] == [1, 1, 2, 2]
    assert {site.state.digest for site in lines.sites.values()} == {result.state.digest}
    # the next round starts at nought
    lines.silent = None
    after = cast.combiner().run(lines, result.state)
    assert [answers(cast, name, result.state) for name in "ABCD"] == [1, 1, 1, 1]
    assert after.state.round == 2


def test_beyond_what_the_study_allows_nobody_answers(start: Start) -> None:
    cast, lines, state = assemble(start, max_reused_states=1)
    lines.silent = gone_from("unmask", "AB")
    with pytest.raises(RoundError, match="came to no sum"):
        cast.combiner().run(lines, state)
    assert [answers(cast, name, state) for name in "ABCD"] == [0, 0, 2, 2]
    assert [len(frames) for frames in lines.sent(Kind.UNMASK).values()] == [0, 0, 2, 2]


class Liars(Lines):
    """Some sites answer *unmask* with noise of the right form, under their own signature."""

    liars = ""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, reply in super().exchange(requests):
            frame = decode(reply, ANYTHING)
            if name not in self.liars or frame.kind is not Kind.UNMASK:
                yield name, reply
                continue
            shares = len(frame.body) // 33
            noise = np.random.default_rng(ord(name)).integers(0, 256, (shares, 33), dtype=np.uint8)
            noise[:, 0] = 0
            changed = replace(frame, body=noise.tobytes())
            yield name, seal(changed, self.sites[name]._identity)


@pytest.mark.parametrize(("liars", "harmless"), [("A", True), ("E", True), ("AB", False)])
def test_one_false_answer_does_no_harm_and_two_lose_the_round(
    start: Start, liars: str, harmless: bool
) -> None:
    """SA-6.6 seen from the round: four of five answers are needed."""
    cast, lines, state = assemble(start, "ABCDE")
    lying = Liars(lines.sites)
    lying.liars = liars
    if harmless:
        result = cast.combiner().run(lying, state)
        assert result.state.digest == undisturbed(start, "ABCDE").state.digest
    else:
        with pytest.raises(RoundError, match="people at the sites must decide"):
            cast.combiner().run(lying, state)


@pytest.mark.parametrize("stage", BEFORE_UNMASK)
def test_attempts_go_on_counting_in_a_new_process(start: Start, stage: str, tmp_path: Path) -> None:
    """After a round that was given up, another combiner begins with an attempt nobody has seen."""
    cast, lines, state = assemble(start)
    lines.silent = lambda name, frame: (
        frame.kind is not Kind.START and gone_from(stage, "AB")(name, frame)
    )
    with pytest.raises(RoundError):
        cast.combiner(FileJournals(tmp_path)).run(lines, state)
    lines.silent = None
    result = cast.combiner(FileJournals(tmp_path)).run(lines, state)
    assert result.attempts == MAX_ATTEMPTS + 1
    assert result.state.digest == undisturbed(start).state.digest
    assert [answers(cast, name, state) for name in "ABCD"] == [1, 1, 1, 1]


def test_a_journal_of_another_state_is_not_gone_on_with(start: Start, tmp_path: Path) -> None:
    cast, lines, state = assemble(start)
    journals = FileJournals(tmp_path)
    first = cast.combiner(journals).run(lines, state)
    weights = state.weights.copy()
    weights[0] += 1
    other = GlobalState(0, weights, state.velocity, (), state.exponents)
    fresh = Cast(cast.study, cast.plan)
    result = fresh.combiner(journals).run(Lines(fresh.sites(other)), other)
    assert result.attempts == 1
    assert result.state.digest != first.state.digest
    # both are there to go on with, until the round is finished
    for at, after in ((state, first), (other, result)):
        again = fresh.combiner(journals).run(Lines({}, lambda name, frame: True), at)
        assert again.state.digest == after.state.digest
    fresh.combiner(journals).finished(other)
    assert not list(tmp_path.iterdir())
