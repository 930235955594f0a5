"""A study that trains in a second or two."""

from __future__ import annotations

from pathlib import Path

from fedbcs_secure.data import sources
from fedbcs_secure.data.records import Dataset
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.federation.simulation import Simulation, with_roster
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.study import Study, build

SETTINGS = SimulationSettings(data="synthetic-mri", patients=5, slices=2, overlays=1, device="cpu")


def tiny_study(**values: object) -> Study:
    base: dict[str, object] = {
        "rounds": 3,
        "seed": 5,
        "data": {"size_px": 32, "channels": 1},
        "model": {"width": 4},
        "training": {"lr": 3e-3, "batch_size": 3},
        "alignment": {"warmup_rounds": 1},
    }
    return build(base | values)


def tiny_data(study: Study) -> Dataset:
    return sources.load(SETTINGS.data, study.data, seed=study.seed, patients=5, slices=2)


def tiny_simulation(path: Path, **values: object) -> Simulation:
    study = tiny_study(**values)
    dataset = tiny_data(study)
    study = with_roster(study.resolved(), dataset)
    folder = RunFolder.create(path, study, SETTINGS)
    return Simulation(study, SETTINGS, dataset, folder, Learner(study, "cpu"))
