"""Which sites the malicious combiner tries its attacks on."""

from __future__ import annotations

import pytest
from hostile_combiner import OpenHost
from hostile_host import chosen_host


@pytest.fixture(scope="session")
def open_host() -> OpenHost:
    """This repository's sites, or those that FEDBCS_HOSTILE_HOST names as ``module:callable``."""
    return chosen_host()
