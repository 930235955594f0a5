"""Who signed: Ed25519 identities of sites and of the combiner."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedbcs_protocols.errors import BadSignature, LocalError

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
# The y coordinates of the eight points of small order: orders 4, 1, 2 and twice 8.
_SMALL_ORDER_Y = frozenset((0, 1, _P - 1, _Y8, _P - _Y8))


@dataclass(frozen=True)
class PublicIdentity:
    """An Ed25519 public key, 32 raw bytes. Two are equal when their bytes are.

    Raises :class:`LocalError` for another length, for a non-canonical encoding and for points of
    small order, under which signatures can be made without a secret.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.raw, bytes) or len(self.raw) != KEY_BYTES:
            raise LocalError(f"a public identity is {KEY_BYTES} bytes")
        y = int.from_bytes(self.raw, "little") & ((1 << 255) - 1)
        if y >= _P or y in _SMALL_ORDER_Y:
            raise LocalError("this public identity is no usable Ed25519 key; ask its owner again")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key as sixteen groups of four hex digits, for reading aloud."""
        digest = hashlib.sha256(b"fedbcs-secure identity v1\x00" + self.raw).hexdigest()
        return " ".join(digest[i : i + 4] for i in range(0, len(digest), 4))

    def verify(self, signature: bytes, message: bytes, *, signer: str = "signer") -> None:
        """Return when ``signature`` is this identity's over ``message``.

        Raises :class:`BadSignature` naming ``signer`` otherwise; there is no boolean to forget.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            raise BadSignature(signer, "the signature does not fit the message") from None

    def __repr__(self) -> str:
        return f"PublicIdentity({self.fingerprint[:19]} ...)"


class Identity:
    """An Ed25519 key pair. Its representation shows the public half only; it cannot be pickled."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicIdentity(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_secret_bytes(cls, secret: bytes) -> Identity:
        """The identity whose 32 secret bytes were kept. Raises :class:`LocalError`."""
        if len(secret) != KEY_BYTES:
            raise LocalError(f"a secret identity is {KEY_BYTES} bytes")
        return cls(Ed25519PrivateKey.from_private_bytes(secret))

    def secret_bytes(self) -> bytes:
        """The 32 secret bytes, for the owner's key file and for nothing else."""
        return self._private.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``."""
        return self._private.sign(message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise LocalError("an identity is not pickled; keep secret_bytes() in a protected file")

    def __repr__(self) -> str:
        return f"Identity(secret redacted, {self.public!r})"
