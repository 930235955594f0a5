"""Running a simulation in front of a person: progress, Ctrl-C, the table at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from fedbcs_secure.cli.progress import RunDisplay, duration
from fedbcs_secure.errors import RoundError, RunFolderError
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.sections import DataContract
from fedbcs_secure.study import Study

INTERRUPTED = 130


def default_out(study: Study) -> Path:
    """``runs/<method>-<date>-<time>``, with a number behind it if that exists."""
    stem = f"{study.method}-{datetime.now():%Y%m%d-%H%M%S}"
    candidate, number = Path("runs") / stem, 1
    while candidate.exists():
        number += 1
        candidate = Path("runs") / f"{stem}-{number}"
    return candidate


def execute(
    study: Study,
    settings: SimulationSettings,
    *,
    resume: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Load data, run, show; returns the summary and the run folder.

    On Ctrl-C says how to go on and exits with 130.
    """
    console = Console(stderr=as_json or not sys.stdout.isatty(), quiet=quiet, highlight=False)
    with console.status("loading PyTorch …"):
        from fedbcs_protocols.ckks import check_build
        from fedbcs_secure.federation.runfolder import RunFolder
        from fedbcs_secure.federation.scratch import ScratchFile
        from fedbcs_secure.federation.simulation import (
            Simulation,
            check_dataset,
            data_digest,
            drops_of,
            with_roster,
        )
        from fedbcs_secure.federation.starting import given_weights, keep, naming
        from fedbcs_secure.learning.device import set_threads
        from fedbcs_secure.learning.learner import Learner
    if resume is None:
        contract = fitting_contract(settings.data, study.data)
        study = study.model_copy(update={"data": contract}).resolved()
    with console.status(f"reading {settings.data} …") as status:
        unread: list[str] = []
        dataset = _read(study, settings, status.update, unread)
    for problem in unread:
        console.print(f"[yellow]left out:[/] {problem}", soft_wrap=True)
    check_dataset(study, dataset)
    digest = data_digest(dataset)
    if resume is None:
        out = Path(settings.out) if settings.out else default_out(study)
        study = with_roster(study, dataset)
        drops_of(study, settings)
        if study.federated and study.protection == "ckks":
            # Before there is a run folder: not every system can encrypt.
            check_build(ScratchFile())
        settings = settings.model_copy(
            update={
                "data": _absolute(settings.data),
                "threads": set_threads(settings.threads),
                "data_digest": digest,
            }
        )
        with console.status("preparing …") as status:
            weights = given_weights(
                study,
                settings,
                lambda done, total: status.update(
                    f"pre-training on the public synthetic set: epoch {done} of {total}"
                ),
            )
        study = naming(study, weights)
        folder = RunFolder.create(out, study, settings)
        keep(folder.path, study, weights)
    else:
        folder = RunFolder.open(resume)
        if folder.finished:
            raise RunFolderError(f"{resume} is finished; its summary.json has the result")
        set_threads(settings.threads)
        if settings.data_digest != digest:
            raise RunFolderError(
                f"{settings.data} is not what the run started with: images, labels, sites or "
                "splits changed; restore the data, or start anew with another --out"
            )
    learner = Learner(study, settings.device, settings.precision)
    if study.alignment.prototypes == "finch" and study.alignment.form != "off":
        console.print(
            "[yellow]note:[/] FINCH shows every site's prototypes to the server, and its authors "
            "exclude commercial use of their method; this is a research mode."
        )
    if study.federated and study.protection == "ckks":
        console.print(
            "[yellow]note:[/] under ckks all sites share one key: a server that works with one "
            "site reads every site. secagg has no such key."
        )
    _advise(study, settings, console)
    first = folder.completed()
    sharing = "no exchange"
    if study.federated:
        checked = " verified" if study.group_key and study.protection == "secagg" else ""
        stay = f"{study.threshold} of {len(dataset.sites)} sites must stay"
        sharing = f"{study.protection}{checked}, {stay}"
    private = f"private, by the {study.privacy.unit} · " if study.privacy is not None else ""
    title = (
        f"{study.method} · {sharing} · {private}"
        f"{len(dataset.sites)} sites · {learner.parameters:,} parameters · {learner.runtime}"
    )
    console.print(f"[bold]{title}[/]\nwriting to {folder.path}", soft_wrap=True)
    try:
        with RunDisplay(console, dataset.sites, first_round=first) as display:
            summary = Simulation(study, settings, dataset, folder, learner, display).run()
    except KeyboardInterrupt:
        done = folder.completed()
        Console(stderr=True, highlight=False).print(
            f"\ninterrupted; {done} of {study.rounds} rounds are kept. Go on with:\n"
            f"  fedbcs-secure simulate --resume {folder.path}",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    except RoundError as error:
        done = folder.completed()
        how, because = "", ""
        if settings.drop:
            because = " Sites left because of --drop; fewer may leave, or more sites take part."
            how = " --drop none"
        raise RoundError(
            f"{error}.{because}\n{done} of {study.rounds} rounds are kept in {folder.path}; this "
            "simulation plays all sites and can start the round anew:\n"
            f"  fedbcs-secure simulate --resume {folder.path}{how}"
        ) from None
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        show(summary, Console(quiet=quiet, highlight=False))
        drawn = " and overlays (label green, prediction orange)" if settings.overlays else ""
        console.print(f"model, curves{drawn}: {folder.path}", soft_wrap=True)
    return summary, folder.path


def _advise(study: Study, settings: SimulationSettings, console: Console) -> None:
    """What a person may not expect of this study."""
    from fedbcs_secure.federation.starting import is_public

    start = settings.init
    if study.privacy is not None and start is not None and not is_public(start):
        console.print(
            f"[yellow]note:[/] whoever's images {start} was trained on, no ledger of this study "
            "counts them (DP-3.7).",
            soft_wrap=True,
        )
    warmup = study.alignment.warmup_rounds or 0
    if study.alignment.form != "off" and study.rounds <= warmup:
        console.print(
            f"[yellow]note:[/] alignment starts after {warmup} rounds (warmup_rounds), so "
            f"in {study.rounds} it does nothing."
        )


def fitting_contract(source: str, contract: DataContract) -> DataContract:
    """``contract`` with what the source's layout calls for, where it still has the default.

    A setting that differs from the default stays, and loading says what does not fit.
    """
    from fedbcs_secure.data.sources import contract_for

    default, fitted = DataContract(), contract_for(source, contract)
    changes = {
        name: getattr(fitted, name)
        for name in DataContract.model_fields
        if getattr(contract, name) == getattr(default, name)
    }
    return contract.model_copy(update=changes)


def _read(study: Study, settings: SimulationSettings, say: Any, unread: list[str]) -> Any:
    """The data; under differential privacy what cannot be read is left out, and listed."""
    from fedbcs_secure.data import sources

    return sources.load(
        settings.data,
        study.data,
        seed=study.seed,
        fold=settings.fold,
        patients=settings.patients,
        slices=settings.slices,
        severity=settings.severity,
        sites=settings.sites,
        progress=lambda done, total: say(f"reading {settings.data} … {done}/{total}"),
        unread=None if study.privacy is None else unread.append,
        by_image=study.privacy is not None and study.privacy.unit == "slice",
    )


def _absolute(source: str) -> str:
    """``source`` so that the run can be resumed from another folder."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def make_folder(path: Path) -> None:
    """Create a folder for results before long work starts.

    Raises :class:`RunFolderError` when that cannot be done.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write to {path}: {error.strerror}") from None


def names_of(sites: str | None) -> tuple[str, ...]:
    """``A, B,C`` as a tuple of names."""
    return tuple(name.strip() for name in (sites or "").split(",") if name.strip())


def number(value: float | None, digits: int) -> str:
    """A figure for a table; ``-`` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def sites_table(sites: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """A row a site, then the worst and the mean."""
    units = {row["unit"] for row in sites.values()}
    unit = units.pop() if len(units) == 1 else "px or mm"
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False)
    table.add_column("site", style="bold")
    for head in ("patients", "Dice", f"HD95 ({unit})", f"ASSD ({unit})"):
        table.add_column(head, justify="right")
    for site, row in sites.items():
        table.add_row(
            site,
            str(row["patients"]),
            number(row["dice"], 3),
            number(row["hd95"], 2),
            number(row["assd"], 2),
        )
    table.add_section()
    worst = min(sites, key=lambda s: sites[s]["dice"])
    table.add_row(f"worst ({worst})", "", number(sites[worst]["dice"], 3), "", "")
    means = {key: _mean([row[key] for row in sites.values()]) for key in ("dice", "hd95", "assd")}
    if unit not in ("px", "mm"):
        # Pixels and millimetres have no mean.
        means["hd95"] = means["assd"] = None
    table.add_row(
        "mean", "", number(means["dice"], 3), number(means["hd95"], 2), number(means["assd"], 2)
    )
    return table


def _privacy_line(sites: Mapping[str, Mapping[str, Any]]) -> str:
    """What the sites' ledgers say, for the site that spent most."""
    spent = [row["privacy"] for row in sites.values() if "privacy" in row]
    if not spent:
        return ""
    from fedbcs_secure.privacy.accountant import shown

    worst = max(spent, key=lambda said: said["epsilon"])
    unit = worst["unit"]
    weaker = " (weaker than patient)" if unit == "slice" else ""
    line = (
        f"differential privacy: epsilon {shown(worst['epsilon'])} at delta {worst['delta']:g} for "
        f"each {unit}{weaker} of a site, noise multiplier {worst['noise_multiplier']:g}"
    )
    if worst["local_epsilon"] > worst["epsilon"]:
        line += f"; {shown(worst['local_epsilon'])} if no other site adds noise"
    return line


def show(summary: Mapping[str, Any], console: Console) -> None:
    """The table of a finished run and its costs."""
    title = f"Test set · {summary['method']} · {summary['protection']} · seed {summary['seed']}"
    console.print()
    console.print(sites_table(summary["sites"], title))
    if line := _privacy_line(summary["sites"]):
        console.print(f"\n{line}", soft_wrap=True)
    costs = [f"{duration(summary['seconds_per_round'])} a round"]
    if summary["bytes_up_per_parameter"]:
        costs.append(f"{summary['bytes_up_per_parameter']:.2f} bytes up a parameter")
    missed = {site: n for site, n in summary.get("rounds_missed", {}).items() if n}
    if missed:
        named = ", ".join(f"{site} in {count}" for site, count in missed.items())
        costs.append(f"not in the sum: {named} of {summary['rounds']} rounds")
    costs.append(f"peak memory {number(summary['peak_memory_mb'], 0)} MB")
    costs.append(f"model {summary['model_sha256'][:16]}…")
    console.print("\n" + " · ".join(costs), soft_wrap=True)
