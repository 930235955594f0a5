"""``init``: a commented study file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbcs_secure.errors import StudyError

EPILOG = """
[bold]Examples[/]

fedbcs-secure init

fedbcs-secure init --private private.toml && fedbcs-secure simulate --study private.toml

fedbcs-secure init studies/prostate.toml && fedbcs-secure simulate --study studies/prostate.toml
"""

TEMPLATE = """\
# A study: every choice that all sites share. Run it on one machine with
#   fedbcs-secure simulate --study THIS_FILE
# Commented lines show the default. Unknown keys are refused.

name = "my study"
method = "fedbcs"            # fedbcs | fedavg | fedprox | local | pooled
protection = "secagg"        # secagg | ckks (sites share a key) | none (the server sees all)
rounds = 20
seed = 0                     # public; repeats a CPU run to the bit
# server_momentum = 0.0      # momentum on the averaged update, for every method
# min_sites = 3              # no sum over fewer sites
# threshold = 3              # sites that must stay to a round's end; else the smallest safe number
# colluders = 1              # sites that may work with the server; else a fifth, at least one
# max_reused_states = 0      # keep 0: each reuse lets a server that cheats read one site
# verified_sum = true        # sites check the numbers of a sum (ckks always does)
# rekey_every = 1            # rounds that the sites' common key serves

[data]
size_px = 128                # images are resized to this square; a multiple of 16
channels = 3                 # 1 | 3
classes = 2                  # background included
labels = "nonzero"           # or a list: labels = [0, 85, 170] makes classes 0, 1, 2
scaling = "minmax"           # minmax | percentile99 | fixed (8-bit / 255)
volume = "slices"            # 3-D files: slices | stack3 (each slice with its neighbours)
# validation_fraction = 0.1  # of the training patients, where the source does not say
# test_fraction = 0.2
# split = "counts"           # counts | independent (each patient by a hash alone)

[model]
width = 32                   # channels of the first level; 16 trains well on a laptop
# norm = "instance"          # instance | group | batch
# fsr = "published"          # off | published | all; off unless method = "fedbcs"
# frozen = []                # parts that are not trained, by name

[training]
optimizer = "adam"           # adam | sgd
lr = 1e-3
# lr_end = 1.0               # share of it that is left in the last round
batch_size = 6
local_epochs = 1
# weight_decay = 1e-4
# augment = true
# foreground_weight = 1.0    # of a pixel that is no background; never a statistic of the data
# prox_mu = 0.01             # method = "fedprox"

[alignment]
form = "gentle"              # gentle | faithful (the paper's formula) | off
# weight = 0.1
# warmup_rounds = 4          # rounds without alignment
# prototypes = "mean"        # mean | finch (needs protection = "none")

[codec]
# bits = 16                  # of one quantised value

# Differential privacy: take the ## off, or see `fedbcs-secure init --private`.
# `fedbcs-secure plan` tells what it costs.
## [privacy]
## epsilon = 8               # becomes noise_multiplier, the least that keeps it
## delta = 1e-5              # well below 1 / patients of a site
## unit = "patient"          # patient | slice (hides single slices only: weaker)
## clip = 0.2                # longest gradient of a patient; near the median is best
## sampling_rate = 0.2       # chance of a patient to be in a step
## steps = 5                 # a round
## slices = 4                # of a patient in a step, at most
## prototype_noise = 16.0    # leave out: no prototypes are sent, and nothing is aligned
## prototype_every = 5       # rounds

# The part below concerns this machine only and is no part of the agreed study.
[simulate]
data = "synthetic-mri"       # manifest.csv | data folder | synthetic-mri | synthetic-he
# out = "runs/my-study"
# sites = ["A", "B", "C"]    # leave out for all
# drop = ["A@masked_input:2"]   # site A vanishes in round 2
# device = "auto"            # auto | cpu | cuda | mps
"""

_PRIVATE = (
    ('method = "fedbcs" ', 'method = "fedavg" '),
    ("rounds = 20\n", "rounds = 80\n"),
    ("size_px = 128 ", "size_px = 64  "),
    ("width = 32 ", "width = 8  "),
    (
        "# frozen = []                # parts that are not trained, by name",
        'frozen = ["enc3", "mid", "up3", "dec3"]   # not trained: 7 of 8 weights',
    ),
    ('optimizer = "adam" ', 'optimizer = "sgd"  '),
    ("lr = 1e-3\n", "lr = 7.5                     # gradients are short: the clip below\n"),
    ("# lr_end = 1.0 ", "lr_end = 0.025 "),
    ("# foreground_weight = 1.0  ", "foreground_weight = 10.0   "),
    ("## [privacy]", "[privacy]"),
    ("## epsilon = 8    ", "epsilon = 8       "),
    ("## delta = 1e-5   ", "delta = 1e-5      "),
    ("## clip = 0.2     ", "clip = 0.2        "),
    ("## sampling_rate = 0.2 ", "sampling_rate = 0.2    "),
    ("## steps = 5      ", "steps = 1         "),
    ("## slices = 4     ", "slices = 2        "),
    (
        'data = "synthetic-mri" ',
        'patients = 300               # of a synthetic source\ndata = "synthetic-mri" ',
    ),
)
"""What suits differential privacy (docs/results.md): few large steps on few weights."""


def private_template() -> str:
    """The commented study file with differential privacy."""
    text = TEMPLATE
    for usual, private in _PRIVATE:
        text = text.replace(usual, private, 1)
    return text


def init(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path(
        "study.toml"
    ),
    private: Annotated[
        bool,
        typer.Option("--private", help="With differential privacy, and what suits it."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented study file with safe defaults."""
    if path.exists() and not force:
        raise StudyError(f"{path} exists; choose another name or say --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(private_template() if private else TEMPLATE, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror}") from None
    typer.echo(f"wrote {path}; edit it, then: fedbcs-secure simulate --study {path}")
