"""``doctor``: everything that is wrong with a data set, at once, before any training."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedbcs_secure.cli import options as o
from fedbcs_secure.errors import DataError

if TYPE_CHECKING:
    from fedbcs_secure.data.check import Report
    from fedbcs_secure.data.records import Split
    from fedbcs_secure.study import Study

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
    from fedbcs_secure.cli.session import fitting_contract
    from fedbcs_secure.data.check import check
    from fedbcs_secure.data.pictures import contact_sheet

    err = Console(stderr=True, highlight=False)
    contract = document.data
    with err.status(f"checking {data} …") as status:
        # What is no source at all, `check` says in its report.
        with contextlib.suppress(DataError):
            contract = fitting_contract(data, contract)
        report = check(
            data,
            contract,
            seed=document.seed,
            fold=settings.fold,
            progress=lambda done, total: status.update(f"checking {data} … {done}/{total}"),
        )
    report = _too_few_sites(report, document)
    written = None
    if report.preview is not None:
        captions = {site.site: _counts(site.patients) for site in report.sites}
        stacked = contract.volume == "stack3"
        contact_sheet(report.preview, sheet, stacked=stacked, captions=captions)
        written = str(sheet)
    if as_json:
        sys.stdout.write(json.dumps(_as_dict(report) | {"contact_sheet": written}) + "\n")
    else:
        _show(report, Console(highlight=False), written)
    if not report.ok:
        raise typer.Exit(1)


def _too_few_sites(report: Report, study: Study) -> Report:
    """A warning where only methods without exchange can train on these sites."""
    if not report.sites or len(report.sites) >= study.min_sites:
        return report
    warning = (
        f"{len(report.sites)} site(s), and a protected sum needs {study.min_sites}: this set alone "
        "trains only with --method local or pooled"
    )
    return replace(report, warnings=(*report.warnings, warning))


def _counts(by_split: Mapping[Split, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in by_split.items() if count) or "none"


def _as_dict(report: Report) -> dict[str, object]:
    return {
        "source": report.source,
        "kind": report.kind,
        "ok": report.ok,
        "problems": list(report.problems),
        "warnings": list(report.warnings),
        "notes": list(report.notes),
        "sites": {
            site.site: {
                "patients": dict(site.patients),
                "slices": dict(site.slices),
                "sizes": dict(site.sizes),
                "class_shares": list(site.class_shares),
                "spacing_mm": site.spacing_mm,
            }
            for site in report.sites
        },
    }


def _show(report: Report, console: Console, sheet: str | None) -> None:
    if report.sites:
        title = f"{report.source} ({report.kind})"
        table = Table(title=title, title_justify="left", title_style="bold", show_edge=False)
        table.add_column("site", style="bold")
        for head in ("patients", "slices", "sizes (h x w x c)", "label share"):
            table.add_column(head, justify="right" if head == "slices" else "left")
        for site in report.sites:
            sizes = ", ".join(f"{size}: {count}" for size, count in list(site.sizes.items())[:3])
            more = f", {len(site.sizes) - 3} more" if len(site.sizes) > 3 else ""
            shares = " / ".join(f"{100 * share:.1f} %" for share in site.class_shares[1:])
            slices = str(sum(site.slices.values()))
            table.add_row(site.site, _counts(site.patients), slices, sizes + more, shares)
        console.print(table)
    for style, head, texts in (
        ("bold red", "problem", report.problems),
        ("yellow", "warning", report.warnings),
        ("dim", "note", report.notes),
    ):
        for text in texts:
            console.print(f"[{style}]{head}:[/] {escape(text)}", soft_wrap=True)
    if sheet is not None:
        console.print(f"contact sheet: {sheet}", soft_wrap=True)
    verdict = f"[bold red]{len(report.problems)} problem(s)[/]: this data set will not load"
    if report.ok:
        verdict = "[bold green]no problems[/]: this data set loads"
    console.print(verdict + (f" · {len(report.warnings)} warning(s)" if report.warnings else ""))
