"""What stands in the vector under differential privacy, and what the sum of it becomes (DP-4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from federation_fixtures import FUSED, TENSORS, make_study

from fedbcs_protocols.codec import levels
from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.booking import private_round
from fedbcs_secure.federation.combine import initial_state, next_state
from fedbcs_secure.federation.layout import Layout, initial_exponents, layout
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import Update, form_update
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.schedule import round_events, study_events
from fedbcs_secure.study import Study, build

ROSTER = [
    {"name": s, "weight": 10.0, "steps": 5, "classes": [0, 1], "patients": 20 + 10 * i}
    for i, s in enumerate("ABCD")
]


def private(**values: Any) -> Study:
    privacy = {"noise_multiplier": 4.0, "prototype_noise": 8.0} | values.pop("privacy", {})
    given = {"rounds": 9, "roster": ROSTER, "privacy": privacy, "alignment": {"warmup_rounds": 2}}
    return make_study(**(given | values))


def plan_of(study: Study) -> Layout:
    return layout(study, TENSORS, FUSED if study.alignment.form != "off" else 0)


def start(study: Study) -> GlobalState:
    plan = plan_of(study)
    return initial_state(study, plan, np.zeros(plan.parameters, np.float32))


def summed(
    study: Study, state: GlobalState, sums: dict[Any, np.ndarray], sites: str
) -> GlobalState:
    plan = plan_of(study)
    total = np.zeros(plan.length, np.uint32)
    for site in sites:
        update = Update(state.round, np.zeros(plan.parameters, np.float32), sums)
        total += encode(update, state, plan, study, site).codes
    return next_state(state, total, plan, study, tuple(sites))


def test_without_a_release_of_prototypes_nothing_is_aligned() -> None:
    study = private(privacy={"prototype_noise": None})
    assert study.alignment.form == "off"
    assert plan_of(study).slots == ()
    assert study.prototype_rounds == frozenset()
    assert study_events(study).joint == Gaussian(4.0, 0.2).times(45)


def test_when_prototypes_are_released() -> None:
    """From the round before they are first used, not in the last, which would be in vain."""
    study = private(privacy={"prototype_every": 3})
    assert study.prototype_rounds == {1, 4, 7}
    assert private(privacy={"prototype_every": 7}).prototype_rounds == {1}
    assert private(alignment={"warmup_rounds": 0}).prototype_rounds == {0, 5}
    costs = [round_events(study, r).joint for r in range(study.rounds)]
    assert [len(events.parts) for events in costs] == [1, 2, 1, 1, 2, 1, 1, 2, 1]
    total = costs[0]
    for events in costs[1:]:
        total += events
    assert total == study_events(study).joint


def test_a_round_says_what_is_due() -> None:
    study = private(privacy={"prototype_every": 3, "noise": "shared", "presence": 0.5})
    plan = plan_of(study)
    due = private_round(study, plan, "B", 1)
    assert due is not None
    assert due.nominal == 30
    assert due.stream.private
    release = due.release
    assert release is not None
    assert (release.slots, release.width, release.parts) == (
        ((0, 0), (0, 1), (1, 0), (1, 1)), FUSED, 2,
    )  # fmt: skip
    assert release.slot_width == plan.slot_width == FUSED + 1
    nothing = private_round(study, plan, "B", 2)
    assert nothing is not None
    assert nothing.release is None
    assert private_round(make_study(), plan, "B", 1) is None


@pytest.mark.parametrize("sites", ["ABCD", "ABD"])
def test_sums_over_patients_become_means(sites: str) -> None:
    study = private()
    state = summed(study, start(study), {}, "ABCD")
    assert state.prototypes == ()
    value = 0.3
    patients = {"A": 20, "B": 30, "C": 40, "D": 50}
    # Every site the same sum, so that the mean is n times it over the patients in the sum.
    one = np.full(FUSED, 5.0, np.float32)
    sums = dict.fromkeys(((0, 0), (0, 1), (1, 0), (1, 1)), one)
    after = summed(study, state, sums, sites)
    expected = len(sites) * 5.0 / sum(patients[s] for s in sites)
    assert len(after.prototypes) == 4
    for prototype in after.prototypes:
        assert np.allclose(prototype.rows, expected, atol=0.02 * value)


def test_counted_patients_are_what_sums_are_divided_by() -> None:
    study = private(privacy={"presence": 0.5})
    state = summed(study, start(study), {}, "ABCD")
    row = np.append(np.full(FUSED, 3.0), 12.0).astype(np.float32)
    after = summed(study, state, {(0, 1): row}, "ABCD")
    found = {(p.view, p.label): p.rows for p in after.prototypes}
    assert np.allclose(found[0, 1], 0.25, atol=0.02)
    # No patient at all, or fewer by noise: no division by nothing, and no mean beyond the clip.
    row[-1] = -40.0
    after = summed(study, state, {(0, 1): 10 * row}, "ABCD")
    found = {(p.view, p.label): p.rows for p in after.prototypes}
    assert np.abs(found[0, 1]).max() <= 1.0


def test_ranges_of_prototypes_follow_from_the_study_alone() -> None:
    """DP-4.4: clip, noise and nominal numbers; nothing of a sum moves them."""
    study = private()
    first = initial_exponents(study, plan_of(study))[len(TENSORS) :]
    assert 2.0 ** first[0] >= 50 + 6 * 8.0 > 2.0 ** (first[0] - 1)
    state = start(study)
    for scale in (0.0, 1e-6, 40.0):
        sums = {(0, 0): np.full(FUSED, scale, np.float32)}
        state = summed(study, state, sums, "ABCD")
        assert state.exponents[len(TENSORS) :] == first
    counted = private(privacy={"presence": 0.5})
    wide = initial_exponents(counted, plan_of(counted))[-1]
    assert 2.0**wide >= 50 + 6 * 8.0 * math.hypot(1, 0.5) * 2 / 0.5


def test_a_round_without_a_release_keeps_prototypes_as_they_are() -> None:
    study = private()
    state = summed(study, start(study), {}, "ABCD")
    state = summed(study, state, {(0, 0): np.ones(FUSED, np.float32)}, "ABCD")
    after = summed(study, state, {(0, 0): np.full(FUSED, 9.0, np.float32)}, "ABCD")
    assert state.round == 2
    for old, new in zip(state.prototypes, after.prototypes, strict=True):
        assert np.array_equal(old.rows, new.rows)


def test_nothing_but_noised_sums_goes_into_a_private_update() -> None:
    """DP-4.6: class means of a site's own are not even looked at."""
    study = private()
    plan, state = plan_of(study), start(study)
    means = np.ones((2, FUSED), np.float32)
    result = LocalResult(
        np.zeros(plan.parameters, np.float32),
        ((means, np.ones(2, np.bool_)),) * 2,
        0.1, 5, 0.0,
        prototype_sums={(0, 1): np.full(FUSED, 2.0, np.float32)},
    )  # fmt: skip
    assert set(form_update(result, state, plan, "A").prototypes) == {(0, 1)}
    codes = encode(form_update(result, state, plan, "A"), state, plan, study, "A").codes
    middle = levels(study.codec.bits)
    empty = codes[plan.parameters : plan.parameters + FUSED]
    assert (np.abs(empty.astype(np.int64) - middle) <= 1).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "local"}, "sends nothing"),
        ({"model": {"norm": "batch"}}, "mixes patients"),
        ({"protection": "none", "alignment": {"prototypes": "finch"}}, "shows them"),
        ({"protection": "ckks", "privacy": {"noise": "shared"}}, 'needs protection = "secagg"'),
        ({"roster": [e | {"patients": None} for e in ROSTER]}, "nominal number of patients"),
        ({"privacy": {"noise_multiplier": 0}}, "greater than 0"),
        ({"privacy": {"sampling_rate": 0}}, "greater than 0"),
        ({"privacy": {"sampling_rate": 1.5}}, "less than or equal to 1"),
        ({"privacy": {"clipp": 1}}, "did you mean clip"),
        ({"privacy": {"delta": 0.5}}, "less than 0.01"),
        ({"privacy": {"delta": 1e-12}}, "greater than or equal to 0.000000001"),
        ({"privacy": {"noise": "shared"}, "max_reused_states": 1}, "max_reused_states must be 0"),
        ({"privacy": {"unit": "slice"}}, 'scaling = "fixed"'),
        (
            {"privacy": {"unit": "slice"}, "data": {"scaling": "fixed", "volume": "stack3"}},
            "do not depend on each other",
        ),
    ],
)
def test_studies_that_would_promise_what_is_not_so(values: dict[str, Any], said: str) -> None:
    """DP-3.5"""
    with pytest.raises(Exception, match=said):
        private(**values)


def test_only_classes_that_all_hold_share_their_noise() -> None:
    """DP-4.5: who does not hold a class adds no noise to its sum."""
    some = [e | {"classes": [0, 1] if i else [0]} for i, e in enumerate(ROSTER)]
    more = {"threshold": 4, "colluders": 1, "roster": some}
    alone = plan_of(private(**more))
    assert {(s.view, s.label) for s in alone.slots} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    shared = plan_of(private(privacy={"noise": "shared"}, **more))
    assert {(s.view, s.label) for s in shared.slots} == {(0, 0), (1, 0)}
    assert all(len(slot.holders) == 4 for slot in shared.slots)


def test_shares_that_the_codec_would_swallow_are_refused() -> None:
    """DP-4.5: sites quantise before they add up."""
    many = [e | {"patients": 20_000} for e in ROSTER]
    coarse = {"codec": {"bits": 8}, "roster": many}
    plan_of(private(**coarse))
    with pytest.raises(StudyError, match="4 steps of the codec"):
        plan_of(private(privacy={"noise": "shared"}, **coarse))
    plan_of(private(privacy={"noise": "shared"}, roster=many))


def test_a_study_without_privacy_is_what_it_was() -> None:
    study = make_study()
    assert study.privacy is None
    assert not plan_of(study).private
    assert plan_of(study).slot_width == FUSED
    assert build(study.model_dump()).digest == study.digest
