"""Encrypted sums among a few sites, frame by frame, and a combiner that can lie about them.

The lying combiner has the signatures that an honest one would get for whatever it announces: sites
sign the digest of an aggregate before they see it (CK-4.3), so that costs it nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from hostile_group import STUDY, identity

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.ckks import CkksCombiner, CkksSession, CkksSetting, Outcome, open_sum
from fedbcs_protocols.ckks.messages import (
    AGGREGATE_SEQUENCE,
    SUM_SEQUENCE,
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    agree_frame,
    encode_sum,
    transcript,
)
from fedbcs_protocols.ckks.params import DEGREE, ParameterSet, parameter_set
from fedbcs_protocols.ckks.words import add_residues, pack_words, unpack_words
from fedbcs_protocols.group import Group, GroupSecret, KeyRing, MemoryKeys, SiteKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Words
from fedbcs_protocols.secagg import Guard, Terms
from fedbcs_protocols.secagg.setting import default_terms
from fedbcs_protocols.wire import MAX_BODY_BYTES, Frame, Kind, decode, seal
from fedbcs_secure.federation.scratch import ScratchFile

ANY = dict.fromkeys(Kind, MAX_BODY_BYTES)
SECRET = hashlib.sha256(b"the group's secret").digest()


@lru_cache(maxsize=1)
def scratch() -> ScratchFile:
    return ScratchFile()


def binding(round: int = 0, attempt: int = 0) -> Binding:
    state = hashlib.sha256(b"state %d" % round).digest()
    return Binding(STUDY, round, attempt, 1, state)


@dataclass(eq=False)
class World:
    """n sites that hold one key, and a vector each."""

    sites: int = 4
    count: int = 100
    bits: int = 16
    params: ParameterSet | None = None
    binding: Binding = field(default_factory=binding)
    rekey_every: int = 1
    secret: GroupSecret | None = None
    keepers: dict[str, MemoryKeys] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"site{place}" for place in range(self.sites))

    @cached_property
    def identities(self) -> dict[str, Identity]:
        return {name: identity(name) for name in (*self.names, COMBINER)}

    @cached_property
    def key(self) -> GroupSecret:
        members = frozenset(range(self.sites))
        return self.secret or GroupSecret(1, self.binding.round, members, SECRET)

    @cached_property
    def setting(self) -> CkksSetting:
        threshold, colluders = default_terms(self.sites)
        return CkksSetting(
            roster={name: self.identities[name].public for name in self.names},
            combiner=self.identities[COMBINER].public,
            binding=self.binding,
            terms=Terms(self.sites, threshold, colluders),
            params=self.params or parameter_set(self.sites, self.bits),
            count=self.count,
            key_id=self.key.key_id,
        )

    @cached_property
    def guard(self) -> Guard:
        return Guard(frozenset(key.fingerprint for key in self.setting.roster.values()))

    @cached_property
    def vectors(self) -> dict[str, Words]:
        rng = np.random.default_rng(self.binding.round)
        high = 1 << self.setting.params.bits
        return {n: rng.integers(0, high, self.count).astype(np.uint32) for n in self.names}

    @property
    def total(self) -> list[int]:
        return sum(v.astype(np.uint64) for v in self.vectors.values()).tolist()

    def keys(self, name: str) -> SiteKeys:
        """A new process of the site; what it keeps lasts as long as the world."""
        group = Group(
            self.setting.roster, self.setting.combiner, self.setting.terms.threshold,
            self.rekey_every,
        )  # fmt: skip
        keeper = self.keepers.setdefault(name, MemoryKeys())
        if keeper.read() is None:
            keeper.write(KeyRing(STUDY, self.sites).taking(self.key))
        return SiteKeys(
            group, identity=self.identities[name], name=name, study_digest=STUDY, keeper=keeper
        )

    def session(self, name: str, guard: Guard | None = None) -> CkksSession:
        return CkksSession(
            self.setting,
            identity=self.identities[name],
            name=name,
            guard=guard or self.guard,
            keys=self.keys(name),
            scratch=scratch(),
        )

    def combiner(self) -> CkksCombiner:
        return CkksCombiner(self.setting, identity=self.identities[COMBINER])

    @cached_property
    def sessions(self) -> dict[str, CkksSession]:
        return {name: self.session(name) for name in self.names}

    @cached_property
    def uploads(self) -> dict[str, bytes]:
        return {name: s.encrypt(self.vectors[name]) for name, s in self.sessions.items()}

    def run(self, names: Sequence[str] | None = None) -> bytes:
        """A whole honest sum over ``names``; the *sum* frame."""
        combiner, names = self.combiner(), self.names if names is None else names
        for name in names:
            combiner.receive(self.uploads[name], line=name)
        combiner.close()
        for name in names:
            combiner.receive(self.sessions[name].agree(combiner.requests[name]), line=name)
        combiner.close()
        return combiner.sum_frame()

    def open(self, name: str, frame: bytes, seen: Mapping[int, bytes] | None = None) -> Outcome:
        return open_sum(
            frame, self.setting, seen=seen or {}, keys=self.keys(name), scratch=scratch()
        )

    # What a combiner that lies can do ------------------------------------------------------------

    def upload(self, name: str) -> Encrypted:
        """What a site's frame holds."""
        body = decode(self.uploads[name], ANY).body
        return Encrypted.decode(body, sender=name, setting=self.setting)

    def salt(self, name: str) -> bytes:
        """The salt of a site's upload."""
        return self.upload(name).salt

    def chunks(self, name: str) -> list[bytes]:
        """The ciphertexts of a site's upload."""
        return [bytes(each) for each in self.upload(name).ciphertexts()]

    def added(self, *uploads: Sequence[bytes]) -> list[bytes]:
        """The aggregate of these lists of ciphertexts, chunk by chunk."""
        out = []
        for pieces in zip(*uploads, strict=True):
            total = np.zeros(DEGREE, np.uint64)
            for piece in pieces:
                add_residues(total, unpack_words(piece, "x"))
            out.append(pack_words(total))
        return out

    def honest(self, names: Sequence[str] | None = None) -> list[bytes]:
        return self.added(*(self.chunks(n) for n in (self.names if names is None else names)))

    def salts(
        self, members: Sequence[str], changed: Mapping[str, bytes] | None = None
    ) -> dict[int, bytes]:
        """The members' salts by place, but for those that are changed."""
        given = changed or {}
        return {self.names.index(n): given.get(n) or self.salt(n) for n in members}

    def forged(
        self,
        aggregate: Sequence[bytes],
        members: Sequence[str] | None = None,
        signers: Sequence[str] | None = None,
        key_id: bytes | None = None,
        salts: Mapping[str, bytes] | None = None,
    ) -> bytes:
        """A *sum* frame that says these sites agreed on this aggregate, and so they signed."""
        setting = self.setting if key_id is None else replace(self.setting, key_id=key_id)
        members = self.names if members is None else members
        body = b"".join(aggregate)
        announced = Announced(self.salts(members, salts), aggregate_digest(body))
        digest = transcript(setting, announced)
        signatures = {}
        for name in members if signers is None else signers:
            message = agree_frame(setting, name, digest).signed_message()
            signatures[self.names.index(name)] = self.identities[name].sign(message)
        agreement = Agreement(setting.key_id, announced, signatures)
        return self.signed(Kind.SUM, SUM_SEQUENCE, encode_sum(agreement, body, setting))

    def announcement(
        self,
        members: Sequence[str],
        digest: bytes = bytes(32),
        salts: Mapping[str, bytes] | None = None,
    ) -> bytes:
        body = Announced(self.salts(members, salts), digest).encode(self.sites)
        return self.signed(Kind.AGGREGATE, AGGREGATE_SEQUENCE, body)

    def signed(self, kind: Kind, sequence: int, body: bytes, sender: str = COMBINER) -> bytes:
        return seal(Frame(kind, self.binding, sender, sequence, body), self.identities[sender])

    def resigned(self, frame: bytes, **changes: object) -> bytes:
        """A site's frame with something else in it, under its own signature again."""
        held = decode(frame, ANY)
        changed = replace(held, **({"body": bytes(held.body)} | changes))
        return seal(changed, self.identities[held.sender])
