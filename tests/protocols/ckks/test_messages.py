from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ckks_world import ANY, World
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.ckks.cipher import SUM_BYTES
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
from fedbcs_protocols.errors import BadSiteList, Inconsistent, MalformedFrame
from fedbcs_protocols.wire import decode

WORLD = World(count=9000)
SETTING = WORLD.setting
sets = st.frozensets(st.integers(0, 3), min_size=1)
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
    """CK-3.6"""
    body = upload()
    assert len(body) == Encrypted.length(SETTING) == 68 + 2 * 30784
    assert body[:68] == SETTING.key_id + SETTING.params.digest + (2).to_bytes(4, "big")
    pieces = [bytes(piece) for piece in read(body).ciphertexts()]
    assert b"".join((body[:68], *pieces)) == body
    assert len(pieces) == 2


def test_an_upload_of_another_length() -> None:
    body = upload()
    for wrong in (b"", body[:67], body[:68], body[:-1], body + b"\0", body + body[68:]):
        malformed(lambda wrong=wrong: read(wrong))


@pytest.mark.parametrize(("at", "what"), [(0, "key"), (31, "key"), (32, "param"), (67, "param")])
def test_an_upload_under_something_else(at: int, what: str) -> None:
    """CK-3.7"""
    body = bytearray(upload())
    body[at] ^= 1
    with pytest.raises(Inconsistent, match=what):
        read(bytes(body))


@given(sets, digests)
def test_an_announcement(members: frozenset[int], digest: bytes) -> None:
    body = Announced(members, digest).encode(4)
    assert len(body) == Announced.length(4) == 33
    assert Announced.decode(body, sender="mallory", sites=4) == Announced(members, digest)
    for wrong in (body[:-1], body + b"\0", b""):
        malformed(lambda wrong=wrong: Announced.decode(wrong, sender="mallory", sites=4))
    malformed(lambda: Announced.decode(b"\x10" + body[1:], sender="mallory", sites=4))


@given(sets, sets, digests, digests, st.data())
def test_an_agreement(
    members: frozenset[int], signers: frozenset[int], key: bytes, digest: bytes, data: st.DataObject
) -> None:
    signature = st.binary(min_size=64, max_size=64)
    signatures = {place: data.draw(signature) for place in sorted(signers)}
    agreement = Agreement(key, Announced(members, digest), signatures)
    body = agreement.encode(4)
    assert len(body) <= Agreement.limit(4)
    tail = b"what follows"
    assert Agreement.decode_from(body + tail, sender="mallory", sites=4) == (agreement, len(body))
    for cut in (0, 31, 32, 64, 65, len(body) - 1):
        malformed(lambda cut=cut: Agreement.decode_from(body[:cut], sender="mallory", sites=4))


def agreed(names: tuple[str, ...], signers: tuple[str, ...] | None = None) -> Agreement:
    frame = decode(WORLD.forged([bytes(SUM_BYTES)] * 2, names, signers), ANY)
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
    """CK-4.3: key, parameters, length, members, digest and all of the binding."""
    announced = Announced(frozenset(range(4)), bytes(32))
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
    found.add(transcript(SETTING, replace(announced, members=frozenset(range(3)))))
    found.add(transcript(SETTING, replace(announced, digest=b"d" * 32)))
    assert len(found) == len(others) + 3


def test_a_sum() -> None:
    """CK-4.5"""
    agreement = agreed(WORLD.names)
    ciphertexts = bytes(range(256)) * (2 * SUM_BYTES // 256)
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
