"""What a study starts from: weights from its public seed, or given ones that it names by digest

(DP-3.7).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.errors import ModelError, RunFolderError
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.modelfile import (
    GLOBAL,
    ModelFile,
    load_model,
    model_sha256,
    save_model,
)
from fedbcs_secure.learning.pretrain import pretrained
from fedbcs_secure.study import Study

FILE = "initial.safetensors"
SYNTHETIC = ("synthetic-mri", "synthetic-he")


def is_public(wanted: str) -> bool:
    """Whether a start is trained on invented patients, not read from a file."""
    return wanted == "synthetic" or wanted in SYNTHETIC


def public_source(wanted: str, data: str, channels: int) -> str:
    """The synthetic set to pre-train on. ``synthetic``: never that of the study itself."""
    if wanted in SYNTHETIC:
        return wanted
    if data in SYNTHETIC:
        return SYNTHETIC[1 - SYNTHETIC.index(data)]
    return SYNTHETIC[0 if channels == 1 else 1]


def given_weights(
    study: Study, settings: SimulationSettings, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32] | None:
    """The weights that ``settings.init`` asks for; None: those of the seed.

    ``study`` is resolved. Raises :class:`ModelError` for a file that does not fit its network.
    """
    if settings.init is None:
        return None
    if is_public(settings.init):
        return pretrained(
            study,
            public_source(settings.init, settings.data, study.data.channels),
            device=settings.device,
            precision=settings.precision,
            progress=progress,
        )
    weights = load_model(Path(settings.init)).for_site(GLOBAL)
    wanted = Learner(study, "cpu").parameters
    if weights.size != wanted:
        raise ModelError(
            f"{settings.init} has {weights.size:,} parameters and the study's network {wanted:,}: "
            "width, channels, classes, fsr and alignment must be the same"
        )
    return weights


def naming(study: Study, weights: NDArray[np.float32] | None) -> Study:
    """The study, starting from these weights and no others."""
    if weights is None:
        return study
    digest = model_sha256(ModelFile(study, {GLOBAL: weights}))
    return study.model_copy(update={"model": study.model.model_copy(update={"initial": digest})})


def keep(folder: Path, study: Study, weights: NDArray[np.float32] | None) -> None:
    """Put the weights into the run folder, for resuming and for ``evaluate``."""
    if weights is not None:
        save_model(ModelFile(study, {GLOBAL: weights}), folder / FILE)


def starting_weights(study: Study, folder: Path, learner: Learner) -> NDArray[np.float32]:
    """(P,) of round 0. Raises :class:`RunFolderError` for others than the study names."""
    if study.model.initial is None:
        return learner.initial_weights()
    file = load_model(folder / FILE)
    if model_sha256(file) != study.model.initial:
        raise RunFolderError(f"{folder / FILE} is not what the study starts from; was it changed?")
    return file.for_site(GLOBAL)
