"""Targets on what an encrypted sum carries: bodies, words, and the ciphertexts that SEAL loads.

A ciphertext is longer than an input may be, so that most inputs say how a genuine one is changed:
``edited``, behind a byte that chooses which. What is taken is written again, byte for byte; what
SEAL then does with it must not end the process.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from encrypted_world import EncryptedWorld
from harness import Target, edited, require, same
from tenseal import sealapi

from fedbcs_protocols.ckks.cipher import (
    FRESH_BYTES,
    POLYNOMIAL_BYTES,
    SEED_BYTES,
    SUM_BYTES,
    pack_words,
    unpack_words,
)
from fedbcs_protocols.ckks.messages import (
    Agreement,
    Announced,
    Encrypted,
    decode_sum,
    encode_sum,
    transcript,
)
from fedbcs_protocols.ckks.params import PRIME
from fedbcs_protocols.errors import BadCiphertext, BadSiteList, Inconsistent, MalformedFrame

SENDER = "aachen"
SITES = 12
WORLD = EncryptedWorld()
SETTING, CONTEXT = WORLD.setting, WORLD.context
FRESH, AGGREGATE = WORLD.upload[-FRESH_BYTES:], WORLD.told[-SUM_BYTES:]
AGREED = WORLD.told[: -SUM_BYTES - 4]


def changed(genuine: bytes) -> Callable[[bytes], bytes]:
    """A reader of inputs: edits of ``genuine``, words of it that are overwritten, or all new."""

    def read(data: bytes) -> bytes:
        how, rest = (data[0] if data else 0) % 4, data[1:]
        if how < 2:
            return edited(genuine, rest)
        if how == 2:
            out = bytearray(genuine)
            for at in range(0, len(rest) - 9, 10):
                place = int.from_bytes(rest[at : at + 2], "big") % (len(out) // 8) * 8
                out[place : place + 8] = rest[at + 2 : at + 10]
            return bytes(out)
        return (rest * (len(genuine) // max(len(rest), 1) + 1))[: len(genuine)]

    return read


_uploads, _sums = changed(WORLD.upload), changed(WORLD.told)
_words, _fresh = changed(AGGREGATE[:POLYNOMIAL_BYTES]), changed(FRESH)
_aggregates = changed(AGGREGATE)


def announced(data: bytes) -> None:
    taken = Announced.decode(data, sender=SENDER, sites=SITES)
    require(all(0 <= place < SITES for place in taken.members), "a site beyond the roster")
    same(taken.encode(SITES), data)


def agreement(data: bytes) -> None:
    taken, end = Agreement.decode_from(data, sender=SENDER, sites=SITES)
    require(end <= Agreement.limit(SITES), "longer than the limit")
    same(taken.encode(SITES), data[:end])


def agreement_signed(data: bytes) -> None:
    """As it is checked before anything is decrypted: only what t sites signed passes."""
    taken, end = Agreement.decode_from(edited(AGREED, data), sender=SENDER, sites=4)
    digest = taken.check(SETTING)
    genuine, _ = Agreement.decode_from(AGREED, sender=SENDER, sites=4)
    require(taken.announced == genuine.announced, "another aggregate than was signed")
    require(digest == transcript(SETTING, genuine.announced), "another transcript")
    require(end <= Agreement.limit(4), "longer than the limit")


def upload(data: bytes) -> None:
    body = _uploads(data)
    taken = Encrypted.decode(body, sender=SENDER, setting=SETTING)
    pieces = [bytes(piece) for piece in taken.ciphertexts()]
    require([len(piece) for piece in pieces] == [FRESH_BYTES], "another number of chunks")
    same(b"".join((Encrypted.head(SETTING), *pieces)), body)


def whole_sum(data: bytes) -> None:
    body = _sums(data)
    taken, ciphertexts = decode_sum(body, sender=SENDER, setting=SETTING)
    require(len(ciphertexts) == SUM_BYTES, "another number of chunks")
    same(encode_sum(taken, ciphertexts, SETTING), body)


def words(data: bytes) -> None:
    body = _words(data)
    taken = unpack_words(body, SENDER)
    require(int(taken.max()) < PRIME, "no residue")
    same(pack_words(taken), body)


_HALVES = slice(0, POLYNOMIAL_BYTES), slice(POLYNOMIAL_BYTES, SUM_BYTES)


def _added(one: sealapi.Ciphertext, other: sealapi.Ciphertext) -> bytes:
    CONTEXT.evaluator.add_inplace(one, other)
    return CONTEXT.sum_bytes(one)


def _sum_of(one: bytes, other: bytes) -> bytes:
    total = unpack_words(one, SENDER) + unpack_words(other, SENDER)
    return pack_words(np.where(total >= PRIME, total - np.uint64(PRIME), total))


def fresh(data: bytes) -> None:
    """Loaded by SEAL and added to a genuine one: the first polynomial is the sum of both."""
    body = _fresh(data)
    taken = CONTEXT.fresh(body, SENDER)
    require(taken.size() == 2, "another number of polynomials")
    added = _added(taken, CONTEXT.fresh(FRESH, SENDER))
    same(added[:POLYNOMIAL_BYTES], _sum_of(body[SEED_BYTES:], FRESH[SEED_BYTES:]))


def aggregate(data: bytes) -> None:
    body = _aggregates(data)
    taken = CONTEXT.both(body, SENDER)
    require(taken.size() == 2, "another number of polynomials")
    same(
        _added(taken, CONTEXT.both(AGGREGATE, SENDER)),
        b"".join(_sum_of(body[half], AGGREGATE[half]) for half in _HALVES),
    )


_HIGH = b"\xff" * 8
_SCRIPTS = (
    b"\0",
    # A byte at the start, near the middle and at the end; one cut out, one put in, all cut off.
    b"\0\1\0\0\1",
    b"\0\1\x3c\0\x80",
    b"\0\1\xef\xff\1",
    b"\0\2\0\x40\1",
    b"\0\3\0\x40\1",
    b"\0\4\0\0\0",
    b"\0\5\0\0\xff",
    # Words at an extreme.
    b"\2\0\0" + bytes(8),
    b"\2\0\1" + _HIGH,
    b"\2\x0e\xff" + _HIGH + b"\2\x1d\xff" + _HIGH,
    b"\2\x1e\0" + (PRIME - 1).to_bytes(8, "little"),
    # All zeros, all ones, all the same.
    b"\3\0",
    b"\3\xff",
    b"\3\1\2\3\4\5\6\7\x08",
)
_GENUINE = (b"\0",)


def _slow(
    name: str, run: Callable[[bytes], None], allowed: tuple[type[MalformedFrame], ...], every: int
) -> Target:
    return Target(
        name, run, allowed, _SCRIPTS, slots=1, every=every, instead="ckks_agreement", bounded=False
    )  # fmt: skip


ENCRYPTED = (
    Target(
        "ckks_announced",
        announced,
        (MalformedFrame,),
        (bytes(2) + bytes(32), b"\xff\x0f" + b"d" * 32),
        slots=1,
    ),
    Target(
        "ckks_agreement",
        agreement,
        (MalformedFrame,),
        (
            b"k" * 32 + b"\x0f\x08" + b"d" * 32 + b"\x09\x08" + b"s" * 3 * 64,
            b"k" * 32 + b"\xff\x0f" + b"d" * 32 + bytes(2),
            b"k" * 32 + b"\xff\x0f" + b"d" * 32 + b"\1\0" + b"s" * 64 + b"what follows",
        ),
        slots=4,
    ),
    Target(
        "ckks_signed",
        agreement_signed,
        (MalformedFrame, BadSiteList, Inconsistent),
        (b"", b"\1\0\x20\1", b"\1\0\x40\1", b"\1\0\x41\1", b"\1\0\x30\x80", b"\2\0\x80\x40"),
        slots=1,
        bounded=False,
    ),
)
"""What is short enough to be an input itself, or to be read quickly."""

CIPHERTEXTS = (
    _slow("ckks_upload", upload, (MalformedFrame, Inconsistent), 4),  # type: ignore[arg-type]
    _slow("ckks_sum", whole_sum, (MalformedFrame,), 4),
    _slow("ckks_words", words, (BadCiphertext,), 4),  # type: ignore[arg-type]
    _slow("ckks_fresh", fresh, (BadCiphertext,), 16),  # type: ignore[arg-type]
    _slow("ckks_aggregate", aggregate, (BadCiphertext,), 16),  # type: ignore[arg-type]
)
