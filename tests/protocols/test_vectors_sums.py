"""Known answers of whole sums, by a second implementation: keys, shares, masks, signatures, sets.

The second implementation (``protocols/vectors/second_implementation.py``, frames in
``second_frames.py``) shares no code with the package; AES, ChaCha20-Poly1305, X25519 and Ed25519
come from ``cryptography``. Sets and graphs are held against the package, too;
``test_vectors_sessions.py`` does that for the sums.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
import second_frames
import second_implementation as second
from known_answers import BITS, COUNT, NAMES, RUNS, SUMS, THRESHOLD, N, Told, unhex

from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.messages import Advertise
from fedbcs_protocols.sitesets import decode_set, encode_set


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
    key_id = bytes.fromhex(run["key_id"])
    seen = second.transcript(told.binding, digest, sharers, survivors, N, key_id)
    assert seen.hex() == run["transcript"]
    signatures = b""
    for place in told.sent["consistency"]:
        frame = told.from_site(place, 14, 3, seen)
        assert frame == told.frame(place, "consistency")
        signatures += frame[-64:]
    certificate = b"".join((digest, key_id, *sets, signatures))
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
        body = second_frames.body_of(told.frame(holder, "unmask"))
        assert len(body) == 33 * len(sharers)
        for index, owner in enumerate(sharers):
            share = body[33 * index : 33 * index + 33]
            assert share == told.held(owner, holder)[owner in survivors]
            answers[owner][holder + 1] = share
    total = [0] * COUNT
    for place in survivors:
        values = second.unpack(
            second_frames.body_of(told.frame(place, "masked_input"))[8:], COUNT, BITS
        )
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
