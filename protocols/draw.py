"""Draw the state machines into the specifications, from the tables that the code runs on.

``PYTHONPATH=protocols python protocols/draw.py`` rewrites ``specs/secagg.md`` and
``specs/ckks.md``; with ``--check`` it only says whether the pages are up to date (exit code 1 if
one is not).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from fedbcs_protocols.ckks import states as ckks
from fedbcs_protocols.secagg import states as secagg

Table = Mapping[tuple[Enum, Enum], Enum]

SPECS = Path(__file__).resolve().parent / "specs"
PAGES: Mapping[str, Mapping[str, Table]] = {
    "secagg.md": {"site": secagg.SITE, "combiner": secagg.COMBINER},
    "ckks.md": {"ckks site": ckks.SITE, "ckks combiner": ckks.COMBINER},
}
"""The machines of each page, by the names of their places in it."""


def diagram(table: Table) -> str:
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


def drawn(name: str) -> str:
    """The page with every diagram as its table has it."""
    page = (SPECS / name).read_text(encoding="utf-8")
    for machine, table in PAGES[name].items():
        marks = re.compile(rf"(<!-- {machine} machine -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = marks.subn(lambda m, t=table: f"{m[1]}{diagram(t)}\n{m[2]}", page)
        if count != 1:
            raise SystemExit(f"{name} must have one place for the {machine} machine")
    return page


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true", help="change nothing")
    arguments = options.parse_args()
    for name in PAGES:
        page = drawn(name)
        if page == (SPECS / name).read_text(encoding="utf-8"):
            continue
        if arguments.check:
            sys.exit(f"{name} is not up to date: run protocols/draw.py")
        (SPECS / name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
