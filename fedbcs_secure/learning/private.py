"""One site's training of one round under differential privacy (DP-3, DP-4).

The model moves only by noised sums over patients, so whatever is computed from it afterwards, the
update, its mean over the steps, the features of the next release, costs nothing more.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.learning.augment import Augmentation, image_seed
from fedbcs_secure.learning.device import Runtime
from fedbcs_secure.learning.dpsgd import EventAccountant, PatientOptimizer, check_network
from fedbcs_secure.learning.fusion import Features
from fedbcs_secure.learning.local import (
    LocalResult,
    Progress,
    aligner,
    as_float32,
    learning_rate,
    optimizer_of,
)
from fedbcs_secure.learning.losses import joint_loss
from fedbcs_secure.learning.private_prototypes import PrototypeMechanism, patient_means
from fedbcs_secure.learning.prototypes import GlobalPrototypes
from fedbcs_secure.learning.unet import UNet
from fedbcs_secure.learning.weights import flatten, load_flat
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.randomness import SecretStream
from fedbcs_secure.sections import Privacy
from fedbcs_secure.study import Study

_BROKEN = (RuntimeError, ValueError, IndexError)
"""What the arrays of one patient can end in; memory that is too small among it."""


@dataclass(frozen=True)
class Unit:
    """What is added or removed as a whole: a patient, or one slice of it (unit = "slice")."""

    patient: Patient
    slices: tuple[int, ...]


@dataclass(frozen=True)
class PrivateRound:
    """What a private round needs beside a usual one.

    ``nominal`` is n̄ of the study's roster, ``release`` the prototypes that are due, ``stream``
    where sampling and noise come from: secret and fresh, outside tests.
    """

    nominal: int
    release: PrototypeMechanism | None = None
    stream: SecretStream = field(default_factory=SecretStream.fresh)
    repeatable: bool = False
    """NOT PRIVATE, for tests: a stream that anybody can compute is taken."""


def units_of(patients: Sequence[Patient], privacy: Privacy) -> tuple[Unit, ...]:
    """The privacy units of a site's training patients."""
    if privacy.unit == "slice":
        return tuple(Unit(p, (index,)) for p in patients for index in range(p.slices))
    return tuple(Unit(p, tuple(range(p.slices))) for p in patients)


def train_privately(
    network: UNet,
    weights: NDArray[np.float32],
    patients: Sequence[Patient],
    study: Study,
    *,
    site: str,
    round_index: int,
    prototypes: GlobalPrototypes | None,
    private: PrivateRound,
    runtime: Runtime,
    progress: Progress | None = None,
) -> LocalResult:
    """A fixed number of noisy steps from ``weights``, then the prototypes that are due.

    ``events`` of the result is what this costs. Raises :class:`PrivacyError` if that is not what
    the study says.
    """
    privacy, stream, release = study.privacy, private.stream, private.release
    if privacy is None:
        raise PrivacyError("this study has no [privacy]")
    if not (stream.private or private.repeatable):
        raise PrivacyError("this noise can be repeated by anybody: it is for tests")
    check_network(network)
    started = time.perf_counter()
    load_flat(network, weights)
    network.train()
    units = units_of(patients, privacy)
    optimizer = PatientOptimizer(
        optimizer_of(network, study, round_index),
        noise_multiplier=privacy.noise_multiplier,
        clip=privacy.clip,
        expected=privacy.sampling_rate * private.nominal,
        stream=stream,
    )
    accountant = EventAccountant()
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(privacy.sampling_rate))
    align = aligner(network, study, prototypes, round_index)
    anchor = weights if study.method == "fedprox" else None
    weight, rate = study.training.foreground_weight, learning_rate(study, round_index)
    mean = np.zeros(weights.size, np.float64)
    losses: list[float] = []
    for step in range(privacy.steps):
        taken = stream.bernoulli(privacy.sampling_rate, len(units))
        for unit, chosen in zip(units, taken, strict=True):
            if chosen:
                moment = (round_index * privacy.steps + step) * privacy.copies
                try:
                    images, labels = _batch(unit, study, privacy, site, moment, stream)
                    loss = _gradient(network, images, labels, weight, align, runtime)
                except _BROKEN:
                    # DP-3.4: whether there is a release must not depend on one patient.
                    optimizer.drop()
                    continue
                losses.append(loss)
                optimizer.take()
        optimizer.step()
        if anchor is not None:
            _toward(network, anchor, study.training.prox_mu * rate)
        if privacy.average:
            mean = privacy.average * mean + (1 - privacy.average) * flatten(network)
        if progress is not None:
            progress(step + 1, privacy.steps)
    events = accountant.events
    if events != Gaussian(privacy.noise_multiplier, privacy.sampling_rate).times(privacy.steps):
        raise PrivacyError("the steps that were taken are not those that the study says")
    final = flatten(network)
    if privacy.average:
        final = (mean / (1 - privacy.average**privacy.steps)).astype(np.float32)
    sums: dict[tuple[int, int], NDArray[np.float32]] = {}
    if release is not None:
        # Of the weights that are sent.
        load_flat(network, final)
        noisy = release.noisy(_prototypes(network, units, study, release, runtime), stream)
        sums = dict(zip(release.slots, release.values(noisy).astype(np.float32), strict=True))
        events += release.events
    return LocalResult(
        delta=final - weights,
        prototypes=(),
        loss=float(np.mean(losses)) if losses else float("nan"),
        steps=privacy.steps,
        seconds=time.perf_counter() - started,
        prototype_sums=sums,
        events=events,
        dropped=optimizer.dropped,
    )


def _batch(
    unit: Unit, study: Study, privacy: Privacy, site: str, moment: int, stream: SecretStream
) -> tuple[Tensor, Tensor]:
    """Some slices of one unit, each in ``copies``: images (B, C, H, W), labels (B, H, W)."""
    indices = np.array(unit.slices)
    if len(indices) > privacy.slices:
        indices = indices[np.argsort(stream.words64(len(indices)))[: privacy.slices]]
    augmentation = Augmentation() if study.training.augment else None
    images, masks = [], []
    for index in indices:
        for copy in range(privacy.copies):
            image, mask = unit.patient.images[index], unit.patient.masks[index]
            if augmentation is not None:
                key = image_seed(
                    study.seed,
                    site=site,
                    patient=unit.patient.patient,
                    index=_name(unit, int(index), privacy),
                    epoch=moment + copy,
                )
                image, mask = augmentation(image, mask, key)
            images.append(image)
            masks.append(mask)
    return (
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.stack(masks).astype(np.int64)),
    )


def _name(unit: Unit, index: int, privacy: Privacy) -> int:
    """What a slice's views are drawn by; where slices are units, nothing that others change."""
    if privacy.unit == "patient":
        return index
    image = np.ascontiguousarray(unit.patient.images[index])
    return int.from_bytes(hashlib.sha256(image.data).digest()[:4], "big")


def _gradient(
    network: UNet,
    images: Tensor,
    labels: Tensor,
    foreground_weight: float,
    align: Callable[[Features, Tensor], Tensor] | None,
    runtime: Runtime,
) -> float:
    """Leave the gradient of one unit's loss in the parameters; the loss is for the site's eyes."""
    images, labels = images.to(runtime.device), labels.to(runtime.device)
    with runtime.autocast():
        features = network(images)
    features = as_float32(features)
    loss = joint_loss(features.logits, labels, foreground_weight)[0]
    if align is not None:
        loss = loss + align(features, labels)
    loss.backward()
    return float(loss.detach())


@torch.no_grad()
def _toward(network: UNet, anchor: NDArray[np.float32], amount: float) -> None:
    """FedProx: a step of the proximal term, which no patient is in."""
    moved = flatten(network)
    load_flat(network, moved - np.float32(amount) * (moved - anchor))


def _prototypes(
    network: UNet,
    units: Sequence[Unit],
    study: Study,
    release: PrototypeMechanism,
    runtime: Runtime,
) -> NDArray[np.int64]:
    total = np.zeros(release.size, np.int64)
    for unit in units:
        try:
            means, present = patient_means(
                network,
                unit.patient.images[list(unit.slices)],
                unit.patient.masks[list(unit.slices)],
                release.slots,
                study.data.classes,
                runtime,
            )
        except _BROKEN:
            # DP-4.3: as a patient without any of the classes.
            continue
        total += release.contribution(means, present)
    return total
