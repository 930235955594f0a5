"""What a study starts from: its seed, or weights that it names by digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import SETTINGS, tiny_data, tiny_simulation, tiny_study

from fedbcs_secure.errors import ModelError, RunFolderError
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.simulation import Simulation, with_roster
from fedbcs_secure.federation.starting import (
    FILE,
    given_weights,
    is_public,
    keep,
    naming,
    public_source,
    starting_weights,
)
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.pretrain import pretrained

STUDY = tiny_study().resolved()
PRIVATE = tiny_study(privacy={"noise_multiplier": 1.0}).resolved()


def quick(study=STUDY, source: str = "synthetic-he"):
    return pretrained(study, source, device="cpu", epochs=1, patients=3)


def test_it_follows_from_public_numbers_alone() -> None:
    """Neither the study's seed nor its privacy, roster or training settings are in it."""
    one = quick()
    assert np.array_equal(one, quick())
    others = {"rounds": 9, "training": {"lr": 0.5}, "name": "another"}
    assert np.array_equal(one, quick(tiny_study(**others).resolved()))
    assert not np.array_equal(one, quick(source="synthetic-mri"))
    assert one.size == Learner(STUDY, "cpu").parameters


def test_a_file_is_no_public_start_whatever_its_name() -> None:
    assert all(map(is_public, ("synthetic", "synthetic-mri", "synthetic-he")))
    assert not any(map(is_public, ("synthetic_patients.safetensors", "synthetic-mri.safetensors")))


def test_it_is_the_network_of_the_study() -> None:
    """Without prototypes there is no fusion, and so there are fewer weights."""
    assert quick(PRIVATE).size == Learner(PRIVATE, "cpu").parameters < quick().size


def test_it_has_learnt_something() -> None:
    dataset = tiny_data(STUDY)
    learner = Learner(STUDY, "cpu")
    patients = dataset.cohorts["B"].train
    weights = pretrained(STUDY, "synthetic-mri", device="cpu", epochs=6, patients=6)
    before = learner.train(learner.initial_weights(), patients, site="B", round_index=0).loss
    after = learner.train(weights, patients, site="B", round_index=0).loss
    assert after < 0.9 * before


@pytest.mark.parametrize(
    ("wanted", "data", "channels", "expected"),
    [
        ("synthetic", "synthetic-mri", 1, "synthetic-he"),
        ("synthetic", "synthetic-he", 3, "synthetic-mri"),
        ("synthetic", "nuclei.csv", 3, "synthetic-he"),
        ("synthetic", "prostate/", 1, "synthetic-mri"),
        ("synthetic-mri", "synthetic-mri", 1, "synthetic-mri"),
    ],
)
def test_which_set(wanted: str, data: str, channels: int, expected: str) -> None:
    """Left to itself, never the study's own: what it gives then would be no transfer."""
    assert public_source(wanted, data, channels) == expected


def start(path: Path, weights: np.ndarray | None) -> Simulation:
    dataset = tiny_data(STUDY)
    study = naming(with_roster(STUDY, dataset), weights)
    folder = RunFolder.create(path, study, SETTINGS)
    keep(folder.path, study, weights)
    return Simulation(study, SETTINGS, dataset, folder, Learner(study, "cpu"))


def test_a_run_starts_from_it(tmp_path: Path) -> None:
    weights = quick()
    run = start(tmp_path / "run", weights)
    assert np.array_equal(starting_weights(run.study, run.folder.path, run.learner), weights)
    summary = run.run()
    other = tiny_simulation(tmp_path / "other").run()
    assert summary["model_sha256"] != other["model_sha256"]
    # A new process, and a run that begins from the file of that one.
    again = RunFolder.open(run.folder.path).document()[0]
    assert again.digest == run.study.digest
    settings = SETTINGS.model_copy(update={"init": str(run.folder.path / FILE)})
    given = given_weights(STUDY, settings)
    assert given is not None
    assert np.array_equal(given, weights)


def test_without_it_nothing_changes(tmp_path: Path) -> None:
    run = tiny_simulation(tmp_path / "run")
    assert run.study.model.initial is None
    assert given_weights(STUDY, SETTINGS) is None
    same = starting_weights(run.study, run.folder.path, run.learner)
    assert np.array_equal(same, run.learner.initial_weights())
    assert not (run.folder.path / FILE).exists()


def test_other_weights_than_the_study_names_are_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "run", quick())
    keep(run.folder.path, run.study, run.learner.initial_weights())
    with pytest.raises(RunFolderError, match="is not what the study starts from"):
        run.run()
    (run.folder.path / FILE).unlink()
    with pytest.raises(ModelError):
        run.run()


def test_a_file_of_another_network(tmp_path: Path) -> None:
    wide = tiny_study(model={"width": 8}).resolved()
    keep(tmp_path, wide, Learner(wide, "cpu").initial_weights())
    settings = SETTINGS.model_copy(update={"init": str(tmp_path / FILE)})
    with pytest.raises(ModelError, match="parameters and the study's network"):
        given_weights(STUDY, settings)


def test_the_flag_trains_before_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from command_line import TINY, run

    monkeypatch.setattr(
        "fedbcs_secure.federation.starting.pretrained",
        lambda study, source, **named: quick(study, source),
    )
    result = run(
        "simulate", *TINY, "--rounds", "1", "--init", "synthetic", "--out", str(tmp_path / "run")
    )
    assert result.returncode == 0, result.stderr
    study, _ = RunFolder.open(tmp_path / "run").document()
    assert study.model.initial is not None
    assert (tmp_path / "run" / FILE).exists()
    told = run("evaluate", "--model", str(tmp_path / "run" / FILE), "--data", "synthetic-mri")
    assert told.returncode == 0, told.stderr
