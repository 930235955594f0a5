"""What SEAL makes of seeds, and every frame of a sum, by the second implementation.

``test_vectors_ckks.py`` reads the sum that these frames end in, and the lies about it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

import known_ckks
import numpy as np
import pytest
import second_ckks as second
from known_answers import as_binding, load
from known_ckks import BOSS, COUNT, NAMES, PARAMS, SECRET, SETTING, THRESHOLD, File, edited
from second_frames import frame
from second_implementation import site_set
from second_tags import key_name

from fedbcs_protocols.ckks import CkksCombiner, open_sum
from fedbcs_protocols.ckks.cipher import SecretContext, pack_words
from fedbcs_protocols.ckks.messages import Encrypted
from fedbcs_protocols.ckks.packing import unpack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.tagging import chunks_of, tagger_of
from fedbcs_protocols.errors import PeerError, Refused
from fedbcs_protocols.group import Group, KeyRing, MemoryKeys, SiteKeys
from fedbcs_protocols.wire import Kind

FILE = load("ckks.json")
BINDING, EPOCH = as_binding(FILE["binding"]), FILE["epoch"]
RAW = bytes.fromhex(FILE["secret"])
TOLD, INSIDE = FILE["sum"], FILE["sum"]["inside"]
PLACES = [NAMES.index(name) for name in INSIDE]
CIPHERTEXTS = {name: base64.b64decode(text) for name, text in FILE["ciphertexts"].items()}
AGGREGATE = second.added(CIPHERTEXTS[name] for name in INSIDE)
BEFORE_DECRYPTION = {"MalformedFrame", "BadSiteList", "Inconsistent", "Refused"}


def our_context() -> SecretContext:
    return SecretContext(PARAMS, File(), RAW, BINDING.study_digest, EPOCH)


def test_the_key() -> None:
    """CK-4.1: a build of SEAL, or of its C++ library, that draws another key is found here."""
    assert key_name(RAW).hex() == SECRET.key_id.hex() == FILE["key_name"]
    expected = [{"+": 1, "0": 0, "-": -1}[letter] for letter in FILE["key"]]
    assert second.secret_key(RAW, BINDING.study_digest, EPOCH) == expected
    # CK-6.1: what (0, 2^40) decrypts to.
    context, zeros = our_context(), np.zeros(DEGREE, np.uint64)
    crafted = context.both(pack_words(zeros) + pack_words(zeros + np.uint64(1 << 40)), "x")
    theirs = second.components([value << 40 for value in expected], int(PARAMS.scale))
    ours = context.decrypt(crafted).view(np.float64)
    assert np.allclose(ours, theirs, rtol=0, atol=1e-3 * 2**40 / PARAMS.scale)


@pytest.mark.parametrize("name", INSIDE)
def test_a_ciphertext_opens_to_its_chunk(name: str) -> None:
    """CK-3.1: the seed is all that is needed of the second polynomial."""
    context, tagger = our_context(), tagger_of(SETTING, RAW, EPOCH)
    ciphertext = context.fresh(CIPHERTEXTS[name], name)
    assert context.sum_bytes(ciphertext) == second.added([CIPHERTEXTS[name]])
    (chunk,) = chunks_of(np.array(FILE["vectors"][name], np.uint32), SETTING, tagger, name)
    assert (unpack(context.decrypt(ciphertext), PARAMS, 1)[0] == chunk).all()


def from_site(name: str, kind: Kind, number: int, body: bytes) -> bytes:
    return frame(FILE["identity_secrets"][name], kind, FILE["binding"], name, number, body)


def from_combiner(kind: Kind, number: int, body: bytes) -> bytes:
    return frame(FILE["combiner_secret"], kind, FILE["binding"], "@combiner", number, body)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_frames() -> None:
    """CK-3.6, CK-4.2 to CK-4.5: the combiner writes the same, byte for byte."""
    told, digest = TOLD["frames"], second.aggregate_name(AGGREGATE)
    assert digest.hex() == TOLD["aggregate"]
    params = second.Parameters(len(NAMES), FILE["bits"])
    head = key_name(RAW) + params.name + struct.pack(">I", 1)
    assert head == Encrypted.head(SETTING)
    combiner = CkksCombiner(SETTING, identity=BOSS, scratch=File())
    for name in INSIDE:
        upload = from_site(name, Kind.ENCRYPTED, 0, head + CIPHERTEXTS[name])
        assert sha256(upload) == told["encrypted"][name]
        combiner.receive(upload)
    combiner.close()
    announced = from_combiner(Kind.AGGREGATE, 0, site_set(PLACES, len(NAMES)) + digest)
    assert announced.hex() == told["aggregate"]
    assert combiner.requests == dict.fromkeys(INSIDE, announced)
    signed = {}
    for place, name in zip(PLACES, INSIDE, strict=True):
        answer = from_site(name, Kind.CONSISTENCY, 1, bytes.fromhex(TOLD["transcript"]))
        assert answer.hex() == told["consistency"][name]
        signed[place] = answer[-64:]
        combiner.receive(answer)
    combiner.close()
    body = second.agreement(key_name(RAW), PLACES, digest, signed, len(NAMES))
    last = from_combiner(Kind.SUM, 1, body + struct.pack(">I", 1) + AGGREGATE)
    assert combiner.sum_frame() == last
    assert sha256(last) == told["sum"]


def kept_after(body: bytes) -> KeyRing:
    """What a site keeps when it was told that sum."""
    keeper = MemoryKeys()
    keeper.write(KeyRing(BINDING.study_digest, len(NAMES)).taking(SECRET))
    keys = SiteKeys(
        Group(SETTING.roster, SETTING.combiner, THRESHOLD, 1),
        identity=known_ckks.IDENTITIES["bern"],
        name="bern",
        study_digest=BINDING.study_digest,
        keeper=keeper,
    )
    try:
        total = open_sum(
            from_combiner(Kind.SUM, 1, body), SETTING, seen={}, keys=keys, scratch=File()
        ).total
        assert total.tolist() == TOLD["total"]
        assert total.size == COUNT
    except (PeerError, Refused):
        assert keys.ring.survivors == frozenset()
    return keys.ring


@pytest.mark.parametrize("case", FILE["lies"], ids=lambda case: case["what"])
def test_the_key_is_given_up_exactly_for_a_wrong_sum(case: dict[str, Any]) -> None:
    """CK-5.1, GK-6.2: not for what was never decrypted, since anybody could send that."""
    tail = case["tail"]
    end = bytes(int(tail.split()[0])) if tail.endswith("zeros") else bytes.fromhex(tail)
    ring = kept_after(bytes.fromhex(case["head"]) + edited(AGGREGATE, case["ops"]) + end)
    wrong = case["expect"] != "ok" and case["expect"] not in BEFORE_DECRYPTION
    assert (ring.burned, ring.refusals, ring.current is None) == (wrong, int(wrong), wrong)
    assert ring.opened == ((7, 2) if wrong or case["expect"] == "ok" else (0, 0))


def test_there_are_lies_of_every_kind() -> None:
    found = {case["expect"] for case in FILE["lies"]}
    assert found == BEFORE_DECRYPTION | {
        "ok", "BadCiphertext", "SumOutOfRange", "BadTag", "BadNoise",
    }  # fmt: skip
