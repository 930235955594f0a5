"""Which patients have which history, and who of them is worst off (DP-5.3, DP-5.10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fedbcs_secure.privacy.events import Events, Unit

PATIENT_BYTES = 16
_MAX_KNOWN = 4096

Cost = Callable[[Events, float], float]
"""The epsilon of events at a delta."""


def split(patients: bytes) -> Iterator[bytes]:
    """The hashes in a release's ``patients``."""
    for at in range(0, len(patients), PATIENT_BYTES):
        yield patients[at : at + PATIENT_BYTES]


@dataclass(frozen=True)
class History:
    """All that was released about a patient: as it is hidden, and with this site's noise alone.

    ``unit``: what every one of the releases hides; "slice" if one of them hides single images only.
    """

    events: Events = field(default_factory=Events)
    alone: Events = field(default_factory=Events)
    unit: Unit = "patient"

    def __add__(self, other: History) -> History:
        events = self.events + other.events
        unit = all_hide((self, other))
        if self.alone == self.events and other.alone == other.events:
            return History(events, events, unit)
        return History(events, self.alone + other.alone, unit)


def all_hide(promises: Iterable[History]) -> Unit:
    """What each of them hides: what hides a patient hides each of the images too (DP-5.10)."""
    return "slice" if any(promise.unit == "slice" for promise in promises) else "patient"


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

    @property
    def unit(self) -> Unit:
        """What every release hides."""
        return all_hide(self.different())

    def spend(self, unit: Unit, cost: Callable[[Events], float]) -> float:
        """The largest spend on any patient; 0 without patients."""
        return spend(self.different(), unit, cost)


class Prices:
    """The epsilon of events at one delta, each asked for once."""

    def __init__(self, cost: Cost, delta: float) -> None:
        self.delta = delta
        self._cost = cost
        self._known: dict[Events, float] = {}

    def __call__(self, events: Events) -> float:
        if events not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[events] = self._cost(events, self.delta)
        return self._known[events]


def spend(
    histories: Iterable[History],
    unit: Unit,
    cost: Callable[[Events], float],
    *,
    alone: bool = False,
) -> float:
    """The largest spend of ``histories`` where ``unit`` is to be hidden (DP-5.3).

    ``alone``: with this site's noise alone. Infinite where patients are to be hidden and a release
    hid single images only: it says nothing bounded about a patient with several.
    """
    found = list(histories)
    # DP-5.10
    if unit == "patient" and all_hide(found) != "patient":
        return math.inf
    return worst((history.alone if alone else history.events for history in found), cost)


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
