from __future__ import annotations

import pytest
from ckks_world import World


@pytest.fixture
def small() -> World:
    """Four sites, two chunks."""
    return World(count=9000)
