"""Secrets encrypted from one site to another, past the combiner: one key a message (GK-3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedbcs_protocols.binding import Binding, encode_fields
from fedbcs_protocols.derive import PROTOCOL_VERSION, stream_key
from fedbcs_protocols.errors import BadShare
from fedbcs_protocols.exchange import agree

DEAL_LABEL = "group deal"
GIFT_LABEL = "group gift"

_NONCE = bytes(12)
"""Each key encrypts one message, so the nonce need not change."""


@dataclass(frozen=True)
class Envelope:
    """Who writes to whom, under which public keys, about what.

    ``keys`` are the writer's and the reader's X25519 public keys; ``about`` is what both must have
    seen alike.
    """

    label: str
    binding: Binding
    names: tuple[str, str]
    keys: tuple[bytes, bytes]
    about: tuple[bytes | int, ...]

    def seal(self, private: X25519PrivateKey, plain: bytes) -> bytes:
        """Encrypt with the writer's private key."""
        shared = agree(private, self.keys[1], self.names[1])
        return ChaCha20Poly1305(self._key(shared)).encrypt(_NONCE, plain, self._associated())

    def open(self, private: X25519PrivateKey, sealed: bytes) -> bytes:
        """Decrypt with the reader's private key. Raises :class:`BadShare` naming the writer."""
        shared = agree(private, self.keys[0], self.names[0])
        try:
            return ChaCha20Poly1305(self._key(shared)).decrypt(_NONCE, sealed, self._associated())
        except InvalidTag:
            raise BadShare(
                self.names[0], "the key that it sent was changed, or is for another site"
            ) from None

    def _key(self, shared: bytes) -> bytes:
        return stream_key(shared, self.label, self.binding, self.names, self.keys)

    def _associated(self) -> bytes:
        return encode_fields(
            self.label, PROTOCOL_VERSION, self.binding.encode(), *self.names, *self.about
        )
