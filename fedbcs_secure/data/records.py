"""The values that every data source yields."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient's slices, ready for the network.

    ``images`` is (S, C, H, W) float32 in [0, 1]; ``masks`` is (S, H, W) uint8 class indices,
    0 = background; ``spacing_mm`` is the (row, column) pixel size after resizing, where known.
    ``patient`` is a pseudonym (see :func:`pseudonym`), unique within the site; ``source_id`` is the
    source's own name of the patient, for the site's ledger and nothing else.
    """

    site: str
    patient: str
    images: NDArray[np.float32]
    masks: NDArray[np.uint8]
    spacing_mm: tuple[float, float] | None = None
    source_id: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.float32:
            raise ValueError("images must be (S, C, H, W) float32")
        expected = (self.images.shape[0], *self.images.shape[2:])
        if self.masks.shape != expected or self.masks.dtype != np.uint8:
            raise ValueError(f"masks must be {expected} uint8, got {self.masks.shape}")

    @property
    def slices(self) -> int:
        """S."""
        return int(self.images.shape[0])

    @property
    def known_as(self) -> str:
        """The name that does not change with the site's name in a study or a manifest."""
        return self.source_id or self.patient


@dataclass(frozen=True, eq=False)
class Cohort:
    """One site's patients, split by patient; no patient is in two splits."""

    site: str
    train: tuple[Patient, ...]
    validation: tuple[Patient, ...]
    test: tuple[Patient, ...]

    def split(self, name: Split) -> tuple[Patient, ...]:
        """The patients of one split by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True, eq=False)
class Dataset:
    """All sites of a source, in sorted order of their names."""

    cohorts: Mapping[str, Cohort]
    classes: int
    channels: int

    @property
    def sites(self) -> tuple[str, ...]:
        """Names in sorted order."""
        return tuple(sorted(self.cohorts))


def pseudonym(site: str, patient_id: str, key: bytes = b"") -> str:
    """A stable name for a patient that does not show the source's id: ``p`` + 12 hex digits.

    HMAC-SHA256 of site and id. Without a key it hides an id from a glance, not from somebody who
    can guess it; ids should be pseudonyms before they reach a manifest.
    """
    message = site.encode() + b"\x00" + patient_id.encode()
    return "p" + hmac.new(key or b"fedbcs-secure", message, hashlib.sha256).hexdigest()[:12]
