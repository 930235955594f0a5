"""Model files: safetensors whose metadata says how to build the network and read its input.

A file holds one global model or, for method ``local``, one model a site (names prefixed with the
site). safetensors carries plain arrays with a bounded header: nothing in it is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbcs_secure.errors import ModelError
from fedbcs_secure.learning.unet import NetworkConfig, UNet
from fedbcs_secure.learning.weights import TensorSpec, split, tensor_specs, weights_sha256
from fedbcs_secure.study import Study

FORMAT = "fedbcs-secure model v1"
_MAX_SITES = 1024
GLOBAL = ""
"""The key of a model that is everybody's."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """The study that made it and flat weights by site (key ``""``: the global model)."""

    study: Study
    weights: Mapping[str, NDArray[np.float32]]

    def for_site(self, site: str) -> NDArray[np.float32]:
        """The weights to use at ``site``: its own model, or the global one.

        Raises :class:`ModelError` when the file holds models of other sites only.
        """
        if GLOBAL in self.weights:
            return self.weights[GLOBAL]
        if site not in self.weights:
            missing = f" and none for {site}" if site else ""
            raise ModelError(
                f"the file holds one model a site ({', '.join(sorted(self.weights))}){missing}; "
                "name one of them with --as-site"
            )
        return self.weights[site]


def _named(file: ModelFile) -> dict[str, NDArray[np.float32]]:
    specs = _specs(file.study)
    return {
        (f"{site}/{name}" if site else name): array
        for site, flat in file.weights.items()
        for name, array in split(flat, specs).items()
    }


def model_sha256(file: ModelFile) -> str:
    """Fingerprint of the weights in canonical order (see :func:`weights_sha256`)."""
    return weights_sha256(_named(file))


def save_model(file: ModelFile, path: Path) -> None:
    """Write atomically: a reader sees the old file or the new one, never half of one."""
    public = file.study.model_copy(update={"roster": ()})
    metadata = {
        "format": FORMAT,
        "study": json.dumps(public.model_dump(mode="json"), sort_keys=True),
        "sites": json.dumps(sorted(file.weights)),
    }
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(save(_named(file), metadata=metadata))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def load_model(path: Path) -> ModelFile:
    """Read a model file, or the one in a run folder.

    Raises :class:`ModelError`, saying what is wrong with it.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    try:
        with safe_open(path, framework="numpy") as stream:
            metadata: dict[str, str] = stream.metadata() or {}
            study = _study(path, metadata)
            specs = _specs(study)
            sites = _sites(path, metadata)
            if len(stream.keys()) != len(sites) * len(specs):
                raise ModelError(f"{path}: its tensors do not fit the network that it names")
            expected = {(f"{s}/{t.name}" if s else t.name): t.shape for s in sites for t in specs}
            if not sites or set(stream.keys()) != set(expected):
                raise ModelError(f"{path}: its tensors do not fit the network that it names")
            weights: dict[str, NDArray[np.float32]] = {}
            for site in sites:
                parts = []
                for spec in specs:
                    key = f"{site}/{spec.name}" if site else spec.name
                    view = stream.get_slice(key)
                    if tuple(view.get_shape()) != spec.shape or view.get_dtype() != "F32":
                        raise ModelError(f"{path}: tensor {key} is not float32 {spec.shape}")
                    parts.append(stream.get_tensor(key).reshape(-1))
                weights[site] = np.concatenate(parts)
    except FileNotFoundError:
        raise ModelError(f"no model file at {path}") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from None
    if not all(np.isfinite(flat).all() for flat in weights.values()):
        raise ModelError(f"{path} holds weights that are not finite")
    return ModelFile(study, weights)


def _specs(study: Study) -> tuple[TensorSpec, ...]:
    """Names and shapes without memory: a header may claim a network of any size."""
    with torch.device("meta"):
        return tensor_specs(UNet(NetworkConfig.of(study)))


def _sites(path: Path, metadata: dict[str, Any]) -> list[str]:
    try:
        sites = json.loads(metadata.get("sites", "[]"))
    except (ValueError, RecursionError):
        sites = None
    named = isinstance(sites, list) and all(isinstance(site, str) for site in sites)
    if not named or len(sites) > _MAX_SITES or len(set(sites)) != len(sites):
        raise ModelError(f"{path}: its header does not describe a model: bad list of sites")
    return sites


def _study(path: Path, metadata: dict[str, Any]) -> Study:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} was not written by this toolkit (no {FORMAT!r} in its header)")
    try:
        return Study.model_validate_json(metadata.get("study", ""))
    except (ValidationError, RecursionError) as error:
        raise ModelError(f"{path}: its header does not describe a model: {error}") from None
