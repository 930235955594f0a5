"""Which sites the malicious combiner tries its attacks on."""

from __future__ import annotations

import importlib
import os

import pytest
from hostile_combiner import OpenHost
from our_site import OurHost


@pytest.fixture
def open_host() -> OpenHost:
    """This repository's sites, or those that FEDBCS_HOSTILE_HOST names as ``module:callable``."""
    where = os.environ.get("FEDBCS_HOSTILE_HOST")
    if where is None:
        return OurHost
    module, _, name = where.partition(":")
    opener: OpenHost = getattr(importlib.import_module(module), name)
    return opener
