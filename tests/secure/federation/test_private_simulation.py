"""A whole simulated study under differential privacy: real training, real ledgers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import SETTINGS, tiny_simulation

from fedbcs_protocols.errors import Refused
from fedbcs_protocols.identity import Identity
from fedbcs_secure.federation.events import RoundFinished
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.simulated_books import FOLDER, study_policy
from fedbcs_secure.federation.simulation import Simulation
from fedbcs_secure.learning import learner as module
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.privacy.cost import cost
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.ledger import Ledger
from fedbcs_secure.privacy.policy import SitePolicy

PRIVACY = {
    "noise_multiplier": 2.0, "sampling_rate": 0.5, "steps": 2, "prototype_noise": 8.0,
    "prototype_every": 1,
}  # fmt: skip
ALL = Gaussian(2.0, 0.5).times(6) + Gaussian(8.0).times(2)


def simulation(path: Path, **values: Any) -> Simulation:
    return tiny_simulation(path, privacy=PRIVACY | values.pop("privacy", {}), **values)


def again(run: Simulation, **changes: Any) -> Simulation:
    """A new process with the run's folder."""
    folder = RunFolder.open(run.folder.path)
    study, settings = folder.document()
    return Simulation(study, settings, run.dataset, folder, Learner(study, "cpu"), **changes)


def ledger_of(run: Simulation, site: str) -> Ledger:
    place = run.folder.path / FOLDER / site
    key = (place / "simulated.key").read_bytes()
    return Ledger.open(
        place / "ledger.sqlite",
        head=place / "ledger.head",
        identity=Identity.from_secret_bytes(key[:32]),
        storage_key=key[32:],
        policy=study_policy(run.study),
    )


def test_the_summary_says_what_each_site_spent(tmp_path: Path) -> None:
    run = simulation(tmp_path / "run")
    summary = run.run()
    assert run.study.prototype_rounds == {0, 1}
    for row in summary["sites"].values():
        said = row["privacy"]
        assert said["epsilon"] == pytest.approx(cost(ALL, 1e-5))
        assert (said["delta"], said["unit"], said["noise_multiplier"]) == (1e-5, "patient", 2.0)
        assert (said["releases"], said["refusals"]) == (3, 0)
        assert said["local_epsilon"] == said["epsilon"]
    written = json.loads((run.folder.path / "summary.json").read_text())
    assert written["sites"] == json.loads(json.dumps(summary["sites"]))
    for site in run.dataset.sites:
        with ledger_of(run, site) as ledger:
            assert ledger.verify().head == ledger.head
            assert ledger.head.sequence == 5  # opened, policy, three rounds


def test_noise_is_not_repeatable(tmp_path: Path) -> None:
    """The study's seed is public; noise that followed from it would be none."""
    one, two = (simulation(tmp_path / name).run() for name in ("one", "two"))
    assert one["model_sha256"] != two["model_sha256"]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("trainings", [0, 1, 5, 9])
def test_an_interrupted_run_spends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: int
) -> None:
    """DP-5.4: what sites had booked is sent, not made again."""
    run = simulation(tmp_path / "run")
    done: list[tuple[str, int]] = []
    train = module.train_privately

    def counted(*args: Any, **named: Any) -> Any:
        if len(done) == trainings:
            raise Interrupted
        done.append((named["site"], named["round_index"]))
        return train(*args, **named)

    monkeypatch.setattr(module, "train_privately", counted)
    with pytest.raises(Interrupted):
        run.run()
    trainings = -1
    summary = again(run).run()
    assert sorted(done) == [(site, r) for site in run.dataset.sites for r in range(3)]
    assert {row["privacy"]["releases"] for row in summary["sites"].values()} == {3}
    for row in summary["sites"].values():
        assert row["privacy"]["epsilon"] == pytest.approx(cost(ALL, 1e-5))


def test_sites_whose_budget_is_spent_end_the_study_where_too_few_are_left(tmp_path: Path) -> None:
    run = simulation(tmp_path / "run")
    first = Gaussian(2.0, 0.5).times(2) + Gaussian(8.0).times(1)
    cap = cost(first, 1e-5) * 1.01
    small = SitePolicy(epsilon=cap, max_clip=1.0)
    with pytest.raises(Refused, match=r"(?s)Sites that declined:.*site C: .*cap is .*site D: "):
        again(run, policies={"C": small, "D": small}).run()
    assert run.folder.completed() == 1
    # What stands in the folder can be gone on with, under a policy that allows it.
    assert again(run).run()["rounds"] == 3


def test_one_site_whose_budget_is_spent_is_missed(tmp_path: Path) -> None:
    first = Gaussian(2.0, 0.5).times(2) + Gaussian(8.0).times(1)
    small = SitePolicy(epsilon=cost(first, 1e-5) * 1.01, max_clip=1.0)
    run = again(simulation(tmp_path / "run"), policies={"C": small})
    summary = run.run()
    assert summary["rounds_missed"] == {"A": 0, "B": 0, "C": 2, "D": 0}
    assert summary["sites"]["C"]["privacy"]["releases"] == 1
    assert summary["sites"]["C"]["privacy"]["refusals"] == 2
    assert summary["sites"]["C"]["privacy"]["epsilon"] < small.epsilon


def test_a_cap_for_all_sites(tmp_path: Path) -> None:
    run = simulation(tmp_path / "run")
    settings = SETTINGS.model_copy(update={"cap": 0.01})
    capped = Simulation(run.study, settings, run.dataset, run.folder, run.learner)
    with pytest.raises(Refused, match="Sites that declined"):
        capped.run()


def test_the_policy_of_a_simulation_allows_its_study_and_no_more(tmp_path: Path) -> None:
    study = simulation(tmp_path / "run").study
    policy = study_policy(study)
    assert policy.epsilon == pytest.approx(cost(ALL, 1e-5))
    assert policy.epsilon > cost(ALL, 1e-5)
    assert (policy.min_noise_multiplier, policy.max_clip) == (2.0, 1.0)
    assert policy.protections == (study.protection,)
    assert policy.local_epsilon is None
    shared = simulation(tmp_path / "shared", privacy={"noise": "shared"}).study
    assert study_policy(shared).local_epsilon > study_policy(shared).epsilon  # type: ignore[operator]


@pytest.mark.parametrize("sites", ["A", "AB"])
def test_ledgers_that_were_put_back_before_a_run_is_resumed(tmp_path: Path, sites: str) -> None:
    """RO-7.4: whole folders, so that no file beside a ledger shows it; the frames do."""
    run = simulation(tmp_path / "run")
    ledgers = run.folder.path / FOLDER

    def stop(event: object) -> None:
        if isinstance(event, RoundFinished) and event.round == 0:
            for site in sites:
                shutil.copytree(ledgers / site, tmp_path / site)
        if isinstance(event, RoundFinished) and event.round == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        again(run, observer=stop).run()
    for site in sites:
        shutil.rmtree(ledgers / site)
        shutil.copytree(tmp_path / site, ledgers / site)
    if sites == "A":
        summary = again(run).run()
        assert summary["rounds_missed"] == {"A": 1, "B": 0, "C": 0, "D": 0}
        assert summary["sites"]["A"]["privacy"]["releases"] == 1
    else:
        with pytest.raises(Refused, match=r"(?s)site A: this site's ledger is older than what"):
            again(run).run()
