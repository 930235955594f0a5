from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import BadKey, MalformedFrame
from fedbcs_protocols.exchange import KEY_BYTES, agree, check_key, public_bytes

PRIME = 2**255 - 19
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
# RFC 7748, section 7: also the two points of order eight, by their bytes.
LOW = [
    *(number.to_bytes(32, "little") for number in (0, 1, PRIME - 1)),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_is_taken(secret: bytes) -> None:
    private = X25519PrivateKey.from_private_bytes(secret)
    key = public_bytes(private)
    assert len(key) == KEY_BYTES
    check_key(key, "bern")
    # Both sides come to the same secret.
    mine, theirs = agree(PRIVATE, key, "bern"), agree(private, public_bytes(PRIVATE), "aachen")
    assert mine == theirs


def test_the_known_answer_of_rfc_7748() -> None:
    """Section 5.2, one iteration: scalar and base point are 9."""
    nine = bytes([9]) + bytes(31)
    private = X25519PrivateKey.from_private_bytes(nine)
    expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert agree(private, nine, "bern").hex() == public_bytes(private).hex() == expected


@pytest.mark.parametrize("key", LOW, ids=range(len(LOW)))
def test_a_key_of_low_order(key: bytes) -> None:
    """SA-2.5: refused where it comes in, and once more where it is used."""
    with pytest.raises(BadKey, match="low order") as caught:
        check_key(key, "bern")
    assert caught.value.sender == "bern"
    with pytest.raises(BadKey, match="low order") as caught:
        agree(PRIVATE, key, "bern")
    assert caught.value.sender == "bern"


@given(st.integers(PRIME, 2**256 - 1))
def test_a_second_spelling(number: int) -> None:
    """SA-1.4: whoever compares keys compares bytes."""
    with pytest.raises(MalformedFrame, match="canonical") as caught:
        check_key(number.to_bytes(32, "little"), "bern")
    assert caught.value.sender == "bern"


def test_the_edges() -> None:
    for number in (2, 3, PRIME - 2, PRIME - 3):
        check_key(number.to_bytes(32, "little"), "bern")
    for number in (PRIME, PRIME + 1, 2**255, 2**256 - 1):
        with pytest.raises(MalformedFrame):
            check_key(number.to_bytes(32, "little"), "bern")
