"""Fixtures of the federation's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from federation_fixtures import FUSED, TENSORS

from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.layout import Layout, layout
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study


@pytest.fixture
def start() -> Callable[[Study], tuple[Layout, GlobalState]]:
    def make(study: Study) -> tuple[Layout, GlobalState]:
        fused = FUSED if study.alignment.form != "off" else 0
        plan = layout(study, TENSORS, fused)
        weights = np.random.default_rng(0).standard_normal(plan.parameters).astype(np.float32)
        return plan, initial_state(study, plan, weights)

    return make
