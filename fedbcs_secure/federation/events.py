"""What a simulation tells its observer, as frozen values. Observers only look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RoundStarted:
    """Round ``round`` (from 0) of ``rounds`` begins."""

    round: int
    rounds: int


@dataclass(frozen=True)
class StepDone:
    """A site finished ``done`` of ``total`` optimizer steps of this round."""

    site: str
    done: int
    total: int


@dataclass(frozen=True)
class SiteTrained:
    """A site finished its local training; ``loss`` is the mean over its steps."""

    site: str
    loss: float
    seconds: float


@dataclass(frozen=True)
class SiteValidated:
    """Mean foreground Dice over the site's validation patients, under the new state."""

    site: str
    dice: float


@dataclass(frozen=True)
class RoundFinished:
    """``bytes_up`` is one site's upload in all stages, ``bytes_down`` what one site was sent.

    ``missing`` are the sites that are not in the round's sum, ``attempts`` how often it was tried,
    ``late`` the sites that are in the sum but left before the round was over, ``reused`` those that
    answered again for a state that they had answered for.
    """

    round: int
    seconds: float
    bytes_up: int
    bytes_down: int
    missing: tuple[str, ...] = ()
    attempts: int = 1
    late: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()


Event = RoundStarted | StepDone | SiteTrained | SiteValidated | RoundFinished
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer that does not look."""
