"""One site's training of one round: from the global weights to an update and class means.

Stateless between rounds: the optimizer starts afresh, and every random choice follows from
(study seed, site, round), so that a resumed run and an uninterrupted one give the same bits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import FedBCSError
from fedbcs_secure.learning.augment import Augmentation, image_seed
from fedbcs_secure.learning.device import Runtime
from fedbcs_secure.learning.fusion import Features
from fedbcs_secure.learning.losses import faithful_alignment, gentle_alignment, joint_loss
from fedbcs_secure.learning.prototypes import GlobalPrototypes, Per, PrototypeMeter
from fedbcs_secure.learning.unet import UNet
from fedbcs_secure.learning.weights import flatten, load_flat
from fedbcs_secure.privacy.events import Events
from fedbcs_secure.study import Study, settled

Progress = Callable[[int, int], None]
"""Called with (steps done, steps of this round)."""


@dataclass(frozen=True, eq=False, repr=False)
class LocalResult:
    """What one round of local training yields; it never leaves the site in this form.

    ``delta`` is (P,) float32: new weights minus the global ones. ``prototypes`` holds for each
    view the class means (K, 3d) float32 and which classes had pixels, (K,) bool; it is empty
    when the study does not align. ``loss`` is the mean over the steps.

    Under differential privacy ``prototype_sums`` are, for each (view, class) that was due, the
    noised sum over patients (3d,) and the noised number of patients behind it; ``events`` what all
    of it costs; ``dropped`` counts gradients that were not finite.
    """

    delta: NDArray[np.float32]
    prototypes: tuple[tuple[NDArray[np.float32], NDArray[np.bool_]], ...]
    loss: float
    steps: int
    seconds: float
    prototype_sums: Mapping[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    events: Events = field(default_factory=Events)
    dropped: int = 0


def steps_per_round(slices: int, study: Study) -> int:
    """Optimizer steps that ``slices`` training slices give."""
    return study.training.local_epochs * -(-slices // study.training.batch_size)


def train_round(
    network: UNet,
    weights: NDArray[np.float32],
    patients: Sequence[Patient],
    study: Study,
    *,
    site: str,
    round_index: int,
    prototypes: GlobalPrototypes | None,
    runtime: Runtime,
    progress: Progress | None = None,
) -> LocalResult:
    """Train ``network`` from ``weights`` on ``patients``.

    ``study`` must be resolved (:meth:`Study.resolved`). Raises :class:`FedBCSError` when the loss
    stops being finite.
    """
    started = time.perf_counter()
    load_flat(network, weights)
    network.train()
    optimizer = optimizer_of(network, study, round_index)
    anchor = [p.detach().clone() for p in network.parameters()] if study.method == "fedprox" else []
    meter = _meter(network, study)
    align = aligner(network, study, prototypes, round_index)
    total_steps = steps_per_round(sum(p.slices for p in patients), study)
    losses: list[float] = []
    for epoch in range(study.training.local_epochs):
        last = epoch == study.training.local_epochs - 1
        epoch_batches = batches(
            patients, study, site=site, epoch=round_index * study.training.local_epochs + epoch
        )
        for images, labels in epoch_batches:
            images, labels = images.to(runtime.device), labels.to(runtime.device)
            optimizer.zero_grad(set_to_none=True)
            with runtime.autocast():
                features = network(images)
            features = as_float32(features)
            loss = joint_loss(features.logits, labels, study.training.foreground_weight)[0]
            if align is not None:
                loss = loss + align(features, labels)
            loss.backward()
            for parameter, start in zip(network.parameters(), anchor, strict=False):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - start, alpha=study.training.prox_mu)
            if meter is not None and last:
                meter.add(features, labels)  # before the step: features and fusion of one moment
            optimizer.step()
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise FedBCSError(
                    f"the training loss at site {site} stopped being finite in round "
                    f"{round_index}; lower the learning rate (now {study.training.lr})"
                )
            if progress is not None:
                progress(len(losses), total_steps)
    return LocalResult(
        delta=flatten(network) - weights,
        prototypes=() if meter is None else meter.means(),
        loss=float(np.mean(losses)),
        steps=len(losses),
        seconds=time.perf_counter() - started,
    )


def learning_rate(study: Study, round_index: int) -> float:
    """Of a round: falls evenly from ``lr`` in the first to ``lr_end`` of it in the last."""
    t = study.training
    return t.lr * (1 - (1 - t.lr_end) * min(round_index / max(study.rounds - 1, 1), 1.0))


def optimizer_of(network: UNet, study: Study, round_index: int) -> torch.optim.Optimizer:
    """A fresh optimizer, as the study says."""
    t, lr = study.training, learning_rate(study, round_index)
    if t.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=lr, weight_decay=t.weight_decay)
    return torch.optim.SGD(
        network.parameters(), lr=lr, momentum=t.momentum, weight_decay=t.weight_decay
    )


def _meter(network: UNet, study: Study) -> PrototypeMeter | None:
    if study.alignment.form == "off" or network.fusion is None:
        return None
    per: Per = "image" if study.alignment.form == "gentle" else "batch"
    return PrototypeMeter(network.fusion, classes=study.data.classes, per=per)


def aligner(
    network: UNet, study: Study, prototypes: GlobalPrototypes | None, round_index: int
) -> Callable[[Features, Tensor], Tensor] | None:
    """The weighted L_MP of a batch, or None while there is nothing to align with."""
    fusion, alignment = network.fusion, study.alignment
    if fusion is None or prototypes is None or alignment.form == "off":
        return None
    if round_index < settled(alignment.warmup_rounds):
        return None
    form = gentle_alignment if alignment.form == "gentle" else faithful_alignment
    weight, temperature = settled(alignment.weight), settled(alignment.temperature)
    return lambda features, labels: weight * form(features, fusion, labels, prototypes, temperature)


def as_float32(features: Features) -> Features:
    """Losses and class means are computed in float32 whatever the network ran in."""
    return Features(
        features.logits.float(),
        tuple(level.float() for level in features.encoder),
        tuple(level.float() for level in features.decoder),
    )


def batches(
    patients: Sequence[Patient], study: Study, *, site: str, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All slices once, shuffled, augmented if the study says so: images (B, C, H, W) float32 and

    labels (B, H, W) int64. ``epoch`` counts through all rounds.
    """
    slices = [(patient, index) for patient in patients for index in range(patient.slices)]
    tag = hashlib.sha256(b"order\x00" + site.encode()).digest()
    order = np.random.default_rng(
        [study.seed, int.from_bytes(tag[:8], "little"), epoch]
    ).permutation(len(slices))
    augmentation = Augmentation() if study.training.augment else None
    size = study.training.batch_size
    for start in range(0, len(order), size):
        images, masks = [], []
        for position in order[start : start + size]:
            patient, index = slices[position]
            image, mask = patient.images[index], patient.masks[index]
            if augmentation is not None:
                key = image_seed(
                    study.seed, site=site, patient=patient.patient, index=index, epoch=epoch
                )
                image, mask = augmentation(image, mask, key)
            images.append(image)
            masks.append(mask)
        yield (
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(masks).astype(np.int64)),
        )
