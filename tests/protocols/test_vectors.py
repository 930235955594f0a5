"""The known answers, against the package and against a second implementation.

The second implementation (the functions up to the first test) follows the pages in
``protocols/specs`` with Python integers and shares no code with the package; AES, X25519 and
Ed25519 come from ``cryptography``.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedbcs_protocols import codec, derive, errors, ring
from fedbcs_protocols.binding import Binding, encode_fields
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.secagg import CombinerSession, SiteSession
from fedbcs_protocols.wire import Kind, open_frame

VECTORS = Path(__file__).parents[2] / "protocols" / "vectors"
FILES = ("derive.json", "ring.json", "codec.json", "secagg.json", "frames.json")


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text("ascii"))


def fixed_words(label: str, count: int, bits: int) -> list[int]:
    key = hashlib.sha256(b"fedbcs-secure test vector " + label.encode()).digest()
    digests = (hashlib.sha256(key + i.to_bytes(4, "big")).digest() for i in range(count))
    return [int.from_bytes(digest[:4], "big") % 2**bits for digest in digests]


def own_fields(fields: list[Any]) -> bytes:
    out = b""
    for field in fields:
        if isinstance(field, str):
            letter, content = b"s", field.encode("utf-8")
        elif isinstance(field, bytes):
            letter, content = b"b", field
        else:
            letter, content = b"i", struct.pack(">Q", field)
        out += letter + struct.pack(">I", len(content)) + content
    return out


def own_hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256; 32 bytes are one block."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def own_keystream(key: bytes, size: int) -> bytes:
    """Counter mode written out: the encryptions of 0, 1, 2, ..."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305  (CTR by hand)
    counters = b"".join(i.to_bytes(16, "big") for i in range(-(-size // 16)))
    return encryptor.update(counters)[:size]


def own_stream_key(
    secret: bytes, label: str, binding: dict[str, Any], names: list[str], keys: list[bytes]
) -> bytes:
    fields = [label, 1, binding["round"], binding["attempt"], binding["phase"]]
    fields += [bytes.fromhex(binding["state_digest"]), *names, *keys]
    return own_hkdf(secret, bytes.fromhex(binding["study_digest"]), own_fields(fields))


def own_pack(values: list[int], bits: int) -> bytes:
    words: list[int] = []
    for start in range(0, len(values), 32 * 8192):
        block = values[start : start + 32 * 8192]
        columns = -(-len(block) // 32)
        block = block + [0] * (32 * columns - len(block))
        numbers = [
            sum(block[row * columns + c] << (row * bits) for row in range(32))
            for c in range(columns)
        ]
        words += [(number >> (32 * w)) % 2**32 for w in range(bits) for number in numbers]
    return struct.pack(f"<{len(words)}I", *words)


def own_binding(binding: dict[str, Any]) -> bytes:
    return (
        bytes.fromhex(binding["study_digest"])
        + struct.pack(">IHB", binding["round"], binding["attempt"], binding["phase"])
        + bytes.fromhex(binding["state_digest"])
    )


def own_frame(
    secret: str, kind: int, binding: dict[str, Any], sender: str, sequence: int, body: bytes
) -> bytes:
    head = b"FBCS" + bytes([1, kind]) + own_binding(binding)
    head += struct.pack(">IBI", sequence, len(sender), len(body)) + sender.encode()
    message = b"fedbcs-secure frame v1\0" + head + hashlib.sha256(body).digest()
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    return head + body + key.sign(message)


def own_open(data: bytes, binding: dict[str, Any], roster: dict[str, str]) -> str:
    """The outcome for a reader who takes kind 1, at most 32 bytes of body."""
    if len(data) < 6 + 71 + 9 + 1 + 64 or data[:5] != b"FBCS\x01":
        return "MalformedFrame"
    _sequence, name_length, body_length = struct.unpack(">IBI", data[77:86])
    body_at = 86 + name_length
    name = data[86:body_at].decode("latin-1")
    proper = name == "@combiner" or (
        0 < len(name) <= 32
        and name[0].isalnum()
        and all(c.isalnum() or c in "_.-" for c in name)
        and name.isascii()
    )
    if len(data) != body_at + body_length + 64 or not proper or data[5] not in (1, 2, 3, 4):
        return "MalformedFrame"
    if data[5] != 1:
        return "UnexpectedFrame"
    if body_length > 32:
        return "MalformedFrame"
    if name not in roster:
        return "UnknownSender"
    body, signature = data[body_at:-64], data[-64:]
    message = b"fedbcs-secure frame v1\0" + data[:body_at] + hashlib.sha256(body).digest()
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(roster[name]))
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return "BadSignature"
    return "ok" if data[6:77] == own_binding(binding) else "WrongBinding"


def as_binding(fields: dict[str, Any]) -> Binding:
    return Binding(
        bytes.fromhex(fields["study_digest"]),
        fields["round"],
        fields["attempt"],
        fields["phase"],
        bytes.fromhex(fields["state_digest"]),
    )


def test_the_generator_writes_these_files() -> None:
    spec = importlib.util.spec_from_file_location("generate_vectors", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert tuple(sorted(generate.FILES)) == tuple(sorted(FILES))
    assert sorted(path.name for path in VECTORS.glob("*.json")) == sorted(FILES)
    for name in FILES:
        assert generate.text(name) == (VECTORS / name).read_text("ascii")


def test_derivations() -> None:
    vectors = load("derive.json")
    for case in vectors["encode_fields"]:
        assert own_fields(case["fields"]).hex() == case["encoded"]
        assert encode_fields(*case["fields"]).hex() == case["encoded"]
    for case in vectors["public_stream"]:
        seed, labels = case["seed"], case["labels"]
        fields = ["fedbcs-secure public stream", 1, seed, *labels]
        stream = own_keystream(hashlib.sha256(own_fields(fields)).digest(), 20)
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
        own = own_stream_key(secret, given["label"], case["binding"], given["names"], keys)
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
        packed = own_pack(values, bits)
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


def test_a_whole_sum_by_the_second_implementation() -> None:
    vectors = load("secagg.json")
    bits, count, binding, sites = (vectors[k] for k in ("bits", "count", "binding", "sites"))
    secrets = [X25519PrivateKey.from_private_bytes(bytes.fromhex(s["mask_secret"])) for s in sites]
    keys = [secret.public_key().public_bytes_raw() for secret in secrets]
    listed = struct.pack(">H", len(sites))
    for me, site in enumerate(sites):
        frame = own_frame(site["identity_secret"], 1, binding, site["name"], 0, keys[me])
        assert frame.hex() == site["advertise"]
        listed += struct.pack(">I", len(frame)) + frame
    boss = vectors["combiner_secret"]
    assert own_frame(boss, 2, binding, "@combiner", 0, listed).hex() == vectors["key_list"]
    head = struct.pack(">IHH", count, bits, len(sites))
    for me, site in enumerate(sites):
        masked = list(site["vector"])
        for peer in range(len(sites)):
            if peer == me:
                continue
            secret = secrets[me].exchange(X25519PublicKey.from_public_bytes(keys[peer]))
            low, high = min(me, peer), max(me, peer)
            names = [sites[low]["name"], sites[high]["name"]]
            key = own_stream_key(
                secret, "secagg pairwise mask", binding, names, [keys[low], keys[high]]
            )
            words = struct.unpack(f"<{count}I", own_keystream(key, 4 * count))
            sign = 1 if me == low else -1
            masked = [(x + sign * w) % 2**bits for x, w in zip(masked, words, strict=True)]
        body = head + own_pack(masked, bits)
        frame = own_frame(site["identity_secret"], 3, binding, site["name"], 1, body)
        assert frame.hex() == site["masked_input"]
    columns = zip(*(site["vector"] for site in sites), strict=True)
    assert vectors["sum"] == [sum(column) for column in columns]
    body = head + own_pack(vectors["sum"], bits)
    assert own_frame(boss, 4, binding, "@combiner", 1, body).hex() == vectors["sum_frame"]


def test_a_whole_sum_by_the_package() -> None:
    vectors = load("secagg.json")
    binding = as_binding(vectors["binding"])
    boss = Identity.from_secret_bytes(bytes.fromhex(vectors["combiner_secret"]))
    identities = {
        site["name"]: Identity.from_secret_bytes(bytes.fromhex(site["identity_secret"]))
        for site in vectors["sites"]
    }
    roster = {name: identity.public for name, identity in identities.items()}
    combiner = CombinerSession(
        identity=boss,
        roster=roster,
        binding=binding,
        bits=vectors["bits"],
        count=vectors["count"],
    )
    sessions = {}
    for site in vectors["sites"]:
        session = SiteSession._with_ephemeral(
            X25519PrivateKey.from_private_bytes(bytes.fromhex(site["mask_secret"])),
            identity=identities[site["name"]],
            name=site["name"],
            roster=roster,
            combiner=boss.public,
            binding=binding,
            bits=vectors["bits"],
            count=vectors["count"],
        )
        assert session.advertise().hex() == site["advertise"]
        combiner.receive_advertise(bytes.fromhex(site["advertise"]))
        sessions[site["name"]] = session
    assert combiner.key_list().hex() == vectors["key_list"]
    for site in vectors["sites"]:
        frame = sessions[site["name"]].masked_input(
            bytes.fromhex(vectors["key_list"]), np.array(site["vector"], np.uint32)
        )
        assert frame.hex() == site["masked_input"]
        combiner.receive_masked(frame)
    assert combiner.sum().tolist() == vectors["sum"]
    assert combiner.sum_frame().hex() == vectors["sum_frame"]


FRAMES = load("frames.json")


@pytest.mark.parametrize("case", FRAMES["cases"], ids=lambda case: case["what"])
def test_frames(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["frame"])
    assert own_open(data, FRAMES["binding"], FRAMES["roster"]) == case["expect"]
    roster = {name: PublicIdentity(bytes.fromhex(key)) for name, key in FRAMES["roster"].items()}
    outcome = "ok"
    try:
        open_frame(
            data,
            roster=roster,
            expect=as_binding(FRAMES["binding"]),
            limits={Kind.ADVERTISE: 32},
        )
    except errors.PeerError as error:
        outcome = type(error).__name__
    assert outcome == case["expect"]
