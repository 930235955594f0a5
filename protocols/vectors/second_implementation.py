"""A second implementation of the protected sum, for checking the known answers.

It follows the pages in ``protocols/specs`` in plain Python integers and shares no code with the
package; frames are in ``second_frames.py``. AES, ChaCha20-Poly1305 and X25519 come from
``cryptography``, hashes from ``hashlib`` and ``hmac``. It is slow, and trusts whatever it is given
beyond what it checks.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

Binding = Mapping[str, Any]
"""As in the files: numbers, and digests in hexadecimal."""

FIELD = 2**256 + 297


# Bytes and keys ----------------------------------------------------------------------------------


def fields(items: Iterable[str | bytes | int]) -> bytes:
    """WI-3.1"""
    out = b""
    for item in items:
        if isinstance(item, str):
            letter, content = b"s", item.encode("utf-8")
        elif isinstance(item, bytes):
            letter, content = b"b", item
        else:
            letter, content = b"i", struct.pack(">Q", item)
        out += letter + struct.pack(">I", len(content)) + content
    return out


def binding_bytes(binding: Binding) -> bytes:
    return (
        bytes.fromhex(binding["study_digest"])
        + struct.pack(">IHB", binding["round"], binding["attempt"], binding["phase"])
        + bytes.fromhex(binding["state_digest"])
    )


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256; 32 bytes are one block."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def keystream(key: bytes, size: int) -> bytes:
    """Counter mode written out: the encryptions of 0, 1, 2, ..."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305  (CTR by hand)
    counters = b"".join(i.to_bytes(16, "big") for i in range(-(-size // 16)))
    return encryptor.update(counters)[:size]


def stream_key(
    secret: bytes, label: str, binding: Binding, names: Sequence[str], keys: Sequence[bytes]
) -> bytes:
    """SA-3.2"""
    numbers = [binding["round"], binding["attempt"], binding["phase"]]
    info = [label, 1, *numbers, bytes.fromhex(binding["state_digest"]), *names, *keys]
    return hkdf(secret, bytes.fromhex(binding["study_digest"]), fields(info))


def shared(secret: bytes, public: bytes) -> bytes:
    private = X25519PrivateKey.from_private_bytes(secret)
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def public_half(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


# Sets and packed vectors -------------------------------------------------------------------------


def site_set(members: Iterable[int], sites: int) -> bytes:
    """SA-1.5"""
    out = bytearray((sites + 7) // 8)
    for place in set(members):
        out[place // 8] += 2 ** (place % 8)
    return bytes(out)


def members(data: bytes, sites: int) -> list[int] | None:
    """The places in a set, none for bytes that are no set."""
    bits = [byte // 2**i % 2 for byte in data for i in range(8)]
    if len(data) != (sites + 7) // 8 or any(bits[sites:]):
        return None
    return [place for place, bit in enumerate(bits) if bit]


def pack(values: list[int], bits: int) -> bytes:
    """CO-2"""
    words: list[int] = []
    for start in range(0, len(values), 32 * 8192):
        block = values[start : start + 32 * 8192]
        columns = -(-len(block) // 32)
        block = block + [0] * (32 * columns - len(block))
        numbers = [
            sum(block[row * columns + c] << (row * bits) for row in range(32))
            for c in range(columns)
        ]
        words += [(number >> (32 * w)) % 2**32 for w in range(bits) for number in numbers]
    return struct.pack(f"<{len(words)}I", *words)


def unpack(data: bytes, count: int, bits: int) -> list[int] | None:
    """The values of one block (at most 32·8192); none for bytes that are no packed vector."""
    columns = -(-count // 32)
    if len(data) != 4 * bits * columns:
        return None
    words = struct.unpack(f"<{bits * columns}I", data)
    numbers = [sum(words[w * columns + c] << (32 * w) for w in range(bits)) for c in range(columns)]
    values = [
        (numbers[i % columns] >> (i // columns * bits)) % 2**bits for i in range(32 * columns)
    ]
    return None if any(values[count:]) else values[:count]


# Shamir's scheme, by powers and by linear equations ----------------------------------------------


def split(secret: bytes, coefficients: Sequence[int], holders: Sequence[int]) -> list[bytes]:
    """SA-3.1"""
    polynomial = [int.from_bytes(secret, "big"), *coefficients]
    values = (sum(a * x**i for i, a in enumerate(polynomial)) % FIELD for x in holders)
    return [value.to_bytes(33, "big") for value in values]


def polynomial_through(points: Mapping[int, int]) -> list[int]:
    """The coefficients of the polynomial through the points: Vandermonde's system, eliminated."""
    size = len(points)
    rows = [[pow(x, i, FIELD) for i in range(size)] + [y] for x, y in points.items()]
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        inverse = pow(rows[i][i], FIELD - 2, FIELD)
        rows[i] = [value * inverse % FIELD for value in rows[i]]
        for r in range(size):
            if r != i:
                factor = rows[r][i]
                rows[r] = [(a - factor * b) % FIELD for a, b in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


def combine(shares: Mapping[int, bytes], threshold: int) -> tuple[str, bytes]:
    """("ok", the secret), or the name of the error."""
    if threshold < 2 or len(shares) < threshold or not all(0 < x < 65536 for x in shares):
        return "LocalError", b""
    used = sorted(shares)[:threshold]
    if any(len(shares[x]) != 33 or int.from_bytes(shares[x], "big") >= FIELD for x in used):
        return "InconsistentShares", b""
    points = {x: int.from_bytes(shares[x], "big") for x in used}
    secret = polynomial_through(points)[0]
    if secret >= 2**256:
        return "InconsistentShares", b""
    return "ok", secret.to_bytes(32, "big")


# The sum -----------------------------------------------------------------------------------------


def commitment(seed: bytes, binding: Binding, name: str) -> bytes:
    """SA-1.2"""
    items = ["secagg self-mask commitment", 1, binding_bytes(binding), name, seed]
    return hashlib.sha256(fields(items)).digest()


def key_list(frames: Sequence[bytes]) -> bytes:
    """SA-2.1; an empty frame for a site that is absent."""
    out = struct.pack(">H", len(frames))
    for inner in frames:
        out += struct.pack(">I", len(inner)) + inner
    return out


def key_list_digest(body: bytes) -> bytes:
    """SA-2.6"""
    return hashlib.sha256(b"fedbcs-secure key list v1\0" + body).digest()


def share_message(
    key: bytes, plain: bytes, binding: Binding, names: Sequence[str], digest: bytes
) -> tuple[bytes, bytes]:
    """Associated data and ciphertext (SA-3.2, SA-3.3)."""
    associated = fields(["secagg share", 1, binding_bytes(binding), *names, digest])
    return associated, ChaCha20Poly1305(key).encrypt(bytes(12), plain, associated)


def masked(vector: Sequence[int], masks: Iterable[tuple[bytes, int]], bits: int) -> list[int]:
    """The vector with each mask, its key and its sign, added (SA-4.3, SA-4.5)."""
    out = list(vector)
    for key, sign_ in masks:
        words = struct.unpack(f"<{len(out)}I", keystream(key, 4 * len(out)))
        out = [(value + sign_ * word) % 2**bits for value, word in zip(out, words, strict=True)]
    return out


def transcript(
    binding: Binding,
    digest: bytes,
    sharers: Iterable[int],
    survivors: Iterable[int],
    sites: int,
    key_id: bytes,
) -> bytes:
    """SA-5.3"""
    sets = site_set(sharers, sites), site_set(survivors, sites)
    items = ["secagg transcript", 1, binding_bytes(binding), digest, *sets, key_id]
    return hashlib.sha256(fields(items)).digest()
