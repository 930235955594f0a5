"""Sites that went through a key stage, their combiner, and the sessions of one encrypted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ckks_parts import keystage
from fedbcs_protocols.ckks import CkksCombiner, CkksSession, CkksSetting, parameter_set
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Words
from fedbcs_protocols.secagg.setting import Guard, Terms, default_terms
from fedbcs_secure.federation.scratch import ScratchFile

BITS = 16


class World:
    """``sites`` sites with one key, from a whole key stage, for a sum of ``count`` values."""

    def __init__(self, sites: int, count: int = 1) -> None:
        self.identities = {f"site{i:04d}": Identity.generate() for i in range(sites)}
        self.server = Identity.generate()
        self.names = tuple(self.identities)
        roster = {name: identity.public for name, identity in self.identities.items()}
        terms = Terms(sites, *default_terms(sites))
        self.keys, key_id, self.costs = keystage.run(self.identities, self.server, terms.threshold)
        self.setting = CkksSetting(
            roster,
            self.server.public,
            replace(keystage.CONTROL, phase=1),
            terms,
            parameter_set(sites, BITS),
            count,
            key_id,
        )
        self._guard = Guard(frozenset(public.fingerprint for public in roster.values()))
        self._rings = {name: keys.ring for name, keys in self.keys.items()}

    def session(self, name: str) -> CkksSession:
        """A site's session, as if it had sent nothing yet."""
        self.keys[name].keep(self._rings[name])
        return CkksSession(
            self.setting,
            identity=self.identities[name],
            name=name,
            guard=self._guard,
            keys=self.keys[name],
            scratch=ScratchFile(),
        )

    def combiner(self) -> CkksCombiner:
        """A fresh session of the combiner's."""
        return CkksCombiner(self.setting, identity=self.server)

    def secret(self) -> tuple[bytes, int]:
        """The group's secret and its epoch."""
        held = self.keys[self.names[0]].usable(self.setting.binding.round)
        return held.secret, held.epoch


def finish(combiner: CkksCombiner, sessions: Mapping[str, CkksSession]) -> bytes:
    """The *sum* frame of a combiner that has announced its aggregate: all sites agree."""
    for name, request in dict(combiner.requests).items():
        combiner.receive(sessions[name].agree(request))
    combiner.close()
    return combiner.sum_frame()


def same_sum(total: Words, vectors: Sequence[Words]) -> bool:
    """Whether ``total`` is the sum of the vectors."""
    return np.array_equal(total, np.sum(vectors, axis=0, dtype=np.uint64))
