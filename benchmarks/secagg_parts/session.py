"""Whole protected sums between session objects in this process, timed stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ckks_parts import keystage
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.group import NO_KEY, SiteKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import ring_bits
from fedbcs_protocols.secagg import (
    CombinerSession,
    Guard,
    MemoryMarks,
    NoJournal,
    Setting,
    SiteSession,
    Terms,
    open_sum,
)
from fedbcs_protocols.secagg.setting import default_terms
from fedbcs_protocols.tags import Tagger, tagged_count

STAGES = ("advertise", "share", "masked_input", "consistency", "unmask")
_BITS = 16
_BINDING = Binding(keystage.STUDY, 0, 0, 1, bytes(32))

Words = NDArray[np.uint32]


@dataclass
class Costs:
    """CPU seconds by stage: of one site (the mean) and of the combiner; bytes of one site."""

    site: dict[str, float] = field(default_factory=dict)
    combiner: dict[str, float] = field(default_factory=dict)
    up: dict[str, float] = field(default_factory=dict)
    down: dict[str, float] = field(default_factory=dict)


def run(
    sites: int,
    count: int,
    *,
    terms: tuple[int, int] | None = None,
    dropped: int = 0,
    measured: int | None = None,
    verified: bool = False,
) -> Costs:
    """One sum over ``sites`` sites of ``count`` values; ``dropped`` leave before they mask.

    All sites take part; only the first ``measured`` are in the means. With ``verified`` a key stage
    comes first, the vector is tagged in *masked_input*, and the sum's tags are checked. Raises
    RuntimeError when the sum is not exact.
    """
    identities = {f"site{i:04d}": Identity.generate() for i in range(sites)}
    server = Identity.generate()
    agreed = Terms(sites, *(terms or default_terms(sites)))
    costs, keys, key_id = Costs(), None, NO_KEY
    if verified:
        keys, key_id, spent = keystage.run(identities, server, agreed.threshold)
        costs.site["key_stage"] = spent.at_sites / sites
        costs.combiner["key_stage"] = spent.combiner
    setting = Setting(
        {name: identity.public for name, identity in identities.items()},
        server.public,
        _BINDING,
        agreed,
        ring_bits(_BITS, sites),
        tagged_count(count, _BITS) if verified else count,
        key_id,
    )
    guard = Guard(frozenset(identity.public.fingerprint for identity in identities.values()))
    sessions = {
        name: SiteSession(setting, identity=identity, name=name, guard=guard, marks=MemoryMarks())
        for name, identity in identities.items()
    }
    combiner = CombinerSession(setting, identity=server, journal=NoJournal())
    vector = np.random.default_rng(0).integers(0, 2**_BITS - 1, count, dtype=np.uint32)
    gone = set(list(identities)[sites - dropped :])
    watched = list(identities)[: measured or sites - dropped]
    for stage in STAGES:
        if stage == "masked_input":
            sessions = {name: s for name, s in sessions.items() if name not in gone}
        _stage(stage, sessions, combiner, lambda name: _tagged(vector, keys, name), watched, costs)
    started = time.process_time()
    closing = combiner.sum_frame()
    costs.combiner["sum"] = time.process_time() - started
    started = time.process_time()
    outcome = open_sum(closing, setting, {})
    total = outcome.total
    if keys is not None:
        total = _tagger(keys, watched[0]).opened(total, count, outcome.survivors)
    costs.site["sum"] = time.process_time() - started
    costs.down["sum"] = len(closing)
    expected = (len(outcome.survivors) * vector.astype(np.uint64)) & ((1 << setting.bits) - 1)
    if len(outcome.survivors) != sites - dropped or not np.array_equal(total, expected):
        raise RuntimeError("the sum is not exact")
    return costs


def _tagger(keys: Mapping[str, SiteKeys], name: str) -> Tagger:
    held = keys[name].usable(_BINDING.round)
    return Tagger(held.secret, held.epoch, _BINDING, _BITS)


def _tagged(vector: Words, keys: Mapping[str, SiteKeys] | None, name: str) -> Words:
    return vector if keys is None else _tagger(keys, name).tagged(vector, name)


def _stage(
    stage: str,
    sessions: Mapping[str, SiteSession],
    combiner: CombinerSession,
    vector: Callable[[str], Words],
    watched: list[str],
    costs: Costs,
) -> None:
    at_sites = at_combiner = up = down = 0.0
    requests = combiner.requests
    for name, session in sessions.items():
        request = requests.get(name, b"")
        started = time.process_time()
        if stage == "advertise":
            reply = session.advertise()
        elif stage == "masked_input":
            reply = session.masked_input(request, vector(name))
        else:
            reply = getattr(session, stage)(request)
        spent = time.process_time() - started
        if name in watched:
            at_sites += spent
            up += len(reply)
            down += len(request)
        started = time.process_time()
        combiner.receive(reply, line=name)
        at_combiner += time.process_time() - started
    started = time.process_time()
    combiner.close()
    costs.combiner[stage] = at_combiner + time.process_time() - started
    number = len(watched)
    costs.site[stage], costs.up[stage] = at_sites / number, up / number
    costs.down[stage] = down / number
