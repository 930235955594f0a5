from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_study

from fedbcs_secure.errors import ModelError
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.modelfile import (
    FORMAT,
    GLOBAL,
    ModelFile,
    load_model,
    model_sha256,
    save_model,
)

STUDY = tiny_study().resolved()


@pytest.fixture
def model() -> ModelFile:
    return ModelFile(STUDY, {GLOBAL: Learner(STUDY, "cpu").initial_weights()})


def test_round_trip(model: ModelFile, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert np.array_equal(again.weights[GLOBAL], model.weights[GLOBAL])
    assert model_sha256(again) == model_sha256(model)
    assert again.study == STUDY
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_one_model_a_site(model: ModelFile, tmp_path: Path) -> None:
    flat = model.weights[GLOBAL]
    save_model(ModelFile(STUDY, {"A": flat, "B": flat * 2}), tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert np.array_equal(again.for_site("B"), flat * 2)
    with pytest.raises(ModelError, match="A, B"):
        again.for_site("C")
    assert np.array_equal(model.for_site("anything"), flat)


def test_the_roster_does_not_travel_with_the_model(tmp_path: Path) -> None:
    roster = [{"name": n, "weight": 77.0, "steps": 1, "classes": [0, 1]} for n in "ABC"]
    study = tiny_study(roster=roster).resolved()
    weights = {GLOBAL: Learner(study, "cpu").initial_weights()}
    save_model(ModelFile(study, weights), tmp_path / "m.safetensors")
    assert b"77.0" not in (tmp_path / "m.safetensors").read_bytes()


def tampered(model: ModelFile, path: Path, **metadata: str) -> Path:
    save_model(model, path)
    arrays = load_file(path)
    header = {
        "format": FORMAT,
        "study": json.dumps(STUDY.model_dump(mode="json")),
        "sites": json.dumps([GLOBAL]),
    }
    save_file(arrays, path, metadata=header | metadata)
    return path


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"format": "other"}, "not written by this toolkit"),
        ({"study": "{"}, "does not describe a model"),
        ({"study": '{"model": {"width": 100000}}'}, "does not describe a model"),
        ({"study": '{"model": {"width": 8}}'}, "is not float32"),
        ({"study": '{"model": {"width": 256}}'}, "is not float32"),
        ({"study": '{"method": "fedavg"}'}, "do not fit"),
        ({"sites": "[]"}, "do not fit"),
        ({"sites": '["A"]'}, "do not fit"),
        ({"sites": "{"}, "does not describe a model"),
        ({"sites": "7"}, "does not describe a model"),
        ({"sites": '["A", "A"]'}, "does not describe a model"),
        ({"sites": json.dumps([str(i) for i in range(2000)])}, "does not describe a model"),
        ({"sites": "[" * 5000}, "does not describe a model"),
    ],
)
def test_headers_that_lie(
    model: ModelFile, tmp_path: Path, metadata: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(tampered(model, tmp_path / "m.safetensors", **metadata))


def test_weights_that_are_not_finite(model: ModelFile, tmp_path: Path) -> None:
    flat = model.weights[GLOBAL].copy()
    flat[3] = np.inf
    save_model(ModelFile(STUDY, {GLOBAL: flat}), tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        load_model(tmp_path / "m.safetensors")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_cut_file(model: ModelFile, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="not a readable model file"):
        load_model(path)
