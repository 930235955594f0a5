"""Every attack of README.md ends as the page says, in a process that would be missed if it died."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedbcs_protocols import errors

PAGE = (Path(__file__).parent / "README.md").read_text("utf-8")
RunOf = Callable[[str], Any]
NO_ATTACK = "what no attack is: "


@dataclass(frozen=True)
class Row:
    """A line of a table; ``*`` in the name of an attack stands for any number or letter."""

    family: str
    name: str
    clause: str
    ends: frozenset[str]
    decrypted: int

    def fits(self, name: str) -> bool:
        return re.fullmatch(re.escape(self.name).replace(r"\*", r"\w+"), name) is not None


def rows() -> list[Row]:
    found, family = [], ""
    for line in PAGE.splitlines():
        if line.startswith("### "):
            family = line[4:]
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if family and len(cells) == 4 and cells[3].isdigit():
            name, clause, ends, count = cells
            found.append(Row(family, name, clause, frozenset(ends.split(", ")), int(count)))
    return found


ROWS = rows()
FAMILIES = list(dict.fromkeys(row.family for row in ROWS))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_process_lives_and_the_page_lists_all_of_it(family: str, run_of: RunOf) -> None:
    run = run_of(family)
    assert (run.code, run.died_in) == (0, ""), f"died in {run.died_in!r}: {run.said[-2000:]}"
    assert run.said == ""
    listed = [row for row in ROWS if row.family == family]
    for line in run.lines:
        fitting = [row for row in listed if row.fits(line.name) and row.clause == line.clause]
        assert len(fitting) == 1, line


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.family}: {row.name}")
def test_the_attack_ends_as_the_page_says(row: Row, run_of: RunOf) -> None:
    lines = [x for x in run_of(row.family).lines if row.fits(x.name) and row.clause == x.clause]
    assert {line.ended for line in lines} == row.ends
    assert {line.decrypted for line in lines} == {row.decrypted}


def test_refusals_are_named_and_what_is_taken_is_counted() -> None:
    named = {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, Exception)}
    assert {end for row in ROWS for end in row.ends} <= named | {"taken"}
    taken = {row.name for row in ROWS if "taken" in row.ends}
    assert all(row.ends == {"taken"} for row in ROWS if row.name in taken)
    harmless = {name for name in taken if not name.startswith(NO_ATTACK)}
    # README.md says of each why it is no loss, or whose loss it is.
    assert harmless == set(re.findall(r"^- `(.+?)`", PAGE, re.MULTILINE))
    for row in ROWS:
        assert row.name.startswith(NO_ATTACK) <= (row.ends == {"taken"})
        # Nothing that is refused for its form, its signatures or its time is decrypted.
        if row.ends & {"MalformedFrame", "Inconsistent", "BadSiteList", "WrongBinding"}:
            assert row.decrypted == 0, row


@pytest.mark.parametrize("family", ["tenseal"])
def test_a_crash_is_noticed_and_named(family: str, run_of: RunOf) -> None:
    """TenSEAL, given what ``forms`` sends, takes the process along."""
    run = run_of(family)
    assert run.code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
    assert run.died_in in {
        "TenSEAL adds a vector without ciphertexts",
        "TenSEAL shows what is behind a vector that claims more",
    }
