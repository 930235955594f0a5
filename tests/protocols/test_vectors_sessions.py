"""Known answers of whole sums, by the package's sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from known_answers import BITS, COUNT, NAMES, RUNS, SUMS, Told, as_binding, unhex

from fedbcs_protocols.identity import Identity
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
from fedbcs_protocols.secagg.ephemeral import Ephemeral


@RUNS
def test_a_whole_sum_by_the_package(run: dict[str, Any]) -> None:
    """The sessions write these frames, byte for byte, and read them."""
    told = Told(run)
    boss = Identity.from_secret_bytes(bytes.fromhex(SUMS["combiner_secret"]))
    identities = {
        name: Identity.from_secret_bytes(bytes.fromhex(secret))
        for name, secret in SUMS["identity_secrets"].items()
    }
    setting = Setting(
        {name: identity.public for name, identity in identities.items()},
        boss.public,
        as_binding(run["binding"]),
        Terms(**SUMS["terms"]),
        BITS,
        COUNT,
        bytes.fromhex(run["key_id"]),
    )
    verified = frozenset(identity.public.fingerprint for identity in identities.values())
    combiner = CombinerSession(setting, identity=boss, journal=NoJournal())
    sessions = []
    for site in told.sites:
        session = SiteSession(
            setting,
            identity=identities[site["name"]],
            name=site["name"],
            guard=Guard(verified),
            marks=MemoryMarks(),
        )
        private = [
            X25519PrivateKey.from_private_bytes(unhex(site, f"{what}_secret"))
            for what in ("mask", "share")
        ]
        session._seed_for_tests(Ephemeral(*private, unhex(site, "seed")))
        sessions.append(session)

    def stage(name: str, expected: Mapping[str, str]) -> Mapping[str, bytes]:
        """Let the combiner take a stage's frames, and hold what it asks then against the file."""
        for place in told.sent[name]:
            combiner.receive(told.frame(place, name))
        combiner.close()
        assert {to: frame.hex() for to, frame in combiner.requests.items()} == expected
        return combiner.requests

    def to_senders(name: str, frame: str) -> dict[str, str]:
        return {NAMES[place]: run[frame] for place in told.sent[name]}

    for place in told.sent["advertise"]:
        assert sessions[place].advertise() == told.frame(place, "advertise")
    requests = stage("advertise", to_senders("advertise", "key_list"))
    for place in told.sent["shares"]:
        site = told.sites[place]
        # In the order in which the system's generator is asked: mask key, then seed.
        given = iter([int(a, 16) for a in site["mask_coefficients"] + site["seed_coefficients"]])
        with mock.patch("secrets.randbelow", side_effect=given):
            assert sessions[place].share(requests[NAMES[place]]) == told.frame(place, "shares")
    requests = stage("shares", run["deliveries"])
    for place in told.sent["masked_input"]:
        vector = np.array(told.sites[place]["vector"], np.uint32)
        masked = sessions[place].masked_input(requests[NAMES[place]], vector)
        assert masked == told.frame(place, "masked_input")
    requests = stage("masked_input", to_senders("masked_input", "survivors"))
    for place in told.sent["consistency"]:
        signed = sessions[place].consistency(requests[NAMES[place]])
        assert signed == told.frame(place, "consistency")
        assert sessions[place].transcript == bytes.fromhex(run["transcript"])
    requests = stage("consistency", to_senders("consistency", "certificate"))
    for place in told.sent["unmask"]:
        assert sessions[place].unmask(requests[NAMES[place]]) == told.frame(place, "unmask")
    stage("unmask", {})
    assert combiner.total().tolist() == run["sum"]
    assert combiner.sum_frame().hex() == run["sum_frame"]
    outcome = open_sum(combiner.sum_frame(), setting, {})
    assert outcome.total.tolist() == run["sum"]
    assert outcome.survivors == tuple(NAMES[place] for place in told.sent["masked_input"])
    assert outcome.transcript.hex() == run["transcript"]
    assert outcome.key_id.hex() == run["key_id"]
