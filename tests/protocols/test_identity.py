from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import BadSignature, LocalError
from fedbcs_protocols.identity import Identity, PublicIdentity

ONE = Identity.from_secret_bytes(bytes(range(32)))
TWO = Identity.from_secret_bytes(bytes(range(1, 33)))
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


@given(st.binary(max_size=100))
def test_a_signature_verifies(message: bytes) -> None:
    ONE.public.verify(ONE.sign(message), message)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_change_is_found(message: bytes, data: st.DataObject) -> None:
    signature = bytearray(ONE.sign(message))
    changed = bytearray(message)
    target = data.draw(st.sampled_from([signature, changed]))
    target[data.draw(st.integers(0, len(target) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadSignature) as caught:
        ONE.public.verify(bytes(signature), bytes(changed), signer="bern")
    assert caught.value.sender == "bern"


def test_another_identity_does_not_verify() -> None:
    with pytest.raises(BadSignature):
        TWO.public.verify(ONE.sign(b"x"), b"x")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_bad(length: int) -> None:
    with pytest.raises(BadSignature):
        ONE.public.verify(bytes(length), b"x")


def test_rfc_8032_vector_1() -> None:
    secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    identity = Identity.from_secret_bytes(bytes.fromhex(secret))
    assert identity.public.raw.hex() == public
    assert identity.sign(b"").hex() == signature


def test_equality_is_by_public_key() -> None:
    again = Identity.from_secret_bytes(ONE.secret_bytes())
    assert again == ONE
    assert hash(again) == hash(ONE)
    assert ONE != TWO
    assert ONE.public != ONE
    assert PublicIdentity(ONE.public.raw) == ONE.public
    assert Identity.generate() != Identity.generate()


def test_the_secret_shows_nowhere() -> None:
    secret = ONE.secret_bytes().hex()
    assert secret not in repr(ONE) + str(ONE) + repr(vars(ONE.public))
    assert "redacted" in repr(ONE)
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(LocalError, match="not pickled"):
            leak(ONE)


def test_fingerprint_is_for_reading_aloud() -> None:
    groups = ONE.public.fingerprint.split(" ")
    assert [len(group) for group in groups] == [4] * 16
    assert int("".join(groups), 16) > 0
    assert ONE.public.fingerprint != TWO.public.fingerprint
    assert repr(ONE.public) == f"PublicIdentity({' '.join(groups[:4])} ...)"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_lengths(length: int) -> None:
    with pytest.raises(LocalError):
        PublicIdentity(bytes(length))
    with pytest.raises(LocalError):
        Identity.from_secret_bytes(bytes(length))


def _add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = one, two
    t = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P,
    )


def _any_x(y: int) -> int | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * pow(2, (P - 1) // 4, P) % P
    return root if root * root % P == square else None


def _small_order_encodings() -> set[bytes]:
    """All eight points of small order, found by multiplying points by the large prime order."""
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[tuple[int, int]] = set()
    y = 2
    while len(found) < 8:
        x = _any_x(y)
        y += 1
        if x is None:
            continue
        result, power = (0, 1), (x, y - 1)
        for bit in range(order.bit_length()):
            if order >> bit & 1:
                result = _add(result, power)
            power = _add(power, power)
        found |= {result, (-result[0] % P, result[1])}
        found |= {_add(one, two) for one in found for two in found}
    return {(y | (x & 1) << 255).to_bytes(32, "little") for x, y in found}


def test_points_of_small_order_are_refused() -> None:
    encodings = _small_order_encodings()
    assert len(encodings) == 8
    for raw in encodings:
        with pytest.raises(LocalError, match="usable"):
            PublicIdentity(raw)


def test_non_canonical_points_are_refused() -> None:
    for y in (P, P + 1, 2**255 - 1):
        with pytest.raises(LocalError, match="usable"):
            PublicIdentity(y.to_bytes(32, "little"))
