"""Public test keys and numbers that every file of known answers is made of."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from fedbcs_protocols.binding import Binding

Json = dict[str, Any]

BINDING = Binding(bytes(range(32)), 7, 1, 2, bytes(range(100, 132)))


def fixed_bytes(label: str) -> bytes:
    """32 public bytes for a test key."""
    return hashlib.sha256(b"fedbcs-secure test vector " + label.encode()).digest()


def fixed_words(label: str, count: int, bits: int) -> list[int]:
    """Reproducible numbers below 2^bits: SHA-256 in counter mode, a word a digest."""
    key = fixed_bytes(label)
    digests = (hashlib.sha256(key + struct.pack(">I", i)).digest() for i in range(count))
    return [int.from_bytes(digest[:4], "big") % (1 << bits) for digest in digests]


def binding_json(binding: Binding) -> Json:
    return {
        "study_digest": binding.study_digest.hex(),
        "round": binding.round,
        "attempt": binding.attempt,
        "phase": binding.phase,
        "state_digest": binding.state_digest.hex(),
    }
