"""Draw the state machines into the specification, from the tables that the code runs on.

``PYTHONPATH=protocols python protocols/draw.py`` rewrites ``specs/secagg.md``;
with ``--check`` it only says whether the page is up to date (exit code 1 if it is not).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from fedbcs_protocols.secagg import states

PAGE = Path(__file__).resolve().parent / "specs" / "secagg.md"
TABLES: Mapping[str, Mapping[tuple[Enum, Enum], Enum]] = {
    "site": states.SITE,
    "combiner": states.COMBINER,
}


def diagram(table: Mapping[tuple[Enum, Enum], Enum]) -> str:
    """A Mermaid state diagram with an arrow for each entry; what has no arrow is refused."""
    reached = {to for (state, _), to in table.items() if state is not to}
    leaving = {state for state, _ in table}
    every = list(type(next(iter(leaving))))
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {state.name}" for state in every if state not in reached]
    for (state, event), to in table.items():
        lines.append(f"    {state.name} --> {to.name}: {event.name}")
    lines += [f"    {state.name} --> [*]" for state in every if state not in leaving]
    return "\n".join([*lines, "```"])


def drawn(page: str) -> str:
    """The page with every diagram as its table has it."""
    for name, table in TABLES.items():
        marks = re.compile(rf"(<!-- {name} machine -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = marks.subn(lambda m, t=table: f"{m[1]}{diagram(t)}\n{m[2]}", page)
        if count != 1:
            raise SystemExit(f"{PAGE.name} must have one place for the {name} machine")
    return page


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true", help="change nothing")
    arguments = options.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if drawn(page) == page:
        return
    if arguments.check:
        sys.exit(f"{PAGE.name} is not up to date: run protocols/draw.py")
    PAGE.write_text(drawn(page), encoding="utf-8")


if __name__ == "__main__":
    main()
