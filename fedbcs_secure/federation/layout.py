"""What stands where in the one vector that a site contributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedbcs_protocols.codec import MAX_EXPONENT, MIN_EXPONENT
from fedbcs_secure.errors import StudyError
from fedbcs_secure.learning.fusion import VIEWS
from fedbcs_secure.learning.weights import TensorSpec
from fedbcs_secure.sections import SiteEntry
from fedbcs_secure.study import MAX_SHARE, Study

SHARE_STEPS = 4
"""Steps of the codec that the deviation of a share of noise has at least."""
NOISE_ROOM = 6
"""Standard deviations of noise that a value's range has room for; what is beyond is clipped."""


@dataclass(frozen=True)
class PrototypeSlot:
    """One class in one view, with the sites that hold the class."""

    view: int
    label: int
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Weight tensors in model order, then prototypes by (view, class); a range each.

    ``sizes`` are the lengths of the segments, ``parameters`` is P, ``length`` that of the vector.
    """

    tensors: tuple[TensorSpec, ...]
    slots: tuple[PrototypeSlot, ...]
    fused_channels: int
    private: bool = False
    """Whether slots hold noised sums over patients (DP-4) in place of means."""
    counted: bool = False
    """Whether a slot then ends with the noised number of patients that have the class."""

    @property
    def slot_width(self) -> int:
        """Values of a slot."""
        return self.fused_channels + self.counted

    @property
    def parameters(self) -> int:
        """P, the number of weights."""
        return sum(t.size for t in self.tensors)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the segments, in order."""
        return (*(t.size for t in self.tensors), *(self.slot_width for _ in self.slots))

    @property
    def length(self) -> int:
        """N, the length of the whole vector."""
        return self.parameters + len(self.slots) * self.slot_width


def layout(study: Study, tensors: Sequence[TensorSpec], fused_channels: int) -> Layout:
    """The layout of a resolved study.

    A class with too few holders, or one of too much weight, is left out (RO-3.4): when others have
    dropped out, its sum would come close to showing a single site's prototype.
    """
    slots = []
    if study.alignment.form != "off" and fused_channels:
        for view in VIEWS:
            for label in range(study.data.classes):
                holders = tuple(s.name for s in study.roster if label in s.classes)
                slot = PrototypeSlot(view, label, holders)
                if len(holders) < study.fewest_holders or not _is_mixed(study, slot):
                    continue
                # DP-4.5: who does not hold a class adds no noise to its sum.
                if _is_shared(study) and len(holders) < len(study.roster):
                    continue
                slots.append(slot)
    _check_shares(study, slots)
    privacy = study.privacy
    counted = privacy is not None and privacy.presence > 0
    return Layout(tuple(tensors), tuple(slots), fused_channels, privacy is not None, counted)


def _is_shared(study: Study) -> bool:
    return study.privacy is not None and study.privacy.noise == "shared"


def _check_shares(study: Study, slots: Sequence[PrototypeSlot]) -> None:
    """Raise :class:`StudyError` where quantising a share of noise would undo some of it (DP-4.5).

    Sites quantise before they add up, with public rounding: shares much finer than a step vanish.
    """
    privacy = study.privacy
    if privacy is None or privacy.prototype_noise is None or not slots or not _is_shared(study):
        return
    share = privacy.prototype_clip * privacy.prototype_noise / math.sqrt(study.noise_shares)
    step = max(2.0 ** (ceil_log2(_prototype_reach(study, s)) + 1) for s in slots)
    if share < SHARE_STEPS * step / 2**study.codec.bits:
        raise StudyError(
            "privacy: a site's share of the noise on prototypes is less than "
            f"{SHARE_STEPS} steps of the codec; use more codec.bits, more prototype_noise, or "
            'noise = "site"'
        )


def _is_mixed(study: Study, slot: PrototypeSlot) -> bool:
    shares = [prototype_share(study, slot, site) for site in slot.holders]
    return len(study.roster) < 3 or study.largest_share(shares) <= MAX_SHARE


def share(study: Study, site: str) -> float:
    """The site's part of the weighted average: nominal weight over the roster's total."""
    return entry(study, site).weight / math.fsum(s.weight for s in study.roster)


def prototype_share(study: Study, slot: PrototypeSlot, site: str) -> float:
    """The site's part of a prototype's average.

    Gentle alignment weighs sites equally; otherwise nominal weights among the holders.
    """
    if site not in slot.holders:
        return 0.0
    if study.privacy is not None:
        # Sums over patients add up as they are; only their ratio is used.
        return 1.0
    if study.alignment.form == "gentle":
        return 1 / len(slot.holders)
    return entry(study, site).weight / math.fsum(entry(study, s).weight for s in slot.holders)


def entry(study: Study, site: str) -> SiteEntry:
    """The site's line in the roster. Raises KeyError for a stranger."""
    for candidate in study.roster:
        if candidate.name == site:
            return candidate
    raise KeyError(site)


def initial_exponents(study: Study, plan: Layout) -> tuple[int, ...]:
    """Ranges of round 0, from the study alone.

    An Adam step moves a weight by about lr; twice lr times the steps bounds a round with room.
    For SGD the gradient is taken as at most 4. Raises :class:`StudyError` when the study's numbers
    leave what the codec can carry.
    """
    t = study.training
    reach = study.codec.initial_update_range
    if reach is None:
        per_step = 2 * t.lr if t.optimizer == "adam" else 4 * t.lr / (1 - t.momentum)
        reach = max(share(study, s.name) * s.steps for s in study.roster) * per_step
    update = ceil_log2(reach)
    out = [update] * len(plan.tensors)
    for slot in plan.slots:
        out.append(ceil_log2(_prototype_reach(study, slot)))
    if not all(MIN_EXPONENT <= e <= MAX_EXPONENT for e in out):
        raise StudyError(
            f"an initial range is outside 2^{MIN_EXPONENT} to 2^{MAX_EXPONENT}; check codec, "
            "training.lr and the roster's steps"
        )
    return tuple(out)


def _prototype_reach(study: Study, slot: PrototypeSlot) -> float:
    """The largest value of a slot that a site has to be able to send."""
    privacy = study.privacy
    if privacy is None or privacy.prototype_noise is None:
        largest = max(prototype_share(study, slot, s) for s in slot.holders)
        return largest * study.codec.initial_prototype_range
    # DP-4.4: from clip, noise and nominal numbers alone.
    nominal = max(entry(study, site).patients or 1 for site in slot.holders)
    deviation = privacy.prototype_noise * math.hypot(1, privacy.presence)
    reach = privacy.prototype_clip * (nominal + NOISE_ROOM * deviation)
    if privacy.presence:
        slots = 2 * study.data.classes
        counts = nominal + NOISE_ROOM * deviation * math.sqrt(slots) / privacy.presence
        reach = max(reach, counts)
    return reach


def ceil_log2(value: float) -> int:
    """The smallest e with 2^e >= value > 0, exactly (a libm's log2 may differ in the last bit)."""
    mantissa, exponent = math.frexp(value)
    return exponent - 1 if mantissa == 0.5 else exponent
