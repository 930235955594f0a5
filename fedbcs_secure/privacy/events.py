"""What a release about patients cost, as frozen values: an algebra of Gaussian mechanisms (DP-1).

Everything that a site releases is the sum of vectors of patients, each of a bounded length, plus
Gaussian noise. With sensitivity 1 that is said by two numbers; a history is a multiset of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fedbcs_secure.errors import PrivacyError

MAX_COUNT = 10**9
MAX_PARTS = 10_000

Unit = Literal["patient", "slice"]
"""What a release hides: a patient with all images, or single images only."""
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True, order=True)
class Gaussian:
    """A Gaussian mechanism on patients, each of whom is taken with probability ``sampling_rate``.

    ``noise_multiplier``: standard deviation of the noise over the L2 sensitivity for adding or
    removing one patient. Sampling is Poisson: independent for each patient and release. Zero noise
    is not private, and said so. Raises :class:`PrivacyError` for numbers out of range.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise PrivacyError(f"a noise multiplier is 0 or more, not {self.noise_multiplier}")
        if not 0 < self.sampling_rate <= 1:
            raise PrivacyError(f"a sampling rate is above 0 and at most 1: {self.sampling_rate}")
        # Equal numbers are written alike.
        object.__setattr__(self, "noise_multiplier", abs(float(self.noise_multiplier)))
        object.__setattr__(self, "sampling_rate", float(self.sampling_rate))

    @property
    def private(self) -> bool:
        return self.noise_multiplier > 0

    def times(self, count: int) -> Events:
        return Events(((self, count),)) if count else Events()


@dataclass(frozen=True)
class Events:
    """Releases about the same patients, one after another, each with how often: order is no matter.

    Equal histories are equal values: parts are sorted, and none appears twice. Build them with
    ``+`` and :meth:`Gaussian.times`. Raises :class:`PrivacyError`.
    """

    parts: tuple[tuple[Gaussian, int], ...] = ()

    def __post_init__(self) -> None:
        counts: dict[Gaussian, int] = {}
        for event, count in self.parts:
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
                raise PrivacyError(f"a release happens from 1 to {MAX_COUNT} times, not {count!r}")
            counts[event] = counts.get(event, 0) + count
        if len(counts) > MAX_PARTS or any(count > MAX_COUNT for count in counts.values()):
            raise PrivacyError("more releases than can be accounted for")
        object.__setattr__(self, "parts", tuple(sorted(counts.items())))

    def __add__(self, other: Events) -> Events:
        return Events(self.parts + other.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    def times(self, count: int) -> Events:
        """The same ``count`` times over."""
        return Events(tuple((event, n * count) for event, n in self.parts)) if count else Events()

    @property
    def private(self) -> bool:
        """Whether every release has noise; if not, epsilon is infinite."""
        return all(event.private for event, _ in self.parts)

    def encode(self) -> str:
        """Canonical JSON, [[noise multiplier, sampling rate, count], ...]; floats survive it."""
        rows = [[e.noise_multiplier, e.sampling_rate, n] for e, n in self.parts]
        return json.dumps(rows, separators=(",", ":"), allow_nan=False)

    @classmethod
    def decode(cls, text: str) -> Events:
        """Raises :class:`PrivacyError` for anything but the canonical form."""
        try:
            rows: Any = json.loads(text)
            events = cls(tuple((Gaussian(float(s), float(q)), n) for s, q, n in rows))
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise PrivacyError("these are no privacy events") from None
        if events.encode() != text:
            raise PrivacyError("these privacy events are not in their canonical form")
        return events


def total(histories: Iterable[Events]) -> Events:
    """All of them, one after another."""
    return Events(tuple(part for events in histories for part in events.parts))
