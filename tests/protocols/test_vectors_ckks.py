"""Known answers of the encrypted sum, by the package and by the second implementation.

The second implementation decrypts with Python's integers and a number-theoretic transform of its
own, and reads slots by a Fourier transform of its own: nothing of SEAL's is in it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import known_ckks
import numpy as np
import pytest
import second_ckks as second
from ckks_world import scratch
from known_answers import load
from known_ckks import NAMES, SETTING, edited
from second_tags import Tags

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks import open_sum
from fedbcs_protocols.ckks.cipher import SUM_BYTES, pack_words, unpack_words
from fedbcs_protocols.ckks.messages import SUM_SEQUENCE
from fedbcs_protocols.ckks.packing import pack, unpack
from fedbcs_protocols.ckks.params import DEGREE, parameter_set
from fedbcs_protocols.errors import LocalError, ProtocolError, SumOutOfRange
from fedbcs_protocols.group import Group, KeyRing, MemoryKeys, SiteKeys
from fedbcs_protocols.wire import Frame, Kind, seal

FILE = load("ckks.json")
KEYS = {name: identity.public.raw.hex() for name, identity in known_ckks.IDENTITIES.items()}
TOLD = second.Sum(
    binding=FILE["binding"],
    names=NAMES,
    keys=KEYS,
    threshold=FILE["threshold"],
    params=second.Parameters(len(NAMES), FILE["bits"]),
    count=FILE["count"],
    secret=bytes.fromhex(FILE["secret"]),
    epoch=FILE["epoch"],
    key_name=bytes.fromhex(FILE["key_name"]),
    ternary=["0+-".index(c) if c != "-" else -1 for c in FILE["key"]],
)
TRUE = known_ckks._added(*FILE["sum"]["inside"])


def ended(call: Callable[[], object]) -> str:
    try:
        call()
    except second.Refusal as refusal:
        return str(refusal)
    except ProtocolError as error:
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize(
    "told", FILE["parameter_sets"], ids=lambda told: f"{told['sites']}x{told['bits']}"
)
def test_parameter_sets(told: dict[str, Any]) -> None:
    """CK-1"""
    params = second.Parameters(told["sites"], told["bits"])
    if told["expect"] == "LocalError":
        assert params.scale == 0
        with pytest.raises(LocalError):
            parameter_set(told["sites"], told["bits"])
        return
    ours = parameter_set(told["sites"], told["bits"])
    assert params.count == ours.fields == told["fields"]
    assert params.scale == ours.scale == told["scale"]
    assert params.payload == ours.payload == told["payload"]
    assert params.name == ours.digest == bytes.fromhex(told["name"])


@pytest.mark.parametrize("told", FILE["packing"], ids=lambda told: f"{told['bits']} bits")
def test_packing(told: dict[str, Any]) -> None:
    """CK-2.1, CK-5.3"""
    params = second.Parameters(told["sites"], told["bits"])
    ours, places = parameter_set(told["sites"], told["bits"]), len(told["values"])
    values = np.zeros((params.count, DEGREE), np.uint32)
    values[:, :places] = np.array(told["values"], np.uint32).T
    flat = values.reshape(-1)
    assert second.packed(flat.tolist(), params)[:places] == told["components"]
    assert pack(flat, ours).view(np.float64)[:places].tolist() == told["components"]
    for sums in told["sums"]:
        whole = sums["components"] + [0] * (DEGREE - len(sums["components"]))
        slots = np.array(whole, np.float64).view(np.complex128)
        if sums["expect"] == "SumOutOfRange":
            assert ended(lambda w=whole, a=sums["added"]: second.unpacked(w, params, a)) != "ok"
            with pytest.raises(SumOutOfRange):
                unpack(slots, ours, sums["added"])
            continue
        again = second.unpacked(whole, params, sums["added"])
        got = unpack(slots, ours, sums["added"])[0].tolist()
        assert again == got
        rows = np.array(got).reshape(params.count, -1)[:, : len(sums["values"])].T.tolist()
        assert rows == sums["values"]


@pytest.mark.parametrize("told", FILE["words"], ids=lambda told: told["what"])
def test_words(told: dict[str, Any]) -> None:
    """CK-3.2, CK-3.3"""
    words = [0] * DEGREE
    for place, word in told["words"].items():
        words[int(place)] = word
    data = second.pack_words(words)
    assert data == pack_words(np.array(words, np.uint64))
    assert ended(lambda: second.unpack_words(data)) == told["expect"]
    assert ended(lambda: unpack_words(data, "x")) == told["expect"]
    if told["expect"] == "ok":
        assert second.unpack_words(data) == unpack_words(data, "x").tolist() == words


def test_chunks() -> None:
    """CK-2.2 to CK-2.4"""
    tags = Tags(TOLD.secret, TOLD.epoch, TOLD.binding, 16, TOLD.params.payload)
    for place, name in enumerate(NAMES):
        (chunk,) = second.chunks(FILE["vectors"][name], place, NAMES, TOLD.params, tags)
        told = FILE["chunks"][name]
        assert chunk[: len(told["starts"])] == told["starts"]
        assert chunk[TOLD.params.payload :] == told["limbs"]
        assert chunk == known_ckks._chunk(name).tolist()


def test_agreement() -> None:
    """CK-4.2 to CK-4.4"""
    digest = second.aggregate_name(TRUE)
    assert digest.hex() == FILE["sum"]["aggregate"]
    places = [NAMES.index(name) for name in FILE["sum"]["inside"]]
    assert TOLD.transcript(places, digest).hex() == FILE["sum"]["transcript"]


def tail_of(told: dict[str, Any]) -> bytes:
    text = told["tail"]
    return bytes(int(text.split()[0])) if text.endswith("zeros") else bytes.fromhex(text)


def keys() -> SiteKeys:
    """Those of a site that holds the key."""
    keeper = MemoryKeys()
    keeper.write(KeyRing(SETTING.binding.study_digest, len(NAMES)).taking(known_ckks.SECRET))
    group = Group(SETTING.roster, SETTING.combiner, FILE["threshold"], 1)
    identity = known_ckks.IDENTITIES[NAMES[0]]
    study = SETTING.binding.study_digest
    return SiteKeys(group, identity=identity, name=NAMES[0], study_digest=study, keeper=keeper)


def ours(body: bytes) -> list[int]:
    frame = Frame(Kind.SUM, SETTING.binding, COMBINER, SUM_SEQUENCE, body)
    data = seal(frame, known_ckks.BOSS)
    return open_sum(data, SETTING, seen={}, keys=keys(), scratch=scratch()).total.tolist()


@pytest.mark.parametrize("told", FILE["lies"], ids=lambda told: told["what"])
def test_sums_told(told: dict[str, Any]) -> None:
    """CK-4.5, CK-5"""
    body = bytes.fromhex(told["head"]) + edited(TRUE, told["ops"]) + tail_of(told)
    if told["what"] == "a byte too few":
        assert len(body) < len(bytes.fromhex(FILE["lies"][0]["head"])) + SUM_BYTES
    assert ended(lambda: second.read_sum(body, TOLD)) == told["expect"]
    assert ended(lambda: ours(body)) == told["expect"]
    if told["expect"] == "ok":
        assert second.read_sum(body, TOLD) == ours(body) == FILE["sum"]["total"]


def test_a_site_in_anothers_field() -> None:
    """CK-5.5: it has the key, so its tags fit."""
    liar = FILE["liar"]
    body = bytes.fromhex(liar["head"]) + known_ckks._added(*liar["of"])
    assert ended(lambda: second.read_sum(body, TOLD)) == "BadMembers"
    assert ended(lambda: ours(body)) == "BadMembers"


def test_the_stored_ciphertexts() -> None:
    assert {len(base64.b64decode(text)) for text in FILE["ciphertexts"].values()} == {30784}
    lies = [told["expect"] for told in FILE["lies"]]
    assert {"BadTag", "BadNoise", "SumOutOfRange", "BadCiphertext", "Inconsistent"} <= set(lies)
