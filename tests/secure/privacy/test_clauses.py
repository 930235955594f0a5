"""docs/privacy.md and the code speak of the same clauses."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "privacy.md").read_text("utf-8")
CLAUSE = re.compile(r"\bDP-\d+\.\d+\b")
STATED = set(re.findall(r"\*\*(DP-\d+\.\d+)\b", PAGE))
NOT_IN_CODE = {
    "DP-2.7": "a limit",
    "DP-3.6": "what follows from the rest",
    "DP-5.8": "a summary of outcomes",
    "DP-5.9": "limits",
}
"""Clauses that no line of code can stand for, and why."""


def quoted() -> set[str]:
    folders = (ROOT / "fedbcs_secure", ROOT / "tests" / "secure")
    paths = (path for folder in folders for path in folder.rglob("*.py") if path != Path(__file__))
    return {clause for path in paths for clause in CLAUSE.findall(path.read_text("utf-8"))}


def test_quoted_clauses_exist() -> None:
    assert len(STATED) > 30
    assert quoted() <= STATED
    assert set(CLAUSE.findall(PAGE)) <= STATED


def test_every_clause_is_quoted_where_it_is_checked() -> None:
    assert STATED - quoted() == set(NOT_IN_CODE)
