"""``plan`` as a person, a script and a privacy officer see it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from command_line import Result, run
from PIL import Image

from fedbcs_secure.cli import main, plan
from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.events import Events


@pytest.fixture(autouse=True)
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The verb, also where the application does not list it, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    commands = list(main.app.registered_commands)
    if all(command.name != "plan" for command in commands):
        main.app.command("plan", epilog=plan.EPILOG)(plan.plan)
        added = list(main.app.registered_commands)
        monkeypatch.setattr(main.app, "registered_commands", added)


def planned(*arguments: str) -> Result:
    return run("plan", *arguments)


def row(*arguments: str) -> dict[str, object]:
    result = planned(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def number(found: dict[str, object], name: str) -> float:
    value = found[name]
    assert isinstance(value, int | float)
    return float(value)


def test_a_target_in_json() -> None:
    found = row("--patients", "60", "--rounds", "20", "--epsilon", "8", "--delta", "1e-4")
    assert found["unit"] == "patient"
    assert found["neighbours"] == "add or remove one"
    assert number(found, "noise_multiplier") == pytest.approx(1.316, rel=1e-3)
    assert 7.99 < number(found, "epsilon_pld") <= 8
    assert number(found, "epsilon_prv") == pytest.approx(number(found, "epsilon_pld"), rel=0.01)
    assert number(found, "epsilon_rdp") > 8
    assert (found["delta"], found["steps_per_round"], found["sampling_rate"]) == (1e-4, 5, 0.2)
    events = Events.decode(str(found["events"]))
    assert epsilon(events, 1e-4) == found["epsilon"]
    assert found["warnings"] == []


def test_noise_and_target_are_inverse() -> None:
    there = row("--patients", "60", "--epsilon", "3")
    back = row("--patients", "60", "--noise", repr(there["noise_multiplier"]))
    assert back == there


def test_prototypes_in_json() -> None:
    found = row(
        "--patients", "300", "--prototype-noise", "16", "--sites", "5", "--shared", "--epsilon",
        "4", "--prototypes-every", "8", "--width", "8", "--classes", "3",
    )  # fmt: skip
    assert (found["prototype_releases"], found["noise"], found["sites"]) == (2, "shared", 5)
    assert number(found, "epsilon") <= 4 < number(found, "epsilon_own_noise")
    assert 0 < number(found, "epsilon_prototypes") < 1
    assert number(found, "prototype_cosine_site") < number(found, "prototype_cosine_sum") < 1


def test_every_flag_arrives() -> None:
    base = ("--patients", "60", "--noise", "2", "--sites", "7", "--shared", "--rounds", "7")
    first = row(*base, "--prototype-noise", "9")
    for flags in (
        ("--rate", "0.3"), ("--steps", "6"), ("--rounds", "25"), ("--delta", "1e-6"),
        ("--prototypes-every", "1"), ("--width", "32"), ("--classes", "4"),
        ("--colluders", "2"), ("--threshold", "6"),
    ):  # fmt: skip
        other = row(*base, "--prototype-noise", "9", *flags)
        assert other != first, flags


def test_no_noise_is_null_in_json_and_words_for_people() -> None:
    found = row("--patients", "60", "--noise", "0")
    assert found["epsilon"] is None
    assert found["private"] is False
    text = planned("--patients", "60", "--noise", "0").stdout
    assert "Nothing is promised" in text
    assert "infinite" in text


def test_for_people() -> None:
    text = planned("--patients", "60", "--epsilon", "2").stdout
    flat = " ".join(text.split())
    assert "epsilon 2.000 at delta 0.0001" in flat
    assert "20 rounds of 5 steps, 12 of 60 patients a step" in flat
    assert "prototypes not sent" in flat
    assert "one patient, with all images" in flat
    assert f"at most e^2.000, about {math.exp(2):.3g}, but for a chance of 0.0001" in flat
    assert "for one site and this study" in flat
    assert "warning" not in flat


def test_warnings_reach_people_and_scripts() -> None:
    flags = ("--patients", "4", "--noise", "3", "--delta", "0.3")
    text = " ".join(planned(*flags).stdout.split())
    found = row(*flags)["warnings"]
    assert isinstance(found, list)
    assert len(found) == 2
    for warning in found:
        assert warning in text


def test_a_table() -> None:
    result = planned("--patients", "60", "--rounds", "4", "--table", "1,2,4,8")
    assert result.returncode == 0
    for target in ("1.000", "2.000", "4.000", "8.000"):
        assert target in result.stdout
    rows = json.loads(planned("--patients", "60", "--table", "2,8", "--json").stdout)
    noises = [each["noise_multiplier"] for each in rows]
    assert len(rows) == 2
    assert noises == sorted(noises, reverse=True)
    assert len(json.loads(planned("--patients", "60", "--table", "9", "--json").stdout)) == 1


def test_a_plot() -> None:
    for flags in (
        ("--table", "1,100", "--prototype-noise", "40"),
        ("--noise", "0", "--rounds", "2"),
    ):
        result = planned("--patients", "60", *flags, "--plot", "plan.png")
        assert result.returncode == 0, result.stderr
        assert "plot: plan.png" in result.stdout
        with Image.open("plan.png") as image:
            assert image.size == (1440, 630)
        Path("plan.png").unlink()


def test_an_infeasible_plan_exits_with_1_and_the_reason() -> None:
    result = planned(
        "--patients", "30", "--rounds", "250", "--prototype-noise", "4", "--epsilon", "8",
        "--delta", "3.3e-5",
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: prototype releases alone cost epsilon 8.097 at delta")


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--epsilon", "8", "--noise", "1"),
        ("--epsilon", "8", "--table", "1,2"),
        ("--epsilon", "0"),
        ("--epsilon", "-1"),
        ("--epsilon", "nan"),
        ("--epsilon", "inf"),
        ("--noise", "-1"),
        ("--noise", "nan"),
        ("--noise", "1e300"),
        ("--table", "1,,2"),
        ("--table", "one"),
        ("--table", "1,-2"),
        ("--table", ""),
        ("--noise", "1", "--rounds", "0"),
        ("--noise", "1", "--steps", "0"),
        ("--noise", "1", "--rate", "0"),
        ("--noise", "1", "--rate", "1.5"),
        ("--noise", "1", "--rate", "nan"),
        ("--noise", "1", "--delta", "0"),
        ("--noise", "1", "--delta", "1"),
        ("--noise", "1", "--classes", "1"),
        ("--noise", "1", "--prototype-noise", "0"),
        ("--noise", "1", "--shared", "--sites", "2"),
        ("--noise", "1", "--patients", "0"),
    ],
)
def test_impossible_numbers_exit_with_2(flags: tuple[str, ...]) -> None:
    result = planned("--patients", "60", *flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Error" in result.stderr


def test_help_shows_examples_and_loads_nothing_heavy() -> None:
    result = planned("--help")
    assert "Examples" in result.stdout
    assert "fedbcs-secure plan" in result.stdout
    import subprocess

    code = "import sys, fedbcs_secure.cli.plan; print({'torch', 'dp_accounting'} & {*sys.modules})"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "set()"
