"""``simulate``: every site of a study in one process, over the real protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbcs_secure.cli import options as o
from fedbcs_secure.cli.session import execute
from fedbcs_secure.errors import StudyError

EPILOG = """
[bold]Examples[/]

fedbcs-secure simulate --data nuclei/manifest.csv --rounds 12 --width 16

fedbcs-secure simulate --study study.toml --method fedavg --out runs/fedavg

fedbcs-secure simulate --data synthetic-mri --sites A,B,C --seed 3

fedbcs-secure simulate --resume runs/fedavg
"""


def simulate(
    study: Annotated[
        Path | None,
        typer.Option(help="Study file (TOML, see `init`); flags win over it.", metavar="FILE"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|synthetic-mri|synthetic-he",
            help="Manifest CSV, data folder, or an embedded set. [dim](synthetic-mri)[/]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder. [dim](runs/METHOD-DATE)[/]")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    method: Annotated[o.Method | None, typer.Option(help="[dim](fedbcs)[/]")] = None,
    protection: Annotated[
        o.Protection | None,
        typer.Option(help="How updates are protected from the server. [dim](secagg)[/]"),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="[dim](20)[/]")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Repeats a CPU run to the bit. [dim](0)[/]")
    ] = None,
    sites: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Only these sites take part.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Fold of the paper's data layouts.")] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the U-Net's first level. [dim](32)[/]")
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PX", help="Image side in pixels. [dim](128)[/]")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3. [dim](3)[/]")] = None,
    norm: Annotated[o.Norm | None, typer.Option(help="[dim](instance)[/]")] = None,
    fsr: Annotated[
        o.Recalibration | None,
        typer.Option(help="Style recalibration. [dim](published for fedbcs, else off)[/]"),
    ] = None,
    alignment: Annotated[
        o.Alignment | None, typer.Option(help="Prototype alignment of fedbcs. [dim](gentle)[/]")
    ] = None,
    alignment_weight: Annotated[
        float | None, typer.Option(help="Weight of L_MP. [dim](0.1 gentle, 1 faithful)[/]")
    ] = None,
    prototypes: Annotated[
        o.Prototypes | None,
        typer.Option(help="finch: only with --protection none. [dim](mean)[/]"),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [dim](0.001)[/]")] = None,
    optimizer: Annotated[o.Optimizer | None, typer.Option(help="[dim](adam)[/]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="[dim](6)[/]")] = None,
    local_epochs: Annotated[int | None, typer.Option(help="Epochs a round. [dim](1)[/]")] = None,
    augment: Annotated[bool | None, typer.Option(help="Random views of images. [dim](on)[/]")] = None,
    server_momentum: Annotated[
        float | None, typer.Option(help="Momentum on the averaged update. [dim](0)[/]")
    ] = None,
    min_sites: Annotated[
        int | None, typer.Option(help="Fewest sites in a sum. [dim](3)[/]")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Bits of a quantised value. [dim](16)[/]")] = None,
    patients: Annotated[
        int | None, typer.Option(help="Synthetic patients a site. [dim](20)[/]")
    ] = None,
    slices: Annotated[
        int | None, typer.Option(help="Slices a synthetic patient. [dim](4)[/]")
    ] = None,
    severity: Annotated[
        float | None,
        typer.Option(help="How far synthetic scanners differ, 0-1. [dim](0.75 MRI, 1 H&E)[/]"),
    ] = None,
    device: Annotated[o.Device | None, typer.Option(help="[dim](auto)[/]")] = None,
    precision: Annotated[
        o.Precision | None, typer.Option(help="[dim](auto: bfloat16 on CUDA, else float32)[/]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    overlays: Annotated[
        int | None, typer.Option(help="Test patients a site to draw at the end. [dim](3)[/]")
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard", help="Also write TensorBoard event files.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Train a study with all its sites in this process; defaults stand in [dim](brackets)[/].

    What crosses between the simulated sites and the server is what would cross a network.
    The run folder holds the resolved study, the model, metrics, curves and overlays.
    """
    flags = {
        "data": data, "out": None if out is None else str(out), "method": method,
        "protection": protection, "rounds": rounds, "seed": seed,
        "sites": None if sites is None else [s.strip() for s in sites.split(",") if s.strip()],
        "fold": fold, "width": width, "size": size, "channels": channels, "norm": norm, "fsr": fsr,
        "alignment": alignment, "alignment_weight": alignment_weight, "prototypes": prototypes,
        "lr": lr, "optimizer": optimizer, "batch_size": batch_size, "local_epochs": local_epochs,
        "augment": augment, "server_momentum": server_momentum, "min_sites": min_sites,
        "bits": bits, "patients": patients, "slices": slices, "severity": severity,
        "device": device, "precision": precision, "threads": threads, "overlays": overlays,
        "tensorboard": tensorboard,
    }  # fmt: skip
    if resume is None:
        document, settings = o.study_and_settings(study, flags)
    else:
        given = sorted(k for k, v in flags.items() if v is not None) + ["study"] * bool(study)
        if given:
            raise StudyError(
                f"--resume takes everything from the run folder; leave out {', '.join(given)}"
            )
        from fedbcs_secure.federation.runfolder import RunFolder

        document, settings = RunFolder.open(resume).document()
    execute(document, settings, resume=resume, quiet=quiet, as_json=as_json)


