"""The pages in protocols/specs and the code speak of the same clauses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "protocols" / "fedbcs_protocols"
FEDERATION = ROOT / "fedbcs_secure" / "federation"
TESTS = ROOT / "tests" / "protocols"
PAGES = {
    page.read_text("utf-8")[2:4]: page for page in sorted((ROOT / "protocols/specs").glob("*.md"))
}
"""The pages by the two letters with which their titles, and their clauses, begin."""
CLAUSE = re.compile(r"\b[A-Z]{2}-\d+\.\d+\b")


def _quoted(folders: Iterable[Path]) -> set[str]:
    paths = (path for folder in folders for path in [folder, *folder.rglob("*.py")])
    texts = (p.read_text("utf-8") for p in paths if p.is_file() and p.name != Path(__file__).name)
    return {clause for text in texts for clause in CLAUSE.findall(text)}


def _stated(letters: str) -> set[str]:
    return set(re.findall(rf"\*\*({letters}-\d+\.\d+)\*\*", PAGES[letters].read_text("utf-8")))


def test_quoted_clauses_exist() -> None:
    stated = {clause for letters in PAGES for clause in _stated(letters)}
    assert len(stated) > 30
    assert {"SA", "WI", "CO", "RO", "VS", "GK", "CK"} <= set(PAGES)
    quoted = _quoted([PACKAGE, FEDERATION, TESTS])
    assert any(clause.startswith("RO") for clause in quoted)
    # DP are those of docs/privacy.md, with a test of their own.
    assert {clause for clause in quoted if not clause.startswith("DP")} <= stated


@pytest.mark.parametrize("letters", sorted(PAGES))
def test_pages_quote_clauses_that_exist(letters: str) -> None:
    stated = {clause for other in PAGES for clause in _stated(other)}
    assert set(CLAUSE.findall(PAGES[letters].read_text("utf-8"))) <= stated


CHECKED_BY = {
    "SA": [PACKAGE / "secagg", PACKAGE / "exchange.py", PACKAGE / "framelist.py", FEDERATION],
    "VS": [PACKAGE, FEDERATION, TESTS],
    "GK": [PACKAGE, FEDERATION, TESTS],
    "CK": [PACKAGE, FEDERATION, TESTS],
}
"""Where each clause of a page must be quoted."""

UNCHECKED = {
    "SA-10.1": "not defended",
    "SA-10.2": "not defended",
    "SA-10.3": "not defended",
    "SA-10.4": "for people",
    "VS-4.5": "not defended",
    "GK-7.2": "not defended; who is in a roster is for people",
    "GK-7.4": "not defended",
    "CK-6.4": "not defended",
    "CK-6.5": "RO-6 has the sealing; publishing is for people",
}
"""Clauses that no line of code can stand for, and why."""


@pytest.mark.parametrize("letters", sorted(CHECKED_BY))
def test_every_clause_is_checked(letters: str) -> None:
    unchecked = {clause for clause in UNCHECKED if clause.startswith(letters)}
    assert _stated(letters) - _quoted(CHECKED_BY[letters]) == unchecked
