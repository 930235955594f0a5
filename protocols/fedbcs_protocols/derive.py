"""Keys for one purpose each, and public streams of reproducible random words.

Secret keys: HKDF-SHA256 of an X25519 shared secret, bound to everything that two honest sites must
agree on (:func:`stream_key`). Public streams: AES-256-CTR under a key that anybody can compute from
a seed and labels (:class:`PublicStream`); they decide how numbers are rounded and how a network is
initialised, and hide nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum, auto

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding, encode_fields
from fedbcs_protocols.errors import LocalError

PROTOCOL_VERSION = 1
STREAM_KEY_BYTES = 32

_CHUNK_BYTES = 1 << 18
_ZEROS = bytes(_CHUNK_BYTES)
_GCM_STARTS_AT = 32


def stream_key(
    shared_secret: bytes,
    label: str,
    binding: Binding,
    names: tuple[str, str],
    public_keys: tuple[bytes, bytes],
) -> bytes:
    """The 32-byte key of one pair for one message.

    HKDF-SHA256 with the study digest as salt and, as info, the injective encoding of (label,
    version, round, attempt, phase, state digest, from, to, key of from, key of to). Differing
    states give unrelated keys, so their masks do not cancel (SA-3.2).
    """
    info = encode_fields(
        label,
        PROTOCOL_VERSION,
        binding.round,
        binding.attempt,
        binding.phase,
        binding.state_digest,
        *names,
        *public_keys,
    )
    hkdf = HKDF(SHA256(), STREAM_KEY_BYTES, salt=binding.study_digest, info=info)
    return hkdf.derive(shared_secret)


def study_key(secret: bytes, label: str, study_digest: bytes, *fields: bytes | str | int) -> bytes:
    """A 32-byte key for one purpose in one study, from a secret that several sites hold (GK-1.3).

    HKDF-SHA256 with the study digest as salt and, as info, the injective encoding of (label,
    version, fields...).
    """
    info = encode_fields(label, PROTOCOL_VERSION, *fields)
    return HKDF(SHA256(), STREAM_KEY_BYTES, salt=study_digest, info=info).derive(secret)


def purpose_key(secret: bytes, label: str, binding: Binding, *fields: bytes | str | int) -> bytes:
    """As :func:`study_key`, for one sum: round, attempt, phase and state digest go before

    ``fields``.
    """
    sum_fields = binding.round, binding.attempt, binding.phase, binding.state_digest
    return study_key(secret, label, binding.study_digest, *sum_fields, *fields)


def stream_scratch() -> bytearray:
    """Room for one piece of a keystream."""
    # update_into wants room for a whole cipher block more than it writes.
    return bytearray(_CHUNK_BYTES + 16)


class Engine(Enum):
    """Two ways to the same keystream.

    ``GCM`` reads it through AES-GCM, whose counter runs as CTR's does but starts at block 2; the
    first two blocks come from CTR, and the tag is never taken. OpenSSL has wide vector code for
    GCM and none for CTR: up to 2.5 times as fast on processors with VAES, up to 1.5 times slower
    on those without.
    """

    CTR = auto()
    GCM = auto()


class _Chosen:
    engine = Engine.CTR


def use_engine(engine: Engine) -> None:
    """Make all keystreams from now on by ``engine``. The bytes are the same, the speed is not."""
    _Chosen.engine = engine


class Keystream:
    """The AES-256-CTR keystream of a key (counter from zero), handed out in order.

    A key may serve one keystream only: two messages under one keystream reveal their difference.
    """

    __slots__ = ("_context", "_head", "_scratch")

    def __init__(self, key: bytes) -> None:
        if len(key) != STREAM_KEY_BYTES:
            raise LocalError(f"a stream key is {STREAM_KEY_BYTES} bytes")
        cipher = algorithms.AES256(key)
        self._context: CipherContext = Cipher(cipher, modes.CTR(bytes(16))).encryptor()
        self._head = b""
        if _Chosen.engine is Engine.GCM:
            self._head = self._context.update(bytes(_GCM_STARTS_AT))
            self._context = Cipher(cipher, modes.GCM(bytes(12))).encryptor()
        self._scratch: bytearray | None = None

    def next(self, size: int) -> memoryview:
        """The next ``size`` <= 2^18 bytes; valid until the next call."""
        if self._scratch is None:
            self._scratch = stream_scratch()
        return self.next_into(self._scratch, size)

    def next_into(self, scratch: bytearray, size: int) -> memoryview:
        """As :meth:`next`, in a :func:`stream_scratch` that many streams may share in turn."""
        if not 0 <= size <= _CHUNK_BYTES:
            raise LocalError(f"a keystream is read in pieces of at most {_CHUNK_BYTES} bytes")
        out = memoryview(scratch)
        done = min(len(self._head), size)
        if done:
            out[:done] = self._head[:done]
            self._head = self._head[done:]
        self._context.update_into(memoryview(_ZEROS)[: size - done], out[done:])
        return out[:size]

    def __repr__(self) -> str:
        return "Keystream(key redacted)"


KEYSTREAM_WORDS = _CHUNK_BYTES // 4
"""The largest number of 32-bit words that :meth:`Keystream.next` hands out at once."""


def public_key_of(seed: int | bytes, labels: Sequence[str | int]) -> bytes:
    """The key of a public stream: SHA-256 over the injective encoding of seed and labels."""
    return hashlib.sha256(encode_fields("fedbcs-secure public stream", 1, seed, *labels)).digest()


class PublicStream:
    """Uniform random words that everybody can recompute; read in any number of pieces.

    ``seed`` is a number below 2^64 or bytes (a digest). Reading ``a`` then ``b`` words gives the
    same as reading ``a + b``. Words are little-endian pieces of the keystream. Never use it where
    something must stay secret.
    """

    __slots__ = ("_stream",)

    def __init__(self, seed: int | bytes, *labels: str | int) -> None:
        self._stream = Keystream(public_key_of(seed, labels))

    def words32(self, count: int) -> NDArray[np.uint32]:
        """The next ``count`` words, (count,) uint32."""
        return self._read(4 * count).view("<u4").astype(np.uint32, copy=False)

    def words16(self, count: int) -> NDArray[np.uint16]:
        """The next ``count`` half words, (count,) uint16."""
        return self._read(2 * count).view("<u2").astype(np.uint16, copy=False)

    def _read(self, size: int) -> NDArray[np.uint8]:
        if size < 0:
            raise LocalError("cannot read a negative number of words")
        out = np.empty(size, np.uint8)
        for start in range(0, size, _CHUNK_BYTES):
            piece = out[start : start + _CHUNK_BYTES]
            piece[:] = np.frombuffer(self._stream.next(piece.size), np.uint8)
        return out


def public_words(seed: int | bytes, *labels: str | int, count: int) -> NDArray[np.uint32]:
    """The first ``count`` words of the public stream of ``seed`` and ``labels``, uint32."""
    return PublicStream(seed, *labels).words32(count)
