"""Rounds under differential privacy: booked before sent, repeated as they were, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from federation_fixtures import FUSED, TENSORS, gone_from, make_study
from federation_world import PROTECTIONS
from ledger_support import cheap
from private_world import Make, Private, private_study

from fedbcs_protocols.errors import Refused
from fedbcs_protocols.wire import Kind
from fedbcs_secure.errors import PrivacyError, RoundError
from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.layout import layout
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.ledger import Ledger
from fedbcs_secure.privacy.policy import PolicyRefused, SitePolicy
from fedbcs_secure.privacy.schedule import round_events, study_events


def study_of(ledger: Ledger) -> Any:
    (study,) = ledger.statement().studies
    return study


@pytest.mark.parametrize("protection", list(PROTECTIONS))
def test_what_a_study_costs_is_in_every_ledger(private: Make, protection: str) -> None:
    """DP-5: at every site, round by round, under every protection."""
    policy = SitePolicy(min_noise_multiplier=0.1, protections=("secagg", "ckks", "none"))
    w = private(private_study(**PROTECTIONS[protection]), **dict.fromkeys("ABCD", policy))
    for number in range(1, w.study.rounds + 1):
        w.round()
        for name in "ABCD":
            assert study_of(w.ledger(name)).rounds == number
    expected = study_events(w.study).joint
    assert expected == Gaussian(4.0, 0.2).times(30) + Gaussian(16.0).times(3)
    for name in "ABCD":
        said = w.ledger(name).statement()
        assert said.epsilon == pytest.approx(cheap(expected, said.delta))
        assert w.ledger(name).verify().head == said.head
        # Of the last round they are kept: the state after it may not be on the disk yet.
        assert len(list((w.folder / name / "releases").glob("*"))) == 1
    assert sorted(w.trained) == [(name, r) for name in "ABCD" for r in range(6)]


def test_prototypes_are_in_the_state_from_the_round_that_released_them(
    private: Make,
) -> None:
    w = private()
    assert w.study.prototype_rounds == {0, 2, 4}
    held = []
    for _ in range(4):
        w.round()
        held.append([p.rows.copy() for p in w.state.prototypes])
    assert [len(rows) for rows in held] == [4] * 4
    # Between releases they stay as they are.
    assert all(np.array_equal(a, b) for a, b in zip(held[0], held[1], strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(held[1], held[2], strict=True))


def test_another_attempt_sends_the_same_integers(private: Make) -> None:
    """DP-5.4: the round is asked for again; nobody trains, and nothing is booked, twice."""
    w = private()
    result = w.round(gone_from("share", "CD", attempt=0))
    assert (result.attempts, result.survivors) == (2, tuple("ABCD"))
    assert {study_of(w.ledger(name)).rounds for name in "ABCD"} == {1}
    assert sorted(w.trained) == [(name, 0) for name in "ABCD"]


@pytest.mark.parametrize("protection", ["verified", "ckks"])
def test_a_site_that_dies_after_it_booked_sends_what_it_booked(
    private: Make, protection: str
) -> None:
    """DP-5.4: its new process has no vector in memory, and draws no second one."""
    w = private(private_study(**PROTECTIONS[protection]))
    w.round()
    with pytest.raises(RoundError):
        w.round(gone_from("advertise", "ABCD"))
    before = {name: w.lines.sites[name]._vector.copy() for name in "ABCD"}
    for name in "ABCD":
        w.restart(name)
    w.trained.clear()
    w.round()
    assert w.trained == []
    assert w.state.round == 2
    # All of them say so: the sum is that of the vectors that were booked.
    total = sum(vector.astype(np.int64) for vector in before.values())
    assert total.any()
    assert {w.lines.sites[name].state.digest for name in "ABCD"} == {w.state.digest}
    for name in "ABCD":
        assert study_of(w.ledger(name)).rounds == 2


def test_bytes_that_are_lost_are_not_drawn_anew(private: Make) -> None:
    """DP-5.4: the site declines that round, says why at the site, and the others go on."""
    w = private()
    with pytest.raises(RoundError):
        w.round(gone_from("advertise", "ABCD"))
    for path in (w.folder / "B" / "releases").iterdir():
        path.unlink()
    w.restart("B")
    w.trained.clear()
    result = w.round()
    assert result.survivors == ("A", "C", "D")
    assert w.trained == []
    (_, why) = next(e for e in w.lines.errors if e[0] == "B")
    assert isinstance(why, PolicyRefused)
    assert "no longer has the bytes" in str(why)
    # The next round is another release.
    assert "B" in w.round().survivors


def test_a_spent_budget_ends_one_sites_part_at_the_right_round(private: Make) -> None:
    """The study goes on with the others; the server hears nothing but silence."""
    costs = []
    events = None
    study = private_study()
    for index in range(study.rounds):
        cost = round_events(study, index).joint
        events = cost if events is None else events + cost
        costs.append(cheap(events, 1e-5))
    cap = (costs[2] + costs[3]) / 2
    w = private(study, C=SitePolicy(epsilon=cap, min_noise_multiplier=0.1))
    survivors = [w.round().survivors for _ in range(study.rounds)]
    assert survivors == [tuple("ABCD")] * 3 + [tuple("ABD")] * 3
    said = w.ledger("C").statement()
    assert (said.releases, said.refusals) == (3, 3)
    assert said.epsilon == pytest.approx(costs[2])
    assert costs[2] < cap < costs[3]
    refusals = [error for name, error in w.lines.errors if name == "C"]
    assert refusals
    assert all(isinstance(error, Refused) for error in refusals)
    assert f"{cap:g}"[:4] in str(refusals[0])
    assert ("C", 3) not in w.trained
    assert w.ledger("C").verify().head == said.head


def test_too_few_that_have_something_left(private: Make) -> None:
    poor = SitePolicy(epsilon=1e-3, min_noise_multiplier=0.1)
    w = private(None, A=poor, C=poor)
    with pytest.raises(RoundError):
        w.round()
    assert w.state.round == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"min_noise_multiplier": 4.5}, "noise"),
        ({"max_clip": 0.1}, "clip"),
        ({"min_sites": 4}, "sites"),
        ({"protections": ("ckks",)}, "protection"),
        ({"delta": 1e-6}, "delta"),
        ({"studies": ("00" * 32,)}, "study"),
    ],
)
def test_terms_that_a_policy_forbids(private: Make, change: dict[str, Any], reason: str) -> None:
    """DP-6.3: before any data is touched, and it is in the ledger."""
    w = private()
    books = w.cast.books["A"]
    values = {"min_noise_multiplier": 0.1} | change
    books.ledger.close()
    w.policies["A"] = SitePolicy(**values)
    del w.cast.books["A"]
    w.open("A")
    with pytest.raises(PolicyRefused) as refused:
        w.site("A", w.state)
    assert refused.value.reason == reason
    assert w.ledger("A").statement().refusals == 1
    assert w.trained == []


def test_slices_and_shared_noise_must_be_allowed(private: Make) -> None:
    fixed = {"scaling": "fixed"}
    for change, reason in (({"unit": "slice"}, "unit"), ({"noise": "shared"}, "shared noise")):
        with pytest.raises(PolicyRefused) as refused:
            private(private_study(privacy=change, data=fixed))
        assert refused.value.reason == reason
    both = SitePolicy(unit="slice", local_epsilon=50.0, min_noise_multiplier=0.1)
    w = private(
        private_study(privacy={"unit": "slice", "noise": "shared"}, data=fixed),
        **dict.fromkeys("ABCD", both),
    )
    w.round()
    said = w.ledger("A").statement()
    # t = 3, c = 1: two shares are sure.
    assert w.study.noise_shares == 2
    assert said.local_epsilon > said.epsilon
    own = Gaussian(4.0, 0.2).times(5) + Gaussian(16.0 / math.sqrt(2)).times(1)
    assert round_events(w.study, 0).own == own


def test_no_ledger_no_part(private: Make) -> None:
    w = private()
    w.cast.books.pop("A").ledger.close()
    with pytest.raises(Refused, match="needs this site's ledger"):
        w.site("A", w.state)


def test_a_study_without_privacy_and_a_site_with_a_ledger(private: Make) -> None:
    """A ledger that leaves out what was sent without noise would be false (DP-6.3)."""
    w = private()
    study = make_study()
    cast = replace(w.cast, study=study, plan=layout(study, TENSORS, FUSED))
    start = initial_state(study, cast.plan, w.state.weights)
    with pytest.raises(PolicyRefused, match=r"has no \[privacy\]") as refused:
        cast.site("A", start)
    assert refused.value.reason == "noise"
    assert w.ledger("A").statement().refusals == 1
    replace(cast, books={}).site("A", start)


@pytest.mark.parametrize("wrong", ["none", "more", "less"])
def test_training_that_did_something_else_is_not_sent(private: Make, wrong: str) -> None:
    w = private()
    booked = round_events(w.study, 0)
    events = {"none": Events(), "more": booked.own.times(2), "less": Gaussian(3.0).times(5)}
    w.train = lambda site, state: replace(Private.train(w, site, state), events=events[wrong])  # type: ignore[method-assign]
    w.restart("A")
    with pytest.raises(PrivacyError, match="something else than the study says"):
        w.lines.sites["A"].handle(next(_starts(w)))
    assert w.ledger("A").statement().releases == 0


def test_a_crash_before_the_next_state_is_on_the_disk(private: Make) -> None:
    """DP-5.4: all took the sum, and begin again from the state before; bytes are still there."""
    w = private()
    before = w.state
    w.round()
    reached = w.state.digest
    w.trained.clear()
    for name in "ABCD":
        w.open(name)
        w.cast.marks.clear()
        w.cast.keys.clear()
    w.lines.sites = {name: w.site(name, before) for name in "ABCD"}
    w.state, w.combiner = before, w.cast.combiner()
    w.round()
    assert w.trained == []
    assert w.state.digest == reached


def test_a_release_is_booked_before_the_site_says_ready(
    private: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DP-5.4: if it cannot be booked, nothing leaves the site."""
    w = private()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedbcs_secure.privacy.releases.os.fsync", full)
    start = next(f for f in _starts(w))
    with pytest.raises(Exception, match=r"disk|space") as caught:
        w.lines.sites["A"].handle(start)
    assert not isinstance(caught.value, OSError)
    assert w.lines.sites["A"]._vector is None


def _starts(w: Private) -> Iterator[bytes]:
    control = w.cast.parties.binding(w.state, 0)
    yield w.cast.frame(Kind.START, control, 0)
