from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ckks_world import ANY, World
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.ckks.messages import (
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    decode_sum,
    encode_sum,
    sum_limit,
    transcript,
)
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES
from fedbcs_protocols.errors import BadSiteList, Inconsistent, MalformedFrame
from fedbcs_protocols.wire import decode

WORLD = World(count=9000)
SETTING = WORLD.setting
sets = st.frozensets(st.integers(0, 3), min_size=1)
salts = st.dictionaries(st.integers(0, 3), st.binary(min_size=32, max_size=32), min_size=1)
digests = st.binary(min_size=32, max_size=32)


def malformed(call: Callable[[], object]) -> None:
    with pytest.raises(MalformedFrame) as caught:
        call()
    assert caught.value.sender == "mallory"


def upload() -> bytes:
    return bytes(decode(WORLD.uploads["site0"], ANY).body)


def read(body: bytes) -> Encrypted:
    return Encrypted.decode(body, sender="mallory", setting=SETTING)


def test_an_upload() -> None:
    """CK-3.8"""
    body = upload()
    assert len(body) == Encrypted.length(SETTING) == 100 + 2 * 30720
    assert body[:64] == SETTING.key_id + SETTING.params.digest
    assert body[96:100] == (2).to_bytes(4, "big")
    found = read(body)
    assert found.salt == body[64:96] != bytes(32)
    pieces = [bytes(piece) for piece in found.ciphertexts()]
    assert b"".join((body[:100], *pieces)) == body
    assert len(pieces) == 2


def test_an_upload_of_another_length() -> None:
    body = upload()
    for wrong in (b"", body[:99], body[:100], body[:-1], body + b"\0", body + body[100:]):
        malformed(lambda wrong=wrong: read(wrong))


@pytest.mark.parametrize(("at", "what"), [(0, "key"), (31, "key"), (32, "param"), (99, "param")])
def test_an_upload_under_something_else(at: int, what: str) -> None:
    """CK-3.9"""
    body = bytearray(upload())
    body[at] ^= 1
    with pytest.raises(Inconsistent, match=what):
        read(bytes(body))


@given(salts, digests)
def test_an_announcement(salts: dict[int, bytes], digest: bytes) -> None:
    """CK-4.3"""
    announced = Announced(salts, digest)
    body = announced.encode(4)
    assert announced.members == frozenset(salts)
    assert len(body) == 33 + 32 * len(salts) <= Announced.limit(4) == 33 + 4 * 32
    assert body[1:33] == digest
    assert body[33:] == b"".join(salt for _, salt in sorted(salts.items()))
    assert Announced.decode(body, sender="mallory", sites=4) == announced
    for wrong in (body[:-1], body + b"\0", b"", body[:-32], body + bytes(32)):
        malformed(lambda wrong=wrong: Announced.decode(wrong, sender="mallory", sites=4))
    malformed(lambda: Announced.decode(b"\x10" + body[1:], sender="mallory", sites=4))


@given(salts, sets, digests, digests, st.data())
def test_an_agreement(
    salts: dict[int, bytes], signers: frozenset[int], key: bytes, digest: bytes, data: st.DataObject
) -> None:
    signature = st.binary(min_size=64, max_size=64)
    signatures = {place: data.draw(signature) for place in sorted(signers)}
    agreement = Agreement(key, Announced(salts, digest), signatures)
    body = agreement.encode(4)
    assert len(body) <= Agreement.limit(4)
    tail = b"what follows"
    assert Agreement.decode_from(body + tail, sender="mallory", sites=4) == (agreement, len(body))
    for cut in (0, 31, 32, 64, 65, len(body) - 1):
        malformed(lambda cut=cut: Agreement.decode_from(body[:cut], sender="mallory", sites=4))


def agreed(names: tuple[str, ...], signers: tuple[str, ...] | None = None) -> Agreement:
    frame = decode(WORLD.forged([bytes(POLYNOMIAL_BYTES)] * 2, names, signers), ANY)
    return decode_sum(frame.body, sender="x", setting=SETTING)[0]


def test_who_must_have_signed() -> None:
    """CK-4.4"""
    names = WORLD.names
    whole = agreed(names)
    assert whole.check(SETTING) == transcript(SETTING, whole.announced)
    assert agreed(names, names[:3]).check(SETTING) == whole.check(SETTING)
    with pytest.raises(BadSiteList, match="2 signers for 4 members, the threshold is 3"):
        agreed(names, names[:2]).check(SETTING)
    with pytest.raises(BadSiteList, match="4 signers for 3 members"):
        agreed(names[:3], names).check(SETTING)
    swapped = replace(
        whole, signatures={**whole.signatures, 0: whole.signatures[1], 1: whole.signatures[0]}
    )
    with pytest.raises(Inconsistent, match="site0: its signature is not on"):
        swapped.check(SETTING)


def test_what_a_signature_is_over() -> None:
    """CK-4.3: key, parameters, length, members, salts, digest and all of the binding."""
    salts = {place: bytes([place]) * 32 for place in range(4)}
    announced = Announced(salts, bytes(32))
    binding = SETTING.binding
    others = [
        replace(SETTING, key_id=b"k" * 32),
        replace(SETTING, count=8999),
        *(
            replace(SETTING, binding=replace(binding, **change))
            for change in (
                {"round": 1}, {"attempt": 1}, {"phase": 3},
                {"study_digest": bytes(32)}, {"state_digest": bytes(32)},
            )
        ),
    ]  # fmt: skip
    found = {transcript(each, announced) for each in (SETTING, *others)}
    fewer = {place: salts[place] for place in range(3)}
    found.add(transcript(SETTING, replace(announced, salts=fewer)))
    found.add(transcript(SETTING, replace(announced, salts=salts | {3: bytes(32)})))
    found.add(transcript(SETTING, replace(announced, digest=b"d" * 32)))
    assert len(found) == len(others) + 4


def test_a_sum() -> None:
    """CK-4.5"""
    agreement = agreed(WORLD.names)
    ciphertexts = bytes(range(256)) * (2 * POLYNOMIAL_BYTES // 256)
    body = encode_sum(agreement, ciphertexts, SETTING)
    assert len(body) == sum_limit(SETTING)
    got, view = decode_sum(body, sender="mallory", setting=SETTING)
    assert (got, bytes(view)) == (agreement, ciphertexts)
    end = len(body) - len(ciphertexts)
    more = body[: end - 4] + (3).to_bytes(4, "big") + ciphertexts
    for wrong in (b"", body[:200], body[:-1], body + b"\0", more):
        malformed(lambda wrong=wrong: decode_sum(wrong, sender="mallory", setting=SETTING))


def test_a_digest_is_over_every_byte() -> None:
    data = bytearray(1000)
    first = aggregate_digest(data)
    for at in (0, 500, 999):
        data[at] ^= 1
        assert aggregate_digest(data) != first
        data[at] ^= 1
    assert aggregate_digest(data + b"\0") != first == aggregate_digest(bytes(data))
