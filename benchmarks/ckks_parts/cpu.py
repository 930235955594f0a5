"""CPU time of peers in turn. It counts all threads, and little of what else the machine does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Step:
    """What is timed, and what it is given: ``prepare`` is called before, and is not timed."""

    act: Callable[[Any], object]
    prepare: Callable[[], Any] = _nothing


def interleaved(steps: Mapping[str, Step], *, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each step, called in turn.

    A first call does not count, unless there is only one.
    """
    warmup = 1 if repeats > 1 else 0
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + repeats):
        for name, step in steps.items():
            given = step.prepare()
            started = time.process_time()
            step.act(given)
            spent = time.process_time() - started
            if turn >= warmup:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the CPU seconds of one call."""
    started = time.process_time()
    result = act()
    return result, time.process_time() - started
