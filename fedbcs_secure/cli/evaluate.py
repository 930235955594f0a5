"""``evaluate``: a model file against any data set."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedbcs_secure.cli import options as o
from fedbcs_secure.cli.session import names_of, sites_table
from fedbcs_secure.errors import DataError

EPILOG = """
[bold]Examples[/]

fedbcs-secure evaluate --model runs/fedbcs/model.safetensors --data nuclei/manifest.csv

fedbcs-secure evaluate --model model.safetensors --data other-hospital/ --split all --json
"""


class SplitChoice(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


def evaluate(
    model: Annotated[Path, typer.Option(metavar="FILE", help="model.safetensors of a run.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH|synthetic-mri|synthetic-he",
            help="Any data set; its sites need not have taken part.",
        ),
    ],
    split: Annotated[
        SplitChoice, typer.Option(help="Which patients; `all` for a site that took no part.")
    ] = SplitChoice.test,
    sites: Annotated[str | None, typer.Option(metavar="A,B,…", help="Only these sites.")] = None,
    as_site: Annotated[
        str | None,
        typer.Option(metavar="SITE", help="For method local: use this site's model everywhere."),
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Fold of the paper's data layouts.")] = None,
    patients: Annotated[int, typer.Option(help="Synthetic patients a site.")] = 20,
    slices: Annotated[int, typer.Option(help="Slices a synthetic patient.")] = 4,
    severity: Annotated[float | None, typer.Option(help="Of synthetic scanners, 0-1.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of splits and synthetic data. [dim](the model's study)[/]")
    ] = None,
    device: Annotated[o.Device, typer.Option()] = o.Device.auto,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Dice, HD95 and ASSD of a trained model, a row a site.

    Images are prepared as the model's study says (size, channels, scaling, labels).
    """
    from fedbcs_secure.data import sources
    from fedbcs_secure.data.records import SPLITS
    from fedbcs_secure.federation.simulation import site_row
    from fedbcs_secure.learning.evaluate import summarise
    from fedbcs_secure.learning.learner import Learner
    from fedbcs_secure.learning.modelfile import load_model, model_sha256

    file = load_model(model)
    wanted = tuple(name for name in SPLITS if split.value in (name, "all"))
    dataset = sources.load(
        data,
        file.study.data,
        seed=file.study.seed if seed is None else seed,
        fold=fold,
        patients=patients,
        slices=slices,
        severity=severity,
        require_splits=() if split is SplitChoice.all else wanted,
        strict_layout=False,
        sites=names_of(sites),
    )
    learner = Learner(file.study, device.value)
    rows = {}
    for site in dataset.sites:
        chosen = [p for name in wanted for p in dataset.cohorts[site].split(name)]
        if not chosen:
            raise DataError(f"site {site} has no {split.value} patients; try --split all")
        weights = file.for_site(as_site or site)
        rows[site] = site_row(summarise(learner.evaluate(weights, chosen)), len(chosen))
    mean = sum(row["dice"] for row in rows.values()) / len(rows)
    result = {
        "model_sha256": model_sha256(file),
        "data": data,
        "split": split.value,
        "sites": rows,
        "mean_dice": mean,
        "worst_dice": min(row["dice"] for row in rows.values()),
        "worst_site": min(rows, key=lambda site: rows[site]["dice"]),
    }
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        Console(highlight=False).print(sites_table(rows, f"{model} on {data} ({split.value})"))
