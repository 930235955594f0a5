"""A genuine encrypted sum of one chunk: what its frames carry, and its sessions.

What sites draw is fixed here, so an input finds the same ciphertexts in every process.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from unittest import mock

import numpy as np

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.ckks import (
    CkksCombiner,
    CkksSession,
    CkksSetting,
    Scratch,
    open_sum,
    parameter_set,
    site,
)
from fedbcs_protocols.ckks.messages import (
    AGGREGATE_SEQUENCE,
    SUM_SEQUENCE,
    UPLOAD_SEQUENCE,
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    agree_frame,
    encode_sum,
    transcript,
)
from fedbcs_protocols.group import Group, GroupSecret, KeyRing, MemoryKeys, SiteKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer, Words
from fedbcs_protocols.secagg.setting import Guard, Terms
from fedbcs_protocols.wire import Frame, Kind, decode, seal

LIMITS = dict.fromkeys(Kind, 1 << 20)
COUNT = 20


class File:
    """A scratch file in memory, since each sum that is opened goes through it several times."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create("fuzz"), "w+b", buffering=0)
        self.path = f"/proc/self/fd/{self._file.fileno()}"

    def write(self, data: Buffer) -> None:
        self._file.seek(0)
        self._file.write(data)
        self._file.truncate()

    def read(self) -> bytes:
        self._file.seek(0)
        return self._file.read()


def fixed(label: str) -> bytes:
    return hashlib.sha256(b"fuzz " + label.encode()).digest()


class EncryptedWorld:
    """Four sites, three of which must agree.

    ``upload`` (the last site's), ``announced`` and ``told`` are bodies; ``total`` is the sum.
    """

    def __init__(self) -> None:
        self.names = tuple(f"site{place}" for place in range(4))
        self.identities = {name: Identity.from_secret_bytes(fixed(name)) for name in self.names}
        self.boss = Identity.from_secret_bytes(fixed("combiner"))
        self.salts = {place: fixed(f"salt {place}") for place in range(4)}
        self._secret = GroupSecret(1, 3, frozenset(range(4)), fixed("group secret"))
        self._file: Scratch = File()
        self.setting = CkksSetting(
            {name: one.public for name, one in self.identities.items()},
            self.boss.public,
            Binding(fixed("study"), 3, 1, 1, fixed("state")),
            Terms(4, 3, 1),
            parameter_set(4, 16),
            COUNT,
            self._secret.key_id,
        )
        self.total = np.full(COUNT, 6, np.uint32)
        combiner = CkksCombiner(self.setting, identity=self.boss)
        sessions = {name: self._session(name) for name in self.names}
        for place, name in enumerate(self.names):
            # CK-3.3, CK-3.4: all that is drawn.
            drawn = mock.Mock(side_effect=[self.salts[place], fixed(f"noise key {place}")])
            with mock.patch.object(site.secrets, "token_bytes", drawn):
                frame = sessions[name].encrypt(np.full(COUNT, place, np.uint32))
            if place == 3:
                self._three = copy.copy(combiner)
                self._three._came = dict(combiner._came)
                self._sum_of_three = np.array(combiner._total)
            combiner.receive(frame)
        self._uploaded = copy.copy(sessions["site0"])
        self.upload = bytes(decode(frame, LIMITS).body)
        combiner.close()
        self.announced = bytes(decode(combiner.requests["site0"], LIMITS).body)
        for name in self.names:
            combiner.receive(sessions[name].agree(combiner.requests[name]))
        combiner.close()
        self.told = bytes(decode(combiner.sum_frame(), LIMITS).body)

    def _keys(self, name: str) -> SiteKeys:
        """As they were before the sum."""
        keeper = MemoryKeys()
        keeper.write(KeyRing(fixed("study"), 4, 1, secrets=(self._secret,)))
        return SiteKeys(
            Group(self.setting.roster, self.boss.public, 3, 1),
            identity=self.identities[name],
            name=name,
            study_digest=fixed("study"),
            keeper=keeper,
        )

    def _session(self, name: str) -> CkksSession:
        return CkksSession(
            self.setting,
            identity=self.identities[name],
            name=name,
            guard=Guard(frozenset(one.public.fingerprint for one in self.identities.values())),
            keys=self._keys(name),
            scratch=self._file,
        )

    # What the other side may do, under its true signature ----------------------------------------

    def uploaded(self) -> CkksSession:
        """The first site's session after its upload, to be used once."""
        twin = copy.copy(self._uploaded)
        twin._keys = self._keys("site0")
        return twin

    def announcement(self, body: bytes) -> bytes:
        return self._by_combiner(Kind.AGGREGATE, AGGREGATE_SEQUENCE, body)

    def three_came(self) -> CkksCombiner:
        """A combiner that waits for the last site's upload, to be used once."""
        twin = copy.copy(self._three)
        twin._came, twin._total = dict(self._three._came), self._sum_of_three.copy()
        return twin

    def last_upload(self, body: bytes) -> bytes:
        frame = Frame(Kind.ENCRYPTED, self.setting.binding, "site3", UPLOAD_SEQUENCE, body)
        return seal(frame, self.identities["site3"])

    def first_three(self) -> np.ndarray:
        """Their aggregate."""
        return self._sum_of_three.copy()

    def opened(self, salts: Mapping[int, bytes], ciphertexts: bytes) -> Words:
        """What the first site takes from a sum that all of its members agreed on."""
        setting = self.setting
        announced = Announced(salts, aggregate_digest(ciphertexts))
        digest = transcript(setting, announced)
        signatures = {}
        for place in salts:
            message = agree_frame(setting, self.names[place], digest).signed_message()
            signatures[place] = self.identities[self.names[place]].sign(message)
        agreement = Agreement(setting.key_id, announced, signatures)
        body = encode_sum(agreement, ciphertexts, setting)
        frame = self._by_combiner(Kind.SUM, SUM_SEQUENCE, body)
        keys = self._keys("site0")
        return open_sum(frame, setting, seen={}, keys=keys, scratch=self._file).total

    def _by_combiner(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self.setting.binding, COMBINER, sequence, body), self.boss)

    @property
    def head_bytes(self) -> int:
        """What stands before the ciphertexts of an upload."""
        return len(Encrypted.head(self.setting, self.salts[3]))
