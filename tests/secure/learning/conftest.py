"""Golden files of the published code.

A test argument named ``<family>_golden`` runs the test once for each ``<family>_*.npz`` of the
folder in ``FEDBCS_GOLDEN`` (default: ``tests/golden``).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

_DEFAULT = Path(__file__).parents[2] / "golden"
_FOLDER = Path(os.environ.get("FEDBCS_GOLDEN", _DEFAULT))
_SUFFIX = "_golden"
_NO_NORM = 1e-9


class GoldenFile:
    """One npz file: its arrays as tensors, and the errors of computed values against them."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self.arrays = {name: stored[name] for name in stored.files}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.tensor(self.arrays[name])

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.arrays if name.startswith(prefix)]

    def abs_error(self, name: str, value: Tensor) -> float:
        """Largest absolute error; infinite where shapes differ, 0 where infinities agree."""
        expected = self.arrays[name].astype(np.float64)
        got = value.detach().double().numpy()
        if got.shape != expected.shape:
            return np.inf
        with np.errstate(invalid="ignore"):
            difference = np.where(got == expected, 0.0, np.abs(got - expected))
        return float(difference.max(initial=0.0))

    def rel_error(self, name: str, value: Tensor) -> float:
        """Relative error in the 2-norm; the absolute one where the expected norm is below 1e-9."""
        expected = self.arrays[name].astype(np.float64)
        got = value.detach().double().numpy()
        if got.shape != expected.shape:
            return np.inf
        norm = float(np.linalg.norm(expected))
        if norm < _NO_NORM:
            return self.abs_error(name, value)
        return float(np.linalg.norm(got - expected)) / norm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument in metafunc.fixturenames:
        if not argument.endswith(_SUFFIX):
            continue
        family = argument.removesuffix(_SUFFIX)
        paths = sorted(_FOLDER.glob(f"{family}_*.npz"))
        if not paths and (_FOLDER == _DEFAULT or not any(_FOLDER.glob("*.npz"))):
            raise pytest.UsageError(f"no golden file {family}_*.npz in {_FOLDER}")
        metafunc.parametrize(argument, [GoldenFile(p) for p in paths], ids=[p.stem for p in paths])
