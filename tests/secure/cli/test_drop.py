"""``simulate --drop``: sites that vanish, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import TINY, run


def _rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_all_protections_lose_the_same_sites_and_give_the_same_model(tmp_path: Path) -> None:
    models = {}
    for protection in ("secagg", "ckks", "none"):
        out = tmp_path / protection
        result = run(
            "simulate", *TINY, "--rounds", "3", "--protection", protection, "--out", str(out),
            "--drop", "A@masked_input:2", "--drop", "B@ready:3", "--server-momentum", "0.5",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "without A" in result.stderr + result.stdout
        assert "not in the sum: A in 1, B in 1 of 3 rounds" in result.stdout
        summary = json.loads((out / "summary.json").read_text())
        assert summary["rounds_missed"] == {"A": 1, "B": 1, "C": 0, "D": 0}
        assert (summary["threshold"], summary["colluders"]) == (3, 1)
        absent = {(row["round"], row["site"]) for row in _rows(out) if not row["in_sum"]}
        assert absent == {(1, "A"), (2, "B")}
        # B was not even ready, so it trained nothing; A did, for nothing.
        losses = {(row["round"], row["site"]): row["loss"] for row in _rows(out)}
        assert losses[2, "B"] is None
        assert losses[1, "A"] is not None
        models[protection] = summary["model_sha256"]
    assert models["secagg"] == models["ckks"] == models["none"]


def test_without_drops_the_model_is_another(tmp_path: Path, finished: Path) -> None:
    rounds = str(json.loads((finished / "summary.json").read_text())["rounds"])
    out = tmp_path / "run"
    result = run(
        "simulate", *TINY, "--rounds", rounds, "--out", str(out), "--drop", "C@share:1", "--json"
    )
    assert result.returncode == 0, result.stderr
    with_drop = json.loads(result.stdout)["model_sha256"]
    assert with_drop != json.loads((finished / "summary.json").read_text())["model_sha256"]


def test_a_lost_round_says_how_to_go_on_and_keeps_the_others(tmp_path: Path) -> None:
    out = tmp_path / "run"
    drops = ("--drop", "A@unmask:2", "--drop", "B@unmask:2")
    result = run("simulate", *TINY, "--rounds", "2", "--out", str(out), *drops)
    assert result.returncode == 1
    assert "round 2 is lost" in result.stderr
    assert "1 of 2 rounds are kept" in result.stderr
    assert "because of --drop" in result.stderr
    assert f"--resume {out} --drop none" in result.stderr
    assert {row["round"] for row in _rows(out)} == {0}
    resumed = run("simulate", "--resume", str(out), "--drop", "none")
    assert resumed.returncode == 0, resumed.stderr
    assert {row["round"] for row in _rows(out)} == {0, 1}


def test_a_run_with_drops_is_resumed_with_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = (*TINY, "--rounds", "2", "--drop", "A@consistency:1", "--drop", "D@unmask:2")
    assert run("simulate", *arguments, "--out", str(out)).returncode == 0
    again = tmp_path / "again"
    result = run("simulate", "--study", str(out / "study.toml"), "--out", str(again))
    assert result.returncode == 0, result.stderr
    first, second = (json.loads((f / "summary.json").read_text()) for f in (out, again))
    assert first["model_sha256"] == second["model_sha256"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--drop", "A@masked:2"), "SITE@STAGE:ROUND"),
        (("--drop", "A@share:0"), "rounds count from 1"),
        (("--drop", "Z@share:1"), "sites are A, B, C, D"),
        (("--drop", "A@share:9"), "the study has 2 rounds"),
        (("--drop", "A@share:1", "--drop", "A@unmask:1"), "dropped twice"),
        (("--drop", "A@share:1", "--method", "local"), "remove drop"),
        (("--threshold", "2"), "min_sites"),
        (("--threshold", "3", "--colluders", "2"), "raise threshold to 4"),
        (("--colluders", "3"), "lower colluders, or have more sites"),
        (("--threshold", "5"), "to the 4 sites"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "run"
    result = run("simulate", *TINY, "--rounds", "2", "--out", str(out), *flags)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr.replace("\n", " ")
    assert not (out / "study.toml").exists()
