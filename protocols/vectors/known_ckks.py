"""Known answers of encrypted sums (CK): parameters, packing, what ciphertexts are made of, one sum

of three sites from its secrets to its total, and lies.

What each lie must raise is written here by hand, not observed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from known_values import BINDING, Json, binding_json, fixed_bytes, fixed_words

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks import CkksSetting, ParameterSet, parameter_set
from fedbcs_protocols.ckks.cipher import Encryptor
from fedbcs_protocols.ckks.messages import (
    AGGREGATE_SEQUENCE,
    SUM_SEQUENCE,
    UPLOAD_SEQUENCE,
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    agree_frame,
    ciphertexts_of,
    encode_sum,
    transcript,
)
from fedbcs_protocols.ckks.packing import Polynomials, pack, unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.samples import CommonPolynomials, NoiseStream, Small, upload_secret
from fedbcs_protocols.ckks.tagging import batches_of, tagger_of
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, add_residues, pack_words, unpack_words
from fedbcs_protocols.derive import Keystream
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.group import GroupSecret
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer, Words
from fedbcs_protocols.secagg.setting import Terms
from fedbcs_protocols.tags import limbs_of
from fedbcs_protocols.wire import Frame, Kind, seal

NAMES = ("aachen", "bern", "cork", "delft")
INSIDE = (0, 1, 3)
BITS, THRESHOLD = 16, 3
COUNT = 4 * 8188 + 100
"""Five chunks, so that a second batch is not full; the last one is nearly all zeros."""
IDENTITIES = {name: Identity.from_secret_bytes(fixed_bytes(name)) for name in NAMES}
BOSS = Identity.from_secret_bytes(fixed_bytes("combiner"))
SECRET = GroupSecret(5, BINDING.round, frozenset(range(4)), fixed_bytes("group secret"))
SALTS = {name: fixed_bytes(f"salt of {name}") for name in NAMES}
NOISE_KEYS = {name: fixed_bytes(f"noise key of {name}") for name in NAMES}
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
    *((n, b) for b in (8, 12, 14, 16, 17, 20, 24) for n in (1, 3, 4, 8, 9, 16, 17, 64, 65, 256)),
    *((128, 16), (129, 16), (2, 24), (1024, 16), (1024, 22), (512, 23), (1024, 8)),
    *((257, 24), (513, 23), (1024, 23)),
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


def _hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Numbers -----------------------------------------------------------------------------------------


def _fits(sites: int, bits: int, fields: int) -> bool:
    try:
        ParameterSet(sites, bits, fields)
    except LocalError:
        return False
    return True


def _parameter_set(sites: int, bits: int) -> Json:
    """CK-1"""
    fitting = [fields for fields in (1, 2, 3, 4) if _fits(sites, bits, fields)]
    told: Json = {"sites": sites, "bits": bits, "fitting": fitting}
    if not fitting:
        return {**told, "expect": "LocalError"}
    params = parameter_set(sites, bits)
    return {
        **told,
        "expect": "ok",
        "fields": params.fields,
        "scale": params.scale,
        "largest": params.largest,
        "payload": params.payload,
        "name": params.digest.hex(),
    }


def _packing(sites: int, bits: int) -> Json:
    """CK-2.1: some sites' values at some places of a chunk, and the coefficient of each place."""
    params = parameter_set(sites, bits)
    high = (1 << bits) - 1
    some = [fixed_words(f"packed {bits} {d}", 4, bits) for d in range(params.fields)]
    places = [[0] * params.fields, [high] * params.fields, *map(list, zip(*some, strict=True))]
    values = np.zeros((1, params.fields, DEGREE), np.uint32)
    values[0, :, : len(places)] = np.array(places, np.uint32).T
    packed = pack(values.reshape(1, -1), params)[0]
    return {
        "sites": sites,
        "bits": bits,
        "values": places,
        "coefficients": packed[: len(places)].tolist(),
        "sums": list(_unpackings(params)),
    }


def _unpackings(params: ParameterSet) -> Iterator[Json]:
    """CK-5.2, CK-5.3: coefficients of sums with their noise, and those of no sum."""
    half, base, top = params.scale // 2, 1 << params.digit_bits, params.fields - 1
    for added in dict.fromkeys((1, params.sites)):
        most = added * ((1 << params.bits) - 1)
        digits = [[d] * params.fields for d in (0, 0, 0, 1, most, most, most)]
        digits += [[0] * top + [most], [most] * top + [0]]
        noise = [0, -1, -half, half - 1, 0, -half, half - 1, 5, -5]
        wholes = [sum(d * base**at for at, d in enumerate(each)) for each in digits]
        plain = [(w * params.scale + e) % PRIME for w, e in zip(wholes, noise, strict=True)]
        polynomial = np.zeros((1, DEGREE), np.uint64)
        polynomial[0, : len(plain)] = plain
        total, found = unpack(polynomial, params, added)
        yield {
            "added": added,
            "expect": "ok",
            "coefficients": plain,
            "values": total.reshape(params.fields, -1)[:, : len(plain)].T.tolist(),
            "noise": found[0, : len(plain)].tolist(),
        }
        wrong = {
            "one more in the last digit": (most + 1) * base**top * params.scale,
            "a step more in the last digit, by noise": (most + 1) * base**top * params.scale - half,
            "a step less than zero": PRIME - half - 1,
            "half of q": PRIME // 2,
        }
        # A digit that is not the last may have no room for more than a sum over all sites.
        if top and most + 1 < base:
            wrong["one more in the first digit"] = (most + 1) * params.scale
        for what, coefficient in wrong.items():
            yield {
                "added": added,
                "what": what,
                "expect": "SumOutOfRange",
                "coefficients": [coefficient],
            }


def _noises() -> Iterator[Json]:
    """CK-5.4: how many coefficients have which noise.

    For one site the squares may add up to 33306 to 53949: 10.5 · 4096, by 0.88² or by 1.12².
    """

    def told(what: str, expect: str, added: int, counts: dict[int, int]) -> Json:
        held = {str(e): count for e, count in counts.items()}
        return {"what": what, "expect": expect, "added": added, "noise": held}

    yield told("as large as it should be", "ok", 1, {3: 2048, -3: 1024, 4: 512, -4: 512})
    yield told("none", "BadNoise", 1, {0: 4096})
    # 9 · 4096 + 7 · 2440 is 53944.
    yield told("12 % too much, nearly", "ok", 1, {3: 1656, -4: 2440})
    yield told("12 % too much", "BadNoise", 1, {3: 1655, -4: 2441})
    # 4 · 4096 + 5 · 3385 is 33309.
    yield told("12 % too little, nearly", "ok", 1, {-2: 711, 3: 3385})
    yield told("12 % too little", "BadNoise", 1, {-2: 712, 3: 3384})
    yield told("one at the bound", "ok", 1, {3: 4095, -21: 1})
    yield told("one beyond the bound", "BadNoise", 1, {3: 4095, 22: 1})
    yield told("one below the bound of three", "ok", 3, {5: 2047, 6: 2048, -63: 1})
    yield told("one beyond the bound of three", "BadNoise", 3, {5: 2047, 6: 2048, -64: 1})
    yield told("that of one site as of three", "BadNoise", 3, {3: 2048, 4: 2048})
    yield told("that of three sites as of one", "BadNoise", 1, {5: 2048, 6: 2048})
    yield told("one of nearly half a step", "BadNoise", 3, {5: 4095, 127: 1})


def _words(what: str, places: dict[int, int], expect: str = "ok") -> Json:
    """CK-3.6: a polynomial that is zero but in these places, and the words of its packed form."""
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
        "sha256": _hashed(data),
    }


def _polynomials() -> Iterator[Json]:
    yield _words("nothing", {})
    yield _words("the first, and the largest number", {0: 1, 1: PRIME - 1, 255: 2})
    yield _words("a number of row 15", {3840: 0x0FEDCBA987654321})
    yield _words("the last ones", {3839: 3, 4095: PRIME - 1})
    yield _words("one below another", {300: 7, 3840 + 44: (1 << 59) + 5, 44: PRIME - 2})
    yield _words("q", {9: PRIME}, "BadCiphertext")
    yield _words("all bits of one in row 15", {3850: (1 << 60) - 1}, "BadCiphertext")


# What ciphertexts are made of --------------------------------------------------------------------


def _polynomial(words: Polynomials) -> Json:
    return {
        "first": words[:3].tolist(),
        "last": int(words[-1]),
        "sha256": _hashed(words.astype("<u8").tobytes()),
    }


def _secret(name: str) -> Small:
    return upload_secret(SECRET.secret, SECRET.epoch, BINDING, name, SALTS[name])


def _made_of() -> Json:
    """Common polynomials (CK-3.2), secrets (CK-3.3) as 0, + and -, and noise (CK-3.4)."""
    common = CommonPolynomials(BINDING).next(SETTING.chunks)
    return {
        "common": [_polynomial(each) for each in common],
        "secrets": {name: "".join("0+-"[int(s)] for s in _secret(name).tolist()) for name in NAMES},
        "noise": {
            name: [
                {"first": each[:16].tolist(), "sha256": _hashed(each.astype("<i8").tobytes())}
                for each in _noise(name)
            ]
            for name in NAMES
        },
    }


def _noise(name: str) -> Small:
    return NoiseStream(NOISE_KEYS[name]).next(SETTING.chunks)


# Ciphertexts -------------------------------------------------------------------------------------


def vector(name: str) -> Words:
    """0, 65535, then the words of 2 bytes of a keystream."""
    words = Keystream(fixed_bytes(f"vector of {name}")).next(2 * (COUNT - 2))
    return np.concatenate((np.array([0, 65535]), np.frombuffer(words, "<u2"))).astype(np.uint32)


def chunks(name: str) -> Words:
    """Site ``name``'s, (chunks, f·N)."""
    tagger = tagger_of(SETTING, SECRET.secret, SECRET.epoch)
    batches = batches_of(vector(name), SETTING, tagger, name)
    return np.concatenate([batch.copy() for batch in batches])


def _lying_chunks(flags: Sequence[int]) -> Words:
    """The first site's, with something else in the fields, and tags that fit (CK-5.5)."""
    out = chunks("aachen")
    out[0, : len(NAMES)] = flags
    tagger = tagger_of(SETTING, SECRET.secret, SECRET.epoch)
    limbs = tagger.sealed(np.ascontiguousarray(out[:, : PARAMS.payload]).reshape(-1), "aachen")
    out[:, PARAMS.payload :] = limbs.reshape(limbs_of(BITS), SETTING.chunks).T
    return out


def _encrypted(values: Words, name: str) -> bytes:
    cipher = Encryptor(PARAMS, BINDING, _secret(name), NOISE_KEYS[name], File())
    return b"".join(cipher.encrypt(values[at : at + 4]) for at in range(0, len(values), 4))


@cache
def ciphertexts(name: str) -> bytes:
    """What the site sends."""
    return _encrypted(chunks(name), name)


def _all(body: Buffer) -> Polynomials:
    return np.array([unpack_words(piece, COMBINER) for piece in ciphertexts_of(body)])


def added(*bodies: bytes) -> bytes:
    """The aggregate of these ciphertexts, chunk by chunk."""
    total, *others = map(_all, bodies)
    for other in others:
        add_residues(total, other)
    return b"".join(map(pack_words, total))


def true() -> bytes:
    """The aggregate of the sum."""
    return added(*(ciphertexts(NAMES[place]) for place in INSIDE))


def edited(body: bytes, ops: Sequence[Op]) -> bytes:
    """Ciphertexts, changed: each op is a name, and mostly a chunk and numbers."""
    words, q = _all(body), np.uint64(PRIME)
    for op in ops:
        match op:
            case ["add", chunk, place, value]:
                some = slice(None) if place is None else place
                words[chunk, some] = (words[chunk, some] + np.uint64(value % PRIME)) % q
            case ["set", chunk, place, value]:
                words[chunk, place] = value
            case ["fill", chunk, value]:
                words[chunk] = value
            case ["copy", chunk, other]:
                words[other] = words[chunk]
            case ["swap", chunk, other]:
                words[[chunk, other]] = words[[other, chunk]]
            case ["noise", chunk, factor]:
                # That of the sum's members, once more or less.
                noise = sum(_noise(NAMES[place])[chunk] for place in INSIDE) * factor
                words[chunk] = (words[chunk] + (noise % PRIME).astype(np.uint64)) % q
            case ["plus", name]:
                words = (words + _all(ciphertexts(name))) % q
            case ["less", name]:
                words = (words + (q - _all(ciphertexts(name)))) % q
            case _:
                raise ValueError(f"there is no {op}")
    return b"".join(map(pack_words, words))


# The agreement -----------------------------------------------------------------------------------


def _salts(inside: Sequence[int], changed: Mapping[int, bytes]) -> dict[int, bytes]:
    return {place: changed.get(place, SALTS[NAMES[place]]) for place in inside}


def _agreed(
    body: bytes,
    inside: Sequence[int] = INSIDE,
    signers: Sequence[int] | None = None,
    key_id: bytes = SECRET.key_id,
    salts: Mapping[int, bytes] | None = None,
) -> bytes:
    """What stands before the ciphertexts when these sites agreed on them."""
    setting = replace(SETTING, key_id=key_id)
    announced = Announced(_salts(inside, salts or {}), aggregate_digest(body))
    digest = transcript(setting, announced)
    signatures = {}
    for place in inside if signers is None else signers:
        message = agree_frame(setting, NAMES[place], digest).signed_message()
        signatures[place] = IDENTITIES[NAMES[place]].sign(message)
    return encode_sum(Agreement(key_id, announced, signatures), b"", setting)


def _lies() -> Iterator[Lie]:
    """What stands before the ciphertexts, how those of the sum are changed, what follows."""
    right = true()
    head, step = _agreed(right), PARAMS.scale

    def of(*ops: Op, **changes: Any) -> tuple[bytes, list[Op], bytes]:
        return _agreed(edited(right, ops), **changes), list(ops), b""

    yield "the sum", "ok", head, [], b""
    yield "signed by all but one", "BadSiteList", *of(signers=(0, 1))
    yield "signed by one who is not in it", "BadSiteList", *of(signers=(0, 1, 2))
    yield "under another key", "Refused", *of(key_id=bytes(32))
    # What a combiner can do to members and salts: nothing opens (CK-3.5).
    yield "said to be of all", "SumOutOfRange", *of(inside=(0, 1, 2, 3))
    yield "said to be of others", "SumOutOfRange", *of(inside=(0, 1, 2))
    yield "another salt of one", "SumOutOfRange", *of(salts={1: bytes(32)})
    swapped = {0: SALTS["bern"], 1: SALTS["aachen"]}
    yield "two salts swapped", "SumOutOfRange", *of(salts=swapped)
    yield "with one more site's", "SumOutOfRange", *of(["plus", "cork"])
    yield "with one site's twice", "SumOutOfRange", *of(["plus", "bern"])
    yield "without one site's", "SumOutOfRange", *of(["less", "delft"])
    alone = ["less", "bern"], ["less", "delft"]
    yield "one site's alone", "SumOutOfRange", *of(*alone)
    yield "one site's alone, and said so", "BadSiteList", *of(*alone, inside=(0,))
    others = ["plus", "cork"], ["less", "delft"]
    yield "of others, and said so", "ok", *of(*others, inside=(0, 1, 2))
    yield "twice", "SumOutOfRange", *of(*(["plus", NAMES[place]] for place in INSIDE))
    yield "nothing", "SumOutOfRange", *of(*(["fill", chunk, 0] for chunk in range(5)))
    yield "a chunk of zeros", "SumOutOfRange", *of(["fill", 4, 0])
    yield "a chunk twice", "SumOutOfRange", *of(["copy", 0, 1])
    yield "two chunks swapped", "SumOutOfRange", *of(["swap", 1, 2])
    yield "two of different batches swapped", "SumOutOfRange", *of(["swap", 0, 4])
    # What was added to a true sum opens as what was added.
    yield "one more in a value", "BadTag", *of(["add", 2, 77, step])
    yield "one more in a second digit", "BadTag", *of(["add", 2, 77, step << PARAMS.digit_bits])
    yield "one more in the filling", "BadTag", *of(["add", 4, 4000, step])
    yield "one more in a field", "BadTag", *of(["add", 0, 2, step])
    yield "one more in a tag", "BadTag", *of(["add", 0, 4095, step << PARAMS.digit_bits])
    # The zeros behind the vector become -1.
    yield "one less in the filling", "SumOutOfRange", *of(["add", 4, 4000, -step])
    yield "one more, but for what noise cannot be", "BadNoise", *of(["add", 0, 9, step - 80])
    yield "noise beyond what three can have", "BadNoise", *of(["add", 3, 9, 80])
    yield "a little in every coefficient", "BadNoise", *of(["add", 1, None, 3])
    yield "less than that in every coefficient", "ok", *of(["add", 1, None, 1])
    yield "a chunk without its noise", "BadNoise", *of(["noise", 2, -1])
    yield "a chunk with twice its noise", "BadNoise", *of(["noise", 4, 1])
    yield "a chunk with its noise the other way round", "ok", *of(["noise", 4, -2])
    yield "a word of q", "BadCiphertext", *of(["set", 0, 17, PRIME])
    yield "a word of row 15 of q", "BadCiphertext", *of(["set", 4, 4000, PRIME])
    yield "a word of q - 1", "SumOutOfRange", *of(["set", 3, 17, PRIME - 1])
    yield "other ciphertexts than agreed", "Inconsistent", head, [["set", 0, 17, 5]], b""
    yield from _damaged(head)


def _damaged(head: bytes) -> Iterator[Lie]:
    """Of name of the key (32), set (1), digest (32), salts (3 · 32), set (1), signatures, count."""

    def with_(at: int, *piece: int) -> tuple[bytes, list[Op], bytes]:
        return head[:at] + bytes(piece) + head[at + len(piece) :], [], b""

    first, second = head[162:226], head[226:290]
    swapped = head[:162] + second + first + head[290:]
    yield "two signatures swapped", "Inconsistent", swapped, [], b""
    yield "another digest than signed", "Inconsistent", *with_(40, head[40] ^ 1)
    yield "another salt than signed", "Inconsistent", *with_(65, head[65] ^ 1)
    yield "a site beyond the roster", "MalformedFrame", *with_(32, 0x1B)
    yield "a signer beyond the roster", "MalformedFrame", *with_(161, 0x1B)
    yield "four chunks, it says", "MalformedFrame", *with_(len(head) - 1, 4)
    yield "six chunks, it says", "MalformedFrame", *with_(len(head) - 1, 6)
    yield "a salt too few", "MalformedFrame", head[:129] + head[161:], [], b""
    yield "a member more than salts", "MalformedFrame", *with_(32, 0x0F)
    yield "a signer more than signatures", "MalformedFrame", *with_(161, 0x0F)
    yield "a byte too many", "MalformedFrame", head, [], b"\0"
    yield "a byte too few", "MalformedFrame", head[:-1], [], b""
    yield "another chunk", "MalformedFrame", head, [], bytes(POLYNOMIAL_BYTES)


def _liars() -> Iterator[Json]:
    """A site that has the key, so its tags fit, and does not stand in its own field (CK-5.5)."""
    for what, flags in (
        ("in another's field", (0, 1, 0, 0)),
        ("in two fields", (1, 0, 1, 0)),
        ("in none", (0, 0, 0, 0)),
        ("twice in its own", (2, 0, 0, 0)),
    ):
        lying = _encrypted(_lying_chunks(flags), "aachen")
        body = added(lying, *(ciphertexts(NAMES[place]) for place in INSIDE[1:]))
        head = _agreed(body)
        yield {"what": what, "flags": flags, "sha256": _hashed(lying), "head": head.hex()}


# What else is told -------------------------------------------------------------------------------


def _uploads() -> Iterator[Json]:
    """*encrypted* frames' bodies from the first site, for the combiner (CK-3.7 to CK-3.9)."""
    head = Encrypted.head(SETTING, SALTS["aachen"])

    def told(what: str, expect: str, start: bytes = head, *ops: Op, tail: bytes = b"") -> Json:
        ops_ = list(ops)
        return {
            "what": what,
            "expect": expect,
            "head": start.hex(),
            "ops": ops_,
            "tail": _tail(tail),
        }

    def with_(at: int, byte: int) -> bytes:
        return head[:at] + bytes([byte]) + head[at + 1 :]

    yield told("a good one", "ok")
    yield told("another salt", "ok", with_(64, head[64] ^ 1))
    yield told("the ciphertexts of another order", "ok", head, ["swap", 0, 4])
    yield told("a polynomial of zeros", "ok", head, ["fill", 3, 0])
    yield told("the largest numbers", "ok", head, ["fill", 3, PRIME - 1])
    yield told("under another key", "Inconsistent", with_(31, head[31] ^ 1))
    yield told("with other parameters", "Inconsistent", with_(32, head[32] ^ 1))
    yield told("four chunks, it says", "Inconsistent", with_(99, 4))
    yield told("2^24 chunks more, it says", "Inconsistent", with_(96, 1))
    yield told("a number of q at the start", "BadCiphertext", head, ["set", 0, 0, PRIME])
    yield told("a number of q at the end", "BadCiphertext", head, ["set", 4, 4095, PRIME])
    yield told("the largest number of 60 bits", "BadCiphertext", head, ["set", 2, 5, (1 << 60) - 1])
    yield told("a byte too few", "MalformedFrame", head[:-1])
    yield told("a byte too many", "MalformedFrame", tail=b"\0")
    yield told("another chunk", "MalformedFrame", tail=bytes(POLYNOMIAL_BYTES))
    yield told("no salt", "MalformedFrame", head[:64] + head[96:])


def _announcements() -> Iterator[Json]:
    """*aggregate* frames' bodies, for the second site (CK-4.3)."""
    digest = aggregate_digest(true())
    good = Announced(_salts(INSIDE, {}), digest).encode(4)

    def told(what: str, expect: str, body: bytes) -> Json:
        return {"what": what, "expect": expect, "body": body.hex()}

    def of(inside: Sequence[int], salts: Mapping[int, bytes] | None = None) -> bytes:
        return Announced(_salts(inside, salts or {}), digest).encode(4)

    yield told("a good one", "ok", good)
    yield told("of all", "ok", of((0, 1, 2, 3)))
    yield told("another digest", "ok", Announced(_salts(INSIDE, {}), bytes(32)).encode(4))
    yield told("another's salt is another", "ok", of(INSIDE, {0: bytes(32)}))
    yield told("its own salt is another", "Inconsistent", of(INSIDE, {1: bytes(32)}))
    swapped = {0: SALTS["bern"], 1: SALTS["aachen"]}
    yield told("its salt is another's", "Inconsistent", of(INSIDE, swapped))
    yield told("without it", "BadSiteList", of((0, 2, 3)))
    yield told("too few", "BadSiteList", of((0, 1)))
    yield told("nobody", "BadSiteList", of(()))
    yield told("an empty body", "MalformedFrame", b"")
    yield told("half a digest", "MalformedFrame", good[:17])
    yield told("no salts", "MalformedFrame", good[:33])
    yield told("a salt too few", "MalformedFrame", good[:-32])
    yield told("cut short", "MalformedFrame", good[:-1])
    yield told("a trailing byte", "MalformedFrame", good + b"\0")
    yield told("a salt too many", "MalformedFrame", good + SALTS["cork"])
    yield told("a member more than salts", "MalformedFrame", b"\x0f" + good[1:])
    yield told("a site beyond the roster", "MalformedFrame", b"\x1b" + good[1:] + bytes(32))


def _frame(kind: Kind, name: str, sequence: int, body: bytes) -> bytes:
    return seal(
        Frame(kind, BINDING, name, sequence, body), BOSS if name == COMBINER else IDENTITIES[name]
    )


def _told() -> Json:
    """The frames of the sum: of long ones, what they hash to."""
    inside = [NAMES[place] for place in INSIDE]
    aggregate = true()
    announced = Announced(_salts(INSIDE, {}), aggregate_digest(aggregate))
    digest = transcript(SETTING, announced)
    total = np.sum([vector(name) for name in inside], axis=0, dtype=np.uint32)
    uploads = {
        name: _frame(
            Kind.ENCRYPTED,
            name,
            UPLOAD_SEQUENCE,
            Encrypted.head(SETTING, SALTS[name]) + ciphertexts(name),
        )
        for name in inside
    }
    return {
        "inside": inside,
        "ciphertexts": {name: list(map(_polynomial, _all(ciphertexts(name)))) for name in inside},
        "aggregate": announced.digest.hex(),
        "aggregated": list(map(_polynomial, _all(aggregate))),
        "transcript": digest.hex(),
        "total": {
            "first": total[:8].tolist(),
            "last": total[-8:].tolist(),
            "sha256": _hashed(total.astype("<u4").tobytes()),
        },
        "frames": {
            "encrypted": {name: _hashed(frame) for name, frame in uploads.items()},
            "aggregate": _frame(
                Kind.AGGREGATE, COMBINER, AGGREGATE_SEQUENCE, announced.encode(4)
            ).hex(),
            "consistency": {
                name: seal(agree_frame(SETTING, name, digest), IDENTITIES[name]).hex()
                for name in inside
            },
            "sum": _hashed(
                _frame(Kind.SUM, COMBINER, SUM_SEQUENCE, _agreed(aggregate) + aggregate)
            ),
        },
    }


def _site(name: str) -> Json:
    held = chunks(name)
    return {
        "salt": SALTS[name].hex(),
        "noise_key": NOISE_KEYS[name].hex(),
        "vector_key": fixed_bytes(f"vector of {name}").hex(),
        "starts": held[0, : 4 + 8].tolist(),
        "limbs": held[:, PARAMS.payload :].tolist(),
        "chunks": _hashed(held.astype("<u4").tobytes()),
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
        "parameter_sets": [_parameter_set(*each) for each in SETS],
        "packing": [
            _packing(*each) for each in ((4, 16), (3, 8), (8, 14), (16, 20), (256, 24), (1, 8))
        ],
        "noise": list(_noises()),
        "words": list(_polynomials()),
        "made_of": _made_of(),
        "sites": {name: _site(name) for name in NAMES},
        "sum": _told(),
        "uploads": list(_uploads()),
        "announcements": list(_announcements()),
        "lies": [
            {"what": what, "expect": expect, "head": head.hex(), "ops": ops, "tail": _tail(tail)}
            for what, expect, head, ops, tail in _lies()
        ],
        "liars": list(_liars()),
    }


def _tail(tail: bytes) -> str:
    """Hexadecimal; of long ones their length, for they are zeros."""
    return tail.hex() if len(tail) < 100 else f"{len(tail)} zeros"
