"""Keys of low order: which they are, and that each is refused wherever it comes in (SA-2.5).

A secret agreed with such a key is zero for everybody, so that whoever knows this reads masks and
shares. Curve25519 has 8 times a prime many points, its twist 4 times a prime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from protected_sum import make_cast

from fedbcs_protocols.errors import BadKey, MalformedFrame, PeerError
from fedbcs_protocols.exchange import agree
from fedbcs_protocols.secagg import open_sum
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.masking import pair_mask
from fedbcs_protocols.secagg.messages import Advertise, KeyList
from fedbcs_protocols.secagg.sharing import ShareBox, deal
from fedbcs_protocols.wire import Kind, decode

P = 2**255 - 19
A = 486662
"""Of the curve v² = u³ + A·u² + u; with a factor before v² it is the twist."""
LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
)
PROPER = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
GRAPHS = [Neighbourhood(20, 11, complete=True), Neighbourhood(4, 3, complete=False)]
Start = Callable[..., Any]

every_point = pytest.mark.parametrize("point", LOW_ORDER)
either_key = pytest.mark.parametrize("at", [0, 32], ids=["mask_key", "share_key"])


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "little")


# Which they are ---------------------------------------------------------------------------------


def _roots(square: int) -> set[int]:
    """All numbers whose square this is, modulo P."""
    root = pow(square, (P + 3) // 8, P)
    candidates = (root, root * pow(2, (P - 1) // 4, P) % P)
    return {sign * r % P for r in candidates for sign in (1, -1) if (r * r - square) % P == 0}


def _halves(u: int) -> set[int]:
    """All coordinates of points, on curve or twist, whose double has the coordinate ``u``.

    Doubling x gives (x² - 1)² / 4x(x² + Ax + 1). Set equal to u and divided by x², with s = x + 1/x
    that is s² - 4us - 4(uA + 1) = 0, and x² - sx + 1 = 0: of either equation all roots are taken.
    """
    sums = {2 * (u + root) for root in _roots(u * u + u * A + 1)}
    return {(s + root) * pow(2, -1, P) % P for s in sums for root in _roots(s * s - 4)}


def test_there_are_no_others() -> None:
    """Every number is the coordinate of a point on the curve or on the twist. A scalar is 8 times a
    number below 2^252, which neither of the two primes divides: it takes those points to zero or
    infinity that three doublings take there.
    """
    # One doubling: where its denominator is zero. x² + Ax + 1 has no root.
    assert not _roots(A * A - 4)
    double, fourfold = {0}, _halves(0)
    eightfold = set().union(*map(_halves, fourfold))
    assert (len(fourfold), len(eightfold)) == (2, 2)
    assert double | fourfold | eightfold == set(LOW_ORDER)
    # There is no point of order 16, whose multiples by 8 would have order 2 and be seen as zero.
    assert not set().union(*map(_halves, eightfold))


def test_the_argument_above_doubles_rightly() -> None:
    for place in range(2, 40):
        doubled = (place**2 - 1) ** 2 * pow(4 * place * (place**2 + A * place + 1), -1, P) % P
        assert place in _halves(doubled)
        assert _ladder(2, place) == doubled
        assert all(_ladder(2, half) == doubled for half in _halves(doubled))


def _ladder(scalar: int, u: int) -> int:
    """The coordinate of ``scalar`` times a point with coordinate ``u``; zero for infinity.

    RFC 7748, section 5, without its clamping of the scalar.
    """
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = scalar >> t & 1
        if swap != bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = bit
        plus, minus = (x2 + z2) ** 2 % P, (x2 - z2) ** 2 % P
        da, cb = (x3 - z3) * (x2 + z2), (x3 + z3) * (x2 - z2)
        e = plus - minus
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = plus * minus % P, e * (plus + (A - 2) // 4 * e) % P
    if swap:
        x2, z2 = x3, z3
    return x2 * pow(z2, -1, P) % P if z2 else 0


def _clamped(secret: bytes) -> int:
    return int.from_bytes(secret, "little") & (2**255 - 8) | 2**254


@given(secret=st.binary(min_size=32, max_size=32), u=st.integers(2, P - 2))
def test_their_secret_is_zero_and_no_other_keys_is(secret: bytes, u: int) -> None:
    private = X25519PrivateKey.from_private_bytes(secret)
    for point in LOW_ORDER:
        assert _ladder(8, point) == _ladder(_clamped(secret), point) == 0
        # The library says so by an error.
        with pytest.raises(ValueError, match="computing shared key"):
            private.exchange(X25519PublicKey.from_public_bytes(_bytes(point)))
    # The ladder is X25519, and another number, on curve or twist, has a secret.
    if u not in LOW_ORDER:
        shared = private.exchange(X25519PublicKey.from_public_bytes(_bytes(u)))
        assert _bytes(_ladder(_clamped(secret), u)) == shared != bytes(32)


# Where they come in -----------------------------------------------------------------------------


def _advertise(key: bytes, at: int, graph: Neighbourhood) -> Advertise:
    body = bytearray(PROPER + PROPER + bytes(32) + (b"" if graph.complete else b"\x0f\0\0"))
    body[at : at + 32] = key
    return Advertise.decode(bytes(body), sender="mallory", graph=graph, sites=20)


@every_point
@either_key
@pytest.mark.parametrize("graph", GRAPHS)
def test_decoding_refuses_them(point: int, at: int, graph: Neighbourhood) -> None:
    with pytest.raises(BadKey, match="low order") as caught:
        _advertise(_bytes(point), at, graph)
    assert caught.value.sender == "mallory"
    for near in (point - 2, point + 2):
        if 0 < near < P and near not in LOW_ORDER:
            advert = _advertise(_bytes(near), at, graph)
            assert _bytes(near) == (advert.share_key if at else advert.mask_key)


@every_point
@either_key
def test_decoding_refuses_all_their_spellings(point: int, at: int) -> None:
    """X25519 ignores the highest bit and takes numbers from P on: all 32 bytes that mean it."""
    private = X25519PrivateKey.generate()
    spellings = [n + high for n in (point, point + P) if n < 2**255 for high in (0, 2**255)]
    assert len(spellings) == (4 if point < 19 else 2)
    for number in spellings:
        with pytest.raises(ValueError, match="computing shared key"):
            private.exchange(X25519PublicKey.from_public_bytes(_bytes(number)))
        with pytest.raises((BadKey, MalformedFrame)) as caught:
            _advertise(_bytes(number), at, GRAPHS[0])
        assert caught.value.sender == "mallory"


@either_key
def test_decoding_refuses_the_published_twelve(at: int) -> None:
    """https://cr.yp.to/ecdh.html, for X25519 in implementations that keep the highest bit."""
    published = [p + times * P for p in LOW_ORDER for times in range(3) if p + times * P < 2**256]
    assert len(published) == 12
    for number in published:
        with pytest.raises((BadKey, MalformedFrame)) as caught:
            _advertise(_bytes(number), at, GRAPHS[0])
        assert caught.value.sender == "mallory"


def _with_key(play: Any, name: str, point: int, at: int) -> bytes:
    """The site's own, genuinely signed frame with such a key in it."""
    frame = play.frame("advertise", name)
    body = bytearray(decode(frame, {Kind.ADVERTISE: 96}).body)
    body[at : at + 32] = _bytes(point)
    return play.resealed(frame, body=bytes(body))


@every_point
@either_key
def test_only_its_sender_drops_out(combiner_play: Start, point: int, at: int) -> None:
    play = combiner_play()
    before = play.look()
    with pytest.raises(BadKey, match="low order") as caught:
        play.combiner.receive(_with_key(play, "site3", point, at))
    assert caught.value.sender == "site3"
    assert play.look() == before
    play.stage("advertise", "site3")
    play.combiner.close()
    for stage in ("share", "masked_input", "consistency", "unmask"):
        play.stage(stage)
        play.combiner.close()
    outcome = open_sum(play.combiner.sum_frame(), play.cast.setting, {})
    assert outcome.survivors == ("site0", "site1", "site2", "site4")
    columns = zip(*(play.vectors[name].tolist() for name in outcome.survivors), strict=True)
    assert outcome.total.tolist() == [sum(column) for column in columns]


@every_point
@either_key
def test_a_site_refuses_a_list_with_one(
    site_play: Start, combiner_play: Start, point: int, at: int
) -> None:
    """The combiner and site3 collude: the one signs such a key, the other passes it on."""
    play = site_play("share")
    listed = KeyList.decode(play.opened.body, sender="c", graph=play.cast.terms.graph, sites=5)
    frames = list(listed.frames)
    frames[3] = _with_key(combiner_play(make_cast(5)), "site3", point, at)
    forged = play.forged(body=KeyList(tuple(frames)).encode())
    assert play.refuses(forged, BadKey, "low order") == "site3"


# Behind decoding --------------------------------------------------------------------------------


@every_point
def test_no_secret_is_agreed_with_them(backstage: Start, point: int) -> None:
    """Should one come past the decoding after all."""
    stage = backstage(make_cast(5))
    secret, advert = stage.ephemerals[0], stage.table.adverts[1]
    low = replace(advert, mask_key=_bytes(point), share_key=_bytes(point))
    table = KeyTable({**stage.table.adverts, 1: low}, stage.table.graph, bytes(32))
    box = ShareBox(secret.share_key, stage.setting, table, 0)
    calls: tuple[Callable[[], object], ...] = (
        lambda: agree(secret.mask_key, _bytes(point), "site1"),
        lambda: pair_mask(secret.mask_key, stage.setting, table, 0, 1),
        lambda: box.seal_all(deal(secret, range(5), 3)),
        lambda: box.open_all([1], [bytes(82)]),
    )
    for call in calls:
        with pytest.raises(PeerError, match="low order") as caught:
            call()
        assert type(caught.value) is BadKey
        assert caught.value.sender == "site1"
