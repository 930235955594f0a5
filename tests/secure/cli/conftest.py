"""One tiny finished run, shared by the command line's tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import TINY, run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two rounds."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    result = run("simulate", *TINY, "--rounds", "2", "--out", str(out), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rounds"] == 2
    return out
