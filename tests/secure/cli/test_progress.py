from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedbcs_secure.cli.progress import RunDisplay, duration, size
from fedbcs_secure.federation.events import (
    RoundFinished,
    RoundStarted,
    SiteTrained,
    SiteValidated,
    StepDone,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.13, "0.1 s"), (9.97, "10 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (4_400_000, "4.4 MB"), (3e12, "3000.0 GB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def play(display: RunDisplay, *, site: str = "A") -> None:
    display(RoundStarted(0, 2))
    display(StepDone(site, 3, 6))
    display(SiteTrained(site, 0.4321, 1.0))
    display(SiteValidated("A", 0.75))
    display(RoundFinished(0, 2.0, 4_400_000, 4_400_000))
    display(RoundStarted(1, 2))


def test_a_terminal_sees_a_table() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    with RunDisplay(console, ("A", "B")) as display:
        play(display)
        console.print(display._render())
    text = console.export_text()
    for part in ("round 2 of 2", "4.4 MB sent a site", "time left", "0.432", "0.750"):
        assert part in text


def test_elsewhere_a_line_a_round() -> None:
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=200), ("A", "B")) as display:
        play(display)
    assert out.getvalue().strip() == (
        "round 1/2 · loss A 0.432 · validation Dice A 0.750 · 4.4 MB up a site · 2.0 s · 2.0 s left"
    )


def test_sites_that_dropped_out_and_attempts_are_told() -> None:
    event = RoundFinished(0, 2.0, 4_400_000, 4_400_000, ("B", "C"), 2, ("A",), ("A",))
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=200), ("A", "B", "C")) as display:
        display(RoundStarted(0, 2))
        display(event)
    assert (
        "without B, C · A left, but in the sum · state reused at A · attempt 2 · 2.0 s"
        in out.getvalue()
    )
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    with RunDisplay(console, ("A", "B", "C")) as display:
        display(RoundStarted(0, 2))
        display(event)
        console.print(display._render())
    assert "last round without B, C" in console.export_text()


def test_the_pooled_learner_has_its_own_row() -> None:
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=200), ("A", "B")) as display:
        play(display, site="pooled")
    assert "loss pooled 0.432" in out.getvalue()
