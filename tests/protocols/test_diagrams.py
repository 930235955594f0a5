"""The diagrams in the specification are those of the tables that the code runs on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROTOCOLS = Path(__file__).parents[2] / "protocols"


def test_the_page_is_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, str(PROTOCOLS / "draw.py"), "--check"],
        env={"PYTHONPATH": str(PROTOCOLS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_every_state_is_drawn() -> None:
    from fedbcs_protocols.secagg.states import CombinerState, SiteState

    page = (PROTOCOLS / "specs" / "secagg.md").read_text(encoding="utf-8")
    for state in (*SiteState, *CombinerState):
        assert f"--> {state.name}" in page
