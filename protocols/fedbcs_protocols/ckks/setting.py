"""What all parties agree on about one encrypted sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import COMBINER, Binding, is_name
from fedbcs_protocols.ckks.params import ParameterSet
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.secagg.setting import Terms

MAX_CHUNKS = 1 << 16
"""More would not fit into a frame once they are added."""


@dataclass(frozen=True, eq=False)
class CkksSetting:
    """One sum: who takes part, what it is bound to, the parameters, and the vector's length.

    ``count`` values below 2^``params.bits`` a site; ``key_id`` names the group's key that it is
    under. Raises :class:`LocalError` for what does not fit together.
    """

    roster: Mapping[str, PublicIdentity]
    combiner: PublicIdentity
    binding: Binding
    terms: Terms
    params: ParameterSet
    count: int
    key_id: bytes

    def __post_init__(self) -> None:
        if not len(self.roster) == self.terms.sites == self.params.sites:
            raise LocalError("roster, terms and parameters are for different numbers of sites")
        if any(name == COMBINER or not is_name(name) for name in self.roster):
            raise LocalError("a name in the roster is no site's")
        # SA-0.2: one key in two places would make one party count as two.
        if len({*self.roster.values(), self.combiner}) != len(self.roster) + 1:
            raise LocalError("two parties have the same identity")
        if self.count < 1 or self.chunks > MAX_CHUNKS:
            raise LocalError(f"a vector of 1 value to {MAX_CHUNKS} ciphertexts")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sites' names by place."""
        return tuple(self.roster)

    @property
    def sites(self) -> int:
        """Sites in the roster."""
        return len(self.roster)

    @property
    def chunks(self) -> int:
        """Ciphertexts that each site sends."""
        return self.params.chunks(self.count)
