"""``lint``, as a person and a script see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run

ROSTER = "".join(
    f'[[roster]]\nname = "{s}"\nweight = 1\nsteps = 5\nclasses = [0, 1]\npatients = 100\n'
    for s in "ABC"
)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(f"[privacy]\nnoise_multiplier = 3\nclip = 2\ndelta = 1e-3\n{ROSTER}")
    return path


def test_what_people_see(study: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[policy]\nepsilon = 0.5\n")
    result = run("lint", str(study), "--site", str(site))
    assert result.returncode == 1
    for words in ("wrong", "privacy.delta", "weak", "privacy.clip", "policy.studies", "fix: "):
        assert words in result.stdout


def test_for_scripts(study: Path) -> None:
    rows = json.loads(run("lint", str(study), "--json").stdout)
    assert [(row["where"], row["grade"]) for row in rows] == [
        ("privacy.delta", "wrong"), ("privacy.clip", "weak"),
    ]  # fmt: skip
    assert {row["file"] for row in rows} == {str(study)}


def test_weak_is_no_failure(study: Path) -> None:
    study.write_text(study.read_text().replace("1e-3", "1e-5"))
    result = run("lint", str(study))
    assert (result.returncode, "privacy.clip" in result.stdout) == (0, True)
    study.write_text(study.read_text().replace("clip = 2", "clip = 0.1"))
    assert run("lint", str(study)).stdout.strip() == "nothing known to be wrong"


def test_usage(tmp_path: Path) -> None:
    assert run("lint").returncode == 2
    assert run("lint", str(tmp_path / "absent.toml")).returncode == 2
    bad = tmp_path / "site.toml"
    bad.write_text("[policy]\nepsilom = 3\n")
    result = run("lint", "--site", str(bad))
    assert result.returncode == 1
    assert "did you mean epsilon" in result.stderr
