"""Products of polynomials modulo (X^N + 1, q), by SEAL through ``tenseal.sealapi`` (CK-3.5).

SEAL reads and writes files only. What it reads is made here, from this process' own numbers;
nothing that a peer sent ever gets there.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Protocol

import numpy as np
from tenseal import sealapi

from fedbcs_protocols.ckks.packing import Polynomials
from fedbcs_protocols.ckks.params import DEGREE, PRIME, PRIME_BITS
from fedbcs_protocols.ckks.samples import Small
from fedbcs_protocols.derive import public_words
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.ring import Buffer

BATCH = 4
"""Polynomials that are multiplied at once: SEAL takes at least 2, and more gain nothing."""

_WORDS_BYTES = 8 * DEGREE
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _PLAIN, _ZSTD = 0xA15E, 0, 2
_ZSTD_MAGIC = 0xFD2FB528
_NAME_BYTES = 32
_CIPHERTEXT = struct.Struct("<BQQQdQ")
_PLAINTEXT = struct.Struct("<Qd")
_COUNT = struct.Struct("<Q")
_KNOWN_PRODUCT = bytes.fromhex("41eae32d45acfa6a55a10f7c0dac7a3784eeafd3eca95760eea9680284e524a3")
"""SHA-256 of the products of :func:`_known_factors`, from a second implementation."""


class Scratch(Protocol):
    """A file in memory, because sealapi reads and writes paths only. Secrets go through it."""

    path: str

    def write(self, data: Buffer) -> None:
        """Make ``data`` the whole content."""
        ...

    def read(self) -> bytes:
        """The whole content."""
        ...


class Products:
    """Products with one polynomial of small coefficients, (N,) int64: a secret, or a sum of some.

    Raises :class:`LocalError` when this build of SEAL does not do as it should.
    """

    def __init__(self, factor: Small, scratch: Scratch) -> None:
        self._ring = _Ring(scratch)
        if not _Checked.done:
            _check(self._ring)
            _Checked.done = True
        self._factor = self._ring.factor(factor)

    def of(self, polynomials: Polynomials) -> Polynomials:
        """The products of :data:`BATCH` polynomials, (BATCH, N) residues each way."""
        return self._ring.times(polynomials, self._factor)

    def __repr__(self) -> str:
        return "Products(factor redacted)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("the secrets of a group are not pickled")


def check_build(scratch: Scratch) -> None:
    """Raise :class:`LocalError` if SEAL is not what this was written for: a known product."""
    _check(_Ring(scratch))


class _Checked:
    done = False


class _Ring:
    """SEAL's objects. None of them has a key."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(DEGREE)
        parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [PRIME_BITS]))
        # CK-1.1: SEAL itself refuses parameters below 192 bits.
        self._seal = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC192)
        if not self._seal.parameters_set() or parameters.coeff_modulus()[0].value() != PRIME:
            raise LocalError("this build of SEAL does not take the parameters")
        self._evaluator = sealapi.Evaluator(self._seal)
        name = self._seal.first_parms_id()
        self._name = struct.pack("<4Q", *name)

    def factor(self, small: Small) -> sealapi.Plaintext:
        """A polynomial of small coefficients as SEAL multiplies by it."""
        residues = np.where(small < 0, small + PRIME, small).astype(np.uint64)
        # SEAL transforms ciphertexts only, and refuses one whose second polynomial is zero.
        both = np.stack((residues, np.ones(DEGREE, np.uint64)))
        ciphertext = self._loaded(both)
        self._evaluator.transform_to_ntt_inplace(ciphertext)
        transformed = self._words(ciphertext, 2)[0]
        body = self._name + _PLAINTEXT.pack(DEGREE, 1.0) + _array(transformed)
        out = sealapi.Plaintext()
        self._scratch.write(_framed(body))
        out.load(self._seal, self._scratch.path)
        return out

    def times(self, polynomials: Polynomials, factor: sealapi.Plaintext) -> Polynomials:
        """Each of the polynomials times the factor."""
        ciphertext = self._loaded(polynomials)
        self._evaluator.transform_to_ntt_inplace(ciphertext)
        self._evaluator.multiply_plain_inplace(ciphertext, factor)
        self._evaluator.transform_from_ntt_inplace(ciphertext)
        return self._words(ciphertext, len(polynomials))

    def _loaded(self, polynomials: Polynomials) -> sealapi.Ciphertext:
        count = len(polynomials)
        head = _CIPHERTEXT.pack(0, count, DEGREE, 1, 1.0, 1)
        self._scratch.write(_framed(self._name + head + _array(polynomials)))
        out = sealapi.Ciphertext(self._seal)
        out.load(self._seal, self._scratch.path)
        return out

    def _words(self, ciphertext: sealapi.Ciphertext, count: int) -> Polynomials:
        ciphertext.save(self._scratch.path)
        words = _content(self._scratch.read())[-count * _WORDS_BYTES :]
        return np.frombuffer(words, "<u8").astype(np.uint64, copy=False).reshape(count, DEGREE)


def _array(words: Polynomials) -> bytes:
    data = words.astype("<u8", copy=False).tobytes()
    return _framed(_COUNT.pack(words.size) + data)


def _framed(body: bytes) -> bytes:
    size = _HEADER.size + len(body)
    return _HEADER.pack(_MAGIC, _HEADER.size, 4, 3, _PLAIN, 0, size) + body


def _content(saved: bytes) -> memoryview:
    """What is in a file that SEAL saved: words look random, so zstd stores them as they are."""
    view, least = memoryview(saved), _HEADER.size + 5
    magic, header, _, _, mode, _, size = _HEADER.unpack_from(saved.ljust(least, b"\0"))
    if magic != _MAGIC or header != _HEADER.size or not least <= size == len(view):
        raise LocalError("this build of SEAL saves in a form that is not known")
    if mode == _PLAIN:
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
            raise LocalError("SEAL compressed a polynomial, which should not be possible")
        if at + length > len(view):
            raise LocalError("what SEAL saved is cut short")
        pieces.append(view[at : at + length])
        at += length
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _known_factors() -> tuple[Polynomials, Small]:
    """Fixed factors: two words of a public stream a coefficient, and a third for the small one."""
    words = public_words(0, "ckks known product", count=(2 * BATCH + 1) * DEGREE).astype(np.uint64)
    high, low, third = np.split(words, (BATCH * DEGREE, 2 * BATCH * DEGREE))
    polynomials = (high << np.uint64(32) | low) % np.uint64(PRIME)
    return polynomials.reshape(BATCH, DEGREE), third.astype(np.int64) % 3 - 1


def _check(ring: _Ring) -> None:
    polynomials, small = _known_factors()
    try:
        product = ring.times(polynomials, ring.factor(small)).astype("<u8", copy=False).tobytes()
    except (RuntimeError, ValueError) as error:
        raise LocalError(
            "this build of SEAL does not read what was written for it: use secagg"
        ) from error
    if hashlib.sha256(product).digest() != _KNOWN_PRODUCT:
        raise LocalError("this build of TenSEAL multiplies polynomials wrongly: use secagg")
