"""The encrypted sum of the second implementation, in Python integers (page CK).

Like ``second_implementation.py`` it shares no code with the package. Polynomials are lists of N
coefficients modulo q, the lowest power first.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from second_frames import message, signed_part
from second_implementation import Binding, binding_bytes, fields, keystream, members, site_set
from second_tags import Tags, use_key

N = 4096
Q = 2**60 - 2**14 + 1
POLYNOMIAL, SALT = 30720, 32
CONSISTENCY = 14


class Refusal(Exception):
    """The name of the error that must be raised."""


# Polynomials -------------------------------------------------------------------------------------

_SLOT = 12
"""Bytes that a coefficient of a product has room for: it is below N · q · 1024 in size."""
_MIDDLE = 2 ** (8 * _SLOT - 1)


def _long(coefficients: Iterable[int]) -> int:
    return int.from_bytes(b"".join(a.to_bytes(_SLOT, "little") for a in coefficients), "little")


def product(a: Sequence[int], small: Sequence[int]) -> list[int]:
    """a · small modulo X^N + 1 and q, by one product of long numbers (Kronecker's substitution)."""
    factor = _long(max(s, 0) for s in small) - _long(max(-s, 0) for s in small)
    # With the middle added to each coefficient, none is below zero.
    lifted = _long(a) * factor + _long([_MIDDLE] * 2 * N)
    data = lifted.to_bytes(2 * N * _SLOT, "little")
    out = [int.from_bytes(data[i : i + _SLOT], "little") for i in range(0, len(data), _SLOT)]
    # X^N is -1; the middles cancel.
    return [(low - high) % Q for low, high in zip(out[:N], out[N:], strict=True)]


def plus(*polynomials: Sequence[int]) -> list[int]:
    return [sum(column) % Q for column in zip(*polynomials, strict=True)]


# Words -------------------------------------------------------------------------------------------


def pack_words(words: Sequence[int]) -> bytes:
    """CK-3.6"""
    last = words[15 * 256 :]
    out = []
    for row in range(15):
        for j in range(256):
            out.append(words[256 * row + j] + (last[j] // 16**row % 16) * 2**60)
    return struct.pack("<3840Q", *out)


def unpack_words(data: bytes) -> list[int]:
    """CK-3.6, CK-3.7"""
    if len(data) != POLYNOMIAL:
        raise Refusal("BadCiphertext")
    packed = struct.unpack("<3840Q", data)
    last = [sum(packed[256 * row + j] // 2**60 * 16**row for row in range(15)) for j in range(256)]
    words = [word % 2**60 for word in packed] + last
    if max(words) >= Q:
        raise Refusal("BadCiphertext")
    return words


def pieces(body: bytes) -> list[bytes]:
    return [body[at : at + POLYNOMIAL] for at in range(0, len(body), POLYNOMIAL)]


# What ciphertexts are made of --------------------------------------------------------------------


def _eights(key: bytes, count: int) -> tuple[int, ...]:
    """The first words of 8 bytes of a keystream."""
    return struct.unpack(f"<{count}Q", keystream(key, 8 * count))


def common_polynomials(seed: bytes, count: int) -> list[list[int]]:
    """CK-3.2, for the digest of an encoded binding"""
    items = ["fedbcs-secure public stream", 1, seed, "ckks common polynomials"]
    key, found = hashlib.sha256(fields(items)).digest(), []
    # More than are needed, lest some are left out.
    for word in _eights(key, count * N + 64):
        if word % 2**60 < Q:
            found.append(word % 2**60)
    return [found[at : at + N] for at in range(0, count * N, N)]


def seed_of(binding: Binding) -> bytes:
    return hashlib.sha256(binding_bytes(binding)).digest()


def upload_secret(
    group: bytes, epoch: int, binding: Binding, name: str, salt: bytes
) -> tuple[int, ...]:
    """CK-3.3"""
    stream = keystream(use_key(group, "ckks upload secret", binding, epoch, name, salt), N)
    crumbs = (byte // 4**i % 4 for byte in stream for i in range(4))
    return tuple([crumb - 1 for crumb in crumbs if crumb != 3][:N])


def noise(key: bytes, count: int) -> list[list[int]]:
    """CK-3.4"""
    words = _eights(key, count * N)
    out = [(word % 2**21).bit_count() - (word // 2**21 % 2**21).bit_count() for word in words]
    return [out[at : at + N] for at in range(0, count * N, N)]


@cache
def masks(seed: bytes, secret: tuple[int, ...], count: int) -> list[list[int]]:
    """a_j · s for each chunk."""
    return [product(a, secret) for a in common_polynomials(seed, count)]


# Parameters --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameters:
    """CK-1, for n sites and values of ``bits`` bits."""

    sites: int
    bits: int

    @cached_property
    def _carry(self) -> int:
        """⌈log2 n⌉"""
        return next(i for i in range(11) if 2**i >= self.sites)

    @cached_property
    def base(self) -> int:
        """CK-1.2"""
        return 2 ** (self.bits + self._carry)

    @cached_property
    def scale(self) -> int:
        """CK-1.3"""
        return 64 * 2**self._carry

    def largest(self, count: int) -> int:
        """CK-1.2"""
        return sum(self.sites * (2**self.bits - 1) * self.base**d for d in range(count))

    def fits(self, count: int) -> bool:
        """CK-1.4"""
        short = self.sites * (2**self.bits - 1) < 2**32
        return short and self.scale * (self.largest(count) + 1) <= Q

    @cached_property
    def count(self) -> int:
        """f; 0 where nothing fits (CK-1.5)."""
        return next((f for f in (4, 3, 2, 1) if self.fits(f)), 0)

    @cached_property
    def name(self) -> bytes:
        """CK-1.6"""
        items = ["ckks parameters", 2, N, Q, self.sites, self.bits, self.count, self.scale]
        return hashlib.sha256(fields(items)).digest()

    @cached_property
    def limbs(self) -> int:
        """VS-2.3"""
        return -(-61 // min(16, self.bits))

    @cached_property
    def payload(self) -> int:
        """CK-2.2"""
        return self.count * N - self.limbs


def packed(values: Sequence[int], params: Parameters) -> list[int]:
    """CK-2.1"""
    digits = range(params.count)
    return [
        params.scale * sum(values[d * N + i] * params.base**d for d in digits) for i in range(N)
    ]


def rounded(plain: int, params: Parameters) -> tuple[int, int]:
    """A coefficient without its noise and scale, and the noise (CK-5.2)."""
    # What is less than half a step below q is less than half a step below zero.
    near = plain - Q if Q - plain <= params.scale // 2 else plain
    whole = (near + params.scale // 2) // params.scale
    return whole, near - whole * params.scale


def unpacked(whole: Sequence[int], params: Parameters, added: int) -> list[int]:
    """CK-2.1, CK-5.3"""
    rest, out = list(whole), []
    for _ in range(params.count - 1):
        out += [a % params.base for a in rest]
        rest = [a // params.base for a in rest]
    out += rest
    if max(out) > added * (2**params.bits - 1):
        raise Refusal("SumOutOfRange")
    return out


def check_noise(chunk: Sequence[int], added: int) -> None:
    """CK-5.4: a root mean square within 12 %, in whole numbers."""
    twice = 2 * sum(e * e for e in chunk)
    variance = 21 * added * len(chunk)
    within = 88**2 * variance <= 100**2 * twice <= 112**2 * variance
    if max(map(abs, chunk)) > 21 * added or not within:
        raise Refusal("BadNoise")


def chunks(
    vector: Sequence[int], flags: Sequence[int], name: str, params: Parameters, tags: Tags
) -> list[list[int]]:
    """CK-2.2 to CK-2.4; ``flags`` is what stands in the sites' fields."""
    size = params.payload
    values = list(flags) + list(vector)
    values += [0] * (-len(values) % size)
    limbs = tags.limbs(values, name)
    rows = len(values) // size
    return [values[k * size : (k + 1) * size] + limbs[k::rows] for k in range(rows)]


# A sum -------------------------------------------------------------------------------------------


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

    @property
    def sites(self) -> int:
        return len(self.names)

    @property
    def chunks(self) -> int:
        return -(-(self.count + self.sites) // self.params.payload)

    @property
    def tags(self) -> Tags:
        params = self.params
        return Tags(self.secret, self.epoch, self.binding, params.bits, params.payload)

    def secret_of(self, name: str, salt: bytes) -> tuple[int, ...]:
        return upload_secret(self.secret, self.epoch, self.binding, name, salt)

    def ciphertexts(
        self,
        vector: Sequence[int],
        name: str,
        salt: bytes,
        noise_key: bytes,
        flags: Sequence[int] | None = None,
    ) -> bytes:
        """CK-3.1; ``flags`` are those of a site that lies."""
        own = [int(name == other) for other in self.names] if flags is None else flags
        plain = chunks(vector, own, name, self.params, self.tags)
        hiding = masks(seed_of(self.binding), self.secret_of(name, salt), self.chunks)
        out = []
        for values, mask, errors in zip(plain, hiding, noise(noise_key, self.chunks), strict=True):
            held = zip(packed(values, self.params), errors, mask, strict=True)
            out.append(pack_words([(m + e - a) % Q for m, e, a in held]))
        return b"".join(out)

    def upload(self, salt: bytes, ciphertexts: bytes) -> bytes:
        """CK-3.8"""
        return (
            self.key_name + self.params.name + salt + struct.pack(">I", self.chunks) + ciphertexts
        )

    def transcript(self, announced: bytes) -> bytes:
        """CK-4.3"""
        items = [
            "ckks transcript",
            1,
            binding_bytes(self.binding),
            self.key_name,
            self.params.name,
            self.count,
            announced,
        ]
        return hashlib.sha256(fields(items)).digest()


def added(uploads: Iterable[bytes]) -> bytes:
    """The aggregate of these sites' ciphertexts, chunk by chunk."""
    columns = zip(*map(pieces, uploads), strict=True)
    return b"".join(pack_words(plus(*map(unpack_words, column))) for column in columns)


def aggregate_name(ciphertexts: bytes) -> bytes:
    """CK-4.2"""
    return hashlib.sha256(b"fedbcs-secure aggregate v1\0" + ciphertexts).digest()


def announcement(salts: Mapping[int, bytes], digest: bytes, sites: int) -> bytes:
    """CK-4.3"""
    return site_set(salts, sites) + digest + b"".join(salts[place] for place in sorted(salts))


def agreement(named: bytes, announced: bytes, signed: Mapping[int, bytes], sites: int) -> bytes:
    """CK-4.4"""
    ordered = b"".join(signed[place] for place in sorted(signed))
    return named + announced + site_set(signed, sites) + ordered


# Reading -----------------------------------------------------------------------------------------


def read_upload(body: bytes, told: Sum) -> None:
    """What the combiner checks before it adds (CK-3.7 to CK-3.9); raises :class:`Refusal`."""
    if len(body) != 100 + told.chunks * POLYNOMIAL:
        raise Refusal("MalformedFrame")
    head = told.upload(body[64:96], b"")
    if body[:100] != head:
        raise Refusal("Inconsistent")
    for piece in pieces(body[100:]):
        unpack_words(piece)


def _announced_at(body: bytes, sites: int) -> tuple[dict[int, bytes], bytes, int]:
    """Salts, digest, and where it ends."""
    width = (sites + 7) // 8
    inside = members(body[:width], sites)
    if inside is None:
        raise Refusal("MalformedFrame")
    start = width + 32
    end = start + SALT * len(inside)
    if len(body) < end:
        raise Refusal("MalformedFrame")
    salts = {p: body[start + SALT * i : start + SALT * (i + 1)] for i, p in enumerate(inside)}
    return salts, body[width:start], end


def read_announcement(body: bytes, told: Sum, name: str, salt: bytes) -> bytes:
    """What a site that sent this salt signs (CK-4.3); raises :class:`Refusal`."""
    salts, _, end = _announced_at(body, told.sites)
    if end != len(body):
        raise Refusal("MalformedFrame")
    place = list(told.names).index(name)
    if place not in salts or len(salts) < told.threshold:
        raise Refusal("BadSiteList")
    if salts[place] != salt:
        raise Refusal("Inconsistent")
    return told.transcript(body)


def read_sum(body: bytes, told: Sum) -> list[int]:
    """The sum in the body of *sum* (CK-4.5, CK-5); raises :class:`Refusal`."""
    named, rest = body[:32], body[32:]
    salts, digest, end = _announced_at(rest, told.sites)
    announced, rest = rest[:end], rest[end:]
    width = (told.sites + 7) // 8
    signers = members(rest[:width], told.sites)
    if signers is None:
        raise Refusal("MalformedFrame")
    rest = rest[width:]
    signatures, rest = rest[: 64 * len(signers)], rest[64 * len(signers) :]
    if len(rest) != 4 + told.chunks * POLYNOMIAL or rest[:4] != struct.pack(">I", told.chunks):
        raise Refusal("MalformedFrame")
    if not set(signers) <= set(salts) or len(signers) < told.threshold:
        raise Refusal("BadSiteList")
    transcript = replace(told, key_name=named).transcript(announced)
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
    return _opened(rest[4:], salts, told)


def opened_chunks(
    ciphertexts: bytes, salts: Mapping[int, bytes], told: Sum
) -> list[list[tuple[int, int]]]:
    """Whole numbers and noise under the sum of the secrets (CK-3.5, CK-5.2)."""
    secrets = [told.secret_of(told.names[place], salt) for place, salt in salts.items()]
    total = tuple(sum(column) for column in zip(*secrets, strict=True))
    polynomials = [unpack_words(piece) for piece in pieces(ciphertexts)]
    hiding = masks(seed_of(told.binding), total, told.chunks)
    return [
        [rounded((b + a) % Q, told.params) for b, a in zip(*both, strict=True)]
        for both in zip(polynomials, hiding, strict=True)
    ]


def _opened(ciphertexts: bytes, salts: Mapping[int, bytes], told: Sum) -> list[int]:
    params, size = told.params, told.params.payload
    found = opened_chunks(ciphertexts, salts, told)
    values, limbs = [], []
    for chunk in found:
        whole = unpacked([whole for whole, _ in chunk], params, len(salts))
        values += whole[:size]
        limbs.append(whole[size:])
    for chunk in found:
        check_noise([rest for _, rest in chunk], len(salts))
    rows = [row[i] for i in range(params.limbs) for row in limbs]
    # CK-5.6
    if told.tags.outcome(values, rows, [told.names[p] for p in sorted(salts)]) != "ok":
        raise Refusal("BadTag")
    # CK-5.5
    if values[: told.sites] != [int(p in salts) for p in range(told.sites)]:
        raise Refusal("BadMembers")
    return values[told.sites : told.sites + told.count]
