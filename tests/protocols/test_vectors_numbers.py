"""Known answers of numbers and bytes, against the package and against a second implementation.

The second implementation (``protocols/vectors/second_implementation.py``) follows the pages in
``protocols/specs`` with Python integers and shares no code with the package; AES comes from
``cryptography``. ``test_vectors_sums.py``, ``test_vectors_sessions.py`` and
``test_vectors_frames.py`` check the other files.
"""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction
from typing import Any

import generate
import numpy as np
import pytest
import second_implementation as second
from known_answers import VECTORS, as_binding, load

from fedbcs_protocols import codec, derive, errors, ring
from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.secagg.shamir import _split_with, combine

FILES = (
    "derive.json",
    "ring.json",
    "codec.json",
    "shamir.json",
    "secagg.json",
    "frames.json",
    "tags.json",
    "group.json",
    "ckks.json",
)


def fixed_words(label: str, count: int, bits: int) -> list[int]:
    key = hashlib.sha256(b"fedbcs-secure test vector " + label.encode()).digest()
    digests = (hashlib.sha256(key + i.to_bytes(4, "big")).digest() for i in range(count))
    return [int.from_bytes(digest[:4], "big") % 2**bits for digest in digests]


def test_the_generator_writes_these_files() -> None:
    assert tuple(sorted(generate.FILES)) == tuple(sorted(FILES))
    assert sorted(path.name for path in VECTORS.glob("*.json")) == sorted(FILES)
    for name in FILES:
        assert generate.text(name) == (VECTORS / name).read_text("ascii")


def test_derivations() -> None:
    vectors = load("derive.json")
    for case in vectors["encode_fields"]:
        assert second.fields(case["fields"]).hex() == case["encoded"]
        assert encode_fields(*case["fields"]).hex() == case["encoded"]
    for case in vectors["public_stream"]:
        seed, labels = case["seed"], case["labels"]
        fields = ["fedbcs-secure public stream", 1, seed, *labels]
        stream = second.keystream(hashlib.sha256(second.fields(fields)).digest(), 20)
        assert list(struct.unpack("<5I", stream)) == case["words32"]
        assert list(struct.unpack("<5H", stream[:10])) == case["words16"]
        assert derive.public_words(seed, *labels, count=5).tolist() == case["words32"]
        assert derive.PublicStream(seed, *labels).words16(5).tolist() == case["words16"]
    given = vectors["stream_key"]
    secret, keys = (
        bytes.fromhex(given["shared_secret"]),
        list(map(bytes.fromhex, given["public_keys"])),
    )
    for case in given["cases"]:
        own = second.stream_key(secret, given["label"], case["binding"], given["names"], keys)
        assert own.hex() == case["key"]
        names = (given["names"][0], given["names"][1])
        binding = as_binding(case["binding"])
        key = derive.stream_key(secret, given["label"], binding, names, (keys[0], keys[1]))
        assert key == own
    public = bytes.fromhex(vectors["fingerprint"]["public"])
    digest = hashlib.sha256(b"fedbcs-secure identity v1\0" + public).hexdigest()
    assert vectors["fingerprint"]["fingerprint"].replace(" ", "") == digest
    assert PublicIdentity(public).fingerprint == vectors["fingerprint"]["fingerprint"]


def test_packings() -> None:
    vectors = load("ring.json")
    for case in vectors["good"]:
        bits, count = case["bits"], case["count"]
        values = fixed_words(case["label"], count, bits)
        packed = second.pack(values, bits)
        assert hashlib.sha256(packed).hexdigest() == case["sha256"]
        assert case.get("packed", packed.hex()) == packed.hex()
        assert ring.pack(np.array(values, np.uint32), bits) == packed
        assert ring.unpack(packed, count, bits).tolist() == values
    for case in vectors["bad"]:
        with pytest.raises(errors.PeerError) as caught:
            ring.unpack(bytes.fromhex(case["packed"]), case["count"], case["bits"])
        assert type(caught.value).__name__ == case["expect"], case["what"]


def test_quantisations() -> None:
    vectors = load("codec.json")
    values = [struct.unpack(">f", bytes.fromhex(value))[0] for value in vectors["float32"]]
    for case in vectors["quantise"]:
        bits, exponent = case["bits"], case["exponent"]
        limit = 2 ** (bits - 1) - 1
        step = Fraction(2) ** (exponent - bits + 1)
        levels = [
            math.floor(Fraction(value) / step + Fraction(2 * word + 1, 2**17))
            for value, word in zip(values, case["words"], strict=True)
        ]
        assert [max(-limit, min(limit, q)) + limit for q in levels] == case["codes"]
        assert sum(abs(q) > limit for q in levels) == case["clipped"]
        out = codec.quantise(
            np.array(values, np.float32),
            [codec.Segment("a", 0, len(values))],
            [exponent],
            bits,
            np.array(case["words"], np.uint16),
        )
        assert out.codes.tolist() == case["codes"]
        assert out.clipped == case["clipped"]
    for case in vectors["range_exponent"]:
        sums, step_exponent = case["sums"], case["step_exponent"]
        square = Fraction(100 * sum(s * s for s in sums), len(sums)) * Fraction(4) ** step_exponent
        assert Fraction(4) ** case["exponent"] >= square > Fraction(4) ** (case["exponent"] - 1)
        exponent = codec.range_exponent(np.array(sums, np.int64), step_exponent, previous=0)
        assert exponent == case["exponent"]
    case = vectors["dequantise"]
    expected = [struct.unpack(">d", bytes.fromhex(value))[0] for value in case["float64"]]
    offset = case["sites"] * (2 ** (case["bits"] - 1) - 1)
    exact = [
        (total - offset) * Fraction(2) ** (exponent - case["bits"] + 1)
        for total, exponent in zip(case["sum"], case["exponents"], strict=True)
    ]
    assert list(map(Fraction, expected)) == exact
    segments = [codec.Segment(str(i), i, 1) for i in range(len(exact))]
    out64 = codec.dequantise_sum(
        np.array(case["sum"], np.uint32), case["sites"], segments, case["exponents"], case["bits"]
    )
    assert out64.tolist() == expected


# Shamir's scheme ----------------------------------------------------------------------------------

SHAMIR = load("shamir.json")


def test_splits() -> None:
    for case in SHAMIR["split"]:
        secret, holders = bytes.fromhex(case["secret"]), case["holders"]
        coefficients = [int(a, 16) for a in case["coefficients"]]
        shares = [bytes.fromhex(share) for share in case["shares"]]
        assert second.split(secret, coefficients, holders) == shares
        assert list(_split_with(secret, coefficients, holders)) == shares
        threshold = len(coefficients) + 1
        held = dict(zip(holders, shares, strict=True))
        # The last ones, in falling order: any t shares give the whole polynomial.
        some = {x: held[x] for x in holders[: -threshold - 1 : -1]}
        numbers = {x: int.from_bytes(share, "big") for x, share in some.items()}
        assert second.polynomial_through(numbers) == [int.from_bytes(secret, "big"), *coefficients]
        assert combine(some, threshold) == combine(held, threshold) == secret


@pytest.mark.parametrize("case", SHAMIR["combine"], ids=lambda case: case["what"])
def test_combinations(case: dict[str, Any]) -> None:
    shares = {int(x): bytes.fromhex(share) for x, share in case["shares"].items()}
    expected = (case["expect"], bytes.fromhex(case.get("secret", "")))
    assert second.combine(shares, case["threshold"]) == expected
    outcome = "ok", b""
    try:
        outcome = "ok", combine(shares, case["threshold"])
    except errors.ProtocolError as error:
        outcome = type(error).__name__, b""
    assert outcome == expected


@pytest.mark.parametrize("case", SHAMIR["split_bad"], ids=lambda case: case["what"])
def test_bad_splits(case: dict[str, Any]) -> None:
    with pytest.raises(errors.ProtocolError) as caught:
        _split_with(
            bytes.fromhex(case["secret"]),
            [int(a, 16) for a in case["coefficients"]],
            case["holders"],
        )
    assert type(caught.value).__name__ == case["expect"]
