"""``doctor``: everything that is wrong with a data set, at once, before any training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedbcs_secure.cli import options as o

EPILOG = """
[bold]Examples[/]

fedbcs-secure doctor --data manifest.csv

fedbcs-secure doctor --data prostate/ --study study.toml --sheet contact.png
"""


def doctor(
    data: Annotated[
        str,
        typer.Option(metavar="PATH|synthetic-mri|synthetic-he", help="The data set to check."),
    ],
    study: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check against this study's data contract.")
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="PX", help="Image side.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3.")] = None,
    fold: Annotated[int | None, typer.Option(help="Fold of the paper's data layouts.")] = None,
    sheet: Annotated[
        Path, typer.Option(metavar="PNG", help="Contact sheet with label outlines.")
    ] = Path("contact-sheet.png"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check a data set: every problem in one list, counts, and a contact sheet to look at.

    Reads files only; nothing leaves the machine. Exit code 1 when there is a problem.
    """
    flags = {"size": size, "channels": channels, "fold": fold}
    document, settings = o.study_and_settings(study, flags)
    from fedbcs_secure.data.check import check
    from fedbcs_secure.data.pictures import contact_sheet

    err = Console(stderr=True, highlight=False)
    with err.status(f"checking {data} …") as status:
        report = check(
            data,
            document.data,
            seed=document.seed,
            fold=settings.fold,
            progress=lambda done, total: status.update(f"checking {data} … {done}/{total}"),
        )
    written = None
    if report.dataset is not None:
        contact_sheet(report.dataset, sheet)
        written = str(sheet)
    if as_json:
        sys.stdout.write(json.dumps(report.to_dict() | {"contact_sheet": written}) + "\n")
    else:
        _show(report, Console(highlight=False), written)
    if not report.ok:
        raise typer.Exit(1)
