"""``plan``: what a study would cost its patients, before any data is touched."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedbcs_secure.errors import PrivacyError

if TYPE_CHECKING:
    from fedbcs_secure.privacy.planner import Plan, Planned

EPILOG = """
[bold]Examples[/]

fedbcs-secure plan --patients 60 --rounds 20 --epsilon 8   # noise for a target

fedbcs-secure plan --patients 60 --rounds 20 --noise 1.5   # what that noise costs

fedbcs-secure plan --patients 300 --prototype-noise 16 --sites 5 --shared --epsilon 4

fedbcs-secure plan --patients 60 --table 1,2,4,8 --plot plan.png

[bold]Exit code[/]

1 when no noise keeps the target, with the reason; 2 for impossible numbers.
"""


def plan(
    patients: Annotated[
        int, typer.Option(metavar="N", help="Training patients of the smallest site.")
    ],
    rounds: Annotated[int, typer.Option(help="Rounds of the study.")] = 20,
    epsilon: Annotated[
        float | None, typer.Option(metavar="E", help="Target: find the least noise that keeps it.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(metavar="S", help="Noise multiplier of training: find what it costs."),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="[dim](1/(100 patients), rounded down to one digit)[/]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps a round. [dim](1/rate: each patient once)[/]")
    ] = None,
    rate: Annotated[float, typer.Option(help="Chance of a patient to be in a step.")] = 0.2,
    prototype_noise: Annotated[
        float | None,
        typer.Option(metavar="S", help="Noise multiplier of a prototype release. [dim](none)[/]"),
    ] = None,
    prototypes_every: Annotated[
        int, typer.Option(metavar="K", help="Rounds from one prototype release to the next.")
    ] = 5,
    width: Annotated[int, typer.Option(help="Fused width (a prototype has 3 x that).")] = 16,
    classes: Annotated[int, typer.Option(help="Classes, background included.")] = 2,
    sites: Annotated[int, typer.Option(help="Sites in the study.")] = 3,
    shared: Annotated[
        bool, typer.Option("--shared", help="The sites' noise on prototypes counts together.")
    ] = False,
    colluders: Annotated[
        int | None,
        typer.Option(help="With --shared: sites that may tell their noise. [dim](a fifth)[/]"),
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option(help="With --shared: sites that a sum needs. [dim](as in a study)[/]"),
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="E,E,…", help="A row for each of these epsilons.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw noise and prototypes over epsilon.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Plan the privacy of a study: noise, epsilon, and what is left of the prototypes.

    Computes from the numbers given here alone; no data is touched.
    The figures hold for each site by itself: what its messages show about
    any one of its patients.
    """
    if (epsilon is None) + (noise is None) + (table is None) != 2:
        raise typer.BadParameter("give one of --epsilon, --noise and --table")
    targets = _targets(table) if table is not None else ()
    from fedbcs_secure.privacy import planner
    from fedbcs_secure.privacy.calibration import MAX_EPSILON, MAX_NOISE, MIN_EPSILON

    for target in targets if epsilon is None else (epsilon,):
        if not MIN_EPSILON <= target <= MAX_EPSILON:
            raise typer.BadParameter(f"epsilon is from {MIN_EPSILON:g} to {MAX_EPSILON:g}")
    if noise is not None and not 0 <= noise <= MAX_NOISE:
        raise typer.BadParameter(f"noise is from 0 to {MAX_NOISE:g}")
    try:
        planned = planner.Plan(
            patients=patients,
            rounds=rounds,
            sampling_rate=rate,
            steps_per_round=steps,
            delta=delta,
            prototype_noise=prototype_noise,
            prototypes_every=prototypes_every,
            fused_width=width,
            classes=classes,
            sites=sites,
            noise="shared" if shared else "site",
            colluders=colluders,
            threshold=threshold,
        )
    except PrivacyError as error:
        raise typer.BadParameter(str(error)) from None
    if noise is not None:
        rows = [planner.with_noise(planned, noise)]
    else:
        rows = [planner.with_target(planned, e) for e in (targets or (epsilon or 0.0,))]
    if plot is not None:
        _draw(planned, rows, plot)
    if as_json:
        found = [_as_dict(row) for row in rows]
        sys.stdout.write(json.dumps(found if targets else found[0], allow_nan=False) + "\n")
        return
    console = Console(highlight=False)
    if targets:
        _show_table(rows, console)
    else:
        _show(rows[0], console)
    if plot is not None:
        console.print(f"plot: {plot}", soft_wrap=True, markup=False)


def _targets(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--table: numbers with commas between, not {text!r}") from None


def _finite(value: float | None) -> float | None:
    """JSON has no infinity; it is written as null."""
    return None if value is None or value == float("inf") else value


def _as_dict(row: Planned) -> dict[str, object]:
    p = row.plan
    return {
        "unit": "patient",
        "neighbours": "add or remove one",
        "patients": p.patients,
        "rounds": p.rounds,
        "steps_per_round": p.steps,
        "sampling_rate": p.sampling_rate,
        "delta": p.stated_delta,
        "noise_multiplier": row.noise_multiplier,
        "private": row.events.private,
        "epsilon": _finite(row.figures.epsilon_pld),
        "epsilon_pld": _finite(row.figures.epsilon_pld),
        "epsilon_prv": _finite(row.figures.epsilon_prv),
        "epsilon_rdp": _finite(row.figures.epsilon_rdp),
        "epsilon_training": _finite(row.epsilon_training),
        "epsilon_prototypes": _finite(row.epsilon_prototypes),
        "epsilon_own_noise": _finite(row.epsilon_own_noise),
        "prototype_releases": p.releases,
        "prototype_noise": p.prototype_noise,
        "prototype_cosine_site": row.cosine_site,
        "prototype_cosine_sum": row.cosine_sum,
        "noise": p.noise,
        "sites": p.sites,
        "events": row.events.encode(),
        "warnings": list(row.warnings),
    }


def _show(row: Planned, console: Console) -> None:
    from fedbcs_secure.privacy.accountant import shown
    from fedbcs_secure.privacy.calibration import rounded_up

    p, f = row.plan, row.figures
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    grid.add_row(
        "noise multiplier", f"{rounded_up(row.noise_multiplier):g} times the clip, in each step"
    )
    prv = "none" if f.epsilon_prv is None else shown(f.epsilon_prv)
    grid.add_row(
        "epsilon",
        f"[bold]{shown(f.epsilon_pld)}[/] at delta {p.stated_delta:g} "
        f"[dim](cross-checks: PRV {prv}, RDP {shown(f.epsilon_rdp)})[/]",
    )
    expected = p.sampling_rate * p.patients
    grid.add_row(
        "  training",
        f"{shown(row.epsilon_training)} for {p.rounds} rounds of {p.steps} steps, "
        f"{expected:.3g} of {p.patients} patients a step",
    )
    if p.releases:
        grid.add_row(
            "  prototypes",
            f"{shown(row.epsilon_prototypes)} for {p.releases} releases with noise "
            f"{p.prototype_noise:g}" + (" shared by the sites" if p.noise == "shared" else ""),
        )
        grid.add_row(
            "prototype quality",
            f"cosine to the true ones {row.cosine_sum:.2f} over {p.sites} sites, "
            f"{row.cosine_site:.2f} for one site alone",
        )
    else:
        grid.add_row("  prototypes", "not sent")
    console.print(grid)
    console.print(f"\n[dim]{_meaning(row)}[/]")
    for text in row.warnings:
        console.print(f"[yellow]warning:[/] {text}")


def _meaning(row: Planned) -> str:
    """The promise in words, for who has to answer for it."""
    from fedbcs_secure.privacy.accountant import shown

    found = row.figures.epsilon_pld
    if found == float("inf"):
        return "Nothing is promised: without noise a message may show everything about a patient."
    times = math.exp(min(float(shown(found)), 700))
    factor = f"{times:.3g}" if times < 1000 else f"{times:,.0f}" if times < 1e6 else f"{times:.0e}"
    return (
        f"Take one patient, with all images, out of a site's {row.plan.patients}, or add one: the "
        "chance of anything that anybody sees or concludes changes by a factor of at most "
        f"e^{shown(found)}, about {factor}, but for a chance of {row.plan.stated_delta:g}. That is "
        "for one site and this study; other studies with the same patients add to it."
    )


def _show_table(rows: list[Planned], console: Console) -> None:
    from fedbcs_secure.privacy.accountant import shown
    from fedbcs_secure.privacy.calibration import rounded_up

    p = rows[0].plan
    title = (
        f"{p.patients} patients a site, {p.rounds} rounds of {p.steps} steps, "
        f"rate {p.sampling_rate:g}, delta {p.stated_delta:g}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False)
    for head in ("epsilon", "noise", "PRV", "RDP", "training", "prototypes", "cosine"):
        table.add_column(head, justify="right")
    for row in rows:
        prv = row.figures.epsilon_prv
        table.add_row(
            shown(row.figures.epsilon_pld),
            f"{rounded_up(row.noise_multiplier):g}",
            "–" if prv is None else shown(prv),
            shown(row.figures.epsilon_rdp),
            shown(row.epsilon_training),
            shown(row.epsilon_prototypes) if p.releases else "–",
            "–" if row.cosine_sum is None else f"{row.cosine_sum:.2f}",
        )
    console.print(table)
    console.print(
        "[dim]Unit: one patient with all images, added or removed; for each site by itself.\n"
        "PRV and RDP check the epsilon. Cosine: of noisy and true prototypes, over all sites.[/]"
    )
    for text in dict.fromkeys(text for row in rows for text in row.warnings):
        console.print(f"[yellow]warning:[/] {text}")


def _draw(planned: Plan, rows: list[Planned], path: Path) -> None:
    """Noise over epsilon, and prototypes over what they cost, as a picture."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    from fedbcs_secure.privacy import planner
    from fedbcs_secure.privacy.accountant import epsilon
    from fedbcs_secure.privacy.events import Gaussian

    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    delta, accent = planned.stated_delta, "#d1495b"
    points = [(row.figures.epsilon_pld, row.noise_multiplier) for row in rows]
    points = [(x, y) for x, y in points if 0 < x < math.inf]
    sides = np.array([(0.5, 0.6), (16.0, 16.0), *points])
    noises = np.geomspace(sides[:, 1].min() / 2, sides[:, 1].max() * 2, 32)
    costs = [epsilon(planned.training(s) + planned.prototypes(), delta) for s in noises]
    left.plot(costs, noises, color="#1b6ca8", linewidth=2)
    for point in points:
        left.plot(*point, "o", color=accent, zorder=3)
        text = f"ε {point[0]:.3g}, σ {point[1]:.3g}"
        left.annotate(text, point, (8, 6), textcoords="offset points", color=accent, fontsize=8.5)
    left.set(xscale="log", yscale="log", xlabel=f"epsilon of the study at delta {delta:g}")
    left.set(xlim=(sides[:, 0].min() / 2, sides[:, 0].max() * 2))
    left.set(ylim=(noises[0], noises[-1]), ylabel="noise multiplier of training")
    steps = f"{planned.rounds} × {planned.steps} steps, rate {planned.sampling_rate:g}"
    left.set_title(f"{planned.patients} patients a site, {steps}", loc="left", fontsize=10)

    amounts = [float(amount) for amount in np.geomspace(0.3, 100, 48)]
    releases = replace(planned, prototype_noise=1.0).releases or 1
    x = [epsilon(Gaussian(amount).times(releases), delta) for amount in amounts]
    for width, shade in ((4, "#9ecae1"), (16, "#4292c6"), (64, "#2171b5"), (256, "#08306b")):
        plans = [replace(planned, prototype_noise=amount, fused_width=width) for amount in amounts]
        y = [planner.cosine(each, planned.sites) for each in plans]
        right.plot(x, y, color=shade, linewidth=2, label=f"fused width {width}")
    if rows[0].cosine_sum is not None:
        at = (rows[0].epsilon_prototypes, rows[0].cosine_sum)
        right.plot(*at, "o", color=accent, zorder=3, label="this plan", clip_on=False)
    right.axhline(planner.USEFUL_COSINE, color="#444444", linewidth=0.8, linestyle=":")
    right.text(29, planner.USEFUL_COSINE + 0.01, "mostly noise below", ha="right", fontsize=8)
    right.set(xscale="log", xlim=(0.1, 30), ylim=(0, 1.02))
    said = "the prototype release" if releases == 1 else f"{releases} prototype releases"
    right.set(xlabel=f"epsilon of {said} alone")
    right.set(ylabel="expected cosine to the true prototypes")
    whose = f"{planned.shares} sites" if planned.noise == "shared" else "each site alone"
    title = f"{planned.sites} sites; the noise of {whose} counts"
    right.set_title(title, loc="left", fontsize=10)
    right.legend(frameon=False, fontsize=8.5, loc="lower right")
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    for axes in (left, right):
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
