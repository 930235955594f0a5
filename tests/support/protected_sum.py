"""The cast of a protected sum, with public test keys, and a run of all its stages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.secagg import (
    CombinerSession,
    Guard,
    Journal,
    MemoryMarks,
    NoJournal,
    Setting,
    SiteSession,
    Terms,
)
from fedbcs_protocols.secagg.setting import default_terms

STUDY = hashlib.sha256(b"study").digest()
STATE = hashlib.sha256(b"state").digest()
STAGES = ("advertise", "share", "masked_input", "consistency", "unmask")


@dataclass(frozen=True)
class Cast:
    """Identities of n sites and a combiner, and what they are about to add up."""

    sites: dict[str, Identity]
    combiner: Identity
    binding: Binding
    terms: Terms
    bits: int = 20
    count: int = 70
    key_id: bytes = bytes(32)
    marks: dict[str, MemoryMarks] = field(default_factory=dict)

    @property
    def roster(self) -> dict[str, PublicIdentity]:
        return {name: identity.public for name, identity in self.sites.items()}

    @property
    def setting(self) -> Setting:
        return Setting(
            self.roster,
            self.combiner.public,
            self.binding,
            self.terms,
            self.bits,
            self.count,
            self.key_id,
        )

    @property
    def guard(self) -> Guard:
        """One that has verified everybody."""
        return Guard(frozenset(identity.public.fingerprint for identity in self.sites.values()))

    def changed(self, **fields: Any) -> Cast:
        """The same cast, and the same marks, with another binding."""
        return replace(self, binding=replace(self.binding, **fields))

    def site(self, name: str, **changes: Any) -> SiteSession:
        """A session of site ``name``; its marks last as long as the cast."""
        arguments = {
            "identity": self.sites[name],
            "name": name,
            "guard": self.guard,
            "marks": self.marks.setdefault(name, MemoryMarks()),
        }
        return SiteSession(self.setting, **{**arguments, **changes})

    def all_sites(self) -> dict[str, SiteSession]:
        return {name: self.site(name) for name in self.sites}

    def combine(self, journal: Journal | None = None) -> CombinerSession:
        return CombinerSession(self.setting, identity=self.combiner, journal=journal or NoJournal())

    def vectors(self, seed: int = 0) -> dict[str, NDArray[np.uint32]]:
        """A vector a site, of values below 2^16."""
        random = np.random.default_rng(seed)
        return {
            name: random.integers(0, 2**16 - 1, self.count, dtype=np.uint32) for name in self.sites
        }


def answer(
    site: SiteSession, stage: str, request: bytes, vector: NDArray[np.uint32] | None = None
) -> bytes:
    """The site's frame in ``stage``, for the combiner's frame of the stage before."""
    match stage:
        case "advertise":
            return site.advertise()
        case "share":
            return site.share(request)
        case "masked_input":
            assert vector is not None
            return site.masked_input(request, vector)
        case "consistency":
            return site.consistency(request)
        case _:
            return site.unmask(request)


def run_sum(
    cast: Cast,
    vectors: Mapping[str, NDArray[np.uint32]],
    drops: Mapping[str, Iterable[str]] | None = None,
    *,
    until: str | None = None,
    journal: Journal | None = None,
    sites: Mapping[str, SiteSession] | None = None,
) -> CombinerSession:
    """A whole sum; ``drops`` maps a stage to the sites that vanish before they answer in it.

    Stops before the stage ``until``. A site that refuses raises.
    """
    combiner = cast.combine(journal)
    sessions = dict(sites if sites is not None else cast.all_sites())
    gone: set[str] = set()
    for stage in STAGES:
        if stage == until:
            break
        gone |= set((drops or {}).get(stage, ()))
        for name in combiner.expected:
            if name not in gone:
                request = combiner.requests.get(name, b"")
                combiner.receive(answer(sessions[name], stage, request, vectors.get(name)))
        combiner.close()
    return combiner


def refusal(call: Callable[[], object]) -> ProtocolError:
    """The error that ``call`` must raise."""
    with pytest.raises(ProtocolError) as caught:
        call()
    return caught.value


def _identity(label: str) -> Identity:
    return Identity.from_secret_bytes(hashlib.sha256(b"test " + label.encode()).digest())


def make_cast(
    sites: int = 4, threshold: int | None = None, colluders: int | None = None, **fields: Any
) -> Cast:
    """A cast of ``sites``, under the usual terms unless others are given."""
    usual, few = default_terms(sites)
    return Cast(
        sites={f"site{i}": _identity(f"site{i}") for i in range(sites)},
        combiner=_identity("combiner"),
        binding=Binding(STUDY, round=3, attempt=0, phase=1, state_digest=STATE),
        terms=Terms(sites, threshold or usual, colluders or few),
        **fields,
    )
