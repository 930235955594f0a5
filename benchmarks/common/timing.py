"""Shared by the benchmarks: interleaved timing of peers, options and the JSON line."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Action = Callable[[], object]


def interleaved_medians(
    peers: Mapping[str, Action], *, repeats: int, warmup: int = 1
) -> dict[str, float]:
    """Median seconds of each peer, called in turn so that a busy machine slows all alike."""
    for action in peers.values():
        for _ in range(warmup):
            action()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(repeats):
        for name, action in peers.items():
            started = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def parser(description: str, *, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--json", action="store_true", help="print one JSON object as last line")
    result.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    result.add_argument(
        "--repeats", type=int, default=repeats, help=f"timed calls of each peer (default {repeats})"
    )
    return result


def report(results: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the results as a table, and as one JSON line where asked for."""
    width = max(len(name) for name in results)
    for name, value in results.items():
        print(
            f"{name:<{width}}  {value:.4g}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )
    if as_json:
        print(json.dumps(dict(results)))
