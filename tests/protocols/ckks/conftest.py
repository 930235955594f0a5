"""What the tests of encrypted sums share."""

from __future__ import annotations

import pytest
from ckks_world import World


@pytest.fixture
def small() -> World:
    """Four sites and two chunks."""
    return World(count=9000)
