"""A site's side: what it answers, what it refuses, and what changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from federation_fixtures import (
    ANYTHING,
    REQUESTS,
    Cast,
    Lines,
    Stepwise,
    fake_training,
    gone_from,
    known_identity,
    make_study,
)

from fedbcs_protocols.errors import (
    BadSignature,
    PeerError,
    Refused,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.secagg import Guard
from fedbcs_protocols.wire import Kind, decode, seal
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.rounds import CONTROL, SUM
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]


Make = Callable[..., Stepwise]


@pytest.mark.parametrize(("protection", "stages"), [("secagg", 9), ("ckks", 6), ("none", 3)])
def test_the_same_request_again_gets_the_same_reply(
    start: Start, protection: str, stages: int
) -> None:
    """RO-2.9, in every stage of three rounds."""
    study = make_study(protection=protection)
    plan, state = start(study)
    cast = Cast(study, plan)
    trained: Counter[str] = Counter()

    def train(site: str, state: GlobalState) -> LocalResult:
        trained[site] += 1
        return fake_training(site, state)

    sites = {name: cast.site(name, state, train) for name in "ABCD"}
    kinds = set()

    class Twice(Lines):
        def exchange(self, requests):  # type: ignore[no-untyped-def]
            for name, reply in super().exchange(requests):
                kinds.add(decode(reply, ANYTHING).kind)
                assert self.sites[name].handle(requests[name]) == reply
                yield name, reply

    combiner, lines = cast.combiner(), Twice(sites)
    for _ in range(3):
        state = combiner.run(lines, state).state
    assert lines.errors == []
    assert trained == dict.fromkeys("ABCD", 3)
    assert len(kinds) == stages


UNKEYED = [{"verified_sum": False}, {"protection": "none"}]


@pytest.mark.parametrize("values", UNKEYED, ids=["secagg", "none"])
def test_a_second_start_does_not_train_twice(start: Start, values: dict[str, object]) -> None:
    study = make_study(**values)
    plan, state = start(study)
    cast = Cast(study, plan)
    trained: list[str] = []

    def train(site: str, state: GlobalState) -> LocalResult:
        trained.append(site)
        return fake_training(site, state)

    step = Stepwise(cast, state, {"A": cast.site("A", state, train)})
    ready = step.sites["A"].handle(step.start)
    step.sites["A"].handle(step.open())
    # a combiner that crashed asks again, then for a new attempt
    assert step.sites["A"].handle(step.start) == ready
    step.sites["A"].handle(step.open(1))
    assert step.sites["A"].handle(step.start) == ready
    assert trained == ["A"]


@pytest.mark.parametrize("protection", ["secagg", "ckks"])
def test_a_second_start_of_a_new_key_stage_does_not_train_twice(
    start: Start, protection: str
) -> None:
    """RO-2.1 where sites share a key: the standing is said anew (GK-2), the vector is the same."""
    study = make_study(protection=protection)
    plan, state = start(study)
    cast = Cast(study, plan)
    trained: list[str] = []

    def train(site: str, state: GlobalState) -> LocalResult:
        trained.append(site)
        return fake_training(site, state)

    step = Stepwise(cast, state, {name: cast.site(name, state, train) for name in "ABCD"})
    for _ in range(3):
        # a combiner that crashed and asks from the start
        step.ready()
    vectors = {name: site._vector for name, site in step.sites.items()}
    step.sites["A"].handle(step.open())
    step.ready()
    assert step.sites["A"].handle(step.open(1))
    assert trained == [*"ABCD"]
    assert all(site._vector is vectors[name] for name, site in step.sites.items())


@pytest.mark.parametrize("protection", ["secagg", "ckks", "none"])
def test_nothing_is_opened_before_the_start(stepwise: Make, protection: str) -> None:
    step = stepwise(protection=protection)
    with pytest.raises(UnexpectedFrame, match="has not been started"):
        step.sites["A"].handle(step.open())


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (3, 2), (3, 0)])
def test_an_open_that_does_not_go_on_is_refused_and_changes_nothing(
    stepwise: Make, first: int, second: int
) -> None:
    """SA-8.1; the attempt that is under way goes on to its sum."""
    step = stepwise()
    session = step.run(Kind.KEY_LIST, first)
    shares = {name: step.sites[name].handle(session.requests[name]) for name in "ABCD"}
    with pytest.raises(Refused, match="has advertised already"):
        step.sites["A"].handle(step.open(second))
    for name, reply in shares.items():
        session.receive(reply, line=name)
    session.close()
    assert step.sites["A"].handle(session.requests["A"])


def test_a_later_open_leaves_the_old_attempt_for_good(stepwise: Make) -> None:
    step = stepwise()
    old = step.run(Kind.CERTIFICATE)
    step.sites["A"].handle(step.open(1))
    with pytest.raises(WrongBinding, match="attempt"):
        step.sites["A"].handle(old.requests["A"])
    with pytest.raises(Refused):
        step.sites["A"].handle(step.open(0))


def test_a_restarted_site_has_left_the_attempt(stepwise: Make) -> None:
    for until in (Kind.KEY_LIST, Kind.DELIVERY, Kind.SURVIVORS, Kind.CERTIFICATE):
        step = stepwise()
        session = step.run(until)
        again = step.cast.site("A", step.state)
        # it has trained nothing yet that could be asked for
        with pytest.raises(UnexpectedFrame, match="has not been started"):
            again.handle(session.requests["A"])
        again.handle(step.start)
        with pytest.raises(UnexpectedFrame, match="not opened here"):
            again.handle(session.requests["A"])
        with pytest.raises(Refused):
            again.handle(step.open())
        assert again.handle(step.open(1))


@pytest.mark.parametrize("until", REQUESTS)
def test_bytes_of_a_stranger_do_nothing(stepwise: Make, until: Kind) -> None:
    """The genuine frame under another signature, then nonsense, then a bit of each byte: refused,

    and the site then answers the genuine one.
    """
    step = stepwise("ABC")
    if until is Kind.DEALT:
        genuine = step.dealt()
    elif until in (Kind.START, Kind.OPEN):
        step.ready()
        genuine = step.start if until is Kind.START else step.open()
    else:
        session = step.run(until)
        genuine = session.sum_frame() if until is Kind.SUM else session.requests["C"]
    frame = decode(genuine, ANYTHING)
    stranger = known_identity("stranger")
    changed = seal(replace(frame, body=bytes(frame.body)), stranger)
    before = step.cast.marks["C"].read(), step.cast.keys["C"].read()
    with pytest.raises(BadSignature):
        step.sites["C"].handle(changed)
    for bad in (b"", b"x" * 500, genuine[:-1], genuine + b"\0"):
        with pytest.raises(PeerError):
            step.sites["C"].handle(bad)
    random = np.random.default_rng(7)
    for _ in range(40):
        place = int(random.integers(len(genuine)))
        flipped = bytearray(genuine)
        flipped[place] ^= 1 << int(random.integers(8))
        with pytest.raises(PeerError):
            step.sites["C"].handle(bytes(flipped))
    assert (step.cast.marks["C"].read(), step.cast.keys["C"].read()) == before
    assert step.sites["C"].state is step.state
    assert step.sites["C"].handle(genuine)


@pytest.mark.parametrize(
    ("phase", "sequence", "field"), [(SUM, 0, "phase"), (CONTROL, 1, "sequence")]
)
def test_phase_and_sequence_are_checked(
    stepwise: Make, phase: int, sequence: int, field: str
) -> None:
    step = stepwise()
    wrong = step.cast.frame(Kind.START, step.cast.parties.binding(step.state, phase), sequence)
    with pytest.raises(WrongBinding, match=field):
        step.sites["A"].handle(wrong)


def test_kinds_of_the_other_protection_are_not_even_read(stepwise: Make) -> None:
    step = stepwise(protection="none")
    binding = step.cast.parties.binding(step.state, SUM)
    for kind in (Kind.KEY_LIST, Kind.DELIVERY, Kind.CERTIFICATE, Kind.PLAIN_PROTOTYPES):
        with pytest.raises(UnexpectedFrame):
            step.sites["A"].handle(step.cast.frame(kind, binding, 0))
    step = stepwise()
    with pytest.raises(UnexpectedFrame):
        step.sites["A"].handle(step.cast.frame(Kind.PLAIN_PROTOTYPES, binding, 0))


# The site's own demands --------------------------------------------------------------------------


def test_a_guard_that_does_not_admit_the_study_refuses_before_training(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    cast = Cast(study, plan)
    strangers = Guard(frozenset())
    with pytest.raises(Refused, match="not verified"):
        cast.site("A", state, guard=strangers)
    unprotected = make_study(protection="none")
    Cast(unprotected, plan).site("A", state, guard=strangers)


def test_a_guard_that_does_not_like_the_survivors_does_not_sign(start: Start) -> None:
    study = make_study("ABCDEFG")
    plan, state = start(study)
    cast = Cast(study, plan)
    wary = replace(cast.guard, forbid_single_changes=True)
    sites = {name: cast.site(name, state, guard=wary) for name in "ABCDEFG"}
    combiner, lines = cast.combiner(), Lines(sites)
    state = combiner.run(lines, state).state
    lines.silent = gone_from("masked_input", "A")
    with pytest.raises(RoundError, match="came to no sum"):
        combiner.run(lines, state)
    assert len(lines.errors) == 3 * 6
    assert all(isinstance(error, Refused) for _, error in lines.errors)
    assert "one site more or less" in str(lines.errors[0][1])
    assert not any(len(frames) > 1 for frames in lines.sent(Kind.UNMASK).values())


def test_values_out_of_range_are_counted_for_the_site_alone(start: Start) -> None:
    study = make_study(method="fedavg")
    plan, state = start(study)
    cast = Cast(study, plan)
    loud = {
        name: cast.site(name, state, lambda s, g: fake_training(s, g, scale=10.0))
        for name in "ABCD"
    }
    cast.combiner().run(Lines(loud), state)
    assert all(site.clipped > 0 for site in loud.values())


def test_a_class_whose_holders_are_unknown_here_is_refused(start: Start) -> None:
    """SA-0.7: enough sites are verified for the whole, but not of those that hold class 1."""
    roster = [
        {"name": s, "weight": 1.0, "steps": 1, "classes": [0, 1] if s in "ABCDE" else [0]}
        for s in "ABCDEFGHIJ"
    ]
    study = make_study(roster=roster, threshold=8, colluders=1)
    plan, state = start(study)
    cast = Cast(study, plan)
    assert {slot.label for slot in plan.slots} == {0, 1}
    fingerprints = {name: identity.fingerprint for name, identity in cast.parties.roster.items()}
    strangers = Guard(frozenset(f for name, f in fingerprints.items() if name not in "BCD"))
    with pytest.raises(Refused, match="a part of the sum"):
        cast.site("A", state, guard=strangers)
    # F does not hold the class, so nothing of it is in that part.
    assert cast.site("F", state, guard=strangers)
    assert cast.site("A", state, guard=Guard(frozenset(fingerprints.values())))
