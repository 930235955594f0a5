"""``budget``: what a ledger says, of a simulated site and of one with keys of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from ledger_support import claim
from tiny import tiny_simulation

from fedbcs_secure.federation import keyfile
from fedbcs_secure.privacy.cost import cost
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.ledger import Ledger
from fedbcs_secure.privacy.policy import PolicyRefused, load_policy

PRIVACY = {"noise_multiplier": 2.0, "sampling_rate": 0.5, "steps": 2}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    tiny_simulation(path, privacy=PRIVACY, rounds=2).run()
    return path


def state(*arguments: str) -> dict[str, Any]:
    result = run("budget", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_simulated_site(simulated: Path) -> None:
    said = state("--site-dir", str(simulated / "ledgers" / "B"))
    expected = cost(Gaussian(2.0, 0.5).times(4), 1e-5)
    assert said["epsilon"] == pytest.approx(expected)
    assert (said["delta"], said["releases"], said["refusals"]) == (1e-5, 2, 0)
    assert said["remaining"] == pytest.approx(0, abs=1e-6)
    assert [row["kind"] for row in said["history"]] == ["opened", "policy", "release", "release"]
    assert [row.get("round") for row in said["history"]] == [None, None, 1, 2]
    (study,) = said["studies"]
    assert (study["rounds"], study["epsilon"]) == (2, pytest.approx(expected))
    assert said["head"]["sequence"] == 4
    assert (said["unit"], study["unit"]) == ("patient", "patient")
    assert [row.get("unit") for row in said["history"]] == [None, None, "patient", "patient"]
    # It changed nothing.
    assert state("--site-dir", str(simulated / "ledgers" / "B")) == said


def test_what_people_see(simulated: Path) -> None:
    text = run("budget", "--site-dir", str(simulated / "ledgers" / "A")).stdout
    for words in ("spent  epsilon", "by the patient worst off", "release, ", "checked: 4 entries"):
        assert words in text


def test_what_another_study_would_lead_to(simulated: Path, tmp_path: Path) -> None:
    file = tmp_path / "next.toml"
    file.write_text("rounds = 3\n[privacy]\nnoise_multiplier = 5\nsampling_rate = 0.5\nsteps = 2\n")
    said = state("--site-dir", str(simulated / "ledgers" / "A"), "--study", str(file))
    both = Gaussian(2.0, 0.5).times(4) + Gaussian(5.0, 0.5).times(6)
    assert said["next"]["epsilon"] == pytest.approx(cost(both, 1e-5))
    assert said["next"]["within_cap"] is False
    text = run("budget", "--site-dir", str(simulated / "ledgers" / "A"), "--study", str(file))
    assert "above the cap" in text.stdout
    file.write_text("rounds = 3\n")
    none = run("budget", "--site-dir", str(simulated / "ledgers" / "A"), "--study", str(file))
    assert none.returncode == 2
    assert "has no [privacy]" in none.stderr


def test_a_site_with_keys_of_its_own(tmp_path: Path) -> None:
    site, words = tmp_path / "site", tmp_path / "words"
    words.write_text("rowan kettle birch 19\n")
    words.chmod(0o600)
    secrets = keyfile.create(site, keyfile.passphrase_in(words))
    (site / "site.toml").write_text("[policy]\nepsilon = 2.0\n")
    with Ledger.open(
        site / "ledger.sqlite",
        head=tmp_path / "head",
        identity=secrets.identity,
        storage_key=secrets.storage_key,
        policy=load_policy(site / "site.toml"),
    ) as ledger:
        ledger.release(claim("A", 0, sigma=5.0), lambda: b"noise")
        with pytest.raises(PolicyRefused):
            ledger.release(claim("A", 1, sigma=1.0), lambda: b"noise")
    where = ("--site-dir", str(site), "--head", str(tmp_path / "head"))
    said = state(*where, "--passphrase-file", str(words))
    assert (said["cap"], said["releases"], said["refusals"]) == (2.0, 1, 1)
    refusal = said["history"][-1]
    assert (refusal["kind"], refusal["reason"], refusal["round"]) == ("refusal", "budget", 2)
    assert refusal["epsilon"] > 2
    nobody = run("budget", *where)
    assert nobody.returncode == 1
    assert "nobody to ask" in nobody.stderr


def test_images_that_were_hidden_where_patients_are_asked_for(tmp_path: Path) -> None:
    """DP-5.10: a figure that is infinite is not passed over, and it is said why."""
    site, words = tmp_path / "site", tmp_path / "words"
    words.write_text("rowan kettle birch 19\n")
    words.chmod(0o600)
    secrets = keyfile.create(site, keyfile.passphrase_in(words))
    policy = site / "site.toml"
    policy.write_text('[policy]\nunit = "slice"\n')
    with Ledger.open(
        site / "ledger.sqlite",
        head=site / "ledger.head",
        identity=secrets.identity,
        storage_key=secrets.storage_key,
        policy=load_policy(policy),
    ) as ledger:
        ledger.release(claim("A", 0, sigma=5.0, unit="slice"), lambda: b"noise")
        ledger.release(claim("B", 0, sigma=5.0), lambda: b"noise")
    file = tmp_path / "next.toml"
    file.write_text("[privacy]\nnoise_multiplier = 5\nsampling_rate = 0.5\nsteps = 2\n")
    where = ("--site-dir", str(site), "--passphrase-file", str(words))
    said = state(*where)
    assert (said["unit"], said["epsilon"]) == (
        "slice",
        pytest.approx(cost(Gaussian(5.0).times(2), 1e-5)),
    )
    assert [row.get("unit") for row in said["history"][2:]] == ["slice", "patient"]
    assert [s["unit"] for s in said["studies"]] == ["slice", "patient"]
    text = run("budget", *where).stdout
    assert "by the image worst off" in text
    assert text.count("hides single images") == 1
    policy.write_text("")
    said = state(*where, "--study", str(file))
    assert (said["unit"], said["epsilon"], said["remaining"]) == ("patient", None, 0)
    assert [s["epsilon"] is None for s in said["studies"]] == [True, False]
    assert (said["next"]["unit"], said["next"]["within_cap"]) == ("patient", False)
    text = run("budget", *where, "--study", str(file)).stdout
    for part in ("epsilon infinite of 8", "a release hid single images only", "above the cap"):
        assert part in text


def test_no_ledger(tmp_path: Path) -> None:
    result = run("budget", "--site-dir", str(tmp_path))
    assert result.returncode == 1
    assert "has spent nothing yet" in result.stderr


def test_a_damaged_ledger_is_not_shown(simulated: Path, tmp_path: Path) -> None:
    import shutil
    import sqlite3

    place = tmp_path / "C"
    shutil.copytree(simulated / "ledgers" / "C", place)
    connection = sqlite3.connect(place / "ledger.sqlite")
    with connection:
        connection.execute("UPDATE entries SET signature = zeroblob(64) WHERE sequence = 3")
    connection.close()
    result = run("budget", "--site-dir", str(place))
    assert (result.returncode, result.stdout) == (1, "")
    assert "entry 3" in result.stderr
