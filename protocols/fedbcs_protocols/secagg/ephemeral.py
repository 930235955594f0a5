"""What a site makes for one sum and never writes down: two keys and the seed of its self mask."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols.binding import Binding, encode_fields
from fedbcs_protocols.derive import PROTOCOL_VERSION

SEED_BYTES = 32
COMMITMENT_LABEL = "secagg self-mask commitment"


@dataclass(frozen=True)
class Ephemeral:
    """A site's secrets of one attempt (SA-1.1). Used in a second one they would leak."""

    mask_key: X25519PrivateKey = field(repr=False)
    share_key: X25519PrivateKey = field(repr=False)
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Ephemeral:
        """New ones from the operating system's generator."""
        keys = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        return cls(*keys, secrets.token_bytes(SEED_BYTES))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("secrets of a sum are not pickled")


def commitment(seed: bytes, binding: Binding, name: str) -> bytes:
    """What site ``name`` shows of its seed before it is asked for it (SA-1.2)."""
    fields = encode_fields(COMMITMENT_LABEL, PROTOCOL_VERSION, binding.encode(), name, seed)
    return hashlib.sha256(fields).digest()
