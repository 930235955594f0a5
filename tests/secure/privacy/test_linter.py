"""Known mistakes: each is found where it is made, with a reason and a fix, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from fedbcs_secure.privacy.linter import Finding, Grade, lint_policy, lint_study
from fedbcs_secure.privacy.policy import SitePolicy
from fedbcs_secure.study import Study, build

GOOD: dict[str, Any] = {"noise_multiplier": 3.0, "clip": 0.1, "steps": 5, "delta": 1e-5}
CAREFUL = SitePolicy(studies=())


def study(patients: int = 200, privacy: dict[str, Any] | None = None, **values: Any) -> Study:
    roster = [
        {"name": s, "weight": 1.0, "steps": 5, "classes": [0, 1], "patients": patients}
        for s in "ABCD"
    ]
    return build({"roster": roster, "privacy": GOOD | (privacy or {}), **values})


def places(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    assert all(each.why and each.fix for each in found)
    return [(each.where, each.grade.value) for each in found]


def test_a_careful_study_has_nothing() -> None:
    document = study()
    assert lint_study(document) == ()
    approving = SitePolicy(studies=(document.resolved().digest.hex(),))
    assert lint_study(document, approving) == ()
    assert lint_policy(approving) == ()


def test_a_study_without_privacy() -> None:
    assert places(lint_study(Study())) == [("privacy", "weak")]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (study(privacy={"delta": 6e-5}), ("privacy.delta", "wrong")),
        (study(privacy={"noise_multiplier": 0.5}), ("privacy.noise_multiplier", "weak")),
        (study(privacy={"unit": "slice"}, data={"scaling": "fixed"}), ("privacy.unit", "weak")),
        (study(privacy={"sampling_rate": 0.004}), ("privacy.sampling_rate", "weak")),
        (study(privacy={"clip": 1.5}), ("privacy.clip", "weak")),
        (study(protection="none"), ("protection", "weak")),
        (study(model={"initial": "ab" * 32}), ("model.initial", "weak")),
        (
            study(privacy={"prototype_noise": 60.0}, model={"fused_width": 256}),
            ("privacy.prototype_noise", "weak"),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_mistake_is_found_alone(document: Study, expected: tuple[str, str]) -> None:
    """DP-6.4"""
    assert places(lint_study(document)) == [expected]


def test_just_on_this_side() -> None:
    for changes in ({"delta": 5e-5}, {"sampling_rate": 0.005}, {"clip": 1.0}):
        assert lint_study(study(privacy=changes)) == ()
    assert lint_study(study(privacy={"prototype_noise": 20.0})) == ()


def test_what_a_site_would_decline() -> None:
    """Before it is asked, and with the policy's own sentence."""
    small = SitePolicy(epsilon=0.5, studies=())
    found = lint_study(study(), small)
    assert places(found) == [("policy", "wrong"), ("policy.epsilon", "wrong")]
    assert "not approved" in found[0].why
    assert "spends 0.5" in found[1].why
    sharing = lint_study(study(privacy={"noise": "shared", "prototype_noise": 20.0}), SitePolicy())
    assert [each.where for each in sharing] == ["policy"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"epsilon": 20.0}, "policy.epsilon"),
        ({"delta": 5e-3}, "policy.delta"),
        ({"protections": ("secagg", "none")}, "policy.protections"),
        ({"unit": "slice"}, "policy.unit"),
        ({"studies": None}, "policy.studies"),
    ],
)
def test_weak_policies(changes: dict[str, Any], where: str) -> None:
    assert places(lint_policy(CAREFUL.model_copy(update=changes))) == [(where, Grade.WEAK.value)]
    assert lint_policy(CAREFUL) == ()
