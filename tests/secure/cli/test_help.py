from __future__ import annotations

import pytest
from command_line import run

VERBS = ("demo", "simulate", "init", "plan", "lint", "budget", "evaluate", "predict", "doctor")


def test_help_lists_every_verb_quickly() -> None:
    result = run("--help")
    assert result.returncode == 0
    for verb in VERBS:
        assert verb in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_shows_examples(verb: str) -> None:
    result = run(verb, "--help")
    assert result.returncode == 0
    assert "Examples" in result.stdout
    assert f"fedbcs-secure {verb}" in result.stdout


def test_simulate_offers_every_way_to_protect_a_sum() -> None:
    text = run("simulate", "--help").stdout
    for word in ("secagg", "ckks", "none", "--verified-sum", "--no-verified-sum", "--rekey-every"):
        assert word in text


def test_version() -> None:
    assert run("--version").stdout.startswith("fedbcs-secure ")


def test_usage_errors_exit_with_2() -> None:
    assert run("simulate", "--rounds", "many").returncode == 2
    assert run("simulate", "--nonsense").returncode == 2
    assert run("nonsense").returncode == 2


def test_help_does_not_load_torch() -> None:
    """Else every `--help` takes seconds."""
    import subprocess
    import sys

    code = "import sys, fedbcs_secure.cli.main; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"
