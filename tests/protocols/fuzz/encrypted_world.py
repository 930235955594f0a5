"""A genuine encrypted sum of one chunk: what its frames carry, and a context that reads it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks import CkksCombiner, CkksSession, CkksSetting, Scratch, parameter_set
from fedbcs_protocols.ckks.cipher import Context
from fedbcs_protocols.group import Group, GroupSecret, KeyRing, MemoryKeys, SiteKeys
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg.setting import Guard, Terms
from fedbcs_protocols.wire import Kind, decode

LIMITS = dict.fromkeys(Kind, 1 << 20)
COUNT = 20


class File:
    """A scratch file."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (gone with this object)
        self.path = self._file.name

    def write(self, data: Buffer) -> None:
        Path(self.path).write_bytes(data)

    def read(self) -> bytes:
        return Path(self.path).read_bytes()


def fixed(label: str) -> bytes:
    return hashlib.sha256(b"fuzz " + label.encode()).digest()


class EncryptedWorld:
    """Four sites, three of which must agree; ``upload``, ``announced`` and ``told`` are bodies."""

    def __init__(self) -> None:
        names = tuple(f"site{place}" for place in range(4))
        identities = {name: Identity.from_secret_bytes(fixed(name)) for name in names}
        boss = Identity.from_secret_bytes(fixed("combiner"))
        secret = GroupSecret(1, 3, frozenset(range(4)), fixed("group secret"))
        file: Scratch = File()
        self.setting = CkksSetting(
            {name: one.public for name, one in identities.items()},
            boss.public,
            Binding(fixed("study"), 3, 1, 1, fixed("state")),
            Terms(4, 3, 1),
            parameter_set(4, 16),
            COUNT,
            secret.key_id,
        )
        self.context = Context(self.setting.params, file)
        guard = Guard(frozenset(one.public.fingerprint for one in identities.values()))
        combiner = CkksCombiner(self.setting, identity=boss, scratch=file)
        sessions = {}
        for place, name in enumerate(names):
            keeper = MemoryKeys()
            keeper.write(KeyRing(fixed("study"), 4, 1, secrets=(secret,)))
            group = Group(self.setting.roster, boss.public, 3, 1)
            sessions[name] = CkksSession(
                self.setting,
                identity=identities[name],
                name=name,
                guard=guard,
                keys=SiteKeys(
                    group,
                    identity=identities[name],
                    name=name,
                    study_digest=fixed("study"),
                    keeper=keeper,
                ),
                scratch=file,
            )
            frame = sessions[name].encrypt(np.full(COUNT, place, np.uint32))
            combiner.receive(frame)
        self.upload = bytes(decode(frame, LIMITS).body)
        combiner.close()
        self.announced = bytes(decode(combiner.requests["site0"], LIMITS).body)
        for name in names:
            combiner.receive(sessions[name].agree(combiner.requests[name]))
        combiner.close()
        self.told = bytes(decode(combiner.sum_frame(), LIMITS).body)
