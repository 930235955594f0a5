"""Sites that vanish: all protections lose the same ones, and whoever is left makes the average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from federation_fixtures import (
    ANYTHING,
    FUSED,
    REQUESTS,
    Cast,
    Lines,
    fake_training,
    make_study,
)
from federation_world import GROUPED, PROTECTIONS, away, world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.errors import RoundError, StudyError
from fedbcs_secure.federation.dropouts import (
    STAGES,
    Drop,
    DroppingChannel,
    check_drops,
    parse_drop,
)
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.memory import MemoryChannel, MemoryFederation, RoundOutcome
from fedbcs_secure.federation.missed import MAX_MISSED
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
NAMES = "ABCDEFGHI"

VARIANTS: dict[str, dict[str, Any]] = {
    "fedbcs": {},
    "fedbcs with momentum": {"server_momentum": 0.5},
    "faithful": {"alignment": {"form": "faithful"}},
    "fedavg": {"method": "fedavg"},
    "fedavg with momentum": {"method": "fedavg", "server_momentum": 0.9},
}


def play(
    start: Start, names: str, drops: list[Drop], rounds: int, **values: Any
) -> list[RoundOutcome]:
    study = make_study(names, **values)
    plan, state = start(study)
    federation = MemoryFederation(study, plan, fake_training, drops)
    outcomes = []
    for _ in range(rounds):
        outcomes.append(federation.run_round(state))
        state = outcomes[-1].state
    return outcomes


def in_the_sum(names: str, drops: list[Drop], round: int) -> tuple[str, ...]:
    """Who has sent a vector: whoever did not vanish before that."""
    early = STAGES[: STAGES.index("masked_input") + 1]
    gone = {drop.site for drop in drops if drop.round == round and drop.stage in early}
    return tuple(name for name in names if name not in gone)


def same_under_all(
    start: Start,
    names: str,
    drops: list[Drop],
    rounds: int = 3,
    protections: Iterable[str] = PROTECTIONS,
    **values: Any,
) -> None:
    plain, *protected = (
        play(start, names, drops, rounds, **(PROTECTIONS[protection] | values))
        for protection in ("none", *(set(protections) - {"none"}))
    )
    for outcomes in protected:
        for index, (one, other) in enumerate(zip(outcomes, plain, strict=True)):
            assert one.state.encode() == other.state.encode()
            assert one.survivors == other.survivors == in_the_sum(names, drops, index)
            assert one.attempts == other.attempts == 1


@pytest.mark.parametrize(
    ("variant", "stage"),
    [(v, s) for v in VARIANTS for s in (STAGES if v == "fedbcs" else ("ready", "share", "unmask"))],
)
def test_a_protected_sum_gives_the_same_state_with_a_site_less(
    start: Start, stage: str, variant: str
) -> None:
    """B vanishes in the first round and is back in the second, in which D vanishes."""
    drops = [Drop("B", stage, 0), Drop("D", stage, 1)]
    # All of them at all stages: test_three_protections.
    same_under_all(start, "ABCDE", drops, protections=["verified"], **VARIANTS[variant])


@pytest.mark.parametrize("stage", ["keys", "masked_input", "sum"])
def test_a_key_that_serves_several_rounds_gives_the_same_state(start: Start, stage: str) -> None:
    """The site that deals vanishes, then another one; whoever comes or goes makes a new key."""
    drops = [Drop("A", stage, 1), Drop("C", stage, 2)]
    same_under_all(start, "ABCD", drops, 4, GROUPED, rekey_every=100, server_momentum=0.5)


@pytest.mark.parametrize("names", [NAMES[:n] for n in (3, 6, 9)])
def test_all_protections_with_as_many_gone_as_may_be(start: Start, names: str) -> None:
    threshold = make_study(names).terms[0]
    drops = [
        Drop(name, STAGES[index % len(STAGES)], 0)
        for index, name in enumerate(names[threshold:], len(names))
    ]
    # not all: under ckks nobody could say where the sites came to
    drops += [Drop(name, "sum", 1) for name in names[threshold:]]
    drops += [Drop(name, "masked_input", 2) for name in names[: len(names) - threshold]]
    same_under_all(start, names, drops, rounds=4)


@st.composite
def patterns(draw: st.DrawFn) -> tuple[str, list[Drop]]:
    names = NAMES[: draw(st.integers(3, 9))]
    allowed = len(names) - make_study(names).terms[0]
    drops = []
    for round in range(3):
        gone = draw(st.lists(st.sampled_from(names), unique=True, max_size=allowed))
        drops += [Drop(site, draw(st.sampled_from(STAGES)), round) for site in gone]
    return names, drops


@given(patterns())
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_all_protections_under_any_pattern(start: Start, pattern: tuple[str, list[Drop]]) -> None:
    names, drops = pattern
    same_under_all(start, names, drops, server_momentum=0.5)


@pytest.mark.parametrize("stage", STAGES)
def test_finch_with_a_site_less(start: Start, stage: str) -> None:
    """Who is told nothing ends where the others end; the clusters are the survivors'."""
    values = {"protection": "none", "alignment": {"form": "faithful", "prototypes": "finch"}}
    study = make_study("ABCDE", **values)
    plan, state = start(study)
    cast = Cast(study, plan)
    combiner, lines = cast.combiner(), Lines(cast.sites(state))
    drops = [Drop("B", stage, 0)]
    first = combiner.run(DroppingChannel(lines, drops, 0, at_once=True), state)
    assert first.survivors == in_the_sum("ABCDE", drops, 0)
    assert lines.sites["B"].state is state
    for item in first.state.prototypes:
        own = [
            fake_training(name, state).prototypes[item.view][0][item.label]
            for name in first.survivors
        ]
        # every cluster's mean is in the hull of the survivors', so in their box
        assert (item.rows <= np.max(own, axis=0) + 1e-3).all()
        assert (item.rows >= np.min(own, axis=0) - 1e-3).all()
    second = combiner.run(lines, first.state)
    assert second.survivors == tuple("ABCDE")
    assert {site.state.digest for site in lines.sites.values()} == {second.state.digest}
    assert lines.errors == []


@pytest.mark.parametrize(
    ("stage", "protection"),
    [(s, p) for s in STAGES for p in (PROTECTIONS if s in ("share", "sum") else GROUPED)],
)
def test_a_site_that_was_away_catches_up(start: Start, stage: str, protection: str) -> None:
    """Away for three rounds, from the given stage of the first on; then in the same state."""
    study = make_study("ABCDE", **PROTECTIONS[protection])
    plan, state = start(study)
    cast = Cast(study, plan)
    combiner, lines = cast.combiner(), Lines(cast.sites(state))
    drops = [Drop("B", stage, 0), Drop("B", "ready", 1), Drop("B", "ready", 2)]
    for index in range(4):
        at_once = study.protection != "secagg"
        channel = DroppingChannel(lines, drops, index, at_once=at_once)
        # away for a whole round means away for the sums of earlier rounds, too
        result = combiner.run(Away(channel, "B") if index in (1, 2) else channel, state)
        state = result.state
        expected = tuple("ACDE") if index in (1, 2) else in_the_sum("ABCDE", drops, index)
        assert result.survivors == expected
        assert result.faults == {}
        assert lines.sites["B"].state.round == (0 if index < 3 else 4)
        assert lines.sites["A"].state.digest == state.digest
    assert {site.state.digest for site in lines.sites.values()} == {state.digest}
    assert lines.errors == []


@pytest.mark.parametrize("rounds", [1, MAX_MISSED])
def test_all_that_come_back_come_to_the_same_state_under_all_protections(rounds: int) -> None:
    """RO-2.8: with keys that it did not have, under those protections that have keys (GK-4)."""
    ends = {}
    for name, values in PROTECTIONS.items():
        w = world(rekey_every=2, server_momentum=0.5, **values)
        w.round()
        for _ in range(rounds):
            assert w.round(away("B")).survivors == ("A", "C", "D")
        assert w.behind() == "B"
        last = w.round()
        assert (last.survivors, last.faults) == (("A", "B", "C", "D"), {})
        assert (w.behind(), w.lines.errors) == ("", [])
        assert w.asked(Kind.CHECKPOINT) == ""
        assert w.asked(Kind.JOIN) == ("B" if name in GROUPED else "")
        ends[name] = w.at("B").encode()
    assert len(set(ends.values())) == 1


class Away:
    """Nothing reaches a site at all."""

    def __init__(self, inner: DroppingChannel, name: str) -> None:
        self.inner, self.name = inner, name

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        return self.inner.exchange({n: r for n, r in requests.items() if n != self.name})


@pytest.mark.parametrize("variant", ["fedbcs", "faithful", "fedavg"])
@pytest.mark.parametrize("gone", ["", "A", "BD"])
@pytest.mark.parametrize("protection", ["secagg", "ckks", "none"])
def test_the_average_is_that_of_the_survivors(
    start: Start, protection: str, gone: str, variant: str
) -> None:
    """Recomputed in fractions from what the survivors sent: exact but for one rounding each.

    RO-4.1: a weight's step is Σ w_i·δ_i / Σ w_i over the survivors; δ as it left the codec.
    """
    names = "ABCDEFG"
    study = make_study(names, protection=protection, **VARIANTS[variant])
    plan, state = start(study)
    drops = [Drop(site, "masked_input", 0) for site in gone]
    outcome = MemoryFederation(study, plan, fake_training, drops).run_round(state)
    survivors = [name for name in names if name not in gone]
    assert outcome.survivors == tuple(survivors)

    nominal = {name: Fraction(10 + 5 * index) for index, name in enumerate(names)}
    total = sum(nominal.values())
    offset, bits = 2**15 - 1, 16
    sums = [Fraction(0)] * plan.length
    for name in survivors:
        update = form_update(fake_training(name, state), state, plan, name)
        codes = encode(update, state, plan, study, name).codes
        sums = [so_far + int(code) - offset for so_far, code in zip(sums, codes, strict=True)]
    steps = [Fraction(2) ** (e - bits + 1) for e in state.exponents]
    per_value = np.repeat(np.arange(len(plan.sizes)), plan.sizes)
    values = [value * steps[place] for value, place in zip(sums, per_value, strict=True)]

    part = sum(nominal[name] for name in survivors) / total
    expected = [value / part for value in values[: plan.parameters]]
    moved = outcome.state.weights - state.weights
    exact = np.array([float(value) for value in expected])
    rounded = (state.weights + exact.astype(np.float32)) - state.weights
    assert np.allclose(moved, rounded, rtol=0, atol=3e-7)  # an ulp of a weight of size 3
    # and the codec's own error is below a step for each site
    true = sum(
        float(nominal[name] / sum(nominal[n] for n in survivors))
        * fake_training(name, state).delta.astype(np.float64)
        for name in survivors
    )
    assert np.abs(exact - true).max() < len(survivors) * float(steps[0] / part)

    equal = variant == "fedbcs"
    part = Fraction(len(survivors), len(names)) if equal else part
    for index, item in enumerate(outcome.state.prototypes):
        begin = plan.parameters + index * FUSED
        wanted = np.array([float(v / part) for v in values[begin : begin + FUSED]])
        assert np.allclose(item.rows[0], wanted.astype(np.float32), rtol=2e-7, atol=0)


@pytest.mark.parametrize("stage", ["advertise", "share", "masked_input", "consistency", "unmask"])
def test_one_more_than_may_be_gone_ends_the_round(start: Start, stage: str) -> None:
    drops = [Drop("A", stage, 0), Drop("B", stage, 0)]
    with pytest.raises(RoundError):
        play(start, "ABCDE", drops, 1)


@pytest.mark.parametrize("values", [{}, {"verified_sum": False}, {"protection": "none"}])
def test_a_sum_that_nobody_hears_is_told_in_the_next_round(
    start: Start, values: dict[str, Any]
) -> None:
    drops = [Drop(name, "sum", 0) for name in "ABC"]
    first, second = play(start, "ABC", drops, 2, **values)
    assert first.survivors == second.survivors == ("A", "B", "C")
    assert second.state.round == 2


# The words for it --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_drop_in_words(stage: str) -> None:
    assert parse_drop(f"site-3.b@{stage}:12") == Drop("site-3.b", stage, 11)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "A@ready",
        "A@ready:0",
        "A@ready:-1",
        "A@ready:01",
        "A@ready:1 ",
        "A@ready:1\n",
        "A@ready:1.0",
        "A@ready:1234567",
        "@ready:1",
        "A@:1",
        "A@train:1",
        "A@READY:1",
        "A@@ready:1",
        "A:ready@1",
        "A@ready:\u0661",
    ],
)
def test_what_is_no_drop(text: str) -> None:
    with pytest.raises(StudyError, match="is not SITE@STAGE:ROUND"):
        parse_drop(text)


def test_drops_of_what_the_study_does_not_have() -> None:
    check_drops([Drop("A", "sum", 2), Drop("B", "ready", 0)], ("A", "B"), 3)
    with pytest.raises(StudyError, match="no site C to drop; sites are A, B"):
        check_drops([Drop("A", "sum", 0), Drop("C", "sum", 0)], ("A", "B"), 3)
    with pytest.raises(StudyError, match="round 4: the study has 3 rounds"):
        check_drops([Drop("A", "sum", 3)], ("A", "B"), 3)
    with pytest.raises(StudyError, match="dropped twice in round 2"):
        check_drops([Drop("A", "sum", 1), Drop("A", "ready", 1)], ("A", "B"), 3)


# The channel -------------------------------------------------------------------------------------


class Echo:
    """Answers each request with itself."""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        yield from requests.items()


@pytest.mark.parametrize("first", STAGES)
@pytest.mark.parametrize("plain", [False, True])
def test_a_site_is_silent_from_its_stage_to_the_end_of_its_round(
    start: Start, first: str, plain: bool
) -> None:
    study = make_study()
    plan, state = start(study)
    cast = Cast(study, plan)
    # of two stages for one site and round, the earlier counts
    drops = [Drop("A", "sum", 0), Drop("A", first, 0), Drop("B", "ready", 1)]
    channel = DroppingChannel(Echo(), drops, 0, at_once=plain)
    for kind, stage in zip(REQUESTS, STAGES, strict=True):
        frame = cast.frame(kind, cast.parties.binding(state, 0), 0)
        answered = dict(channel.exchange(dict.fromkeys("ABC", frame)))
        at = "masked_input" if plain and kind is Kind.OPEN else stage
        gone = STAGES.index(at) >= STAGES.index(first)
        assert set(answered) == ({"B", "C"} if gone else {"A", "B", "C"})
        assert decode(frame, ANYTHING).kind is kind
    # what it missed in an earlier round it gets
    later = DroppingChannel(Echo(), [Drop("A", "ready", 1)], 1, at_once=plain)
    frame = cast.frame(Kind.SUM, cast.parties.binding(state, 1), 4)
    assert set(dict(later.exchange({"A": frame}))) == {"A"}


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.ADMITTED, Kind.CHECKPOINT, Kind.RESTORE])
def test_who_vanished_before_the_keys_does_not_come_back_for_them(start: Start, kind: Kind) -> None:
    """In that round: what it missed in an earlier one it takes, as it takes that one's sum."""
    study = make_study()
    plan, state = start(study)
    cast = Cast(study, plan)
    binding = cast.parties.binding(state, 0)
    for stage, silent in (("ready", True), ("keys", True), ("advertise", False)):
        channel = DroppingChannel(Echo(), [Drop("A", stage, 0)], 0, at_once=False)
        answered = dict(channel.exchange({"A": cast.frame(kind, binding, 0)}))
        assert (answered == {}) == silent
    later = DroppingChannel(Echo(), [Drop("A", "ready", 1)], 1, at_once=False)
    assert dict(later.exchange({"A": cast.frame(kind, binding, 0)}))


# Reuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_reused_state_is_reported(
    start: Start, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """A and B do not answer in the first *unmask*; C and D have, and answer again if they may."""
    study = make_study(max_reused_states=allowed)
    plan, state = start(study)
    federation = MemoryFederation(study, plan, fake_training)
    exchange = MemoryChannel.exchange

    def deaf(self: MemoryChannel, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        def heard(name: str, frame: bytes) -> bool:
            head = decode(frame, ANYTHING)
            first = (head.binding.round, head.binding.attempt) == (0, 0)
            return not (first and head.kind is Kind.CERTIFICATE and name in "AB")

        return exchange(self, {n: frame for n, frame in requests.items() if heard(n, frame)})

    monkeypatch.setattr(MemoryChannel, "exchange", deaf)
    if not allowed:
        with pytest.raises(RoundError, match="people at the sites must decide"):
            federation.run_round(state)
        return
    outcome = federation.run_round(state)
    assert (outcome.attempts, outcome.reused) == (2, ("C", "D"))
    assert federation.run_round(outcome.state).reused == ()
