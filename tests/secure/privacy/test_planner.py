"""Plans: defaults, figures, expected quality of prototypes, warnings, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.planner import (
    FEATURES_PER_WIDTH,
    VIEWS,
    Plan,
    cosine,
    default_delta,
    with_noise,
    with_target,
)
from fedbcs_secure.study import Study

MEASURED = [
    (30, 768, 0.12), (30, 64, 0.44), (30, 16, 0.67),
    (300, 768, 0.77), (300, 64, 0.97), (300, 16, 0.99),
]  # fmt: skip


def formula(patients: int, features: int, noise: float, presence: float = 0) -> float:
    return 1 / math.sqrt(1 + features * 2 * VIEWS * (1 + presence**2) * (noise / patients) ** 2)


@pytest.mark.parametrize(("patients", "features", "measured"), MEASURED)
def test_the_formula_is_near_what_was_measured(
    patients: int, features: int, measured: float
) -> None:
    """Two classes, two views, prototype noise 4, on one site."""
    assert formula(patients, features, 4) == pytest.approx(measured, abs=0.04)
    assert measured - 0.06 <= formula(patients, features, 4, 0.5) <= measured + 0.005


@pytest.mark.parametrize("noise", [4.0, 16.0])
@pytest.mark.parametrize("width", [4, 16, 256])
@pytest.mark.parametrize("presence", [0.0, 0.5])
def test_the_formula_is_that_of_the_mechanism_simulated(
    noise: float, width: int, presence: float
) -> None:
    """Patients who are alike: sums of clipped class means with noise, seeded."""
    plan = Plan(60, prototype_noise=noise, fused_width=width, presence=presence)
    assert cosine(plan, 1) == pytest.approx(formula(60, 3 * width, noise, presence))
    random = np.random.default_rng(7)
    slots, features = VIEWS * 2, FEATURES_PER_WIDTH * width
    means = random.standard_normal((slots, features))
    means /= np.linalg.norm(means, axis=1, keepdims=True) * math.sqrt(slots)
    deviation = noise * math.hypot(1, presence)
    noisy = 60 * means + deviation * random.standard_normal((400, slots, features))
    found = np.einsum("rsf,sf->rs", noisy, means) * math.sqrt(slots)
    mean = float((found / np.linalg.norm(noisy, axis=2)).mean())
    assert mean == pytest.approx(cosine(plan, 1), abs=0.03)


def test_sites_and_sharing_help_prototypes() -> None:
    alone = Plan(30, prototype_noise=8.0, sites=5)
    shared = replace(alone, noise="shared")
    # t - c = 4 - 1.
    assert shared.shares == 3
    assert cosine(alone, 1) < cosine(alone, 5) < cosine(shared, 5)
    assert cosine(shared, 5) == pytest.approx(formula(150, 48, 8 * math.sqrt(5 / 3)))
    assert cosine(alone, 5) == pytest.approx(formula(150, 48, 8 * math.sqrt(5)))


@pytest.mark.parametrize(
    ("patients", "expected"),
    [(1, 0.01), (3, 0.003), (10, 1e-3), (30, 3e-4), (60, 1e-4), (100, 1e-4), (101, 9e-5),
     (123, 8e-5), (10**7, 1e-9), (10**9, 1e-10)],
)  # fmt: skip
def test_default_delta(patients: int, expected: float) -> None:
    assert default_delta(patients) == expected


def test_defaults_are_those_of_a_study() -> None:
    """Steps a round, sampling and schedule of prototypes, where a study says nothing else."""
    from fedbcs_secure.sections import Privacy, SiteEntry

    privacy = Privacy(noise_multiplier=1, prototype_noise=9)
    plan = Plan(60, prototype_noise=9, sites=5, noise="shared")
    assert (plan.steps, plan.sampling_rate) == (privacy.steps, privacy.sampling_rate)
    assert plan.prototypes_every == privacy.prototype_every
    assert plan.presence == privacy.presence
    roster = tuple(
        SiteEntry(name=f"s{k}", weight=1, steps=5, classes=(0, 1), patients=60) for k in range(5)
    )
    for rounds in (1, 4, 5, 20, 21):
        study = Study(
            rounds=rounds, roster=roster, privacy=privacy.model_copy(update={"noise": "shared"})
        ).resolved()
        assert replace(plan, rounds=rounds).releases == len(study.prototype_rounds)
        assert plan.terms == study.terms
        assert plan.shares == study.noise_shares
        assert plan.fused_width == study.model.fused_width


@pytest.mark.parametrize(("rate", "steps"), [(1, 1), (0.2, 5), (0.3, 3), (0.01, 100), (0.9, 1)])
def test_a_round_looks_at_each_patient_about_once(rate: float, steps: int) -> None:
    assert Plan(60, sampling_rate=rate).steps == steps
    assert Plan(60, sampling_rate=rate, steps_per_round=7).steps == 7


def test_a_target_is_kept() -> None:
    planned = with_target(Plan(60, rounds=20, delta=1e-4), 8)
    assert planned.events == Gaussian(planned.noise_multiplier, 0.2).times(100)
    assert 7.99 < planned.figures.epsilon_pld <= 8
    assert planned.figures.agree
    assert planned.figures.epsilon_pld == planned.epsilon_training
    assert planned.epsilon_prototypes == 0
    assert planned.cosine_sum is planned.cosine_site is planned.epsilon_own_noise is None
    assert planned.warnings == ()


def test_prototypes_are_part_of_the_target() -> None:
    plan = Plan(300, prototype_noise=16, sites=5, noise="shared")
    planned = with_target(plan, 4)
    assert planned.events == plan.training(planned.noise_multiplier) + Gaussian(16).times(4)
    assert planned.figures.epsilon_pld <= 4
    assert planned.epsilon_prototypes == epsilon(Gaussian(16).times(4), 3e-5)
    assert max(planned.epsilon_training, planned.epsilon_prototypes) < 4
    own = plan.training(planned.noise_multiplier) + Gaussian(16 / math.sqrt(3)).times(4)
    assert planned.epsilon_own_noise == epsilon(own, 3e-5) > 4
    assert any("all other sites collude" in text for text in planned.warnings)


def test_prototypes_that_cost_too_much() -> None:
    plan = Plan(30, rounds=250, prototype_noise=4, delta=3.3e-5)
    assert plan.releases == 50
    with pytest.raises(PrivacyError, match=r"prototype releases alone cost epsilon 8\.097"):
        with_target(plan, 8)


@pytest.mark.parametrize(
    ("plan", "noise", "text"),
    [
        (Plan(60, delta=0.02), 3.0, "delta 0.02 is above 1/patients"),
        (Plan(60, delta=1e-3), 3.0, "delta 0.001 is above 1/(100 patients). Use 0.0001"),
        (Plan(4), 3.0, "a step has 0.8 patients on average"),
        (Plan(60), 0.9, "promises little"),
        (Plan(60), 0.0, "nothing is promised to anybody"),
        (Plan(60, rounds=3, prototype_noise=9), 3.0, "too few rounds"),
        (Plan(30, prototype_noise=9, fused_width=256), 3.0, "prototypes would be mostly noise"),
        (Plan(60, rounds=1000, sampling_rate=1e-3, steps_per_round=100), 100.0, "PRV accountant"),
    ],
)
def test_warnings(plan: Plan, noise: float, text: str) -> None:
    assert any(text in warning for warning in with_noise(plan, noise).warnings)


def test_no_noise_costs_infinity() -> None:
    planned = with_noise(Plan(60, prototype_noise=9), 0)
    assert planned.figures.epsilon_pld == planned.epsilon_training == math.inf
    assert planned.epsilon_prototypes < 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0},
        {"rounds": 0},
        {"steps_per_round": 0},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.01},
        {"sampling_rate": math.nan},
        {"sampling_rate": 5e-324},
        {"delta": 0.0},
        {"delta": 0.5},
        {"delta": math.nan},
        {"prototype_noise": 0.0},
        {"prototype_noise": math.inf},
        {"prototypes_every": 0},
        {"presence": -0.1},
        {"fused_width": 0},
        {"classes": 1},
        {"sites": 0},
        {"noise": "shared", "colluders": 0},
        {"noise": "shared", "sites": 2},
        {"noise": "shared", "sites": 5, "colluders": 4},
        {"noise": "shared", "sites": 5, "threshold": 2},
        {"noise": "shared", "sites": 5, "threshold": 6},
    ],
)
def test_impossible_numbers(wrong: dict[str, object]) -> None:
    with pytest.raises(PrivacyError):
        Plan(**({"patients": 60} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf, 1e5])
def test_impossible_noise(noise: float) -> None:
    with pytest.raises(PrivacyError, match="noise multiplier"):
        with_noise(Plan(60), noise)


def test_a_plan_without_prototypes_has_none() -> None:
    assert Plan(60).prototypes() == Events()
    with pytest.raises(PrivacyError, match="no prototypes"):
        cosine(Plan(60), 1)
