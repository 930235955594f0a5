"""Targets on what an encrypted sum carries: bodies, words, plaintexts, and sessions that get them.

A ciphertext is longer than an input may be, so that most inputs say how a genuine one is changed:
``edited``, behind a byte that chooses which. What is taken is written again, byte for byte; a site
takes the true total or nothing, and a combiner's aggregate is the sum of what it took.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from encrypted_world import EncryptedWorld
from harness import Target, edited, require, same

from fedbcs_protocols.ckks.messages import (
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    decode_sum,
    encode_sum,
    transcript,
)
from fedbcs_protocols.ckks.packing import check_noise, unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME, ParameterSet, parameter_set
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, pack_words, unpack_words
from fedbcs_protocols.errors import (
    BadCiphertext,
    BadMembers,
    BadNoise,
    BadSiteList,
    BadTag,
    Inconsistent,
    MalformedFrame,
    ProtocolError,
    SumOutOfRange,
)
from fedbcs_protocols.wire import Kind, decode

SENDER = "aachen"
SITES = 12
WORLD = EncryptedWorld()
SETTING, HEAD = WORLD.setting, WORLD.head_bytes
AGGREGATE = WORLD.told[-POLYNOMIAL_BYTES:]
AGREED = WORLD.told[: -POLYNOMIAL_BYTES - 4]
Q = np.uint64(PRIME)


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
_words = changed(AGGREGATE)


def announced(data: bytes) -> None:
    taken = Announced.decode(data, sender=SENDER, sites=SITES)
    require(all(0 <= place < SITES for place in taken.members), "a site beyond the roster")
    require(all(len(salt) == 32 for salt in taken.salts.values()), "a salt of another length")
    require(len(data) <= Announced.limit(SITES), "longer than the limit")
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


def agree(data: bytes) -> None:
    """A site signs what has it, under its salt, and enough others; it leaves over all else."""
    body, session = edited(WORLD.announced, data), WORLD.uploaded()
    before = session.state
    try:
        frame = session.agree(WORLD.announcement(body))
    except ProtocolError:
        # A body that is too long is refused with its frame, before the session looks at it.
        limit = Announced.limit(SETTING.sites)
        require(len(body) > limit or session.state is not before, "it did not leave")
        require(session.transcript is None, "a transcript without a signature")
        raise
    taken = Announced.decode(body, sender=SENDER, sites=SETTING.sites)
    require(taken.salts.get(0) == WORLD.salts[0], "it signed for an upload that is not its own")
    require(len(taken.members) >= SETTING.terms.threshold, "it signed for too few")
    same(decode(frame, {Kind.CONSISTENCY: 32}).body, transcript(SETTING, taken))


def upload(data: bytes) -> None:
    body = _uploads(data)
    taken = Encrypted.decode(body, sender=SENDER, setting=SETTING)
    pieces = [bytes(piece) for piece in taken.ciphertexts()]
    require([len(piece) for piece in pieces] == [POLYNOMIAL_BYTES], "another number of chunks")
    same(b"".join((Encrypted.head(SETTING, taken.salt), *pieces)), body)


def whole_sum(data: bytes) -> None:
    body = _sums(data)
    taken, ciphertexts = decode_sum(body, sender=SENDER, setting=SETTING)
    require(len(ciphertexts) == POLYNOMIAL_BYTES, "another number of chunks")
    same(encode_sum(taken, ciphertexts, SETTING), body)


def words(data: bytes) -> None:
    body = _words(data)
    taken = unpack_words(body, SENDER)
    require(int(taken.max()) < PRIME, "no residue")
    same(pack_words(taken), body)


_SETS = tuple(parameter_set(*each) for each in ((4, 16), (8, 14), (16, 8), (256, 24), (1, 8)))
"""Of one to four digits a coefficient; (8, 14) has no margin."""


def _coefficients(values: np.ndarray, noise: np.ndarray, params: ParameterSet) -> np.ndarray:
    """Δ·Σ_d v_(dN+i)·B^d and the noise, modulo q, in Python's integers."""
    digits = values.reshape(params.fields, DEGREE).astype(object)
    whole = sum(row * (1 << params.digit_bits * d) for d, row in enumerate(digits))
    return (whole * params.scale + noise.astype(object)) % PRIME


@cache
def _plaintexts(number: int, added: int) -> Callable[[bytes], bytes]:
    """Changes of a plaintext that ``added`` sites' ciphertexts can have given."""
    params, rng = _SETS[number], np.random.default_rng(number)
    values = rng.integers(0, added * ((1 << params.bits) - 1) + 1, params.capacity)
    noise = rng.binomial(42 * added, 0.5, DEGREE) - 21 * added
    coefficients = _coefficients(values, noise, params).astype(np.uint64)
    return changed(coefficients.astype("<u8").tobytes())


def plaintext(data: bytes) -> None:
    """Any residues: what is taken is whole numbers of the range, and noise, and nothing is lost."""
    how, size = (data[0] if data else 0) >> 2, 8 * DEGREE
    params = _SETS[how % len(_SETS)]
    added = params.sites if how // len(_SETS) % 2 == 0 else 1
    body = _plaintexts(how % len(_SETS), added)(data)[:size].ljust(size, b"\0")
    plain = np.frombuffer(body, "<u8").astype(np.uint64) % Q
    values, noise = unpack(plain[None], params, added)
    require(values.shape == (1, params.capacity), "another number of values")
    require(int(values.max()) <= added * ((1 << params.bits) - 1), "more than a sum can be")
    require(int(np.abs(noise).max()) <= params.scale // 2, "noise of more than half a step")
    again = _coefficients(values[0], noise[0], params)
    same(again.astype(np.uint64).tobytes(), plain.tobytes())
    check_noise(noise, added)
    require(int(np.abs(noise).max()) <= 21 * added, "more noise than can be")


def received(data: bytes) -> None:
    """The combiner adds all of an upload, or nothing."""
    body, combiner = _uploads(data), WORLD.three_came()
    total = WORLD.first_three()
    try:
        combiner.receive(WORLD.last_upload(body))
        total = (total + unpack_words(body[HEAD:], SENDER)) % Q
    finally:
        combiner.close()
        (request, *_) = combiner.requests.values()
        told = Announced.decode(
            decode(request, {Kind.AGGREGATE: 4096}).body, sender=SENDER, sites=SETTING.sites
        )
        same(told.digest, aggregate_digest(pack_words(total[0])))
        for place, salt in told.salts.items():
            require(salt == (body[64:96] if place == 3 else WORLD.salts[place]), "another salt")


def opened(data: bytes) -> None:
    """Sites agreed on whatever it is: the first one takes the true total, or refuses.

    The first byte also says who is left out, and which salts are changed.
    """
    ciphertexts, how = _words(data), (data[0] if data else 0) >> 2
    ciphertexts = ciphertexts[:POLYNOMIAL_BYTES].ljust(POLYNOMIAL_BYTES, b"\0")
    salts = {place: salt for place, salt in WORLD.salts.items() if not how >> place & 1}
    if how >> 4 == 1 and salts:
        place = max(salts)
        salts[place] = bytes([salts[place][0] ^ 1]) + salts[place][1:]
    elif how >> 4 == 2 and len(salts) > 1:
        one, other = sorted(salts)[:2]
        salts[one], salts[other] = salts[other], salts[one]
    total = WORLD.opened(salts, ciphertexts)
    require(salts == WORLD.salts, "a sum under other secrets than its ciphertexts'")
    require(total.tolist() == WORLD.total.tolist(), "another total")


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
    b"\2\x0e\xff" + _HIGH + b"\x1d\xff" + _HIGH,
    b"\2\x1e\0" + (PRIME - 1).to_bytes(8, "little"),
    # All zeros, all ones, all the same.
    b"\3\0",
    b"\3\xff",
    b"\3\1\2\3\4\5\6\7\x08",
)
_GENUINE = tuple(bytes([4 * how]) for how in range(2 * len(_SETS)))
_LEFT_OUT = (
    *(bytes([4 * how]) for how in (1, 8, 3, 15, 16, 24, 32, 40)),
    # One more or less, by a bit of what was 1.
    b"\0\1\0\1\1",
)
_UPLOADED = (
    # Of the salt, the name of the key, and the number of chunks; all bits of a number.
    b"\0\1\0\x40\1",
    b"\0\1\0\0\1",
    b"\0\1\0\x63\2",
    b"\2\0\x0d" + _HIGH + b"\0\x0e" + _HIGH,
)


def _slow(
    name: str,
    run: Callable[[bytes], None],
    allowed: tuple[type[ProtocolError], ...],
    every: int,
    seeds: tuple[bytes, ...] = (),
) -> Target:
    seeds = tuple(dict.fromkeys(_SCRIPTS + seeds))
    return Target(
        name, run, allowed, seeds, slots=1, every=every, instead="ckks_agreement", bounded=False
    )  # fmt: skip


_SALTS = b"".join(bytes([place]) * 32 for place in range(SITES))

ENCRYPTED = (
    Target(
        "ckks_announced",
        announced,
        (MalformedFrame,),
        (
            bytes(2) + bytes(32),
            b"\xff\x0f" + b"d" * 32 + _SALTS,
            b"\x01\x08" + b"d" * 32 + _SALTS[:64],
        ),
        slots=2,
    ),
    Target(
        "ckks_agreement",
        agreement,
        (MalformedFrame,),
        (
            b"k" * 32 + b"\x0f\x08" + b"d" * 32 + _SALTS[:160] + b"\x09\x08" + b"s" * 3 * 64,
            b"k" * 32 + b"\xff\x0f" + b"d" * 32 + _SALTS + bytes(2),
            b"k" * 32 + b"\3\0" + b"d" * 32 + _SALTS[:64] + b"\1\0" + b"s" * 64 + b"what follows",
        ),
        slots=4,
    ),
    Target(
        "ckks_signed",
        agreement_signed,
        (MalformedFrame, BadSiteList, Inconsistent),
        # Of the name of the key, the set, the digest, a salt, the signers, a signature.
        (
            b"", b"\1\0\0\1", b"\1\0\x20\1", b"\1\0\x21\1", b"\1\0\x41\1", b"\1\0\xc1\x80",
            b"\1\0\xd0\x80", b"\2\0\x80\x40",
        ),
        slots=1,
        bounded=False,
    ),
    Target(
        "ckks_agree",
        agree,
        (MalformedFrame, BadSiteList, Inconsistent),
        # Of the set, the digest, its own salt and another's; without the last one, without itself
        # and without two; more than a body can be.
        (
            b"",
            b"\1\0\0\1",
            b"\1\0\1\1",
            b"\1\0\x21\1",
            b"\1\0\x41\1",
            b"\1\0\0\x08\2\0\x81\x20",
            b"\1\0\0\1\2\0\x21\x20",
            b"\1\0\0\x0c\2\0\x61\x40",
            b"\5\0\0\x40",
        ),
        slots=1,
        bounded=False,
    ),
)  # fmt: skip
"""What is short enough to be an input itself, or to be read quickly."""

_OPENED = (BadSiteList, BadCiphertext, SumOutOfRange, BadNoise, BadTag, BadMembers)

CIPHERTEXTS = (
    _slow("ckks_upload", upload, (MalformedFrame, Inconsistent), 4, _UPLOADED),
    _slow("ckks_sum", whole_sum, (MalformedFrame,), 4),
    _slow("ckks_words", words, (BadCiphertext,), 4),
    _slow("ckks_plain", plaintext, (SumOutOfRange, BadNoise), 16, _GENUINE),
    _slow("ckks_received", received, (MalformedFrame, Inconsistent, BadCiphertext), 16, _UPLOADED),
    _slow("ckks_opened", opened, _OPENED, 16, _LEFT_OUT),
)
