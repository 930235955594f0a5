from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from protected_sum import make_cast

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.exchange import agree, public_bytes
from fedbcs_protocols.secagg.ephemeral import Ephemeral, commitment

BINDING = make_cast().binding
SEED = bytes(range(32))


def test_every_session_has_secrets_of_its_own() -> None:
    secrets = [Ephemeral.generate() for _ in range(50)]
    keys = [key.private_bytes_raw() for s in secrets for key in (s.mask_key, s.share_key)]
    assert len({*keys, *(s.seed for s in secrets)}) == 150
    assert all(len(s.seed) == 32 for s in secrets)


def test_the_commitment_is_what_sa_1_2_says() -> None:
    fields = ("secagg self-mask commitment", 1, BINDING.encode(), "site2", SEED)
    expected = hashlib.sha256(encode_fields(*fields)).digest()
    assert commitment(SEED, BINDING, "site2") == expected


@pytest.mark.parametrize(
    "change",
    [
        {"study_digest": bytes(32)},
        {"round": 4},
        {"attempt": 1},
        {"phase": 2},
        {"state_digest": bytes(32)},
    ],
)
def test_a_commitment_is_for_one_site_in_one_sum(change: dict[str, Any]) -> None:
    here = commitment(SEED, BINDING, "site2")
    assert commitment(SEED, make_cast().changed(**change).binding, "site2") != here
    assert commitment(SEED, BINDING, "site3") != here
    assert commitment(bytes(32), BINDING, "site2") != here


def test_both_sides_agree() -> None:
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    shared = agree(one, public_bytes(two), "two")
    assert shared == agree(two, public_bytes(one), "one")
    assert public_bytes(one) == one.public_key().public_bytes_raw()
