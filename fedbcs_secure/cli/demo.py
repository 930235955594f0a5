"""``demo``: four simulated hospitals, small enough to watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedbcs_secure.cli.options import study_and_settings
from fedbcs_secure.cli.session import execute

EPILOG = """
[bold]Examples[/]

fedbcs-secure demo

fedbcs-secure demo --out runs/demo --seed 7
"""


def demo(
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder. [dim](runs/fedbcs-DATE)[/]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Repeats the run to the bit.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 20,
) -> None:
    """Watch four simulated hospitals train one prostate segmentation model in a minute or two.

    Embedded pelvic MRI, FedBCS, secure aggregation: the server sees sums of masked integers only.
    """
    Console(stderr=True, highlight=False).print(
        "Four hospitals A-D with different MRI scanners train one U-Net to outline the prostate.\n"
        "Each keeps its images; what it sends is masked, and only sums over at least three sites "
        "can be read.",
        soft_wrap=True,
    )
    study, settings = study_and_settings(
        None,
        {
            "data": "synthetic-mri",
            "out": None if out is None else str(out),
            "patients": 14,
            "slices": 3,
            "size": 64,
            "channels": 1,
            "width": 12,
            "rounds": rounds,
            "seed": seed,
            "lr": 2e-3,
            "server_momentum": 0.5,
            "device": "cpu",
        },
    )
    _, folder = execute(study, settings)
    Console(stderr=True, highlight=False).print(
        f"\nNext: look at {folder / 'curves.png'} and {folder / 'overlays'}; then check your own "
        "images with\n  fedbcs-secure doctor --data manifest.csv\nand train on them with\n"
        "  fedbcs-secure simulate --data manifest.csv",
        soft_wrap=True,
    )
