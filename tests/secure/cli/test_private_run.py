"""``simulate --epsilon``, as a person and a script see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, run

PRIVATE = ("--epsilon", "8", "--delta", "1e-4", "--rounds", "2", "--private-steps", "2")


def simulate(folder: Path, *arguments: str) -> Any:
    return run("simulate", *TINY, *PRIVATE, "--out", str(folder / "run"), *arguments)


def test_a_private_run(tmp_path: Path) -> None:
    result = simulate(tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    for row in summary["sites"].values():
        said = row["privacy"]
        assert 7.99 < said["epsilon"] <= 8
        assert (said["delta"], said["unit"]) == (1e-4, "patient")
        assert said["noise_multiplier"] > 0
    for site in summary["sites"]:
        place = tmp_path / "run" / "ledgers" / site
        told = run("budget", "--site-dir", str(place), "--json")
        assert json.loads(told.stdout)["epsilon"] == summary["sites"][site]["privacy"]["epsilon"]


def test_what_people_are_told(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('[data]\nscaling = "fixed"\n')
    text = simulate(tmp_path, "--study", str(file), "--unit", "slice").stdout
    assert "differential privacy: epsilon 8.000 at delta 0.0001" in text or "epsilon 7.99" in text
    assert "slice (weaker than patient)" in text


def test_spent_budgets_exit_with_3_and_a_sentence(tmp_path: Path) -> None:
    result = simulate(tmp_path, "--cap", "0.5")
    assert result.returncode == 3
    assert "Sites that declined:" in result.stderr
    assert "the site's cap is 0.5" in result.stderr


@pytest.mark.parametrize("flag", [("--norm", "batch"), ("--method", "local"), ("--epsilon", "0")])
def test_usage_errors(tmp_path: Path, flag: tuple[str, str]) -> None:
    assert simulate(tmp_path, *flag).returncode == 2
    assert not (tmp_path / "run").exists()
