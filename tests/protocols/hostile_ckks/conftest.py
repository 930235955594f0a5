"""Runs a family of attacks in a process of its own, once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """One attack: how it ended, and how many ciphertexts were decrypted for it."""

    clause: str
    name: str
    ended: str
    decrypted: int


@dataclass(frozen=True)
class Run:
    lines: tuple[Line, ...]
    code: int
    died_in: str
    """The attack that was begun and not ended; empty if all were."""
    said: str


@lru_cache
def run_family(family: str) -> Run:
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(HERE / "run.py"), family],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    *whole, last = ran.stdout.split("\n")
    fields = [line.split("\t") for line in whole]
    lines = tuple(Line(c, n, ended, int(count)) for c, n, ended, count in fields)
    return Run(lines, ran.returncode, "\t".join(last.split("\t")[1:2]), ran.stderr)


@pytest.fixture(scope="session")
def run_of() -> object:
    return run_family
