"""Live progress of a run: a table that updates in a terminal, a line a round elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedbcs_secure.federation.events import (
    Event,
    RoundFinished,
    RoundStarted,
    SiteTrained,
    SiteValidated,
    StepDone,
)


def duration(seconds: float) -> str:
    """``0.4 s``, ``7 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds < 9.95 else "10 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Bytes for people: ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


class RunDisplay:
    """Observer of a simulation; use as a context manager around the run."""

    def __init__(self, console: Console, sites: Sequence[str], *, first_round: int = 0) -> None:
        self._console = console
        self._loss: dict[str, float] = {}
        self._dice: dict[str, float] = {}
        self._steps: dict[str, tuple[int, int]] = {}
        self._sites = tuple(sites)
        self._round = first_round
        self._rounds = 0
        self._bytes = 0
        self._missing: tuple[str, ...] = ()
        self._round_seconds: list[float] = []
        self._round_started = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=console, refresh_per_second=4, transient=True
            )

    def __enter__(self) -> RunDisplay:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone | SiteTrained) and event.site not in self._sites:
            self._sites = (event.site, *self._sites)  # method pooled trains a site of its own
        match event:
            case RoundStarted():
                self._round, self._rounds = event.round, event.rounds
                self._steps = {}
                self._round_started = time.monotonic()
            case StepDone():
                self._steps[event.site] = (event.done, event.total)
            case SiteTrained():
                self._loss[event.site] = event.loss
            case SiteValidated():
                self._dice[event.site] = event.dice
            case RoundFinished():
                self._round_seconds.append(event.seconds)
                self._bytes += event.bytes_up
                self._missing = event.missing
                if self._live is None:
                    self._console.print(self._line(event), highlight=False, soft_wrap=True)

    def _left(self) -> str:
        if not self._round_seconds:
            return "…"
        recent = self._round_seconds[-5:]
        mean = sum(recent) / len(recent)
        remaining = self._rounds - self._round
        return duration(max(0.0, mean * remaining - (time.monotonic() - self._round_started)))

    def _line(self, event: RoundFinished) -> str:
        losses = " ".join(f"{s} {self._loss[s]:.3f}" for s in self._sites if s in self._loss)
        dice = " ".join(f"{s} {self._dice[s]:.3f}" for s in self._sites if s in self._dice)
        left = self._rounds - event.round - 1
        mean = sum(self._round_seconds[-5:]) / len(self._round_seconds[-5:])
        return (
            f"round {event.round + 1}/{self._rounds} · loss {losses}"
            + (f" · validation Dice {dice}" if dice else "")
            + (f" · {size(event.bytes_up)} up a site" if event.bytes_up else "")
            + (f" · without {', '.join(event.missing)}" if event.missing else "")
            + (f" · {', '.join(event.late)} left, but in the sum" if event.late else "")
            + (f" · state reused at {', '.join(event.reused)}" if event.reused else "")
            + (f" · attempt {event.attempts}" if event.attempts > 1 else "")
            + f" · {duration(event.seconds)}"
            + (f" · {duration(left * mean)} left" if left else "")
        )

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("site", style="bold")
        table.add_column("this round", width=24)
        table.add_column("loss", justify="right")
        table.add_column("validation Dice", justify="right")
        for site in self._sites:
            done, total = self._steps.get(site, (0, 1))
            table.add_row(
                site,
                ProgressBar(total=total, completed=done, width=24),
                f"{self._loss[site]:.3f}" if site in self._loss else "-",
                f"{self._dice[site]:.3f}" if site in self._dice else "-",
            )
        head = Text(
            f"\nround {self._round + 1} of {self._rounds or '?'} · "
            + (f"{size(self._bytes)} sent a site · " if self._bytes else "")
            + (f"last round without {', '.join(self._missing)} · " if self._missing else "")
            + f"time left {self._left()}"
        )
        return Group(head, table)
