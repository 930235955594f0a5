"""Calling ``fedbcs-secure`` as a shell would."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fedbcs_secure.cli import main

TINY = (
    "--patients", "5", "--slices", "2", "--size", "32", "--channels", "1", "--width", "4",
    "--batch-size", "3", "--device", "cpu", "--overlays", "1", "--seed", "5",
    "--severity", "0.5",
)  # fmt: skip
CODE = "from fedbcs_secure.cli.main import run; run()"
ENVIRONMENT = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, cwd: Path | None = None) -> Result:
    """Run the entry point in this process, so that PyTorch is loaded once for all tests."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, ENVIRONMENT),
        mock.patch.object(sys, "argv", ["fedbcs-secure", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.run()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return Result(code, out.getvalue(), err.getvalue())


def _interruptible() -> None:
    """A test run in the background of a shell ignores SIGINT, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start and return the process; the caller reaps it."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        preexec_fn=_interruptible,
    )
