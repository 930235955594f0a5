"""Fixtures of the federation's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from federation_fixtures import FUSED, TENSORS, Cast, Stepwise, make_study
from private_world import Make, Private, private_study

from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.layout import Layout, layout
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.privacy.policy import SitePolicy
from fedbcs_secure.study import Study


@pytest.fixture
def start() -> Callable[[Study], tuple[Layout, GlobalState]]:
    def make(study: Study) -> tuple[Layout, GlobalState]:
        fused = FUSED if study.alignment.form != "off" else 0
        plan = layout(study, TENSORS, fused)
        weights = np.random.default_rng(0).standard_normal(plan.parameters).astype(np.float32)
        return plan, initial_state(study, plan, weights)

    return make


@pytest.fixture
def stepwise(start: Callable[[Study], tuple[Layout, GlobalState]]) -> Callable[..., Stepwise]:
    def make(names: str = "ABCD", **values: object) -> Stepwise:
        study = make_study(names, **values)
        plan, state = start(study)
        cast = Cast(study, plan)
        return Stepwise(cast, state, cast.sites(state))

    return make


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    made: list[Private] = []
    numbers = count()

    def make(study: Study | None = None, **policies: SitePolicy) -> Private:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        made.append(Private(folder, study or private_study(), **policies))
        return made[-1]

    yield make
    for each in made:
        for books in each.cast.books.values():
            books.ledger.close()
