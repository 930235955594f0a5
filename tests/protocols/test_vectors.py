"""The known answers, against the package and against a second implementation.

The second implementation (``protocols/vectors/second_implementation.py``) follows the pages in
``protocols/specs`` with Python integers and shares no code with the package; AES,
ChaCha20-Poly1305, X25519 and Ed25519 come from ``cryptography``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import struct
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols import codec, derive, errors, ring
from fedbcs_protocols.binding import COMBINER, Binding, encode_fields
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.secagg import (
    CombinerSession,
    Guard,
    MemoryMarks,
    NoJournal,
    Setting,
    SiteSession,
    Terms,
    open_sum,
)
from fedbcs_protocols.secagg.ephemeral import Ephemeral
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.messages import Advertise, Certificate, Delivery, KeyList, cut
from fedbcs_protocols.secagg.shamir import _split_with, combine
from fedbcs_protocols.sitesets import decode_set, encode_set
from fedbcs_protocols.wire import Frame, Kind, open_frame

VECTORS = Path(__file__).parents[2] / "protocols" / "vectors"
FILES = ("derive.json", "ring.json", "codec.json", "shamir.json", "secagg.json", "frames.json")
sys.path.insert(0, str(VECTORS))
second: Any = importlib.import_module("second_implementation")
generate: Any = importlib.import_module("generate")
sys.path.remove(str(VECTORS))


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text("ascii"))


def fixed_words(label: str, count: int, bits: int) -> list[int]:
    key = hashlib.sha256(b"fedbcs-secure test vector " + label.encode()).digest()
    digests = (hashlib.sha256(key + i.to_bytes(4, "big")).digest() for i in range(count))
    return [int.from_bytes(digest[:4], "big") % 2**bits for digest in digests]


def as_binding(fields: dict[str, Any]) -> Binding:
    return Binding(
        bytes.fromhex(fields["study_digest"]),
        fields["round"],
        fields["attempt"],
        fields["phase"],
        bytes.fromhex(fields["state_digest"]),
    )


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


# Whole sums --------------------------------------------------------------------------------------

SUMS = load("secagg.json")
NAMES = list(SUMS["identity_secrets"])
N, THRESHOLD = SUMS["terms"]["sites"], SUMS["terms"]["threshold"]
BITS, COUNT = SUMS["bits"], SUMS["count"]
STAGES = ("advertise", "shares", "masked_input", "consistency", "unmask")
RUNS = pytest.mark.parametrize("run", SUMS["runs"], ids=lambda run: run["what"])


def unhex(site: Mapping[str, Any], key: str) -> bytes:
    return bytes.fromhex(site[key])


class Told:
    """What a run's file says, and who sent a frame in each stage."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run, self.binding, self.sites = run, run["binding"], run["sites"]
        assert [site["name"] for site in self.sites] == NAMES
        self.sent = {
            stage: [p for p, site in enumerate(self.sites) if stage in site["frames"]]
            for stage in STAGES
        }

    def frame(self, place: int, stage: str) -> bytes:
        return bytes.fromhex(self.sites[place]["frames"][stage])

    def from_site(self, place: int, kind: int, sequence: int, body: bytes) -> bytes:
        name = NAMES[place]
        secret = SUMS["identity_secrets"][name]
        framed: bytes = second.frame(secret, kind, self.binding, name, sequence, body)
        return framed

    def from_combiner(self, kind: int, sequence: int, body: bytes) -> str:
        secret = SUMS["combiner_secret"]
        framed: bytes = second.frame(secret, kind, self.binding, "@combiner", sequence, body)
        return framed.hex()

    def held(self, owner: int, holder: int) -> tuple[bytes, bytes]:
        """The holder's shares of the owner's mask key and of its seed."""
        site = self.sites[owner]
        (mask,), (seed,) = (
            second.split(
                unhex(site, secret), [int(a, 16) for a in site[coefficients]], [holder + 1]
            )
            for secret, coefficients in (
                ("mask_secret", "mask_coefficients"),
                ("seed", "seed_coefficients"),
            )
        )
        return mask, seed

    def pair_key(self, one: int, other: int, secret: bytes) -> bytes:
        """The key of the mask between two, from the mask secret of ``one``."""
        agreed = second.shared(secret, unhex(self.sites[other], "mask_key"))
        both = sorted((one, other))
        names, keys = (
            [NAMES[p] for p in both],
            [unhex(self.sites[p], "mask_key") for p in both],
        )
        key: bytes = second.stream_key(agreed, "secagg pairwise mask", self.binding, names, keys)
        return key

    def self_key(self, place: int, seed: bytes) -> bytes:
        names, key = [NAMES[place]] * 2, unhex(self.sites[place], "mask_key")
        out: bytes = second.stream_key(seed, "secagg self mask", self.binding, names, [key, key])
        return out


@RUNS
def test_keys_and_shares_by_the_second_implementation(run: dict[str, Any]) -> None:
    told = Told(run)
    listed = [b""] * N
    for place in told.sent["advertise"]:
        site = told.sites[place]
        keys = [second.public_half(unhex(site, f"{what}_secret")) for what in ("mask", "share")]
        assert [key.hex() for key in keys] == [site["mask_key"], site["share_key"]]
        shown = second.commitment(unhex(site, "seed"), told.binding, NAMES[place])
        assert shown.hex() == site["commitment"]
        listed[place] = told.from_site(place, 1, 0, b"".join((*keys, shown)))
        assert listed[place] == told.frame(place, "advertise")
    body = second.key_list(listed)
    digest = second.key_list_digest(body)
    assert told.from_combiner(2, 0, body) == run["key_list"]
    assert digest.hex() == run["key_list_digest"]

    listed_keys = {(given["from"], given["to"]): given for given in run["share_keys"]}
    ciphertexts: dict[tuple[int, int], bytes] = {}
    for owner in told.sent["shares"]:
        for holder in told.sent["advertise"]:
            if holder == owner:
                continue
            names = NAMES[owner], NAMES[holder]
            keys = [unhex(told.sites[p], "share_key") for p in (owner, holder)]
            agreed = second.shared(unhex(told.sites[owner], "share_secret"), keys[1])
            # The receiver comes to the same secret.
            assert agreed == second.shared(unhex(told.sites[holder], "share_secret"), keys[0])
            key = second.stream_key(agreed, "secagg share", told.binding, names, keys)
            plain = b"".join(told.held(owner, holder))
            associated, closed = second.share_message(key, plain, told.binding, names, digest)
            given = listed_keys.pop(names)
            assert [key.hex(), plain.hex()] == [given["key"], given["plain"]]
            assert [associated.hex(), closed.hex()] == [given["associated"], given["sealed"]]
            ciphertexts[owner, holder] = closed
        sent = b"".join(ciphertexts[owner, p] for p in told.sent["advertise"] if p != owner)
        assert told.from_site(owner, 11, 1, sent) == told.frame(owner, "shares")
    assert not listed_keys
    sharers = told.sent["shares"]
    assert run["deliveries"] == {
        NAMES[holder]: told.from_combiner(
            12,
            1,
            second.site_set(sharers, N)
            + b"".join(ciphertexts[owner, holder] for owner in sharers if owner != holder),
        )
        for holder in sharers
    }


@RUNS
def test_masks_and_signatures_by_the_second_implementation(run: dict[str, Any]) -> None:
    told = Told(run)
    sharers, survivors = told.sent["shares"], told.sent["masked_input"]
    pairs = {tuple(given["names"]): given["key"] for given in run["pair_keys"]}
    for place in sharers:
        site = told.sites[place]
        masks = [(told.self_key(place, unhex(site, "seed")), 1)]
        assert masks[0][0].hex() == site["self_mask_key"]
        for peer in sharers:
            if peer != place:
                key = told.pair_key(place, peer, unhex(site, "mask_secret"))
                names = NAMES[min(place, peer)], NAMES[max(place, peer)]
                assert key.hex() == pairs[names]
                masks.append((key, 1 if place < peer else -1))
        if place in survivors:
            packed = second.pack(second.masked(site["vector"], masks, BITS), BITS)
            body = struct.pack(">IHH", COUNT, BITS, N) + packed
            assert told.from_site(place, 3, 2, body) == told.frame(place, "masked_input")
    assert len(pairs) == len(sharers) * (len(sharers) - 1) / 2

    sets = [second.site_set(places, N) for places in (sharers, survivors, told.sent["consistency"])]
    assert told.from_combiner(13, 2, sets[1]) == run["survivors"]
    digest = bytes.fromhex(run["key_list_digest"])
    seen = second.transcript(told.binding, digest, sharers, survivors, N)
    assert seen.hex() == run["transcript"]
    signatures = b""
    for place in told.sent["consistency"]:
        frame = told.from_site(place, 14, 3, seen)
        assert frame == told.frame(place, "consistency")
        signatures += frame[-64:]
    certificate = b"".join((digest, *sets, signatures))
    assert told.from_combiner(15, 3, certificate) == run["certificate"]
    packed = struct.pack(">IHH", COUNT, BITS, N) + second.pack(run["sum"], BITS)
    assert told.from_combiner(4, 4, certificate + packed) == run["sum_frame"]
    assert run["sum"] == [
        sum(column) for column in zip(*(told.sites[p]["vector"] for p in survivors), strict=True)
    ]


@RUNS
def test_masks_come_off_by_the_second_implementation(run: dict[str, Any]) -> None:
    """From the frames of *masked input* and *unmask* alone, without any site's secrets."""
    told = Told(run)
    sharers, survivors = told.sent["shares"], told.sent["masked_input"]
    answers: dict[int, dict[int, bytes]] = {owner: {} for owner in sharers}
    for holder in told.sent["unmask"]:
        body = second.body_of(told.frame(holder, "unmask"))
        assert len(body) == 33 * len(sharers)
        for index, owner in enumerate(sharers):
            share = body[33 * index : 33 * index + 33]
            assert share == told.held(owner, holder)[owner in survivors]
            answers[owner][holder + 1] = share
    total = [0] * COUNT
    for place in survivors:
        values = second.unpack(second.body_of(told.frame(place, "masked_input"))[8:], COUNT, BITS)
        total = [(a + b) % 2**BITS for a, b in zip(total, values, strict=True)]
    recovered = []
    for owner in sharers:
        outcome, secret = second.combine(answers[owner], THRESHOLD)
        assert outcome == "ok"
        stays = owner in survivors
        kind = "seed" if stays else "mask key"
        recovered.append({"of": NAMES[owner], "secret": kind, "value": secret.hex()})
        if stays:
            off = [(told.self_key(owner, secret), -1)]
        else:
            # What it would have added to, or taken from, the vectors of those that stayed.
            off = [
                (told.pair_key(owner, peer, secret), 1 if owner < peer else -1)
                for peer in survivors
            ]
        total = second.masked(total, off, BITS)
    assert recovered == run["recovered"]
    assert total == run["sum"]


@RUNS
def test_a_whole_sum_by_the_package(run: dict[str, Any]) -> None:
    """The sessions write these frames, and read them; only polynomials are the session's own."""
    told = Told(run)
    boss = Identity.from_secret_bytes(bytes.fromhex(SUMS["combiner_secret"]))
    identities = {
        name: Identity.from_secret_bytes(bytes.fromhex(secret))
        for name, secret in SUMS["identity_secrets"].items()
    }
    setting = Setting(
        {name: identity.public for name, identity in identities.items()},
        boss.public,
        as_binding(run["binding"]),
        Terms(**SUMS["terms"]),
        BITS,
        COUNT,
    )
    verified = frozenset(identity.public.fingerprint for identity in identities.values())
    combiner = CombinerSession(setting, identity=boss, journal=NoJournal())
    sessions = []
    for site in told.sites:
        session = SiteSession(
            setting,
            identity=identities[site["name"]],
            name=site["name"],
            guard=Guard(verified),
            marks=MemoryMarks(),
        )
        private = [
            X25519PrivateKey.from_private_bytes(unhex(site, f"{what}_secret"))
            for what in ("mask", "share")
        ]
        session._seed_for_tests(Ephemeral(*private, unhex(site, "seed")))
        sessions.append(session)

    def stage(name: str, expected: Mapping[str, str]) -> Mapping[str, bytes]:
        """Let the combiner take a stage's frames, and hold what it asks then against the file."""
        for place in told.sent[name]:
            combiner.receive(told.frame(place, name))
        combiner.close()
        assert {to: frame.hex() for to, frame in combiner.requests.items()} == expected
        return combiner.requests

    def to_senders(name: str, frame: str) -> dict[str, str]:
        return {NAMES[place]: run[frame] for place in told.sent[name]}

    for place in told.sent["advertise"]:
        assert sessions[place].advertise() == told.frame(place, "advertise")
    requests = stage("advertise", to_senders("advertise", "key_list"))
    for place in told.sent["shares"]:
        shares = sessions[place].share(requests[NAMES[place]])
        assert len(shares) == len(told.frame(place, "shares"))
    requests = stage("shares", run["deliveries"])
    for place in told.sent["masked_input"]:
        vector = np.array(told.sites[place]["vector"], np.uint32)
        masked = sessions[place].masked_input(requests[NAMES[place]], vector)
        assert masked == told.frame(place, "masked_input")
    requests = stage("masked_input", to_senders("masked_input", "survivors"))
    for place in told.sent["consistency"]:
        signed = sessions[place].consistency(requests[NAMES[place]])
        assert signed == told.frame(place, "consistency")
        assert sessions[place].transcript == bytes.fromhex(run["transcript"])
    requests = stage("consistency", to_senders("consistency", "certificate"))
    for place in told.sent["unmask"]:
        answer = second.body_of(sessions[place].unmask(requests[NAMES[place]]))
        known = second.body_of(told.frame(place, "unmask"))
        # Its share of its own secret comes from its own polynomial, which no seed fixes.
        mine = 33 * told.sent["shares"].index(place)
        assert answer[:mine] == known[:mine]
        assert answer[mine + 33 :] == known[mine + 33 :]
    stage("unmask", {})
    assert combiner.total().tolist() == run["sum"]
    assert combiner.sum_frame().hex() == run["sum_frame"]
    outcome = open_sum(combiner.sum_frame(), setting, {})
    assert outcome.total.tolist() == run["sum"]
    assert outcome.survivors == tuple(NAMES[place] for place in told.sent["masked_input"])
    assert outcome.transcript.hex() == run["transcript"]


@pytest.mark.parametrize("case", SUMS["graphs"], ids=("sparse", "complete"))
def test_graphs(case: dict[str, Any]) -> None:
    draws = {int(place): set(drawn) for place, drawn in case["draws"].items()}
    graph = Neighbourhood(2, 2, complete=False)
    if case["complete"]:
        graph = Neighbourhood(6, 4, complete=True)
    adverts = {p: Advertise(b"", b"", b"", frozenset(drawn)) for p, drawn in draws.items()}
    table = KeyTable(adverts, graph, b"")
    for place in draws:
        # SA-0.6, written out.
        if case["complete"]:
            holders = owners = set(draws)
            neighbours = set(draws) - {place}
        else:
            holders = {p for p in draws[place] if p in draws}
            owners = {p for p in draws if place in draws[p]}
            neighbours = holders | owners
        told = [case[key][str(place)] for key in ("holders", "recipients", "owners", "neighbours")]
        assert told == [
            sorted(places) for places in (holders, holders - {place}, owners, neighbours)
        ]
        assert told == [
            sorted(table.holders(place)),
            list(table.recipients(place)),
            sorted(table.owners(place)),
            sorted(table.neighbours(place)),
        ]


def test_sets() -> None:
    for case in SUMS["sets"]:
        sites, places, encoded = case["sites"], case["places"], bytes.fromhex(case["encoded"])
        assert second.site_set(places, sites) == encode_set(places, sites) == encoded
        assert second.members(encoded, sites) == places
        assert decode_set(encoded, sites, sender="aachen") == set(places)


# Frames ------------------------------------------------------------------------------------------

FRAMES = load("frames.json")
READER = FRAMES["reader"]
ROSTER = {name: PublicIdentity(bytes.fromhex(key)) for name, key in FRAMES["roster"].items()}


def outcome_of(read: Callable[[], object]) -> str:
    """``ok``, or the name of the error that the package raises."""
    try:
        read()
    except errors.PeerError as error:
        return type(error).__name__
    return "ok"


def opened(data: bytes, roster: Mapping[str, PublicIdentity], kind: Kind, limit: int) -> Frame:
    expect = as_binding(FRAMES["binding"])
    return open_frame(data, roster=roster, expect=expect, limits={kind: limit})


def read_body(kind: Kind, body: Any, sender: str) -> None:
    sites = READER["sites"]
    sparse = Neighbourhood(READER["drawn"], 2, complete=False)
    shape = VectorShape(READER["count"], READER["bits"], sites)
    match kind:
        case Kind.ADVERTISE:
            Advertise.decode(body, sender=sender, graph=sparse, sites=sites)
        case Kind.KEY_LIST:
            KeyList.decode(body, sender=sender, graph=sparse, sites=sites)
        case Kind.MASKED_INPUT:
            MaskedInput.decode(body, sender=sender, shape=shape)
        case Kind.SUM:
            _, end = Certificate.decode_from(body, sender=sender, sites=sites)
            SumBroadcast.decode(body[end:], sender=sender, shape=shape)
        case Kind.SHARES | Kind.UNMASK:
            size = 82 if kind is Kind.SHARES else 33
            cut(body, READER["pieces"], size, sender=sender, what="shares")
        case Kind.DELIVERY:
            Delivery.decode(body, sender=sender, sites=sites)
        case Kind.SURVIVORS:
            decode_set(body, sites, sender=sender)
        case Kind.CONSISTENCY:
            if bytes(body) != bytes.fromhex(READER["transcript"]):
                raise errors.Inconsistent(sender, "it signed another transcript")
        case Kind.CERTIFICATE:
            Certificate.decode(body, sender=sender, sites=sites)


@pytest.mark.parametrize("case", FRAMES["cases"], ids=lambda case: case["what"])
def test_headers(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["frame"])
    own = second.open_frame(data, FRAMES["binding"], FRAMES["roster"], 1, 32)
    assert own == case["expect"]
    assert outcome_of(lambda: opened(data, ROSTER, Kind.ADVERTISE, 32)) == case["expect"]


KINDS = [(kind, case) for kind in FRAMES["kinds"] for case in kind["cases"]]
KIND_IDS = [f"{kind['name']}: {case['what']}" for kind, case in KINDS]


@pytest.mark.parametrize(("kind", "case"), KINDS, ids=KIND_IDS)
def test_kinds(kind: dict[str, Any], case: dict[str, str]) -> None:
    data, number, limit = bytes.fromhex(case["frame"]), kind["kind"], kind["limit"]
    keys = {**FRAMES["roster"], COMBINER: FRAMES["combiner"]}
    own = second.open_frame(data, FRAMES["binding"], keys, number, limit)
    if own == "ok":
        own = second.body_outcome(kind["name"], second.body_of(data), READER)
    assert own == case["expect"]
    roster = {**ROSTER, COMBINER: PublicIdentity(bytes.fromhex(FRAMES["combiner"]))}

    def read() -> None:
        frame = opened(data, roster, Kind(number), limit)
        read_body(frame.kind, frame.body, frame.sender)

    assert outcome_of(read) == case["expect"]


def test_every_kind_has_its_frames() -> None:
    assert {kind["kind"]: kind["name"] for kind in FRAMES["kinds"]} == {
        int(kind): kind.name for kind in Kind
    }
    assert sorted(kind["kind"] for kind in FRAMES["kinds"]) == list(range(1, 17))
