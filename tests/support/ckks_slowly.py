"""What a ciphertext is made of, once more and slowly: the second implementation's, for bindings and

sets as the package has them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import second_ckks as second
from second_ckks import Q, noise, product
from second_ckks import pack_words as written
from second_implementation import fields, keystream

from fedbcs_protocols.binding import Binding

__all__ = [
    "Q",
    "common_polynomials",
    "noise",
    "packed",
    "product",
    "public_stream",
    "upload_secret",
    "words",
    "written",
]


def listed(binding: Binding) -> dict[str, str | int]:
    """A binding as the second implementation has it."""
    return {
        "study_digest": binding.study_digest.hex(),
        "round": binding.round,
        "attempt": binding.attempt,
        "phase": binding.phase,
        "state_digest": binding.state_digest.hex(),
    }


def words(data: bytes) -> tuple[int, ...]:
    """Numbers of 8 bytes, little-endian."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def public_stream(seed: bytes | int, label: str, size: int) -> bytes:
    """The first bytes that anybody can compute from a seed and a label."""
    key = hashlib.sha256(fields(["fedbcs-secure public stream", 1, seed, label])).digest()
    return keystream(key, size)


def common_polynomials(binding: Binding, count: int) -> list[list[int]]:
    """CK-3.2"""
    return second.common_polynomials(second.seed_of(listed(binding)), count)


def upload_secret(group: bytes, epoch: int, binding: Binding, name: str, salt: bytes) -> list[int]:
    """CK-3.3"""
    return list(second.upload_secret(group, epoch, listed(binding), name, salt))


def packed(values: Sequence[int], sites: int, bits: int, count: int) -> list[int]:
    """CK-2.1, for ``count`` digits a coefficient."""
    params = second.Parameters(sites, bits)
    assert params.count == count
    return second.packed(values, params)
