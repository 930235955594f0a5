"""The pages in protocols/specs and the code speak of the same clauses."""

from __future__ import annotations

import re
from pathlib import Path

PROTOCOLS = Path(__file__).parents[2] / "protocols"
CLAUSE = re.compile(r"\b(?:SA|WI|CO|RO)-\d+\.\d+")


def _clauses(folder: Path, suffix: str) -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob(f"*{suffix}"))
    return {clause for text in texts for clause in CLAUSE.findall(text)}


def test_code_quotes_clauses_that_exist() -> None:
    stated = {
        clause
        for page in (PROTOCOLS / "specs").glob("*.md")
        for clause in re.findall(r"\*\*((?:SA|WI|CO|RO)-\d+\.\d+)\*\*", page.read_text("utf-8"))
    }
    quoted = _clauses(PROTOCOLS / "fedbcs_protocols", ".py")
    quoted |= _clauses(PROTOCOLS.parent / "fedbcs_secure" / "federation", ".py")
    assert any(clause.startswith("RO") for clause in quoted)
    assert len(stated) > 30
    assert quoted <= stated


UNCHECKED = {
    "SA-10.1": "not defended",
    "SA-10.2": "not defended",
    "SA-10.3": "not defended",
    "SA-10.4": "for people",
}
"""Clauses that no line of code can stand for, and why."""


def test_checks_of_the_protected_sum_are_quoted() -> None:
    quoted = _clauses(PROTOCOLS / "fedbcs_protocols" / "secagg", ".py")
    quoted |= _clauses(PROTOCOLS.parent / "fedbcs_secure" / "federation", ".py")
    stated = set(CLAUSE.findall((PROTOCOLS / "specs" / "secagg.md").read_text("utf-8")))
    stated = {clause for clause in stated if clause.startswith("SA-")}
    assert stated - quoted == set(UNCHECKED)
