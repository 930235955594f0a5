"""A site's policy: its file, its defaults, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fedbcs_protocols.errors import Refused
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.policy import (
    PolicyRefused,
    Reason,
    SitePolicy,
    build_policy,
    load_policy,
    refuse_spend,
    refuse_study,
    refuse_terms,
)

STUDY = bytes(range(32))
FINE: dict[str, Any] = {
    "study": STUDY,
    "noise_multiplier": 1.0,
    "clip": 0.2,
    "sites": 3,
    "protection": "secagg",
    "unit": "patient",
    "delta": 1e-5,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_site_without_a_file_has_the_safe_defaults(tmp_path: Path) -> None:
    for policy in (load_policy(tmp_path / "absent.toml"), load_policy(write(tmp_path, ""))):
        assert policy == SitePolicy()
        assert (policy.epsilon, policy.delta, policy.min_noise_multiplier) == (8, 1e-5, 0.5)
        assert (policy.max_clip, policy.min_sites, policy.unit) == (10, 3, "patient")
        assert policy.protections == ("secagg", "ckks")
        assert policy.local_epsilon is None
        assert policy.studies is None


def test_a_file_says_what_it_says_and_other_tables_are_others_business(tmp_path: Path) -> None:
    text = f"""
        [data]
        folder = "somewhere"
        [policy]
        epsilon = 3
        delta = 1e-6
        local_epsilon = 40.0
        min_noise_multiplier = 1.5
        max_clip = 1
        min_sites = 4
        protections = ["secagg"]
        unit = "slice"
        studies = ["{STUDY.hex()}"]
    """
    policy = load_policy(write(tmp_path, text))
    assert (policy.epsilon, policy.delta, policy.local_epsilon) == (3, 1e-6, 40)
    assert (policy.min_noise_multiplier, policy.max_clip, policy.min_sites) == (1.5, 1, 4)
    assert (policy.protections, policy.unit, policy.studies) == (
        ("secagg",),
        "slice",
        (STUDY.hex(),),
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[policy]\nepsilom = 3", r"epsilom: unknown key; did you mean epsilon\?"),
        ("[polcy]\nepsilon = 3", r"unknown table \[polcy\]; did you mean \[policy\]\?"),
        ("epsilon = 3", r"epsilon belongs into the table \[policy\]"),
        ("[policy]\nepsilon = 0", "epsilon: .*greater than 0"),
        ("[policy]\nepsilon = nan", "epsilon: "),
        ("[policy]\nepsilon = inf", "epsilon: "),
        ("[policy]\ndelta = 0.5", "delta: .*less than 0.01"),
        ("[policy]\nmin_noise_multiplier = 0", "min_noise_multiplier: "),
        ("[policy]\nprotections = []", "protections: "),
        ('[policy]\nprotections = ["magic"]', "protections"),
        ('[policy]\nstudies = ["12"]', "studies"),
        ("[policy]\nepsilon = 8\nlocal_epsilon = 7", "local_epsilon = 7 is below epsilon = 8"),
        ("policy = 3", "valid dictionary"),
        ("[policy", "not valid TOML"),
        ("a = 1\n" * 200_000, "over 1 MB"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(PrivacyError, match=what):
        load_policy(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="cannot read"):
        load_policy(tmp_path)
    path = tmp_path / "site.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PrivacyError, match="not valid TOML"):
        load_policy(path)


def test_a_policy_does_not_change() -> None:
    with pytest.raises(ValidationError):
        SitePolicy().epsilon = 9  # type: ignore[misc]


def test_policies_have_one_text_and_a_digest_each() -> None:
    assert build_policy({"delta": 1e-5, "epsilon": 8}).digest == SitePolicy().digest
    others = [
        SitePolicy(epsilon=7.5),
        SitePolicy(local_epsilon=9),
        SitePolicy(unit="slice"),
        SitePolicy(studies=()),
        SitePolicy(min_noise_multiplier=0.6),
    ]
    assert len({p.digest for p in (SitePolicy(), *others)}) == 6
    assert SitePolicy.model_validate_json(others[3].text) == others[3]


def test_what_the_policy_allows_is_not_refused() -> None:
    refuse_study(SitePolicy(), **FINE)
    refuse_study(SitePolicy(unit="slice"), **FINE)
    refuse_study(SitePolicy(unit="slice"), **{**FINE, "unit": "slice"})
    refuse_study(SitePolicy(studies=(STUDY.hex(),)), **FINE)
    refuse_study(SitePolicy(local_epsilon=20), **FINE, shared=True)
    edge = {"noise_multiplier": 0.5, "clip": 10.0, "delta": 1e-7, "sites": 9}
    refuse_study(SitePolicy(), **{**FINE, **edge})


@pytest.mark.parametrize(
    ("change", "reason", "what"),
    [
        ({"noise_multiplier": 0.49}, Reason.NOISE, "0.49; the site asks for at least 0.5"),
        ({"noise_multiplier": 0.0}, Reason.NOISE, "noise"),
        ({"noise_multiplier": math.nan}, Reason.NOISE, "noise"),
        ({"clip": 11.0}, Reason.CLIP, "clips at 11; the site allows at most 10"),
        ({"clip": math.nan}, Reason.CLIP, "clips"),
        ({"clip": math.inf}, Reason.CLIP, "clips"),
        ({"clip": 0.0}, Reason.CLIP, "clips"),
        ({"sites": 2}, Reason.SITES, r"over 2 site\(s\); the site asks for 3 or more"),
        ({"protection": "none"}, Reason.PROTECTION, 'protection = "none".*secagg or ckks'),
        ({"unit": "slice"}, Reason.UNIT, "each slice"),
        ({"unit": "hospital"}, Reason.UNIT, "each hospital"),
        ({"delta": 1e-4}, Reason.DELTA, "delta 0.0001; the site allows 1e-05"),
        ({"delta": 0.0}, Reason.DELTA, "delta"),
        ({"shared": True}, Reason.SHARED_NOISE, "no local_epsilon"),
    ],
)
def test_what_the_policy_forbids_is_refused(
    change: dict[str, Any], reason: Reason, what: str
) -> None:
    with pytest.raises(PolicyRefused, match=what) as caught:
        refuse_study(SitePolicy(), **{**FINE, **change})
    assert caught.value.reason is reason
    assert isinstance(caught.value, Refused)
    assert str(caught.value).endswith("The site takes no part in this study")


def test_only_approved_studies() -> None:
    for policy in (SitePolicy(studies=()), SitePolicy(studies=("ab" * 32,))):
        with pytest.raises(PolicyRefused, match="have not approved the study 0001020304050607"):
            refuse_study(policy, **FINE)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(PolicyRefused) as caught:
        refuse_study(SitePolicy(), **{**FINE, "sites": 1, "clip": 99.0, "unit": "slice"})
    assert caught.value.reason is Reason.CLIP
    for word in ("clips at 99", "over 1 site", "each slice"):
        assert word in str(caught.value)


def test_a_release_is_held_to_the_policy_too() -> None:
    fine: dict[str, Any] = {"study": STUDY, "noise_multiplier": 0.5, "shared": False}
    refuse_terms(SitePolicy(), **fine)
    refuse_terms(SitePolicy(local_epsilon=9), **{**fine, "shared": True})
    for policy, change, reason in (
        (SitePolicy(studies=()), {}, Reason.STUDY),
        (SitePolicy(), {"noise_multiplier": 0.4999}, Reason.NOISE),
        (SitePolicy(), {"noise_multiplier": math.nan}, Reason.NOISE),
        (SitePolicy(), {"shared": True}, Reason.SHARED_NOISE),
    ):
        with pytest.raises(PolicyRefused) as caught:
            refuse_terms(policy, **{**fine, **change})
        assert caught.value.reason is reason


def test_the_caps_are_the_last_epsilons_allowed() -> None:
    policy = SitePolicy(epsilon=8, local_epsilon=20)
    refuse_spend(policy, 7.9, 8.0)
    refuse_spend(policy, 7.9, 20.0, local=True)
    refuse_spend(SitePolicy(), 0.0, math.inf, local=True)  # nothing is shared
    with pytest.raises(PolicyRefused) as caught:
        refuse_spend(policy, 7.92, 8.31)
    assert str(caught.value) == (
        "this release would bring the privacy spend of a patient to epsilon 8.31 at delta 1e-05; "
        "the site's cap is 8 (spent so far 7.92). The site takes no further part in this study"
    )
    assert (caught.value.reason, caught.value.cost) == (Reason.BUDGET, 8.31)
    for after, shown in ((8.001, "8.001"), (math.nextafter(8, 9), "8.000000000000002")):
        with pytest.raises(PolicyRefused, match=f"epsilon {shown} at"):
            refuse_spend(policy, 0, after)
    for after in (math.inf, math.nan):
        with pytest.raises(PolicyRefused, match="epsilon inf at"):
            refuse_spend(policy, 0, after)
    with pytest.raises(PolicyRefused, match=r"if no other site adds noise, .* 20.5 at") as caught:
        refuse_spend(policy, 0, 20.5, local=True)
    assert caught.value.reason is Reason.LOCAL_BUDGET
