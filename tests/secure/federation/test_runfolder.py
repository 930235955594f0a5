from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import build

STUDY = build({"method": "local"}).resolved()


def state(index: int) -> GlobalState:
    weights = np.full(3, index, np.float32)
    return GlobalState(index, weights, np.zeros(0, np.float32), (), (0,))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    settings = SimulationSettings(data="synthetic-he", patients=5, sites=("A", "B", "C"))
    return RunFolder.create(tmp_path / "run", build({"method": "local"}).resolved(), settings)


def test_document_comes_back_as_it_was(folder: RunFolder) -> None:
    study, settings = RunFolder.open(folder.path).document()
    assert study == build({"method": "local"}).resolved()
    assert settings == SimulationSettings(data="synthetic-he", patients=5, sites=("A", "B", "C"))


def test_a_run_is_not_overwritten(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="--resume"):
        RunFolder.create(folder.path, build({}), SimulationSettings())


def test_a_folder_without_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no study\.toml"):
        RunFolder.open(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        RunFolder.create(tmp_path / "file" / "run", build({}), SimulationSettings())


def test_half_a_line_of_metrics_is_dropped(folder: RunFolder) -> None:
    folder.append_metrics([{"round": 0, "loss": 1.0}, {"round": 1, "loss": 0.5}])
    with (folder.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"round": 2, "lo')
    assert [r["round"] for r in folder.metrics()] == [0, 1]
    folder.forget_metrics_from(1)
    assert [r["round"] for r in folder.metrics()] == [0]
    folder.append_metrics([{"round": 1, "loss": 0.4}])
    assert [r["round"] for r in folder.metrics()] == [0, 1]


def test_a_crash_between_two_learners_falls_back_to_the_round_both_finished(
    folder: RunFolder,
) -> None:
    assert folder.load_states(["A", "B"], STUDY) is None
    folder.save_states({"A": state(1), "B": state(1)}, STUDY)
    folder.save_states({"A": state(2), "B": state(2)}, STUDY)
    # the process dies after A's checkpoint of round 3 was written
    checkpoint = folder.path / "checkpoint"
    (checkpoint / "A.safetensors").replace(checkpoint / "A.previous")
    folder.save_states({"A": state(3)}, STUDY)
    found = folder.load_states(["A", "B"], STUDY)
    assert found is not None
    assert {name: s.round for name, s in found.items()} == {"A": 2, "B": 2}


def test_only_some_learners_have_a_checkpoint(folder: RunFolder) -> None:
    folder.save_states({"A": state(1)}, STUDY)
    assert folder.load_states(["A", "B"], STUDY) is None


def test_a_checkpoint_of_an_edited_study_is_refused(folder: RunFolder) -> None:
    folder.save_states({"A": state(1)}, STUDY)
    with pytest.raises(RunFolderError, match="another study"):
        folder.load_states(["A"], build({"method": "local", "seed": 3}).resolved())
