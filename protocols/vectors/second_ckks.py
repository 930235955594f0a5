"""The encrypted sum of the second implementation, in Python integers (page CK).

Like ``second_implementation.py`` it shares no code with the package. Polynomials are lists of N
numbers modulo q; complex numbers are Python's.
"""

from __future__ import annotations

import cmath
import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from second_frames import message, signed_part
from second_implementation import Binding, binding_bytes, fields, hkdf, members, site_set
from second_tags import Tags

N = 4096
Q = 2**60 - 2**14 + 1
POLYNOMIAL, SEED = 30720, 64
CONSISTENCY = 14


class Refusal(Exception):
    """The name of the error that must be raised."""


# Numbers modulo q --------------------------------------------------------------------------------


def _root() -> int:
    """The smallest number whose N-th power is -1."""
    one = next(r for g in range(2, 100) if pow(r := pow(g, (Q - 1) // (2 * N), Q), N, Q) == Q - 1)
    return min(pow(one, odd, Q) for odd in range(1, 2 * N, 2))


PSI = _root()


def _turned(values: Sequence[int], root: int) -> list[int]:
    """The values at 1, root, root^2, ... of the polynomial with these coefficients."""
    if len(values) == 1:
        return list(values)
    square = root * root % Q
    even, odd = _turned(values[::2], square), _turned(values[1::2], square)
    factor, low, high = 1, [], []
    for a, b in zip(even, odd, strict=True):
        low.append((a + factor * b) % Q)
        high.append((a - factor * b) % Q)
        factor = factor * root % Q
    return low + high


def _reversed_bits(place: int) -> int:
    return int(f"{place:012b}"[::-1], 2)


def transformed(polynomial: Sequence[int]) -> list[int]:
    """NTT form: place i holds the value at PSI^(2·r + 1), r being i with its 12 bits reversed."""
    twisted = [a * pow(PSI, k, Q) % Q for k, a in enumerate(polynomial)]
    values = _turned(twisted, PSI * PSI % Q)
    return [values[_reversed_bits(i)] for i in range(N)]


def coefficients(words: Sequence[int]) -> list[int]:
    """The inverse, as numbers between -q/2 and q/2."""
    values = [words[_reversed_bits(i)] for i in range(N)]
    twisted = _turned(values, pow(PSI, -2, Q))
    shrink = pow(N, -1, Q)
    out = [a * shrink * pow(PSI, -k, Q) % Q for k, a in enumerate(twisted)]
    return [a - Q if a > Q // 2 else a for a in out]


def _waves(values: Sequence[complex], size: int) -> list[complex]:
    """The values at e^(2πi·t/size), t = 0, 1, ..."""
    if size == 1:
        return list(values)
    even, odd = _waves(values[::2], size // 2), _waves(values[1::2], size // 2)
    turned = [cmath.exp(2j * math.pi * t / size) * b for t, b in enumerate(odd)]
    low = [a + b for a, b in zip(even, turned, strict=True)]
    high = [a - b for a, b in zip(even, turned, strict=True)]
    return low + high


def components(polynomial: Sequence[int], scale: int) -> list[float]:
    """Real and imaginary parts of the slots: slot j is the value at e^(πi·3^j/N), over the scale

    (CK-2.1).
    """
    twisted = [a * cmath.exp(1j * math.pi * k / N) for k, a in enumerate(polynomial)]
    values = _waves(twisted, N)
    slots = (values[(pow(3, j, 2 * N) - 1) // 2] / scale for j in range(N // 2))
    return [part for slot in slots for part in (slot.real, slot.imag)]


# Words -------------------------------------------------------------------------------------------


def pack_words(words: Sequence[int]) -> bytes:
    """CK-3.2"""
    last = words[15 * 256 :]
    out = []
    for row in range(15):
        for j in range(256):
            out.append(words[256 * row + j] + (last[j] // 16**row % 16) * 2**60)
    return struct.pack("<3840Q", *out)


def unpack_words(data: bytes) -> list[int]:
    """CK-3.3"""
    if len(data) != POLYNOMIAL:
        raise Refusal("BadCiphertext")
    packed = struct.unpack("<3840Q", data)
    last = [sum(packed[256 * row + j] // 2**60 * 16**row for row in range(15)) for j in range(256)]
    words = [word % 2**60 for word in packed] + last
    if max(words) >= Q:
        raise Refusal("BadCiphertext")
    return words


# SEAL's generator --------------------------------------------------------------------------------

_START = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
)  # fmt: skip
_ORDERS = [
    [int(digit, 16) for digit in row]
    for row in (
        "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
        "905724afe1bc683d", "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a",
        "6fe9b308c2d714a5", "a2847615fb9e3cd0",
    )
]  # fmt: skip
_QUARTERS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def _leaf(root: bytes, number: int, whole: int) -> bytes:
    """BLAKE2b (RFC 7693) of one block, with the parameters that BLAKE2X has for its outputs.

    ``hashlib`` has them all but a depth of zero.
    """
    parameters = struct.pack("<4BIII2B46x", 64, 0, 0, 0, 64, number, whole, 0, 64)
    state = [a ^ b for a, b in zip(_START, struct.unpack("<8Q", parameters), strict=True)]
    block = struct.unpack("<16Q", root.ljust(128, b"\0"))
    v = [*state, *_START]
    v[12] ^= len(root)
    v[14] ^= 2**64 - 1
    for turn in range(12):
        order = _ORDERS[turn % 10]
        for at, (a, b, c, d) in enumerate(_QUARTERS):
            for word, first, second in ((order[2 * at], 32, 24), (order[2 * at + 1], 16, 63)):
                v[a] = (v[a] + v[b] + block[word]) % 2**64
                v[d] = _right(v[d] ^ v[a], first)
                v[c] = (v[c] + v[d]) % 2**64
                v[b] = _right(v[b] ^ v[c], second)
    return struct.pack("<8Q", *(state[i] ^ v[i] ^ v[i + 8] for i in range(8)))


def _right(word: int, by: int) -> int:
    return (word >> by | word << (64 - by)) % 2**64


def generated(seed: bytes, size: int) -> bytes:
    """The first bytes of SEAL's generator: BLAKE2Xb of 0, 1, 2, ..., 4096 bytes of each."""
    out, number, length = b"", 0, 4096
    while len(out) < size:
        # The length of the whole is the upper half of what hashlib calls the node's offset.
        root = hashlib.blake2b(
            struct.pack("<Q", number), digest_size=64, key=seed, node_offset=length * 2**32
        ).digest()
        out += b"".join(_leaf(root, i, length) for i in range(length // 64))
        number += 1
    return out[:size]


def second_polynomial(seed: bytes) -> list[int]:
    """CK-3.1: 64 bits of the generator for each word, modulo q, below the largest multiple of q."""
    words = struct.unpack(f"<{N}Q", generated(seed, 8 * N))
    if max(words) >= 16 * Q:
        raise NotImplementedError("a word that SEAL would draw again: a chance of 2^-46 each")
    return [word % Q for word in words]


def secret_key(secret: bytes, study: bytes, epoch: int) -> list[int]:
    """CK-4.1: -1, 0 or 1 for the third in which 32 bits of the generator lie."""
    halves = [hkdf(secret, study, fields(["ckks secret key", 1, epoch, half])) for half in (0, 1)]
    words = struct.unpack(f"<{N}I", generated(b"".join(halves), 4 * N))
    return [3 * word // 2**32 - 1 for word in words]


# Parameters --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameters:
    """CK-1, for n sites and values of ``bits`` bits; ``scale`` is 0 where nothing fits."""

    sites: int
    bits: int

    def _scale(self, count: int) -> int:
        """CK-1.3, CK-1.4; 0 if so many fields do not fit."""
        base = self.sites * 2**self.bits
        largest = sum(base // 2 * base**d for d in range(count))
        variance = (10.5 * self.sites + self.sites**2 / 12) * N / 2
        room = (Q / 2 - 21.5 * self.sites) / (math.sqrt(2) * largest)
        scale = math.floor(min(room, 32 * math.sqrt(variance)))
        total = variance + (largest * scale / 2**51) ** 2
        needed = 2 * math.sqrt(2 * total * (math.log(2**24) + 64 * math.log(2)))
        fits = scale >= needed and largest < 2**52 and self.sites * (2**self.bits - 1) < 2**32
        return scale if fits else 0

    @property
    def count(self) -> int:
        """f (CK-1.5)."""
        return next((f for f in (4, 3, 2, 1) if self._scale(f)), 0)

    @property
    def scale(self) -> int:
        return self._scale(self.count) if self.count else 0

    @property
    def name(self) -> bytes:
        """CK-1.6"""
        items = ["ckks parameters", 1, N, Q, self.sites, self.bits, self.count, self.scale]
        return hashlib.sha256(fields(items)).digest()

    @property
    def limbs(self) -> int:
        """VS-2.3"""
        return -(-61 // min(16, self.bits))

    @property
    def payload(self) -> int:
        """CK-2.2"""
        return self.count * N - self.limbs


def packed(values: Sequence[int], params: Parameters) -> list[int]:
    """CK-2.1"""
    base, half = params.sites * 2**params.bits, 2 ** (params.bits - 1)
    return [
        sum((values[d * N + i] - half) * base**d for d in range(params.count)) for i in range(N)
    ]


def unpacked(whole: Sequence[int], params: Parameters, added: int) -> list[int]:
    """CK-2.1, CK-5.3"""
    base, half = params.sites * 2**params.bits, 2 ** (params.bits - 1)
    rest, out = list(whole), []
    for d in range(params.count):
        digits = [(a + base // 2) % base - base // 2 for a in rest]
        if d == params.count - 1:
            digits = rest
        out += [digit + added * half for digit in digits]
        rest = [(a - digit) // base for a, digit in zip(rest, digits, strict=True)]
    if min(out) < 0 or max(out) > added * (2**params.bits - 1):
        raise Refusal("SumOutOfRange")
    return out


def chunks(
    vector: Sequence[int], place: int, names: Sequence[str], params: Parameters, tags: Tags
) -> list[list[int]]:
    """CK-2.2 to CK-2.4"""
    size = params.payload
    values = [int(place == p) for p in range(len(names))] + list(vector)
    values += [0] * (-len(values) % size)
    limbs = tags.limbs(values, names[place])
    rows = len(values) // size
    return [values[k * size : (k + 1) * size] + limbs[k::rows] for k in range(rows)]


# Agreement ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """What a site knows about a sum before it is told one."""

    binding: Binding
    names: Sequence[str]
    keys: Mapping[str, str]
    threshold: int
    params: Parameters
    count: int
    secret: bytes
    epoch: int
    key_name: bytes
    ternary: Sequence[int]
    """The secret key's coefficients (CK-4.1)."""

    @property
    def chunks(self) -> int:
        return -(-(self.count + len(self.names)) // self.params.payload)

    def transcript(self, sites: Iterable[int], digest: bytes) -> bytes:
        """CK-4.3"""
        items = [
            "ckks transcript",
            1,
            binding_bytes(self.binding),
            self.key_name,
            self.params.name,
            self.count,
            site_set(sites, len(self.names)) + digest,
        ]
        return hashlib.sha256(fields(items)).digest()


def added(uploads: Iterable[bytes]) -> bytes:
    """The aggregate of fresh ciphertexts (CK-3.1, CK-3.4)."""
    total = [[0] * N, [0] * N]
    for data in uploads:
        both = unpack_words(data[SEED:]), second_polynomial(data[:SEED])
        total = [
            [(a + b) % Q for a, b in zip(*pair, strict=True)]
            for pair in zip(total, both, strict=True)
        ]
    return b"".join(map(pack_words, total))


def aggregate_name(ciphertexts: bytes) -> bytes:
    """CK-4.2"""
    return hashlib.sha256(b"fedbcs-secure aggregate v1\0" + ciphertexts).digest()


def agreement(
    named: bytes, sites: Iterable[int], digest: bytes, signed: Mapping[int, bytes], count: int
) -> bytes:
    """CK-4.4"""
    ordered = b"".join(signed[place] for place in sorted(signed))
    return named + site_set(sites, count) + digest + site_set(signed, count) + ordered


def read_sum(body: bytes, told: Sum) -> list[int]:
    """The sum in the body of *sum* (CK-4.5, CK-5); raises :class:`Refusal`."""
    count, width = len(told.names), (len(told.names) + 7) // 8
    named, rest = body[:32], body[32:]
    inside, digest = members(rest[:width], count), rest[width : width + 32]
    signers = members(rest[width + 32 : 2 * width + 32], count)
    if inside is None or signers is None:
        raise Refusal("MalformedFrame")
    rest = rest[2 * width + 32 :]
    signatures, rest = rest[: 64 * len(signers)], rest[64 * len(signers) :]
    if len(rest) != 4 + told.chunks * 2 * POLYNOMIAL or rest[:4] != struct.pack(">I", told.chunks):
        raise Refusal("MalformedFrame")
    if not set(signers) <= set(inside) or len(signers) < told.threshold:
        raise Refusal("BadSiteList")
    transcript = replace(told, key_name=named).transcript(inside, digest)
    for at, place in enumerate(signers):
        name = told.names[place]
        head = signed_part(CONSISTENCY, told.binding, name, 1, transcript)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(told.keys[name]))
        try:
            key.verify(signatures[64 * at : 64 * at + 64], message(head, transcript))
        except InvalidSignature:
            raise Refusal("Inconsistent") from None
    if aggregate_name(rest[4:]) != digest:
        raise Refusal("Inconsistent")
    if named != told.key_name:
        raise Refusal("Refused")
    return _opened(rest[4:], inside, told)


def _opened(ciphertexts: bytes, inside: Sequence[int], told: Sum) -> list[int]:
    params, added, size = told.params, len(inside), told.params.payload
    key = transformed([a % Q for a in told.ternary])
    values, limbs, squares = [], [], 0.0
    for at in range(0, len(ciphertexts), 2 * POLYNOMIAL):
        first = unpack_words(ciphertexts[at : at + POLYNOMIAL])
        second = unpack_words(ciphertexts[at + POLYNOMIAL : at + 2 * POLYNOMIAL])
        # CK-3.5
        if not any(second):
            raise Refusal("BadCiphertext")
        plain = [(a + b * s) % Q for a, b, s in zip(first, second, key, strict=True)]
        exact = components(coefficients(plain), params.scale)
        whole = [round(a) for a in exact]
        squares += sum((a - b) ** 2 for a, b in zip(exact, whole, strict=True))
        chunk = unpacked(whole, params, added)
        values += chunk[:size]
        limbs.append(chunk[size:])
    tags = Tags(told.secret, told.epoch, told.binding, params.bits, size)
    rows = [row[i] for i in range(params.limbs) for row in limbs]
    # CK-5.6
    if tags.outcome(values, rows, [told.names[p] for p in inside]) != "ok":
        raise Refusal("BadTag")
    # CK-5.5
    if values[: len(told.names)] != [int(p in inside) for p in range(len(told.names))]:
        raise Refusal("BadMembers")
    # CK-5.4
    measured = math.sqrt(squares / (N * told.chunks)) * params.scale
    least, most = (math.sqrt(v * N / 2) for v in (10.5 * added, 10.5 * added + added**2 / 12))
    if not 0.92 * least <= measured <= 1.08 * most:
        raise Refusal("BadNoise")
    return values[len(told.names) : len(told.names) + told.count]
