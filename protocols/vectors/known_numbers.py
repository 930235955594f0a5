"""Known answers of single functions: derivations, packing, quantisation, Shamir's scheme."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from known_values import BINDING, Json, binding_json, fixed_bytes, fixed_words

from fedbcs_protocols import codec, derive, ring
from fedbcs_protocols.binding import Binding, encode_fields
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg.shamir import PRIME, _split_with


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


def fixed_field(label: str) -> int:
    """A reproducible number of the field of p = 2^256 + 297."""
    return int.from_bytes(fixed_bytes(f"{label} high") + fixed_bytes(f"{label} low")) % PRIME


def shamir() -> Json:
    """Secrets, coefficients and shares as hexadecimal numbers of 64 and 66 digits."""
    corner = (bytes(32), b"\xff" * 32, bytes(31) + b"\1", fixed_bytes("secret"))
    split: list[Json] = []
    for threshold in (2, 3, 4, 5):
        for number, secret in enumerate(corner):
            label = f"shamir {threshold} {number}"
            coefficients = [fixed_field(f"{label} {i}") for i in range(threshold - 1)]
            split.append(_split_case(secret, coefficients, range(1, threshold + 3)))
    split += [
        _split_case(b"\xff" * 32, [PRIME - 1], (1, 2, 3)),
        _split_case(bytes(32), [0, 0], (1, 2, 3)),
        _split_case(fixed_bytes("far"), [1, PRIME - 1], (65535, 1, 1024, 300)),
    ]
    return {"split": split, "combine": _combinations(), "split_bad": _bad_splits()}


def _split_case(secret: bytes, coefficients: list[int], holders: Any) -> Json:
    shares = _split_with(secret, coefficients, list(holders))
    return {
        "secret": secret.hex(),
        "coefficients": [f"{a:066x}" for a in coefficients],
        "holders": list(holders),
        "shares": [share.hex() for share in shares],
    }


def _combinations() -> list[Json]:
    """What shares by holder give: ``expect`` is ``ok`` with a secret, or the error to raise."""
    secret = fixed_bytes("combined")
    holders = (1, 2, 3, 4, 9, 65535)
    shares = dict(
        zip(
            holders, _split_with(secret, [fixed_field("a"), fixed_field("b")], holders), strict=True
        )
    )
    # On the line through (1, 2^256) and (2, 2^256) every value is 2^256, which is no secret.
    flat = {1: (1 << 256).to_bytes(33, "big"), 2: (1 << 256).to_bytes(33, "big")}
    # Value at zero of the line through (1, a) and (2, b): 2a - b.
    line = {1: (7).to_bytes(33, "big"), 2: (9).to_bytes(33, "big")}

    def some(*at: int, **changed: bytes) -> dict[int, bytes]:
        return {x: shares[x] for x in at} | {int(x[1:]): share for x, share in changed.items()}

    prime = PRIME.to_bytes(33, "big")
    cases: list[tuple[str, str, dict[int, bytes], int, bytes]] = [
        ("the three lowest", "ok", some(1, 2, 3), 3, secret),
        ("three far apart", "ok", some(2, 9, 65535), 3, secret),
        ("all, of which three are read", "ok", shares, 3, secret),
        ("a bad share that is not read", "ok", some(1, 2, 3, x4=b""), 3, secret),
        ("a line", "ok", line, 2, (5).to_bytes(32, "big")),
        ("all shares zero", "ok", dict.fromkeys((1, 2), bytes(33)), 2, bytes(32)),
        ("none", "LocalError", {}, 2, b""),
        ("one too few", "LocalError", some(1, 2), 3, b""),
        ("a threshold of one", "LocalError", some(1), 1, b""),
        ("a threshold of zero", "LocalError", some(1), 0, b""),
        ("holder zero", "LocalError", some(1, 2, x0=bytes(33)), 3, b""),
        ("holder 2^16", "LocalError", some(1, 2, x65536=bytes(33)), 3, b""),
        ("an empty share", "InconsistentShares", some(1, 2, x3=b""), 3, b""),
        ("a share of 32 bytes", "InconsistentShares", some(1, 2, x3=shares[3][1:]), 3, b""),
        ("a share of 34 bytes", "InconsistentShares", some(1, 2, x3=b"\0" + shares[3]), 3, b""),
        ("a share that is p", "InconsistentShares", some(1, 2, x3=prime), 3, b""),
        ("a share of all ones", "InconsistentShares", some(1, 2, x3=b"\xff" * 33), 3, b""),
        ("the value 2^256", "InconsistentShares", flat, 2, b""),
    ]
    return [
        {
            "what": what,
            "expect": expect,
            "threshold": threshold,
            "shares": {str(x): share.hex() for x, share in held.items()},
            **({"secret": known.hex()} if expect == "ok" else {}),
        }
        for what, expect, held, threshold, known in cases
    ]


def _bad_splits() -> list[Json]:
    """Splits that must be refused with a :class:`LocalError`."""
    good: Json = {"secret": bytes(32).hex(), "coefficients": ["00"], "holders": [1, 2]}
    changes: list[tuple[str, Json]] = [
        ("a secret of 31 bytes", {"secret": bytes(31).hex()}),
        ("a secret of 33 bytes", {"secret": bytes(33).hex()}),
        ("a coefficient that is p", {"coefficients": [f"{PRIME:066x}"]}),
        ("holder zero", {"holders": [0, 1]}),
        ("holder 2^16", {"holders": [1, 65536]}),
        ("a holder twice", {"holders": [1, 1]}),
    ]
    return [{"what": what, "expect": "LocalError", **good, **change} for what, change in changes]
