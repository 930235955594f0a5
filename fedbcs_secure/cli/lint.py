"""``lint``: known privacy mistakes in a study and in a site's policy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

EPILOG = """
[bold]Examples[/]

fedbcs-secure lint study.toml

fedbcs-secure lint study.toml --site site.toml   # what this site would decline

fedbcs-secure lint --site site.toml

[bold]Exit code[/]

1 when something is wrong; what is merely weak is said.
"""


def lint(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY]", help="Study file.")] = None,
    site: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A site's file with its \\[policy] table.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check a study, a site's policy, or both for known privacy mistakes.

    Each comes with the reason and what to do. Reads these files only, no data.
    """
    if study is None and site is None:
        raise typer.BadParameter("give a study file, --site, or both")
    from fedbcs_secure.cli import options
    from fedbcs_secure.privacy.linter import Grade, lint_policy, lint_study
    from fedbcs_secure.privacy.policy import load_policy

    policy = None if site is None else load_policy(site)
    found = []
    if policy is not None:
        found += [(str(site), each) for each in lint_policy(policy)]
    if study is not None:
        document = options.study_and_settings(study, {})[0]
        found += [(str(study), each) for each in lint_study(document, policy)]
    if as_json:
        rows = [
            {"file": file, "grade": f.grade.value, "where": f.where, "why": f.why, "fix": f.fix}
            for file, f in found
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        console = Console(highlight=False)
        for file, each in found:
            colour = "bold red" if each.grade is Grade.WRONG else "yellow"
            console.print(
                f"[{colour}]{each.grade.value}[/]  {escape(file)}: {each.where}\n"
                f"  {escape(each.why)}\n  fix: {escape(each.fix)}",
                soft_wrap=True,
            )
        if not found:
            console.print("nothing known to be wrong")
    if any(each.grade is Grade.WRONG for _, each in found):
        raise typer.Exit(1)
