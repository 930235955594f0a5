from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protected_sum import Cast, make_cast, refusal

from fedbcs_protocols.errors import (
    BadKey,
    BadKeyList,
    BadSignature,
    MalformedFrame,
    PeerError,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.keytable import (
    KeyTable,
    check_distinct,
    open_advertise,
    read_key_list,
)
from fedbcs_protocols.secagg.messages import Advertise, KeyList, key_list_digest
from fedbcs_protocols.wire import Frame, Kind, decode, seal

CAST = make_cast(5)
SPARSE = make_cast(40)


def _key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def _advert(place: int, drawn: frozenset[int] = frozenset()) -> Advertise:
    return Advertise(_key(1000 + place), _key(2000 + place), bytes(32), drawn)


def _frame(
    place: int,
    cast: Cast = CAST,
    *,
    advert: Advertise | None = None,
    signer: Identity | None = None,
    **changes: Any,
) -> bytes:
    name = f"site{place}"
    body = (advert or _advert(place)).encode(cast.terms.sites)
    frame = replace(Frame(Kind.ADVERTISE, cast.binding, name, 0, body), **changes)
    return seal(frame, signer or cast.sites[name])


FRAMES = tuple(_frame(place) for place in range(5))


def _read(frames: tuple[bytes | None, ...], me: int = 0) -> KeyTable:
    return read_key_list(KeyList(frames).encode(), CAST.setting, f"site{me}", FRAMES[me])


def test_a_list_with_absent_sites() -> None:
    frames = (FRAMES[0], None, *FRAMES[2:])
    table = _read(frames)
    assert table.present == {0, 2, 3, 4}
    assert table.adverts == {place: _advert(place) for place in (0, 2, 3, 4)}
    assert table.digest == key_list_digest(KeyList(frames).encode())
    assert table.holders(2) == table.owners(2) == {0, 2, 3, 4}
    assert table.recipients(2) == (0, 3, 4)
    assert table.neighbours(2) == {0, 3, 4}


@st.composite
def _sparse_tables(draw: Callable[..., Any]) -> KeyTable:
    sites = draw(st.integers(4, 12))
    size = draw(st.integers(1, sites - 2))
    present = draw(st.frozensets(st.integers(0, sites - 1), min_size=1))
    adverts = {}
    for place in present:
        others = st.sampled_from([other for other in range(sites) if other != place])
        drawn = draw(st.frozensets(others, min_size=size, max_size=size))
        adverts[place] = _advert(place, drawn)
    return KeyTable(adverts, Neighbourhood(size, 1, complete=False), bytes(32))


@given(_sparse_tables())
def test_relations_in_a_sparse_graph(table: KeyTable) -> None:
    for one in table.present:
        drawn = table.adverts[one].drawn
        assert table.holders(one) == drawn & table.present
        assert table.recipients(one) == tuple(sorted(table.holders(one)))
        assert one not in table.holders(one) | table.owners(one) | table.neighbours(one)
        assert table.neighbours(one) == table.holders(one) | table.owners(one)
        for two in table.present:
            assert (two in table.holders(one)) == (one in table.owners(two))
            assert (two in table.neighbours(one)) == (one in table.neighbours(two))


def test_the_own_frame_is_the_one_that_was_sent() -> None:
    again = _frame(0, advert=replace(_advert(0), commitment=b"\1" * 32))
    for own in (None, again, FRAMES[1]):
        with pytest.raises(BadKeyList, match="own frame was replaced or left out") as caught:
            _read((own, *FRAMES[1:]))
        assert caught.value.sender == "@combiner"


def test_too_short_a_list() -> None:
    assert CAST.terms.threshold == 4
    _read((*FRAMES[:4], None))
    with pytest.raises(BadKeyList, match="keys of 3 sites, the threshold is 4") as caught:
        _read((*FRAMES[:3], None, None))
    assert caught.value.sender == "@combiner"


@pytest.mark.parametrize(
    ("inner", "error", "blamed"),
    [
        # SA-2.2: only its own site's genuine frame for this very sum.
        (_frame(1, signer=CAST.combiner), BadSignature, "site1"),
        (_frame(1, signer=CAST.sites["site2"]), BadSignature, "site1"),
        (_frame(1, binding=CAST.changed(attempt=1).binding), WrongBinding, "site1"),
        (_frame(1, binding=CAST.changed(round=2).binding), WrongBinding, "site1"),
        (_frame(1, binding=CAST.changed(phase=2).binding), WrongBinding, "site1"),
        (_frame(1, binding=CAST.changed(state_digest=bytes(32)).binding), WrongBinding, "site1"),
        (_frame(1, sequence=1), WrongBinding, "site1"),
        (_frame(1, kind=Kind.UNMASK), UnexpectedFrame, "site1"),
        (_frame(1, sender="@combiner", signer=CAST.combiner), UnknownSender, "@combiner"),
        (_frame(1, sender="eve", signer=CAST.combiner), UnknownSender, "eve"),
        (_frame(1, body=_advert(1).encode(5)[:-1]), MalformedFrame, "site1"),
        (FRAMES[1] + b"\0", MalformedFrame, None),
        (FRAMES[1][:-1], MalformedFrame, None),
        (FRAMES[2], BadKeyList, "@combiner"),
        # SA-2.4
        (_frame(1, advert=replace(_advert(1), mask_key=_key(2002))), BadKey, "site2"),
        (_frame(1, advert=replace(_advert(1), share_key=_key(1000))), BadKey, "site1"),
        (_frame(1, advert=replace(_advert(1), share_key=_key(1001))), BadKey, "site1"),
    ],
)
def test_what_a_key_list_must_not_hold(
    inner: bytes, error: type[PeerError], blamed: str | None
) -> None:
    with pytest.raises(error) as caught:
        _read((FRAMES[0], inner, *FRAMES[2:]))
    assert type(caught.value) is error
    if blamed is not None:
        assert caught.value.sender == blamed


def test_two_sites_in_each_others_place() -> None:
    with pytest.raises(BadKeyList, match="another site's"):
        _read((FRAMES[0], FRAMES[2], FRAMES[1], *FRAMES[3:]))


def test_a_list_for_another_number_of_sites() -> None:
    for frames in (FRAMES[:4], (*FRAMES, None)):
        with pytest.raises(MalformedFrame, match="not one for 5 sites"):
            _read(frames)


def test_check_distinct_names_the_later_site() -> None:
    adverts = {place: _advert(place) for place in range(5)}
    check_distinct(adverts, CAST.setting)
    adverts[3] = replace(adverts[3], share_key=adverts[1].mask_key)
    error = refusal(lambda: check_distinct(adverts, CAST.setting))
    assert isinstance(error, BadKey)
    assert error.sender == "site3"


def test_a_draw_in_a_frame() -> None:
    size = SPARSE.terms.graph.size
    drawn = frozenset(range(1, size + 1))
    frame, advert = open_advertise(_frame(0, SPARSE, advert=_advert(0, drawn)), SPARSE.setting)
    assert (frame.sender, advert.drawn) == ("site0", drawn)
    for place, bad, what in (
        (1, drawn, "drew itself"),
        (0, drawn - {1}, f"a draw of {size - 1} sites, not {size}"),
        (0, drawn | {39}, f"a draw of {size + 1} sites, not {size}"),
        (0, frozenset(), "96 bytes, not 101"),
    ):
        data = _frame(place, SPARSE, advert=_advert(place, bad))
        with pytest.raises(MalformedFrame, match=what) as caught:
            open_advertise(data, SPARSE.setting)
        assert caught.value.sender == f"site{place}"


def test_a_key_list_is_read_into_little_memory() -> None:
    """WI-1.6: 32 KiB for each site of the roster, draws and neighbours included."""
    cast = make_cast(200, bits=24, count=1)
    combiner, sites = cast.combine(), cast.all_sites()
    for site in sites.values():
        combiner.receive(site.advertise())
    combiner.close()
    body = decode(combiner.requests["site0"], {Kind.KEY_LIST: 1 << 20}).body
    tracemalloc.start()
    table = read_key_list(body, cast.setting, "site0", sites["site0"]._advertised)
    assert table.neighbours(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * (32 << 10)
