"""Shares of a site's two secrets: dealt, encrypted to each holder, opened again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.derive import PROTOCOL_VERSION, stream_key
from fedbcs_protocols.errors import BadShare, InconsistentShares
from fedbcs_protocols.exchange import agree, public_bytes
from fedbcs_protocols.secagg.ephemeral import Ephemeral
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.secagg.shamir import SHARE_BYTES, check_share, split

SHARE_LABEL = "secagg share"

_NONCE = bytes(12)
"""Each key encrypts one message, so the nonce need not change."""


@dataclass(frozen=True)
class SharePair:
    """A holder's share of one site's mask key and of its seed; only one of them is ever given."""

    mask_key: bytes = field(repr=False)
    seed: bytes = field(repr=False)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("secrets of a sum are not pickled")


def deal(ephemeral: Ephemeral, holders: Sequence[int], threshold: int) -> dict[int, SharePair]:
    """A share of either secret for each holder, by place (SA-3.1)."""
    at = [place + 1 for place in holders]
    keys = split(ephemeral.mask_key.private_bytes_raw(), threshold, at)
    seeds = split(ephemeral.seed, threshold, at)
    return {
        place: SharePair(key, seed) for place, key, seed in zip(holders, keys, seeds, strict=True)
    }


class ShareBox:
    """Encrypts to, and opens from, the other sites of one sum; one key a message (SA-3.2)."""

    def __init__(
        self, private: X25519PrivateKey, setting: Setting, table: KeyTable, me: int
    ) -> None:
        self._private = private
        self._public = public_bytes(private)
        self._setting = setting
        self._table = table
        self._me = me

    def seal_all(self, shares: Mapping[int, SharePair]) -> bytes:
        """The body of a *shares* frame: a ciphertext for each recipient, in their order."""
        return b"".join(
            self._seal(place, shares[place]) for place in self._table.recipients(self._me)
        )

    def open_all(self, owners: Sequence[int], sealed: Sequence[bytes]) -> dict[int, SharePair]:
        """The pairs from ``owners``. Raises :class:`BadShare` naming the owner (SA-4.2)."""
        return {
            owner: self._open(owner, piece) for owner, piece in zip(owners, sealed, strict=True)
        }

    def _seal(self, to: int, pair: SharePair) -> bytes:
        key, associated = self._key(self._me, to, to)
        return ChaCha20Poly1305(key).encrypt(_NONCE, pair.mask_key + pair.seed, associated)

    def _open(self, owner: int, sealed: bytes) -> SharePair:
        key, associated = self._key(owner, self._me, owner)
        name = self._setting.names[owner]
        try:
            plain = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, associated)
        except InvalidTag:
            raise BadShare(
                name, "its encrypted share was changed, by it or on the way, or is another's"
            ) from None
        pair = SharePair(plain[:SHARE_BYTES], plain[SHARE_BYTES:])
        try:
            check_share(pair.mask_key)
            check_share(pair.seed)
        except InconsistentShares:
            raise BadShare(name, "what it sent is no share") from None
        return pair

    def _key(self, sender: int, receiver: int, peer: int) -> tuple[bytes, bytes]:
        """Key and associated data of the message from ``sender`` to ``receiver``."""
        binding = self._setting.binding
        names = self._setting.names[sender], self._setting.names[receiver]
        public = self._table.adverts[peer].share_key
        secret = agree(self._private, public, self._setting.names[peer])
        keys = (self._public, public) if peer == receiver else (public, self._public)
        # SA-3.3
        associated = encode_fields(
            SHARE_LABEL, PROTOCOL_VERSION, binding.encode(), *names, self._table.digest
        )
        return stream_key(secret, SHARE_LABEL, binding, names, keys), associated

    def __repr__(self) -> str:
        return "ShareBox(key redacted)"
