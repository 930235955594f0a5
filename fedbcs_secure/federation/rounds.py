"""One round, seen from a site and from the combiner.

Train first, then run the short stages, so that a slow site is missed before keys are spent::

    combiner                     site
    START  ------------------->  trains, forms its vector
           <-------------------  READY
    PRESENT ------------------>  to one site, when the group's key is due
           <-------------------  DEAL
    DEALT  ------------------->  to the others
           <-------------------  TAKEN

    OPEN   ------------------->                | "ckks"              | "none"
           <-------------------  ADVERTISE     | ENCRYPTED           | PLAIN_INPUT
    KEY_LIST ----------------->                |
           <-------------------  SHARES        |
    DELIVERY ----------------->                |
           <-------------------  MASKED_INPUT  |
    SURVIVORS ---------------->                | AGGREGATE
           <-------------------  CONSISTENCY   | CONSISTENCY
    CERTIFICATE -------------->                |
           <-------------------  UNMASK        |

    SUM    ------------------->  next state
           <-------------------  ACCEPTED

Clauses (RO-…) are those of ``protocols/specs/round.md``. Every frame is signed and bound to study,
round, attempt, phase and state. Control frames are of phase 0, those of the sum of phase 1, those
of the group's key of phase 2. Under ``ckks`` the combiner knows of a state only its name. Under
``prototypes = "finch"`` a PLAIN_PROTOTYPES frame with each site's prototypes goes before SUM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import Binding, encode_fields
from fedbcs_protocols.ckks.params import ParameterSet, parameter_set
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.group import NO_KEY, Group
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.messages import VectorShape
from fedbcs_protocols.secagg import Setting, Terms
from fedbcs_protocols.tags import tagged_count
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES
from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.heads import HEAD_BYTES
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.protect import modulus_bits
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.study import Study

CONTROL, SUM = 0, 1
Train = Callable[[str, GlobalState], LocalResult]
"""Local training: (site, state) to its result."""


@dataclass(frozen=True)
class StateName:
    """All that a combiner which cannot read sums knows of a state: its round and its digest."""

    round: int
    digest: bytes


AnyState = GlobalState | StateName


@dataclass(frozen=True, eq=False)
class Parties:
    """What all sides agree on before the first round: study, layout, public identities."""

    study: Study
    plan: Layout
    roster: Mapping[str, PublicIdentity]
    combiner: PublicIdentity

    def __post_init__(self) -> None:
        names = tuple(entry.name for entry in self.study.roster)
        if not self.study.federated or not names:
            raise StudyError("a round needs a federated method and a roster")
        # RO-1.4
        if tuple(self.roster) != names:
            raise StudyError("the identities are not those of the study's roster, in its order")

    @cached_property
    def digest(self) -> bytes:
        """What frames and keys are bound to: the study and everybody's identity (RO-1.1)."""
        fields: list[bytes | str] = ["fedbcs-secure parties v1", self.study.digest]
        for name, identity in self.roster.items():
            fields += [name, identity.raw]
        return hashlib.sha256(encode_fields(*fields, self.combiner.raw)).digest()

    def binding(self, state: AnyState, phase: int, attempt: int = 0) -> Binding:
        """What frames of ``phase`` are bound to while ``state`` is the current one (RO-1)."""
        return Binding(self.digest, state.round, attempt, phase, state.digest)

    @cached_property
    def terms(self) -> Terms:
        """Threshold, colluders and allowed reuses of the study."""
        threshold, colluders = self.study.terms
        return Terms(len(self.roster), threshold, colluders, self.study.max_reused_states)

    @cached_property
    def group(self) -> Group:
        """The sites that share a key, where the study has one."""
        return Group(
            self.roster, self.combiner, self.threshold, self.study.rekey_every, self.head_bytes
        )

    @property
    def head_bytes(self) -> int:
        """Of the head in *ready*: 0 where the study keeps no ledgers (RO-7.1)."""
        return HEAD_BYTES if self.study.privacy is not None else 0

    @property
    def ready_bytes(self) -> int:
        """The exact length of the body of *ready* (RO-2.4)."""
        return self.group.ready_bytes if self.study.group_key else self.head_bytes

    @property
    def start_limit(self) -> int:
        """The longest body of *start*: a *ready* frame, where that has a head (RO-7.4)."""
        return MAX_OVERHEAD_BYTES + self.ready_bytes if self.head_bytes else 0

    @cached_property
    def params(self) -> ParameterSet:
        """Of the ciphertexts under ``ckks``."""
        return parameter_set(len(self.roster), self.study.codec.bits)

    def encrypted(self, state: AnyState, attempt: int, key_id: bytes) -> CkksSetting:
        """The encrypted sum of an attempt (CK-0.2)."""
        return CkksSetting(
            roster=self.roster,
            combiner=self.combiner,
            binding=self.binding(state, SUM, attempt),
            terms=self.terms,
            params=self.params,
            count=self.plan.length,
            key_id=key_id,
        )

    def setting(self, state: AnyState, attempt: int, key_id: bytes = NO_KEY) -> Setting:
        """The protected sum of an attempt (SA-0.3), tagged with the key of that name (VS)."""
        count = self.plan.length
        if self.study.group_key:
            count = tagged_count(count, self.study.codec.bits)
        return Setting(
            roster=self.roster,
            combiner=self.combiner,
            binding=self.binding(state, SUM, attempt),
            terms=self.terms,
            bits=self.shape.bits,
            count=count,
            key_id=key_id,
        )

    @property
    def threshold(self) -> int:
        """Sites that must stay, under either protection."""
        return self.study.terms[0]

    @property
    def shape(self) -> VectorShape:
        """Of the one vector that each site contributes, without tags."""
        return VectorShape(self.plan.length, modulus_bits(self.study), len(self.roster))

    @property
    def shows_prototypes(self) -> bool:
        """Whether the study runs FINCH, which needs every site's own prototypes (RO-5.2)."""
        return self.study.alignment.prototypes == "finch" and bool(self.plan.slots)
