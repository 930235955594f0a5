"""Known answers of encrypted sums (CK): parameters, packing, one sum of three sites, and lies.

Ciphertexts cannot be made again, since SEAL draws their randomness: those in ``ckks.json`` are
kept. What each lie must raise is written here by hand, not observed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from known_values import BINDING, Json, binding_json, fixed_bytes, fixed_words

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks import CkksSetting, parameter_set
from fedbcs_protocols.ckks.cipher import SUM_BYTES, Context, SecretContext, pack_words, unpack_words
from fedbcs_protocols.ckks.messages import (
    AGGREGATE_SEQUENCE,
    SUM_SEQUENCE,
    UPLOAD_SEQUENCE,
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    agree_frame,
    encode_sum,
    transcript,
)
from fedbcs_protocols.ckks.packing import pack, unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.tagging import chunks_of, tagger_of
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.group import GroupSecret
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer, Words
from fedbcs_protocols.secagg.setting import Terms
from fedbcs_protocols.wire import Frame, Kind, seal

FILE = Path(__file__).resolve().parent / "ckks.json"
NAMES = ("aachen", "bern", "cork", "delft")
INSIDE = (0, 1, 3)
BITS, COUNT, THRESHOLD = 16, 20, 3
IDENTITIES = {name: Identity.from_secret_bytes(fixed_bytes(name)) for name in NAMES}
BOSS = Identity.from_secret_bytes(fixed_bytes("combiner"))
SECRET = GroupSecret(5, BINDING.round, frozenset(range(4)), fixed_bytes("group secret"))
SETTING = CkksSetting(
    {name: one.public for name, one in IDENTITIES.items()},
    BOSS.public,
    BINDING,
    Terms(4, THRESHOLD, 1),
    parameter_set(4, BITS),
    COUNT,
    SECRET.key_id,
)
PARAMS = SETTING.params
SETS = (
    *((n, b) for b in (8, 12, 16, 17, 20, 24) for n in (3, 4, 8, 9, 16, 18, 33, 64, 65, 256)),
    *((11, 8), (12, 8), (10, 12), (11, 12), (73, 16), (74, 16), (1024, 16), (1024, 22)),
    *((257, 24), (513, 23), (1024, 23), (1, 16), (2, 22)),
)
Op = list[Any]
Lie = tuple[str, str, bytes, list[Op], bytes]


class File:
    """A scratch file for SEAL."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (gone with this object)
        self.path = self._file.name

    def write(self, data: Buffer) -> None:
        Path(self.path).write_bytes(data)

    def read(self) -> bytes:
        return Path(self.path).read_bytes()


# Numbers -----------------------------------------------------------------------------------------


def _parameter_set(sites: int, bits: int) -> Json:
    """CK-1"""
    told: Json = {"sites": sites, "bits": bits}
    try:
        params = parameter_set(sites, bits)
    except LocalError:
        return {**told, "expect": "LocalError"}
    return {
        **told,
        "expect": "ok",
        "fields": params.fields,
        "scale": int(params.scale),
        "largest": params.largest,
        "payload": params.payload,
        "name": params.digest.hex(),
    }


def _packing(sites: int, bits: int) -> Json:
    """CK-2.1: some sites' values at some places of a chunk, and the component of each place."""
    params = parameter_set(sites, bits)
    high = (1 << bits) - 1
    some = [fixed_words(f"packed {bits} {d}", 4, bits) for d in range(params.fields)]
    places = [[0] * params.fields, [high] * params.fields, *map(list, zip(*some, strict=True))]
    values = np.zeros((params.fields, DEGREE), np.uint32)
    values[:, : len(places)] = np.array(places, np.uint32).T
    components = pack(values.reshape(-1), params).view(np.float64)
    return {
        "sites": sites,
        "bits": bits,
        "values": places,
        "components": [int(c) for c in components[: len(places)]],
        "sums": _unpackings(sites, bits),
    }


def _unpackings(sites: int, bits: int) -> list[Json]:
    """CK-5.3: components of sums, the values that they stand for, and those of no sum."""
    params = parameter_set(sites, bits)
    half, high = 1 << (bits - 1), (1 << bits) - 1
    out = []
    for added in (1, sites):
        lowest, highest = -added * half, added * (high - half)
        good = [lowest, highest, 0, -1, 1]
        whole = [sum(d * params.base**at for at in range(params.fields)) for d in good]
        slots = np.zeros(DEGREE)
        slots[: len(whole)] = whole
        total, _ = unpack(slots.view(np.complex128), params, added)
        found = total.reshape(params.fields, -1)[:, : len(whole)].T.tolist()
        out.append({"added": added, "expect": "ok", "components": whole, "values": found})
        top = params.base ** (params.fields - 1)
        for wrong in ((lowest - 1) * top, (highest + 1) * top, 2**52, -(2**52)):
            out.append({"added": added, "expect": "SumOutOfRange", "components": [wrong]})
    return out


def _words(what: str, places: dict[int, int], expect: str = "ok") -> Json:
    """CK-3.2: a polynomial that is zero but in these places, and the words of its packed form."""
    words = np.zeros(DEGREE, np.uint64)
    for place, word in places.items():
        words[place] = word
    data = pack_words(words)
    packed = np.frombuffer(data, "<u8")
    return {
        "what": what,
        "expect": expect,
        "words": {str(place): word for place, word in places.items()},
        "packed": {str(i): int(packed[i]) for i in np.flatnonzero(packed)},
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _polynomials() -> Iterator[Json]:
    yield _words("nothing", {})
    yield _words("the first, and the largest number", {0: 1, 1: PRIME - 1, 255: 2})
    yield _words("a number of row 15", {3840: 0x0FEDCBA987654321})
    yield _words("the last ones", {3839: 3, 4095: PRIME - 1})
    yield _words("one below another", {300: 7, 3840 + 44: (1 << 59) + 5, 44: PRIME - 2})
    yield _words("q", {9: PRIME}, "BadCiphertext")
    yield _words("all bits of one in row 15", {3850: (1 << 60) - 1}, "BadCiphertext")


# Ciphertexts -------------------------------------------------------------------------------------


def _secret_context() -> SecretContext:
    study = BINDING.study_digest
    return SecretContext(PARAMS, File(), SECRET.secret, study, SECRET.epoch)


def _vector(name: str) -> list[int]:
    return [0, 65535, *fixed_words(f"encrypted {name}", COUNT - 2, BITS)]


def _chunk(name: str) -> Words:
    tagger = tagger_of(SETTING, SECRET.secret, SECRET.epoch)
    (chunk,) = chunks_of(np.array(_vector(name), np.uint32), SETTING, tagger, name)
    return chunk.copy()


def _lying_chunk() -> Words:
    """The first site's, under the second one's name, and tagged as the first's (CK-5.5)."""
    chunk = _chunk("aachen")
    chunk[:4] = (0, 1, 0, 0)
    tagger = tagger_of(SETTING, SECRET.secret, SECRET.epoch)
    chunk[PARAMS.payload :] = tagger.sealed(chunk[: PARAMS.payload], "aachen")
    return chunk


@cache
def _drawn() -> dict[str, bytes]:
    """The ciphertexts of the sites in the sum, and of one that lies: kept, once there are some."""
    if FILE.exists():
        kept = json.loads(FILE.read_text("ascii"))["ciphertexts"]
        return {name: base64.b64decode(text) for name, text in kept.items()}
    context = _secret_context()
    chunks = {NAMES[place]: _chunk(NAMES[place]) for place in INSIDE}
    chunks["a liar"] = _lying_chunk()
    return {name: context.encrypt(pack(chunk, PARAMS)) for name, chunk in chunks.items()}


def _added(*names: str) -> bytes:
    context = Context(PARAMS, File())
    total, *others = (context.fresh(_drawn()[name], name) for name in names)
    for other in others:
        context.evaluator.add_inplace(total, other)
    return context.sum_bytes(total)


@cache
def _ternary() -> str:
    """The secret key's coefficients as +, 0 and -: the constant polynomial 2^40 times the key."""
    context, zeros = _secret_context(), np.zeros(DEGREE, np.uint64)
    ciphertext = context.both(pack_words(zeros) + pack_words(zeros + np.uint64(1 << 40)), COMBINER)
    slots = context.decrypt(ciphertext) * PARAMS.scale
    # Slot j is the value at e^(πi·3^j/N); the others are their conjugates.
    values = np.empty(DEGREE, np.complex128)
    places = np.array([(pow(3, j, 2 * DEGREE) - 1) // 2 for j in range(DEGREE // 2)])
    values[places], values[DEGREE - 1 - places] = slots, slots.conj()
    turns = np.exp(-1j * np.pi * np.arange(DEGREE) / DEGREE)
    coefficients = np.fft.fft(values).real * turns.real - np.fft.fft(values).imag * turns.imag
    return "".join("0+-"[round(c / DEGREE / 2**40)] for c in coefficients.tolist())


def edited(ciphertexts: bytes, ops: Sequence[Op]) -> bytes:
    """An aggregate of one ciphertext, changed: each op is a name and numbers."""
    half = SUM_BYTES // 2
    words = [unpack_words(ciphertexts[at : at + half], COMBINER) for at in (0, half)]
    for name, *numbers in ops:
        if name == "add":
            polynomial, value = numbers
            words[polynomial] = (words[polynomial] + np.uint64(value)) % np.uint64(PRIME)
        elif name == "set":
            polynomial, place, value = numbers
            words[polynomial][place] = value
        elif name == "fill":
            polynomial, value = numbers
            words[polynomial][:] = value
        else:
            words = [each * np.uint64(2) % np.uint64(PRIME) for each in words]
    return b"".join(map(pack_words, words))


# The agreement -----------------------------------------------------------------------------------


def _agreed(
    ciphertexts: bytes,
    inside: Sequence[int] = INSIDE,
    signers: Sequence[int] | None = None,
    key_id: bytes = SECRET.key_id,
) -> bytes:
    """What stands before the ciphertexts when these sites agreed on them."""
    setting = CkksSetting(
        SETTING.roster, SETTING.combiner, BINDING, SETTING.terms, PARAMS, COUNT, key_id
    )
    announced = Announced(frozenset(inside), aggregate_digest(ciphertexts))
    digest = transcript(setting, announced)
    signatures = {}
    for place in inside if signers is None else signers:
        message = agree_frame(setting, NAMES[place], digest).signed_message()
        signatures[place] = IDENTITIES[NAMES[place]].sign(message)
    return encode_sum(Agreement(key_id, announced, signatures), b"", setting)


def _lies() -> Iterator[Lie]:
    """What stands before the ciphertexts, how those of the sum are changed, what follows."""
    true = _added(*(NAMES[place] for place in INSIDE))
    head, step = _agreed(true), int(PARAMS.scale)

    def of(*ops: Op, **changes: Any) -> tuple[bytes, list[Op], bytes]:
        return _agreed(edited(true, ops), **changes), list(ops), b""

    yield "the sum", "ok", head, [], b""
    yield "signed by all but one", "BadSiteList", *of(signers=(0, 1))
    yield "signed by one who is not in it", "BadSiteList", *of(signers=(0, 1, 2))
    yield "said to be of all", "BadTag", *of(inside=(0, 1, 2, 3))
    yield "said to be of others", "BadTag", *of(inside=(0, 1, 2))
    yield "under another key", "Refused", *of(key_id=bytes(32))
    yield "one more in every real part", "BadTag", *of(["add", 0, step])
    # The zeros behind the vector become -1.
    yield "one less in every real part", "SumOutOfRange", *of(["add", 0, PRIME - step])
    yield "a sixteenth more", "BadNoise", *of(["add", 0, step // 16])
    yield "a hundredth of that", "ok", *of(["add", 0, step // 1600])
    yield "twice", "SumOutOfRange", *of(["twice"])
    yield "without its first polynomial", "SumOutOfRange", *of(["fill", 0, 0])
    yield (
        "the crafted one that is the key",
        "SumOutOfRange",
        *of(["fill", 0, 0], ["fill", 1, 1 << 40]),
    )
    yield "without its second polynomial", "BadCiphertext", *of(["fill", 1, 0])
    yield "a word of q", "BadCiphertext", *of(["set", 0, 17, PRIME])
    yield "a word of row 15 of q", "BadCiphertext", *of(["set", 1, 4000, PRIME])
    yield "a word of q - 1", "SumOutOfRange", *of(["set", 0, 17, PRIME - 1])
    yield "other ciphertexts than agreed", "Inconsistent", head, [["set", 0, 17, 5]], b""
    swapped = bytearray(head)
    swapped[66:130], swapped[130:194] = head[130:194], head[66:130]
    yield "two signatures swapped", "Inconsistent", bytes(swapped), [], b""
    other = bytearray(head)
    other[40] ^= 1
    yield "another digest than signed", "Inconsistent", bytes(other), [], b""
    yield "a site beyond the roster", "MalformedFrame", head[:32] + b"\x1b" + head[33:], [], b""
    yield "a signer beyond the roster", "MalformedFrame", head[:65] + b"\x1b" + head[66:], [], b""
    yield "two chunks, it says", "MalformedFrame", head[:-1] + b"\2", [], b""
    yield "a byte too many", "MalformedFrame", head, [], b"\0"
    yield "a byte too few", "MalformedFrame", head[:-1], [], b""
    yield "another chunk", "MalformedFrame", head, [], bytes(SUM_BYTES)


def _liar_told() -> Json:
    """A site that stands in another's field, under tags that fit: it has the key (CK-5.5)."""
    ciphertexts = _added("a liar", "bern", "delft")
    return {"of": ["a liar", "bern", "delft"], "head": _agreed(ciphertexts).hex()}


def _frame(kind: Kind, name: str, sequence: int, body: bytes) -> bytes:
    return seal(
        Frame(kind, BINDING, name, sequence, body), BOSS if name == COMBINER else IDENTITIES[name]
    )


def _told() -> Json:
    """The frames of the sum: of long ones, what they hash to."""
    inside = [NAMES[place] for place in INSIDE]
    true = _added(*inside)
    announced = Announced(frozenset(INSIDE), aggregate_digest(true))
    digest = transcript(SETTING, announced)

    def hashed(frame: bytes) -> str:
        return hashlib.sha256(frame).hexdigest()

    uploads = {
        name: _frame(
            Kind.ENCRYPTED, name, UPLOAD_SEQUENCE, Encrypted.head(SETTING) + _drawn()[name]
        )
        for name in inside
    }
    return {
        "inside": inside,
        "total": [sum(column) for column in zip(*map(_vector, inside), strict=True)],
        "aggregate": announced.digest.hex(),
        "transcript": digest.hex(),
        "frames": {
            "encrypted": {name: hashed(frame) for name, frame in uploads.items()},
            "aggregate": _frame(
                Kind.AGGREGATE, COMBINER, AGGREGATE_SEQUENCE, announced.encode(4)
            ).hex(),
            "consistency": {
                name: seal(agree_frame(SETTING, name, digest), IDENTITIES[name]).hex()
                for name in inside
            },
            "sum": hashed(_frame(Kind.SUM, COMBINER, SUM_SEQUENCE, _agreed(true) + true)),
        },
    }


def ckks() -> Json:
    """All of it."""
    return {
        "identity_secrets": {name: fixed_bytes(name).hex() for name in NAMES},
        "combiner_secret": fixed_bytes("combiner").hex(),
        "binding": binding_json(BINDING),
        "threshold": THRESHOLD,
        "bits": BITS,
        "count": COUNT,
        "secret": SECRET.secret.hex(),
        "epoch": SECRET.epoch,
        "key_name": SECRET.key_id.hex(),
        "key": _ternary(),
        "parameter_sets": [_parameter_set(*each) for each in SETS],
        "packing": [_packing(*each) for each in ((4, 16), (3, 8), (8, 12), (8, 20), (256, 24))],
        "words": list(_polynomials()),
        "vectors": {name: _vector(name) for name in NAMES},
        "chunks": {
            name: {
                "starts": _chunk(name)[: 4 + COUNT + 2].tolist(),
                "limbs": _chunk(name)[PARAMS.payload :].tolist(),
            }
            for name in NAMES
        },
        "sum": _told(),
        "lies": [
            {"what": what, "expect": expect, "head": head.hex(), "ops": ops, "tail": _tail(tail)}
            for what, expect, head, ops, tail in _lies()
        ],
        "liar": _liar_told(),
        "ciphertexts": {
            name: base64.b64encode(data).decode("ascii") for name, data in _drawn().items()
        },
    }


def _tail(tail: bytes) -> str:
    """Hexadecimal; of long ones their length, for they are zeros."""
    return tail.hex() if len(tail) < 100 else f"{len(tail)} zeros"
