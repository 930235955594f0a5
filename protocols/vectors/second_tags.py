"""The tags of the second implementation, in Python integers (pages VS and GK-1).

Like ``second_implementation.py`` it shares no code with the package.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

from second_implementation import Binding, fields, hkdf, keystream

P = 2305843009213693951


def key_name(secret: bytes) -> bytes:
    """GK-1.2"""
    return hashlib.sha256(fields(["group key", 1, secret])).digest()


def use_key(secret: bytes, label: str, binding: Binding, *more: str | int | bytes) -> bytes:
    """GK-1.3"""
    numbers = [binding["round"], binding["attempt"], binding["phase"]]
    info = [label, 1, *numbers, bytes.fromhex(binding["state_digest"]), *more]
    return hkdf(secret, bytes.fromhex(binding["study_digest"]), fields(info))


def numbers_of(key: bytes, count: int) -> list[int]:
    """VS-2.1: 61 bits of each word, and p is 0."""
    words = struct.unpack(f"<{count}Q", keystream(key, 8 * count))
    return [word % 2**61 % P for word in words]


class Tags:
    """The tags of one sum: weights, pads, and what they must add up to."""

    def __init__(self, secret: bytes, epoch: int, binding: Binding, bits: int, chunk: int) -> None:
        self.secret, self.epoch, self.binding = secret, epoch, binding
        self.bits, self.chunk = bits, chunk
        self.weights = numbers_of(use_key(secret, "verified sum weights", binding, epoch), chunk)

    def pads(self, site: str, count: int) -> list[int]:
        """VS-2.2"""
        key = use_key(self.secret, "verified sum pads", self.binding, self.epoch, site)
        return numbers_of(key, count)

    def hashes(self, values: Sequence[int]) -> list[int]:
        """The tags without their pads."""
        chunks = [values[at : at + self.chunk] for at in range(0, len(values), self.chunk)]
        return [sum(w * x for w, x in zip(self.weights, chunk, strict=False)) for chunk in chunks]

    def limbs(self, values: Sequence[int], site: str) -> list[int]:
        """VS-2.3"""
        hashes = self.hashes(values)
        pads = self.pads(site, len(hashes))
        tags = [(h + pad) % P for h, pad in zip(hashes, pads, strict=True)]
        width = min(16, self.bits)
        return [tag // 2 ** (width * i) % 2**width for i in range(-(-61 // width)) for tag in tags]

    def outcome(self, values: Sequence[int], limbs: Sequence[int], sites: Iterable[str]) -> str:
        """VS-3.2"""
        wanted = self.hashes(values)
        for site in sites:
            wanted = [w + pad for w, pad in zip(wanted, self.pads(site, len(wanted)), strict=True)]
        width, rows = min(16, self.bits), len(wanted)
        told = [
            sum(limb * 2 ** (width * i) for i, limb in enumerate(limbs[k::rows]))
            for k in range(rows)
        ]
        fits = all((t - w) % P == 0 for t, w in zip(told, wanted, strict=True))
        return "ok" if fits else "BadTag"
