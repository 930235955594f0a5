"""Known answers of whole sums: every secret, key and frame of four runs of four sites."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from known_numbers import fixed_field
from known_values import BINDING, Json, binding_json, fixed_bytes, fixed_words

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import (
    CombinerSession,
    Guard,
    MemoryMarks,
    NoJournal,
    Setting,
    SiteSession,
    Terms,
)
from fedbcs_protocols.secagg.ephemeral import Ephemeral, commitment
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.masking import pair_mask, self_mask
from fedbcs_protocols.secagg.messages import Advertise
from fedbcs_protocols.secagg.shamir import _split_with
from fedbcs_protocols.secagg.sharing import ShareBox, SharePair
from fedbcs_protocols.sitesets import encode_set

NAMES = ("aachen", "bern", "cork", "delft")
TERMS = Terms(sites=4, threshold=3, colluders=1)
BITS, COUNT = 18, 40
NO_KEY, KEY_ID = bytes(32), fixed_bytes("name of a group key")
STAGES = ("advertise", "shares", "masked_input", "consistency", "unmask")
IDENTITIES = {name: Identity.from_secret_bytes(fixed_bytes(name)) for name in NAMES}
BOSS = Identity.from_secret_bytes(fixed_bytes("combiner"))


@dataclass
class Party:
    """A site of a run: its secrets, its session, and the frames that it has sent."""

    name: str
    label: str
    setting: Setting
    vector: list[int] = field(init=False)
    frames: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mask_secret, self.share_secret, self.seed = (
            fixed_bytes(f"{what} {self.label}") for what in ("mask", "share", "seed")
        )
        self.mask_coefficients, self.seed_coefficients = (
            [fixed_field(f"{what} {self.label} {i}") for i in range(TERMS.threshold - 1)]
            for what in ("mask", "seed")
        )
        self.vector = fixed_words(f"vector {self.label}", COUNT, 16)
        verified = frozenset(identity.public.fingerprint for identity in IDENTITIES.values())
        self.session = SiteSession(
            self.setting,
            identity=IDENTITIES[self.name],
            name=self.name,
            guard=Guard(verified),
            marks=MemoryMarks(),
        )
        self.ephemeral = Ephemeral(
            X25519PrivateKey.from_private_bytes(self.mask_secret),
            X25519PrivateKey.from_private_bytes(self.share_secret),
            self.seed,
        )
        self.session._seed_for_tests(self.ephemeral)

    @property
    def place(self) -> int:
        return NAMES.index(self.name)

    def pairs(self, holders: tuple[int, ...]) -> dict[int, SharePair]:
        """The shares for these places from the fixed polynomials."""
        at = [place + 1 for place in holders]
        keys = _split_with(self.mask_secret, self.mask_coefficients, at)
        seeds = _split_with(self.seed, self.seed_coefficients, at)
        return {p: SharePair(k, s) for p, k, s in zip(holders, keys, seeds, strict=True)}

    def answer(self, stage: str, request: bytes) -> bytes:
        match stage:
            case "advertise":
                frame = self.session.advertise()
            case "shares":
                given = iter([*self.mask_coefficients, *self.seed_coefficients])
                with mock.patch("secrets.randbelow", side_effect=given):
                    frame = self.session.share(request)
            case "masked_input":
                frame = self.session.masked_input(request, np.array(self.vector, np.uint32))
            case "consistency":
                frame = self.session.consistency(request)
            case _:
                frame = self.session.unmask(request)
        self.frames[stage] = frame
        return frame


def sums() -> Json:
    """Runs in which nobody leaves, one leaves before its vector, one was never there."""
    return {
        "terms": {"sites": 4, "threshold": TERMS.threshold, "colluders": TERMS.colluders},
        "bits": BITS,
        "count": COUNT,
        "combiner_secret": fixed_bytes("combiner").hex(),
        "identity_secrets": {name: fixed_bytes(name).hex() for name in NAMES},
        "runs": [
            _run("nobody leaves", 1, {}, NO_KEY),
            _run("cork leaves before masked input", 2, {"cork": "masked_input"}, KEY_ID),
            _run("bern does not advertise", 3, {"bern": "advertise"}, KEY_ID),
            _run("delft leaves before consistency", 4, {"delft": "consistency"}, NO_KEY),
        ],
        "graphs": _graphs(),
        "sets": [
            {"sites": sites, "places": places, "encoded": encode_set(places, sites).hex()}
            for sites, places in (
                (3, [0, 1, 2]),
                (8, [7]),
                (9, [0, 8]),
                (12, [1, 8, 11]),
                (40, []),
                (1024, [0, 511, 1023]),
            )
        ],
    }


def _run(what: str, attempt: int, leaves: dict[str, str], key_id: bytes) -> Json:
    binding = replace(BINDING, attempt=attempt)
    roster = {name: identity.public for name, identity in IDENTITIES.items()}
    setting = Setting(roster, BOSS.public, binding, TERMS, BITS, COUNT, key_id)
    parties = {name: Party(name, f"{name} {attempt}", setting) for name in NAMES}
    combiner = CombinerSession(setting, identity=BOSS, journal=NoJournal())
    requests: list[dict[str, bytes]] = []
    gone: set[str] = set()
    for stage in STAGES:
        gone |= {name for name, last in leaves.items() if last == stage}
        for name in combiner.expected:
            if name not in gone:
                request = combiner.requests.get(name, b"")
                combiner.receive(parties[name].answer(stage, request))
        combiner.close()
        requests.append(dict(combiner.requests))
    key_lists, deliveries, survivors, certificates, _ = requests
    table = combiner._table
    return {
        "what": what,
        "binding": binding_json(binding),
        "key_id": key_id.hex(),
        "leaves": leaves,
        "sites": [_site(party, binding) for party in parties.values()],
        "key_list": next(iter(key_lists.values())).hex(),
        "key_list_digest": table.digest.hex(),
        "share_keys": _share_keys(parties, setting, table),
        "deliveries": {name: frame.hex() for name, frame in deliveries.items()},
        "pair_keys": _pair_keys(parties, setting, table, sorted(combiner._sharers)),
        "survivors": next(iter(survivors.values())).hex(),
        "transcript": combiner._transcript.hex(),
        "certificate": next(iter(certificates.values())).hex(),
        "recovered": [
            _recovered(parties, place, place in combiner._survivors)
            for place in sorted(combiner._sharers)
        ],
        "sum": combiner.total().tolist(),
        "sum_frame": combiner.sum_frame().hex(),
    }


def _site(party: Party, binding: Binding) -> Json:
    mask_key = public_bytes(party.ephemeral.mask_key)
    return {
        "name": party.name,
        "mask_secret": party.mask_secret.hex(),
        "share_secret": party.share_secret.hex(),
        "seed": party.seed.hex(),
        "mask_coefficients": [f"{a:066x}" for a in party.mask_coefficients],
        "seed_coefficients": [f"{a:066x}" for a in party.seed_coefficients],
        "vector": party.vector,
        "mask_key": mask_key.hex(),
        "share_key": public_bytes(party.ephemeral.share_key).hex(),
        "commitment": commitment(party.seed, binding, party.name).hex(),
        "self_mask_key": self_mask(party.seed, binding, party.name, mask_key).key.hex(),
        "frames": {stage: frame.hex() for stage, frame in party.frames.items()},
    }


def _share_keys(parties: dict[str, Party], setting: Setting, table: KeyTable) -> list[Json]:
    """Key, plain text and ciphertext of each message from one site to another."""
    out: list[Json] = []
    for party in parties.values():
        if "shares" not in party.frames:
            continue
        box = ShareBox(party.ephemeral.share_key, setting, table, party.place)
        pairs = party.pairs(tuple(sorted(table.holders(party.place))))
        for to in table.recipients(party.place):
            key, associated = box._key(party.place, to, to)
            out.append(
                {
                    "from": party.name,
                    "to": NAMES[to],
                    "key": key.hex(),
                    "associated": associated.hex(),
                    "plain": (pairs[to].mask_key + pairs[to].seed).hex(),
                    "sealed": box._seal(to, pairs[to]).hex(),
                }
            )
    return out


def _pair_keys(
    parties: dict[str, Party], setting: Setting, table: KeyTable, sharers: list[int]
) -> list[Json]:
    return [
        {
            "names": [NAMES[first], NAMES[second]],
            "key": pair_mask(
                parties[NAMES[first]].ephemeral.mask_key, setting, table, first, second
            ).key.hex(),
        }
        for first in sharers
        for second in sharers
        if first < second
    ]


def _recovered(parties: dict[str, Party], place: int, survived: bool) -> Json:
    party = parties[NAMES[place]]
    secret = party.seed if survived else party.mask_secret
    return {"of": party.name, "secret": "seed" if survived else "mask key", "value": secret.hex()}


def _graphs() -> list[Json]:
    """Who holds shares and who masks with whom, for draws in which place 4 is absent."""
    draws = {0: [1, 2], 1: [2, 4], 2: [0, 5], 3: [4, 5], 5: [0, 3]}
    out = []
    for graph in (Neighbourhood(2, 2, complete=False), Neighbourhood(6, 4, complete=True)):
        adverts = {
            place: Advertise(b"", b"", b"", frozenset(() if graph.complete else drawn))
            for place, drawn in draws.items()
        }
        table = KeyTable(adverts, graph, b"")
        out.append(
            {
                "complete": graph.complete,
                "draws": {str(place): sorted(a.drawn) for place, a in adverts.items()},
                "holders": {str(p): sorted(table.holders(p)) for p in draws},
                "recipients": {str(p): list(table.recipients(p)) for p in draws},
                "owners": {str(p): sorted(table.owners(p)) for p in draws},
                "neighbours": {str(p): sorted(table.neighbours(p)) for p in draws},
            }
        )
    return out
