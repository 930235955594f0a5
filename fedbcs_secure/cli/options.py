"""Flags that several verbs share, and how flags are laid over a study file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.settings import SimulationSettings, build_settings
from fedbcs_secure.study import Study, build, load


class Method(StrEnum):
    fedbcs = "fedbcs"
    fedavg = "fedavg"
    fedprox = "fedprox"
    local = "local"
    pooled = "pooled"


class Protection(StrEnum):
    secagg = "secagg"
    ckks = "ckks"
    none = "none"


class Alignment(StrEnum):
    gentle = "gentle"
    faithful = "faithful"
    off = "off"


class Prototypes(StrEnum):
    mean = "mean"
    finch = "finch"


class Recalibration(StrEnum):
    off = "off"
    published = "published"
    all = "all"


class Norm(StrEnum):
    instance = "instance"
    group = "group"
    batch = "batch"


class Optimizer(StrEnum):
    adam = "adam"
    sgd = "sgd"


class Unit(StrEnum):
    patient = "patient"
    slice = "slice"


class Noise(StrEnum):
    site = "site"
    shared = "shared"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


# Where the value of a flag lives in the study file. A file may also use the flag's own name at its
# top, so that `rounds = 5`, `width = 16` and `lr = 1e-3` work without knowing the tables.
FLAGS: dict[str, tuple[str, ...]] = {
    "method": ("method",),
    "protection": ("protection",),
    "rounds": ("rounds",),
    "seed": ("seed",),
    "server_momentum": ("server_momentum",),
    "min_sites": ("min_sites",),
    "threshold": ("threshold",),
    "colluders": ("colluders",),
    "verified_sum": ("verified_sum",),
    "rekey_every": ("rekey_every",),
    "size": ("data", "size_px"),
    "channels": ("data", "channels"),
    "width": ("model", "width"),
    "norm": ("model", "norm"),
    "fsr": ("model", "fsr"),
    "frozen": ("model", "frozen"),
    "lr": ("training", "lr"),
    "lr_end": ("training", "lr_end"),
    "foreground_weight": ("training", "foreground_weight"),
    "optimizer": ("training", "optimizer"),
    "batch_size": ("training", "batch_size"),
    "local_epochs": ("training", "local_epochs"),
    "augment": ("training", "augment"),
    "alignment": ("alignment", "form"),
    "alignment_weight": ("alignment", "weight"),
    "prototypes": ("alignment", "prototypes"),
    "bits": ("codec", "bits"),
    "epsilon": ("privacy", "epsilon"),
    "noise_multiplier": ("privacy", "noise_multiplier"),
    "delta": ("privacy", "delta"),
    "unit": ("privacy", "unit"),
    "clip": ("privacy", "clip"),
    "sampling_rate": ("privacy", "sampling_rate"),
    "private_steps": ("privacy", "steps"),
    "copies": ("privacy", "copies"),
    "prototype_noise": ("privacy", "prototype_noise"),
    "prototype_every": ("privacy", "prototype_every"),
    "noise": ("privacy", "noise"),
    **{
        name: ("simulate", name)
        for name in (
            "data", "out", "sites", "fold", "patients", "slices", "severity", "device",
            "precision", "threads", "overlays", "tensorboard", "drop", "cap", "init",
        )
    },
}  # fmt: skip


def _put(tables: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        inner = tables.setdefault(part, {})
        if not isinstance(inner, dict):
            raise StudyError(f"[{part}] must be a table in the study file")
        tables = inner
    tables[path[-1]] = value


def _is_short(key: str, value: Any) -> bool:
    """Whether a top-level entry of a file is a flag by its own name."""
    return key in FLAGS and FLAGS[key] != (key,) and not isinstance(value, dict)


def study_and_settings(
    file: Path | None, flags: dict[str, Any]
) -> tuple[Study, SimulationSettings]:
    """The study file (if any) with ``flags`` laid over it; a flag of None was not given.

    Raises :class:`StudyError` for unknown keys and impossible combinations.
    """
    written = load(file) if file is not None else {}
    short = {k: v for k, v in written.items() if _is_short(k, v)}
    tables = {k: v for k, v in written.items() if k not in short}
    for key, value in short.items():
        _put(tables, FLAGS[key], value)
    for key, value in flags.items():
        if value is not None:
            _put(tables, FLAGS[key], value)
    settings = build_settings(tables.pop("simulate", {}))
    privacy = tables.get("privacy")
    if isinstance(privacy, dict) and "epsilon" in privacy:
        # The accountants take a second to import.
        from fedbcs_secure.privacy.target import with_noise

        tables = with_noise(tables)
    return build(tables), settings
