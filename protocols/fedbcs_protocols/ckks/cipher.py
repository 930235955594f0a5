"""SEAL through ``tenseal.sealapi``: words in and out, no format of SEAL's ever crosses a wire.

A fresh ciphertext is the words of its first polynomial and the 64-byte seed from which SEAL expands
the second; a sum is the words of both. The headers that SEAL wants around them are made here, from
a specimen that this process saved itself; so nothing that a peer sent is ever parsed as a header.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from fedbcs_protocols.ckks.packing import Slots
from fedbcs_protocols.ckks.params import DEGREE, PRIME, PRIME_BITS, ParameterSet
from fedbcs_protocols.derive import study_key
from fedbcs_protocols.errors import BadCiphertext, LocalError
from fedbcs_protocols.ring import Buffer

SEED_BYTES = 64
POLYNOMIAL_BYTES = DEGREE * PRIME_BITS // 8
FRESH_BYTES = SEED_BYTES + POLYNOMIAL_BYTES
SUM_BYTES = 2 * POLYNOMIAL_BYTES

Polynomial = NDArray[np.uint64]

_ROWS = 16
_WORDS_BYTES = 8 * DEGREE
_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC, _UNCOMPRESSED, _ZSTD = 0xA15E, 0, 2
_ZSTD_MAGIC = 0xFD2FB528
_KEY_LABEL = "ckks secret key"
_KNOWN_KEY = bytes.fromhex("737ebdb1002847413a222d25e3327939071e3ff001943e093ae58feb1ad161f2")
"""SHA-256 of the words of the key that zeros and epoch 1 give."""
_build_is_checked = False
_TOP = np.uint64(PRIME_BITS)
_MASK = np.uint64((1 << PRIME_BITS) - 1)
_SHIFTS = np.arange(0, PRIME_BITS, 4, dtype=np.uint64)[:, None]


class Scratch(Protocol):
    """A file in memory or in a private folder, because sealapi reads and writes paths only.

    Nothing secret goes through it: ciphertexts do.
    """

    path: str

    def write(self, data: Buffer) -> None:
        """Make ``data`` the whole content."""
        ...

    def read(self) -> bytes:
        """The whole content."""
        ...


def pack_words(words: Polynomial) -> bytes:
    """(N,) numbers below 2^60 as 7.5 bytes each: the last of 16 rows sits in the top 4 bits of the

    others (CK-3.2).
    """
    rows = words.reshape(_ROWS, -1)
    packed: Polynomial = rows[:-1] | (rows[-1] >> _SHIFTS) << _TOP
    return packed.astype("<u8").tobytes()


def unpack_words(data: Buffer, sender: str, out: Polynomial | None = None) -> Polynomial:
    """The inverse of :func:`pack_words`, into ``out`` if that is given.

    Raises :class:`BadCiphertext` for numbers from q on.
    """
    if len(data) != POLYNOMIAL_BYTES:
        raise BadCiphertext(sender, f"a polynomial of {len(data)} bytes, not {POLYNOMIAL_BYTES}")
    packed = np.frombuffer(data, "<u8").reshape(_ROWS - 1, -1)
    words = np.empty(DEGREE, np.uint64) if out is None else out
    rows = words.reshape(_ROWS, -1)
    np.bitwise_and(packed, _MASK, out=rows[:-1])
    np.bitwise_or.reduce((packed >> _TOP) << _SHIFTS, axis=0, out=rows[-1])
    # CK-3.3: one spelling of each residue.
    if int(words.max()) >= PRIME:
        raise BadCiphertext(sender, "a coefficient that is no residue")
    return words


class _Mould:
    """What SEAL reads for a ciphertext, with room for the words of its polynomials."""

    def __init__(self, head: bytes, polynomials: int, tail: bytes) -> None:
        start = _SEAL_HEADER.size + len(head)
        size = start + polynomials * _WORDS_BYTES + len(tail)
        header = _SEAL_HEADER.pack(_SEAL_MAGIC, _SEAL_HEADER.size, 4, 3, _UNCOMPRESSED, 0, size)
        self.data = bytearray(header + head + bytes(polynomials * _WORDS_BYTES) + tail)
        self.polynomials = [
            np.frombuffer(self.data, "<u8", DEGREE, start + at * _WORDS_BYTES)
            for at in range(polynomials)
        ]


class Context:
    """SEAL's objects that need no key: all that a combiner has."""

    def __init__(self, params: ParameterSet, scratch: Scratch) -> None:
        self.params = params
        self.scratch = scratch
        self.seal = _seal_context(None)
        self.encoder = sealapi.CKKSEncoder(self.seal)
        self.evaluator = sealapi.Evaluator(self.seal)

    def saved(self, thing: object) -> memoryview:
        """What SEAL saves, without SEAL's own header and compression."""
        thing.save(self.scratch.path)  # type: ignore[attr-defined]
        return _content(self.scratch.read())

    def fresh(self, data: Buffer, sender: str) -> sealapi.Ciphertext:
        """A site's ciphertext (CK-3.1). Raises :class:`BadCiphertext`."""
        view = memoryview(data)
        if len(view) != FRESH_BYTES:
            raise BadCiphertext(sender, f"a ciphertext of {len(view)} bytes, not {FRESH_BYTES}")
        mould = self._fresh
        unpack_words(view[SEED_BYTES:], sender, mould.polynomials[0])
        mould.data[-SEED_BYTES:] = view[:SEED_BYTES]
        return self._loaded(mould)

    def both(self, data: Buffer, sender: str) -> sealapi.Ciphertext:
        """An aggregate ciphertext (CK-3.4). Raises :class:`BadCiphertext`."""
        view = memoryview(data)
        if len(view) != SUM_BYTES:
            raise BadCiphertext(sender, f"a ciphertext of {len(view)} bytes, not {SUM_BYTES}")
        mould = self._sum
        for at, polynomial in enumerate(mould.polynomials):
            start = at * POLYNOMIAL_BYTES
            unpack_words(view[start : start + POLYNOMIAL_BYTES], sender, polynomial)
        # CK-3.5: its "message" would be there for all to read, whatever the key.
        if not mould.polynomials[1].any():
            raise BadCiphertext(sender, "a ciphertext that hides nothing")
        return self._loaded(mould)

    def _loaded(self, mould: _Mould) -> sealapi.Ciphertext:
        self.scratch.write(mould.data)
        out = sealapi.Ciphertext(self.seal)
        out.load(self.seal, self.scratch.path)
        return out

    def sum_bytes(self, ciphertext: sealapi.Ciphertext) -> bytes:
        """The words of both polynomials, packed."""
        words = np.frombuffer(self.saved(ciphertext)[-2 * _WORDS_BYTES :], "<u8")
        return pack_words(words[:DEGREE]) + pack_words(words[DEGREE:])

    @cached_property
    def _specimens(self) -> tuple[bytes, bytes, bytes]:
        """What SEAL writes before the words of a fresh ciphertext, after them, and before a sum's.

        From a key that is forgotten at once.
        """
        key = sealapi.KeyGenerator(self.seal).secret_key()
        plain = sealapi.Plaintext()
        self.encoder.encode([0j] * (DEGREE // 2), self.params.scale, plain)
        fresh = bytes(self.saved(sealapi.Encryptor(self.seal, key).encrypt_symmetric(plain)))
        whole = sealapi.Ciphertext(self.seal)
        sealapi.Encryptor(self.seal, key).encrypt_symmetric(plain, whole)
        both = bytes(self.saved(whole))
        head = len(both) - 2 * _WORDS_BYTES
        tail = len(fresh) - head - _WORDS_BYTES
        if head <= 0 or tail <= SEED_BYTES:
            raise LocalError("this build of SEAL saves ciphertexts in a form that is not known")
        return fresh[:head], fresh[head + _WORDS_BYTES :], both[:head]

    @cached_property
    def _fresh(self) -> _Mould:
        head, tail, _ = self._specimens
        return _Mould(head, 1, tail)

    @cached_property
    def _sum(self) -> _Mould:
        return _Mould(self._specimens[2], 2, b"")


class SecretContext(Context):
    """A site's: it encrypts and decrypts with the key of an epoch.

    The key is SEAL's own, generated from the group's secret (CK-4.1), so all sites have the same.
    """

    def __init__(
        self, params: ParameterSet, scratch: Scratch, secret: bytes, study_digest: bytes, epoch: int
    ) -> None:
        super().__init__(params, scratch)
        check_build(scratch)
        key = _secret_key(secret, study_digest, epoch)
        self._encryptor = sealapi.Encryptor(self.seal, key)
        self._decryptor = sealapi.Decryptor(self.seal, key)
        self._plain = sealapi.Plaintext()

    def encrypt(self, slots: Slots) -> bytes:
        """A fresh ciphertext: seed and packed words. Its randomness is the operating system's."""
        self.encoder.encode(slots.tolist(), self.params.scale, self._plain)
        content = self.saved(self._encryptor.encrypt_symmetric(self._plain))
        start = len(self._specimens[0])
        words = np.frombuffer(content[start : start + _WORDS_BYTES], "<u8")
        return bytes(content[-SEED_BYTES:]) + pack_words(words)

    def decrypt(self, ciphertext: sealapi.Ciphertext) -> Slots:
        """The slots, noise and all: for :func:`packing.unpack`, and never to be shown (CK-5.2)."""
        self._decryptor.decrypt(ciphertext, self._plain)
        slots = self.encoder.decode_complex(self._plain)
        return np.fromiter(slots, np.complex128, len(slots))

    def __repr__(self) -> str:
        return "SecretContext(key redacted)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("the keys of a group are not pickled")


def check_build(scratch: Scratch) -> None:
    """Raise :class:`LocalError` if this SEAL draws other keys than the page says (CK-4.1).

    It leaves ternary numbers to the C++ library, and those differ. Sites with different keys would
    refuse each other's sums.
    """
    global _build_is_checked
    if _build_is_checked:
        return
    _secret_key(bytes(32), bytes(32), 1).save(scratch.path)
    words = _content(scratch.read())[-_WORDS_BYTES:]
    if hashlib.sha256(words).digest() != _KNOWN_KEY:
        raise LocalError(
            "this build of TenSEAL draws other secret keys than the other sites' would: use the "
            "wheel for Linux, or secagg"
        )
    _build_is_checked = True


def _seal_context(seed: Sequence[int] | None) -> sealapi.SEALContext:
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [PRIME_BITS]))
    if seed is not None:
        parameters.set_random_generator(sealapi.Blake2xbPRNGFactory(list(seed)))
    # CK-1.1: SEAL itself refuses parameters below 192 bits.
    context = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC192)
    if not context.parameters_set() or parameters.coeff_modulus()[0].value() != PRIME:
        raise LocalError("this build of SEAL does not take the parameters")
    return context


def _secret_key(secret: bytes, study_digest: bytes, epoch: int) -> sealapi.SecretKey:
    """SEAL's uniform ternary key from its own generator, seeded from the group's secret (CK-4.1).

    Only the key comes from this generator; noise and seeds of ciphertexts never do.
    """
    halves = b"".join(study_key(secret, _KEY_LABEL, study_digest, epoch, half) for half in (0, 1))
    seeded = _seal_context(struct.unpack("<8Q", halves))
    return sealapi.KeyGenerator(seeded).secret_key()


def _content(saved: bytes) -> memoryview:
    """What is in a file that SEAL saved: words look random, so zstd stores them as they are."""
    view, least = memoryview(saved), _SEAL_HEADER.size + 5
    magic, header, _, _, mode, _, size = _SEAL_HEADER.unpack_from(saved.ljust(least, b"\0"))
    if magic != _SEAL_MAGIC or header != _SEAL_HEADER.size or not least <= size == len(view):
        raise LocalError("this build of SEAL saves in a form that is not known")
    if mode == _UNCOMPRESSED:
        return view[header:]
    start, (zstd,) = header, struct.unpack_from("<I", view, header)
    descriptor = view[start + 4]
    # One segment, no checksum, no dictionary: the frame header is the size and nothing else.
    width = {0: 1, 1: 2, 2: 4, 3: 8}[descriptor >> 6]
    at = start + 5 + width
    pieces, last = [], 0
    while not last:
        block = int.from_bytes(view[at : at + 3], "little")
        last, kind, length = block & 1, block >> 1 & 3, block >> 3
        at += 3
        if zstd != _ZSTD_MAGIC or mode != _ZSTD or descriptor & 0x3F != 0x20 or kind != 0:
            raise LocalError("SEAL compressed a ciphertext, which should not be possible")
        if at + length > len(view):
            raise LocalError("what SEAL saved is cut short")
        pieces.append(view[at : at + length])
        at += length
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
