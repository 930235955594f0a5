"""Write the known answers beside this file.

``PYTHONPATH=protocols python protocols/vectors/generate.py``
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols import codec, derive, ring
from fedbcs_protocols.binding import COMBINER, Binding, encode_fields
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import CombinerSession, SiteSession
from fedbcs_protocols.wire import Frame, Kind, seal

HERE = Path(__file__).resolve().parent
Json = dict[str, Any]

NAMES = ("aachen", "bern", "cork")
BINDING = Binding(bytes(range(32)), 7, 1, 2, bytes(range(100, 132)))


def fixed_bytes(label: str) -> bytes:
    """32 public bytes for a test key."""
    return hashlib.sha256(b"fedbcs-secure test vector " + label.encode()).digest()


def fixed_words(label: str, count: int, bits: int) -> list[int]:
    """Reproducible numbers below 2^bits: SHA-256 in counter mode, a word a digest."""
    key = fixed_bytes(label)
    digests = (hashlib.sha256(key + struct.pack(">I", i)).digest() for i in range(count))
    return [int.from_bytes(digest[:4], "big") % (1 << bits) for digest in digests]


def binding_json(binding: Binding) -> Json:
    return {
        "study_digest": binding.study_digest.hex(),
        "round": binding.round,
        "attempt": binding.attempt,
        "phase": binding.phase,
        "state_digest": binding.state_digest.hex(),
    }


def derivations() -> Json:
    lists: list[list[Any]] = [[], [""], ["a", "b"], ["ab"], [0], [2**64 - 1, "x", 1]]
    streams = []
    for seed, labels in ((0, []), (2**63, ["rounding", "aachen", 7]), (1, ["weights"])):
        wide = derive.public_words(seed, *labels, count=5)
        half = derive.PublicStream(seed, *labels).words16(5)
        streams.append(
            {"seed": seed, "labels": labels, "words32": wide.tolist(), "words16": half.tolist()}
        )
    secret, keys = fixed_bytes("shared"), (fixed_bytes("key 0"), fixed_bytes("key 1"))
    cases = []
    for binding in (BINDING, Binding(bytes(32), 0, 0, 0, bytes(32))):
        key = derive.stream_key(secret, "label", binding, ("aachen", "bern"), keys)
        cases.append({"binding": binding_json(binding), "key": key.hex()})
    return {
        "encode_fields": [{"fields": f, "encoded": encode_fields(*f).hex()} for f in lists],
        "public_stream": streams,
        "stream_key": {
            "shared_secret": secret.hex(),
            "label": "label",
            "names": ["aachen", "bern"],
            "public_keys": [key.hex() for key in keys],
            "cases": cases,
        },
        "fingerprint": {
            "public": Identity.from_secret_bytes(fixed_bytes("id")).public.raw.hex(),
            "fingerprint": Identity.from_secret_bytes(fixed_bytes("id")).public.fingerprint,
        },
    }


def packings() -> Json:
    cases = []
    for bits, count in ((8, 1), (18, 5), (32, 33), (31, 64), (21, 100), (9, 262_149)):
        values = fixed_words(f"pack {bits} {count}", count, bits)
        packed = ring.pack(np.array(values, np.uint32), bits)
        case: Json = {"bits": bits, "count": count, "label": f"pack {bits} {count}"}
        case["sha256"] = hashlib.sha256(packed).hexdigest()
        if len(packed) < 1000:
            case["packed"] = packed.hex()
        cases.append(case)
    good = ring.pack(np.array(fixed_words("bad", 5, 18), np.uint32), 18)
    filled = bytearray(good)
    filled[-1] |= 0x80
    bad = [
        {"what": "a byte too few", "bits": 18, "count": 5, "packed": good[:-1].hex()},
        {"what": "a byte too many", "bits": 18, "count": 5, "packed": (good + b"\0").hex()},
        {"what": "filling not zero", "bits": 18, "count": 5, "packed": filled.hex()},
        {"what": "another count", "bits": 18, "count": 33, "packed": good.hex()},
    ]
    for case in bad:
        case["expect"] = "MalformedFrame"
    return {"good": cases, "bad": bad}


def quantisations() -> Json:
    values = [0.0, 1.0, -1.0, 0.3, -0.3, 1e-30, -1e-30, 7.999, -8.0, 8.0, 1e30, -1e30, 2.0**-17]
    values += [2.0**-12 * (k + 0.5) for k in range(-3, 4)]
    array = np.array(values, np.float32)
    cases = []
    for bits, exponent in ((16, 3), (8, 3), (24, -2), (12, 80), (16, -80)):
        words = fixed_words(f"rounding {bits}", len(values), 16)
        out = codec.quantise(
            array,
            [codec.Segment("a", 0, len(values))],
            [exponent],
            bits,
            np.array(words, np.uint16),
        )
        cases.append(
            {
                "bits": bits,
                "exponent": exponent,
                "words": words,
                "codes": out.codes.tolist(),
                "clipped": out.clipped,
            }
        )
    ranges = []
    for count, step in ((1, -15), (3, 0), (50, -20), (1000, 4)):
        sums = [w - 2**17 for w in fixed_words(f"range {count}", count, 18)]
        exponent = codec.range_exponent(np.array(sums, np.int64), step, previous=0)
        ranges.append({"sums": sums, "step_exponent": step, "exponent": exponent})
    sums = fixed_words("sum", 6, 17)
    values64 = codec.dequantise_sum(
        np.array(sums, np.uint32),
        3,
        [codec.Segment("a", 0, 4), codec.Segment("b", 4, 2)],
        [3, -9],
        16,
    )
    return {
        "float32": [struct.pack(">f", value).hex() for value in values],
        "quantise": cases,
        "range_exponent": ranges,
        "dequantise": {
            "sum": sums,
            "sites": 3,
            "bits": 16,
            "exponents": [3, 3, 3, 3, -9, -9],
            "float64": [struct.pack(">d", value).hex() for value in values64],
        },
    }


def sums() -> Json:
    bits, count = 18, 40
    identities = {name: Identity.from_secret_bytes(fixed_bytes(name)) for name in NAMES}
    boss = Identity.from_secret_bytes(fixed_bytes("combiner"))
    roster = {name: identity.public for name, identity in identities.items()}
    combiner = CombinerSession(
        identity=boss, roster=roster, binding=BINDING, bits=bits, count=count
    )
    sessions = {
        name: SiteSession._with_ephemeral(
            X25519PrivateKey.from_private_bytes(fixed_bytes(f"mask {name}")),
            identity=identity,
            name=name,
            roster=roster,
            combiner=boss.public,
            binding=BINDING,
            bits=bits,
            count=count,
        )
        for name, identity in identities.items()
    }
    adverts = {name: session.advertise() for name, session in sessions.items()}
    for frame in adverts.values():
        combiner.receive_advertise(frame)
    key_list = combiner.key_list()
    sites = []
    for name, session in sessions.items():
        vector = fixed_words(f"vector {name}", count, 16)
        masked = session.masked_input(key_list, np.array(vector, np.uint32))
        combiner.receive_masked(masked)
        sites.append(
            {
                "name": name,
                "identity_secret": fixed_bytes(name).hex(),
                "mask_secret": fixed_bytes(f"mask {name}").hex(),
                "vector": vector,
                "advertise": adverts[name].hex(),
                "masked_input": masked.hex(),
            }
        )
    return {
        "binding": binding_json(BINDING),
        "bits": bits,
        "count": count,
        "combiner_secret": fixed_bytes("combiner").hex(),
        "sites": sites,
        "key_list": key_list.hex(),
        "sum": combiner.sum().tolist(),
        "sum_frame": combiner.sum_frame().hex(),
    }


def frames() -> Json:
    """Valid and hostile frames; the reader takes ADVERTISE (at most 32 bytes) from aachen."""
    aachen = Identity.from_secret_bytes(fixed_bytes("aachen"))
    bern = Identity.from_secret_bytes(fixed_bytes("bern"))
    body = fixed_bytes("body")

    def sealed(identity: Identity = aachen, **changes: Any) -> bytes:
        fields: Json = {"kind": Kind.ADVERTISE, "binding": BINDING, "sender": "aachen"}
        return seal(Frame(**{**fields, "sequence": 0, "body": body, **changes}), identity)

    def bound(**changes: Any) -> bytes:
        fields = {**vars(BINDING), **changes}
        return sealed(binding=Binding(**fields))

    def edited(position: int, value: int) -> bytes:
        frame = bytearray(good)
        frame[position] = value
        return bytes(frame)

    good = sealed()
    name_at = 6 + 71 + 9
    cases: list[tuple[str, str, bytes]] = [
        ("a good frame", "ok", good),
        ("an empty body", "ok", sealed(body=b"")),
        ("nothing", "MalformedFrame", b""),
        ("cut short", "MalformedFrame", good[:-1]),
        ("cut to the header", "MalformedFrame", good[:86]),
        ("a trailing byte", "MalformedFrame", good + b"\0"),
        ("another magic", "MalformedFrame", edited(0, 0x66)),
        ("version 2", "MalformedFrame", edited(4, 2)),
        ("kind 0", "MalformedFrame", edited(5, 0)),
        ("kind 200", "MalformedFrame", edited(5, 200)),
        ("a name length of 0", "MalformedFrame", edited(81, 0)),
        ("a name length of 33", "MalformedFrame", edited(81, 33)),
        ("a body length of 4 GiB", "MalformedFrame", good[:82] + b"\xff\xff\xff\xff" + good[86:]),
        ("a name outside ASCII", "MalformedFrame", edited(name_at, 0xE4)),
        ("a name that starts with a dot", "MalformedFrame", edited(name_at, 0x2E)),
        ("a body of 33 bytes", "MalformedFrame", sealed(body=body + b"\0")),
        ("another kind", "UnexpectedFrame", sealed(kind=Kind.SUM)),
        ("an unknown sender", "UnknownSender", sealed(sender="delft")),
        ("the combiner's name", "UnknownSender", sealed(sender=COMBINER)),
        ("another's signature", "BadSignature", sealed(bern)),
        ("a changed round", "BadSignature", edited(41, good[41] ^ 1)),
        ("a changed body", "BadSignature", edited(92, good[92] ^ 1)),
        ("a changed signature", "BadSignature", edited(len(good) - 1, good[-1] ^ 1)),
        ("no signature", "BadSignature", good[:-64] + bytes(64)),
        ("another study", "WrongBinding", bound(study_digest=bytes(32))),
        ("another round", "WrongBinding", bound(round=8)),
        ("another attempt", "WrongBinding", bound(attempt=0)),
        ("another phase", "WrongBinding", bound(phase=3)),
        ("another state", "WrongBinding", bound(state_digest=bytes(32))),
    ]
    return {
        "binding": binding_json(BINDING),
        "roster": {"aachen": aachen.public.raw.hex()},
        "cases": [
            {"what": what, "expect": expect, "frame": data.hex()} for what, expect, data in cases
        ],
    }


FILES = {
    "derive.json": derivations,
    "ring.json": packings,
    "codec.json": quantisations,
    "secagg.json": sums,
    "frames.json": frames,
}


def text(name: str) -> str:
    """The contents of one file."""
    return json.dumps(FILES[name](), indent=1) + "\n"


if __name__ == "__main__":
    for file_name in FILES:
        (HERE / file_name).write_text(text(file_name), encoding="ascii")
