"""X25519 keys as they travel: one spelling each, and none that hides nothing."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedbcs_protocols.errors import BadKey, MalformedFrame

KEY_BYTES = 32

_PRIME = 2**255 - 19
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
"""The canonical u-coordinates whose shared secret is zero for everybody (RFC 7748, section 7)."""


def check_key(key: bytes, sender: str) -> None:
    """Return when ``key`` is in canonical form and not of low order.

    Raises :class:`MalformedFrame` or :class:`BadKey` naming the sender.
    """
    number = int.from_bytes(key, "little")
    # SA-1.4: else one key has several spellings, and SA-2.4 compares spellings.
    if number >= _PRIME:
        raise MalformedFrame(sender, "a key that is not in canonical form")
    # SA-2.5: refused where it comes in, so that its sender alone drops out.
    if number in _LOW_ORDER:
        raise BadKey(sender, "one of its keys is of low order")


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The 32 bytes of the public half."""
    return private.public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes, peer: str) -> bytes:
    """The X25519 secret with ``peer``. Raises :class:`BadKey` for a key of low order (SA-2.5),

    which decoding has refused already.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        # SA-2.5: the shared secret would be zero, known to everybody.
        raise BadKey(peer, "one of its keys is of low order") from None
