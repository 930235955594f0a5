"""Fuzz every decoder and both sessions, guided by coverage (atheris).

``PYTHONPATH=protocols python tests/protocols/fuzz/fuzz.py --seconds 600 --log fuzz.log``, in an
environment with atheris, numpy, cryptography and tenseal. Each input goes to one target
(``targets.py``); libFuzzer's own lines are on stderr. A finding is an exception that the target
does not allow; the first input of each is kept as a file in ``--findings``, the run goes on, and
ends with status 1. ``--replay FILE`` runs one such file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fedbcs_protocols"]):
    from targets import TARGETS

from harness import Target, check, chooser, chosen

LONGEST_INPUT = 4096
_CLOCK_EVERY = 4096
_LOG_EVERY_S = 30.0


class Run:
    """Counts inputs, keeps findings, and ends the process when its time or number is up."""

    def __init__(self, seconds: float, runs: int, log: Path, findings: Path, corpus: Path) -> None:
        self._choice = chooser(TARGETS)
        self._seconds, self._runs = seconds, runs
        self._log, self._folder, self._corpus = log, findings, corpus
        self._inputs = dict.fromkeys((target.name for target in TARGETS), 0)
        self._taken = dict(self._inputs)
        self._findings: dict[str, int] = {}
        self._total = 0
        self._start = self._written = time.monotonic()

    def one(self, data: bytes) -> None:
        """What atheris calls."""
        target, rest = chosen(self._choice, data)
        self._inputs[target.name] += 1
        self._total += 1
        try:
            self._taken[target.name] += check(target, rest)
        except Exception as error:  # noqa: BLE001  (whatever comes out here is the finding)
            self._keep(target, rest, error)
        if self._total == self._runs or self._total % _CLOCK_EVERY == 0:
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        ended = self._total == self._runs or now - self._start >= self._seconds
        if ended or now - self._written >= _LOG_EVERY_S:
            self._written = now
            self._log.write_text(self.report(), encoding="utf-8")
        if ended:
            sys.stdout.write(self.report())
            sys.stdout.flush()
            shutil.rmtree(self._corpus, ignore_errors=True)
            # libFuzzer would count on in its own process; there is nothing left to do.
            os._exit(1 if self._findings else 0)

    def _keep(self, target: Target, data: bytes, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = (
            f"{target.name}: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        )
        if where not in self._findings:
            name = f"{target.name}-{hashlib.sha256(where.encode()).hexdigest()[:8]}.json"
            text = "".join(traceback.format_exception(error))
            content = {"target": target.name, "input": data.hex(), "error": text}
            (self._folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
        self._findings[where] = self._findings.get(where, 0) + 1

    def report(self) -> str:
        seconds = time.monotonic() - self._start
        lines = [
            f"inputs {self._total}  seconds {seconds:.0f}  inputs/s {self._total / seconds:.0f}",
            f"{'target':20} {'inputs':>10} {'taken':>10}",
        ]
        lines += [
            f"{name:20} {count:10} {self._taken[name]:10}" for name, count in self._inputs.items()
        ]
        lines.append(f"findings {len(self._findings)}")
        lines += [f"  {where}: {count} inputs" for where, count in self._findings.items()]
        return "\n".join(lines) + "\n"


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """atheris's own change of an input, one byte changed, or its change cut to the old length.

    Most bodies have one right length, so that most other changes get no further than its check.
    """
    if seed % 4 == 1 and data:
        position = seed // 1024 % len(data)
        return data[:position] + bytes([seed // 4 % 256]) + data[position + 1 :]
    changed: bytes = atheris.Mutate(data, longest)
    if seed % 4 == 3:
        return changed[: len(data)] + data[len(changed) :]
    return changed


def write_seeds(folder: Path) -> None:
    """The targets' seeds as a first corpus, each behind the byte that chooses its target."""
    choice = chooser(TARGETS)
    for byte, target in enumerate(choice):
        # A slow target's seed also serves the one that gets most of its inputs.
        if target not in choice[:byte]:
            for number, seed in enumerate(target.seeds):
                path = folder / f"{target.name}-{number}"
                path.write_bytes(bytes([byte]) + seed)


def replay(path: Path) -> None:
    """Run the input of a finding; its error comes out."""
    content = json.loads(path.read_text("utf-8"))
    target = next(target for target in TARGETS if target.name == content["target"])
    taken = check(target, bytes.fromhex(content["input"]))
    sys.stdout.write(f"{target.name}: {'taken' if taken else 'refused, as allowed'}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--runs", type=int, default=0, help="inputs at most; 0: no such limit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("fuzz.log"))
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="run the input of a finding, nothing else")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        replay(arguments.replay)
        return
    arguments.findings.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    write_seeds(corpus)
    run = Run(arguments.seconds, arguments.runs, arguments.log, arguments.findings, corpus)
    options = [
        f"-max_len={LONGEST_INPUT}",
        f"-seed={arguments.seed}",
        "-timeout=20",
        "-rss_limit_mb=4096",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
