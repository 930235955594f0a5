"""Weights to start from that no patient is in: trained on the public synthetic set.

With little noise to spend, what costs none is worth most. Everything here follows from public
numbers; two machines may still differ in the last bits, so a study names the weights by digest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedbcs_secure.data.sources import load_synthetic
from fedbcs_secure.learning.device import DeviceChoice, Precision
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.sections import Training
from fedbcs_secure.study import Study

PUBLIC_SEED = 20_231_110
"""Of the invented patients; no study's own seed, so that no test set is among them."""
PATIENTS, SLICES, EPOCHS = 24, 3, 12


def pretrained(
    study: Study,
    source: str,
    *,
    device: DeviceChoice = "auto",
    precision: Precision = "auto",
    epochs: int = EPOCHS,
    patients: int = PATIENTS,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """(P,) weights for ``study``'s network after ``epochs`` over all sites of ``source`` together.

    ``study`` must be resolved. Its own training settings, privacy included, are for its patients
    and are not used. ``progress`` is called with (epochs done, epochs).
    """
    model = study.model.model_copy(update={"frozen": ()})
    public = study.model_copy(
        update={"privacy": None, "roster": (), "training": Training(), "model": model}
    )
    dataset = load_synthetic(
        source, study.data, seed=PUBLIC_SEED, patients=patients, slices=SLICES, severity=1.0
    )
    everybody = [p for cohort in dataset.cohorts.values() for p in (*cohort.train, *cohort.test)]
    learner = Learner(public, device, precision)
    weights = learner.initial_weights()
    for epoch in range(epochs):
        # The last quarter in smaller steps.
        if epoch == epochs - -(-epochs // 4):
            slower = Training(lr=Training().lr / 5)
            learner = Learner(public.model_copy(update={"training": slower}), device, precision)
        result = learner.train(weights, everybody, site="public", round_index=epoch)
        weights = weights + result.delta
        if progress is not None:
            progress(epoch + 1, epochs)
    return weights
