"""Which patients have which history, and who of them is worst off (DP-5.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fedbcs_secure.privacy.events import Events

PATIENT_BYTES = 16


Cost = Callable[[Events, float], float]
"""The epsilon of events at a delta."""


def split(patients: bytes) -> Iterator[bytes]:
    """The hashes in a release's ``patients``."""
    for at in range(0, len(patients), PATIENT_BYTES):
        yield patients[at : at + PATIENT_BYTES]


@dataclass(frozen=True)
class History:
    """All that was released about a patient: as it is hidden, and with this site's noise alone."""

    events: Events = field(default_factory=Events)
    alone: Events = field(default_factory=Events)

    def __add__(self, other: History) -> History:
        events = self.events + other.events
        if self.alone == self.events and other.alone == other.events:
            return History(events, events)
        return History(events, self.alone + other.alone)


class Histories:
    """Who has which history. Patients with the same one are counted once (DP-5.3)."""

    def __init__(self) -> None:
        self._of: dict[bytes, History] = {}
        self._same: dict[History, History] = {}

    def add(self, patients: bytes, release: History) -> None:
        """Book a release about ``patients``."""
        following: dict[int, History] = {}
        none = History()
        for patient in split(patients):
            old = self._of.get(patient, none)
            if id(old) not in following:
                new = old + release
                following[id(old)] = self._same.setdefault(new, new)
            self._of[patient] = following[id(old)]

    def after(self, patients: bytes, release: History) -> list[History]:
        """The different histories that ``patients`` would have after one more release."""
        none = History()
        old = {id(h): h for h in (self._of.get(p, none) for p in split(patients))}
        return [history + release for history in old.values()]

    def different(self) -> list[History]:
        """Every history that a patient has."""
        return list({id(history): history for history in self._of.values()}.values())

    def worst(self, cost: Callable[[Events], float]) -> float:
        """The largest cost of any patient; 0 without patients."""
        return worst((history.events for history in self.different()), cost)


def worst(histories: Iterable[Events], cost: Callable[[Events], float]) -> float:
    """The largest cost; a history that is part of another is not asked for."""
    kept: list[dict[Any, int]] = []
    highest = 0.0
    by_size = sorted(set(histories), key=lambda events: -sum(n for _, n in events.parts))
    for events in by_size:
        if events and not any(
            all(other.get(event, 0) >= n for event, n in events.parts) for other in kept
        ):
            kept.append(dict(events.parts))
            price = cost(events)
            # What cannot be said is not below any cap.
            highest = max(highest, math.inf if math.isnan(price) else price)
    return highest
