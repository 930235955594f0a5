"""The study document: what it accepts, what it refuses, what its digest covers."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest
import tomli_w

from fedbcs_secure.errors import StudyError
from fedbcs_secure.study import Study, build, load

ROSTER = [{"name": name, "weight": 10.0, "steps": 3, "classes": [0, 1]} for name in ("A", "B", "C")]


def many(count: int) -> list[dict[str, object]]:
    return [{**ROSTER[0], "name": f"s{i}"} for i in range(count)]


def test_toml_round_trip_keeps_the_digest() -> None:
    study = build({"method": "fedavg", "roster": ROSTER}).resolved()
    again = build(tomllib.loads(tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))))
    assert again == study
    assert again.digest == study.digest


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 21},
        {"seed": 1},
        {"protection": "none"},
        {"model": {"width": 16}},
        {"data": {"size_px": 64}},
        {"codec": {"bits": 12}},
        {"roster": ROSTER},
    ],
)
def test_digest_covers_every_table(change: dict[str, object]) -> None:
    assert build(change).digest != Study().digest


def test_digest_is_sha256_of_canonical_json() -> None:
    text = json.dumps(Study().model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(b"fedbcs-secure study v1\x00" + text.encode()).digest()
    assert Study().digest == expected


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"model": {"depth": 3}}, "model.depth"),
        ({"data": {"size_px": 100}}, "multiple of 16"),
        ({"data": {"classes": 3}}, "list the label values"),
        ({"data": {"classes": 3, "labels": [0, 1]}}, "2 values for 3 classes"),
        ({"data": {"classes": 2, "labels": [0, 0]}}, "twice"),
        ({"data": {"volume": "stack3", "channels": 1}}, "channels = 3"),
        ({"alignment": {"prototypes": "finch"}}, 'protection = "none"'),
        ({"min_sites": 2}, "min_sites of 3"),
        ({"roster": ROSTER[:2]}, "2 site(s)"),
        ({"roster": [*ROSTER, ROSTER[0]]}, "twice"),
        ({"roster": [*ROSTER, {"name": "D", "weight": 1, "steps": 1, "classes": [2]}]}, "site D"),
        ({"roster": [{"name": "../x", "weight": 1, "steps": 1, "classes": []}]}, "roster.0.name"),
        ({"roster": [*ROSTER[:2], {**ROSTER[2], "weight": 1e6}]}, "100% of the weight"),
        ({"roster": many(300), "codec": {"bits": 24}}, "33 bits"),
        ({"alignment": {"weight": float("inf")}}, "alignment.weight"),
        ({"training": {"prox_mu": float("nan")}}, "training.prox_mu"),
        (
            {
                "protection": "none",
                "alignment": {"prototypes": "finch", "prototype_momentum": 0.5},
            },
            "prototype_momentum",
        ),
        ({"rounds": 0}, "rounds"),
        ({"training": {"lr": -1}}, "training.lr"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(StudyError, match=re.escape(sentence)):
        build(values)


def test_defaults_follow_the_method() -> None:
    fedbcs = build({"method": "fedbcs"}).resolved()
    assert (fedbcs.model.fsr, fedbcs.alignment.form, fedbcs.model.fused_width) == (
        "published",
        "gentle",
        16,
    )
    fedavg = build({"method": "fedavg"}).resolved()
    assert (fedavg.model.fsr, fedavg.alignment.form) == ("off", "off")
    faithful = build({"alignment": {"form": "faithful"}}).resolved()
    assert faithful.alignment.temperature == 0.005
    assert faithful.model.fused_width == 8 * faithful.model.width
    assert faithful.resolved() == faithful


def test_what_is_set_wins_over_defaults() -> None:
    study = build(
        {"alignment": {"weight": 0.7, "warmup_rounds": 0}, "model": {"fsr": "off"}}
    ).resolved()
    assert (study.alignment.weight, study.alignment.warmup_rounds, study.model.fsr) == (
        0.7,
        0,
        "off",
    )


def test_two_sites_may_sum_without_protection() -> None:
    study = build({"protection": "none", "min_sites": 2, "roster": ROSTER[:2]})
    assert len(study.roster) == 2


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot read"):
        load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = = 3")
    with pytest.raises(StudyError, match="not valid TOML"):
        load(broken)
    huge = tmp_path / "huge.toml"
    huge.write_text("#" * 1_100_000)
    with pytest.raises(StudyError, match="1 MB"):
        load(huge)
    deep = tmp_path / "deep.toml"
    deep.write_text("a = " + "[" * 20_000)
    with pytest.raises(StudyError, match="not valid TOML"):
        load(deep)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="not valid TOML"):
        load(binary)
