"""The cast of a protected sum, with public test keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.secagg import CombinerSession, SiteSession

STUDY = hashlib.sha256(b"study").digest()
STATE = hashlib.sha256(b"state").digest()


# How long one example takes says more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@dataclass(frozen=True)
class Cast:
    """Identities of n sites and a combiner, and what they are about to add up."""

    sites: dict[str, Identity]
    combiner: Identity
    binding: Binding
    bits: int = 20
    count: int = 70

    @property
    def roster(self) -> dict[str, PublicIdentity]:
        return {name: identity.public for name, identity in self.sites.items()}

    def changed(self, **fields: Any) -> Cast:
        """The same cast with another binding."""
        return replace(self, binding=replace(self.binding, **fields))

    def site(self, name: str) -> SiteSession:
        return SiteSession(
            identity=self.sites[name],
            name=name,
            roster=self.roster,
            combiner=self.combiner.public,
            binding=self.binding,
            bits=self.bits,
            count=self.count,
        )

    def all_sites(self) -> dict[str, SiteSession]:
        return {name: self.site(name) for name in self.sites}

    def combine(self) -> CombinerSession:
        return CombinerSession(
            identity=self.combiner,
            roster=self.roster,
            binding=self.binding,
            bits=self.bits,
            count=self.count,
        )

    def vectors(self, seed: int = 0) -> dict[str, NDArray[np.uint32]]:
        """A vector a site, of values below 2^16."""
        random = np.random.default_rng(seed)
        return {
            name: random.integers(0, 2**16 - 1, self.count, dtype=np.uint32) for name in self.sites
        }


def _identity(label: str) -> Identity:
    return Identity.from_secret_bytes(hashlib.sha256(b"test " + label.encode()).digest())


@pytest.fixture(scope="session")
def make_cast() -> Callable[..., Cast]:
    """``make_cast(sites=4, **fields)``."""

    def make(sites: int = 4, **fields: Any) -> Cast:
        return Cast(
            sites={f"site{i}": _identity(f"site{i}") for i in range(sites)},
            combiner=_identity("combiner"),
            binding=Binding(STUDY, round=3, attempt=0, phase=1, state_digest=STATE),
            **fields,
        )

    return make
