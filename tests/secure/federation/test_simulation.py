"""Whole runs of a tiny study: equal under protections, repeatable, resumable, complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tiny import SETTINGS, tiny_data, tiny_simulation, tiny_study

from fedbcs_secure.data.records import Dataset
from fedbcs_secure.data.sources import only_sites
from fedbcs_secure.errors import DataError, RunFolderError
from fedbcs_secure.federation.events import Event, RoundFinished, RoundStarted, StepDone
from fedbcs_secure.federation.figures import save_curves
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.simulation import (
    Simulation,
    check_dataset,
    data_digest,
    with_roster,
)
from fedbcs_secure.learning.evaluate import summarise
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.modelfile import load_model, model_sha256


def test_summary_has_what_scripts_rely_on(tmp_path: Path) -> None:
    summary = tiny_simulation(tmp_path / "run").run()
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    fixed = {
        "method", "protection", "rounds", "seed", "sites", "mean_dice", "worst_dice",
        "seconds_per_round", "bytes_up_per_parameter", "model_sha256",
    }  # fmt: skip
    assert fixed <= set(summary)
    assert set(summary["sites"]) == {"A", "B", "C", "D"}
    assert all({"dice", "hd95"} <= set(row) for row in summary["sites"].values())
    assert summary["worst_dice"] == min(row["dice"] for row in summary["sites"].values())
    file = load_model(tmp_path / "run" / "model.safetensors")
    assert model_sha256(file) == summary["model_sha256"]
    for name in ("curves.png", "metrics.jsonl", "study.toml"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert len(list((tmp_path / "run" / "overlays").glob("*.png"))) == 4


@pytest.mark.parametrize("method", ["fedbcs", "fedavg", "fedprox"])
def test_secagg_and_none_give_the_same_model_bit_for_bit(tmp_path: Path, method: str) -> None:
    models = [
        tiny_simulation(tmp_path / p, method=method, protection=p).run()["model_sha256"]
        for p in ("secagg", "none")
    ]
    assert models[0] == models[1]


def test_a_seed_repeats_a_run_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second = (tiny_simulation(tmp_path / n).run() for n in ("one", "two"))
    other = tiny_simulation(tmp_path / "three", seed=6).run()
    assert first["model_sha256"] == second["model_sha256"] != other["model_sha256"]
    assert first["sites"] == second["sites"]


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("method", ["fedbcs", "local", "pooled"])
def test_resume_equals_an_uninterrupted_run(tmp_path: Path, method: str) -> None:
    whole = tiny_simulation(tmp_path / "whole", method=method, server_momentum=0.5).run()

    def stop(event: Event) -> None:
        if isinstance(event, RoundStarted) and event.round == 2:
            raise Interrupt

    cut = tiny_simulation(tmp_path / "cut", method=method, server_momentum=0.5)
    with pytest.raises(Interrupt):
        replace(cut, observer=stop).run()
    assert {r["round"] for r in cut.folder.metrics()} == {0, 1}

    study, settings = RunFolder.open(tmp_path / "cut").document()
    assert study == cut.study
    again = Simulation(
        study, settings, tiny_data(study), RunFolder(tmp_path / "cut"), Learner(study, "cpu")
    )
    resumed = again.run()
    assert resumed["model_sha256"] == whole["model_sha256"]
    assert resumed["sites"] == whole["sites"]
    strip = {"round_seconds", "bytes_up", "bytes_down"}
    rows = [
        [{k: v for k, v in row.items() if k not in strip} for row in RunFolder(p).metrics()]
        for p in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert rows[0] == rows[1]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    simulation = tiny_simulation(tmp_path / "run", rounds=1)
    simulation.run()
    with pytest.raises(RunFolderError, match="finished"):
        simulation.run()


def test_local_keeps_a_model_a_site_and_sends_nothing(tmp_path: Path) -> None:
    summary = tiny_simulation(tmp_path / "run", method="local").run()
    assert summary["bytes_up_per_parameter"] == 0
    assert summary["protection"] == "none"
    file = load_model(tmp_path / "run" / "model.safetensors")
    assert sorted(file.weights) == ["A", "B", "C", "D"]
    assert not (file.weights["A"] == file.weights["B"]).all()


def test_the_model_learns(tmp_path: Path) -> None:
    simulation = tiny_simulation(tmp_path / "run", rounds=12)
    simulation.run()
    rows = simulation.folder.metrics()
    first = sum(r["loss"] for r in rows if r["round"] == 0)
    last = sum(r["loss"] for r in rows if r["round"] == 11)
    assert last < 0.85 * first


def test_fedprox_stays_closer_to_the_global_model(tmp_path: Path) -> None:
    simulation = tiny_simulation(tmp_path / "run", method="fedprox")
    learner, patients = simulation.learner, simulation.dataset.cohorts["A"].train
    weights = learner.initial_weights()
    free = learner.train(weights, patients, site="A", round_index=0)
    held_study = tiny_study(
        method="fedprox", training={"lr": 3e-3, "batch_size": 3, "prox_mu": 100.0}
    )
    held = Learner(with_roster(held_study.resolved(), simulation.dataset), "cpu").train(
        weights, patients, site="A", round_index=0
    )
    assert (held.delta**2).sum() < 0.9 * (free.delta**2).sum()


def test_events_tell_every_round(tmp_path: Path) -> None:
    seen: list[Event] = []
    replace(tiny_simulation(tmp_path / "run", rounds=2), observer=seen.append).run()
    assert [e.round for e in seen if isinstance(e, RoundFinished)] == [0, 1]


def test_validation_stays_out_of_the_protocol(tmp_path: Path) -> None:
    """Without validation the same bytes travel and the same model results."""
    quiet = tiny_simulation(tmp_path / "quiet")
    quiet = replace(quiet, settings=SETTINGS.model_copy(update={"validate_every": 0}))
    loud = tiny_simulation(tmp_path / "loud")
    a, b = quiet.run(), loud.run()
    assert a["model_sha256"] == b["model_sha256"]
    assert a["bytes_up_per_parameter"] == b["bytes_up_per_parameter"]
    assert all(r["validation_dice"] is None for r in quiet.folder.metrics())


def test_roster_weights_are_training_slices() -> None:
    study = tiny_study()
    dataset = tiny_data(study)
    roster = with_roster(study, dataset).roster
    for entry in roster:
        slices = sum(p.slices for p in dataset.cohorts[entry.name].train)
        assert entry.weight == slices
        assert entry.steps == -(-slices // 3)
        assert entry.classes == (0, 1)


def test_too_few_sites_for_a_sum() -> None:
    study = tiny_study()
    two = only_sites(tiny_data(study), ("A", "B"))
    with pytest.raises(DataError, match="at least 3"):
        check_dataset(study, two)
    check_dataset(tiny_study(method="local"), two)


def test_an_unknown_site_is_named() -> None:
    with pytest.raises(DataError, match="no site E, F"):
        only_sites(tiny_data(tiny_study()), ("A", "F", "E"))


def test_tensorboard_event_files(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    simulation = tiny_simulation(tmp_path / "run", rounds=2)
    settings = SETTINGS.model_copy(update={"tensorboard": True})
    replace(simulation, settings=settings).run()
    total = []
    for path in sorted((tmp_path / "run" / "tensorboard").iterdir()):
        reader = event_accumulator.EventAccumulator(str(path))
        reader.Reload()
        total += [e.step for e in reader.Scalars("loss/A")]
    assert total == [1, 2]


def test_model_arrays_are_plain_float32(tmp_path: Path) -> None:
    tiny_simulation(tmp_path / "run", rounds=1).run()
    arrays = load_file(tmp_path / "run" / "model.safetensors")
    assert {a.dtype.name for a in arrays.values()} == {"float32"}
    assert (
        sum(a.size for a in arrays.values())
        == tiny_simulation(tmp_path / "other").learner.parameters
    )


def with_other_pixels(dataset: Dataset, splits: tuple[str, ...]) -> Dataset:
    """The same patients, with noise for images in ``splits``."""
    rng = np.random.default_rng(1)
    cohorts = {}
    for site, cohort in dataset.cohorts.items():
        changes = {
            split: tuple(
                replace(p, images=rng.random(p.images.shape, dtype=np.float32))
                for p in cohort.split(split)
            )
            for split in splits
        }
        cohorts[site] = replace(cohort, **changes)
    return replace(dataset, cohorts=cohorts)


@pytest.mark.parametrize("method", ["fedbcs", "local", "pooled"])
def test_validation_and_test_images_do_not_change_the_model(tmp_path: Path, method: str) -> None:
    one = tiny_simulation(tmp_path / "one", method=method)
    two = tiny_simulation(tmp_path / "two", method=method)
    two = replace(two, dataset=with_other_pixels(two.dataset, ("validation", "test")))
    a, b = one.run(), two.run()
    assert a["model_sha256"] == b["model_sha256"]
    assert a["mean_dice"] != b["mean_dice"]
    three = tiny_simulation(tmp_path / "three", method=method)
    three = replace(three, dataset=with_other_pixels(three.dataset, ("train",)))
    assert three.run()["model_sha256"] != a["model_sha256"]


def test_validation_dice_is_that_of_validation_patients(tmp_path: Path) -> None:
    simulation = tiny_simulation(tmp_path / "run")
    simulation.run()
    weights = load_model(tmp_path / "run").weights[""]
    for row in simulation.folder.metrics()[-4:]:
        cohort = simulation.dataset.cohorts[row["site"]]
        expected = summarise(simulation.learner.evaluate(weights, cohort.validation)).dice
        assert row["validation_dice"] == pytest.approx(expected)


def test_pooled_trains_on_everybodys_patients(tmp_path: Path) -> None:
    seen: list[Event] = []
    simulation = tiny_simulation(tmp_path / "run", method="pooled", rounds=1)
    replace(simulation, observer=seen.append).run()
    slices = sum(p.slices for c in simulation.dataset.cohorts.values() for p in c.train)
    assert {e.total for e in seen if isinstance(e, StepDone)} == {-(-slices // 3)}


@pytest.mark.parametrize("method", ["local", "pooled"])
def test_server_momentum_is_an_option_of_every_method(tmp_path: Path, method: str) -> None:
    digests = {
        tiny_simulation(tmp_path / str(beta), method=method, server_momentum=beta).run()[
            "model_sha256"
        ]
        for beta in (0.0, 0.9)
    }
    assert len(digests) == 2


def test_two_processes_do_not_run_in_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    simulation = tiny_simulation(tmp_path / "run")
    with simulation.folder.locked(), pytest.raises(RunFolderError, match="another process"):
        simulation.run()


def test_the_data_digest_sees_one_pixel_and_one_split() -> None:
    dataset = tiny_data(tiny_study())
    assert data_digest(dataset) == data_digest(tiny_data(tiny_study()))
    cohort = dataset.cohorts["C"]
    masks = cohort.train[0].masks.copy()
    masks[0, 3, 3] ^= 1
    edited = (replace(cohort.train[0], masks=masks), *cohort.train[1:])
    moved = replace(cohort, train=cohort.train[1:], test=(*cohort.test, cohort.train[0]))
    for other in (replace(cohort, train=edited), moved):
        changed = replace(dataset, cohorts={**dataset.cohorts, "C": other})
        assert data_digest(changed) != data_digest(dataset)


def test_curves_show_what_was_measured(tmp_path: Path) -> None:
    base = {"site": "A", "loss": 0.5}
    flat = [base | {"round": i, "validation_dice": 0.2} for i in range(4)]
    rising = [base | {"round": i, "validation_dice": 0.2 * (i + 1)} for i in range(4)]
    missing = [base | {"round": i, "validation_dice": None} for i in range(4)]
    pictures = []
    for name, rows in (("flat", flat), ("rising", rising), ("missing", missing)):
        save_curves(rows, tmp_path / f"{name}.png", title="t")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"), np.int16))
    assert np.abs(pictures[0] - pictures[1]).max() > 100
    assert np.abs(pictures[0] - pictures[2]).max() > 100
