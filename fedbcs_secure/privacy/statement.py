"""What a ledger says for people: spent, left, and by which studies (DP-5.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedbcs_secure.privacy.chain import Book, Head
from fedbcs_secure.privacy.events import Events, Unit
from fedbcs_secure.privacy.histories import spend
from fedbcs_secure.privacy.policy import SitePolicy


@dataclass(frozen=True)
class StudySpend:
    """One study in a statement: its releases, what they hide, and the epsilon of it by itself."""

    study: bytes
    rounds: int
    epsilon: float
    unit: Unit


@dataclass(frozen=True)
class Statement:
    """What a ledger says: all at the policy's ``delta`` and ``unit``, of the patient worst off.

    An epsilon is infinite where the policy asks for patients to be hidden, and a release hid single
    images only (DP-5.10).
    """

    epsilon: float
    delta: float
    unit: Unit
    cap: float
    remaining: float
    local_epsilon: float
    local_cap: float | None
    releases: int
    refusals: int
    studies: tuple[StudySpend, ...]
    head: Head


def state(book: Book, policy: SitePolicy, price: Callable[[Events], float]) -> Statement:
    """The statement of a ledger. ``price``: the epsilon of events at the policy's delta."""
    different = book.histories.different()
    epsilon = spend(different, policy.unit, price)
    return Statement(
        epsilon=epsilon,
        delta=policy.delta,
        unit=policy.unit,
        cap=policy.epsilon,
        remaining=max(0.0, policy.epsilon - epsilon),
        local_epsilon=spend(different, policy.unit, price, alone=True),
        local_cap=policy.local_epsilon,
        releases=len(book.releases),
        refusals=len(book.refusals),
        studies=tuple(
            StudySpend(
                study,
                rounds=sum(s == study for s, _ in book.releases),
                epsilon=histories.spend(policy.unit, price),
                unit=histories.unit,
            )
            for study, histories in book.studies.items()
        ),
        head=book.head,
    )
