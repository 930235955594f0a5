"""``simulate``: every site of a study in one process, over the real protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbcs_secure.cli import options as o
from fedbcs_secure.cli.session import execute, names_of
from fedbcs_secure.errors import StudyError

EPILOG = """
[bold]Examples[/]

fedbcs-secure simulate --data nuclei/manifest.csv --rounds 12 --width 16

fedbcs-secure simulate --study study.toml --method fedavg --out runs/fedavg

fedbcs-secure simulate --data synthetic-mri --sites A,B,C --seed 3

fedbcs-secure simulate --protection ckks

fedbcs-secure simulate --epsilon 8 --clip 0.1 --rounds 20 --init synthetic

fedbcs-secure simulate --sites A,B,C,D --drop A@masked_input:2 --drop B@share:3

fedbcs-secure simulate --resume runs/fedavg
"""


def _option(panel: str) -> Callable[..., Any]:
    return partial(typer.Option, rich_help_panel=panel)


_what = _option("Data and output")
_study = _option("Study")
_network = _option("Network and alignment")
_training = _option("Training")
_privacy = _option("Differential privacy")
_synthetic = _option("Synthetic data")
_machine = _option("This machine")


def simulate(
    study: Annotated[
        Path | None,
        _what(help="Study file (TOML, see `init`); flags win over it.", metavar="FILE"),
    ] = None,
    data: Annotated[
        str | None,
        _what(
            metavar="PATH",
            help="Manifest CSV, data folder, synthetic-mri or synthetic-he. "
            "[dim](synthetic-mri)[/]",
        ),
    ] = None,
    sites: Annotated[str | None, _what(metavar="A,B,…", help="Only these sites take part.")] = None,
    fold: Annotated[int | None, _what(help="Fold of the paper's data layouts.")] = None,
    out: Annotated[
        Path | None, _what(metavar="DIR", help="Run folder. [dim](runs/METHOD-DATE)[/]")
    ] = None,
    resume: Annotated[
        Path | None, _what(metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    init: Annotated[
        str | None,
        _what(
            metavar="synthetic|MODEL",
            help="Start from weights pre-trained on the public synthetic set (another modality "
            "than the data's, or name one), or from a model file.",
        ),
    ] = None,
    overlays: Annotated[
        int | None, _what(help="Test patients a site to draw at the end. [dim](3)[/]")
    ] = None,
    tensorboard: Annotated[
        bool | None, _what("--tensorboard", help="Also write TensorBoard event files.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        _what(
            metavar="SITE@STAGE:ROUND",
            help="Let a site vanish until the end of a round (from 1). STAGE is the first thing "
            "that it does not do: ready, keys, advertise, share, masked_input, consistency, "
            "unmask, sum (ckks has no share, masked_input and unmask; advertise uploads there). "
            "Repeatable; with --resume, `none` takes drops back.",
        ),
    ] = None,
    as_json: Annotated[bool, _what("--json", help="Print the summary as one JSON object.")] = False,
    quiet: Annotated[bool, _what("--quiet", "-q", help="No progress, no table.")] = False,
    method: Annotated[o.Method | None, _study(help="[dim](fedbcs)[/]")] = None,
    protection: Annotated[
        o.Protection | None,
        _study(help="How updates are hidden from the server. [dim](secagg)[/]"),
    ] = None,
    rounds: Annotated[int | None, _study(help="[dim](20)[/]")] = None,
    seed: Annotated[int | None, _study(help="Repeats a CPU run to the bit. [dim](0)[/]")] = None,
    server_momentum: Annotated[
        float | None, _study(help="Momentum on the averaged update. [dim](0)[/]")
    ] = None,
    min_sites: Annotated[int | None, _study(help="Fewest sites in a sum. [dim](3)[/]")] = None,
    threshold: Annotated[
        int | None,
        _study(help="Sites that must stay to a round's end. [dim](the smallest safe number)[/]"),
    ] = None,
    colluders: Annotated[
        int | None,
        _study(help="Sites that may work with the server. [dim](a fifth, at least 1)[/]"),
    ] = None,
    verified_sum: Annotated[
        bool | None,
        _study(
            "--verified-sum/--no-verified-sum",
            help="Sites check the numbers of a sum (secagg; ckks always does). [dim](on)[/]",
        ),
    ] = None,
    rekey_every: Annotated[
        int | None, _study(help="Rounds that the sites' common key serves. [dim](1)[/]")
    ] = None,
    bits: Annotated[int | None, _study(help="Bits of a quantised value. [dim](16)[/]")] = None,
    width: Annotated[
        int | None, _network(help="Channels of the U-Net's first level. [dim](32)[/]")
    ] = None,
    size: Annotated[
        int | None, _network(metavar="PX", help="Image side in pixels. [dim](128)[/]")
    ] = None,
    channels: Annotated[int | None, _network(help="1 or 3. [dim](3)[/]")] = None,
    norm: Annotated[o.Norm | None, _network(help="[dim](instance)[/]")] = None,
    fsr: Annotated[
        o.Recalibration | None,
        _network(help="Style recalibration. [dim](published for fedbcs, else off)[/]"),
    ] = None,
    frozen: Annotated[
        str | None,
        _network(
            metavar="PARTS",
            help="Parts that are not trained, such as enc3,mid,up3,dec3: less noise under "
            "differential privacy. [dim](none)[/]",
        ),
    ] = None,
    alignment: Annotated[
        o.Alignment | None, _network(help="Prototype alignment of fedbcs. [dim](gentle)[/]")
    ] = None,
    alignment_weight: Annotated[
        float | None, _network(help="Weight of L_MP. [dim](0.1 gentle, 1 faithful)[/]")
    ] = None,
    prototypes: Annotated[
        o.Prototypes | None,
        _network(help="finch: only with --protection none. [dim](mean)[/]"),
    ] = None,
    lr: Annotated[float | None, _training(help="Learning rate. [dim](0.001)[/]")] = None,
    lr_end: Annotated[
        float | None,
        _training(help="Share of it that is left in the last round. [dim](1)[/]"),
    ] = None,
    optimizer: Annotated[o.Optimizer | None, _training(help="[dim](adam)[/]")] = None,
    batch_size: Annotated[int | None, _training(help="Slices a step. [dim](6)[/]")] = None,
    local_epochs: Annotated[int | None, _training(help="Epochs a round. [dim](1)[/]")] = None,
    foreground_weight: Annotated[
        float | None,
        _training(metavar="W", help="Weight of a pixel that is no background. [dim](1)[/]"),
    ] = None,
    augment: Annotated[
        bool | None,
        _training("--augment/--no-augment", help="Random views of images. [dim](on)[/]"),
    ] = None,
    epsilon: Annotated[
        float | None,
        _privacy(help="Differential privacy: all that the study may cost a patient of a site."),
    ] = None,
    delta: Annotated[
        float | None, _privacy(help="Where epsilon is stated. [dim](1e-05)[/]")
    ] = None,
    noise_multiplier: Annotated[
        float | None, _privacy(help="Of a step, in place of --epsilon: noise over clip.")
    ] = None,
    clip: Annotated[
        float | None, _privacy(help="Longest gradient of a patient. [dim](0.2)[/]")
    ] = None,
    sampling_rate: Annotated[
        float | None, _privacy(help="A patient's chance to be in a step. [dim](0.2)[/]")
    ] = None,
    private_steps: Annotated[int | None, _privacy(help="Steps a round. [dim](5)[/]")] = None,
    copies: Annotated[
        int | None, _privacy(help="Augmented copies of a slice in a step. [dim](1)[/]")
    ] = None,
    unit: Annotated[
        o.Unit | None, _privacy(help="slice: hides single slices only, weaker. [dim](patient)[/]")
    ] = None,
    prototype_noise: Annotated[
        float | None,
        _privacy(help="Noise multiplier of prototypes. [dim](none sent, nothing aligned)[/]"),
    ] = None,
    prototype_every: Annotated[
        int | None, _privacy(help="Rounds between their releases. [dim](5)[/]")
    ] = None,
    noise: Annotated[
        o.Noise | None,
        _privacy(help="Whose noise hides prototypes: each site's own, or all. [dim](site)[/]"),
    ] = None,
    cap: Annotated[
        float | None,
        _privacy(help="Epsilon after which each site declines. [dim](what the study costs)[/]"),
    ] = None,
    patients: Annotated[int | None, _synthetic(help="Patients a site. [dim](20)[/]")] = None,
    slices: Annotated[int | None, _synthetic(help="Slices a patient. [dim](4)[/]")] = None,
    severity: Annotated[
        float | None,
        _synthetic(help="How far scanners differ, 0-1. [dim](0.75 MRI, 1 H&E)[/]"),
    ] = None,
    device: Annotated[o.Device | None, _machine(help="[dim](auto)[/]")] = None,
    precision: Annotated[
        o.Precision | None, _machine(help="[dim](auto: bfloat16 on CUDA, else float32)[/]")
    ] = None,
    threads: Annotated[int | None, _machine(help="CPU threads.")] = None,
) -> None:
    """Train a study with all its sites in this process; defaults stand in [dim](brackets)[/].

    What crosses between the simulated sites and the server is what would cross a network.
    The run folder holds the resolved study, the model, metrics, curves and overlays.
    """
    flags = {
        "data": data, "out": None if out is None else str(out), "method": method,
        "protection": protection, "rounds": rounds, "seed": seed,
        "sites": None if sites is None else list(names_of(sites)),
        "fold": fold, "width": width, "size": size, "channels": channels, "norm": norm, "fsr": fsr,
        "alignment": alignment, "alignment_weight": alignment_weight, "prototypes": prototypes,
        "lr": lr, "lr_end": lr_end, "foreground_weight": foreground_weight,
        "frozen": None if frozen is None else list(names_of(frozen)),
        "optimizer": optimizer, "batch_size": batch_size, "local_epochs": local_epochs,
        "augment": augment, "server_momentum": server_momentum, "min_sites": min_sites,
        "threshold": threshold, "colluders": colluders, "drop": drop or None,
        "verified_sum": verified_sum, "rekey_every": rekey_every,
        "bits": bits, "patients": patients, "slices": slices, "severity": severity,
        "device": device, "precision": precision, "threads": threads, "overlays": overlays,
        "tensorboard": tensorboard, "epsilon": epsilon, "delta": delta,
        "noise_multiplier": noise_multiplier, "clip": clip, "sampling_rate": sampling_rate,
        "private_steps": private_steps, "copies": copies, "unit": unit,
        "prototype_noise": prototype_noise, "prototype_every": prototype_every, "noise": noise,
        "cap": cap, "init": init,
    }  # fmt: skip
    if resume is None:
        document, settings = o.study_and_settings(study, flags)
    else:
        given = sorted(k for k, v in flags.items() if v is not None and k != "drop")
        given += ["study"] * bool(study)
        if given:
            raise StudyError(
                f"--resume takes everything from the run folder; leave out {', '.join(given)}"
            )
        from fedbcs_secure.federation.runfolder import RunFolder

        document, settings = RunFolder.open(resume).document()
        if drop:
            settings = settings.model_copy(update={"drop": tuple(d for d in drop if d != "none")})
    execute(document, settings, resume=resume, quiet=quiet, as_json=as_json)
