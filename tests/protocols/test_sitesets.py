from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import LocalError, MalformedFrame
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes

rosters = st.integers(1, 1024)


@given(rosters, st.data())
def test_decode_is_the_inverse_of_encode(sites: int, data: st.DataObject) -> None:
    places = data.draw(st.frozensets(st.integers(0, sites - 1)))
    encoded = encode_set(places, sites)
    assert len(encoded) == set_bytes(sites) == (sites + 7) // 8
    assert decode_set(encoded, sites, sender="a") == places
    # SA-1.5, bit for bit.
    for place in range(sites):
        assert (encoded[place // 8] >> place % 8 & 1) == (place in places)


@given(st.integers(1, 40), st.binary(max_size=6))
def test_what_is_accepted_is_what_is_written(sites: int, data: bytes) -> None:
    try:
        places = decode_set(data, sites, sender="a")
    except MalformedFrame:
        assert len(data) != set_bytes(sites) or int.from_bytes(data, "little") >= 1 << sites
        return
    assert encode_set(places, sites) == data


@pytest.mark.parametrize("sites", [1, 7, 9, 1023])
def test_bits_beyond_the_roster_are_refused(sites: int) -> None:
    for extra in range(sites, 8 * set_bytes(sites)):
        data = (1 << extra).to_bytes(set_bytes(sites), "little")
        with pytest.raises(MalformedFrame):
            decode_set(data, sites, sender="a")


@pytest.mark.parametrize("place", [-1, 9, 1024])
def test_a_place_outside_the_roster(place: int) -> None:
    with pytest.raises(LocalError, match="outside a roster of 9"):
        encode_set([0, place], 9)


def test_order_and_repetition_do_not_matter() -> None:
    assert encode_set([3, 1, 8, 1], 9) == encode_set(iter({8, 1, 3}), 9) == b"\x0a\x01"
    assert encode_set((), 9) == b"\x00\x00"
    assert decode_set(memoryview(b"\x0a\x01"), 9, sender="a") == {1, 3, 8}
