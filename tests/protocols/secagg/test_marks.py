from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import LocalError, Refused
from fedbcs_protocols.secagg import Marks, MemoryMarks
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS, Answer, advertising

STUDY, STATE = b"\1" * 32, b"\2" * 32
FIRST = Binding(STUDY, round=3, attempt=0, phase=1, state_digest=STATE)
DIGEST = b"\3" * 32
SURVIVORS = b"\x1f"

digests = st.binary(min_size=32, max_size=32)
phases, attempts = st.integers(0, 255), st.integers(0, 2**16 - 1)
bindings = st.builds(Binding, digests, st.integers(0, 2**32 - 1), attempts, phases, digests)
answers = st.lists(
    st.builds(Answer, phases, attempts, st.integers(1, 256), digests),
    max_size=4,
    unique_by=lambda answer: answer.phase,
).map(tuple)
marks = st.builds(Marks, bindings, answers, st.binary(max_size=128))


def _at(attempt: int = 0, round_: int = 3, phase: int = 1, state: bytes = STATE) -> Binding:
    return Binding(STUDY, round_, attempt, phase, state)


def _answered(binding: Binding = FIRST, times: int = 1) -> Marks:
    """The marks of a site that has answered ``times`` in attempts from 0."""
    kept: Marks | None = None
    for attempt in range(times):
        here = replace(binding, attempt=attempt)
        kept = advertising(kept, here, 255).answered(here, DIGEST, SURVIVORS, 255)
    assert kept is not None
    return kept


# Their bytes ------------------------------------------------------------------------------------


@given(marks)
def test_decode_is_the_inverse_of_encode(value: Marks) -> None:
    assert Marks.decode(value.encode()) == value


@given(marks, st.data())
def test_what_is_accepted_is_what_is_written(value: Marks, data: st.DataObject) -> None:
    changed = bytearray(value.encode())
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    del changed[len(changed) - data.draw(st.integers(0, 3)) :]
    changed += data.draw(st.binary(max_size=3))
    try:
        decoded = Marks.decode(bytes(changed))
    except LocalError:
        return
    assert decoded.encode() == changed


@given(marks, marks)
def test_different_marks_have_different_bytes(one: Marks, two: Marks) -> None:
    assert (one == two) == (one.encode() == two.encode())


def test_no_marks() -> None:
    data = _answered().encode()
    assert data[:5] == b"FBMK\1"
    for bad in (b"", data[:-1], data + b"\0", b"XBMK" + data[4:], data[:4] + b"\2" + data[5:]):
        with pytest.raises(LocalError, match="marks"):
            Marks.decode(bad)
    with pytest.raises(LocalError):
        Marks.decode(Marks(FIRST, survivors=bytes(129)).encode())


def test_every_flipped_bit_is_noticed() -> None:
    data = _answered().encode()
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(LocalError, match="marks"):
            Marks.decode(bytes(changed))


@pytest.mark.parametrize(
    "answers",
    [(Answer(1, 0, 0, DIGEST),), (Answer(1, 0, 1, DIGEST), Answer(1, 1, 1, DIGEST))],
)
def test_answers_that_were_never_written(answers: tuple[Answer, ...]) -> None:
    with pytest.raises(LocalError, match="never given, or given twice"):
        Marks.decode(Marks(FIRST, answers).encode())


# SA-8.1 -----------------------------------------------------------------------------------------


def test_the_first_mark() -> None:
    assert advertising(None, FIRST, 0) == Marks(FIRST)


@given(*[st.tuples(*[st.integers(0, 2)] * 3)] * 2)
def test_round_attempt_and_phase_only_rise(
    before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    last, following = Binding(STUDY, *before, STATE), Binding(STUDY, *after, STATE)
    if after > before:
        assert advertising(Marks(last), following, 0).binding == following
    else:
        with pytest.raises(Refused, match="is not after"):
            advertising(Marks(last), following, 255)


def test_within_a_round_the_state_is_the_same() -> None:
    for attempt, phase in ((1, 1), (0, 2)):
        with pytest.raises(Refused, match="another global state"):
            advertising(Marks(FIRST), _at(attempt, 3, phase, bytes(32)), 255)
    assert advertising(Marks(FIRST), _at(0, 4, 0, bytes(32)), 0).binding.round == 4


def test_marks_of_another_study() -> None:
    with pytest.raises(LocalError, match="another study"):
        advertising(Marks(FIRST), replace(FIRST, study_digest=bytes(32), round=9), 0)


def test_a_new_state_forgets_answers_but_not_survivors() -> None:
    kept = advertising(_answered(), _at(0, 4, 1, bytes(32)), 0)
    assert (kept.answers, kept.survivors) == ((), SURVIVORS)
    # For the same state they stay, whatever attempt and round are called.
    for binding in (_at(1, 3, 2), _at(0, 4, 2)):
        assert advertising(_answered(), binding, 0).answers == _answered().answers
    kept = advertising(_answered(), _at(0, 4), 1)
    assert kept.answered(_at(0, 4), DIGEST, SURVIVORS, 1).answers == (Answer(1, 0, 2, DIGEST),)


# SA-8.2 -----------------------------------------------------------------------------------------


def test_an_answer_is_written_down() -> None:
    kept = Marks(FIRST).answered(FIRST, DIGEST, SURVIVORS, 0)
    assert kept == Marks(
        FIRST, (Answer(phase=1, attempt=0, times=1, transcript=DIGEST),), SURVIVORS
    )
    assert kept.answer(FIRST) == kept.answer(_at(7)) == kept.answers[0]
    # The state's digest says which state it is, whatever the round is called.
    assert kept.answer(_at(0, 4)) == kept.answers[0]
    for other in (_at(0, 3, 2), _at(state=bytes(32))):
        assert kept.answer(other) is None


def test_a_state_under_another_rounds_number_is_the_same_state() -> None:
    with pytest.raises(Refused, match="has answered 1 time"):
        advertising(_answered(), _at(0, 4), 0)


def test_a_round_has_sixteen_attempts() -> None:
    last = _at(MAX_ATTEMPTS - 1)
    assert advertising(Marks(_at(3)), last, 0).binding == last
    for before in (None, Marks(last)):
        with pytest.raises(Refused, match="more than 16 attempts"):
            advertising(before, _at(MAX_ATTEMPTS), 0)


def test_who_has_answered_does_not_advertise_again() -> None:
    kept = _answered()
    with pytest.raises(Refused, match="has answered 1 time"):
        advertising(kept, _at(1), 0)
    advertising(kept, _at(1, phase=2), 0)
    advertising(kept, _at(0, 4, 1, bytes(32)), 0)


def test_who_has_answered_does_not_answer_again() -> None:
    kept = _answered()
    for transcript in (DIGEST, bytes(32)):
        with pytest.raises(Refused, match="has answered 1 time"):
            kept.answered(FIRST, transcript, SURVIVORS, 0)


@pytest.mark.parametrize("allowed", [0, 1, 2, 14])
def test_reuses_are_counted(allowed: int) -> None:
    kept: Marks | None = None
    for attempt in range(allowed + 1):
        kept = advertising(kept, _at(attempt), allowed)
        kept = kept.answered(_at(attempt), bytes([attempt]) * 32, SURVIVORS, allowed)
        kept = Marks.decode(kept.encode())
        assert kept.answers == (Answer(1, attempt, attempt + 1, bytes([attempt]) * 32),)
    assert kept is not None
    # It does not even begin again, nor answer in an attempt that it has begun.
    with pytest.raises(Refused, match=f"has answered {allowed + 1} time"):
        advertising(kept, _at(allowed + 1), allowed)
    with pytest.raises(Refused, match=f"has answered {allowed + 1} time"):
        kept.answered(_at(allowed), DIGEST, SURVIVORS, allowed)


def test_reuses_are_counted_for_each_phase() -> None:
    kept = _answered(times=2)
    second = _at(2, phase=2)
    kept = advertising(kept, second, 1).answered(second, DIGEST, b"\x0f", 1)
    assert {(a.phase, a.times) for a in kept.answers} == {(1, 2), (2, 1)}
    assert kept.survivors == b"\x0f"
    with pytest.raises(Refused):
        advertising(kept, _at(3), 1)
    advertising(kept, _at(3, phase=2), 1)


def test_an_attempt_that_was_left_behind_is_not_answered() -> None:
    kept = advertising(Marks(FIRST), _at(1), 0)
    with pytest.raises(Refused, match="gone on from the attempt"):
        kept.answered(FIRST, DIGEST, SURVIVORS, 0)


def test_memory_marks() -> None:
    keeper = MemoryMarks()
    assert keeper.read() is None
    keeper.write(Marks(FIRST))
    assert keeper.read() == Marks(FIRST)


# Everything at once -----------------------------------------------------------------------------


class SiteOverTime(RuleBasedStateMachine):
    """A site under a combiner that asks for anything in any order, and that is often restarted.

    The state's digest covers the round (RO-4.4); ``fork`` is another state for the same round.
    Sessions stay open for as long as the process lives: all may be asked for an answer.
    """

    @initialize(allowed=st.integers(0, 2))
    def begin(self, allowed: int) -> None:
        self.allowed = allowed
        self.disk: bytes | None = None
        self.sessions: list[Binding] = []
        self.steps: list[tuple[int, int, int]] = []
        self.given: Counter[tuple[bytes, int]] = Counter()

    def _read(self) -> Marks | None:
        return None if self.disk is None else Marks.decode(self.disk)

    @rule(
        round_=st.integers(0, 2),
        attempt=st.integers(0, 5),
        phase=st.integers(0, 1),
        fork=st.sampled_from([0, 0, 0, 1]),
    )
    def advertise(self, round_: int, attempt: int, phase: int, fork: int) -> None:
        self._advertise(Binding(STUDY, round_, attempt, phase, bytes([round_, fork]) * 16))

    @precondition(lambda self: self.sessions)
    @rule()
    def advertise_the_next_attempt(self) -> None:
        last = self.sessions[-1]
        self._advertise(replace(last, attempt=last.attempt + 1))

    def _advertise(self, binding: Binding) -> None:
        try:
            kept = advertising(self._read(), binding, self.allowed)
        except Refused:
            return
        self.disk = kept.encode()
        self.sessions.append(binding)
        self.steps.append((binding.round, binding.attempt, binding.phase))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), transcript=st.sampled_from([DIGEST, bytes(32)]))
    def answer(self, data: st.DataObject, transcript: bytes) -> None:
        binding = data.draw(st.sampled_from(self.sessions))
        kept = self._read()
        assert kept is not None
        try:
            kept = kept.answered(binding, transcript, SURVIVORS, self.allowed)
        except (Refused, LocalError):
            return
        self.disk = kept.encode()
        self.given[binding.state_digest, binding.phase] += 1
        assert binding == self.sessions[-1]

    @rule()
    def restart(self) -> None:
        """A new process knows what was written, and none of the sessions."""
        self.sessions.clear()

    @precondition(lambda self: self.sessions)
    @rule()
    def crash_after_the_write(self) -> None:
        """The mark is there, the answer never left: it counts as given."""
        binding, kept = self.sessions[-1], self._read()
        assert kept is not None
        try:
            self.disk = kept.answered(binding, DIGEST, SURVIVORS, self.allowed).encode()
        except (Refused, LocalError):
            return
        self.given[binding.state_digest, binding.phase] += 1
        self.sessions.clear()

    @invariant()
    def no_state_is_answered_too_often(self) -> None:
        given = getattr(self, "given", Counter())
        assert all(times <= self.allowed + 1 for times in given.values())

    @invariant()
    def one_state_a_round(self) -> None:
        states = {digest for digest, _ in getattr(self, "given", ())}
        assert len({digest[0] for digest in states}) == len(states)

    @invariant()
    def steps_only_rise(self) -> None:
        steps = getattr(self, "steps", [])
        assert steps == sorted(set(steps))

    @invariant()
    def the_count_on_disk_is_the_count(self) -> None:
        kept = self._read() if getattr(self, "disk", None) else None
        for answer in kept.answers if kept else ():
            assert self.given[kept.binding.state_digest, answer.phase] == answer.times


def test_a_site_over_time() -> None:
    run_state_machine_as_test(
        SiteOverTime, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )
