"""Known answers of the encrypted sum, by the package and by the second implementation.

The second implementation multiplies polynomials as Python's long integers: nothing of SEAL's is in
it. ``test_vectors_ckks_lies.py`` has what is told about the sum and is not so.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any
from unittest import mock

import known_ckks
import numpy as np
import pytest
import second_ckks as second
from ckks_world import scratch
from known_ckks import BOSS, NAMES, SECRET, SETTING
from known_encrypted import (
    FILE,
    INSIDE,
    NOISE_KEYS,
    PLACES,
    SALTS,
    SUM,
    TOLD,
    aggregate,
    ciphertexts,
    ended,
    from_combiner,
    from_site,
    keys_of,
    session_of,
    vector,
)
from second_implementation import fields, keystream
from second_tags import key_name

from fedbcs_protocols.ckks import CkksCombiner, ParameterSet, open_sum, parameter_set, site
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.packing import check_noise, pack, unpack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.products import _KNOWN_PRODUCT, BATCH, Products
from fedbcs_protocols.ckks.samples import CommonPolynomials, NoiseStream, upload_secret
from fedbcs_protocols.ckks.words import pack_words, unpack_words
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.wire import Kind

CHUNKS = 5
BINDING, EPOCH = known_ckks.BINDING, FILE["epoch"]
RAW = bytes.fromhex(FILE["secret"])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def eights(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words)


# Numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told", FILE["parameter_sets"], ids=lambda told: f"{told['sites']}x{told['bits']}"
)
def test_parameter_sets(told: dict[str, Any]) -> None:
    """CK-1"""
    sites, bits = told["sites"], told["bits"]
    params = second.Parameters(sites, bits)
    assert [f for f in (1, 2, 3, 4) if params.fits(f)] == told["fitting"]
    for count in {1, 2, 3, 4} - set(told["fitting"]):
        with pytest.raises(LocalError):
            ParameterSet(sites, bits, count)
    if told["expect"] == "LocalError":
        assert params.count == 0
        with pytest.raises(LocalError):
            parameter_set(sites, bits)
        return
    ours = parameter_set(sites, bits)
    assert params.count == ours.fields == told["fields"] == max(told["fitting"])
    assert params.scale == ours.scale == told["scale"]
    assert params.largest(params.count) == ours.largest == told["largest"]
    assert params.payload == ours.payload == told["payload"]
    assert params.name == ours.digest == bytes.fromhex(told["name"])


def test_some_sets_just_fit() -> None:
    """CK-1.5: on both sides of where they end, so that the test above is one of the borders."""
    most = {(t["sites"], t["bits"]): t.get("fields", 0) for t in FILE["parameter_sets"]}
    assert [most[128, 16], most[129, 16], most[8, 14], most[9, 14]] == [2, 1, 3, 2]
    assert [most[64, 17], most[65, 17], most[16, 20], most[17, 20]] == [2, 1, 2, 1]
    assert [most[16, 12], most[17, 12], most[16, 8], most[17, 8]] == [3, 2, 4, 3]
    assert [most[1024, 22], most[1024, 23], most[256, 24], most[257, 24]] == [1, 0, 1, 0]


@pytest.mark.parametrize("told", FILE["packing"], ids=lambda t: f"{t['sites']}x{t['bits']}")
def test_packing(told: dict[str, Any]) -> None:
    """CK-2.1, CK-5.2, CK-5.3"""
    params = second.Parameters(told["sites"], told["bits"])
    ours, places = parameter_set(told["sites"], told["bits"]), len(told["values"])
    values = np.zeros((params.count, DEGREE), np.uint32)
    values[:, :places] = np.array(told["values"], np.uint32).T
    flat = values.reshape(1, -1)
    assert second.packed(flat[0].tolist(), params)[:places] == told["coefficients"]
    assert pack(flat, ours)[0, :places].tolist() == told["coefficients"]
    for sums in told["sums"]:
        plain, added = sums["coefficients"], sums["added"]
        assert max(plain) < second.Q
        found = [second.rounded(c, params) for c in plain]
        whole = [a for a, _ in found]
        residues = np.zeros((1, DEGREE), np.uint64)
        residues[0, : len(plain)] = plain
        assert ended(lambda w=whole, k=added: second.unpacked(w, params, k)) == sums["expect"]
        assert ended(lambda r=residues, k=added: unpack(r, ours, k)) == sums["expect"]
        if sums["expect"] == "ok":
            got, noise = unpack(residues, ours, added)
            digits = got.reshape(params.count, -1)[:, : len(plain)]
            assert digits.T.tolist() == sums["values"]
            assert second.unpacked(whole, params, added) == digits.reshape(-1).tolist()
            assert [rest for _, rest in found] == noise[0, : len(plain)].tolist() == sums["noise"]


@pytest.mark.parametrize("told", FILE["noise"], ids=lambda told: told["what"])
def test_noise(told: dict[str, Any]) -> None:
    """CK-5.4"""
    chunk = [int(e) for e, count in told["noise"].items() for _ in range(count)]
    assert len(chunk) == DEGREE
    assert ended(lambda: second.check_noise(chunk, told["added"])) == told["expect"]
    assert ended(lambda: check_noise(np.array([chunk]), told["added"])) == told["expect"]


@pytest.mark.parametrize("told", FILE["words"], ids=lambda told: told["what"])
def test_words(told: dict[str, Any]) -> None:
    """CK-3.6, CK-3.7"""
    words = [0] * DEGREE
    for place, word in told["words"].items():
        words[int(place)] = word
    data = second.pack_words(words)
    assert data == pack_words(np.array(words, np.uint64))
    assert sha256(data) == told["sha256"]
    packed = struct.unpack("<3840Q", data)
    assert {str(i): word for i, word in enumerate(packed) if word} == told["packed"]
    assert ended(lambda: second.unpack_words(data)) == told["expect"]
    assert ended(lambda: unpack_words(data, "x")) == told["expect"]
    if told["expect"] == "ok":
        assert second.unpack_words(data) == unpack_words(data, "x").tolist() == words


# What ciphertexts are made of --------------------------------------------------------------------


def is_told(words: list[int], told: dict[str, Any]) -> bool:
    return (words[:3], words[-1], sha256(eights(words))) == (
        told["first"], told["last"], told["sha256"],
    )  # fmt: skip


def test_common_polynomials() -> None:
    """CK-3.2"""
    theirs = second.common_polynomials(second.seed_of(FILE["binding"]), CHUNKS)
    ours = CommonPolynomials(BINDING).next(CHUNKS).tolist()
    assert theirs == ours
    assert len(FILE["made_of"]["common"]) == CHUNKS
    assert all(map(is_told, theirs, FILE["made_of"]["common"]))


@pytest.mark.parametrize("name", NAMES)
def test_secrets(name: str) -> None:
    """CK-3.3"""
    theirs = TOLD.secret_of(name, SALTS[name])
    assert "".join("0+-"[s] for s in theirs) == FILE["made_of"]["secrets"][name]
    assert upload_secret(RAW, EPOCH, BINDING, name, SALTS[name]).tolist() == list(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_noise_of_an_upload(name: str) -> None:
    """CK-3.4"""
    theirs = second.noise(NOISE_KEYS[name], CHUNKS)
    assert theirs == NoiseStream(NOISE_KEYS[name]).next(CHUNKS).tolist()
    for polynomial, told in zip(theirs, FILE["made_of"]["noise"][name], strict=True):
        assert polynomial[:16] == told["first"]
        assert sha256(struct.pack(f"<{DEGREE}q", *polynomial)) == told["sha256"]


@pytest.mark.parametrize("power", [1, 17, 4095])
def test_products_with_a_power(power: int) -> None:
    """CK-1.1: -X^power turns a polynomial round, and X^N is -1, in both implementations."""
    common = second.common_polynomials(second.seed_of(FILE["binding"]), BATCH)
    factor = [-1 if i == power else 0 for i in range(DEGREE)]
    expected = [a[-power:] + [second.Q - c for c in a[:-power]] for a in common]
    assert [second.product(a, factor) for a in common] == expected
    ours = Products(np.array(factor), scratch()).of(np.array(common, np.uint64))
    assert ours.tolist() == expected


def test_the_known_product() -> None:
    """CK-3.5: what a site compares before it uses SEAL's products is what they should be."""
    items = ["fedbcs-secure public stream", 1, 0, "ckks known product"]
    count = BATCH * DEGREE
    stream = keystream(hashlib.sha256(fields(items)).digest(), 4 * (2 * count + DEGREE))
    words = struct.unpack(f"<{2 * count + DEGREE}I", stream)
    small = [word % 3 - 1 for word in words[2 * count :]]
    numbers = [(words[i] * 2**32 + words[count + i]) % second.Q for i in range(count)]
    products = (second.product(numbers[at : at + DEGREE], small) for at in range(0, count, DEGREE))
    assert hashlib.sha256(b"".join(map(eights, products))).digest() == _KNOWN_PRODUCT


# A sum -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_chunks(name: str) -> None:
    """CK-2.2 to CK-2.4"""
    flags = [int(name == other) for other in NAMES]
    theirs = second.chunks(vector(name), flags, name, TOLD.params, TOLD.tags)
    told = FILE["sites"][name]
    assert len(theirs) == CHUNKS
    assert theirs[0][: len(told["starts"])] == told["starts"]
    assert [chunk[TOLD.params.payload :] for chunk in theirs] == told["limbs"]
    assert sha256(b"".join(struct.pack("<8192I", *chunk) for chunk in theirs)) == told["chunks"]
    assert known_ckks.chunks(name).tolist() == theirs


@pytest.mark.parametrize("name", INSIDE)
def test_ciphertexts(name: str) -> None:
    """CK-3.1, CK-3.6"""
    theirs = ciphertexts(name)
    assert known_ckks.ciphertexts(name) == theirs
    told = SUM["ciphertexts"][name]
    words = [second.unpack_words(piece) for piece in second.pieces(theirs)]
    assert len(words) == len(told) == CHUNKS
    assert all(map(is_told, words, told))


def test_the_aggregate() -> None:
    """CK-3.5, CK-4.2: it opens to the sum of the chunks, and to the sum of the noise."""
    words = [second.unpack_words(piece) for piece in second.pieces(aggregate())]
    assert all(map(is_told, words, SUM["aggregated"]))
    assert second.aggregate_name(aggregate()).hex() == SUM["aggregate"]
    salts = {place: SALTS[NAMES[place]] for place in PLACES}
    theirs = second.opened_chunks(aggregate(), salts, TOLD)
    errors = [second.noise(NOISE_KEYS[name], CHUNKS) for name in INSIDE]
    for chunk, *each in zip(theirs, *errors, strict=True):
        assert [rest for _, rest in chunk] == [sum(column) for column in zip(*each, strict=True)]
    secrets = [upload_secret(RAW, EPOCH, BINDING, name, SALTS[name]) for name in INSIDE]
    cipher = Decryptor(BINDING, secrets, scratch())
    residues = np.array(words, np.uint64)
    plain = np.concatenate([cipher.decrypt(residues[:BATCH]), cipher.decrypt(residues[BATCH:])])
    whole = [[second.rounded(c, TOLD.params)[0] for c in chunk] for chunk in plain.tolist()]
    assert whole == [[a for a, _ in chunk] for chunk in theirs]


def test_frames_by_the_combiner() -> None:
    """CK-3.8, CK-4.2 to CK-4.5: the combiner writes the same, byte for byte."""
    told, digest = SUM["frames"], second.aggregate_name(aggregate())
    assert key_name(RAW).hex() == SECRET.key_id.hex() == FILE["key_name"]
    combiner = CkksCombiner(SETTING, identity=BOSS)
    for name in INSIDE:
        body = TOLD.upload(SALTS[name], ciphertexts(name))
        upload = from_site(name, Kind.ENCRYPTED, 0, body)
        assert sha256(upload) == told["encrypted"][name]
        combiner.receive(upload)
    combiner.close()
    body = second.announcement({place: SALTS[NAMES[place]] for place in PLACES}, digest, len(NAMES))
    announced = from_combiner(Kind.AGGREGATE, 0, body)
    assert announced.hex() == told["aggregate"]
    assert combiner.requests == dict.fromkeys(INSIDE, announced)
    assert TOLD.transcript(body).hex() == SUM["transcript"]
    signed = {}
    for place, name in zip(PLACES, INSIDE, strict=True):
        answer = from_site(name, Kind.CONSISTENCY, 1, TOLD.transcript(body))
        assert answer.hex() == told["consistency"][name]
        signed[place] = answer[-64:]
        combiner.receive(answer)
    combiner.close()
    agreed = second.agreement(key_name(RAW), body, signed, len(NAMES))
    last = from_combiner(Kind.SUM, 1, agreed + struct.pack(">I", CHUNKS) + aggregate())
    assert combiner.sum_frame() == last
    assert sha256(last) == told["sum"]


def test_the_whole_sum_by_the_package() -> None:
    """Sites with the same salts and noise write these frames, byte for byte, and read the total."""
    told, sessions = SUM["frames"], {name: session_of(name) for name in INSIDE}
    combiner = CkksCombiner(SETTING, identity=BOSS)
    for name, session in sessions.items():
        # CK-3.3, CK-3.4: all that a site draws for an upload.
        drawn = mock.Mock(side_effect=[SALTS[name], NOISE_KEYS[name]])
        with mock.patch.object(site.secrets, "token_bytes", drawn):
            frame = session.encrypt(np.array(vector(name), np.uint32))
        assert drawn.call_args_list == [mock.call(32)] * 2
        assert sha256(frame) == told["encrypted"][name]
        combiner.receive(frame)
    combiner.close()
    for name, session in sessions.items():
        answer = session.agree(combiner.requests[name])
        assert answer.hex() == told["consistency"][name]
        combiner.receive(answer)
    combiner.close()
    for name in NAMES:
        last = combiner.sum_frame()
        outcome = open_sum(last, SETTING, seen={}, keys=keys_of(name), scratch=scratch())
        assert outcome.survivors == tuple(INSIDE)
        assert outcome.transcript.hex() == SUM["transcript"]
        assert_total(outcome.total.tolist())


def assert_total(total: list[int]) -> None:
    told = SUM["total"]
    assert total[:8] == told["first"]
    assert total[-8:] == told["last"]
    assert sha256(struct.pack(f"<{len(total)}I", *total)) == told["sha256"]
    assert total == [sum(column) for column in zip(*map(vector, INSIDE), strict=True)]


def test_the_total_by_the_second_implementation() -> None:
    """CK-5"""
    (told,) = (lie for lie in FILE["lies"] if lie["what"] == "the sum")
    assert not told["ops"]
    assert not told["tail"]
    assert_total(second.read_sum(bytes.fromhex(told["head"]) + aggregate(), TOLD))
