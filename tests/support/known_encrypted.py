"""What the file of known encrypted sums (``ckks.json``) says, for both implementations."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import known_ckks
import second_ckks as second
from ckks_world import scratch
from known_answers import load
from known_ckks import NAMES, SETTING, THRESHOLD
from second_frames import frame
from second_implementation import keystream

from fedbcs_protocols.ckks import CkksSession
from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.group import Group, KeyRing, MemoryKeys, SiteKeys
from fedbcs_protocols.secagg.setting import Guard
from fedbcs_protocols.wire import Kind

FILE: dict[str, Any] = load("ckks.json")
SUM: dict[str, Any] = FILE["sum"]
INSIDE: list[str] = SUM["inside"]
PLACES = [NAMES.index(name) for name in INSIDE]
SALTS = {name: bytes.fromhex(site["salt"]) for name, site in FILE["sites"].items()}
NOISE_KEYS = {name: bytes.fromhex(site["noise_key"]) for name, site in FILE["sites"].items()}
TOLD = second.Sum(
    binding=FILE["binding"],
    names=NAMES,
    keys={name: one.public.raw.hex() for name, one in known_ckks.IDENTITIES.items()},
    threshold=FILE["threshold"],
    params=second.Parameters(len(NAMES), FILE["bits"]),
    count=FILE["count"],
    secret=bytes.fromhex(FILE["secret"]),
    epoch=FILE["epoch"],
    key_name=bytes.fromhex(FILE["key_name"]),
)


@cache
def vector(name: str) -> list[int]:
    """0, 65535, then the words of 2 bytes of a keystream."""
    key, rest = bytes.fromhex(FILE["sites"][name]["vector_key"]), FILE["count"] - 2
    return [0, 65535, *struct.unpack(f"<{rest}H", keystream(key, 2 * rest))]


@cache
def ciphertexts(name: str) -> bytes:
    """A site's, by the second implementation."""
    return TOLD.ciphertexts(vector(name), name, SALTS[name], NOISE_KEYS[name])


@cache
def aggregate() -> bytes:
    """That of the sum, by the second implementation."""
    return second.added(map(ciphertexts, INSIDE))


def tail_of(told: dict[str, Any]) -> bytes:
    text = told["tail"]
    return bytes(int(text.split()[0])) if text.endswith("zeros") else bytes.fromhex(text)


def ended(call: Callable[[], object]) -> str:
    """``ok``, or the name of the error that either implementation raises."""
    try:
        call()
    except second.Refusal as refusal:
        return str(refusal)
    except ProtocolError as error:
        return type(error).__name__
    return "ok"


def from_site(name: str, kind: Kind, number: int, body: bytes) -> bytes:
    return frame(FILE["identity_secrets"][name], kind, FILE["binding"], name, number, body)


def from_combiner(kind: Kind, number: int, body: bytes) -> bytes:
    return frame(FILE["combiner_secret"], kind, FILE["binding"], "@combiner", number, body)


def keys_of(name: str) -> SiteKeys:
    """Those of a site that holds the key, and has read nothing under it."""
    keeper, study = MemoryKeys(), SETTING.binding.study_digest
    keeper.write(KeyRing(study, len(NAMES)).taking(known_ckks.SECRET))
    group = Group(SETTING.roster, SETTING.combiner, THRESHOLD, 1)
    identity = known_ckks.IDENTITIES[name]
    return SiteKeys(group, identity=identity, name=name, study_digest=study, keeper=keeper)


def session_of(name: str) -> CkksSession:
    verified = frozenset(one.public.fingerprint for one in known_ckks.IDENTITIES.values())
    return CkksSession(
        SETTING,
        identity=known_ckks.IDENTITIES[name],
        name=name,
        guard=Guard(verified),
        keys=keys_of(name),
        scratch=scratch(),
    )
