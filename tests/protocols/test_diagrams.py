"""The diagrams in the specifications are those of the tables that the code runs on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedbcs_protocols.ckks import states as ckks
from fedbcs_protocols.secagg import states as secagg

PROTOCOLS = Path(__file__).parents[2] / "protocols"


def run_draw(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "draw.py"), *arguments],
        env={"PYTHONPATH": str(PROTOCOLS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_pages_are_up_to_date() -> None:
    result = run_draw(PROTOCOLS, "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("page", "states"), [("secagg.md", secagg), ("ckks.md", ckks)])
def test_every_state_and_arrow_is_drawn(page: str, states: ModuleType) -> None:
    """CK-7: read here by a rule of its own, not by the one that draws."""
    text = (PROTOCOLS / "specs" / page).read_text(encoding="utf-8")
    first, second = (
        set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", machine, re.MULTILINE))
        for machine in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    )
    for drawn, table in ((first, states.SITE), (second, states.COMBINER)):
        assert drawn == {(at.name, to.name, event.name) for (at, event), to in table.items()}
    for state in (*states.SiteState, *states.CombinerState):
        assert f"--> {state.name}" in text


@pytest.mark.parametrize("page", ["secagg.md", "ckks.md"])
def test_a_page_that_is_not_is_found(page: str, tmp_path: Path) -> None:
    """An arrow less, in either page; nothing is written when only asked."""
    for name in ("draw.py", "specs/secagg.md", "specs/ckks.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((PROTOCOLS / name).read_bytes())
    changed = tmp_path / "specs" / page
    changed.write_text(re.sub(r"\n.*TOO_FEW", "", changed.read_text("utf-8"), count=1), "utf-8")
    before = changed.read_bytes()
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        done = run_draw(tmp_path, *arguments)
        assert done.returncode == code, done.stderr
        assert (page in done.stderr) == bool(code)
        assert (changed.read_bytes() == before) == bool(code)
    assert changed.read_bytes() == (PROTOCOLS / "specs" / page).read_bytes()
