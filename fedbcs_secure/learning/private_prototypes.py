"""Class means under differential privacy: integers of bounded length a patient, noise on their sum.

For each slot (view, class) a patient gives the mean fused feature over its own pixels and whether
it has the class. All features of the patient together are clipped to C and truncated toward zero
to a grid of L units; presence is a constant number of units. So adding or removing a patient moves
the integer sum by at most ``sensitivity_squared``, exactly (DP-4). Rounding the sum instead of each
patient's part would break that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.learning.device import Runtime
from fedbcs_secure.learning.fusion import VIEWS, Features
from fedbcs_secure.learning.unet import UNet
from fedbcs_secure.privacy.discrete_gaussian import discrete_gaussian, round_up
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.randomness import SecretStream

GRID = 1 << 15
"""L: units that stand for the clip."""

_HUGE = 1e100

Slot = tuple[int, int]
"""View and class."""


@dataclass(frozen=True)
class PrototypeMechanism:
    """The release of the sums over a site's patients, in ``slots`` of ``width`` (3d) features each.

    ``presence`` is λ; if it is 0, no presence is released. ``noise_multiplier`` is that of the sum
    over the sites; with ``parts`` h > 1 each site adds a variance of 1/h of it (noise = "shared").
    Raises :class:`PrivacyError`.
    """

    slots: tuple[Slot, ...]
    width: int
    clip: float
    presence: float
    noise_multiplier: float
    parts: int = 1

    def __post_init__(self) -> None:
        usable = self.presence == 0 or self.presence_units > 0
        if not (self.slots and self.parts >= 1 and self.noise_multiplier > 0 and usable):
            raise PrivacyError("a release of prototypes needs slots, sites and noise")

    @property
    def presence_units(self) -> int:
        """Units of a class that is there: the block of all slots is at most λL long."""
        return math.floor(self.presence * GRID / math.sqrt(len(self.slots)))

    @property
    def sensitivity_squared(self) -> int:
        """Most that the squared length of one patient's integers can be (DP-4.2)."""
        return GRID**2 + len(self.slots) * self.presence_units**2

    @property
    def variance(self) -> Fraction:
        """Of the noise that one site adds to each integer."""
        return Fraction(self.noise_multiplier) ** 2 * self.sensitivity_squared / self.parts

    @property
    def slot_width(self) -> int:
        """Integers of a slot: its features, and one for presence."""
        return self.width + (self.presence > 0)

    @property
    def size(self) -> int:
        """Integers of a release."""
        return len(self.slots) * self.slot_width

    def contribution(
        self, means: NDArray[np.float64], present: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """One patient's integers from its class means (slots, width) and presence (slots,).

        Means that are not finite count as absent (DP-4.3).
        """
        present = present & np.isfinite(means).all(axis=1)
        means = np.where(present[:, None], means, 0.0)
        largest = float(np.abs(means).max(initial=0))
        if largest > _HUGE:
            # Only the direction of so long a vector is left, and squares must not overflow.
            means = means / largest * _HUGE
        scale = GRID / max(float(np.linalg.norm(means)), self.clip)
        while True:
            units = np.trunc(means * scale).astype(np.int64)
            # DP-4.1: exact, in integers.
            if int(np.square(units).sum()) <= GRID**2:
                break
            scale *= 1 - 2.0**-20
        out = np.zeros((len(self.slots), self.slot_width), np.int64)
        out[:, : self.width] = units
        out[:, self.width :] = (present * self.presence_units)[:, None]
        return out.reshape(-1)

    def noisy(self, total: NDArray[np.int64], stream: SecretStream) -> NDArray[np.int64]:
        """The sum (size,) of contributions with this site's noise."""
        return total + discrete_gaussian(round_up(self.variance), self.size, stream)

    @property
    def events(self) -> Events:
        """What it costs where only this site's own noise counts: nobody else adds any."""
        return Gaussian(self.noise_multiplier / math.sqrt(self.parts)).times(1)

    def values(self, noisy: NDArray[np.int64]) -> NDArray[np.float64]:
        """(slots, slot_width): sums of features and number of patients with the class, noised."""
        out = noisy.reshape(len(self.slots), -1).astype(np.float64)
        out[:, : self.width] *= self.clip / GRID
        if self.presence > 0:
            out[:, self.width :] /= self.presence_units
        return out


@torch.no_grad()
def patient_means(
    network: UNet,
    images: NDArray[np.float32],
    masks: NDArray[np.uint8],
    slots: Sequence[Slot],
    classes: int,
    runtime: Runtime,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """One patient's class means (slots, 3d) over all its pixels, and which classes it has.

    ``images`` (S, C, H, W) and ``masks`` (S, H, W).
    """
    fusion = network.fusion
    if fusion is None:
        raise PrivacyError("this network fuses no features, so it has no prototypes")
    labels = torch.from_numpy(masks.astype(np.int64)).to(runtime.device)
    with runtime.autocast():
        features = network(torch.from_numpy(images).to(runtime.device))
    features = Features(
        features.logits,
        tuple(level.float() for level in features.encoder),
        tuple(level.float() for level in features.decoder),
    )
    sums, counts = {}, {}
    for view in VIEWS:
        each, pixels = fusion.class_sums(features, view, labels, classes)
        sums[view] = each.sum(dim=0).double().cpu().numpy()
        counts[view] = pixels.sum(dim=0).double().cpu().numpy()
    means = np.stack([sums[view][label] / max(counts[view][label], 1) for view, label in slots])
    present = np.array([counts[view][label] > 0 for view, label in slots])
    return means, present
