from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from second_implementation import fields, shared, stream_key

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import BadKey, BadShare
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.group.wrapping import DEAL_LABEL, GIFT_LABEL, Envelope

RAW = [hashlib.sha256(label).digest() for label in (b"dealer", b"reader", b"other")]
DEALER, READER, OTHER = (X25519PrivateKey.from_private_bytes(raw) for raw in RAW)
KEYS = public_bytes(DEALER), public_bytes(READER)
BINDING = Binding(bytes(range(32)), 7, 0, 2, bytes(32))
ENVELOPE = Envelope(DEAL_LABEL, BINDING, ("aachen", "bern"), KEYS, (5, b"k" * 32, b"p" * 32))
PLAIN = bytes(range(32))


def test_what_gk_3_4_says() -> None:
    told: dict[str, Any] = {
        "study_digest": BINDING.study_digest.hex(),
        "round": 7,
        "attempt": 0,
        "phase": 2,
        "state_digest": BINDING.state_digest.hex(),
    }
    agreed = shared(RAW[0], KEYS[1])
    key = stream_key(agreed, "group deal", told, ["aachen", "bern"], KEYS)
    items = ["group deal", 1, BINDING.encode(), "aachen", "bern", 5, b"k" * 32, b"p" * 32]
    expected = ChaCha20Poly1305(key).encrypt(bytes(12), PLAIN, fields(items))
    assert ENVELOPE.seal(DEALER, PLAIN) == expected
    assert len(expected) == 48


def test_there_and_back() -> None:
    sealed = ENVELOPE.seal(DEALER, PLAIN)
    assert ENVELOPE.open(READER, sealed) == PLAIN
    assert PLAIN not in sealed


@pytest.mark.parametrize(
    "change",
    [
        {"label": GIFT_LABEL},
        {"binding": replace(BINDING, round=8)},
        {"binding": replace(BINDING, attempt=1)},
        {"binding": replace(BINDING, phase=1)},
        {"binding": replace(BINDING, study_digest=bytes(32))},
        {"binding": replace(BINDING, state_digest=bytes(range(32)))},
        {"names": ("bern", "aachen")},
        {"names": ("aachen", "cork")},
        {"names": ("cork", "bern")},
        {"keys": (KEYS[0], public_bytes(OTHER))},
        {"keys": (public_bytes(OTHER), KEYS[1])},
        {"about": (6, b"k" * 32, b"p" * 32)},
        {"about": (5, b"l" * 32, b"p" * 32)},
        {"about": (5, b"k" * 32, b"q" * 32)},
        {"about": ()},
    ],
)
def test_it_opens_as_what_it_is_only(change: dict[str, Any]) -> None:
    sealed = ENVELOPE.seal(DEALER, PLAIN)
    other = replace(ENVELOPE, **change)
    with pytest.raises(BadShare, match="was changed, or is for another site") as caught:
        other.open(READER, sealed)
    assert caught.value.sender == other.names[0]


def test_another_reader_or_other_bytes() -> None:
    sealed = ENVELOPE.seal(DEALER, PLAIN)
    with pytest.raises(BadShare):
        ENVELOPE.open(OTHER, sealed)
    for bad in (b"", sealed[:-1], sealed + b"\0", bytes(48), bytes([sealed[0] ^ 1]) + sealed[1:]):
        with pytest.raises(BadShare):
            ENVELOPE.open(READER, bad)


def test_a_key_of_low_order() -> None:
    """SA-2.5: it would be encrypted to everybody."""
    dull = replace(ENVELOPE, keys=(KEYS[0], bytes(32)))
    with pytest.raises(BadKey) as caught:
        dull.seal(DEALER, PLAIN)
    assert caught.value.sender == "bern"
