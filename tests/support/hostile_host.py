"""Which sites the malicious combiner is tried on: this repository's, or those of another stack."""

from __future__ import annotations

import importlib
import os

import pytest
from hostile_combiner import OpenHost
from our_site import OurHost

VARIABLE = "FEDBCS_HOSTILE_HOST"
"""Names another stack's opener of hosts as ``module:callable``."""


def chosen_host() -> OpenHost:
    """The opener that the environment names, or this repository's."""
    where = os.environ.get(VARIABLE)
    if where is None:
        return OurHost
    module, _, name = where.partition(":")
    opener: OpenHost = getattr(importlib.import_module(module), name)
    return opener


def only_ours(why: str) -> pytest.MarkDecorator:
    """Skip where another stack was named: the test cannot say anything about it."""
    return pytest.mark.skipif(VARIABLE in os.environ, reason=f"says nothing about others: {why}")
