from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from fedbcs_protocols.errors import InconsistentShares, LocalError
from fedbcs_protocols.secagg import shamir
from fedbcs_protocols.secagg.shamir import PRIME, check_share, combine, split

FALSE_ALARM = 1e-6
HOLDER = st.integers(1, 2**16 - 1)
ELEMENT = st.integers(0, PRIME - 1)
SECRET = st.binary(min_size=32, max_size=32)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _share(value: int) -> bytes:
    return value.to_bytes(33, "big")


def _solve(points: Sequence[tuple[int, int]]) -> list[int]:
    """Coefficients, lowest first, of the one polynomial through ``points``.

    Gauss-Jordan on the Vandermonde matrix, inverses by Fermat: no formula of the module.
    """
    size = len(points)
    rows = [[pow(x, power, PRIME) for power in range(size)] + [y % PRIME] for x, y in points]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = pow(rows[column][column], PRIME - 2, PRIME)
        rows[column] = [value * scale % PRIME for value in rows[column]]
        for row in range(size):
            if row != column and rows[row][column]:
                factor = rows[row][column]
                pairs = zip(rows[row], rows[column], strict=True)
                rows[row] = [(value - factor * lead) % PRIME for value, lead in pairs]
    return [row[-1] for row in rows]


def _at(coefficients: Sequence[int], x: int) -> int:
    return sum(a * pow(x, power, PRIME) for power, a in enumerate(coefficients)) % PRIME


def _fixed(label: str) -> bytes:
    return hashlib.sha256(label.encode()).digest()


def test_the_modulus_is_prime() -> None:
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    # 64 random witnesses: a composite number passes with a chance of at most 2^-128.
    source = random.Random(1)
    for _ in range(64):
        power = pow(source.randrange(2, PRIME - 1), odd, PRIME)
        chain = [pow(power, 2**step, PRIME) for step in range(twos)]
        assert power == 1 or PRIME - 1 in chain
    assert PRIME > 2**256
    assert PRIME < 2 ** (8 * shamir.SHARE_BYTES)


@given(SECRET, st.lists(HOLDER, min_size=2, max_size=12, unique=True), st.data())
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, holders: list[int], data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(2, len(holders)))
    shares = dict(zip(holders, split(secret, threshold, holders), strict=True))
    chosen = data.draw(st.permutations(holders))[: data.draw(st.integers(threshold, len(holders)))]
    assert combine({x: shares[x] for x in chosen}, threshold) == secret


def test_every_subset_of_a_small_split() -> None:
    holders = (3, 1, 65535, 7, 20)
    for secret in (bytes(32), b"\xff" * 32, _fixed("secret")):
        shares = dict(zip(holders, split(secret, 3, holders), strict=True))
        for size in (3, 4, 5):
            for chosen in combinations(holders, size):
                assert combine({x: shares[x] for x in chosen}, 3) == secret


@given(SECRET, st.lists(ELEMENT, min_size=1, max_size=6), st.data())
def test_shares_are_those_of_a_second_implementation(
    secret: bytes, coefficients: list[int], data: st.DataObject
) -> None:
    holders = data.draw(st.lists(HOLDER, min_size=1, max_size=9, unique=True))
    shares = shamir._split_with(secret, coefficients, holders)
    expected = [_at([_number(secret), *coefficients], x) for x in holders]
    assert [_number(share) for share in shares] == expected
    assert all(len(share) == 33 for share in shares)


@given(st.lists(HOLDER, min_size=2, max_size=9, unique=True), st.data())
def test_arbitrary_shares_combine_as_in_a_second_implementation(
    holders: list[int], data: st.DataObject
) -> None:
    values = [data.draw(ELEMENT) for _ in holders]
    shares = {x: _share(y) for x, y in zip(holders, values, strict=True)}
    expected = _solve(list(zip(holders, values, strict=True)))[0]
    if expected < 2**256:
        assert combine(shares, len(shares)) == expected.to_bytes(32, "big")
    else:
        with pytest.raises(InconsistentShares):
            combine(shares, len(shares))


def test_known_answers() -> None:
    # By hand: 5 + 2x + 3x², then a line whose value at 1 wraps once.
    small = shamir._split_with(_share(5)[1:], [2, 3], [1, 2, 10])
    assert [_number(share) for share in small] == [10, 21, 325]
    wrapped = shamir._split_with(b"\xff" * 32, [PRIME - 1], [1, 2])
    assert [_number(share) for share in wrapped] == [2**256 - 2, 2**256 - 3]
    over = shamir._split_with(b"\xff" * 32, [298], [1, 2])
    assert [_number(share) for share in over] == [0, 298]


def test_a_large_split() -> None:
    holders = list(range(1, 151))
    secret = _fixed("large")
    shares = dict(zip(holders, split(secret, 100, holders), strict=True))
    assert combine(shares, 100) == secret
    assert combine({x: shares[x] for x in holders[50:]}, 100) == secret


def test_the_shares_of_lowest_x_are_taken() -> None:
    secret = _fixed("lowest")
    shares = dict(zip((9, 2, 5, 4), split(secret, 3, (9, 2, 5, 4)), strict=True))
    assert combine({**shares, 9: b"not read"}, 3) == secret
    with pytest.raises(InconsistentShares):
        combine({**shares, 5: b"not a share"}, 3)


def test_one_share_less_fits_every_secret_with_exactly_one_polynomial() -> None:
    """Given t-1 shares, each candidate secret has one polynomial: all are equally likely."""
    holders = (1, 2, 6, 9)
    true = _fixed("true")
    shares = split(true, 4, holders)
    candidates = [0, 1, 2**256 - 1, _number(true), *(_number(_fixed(str(i))) for i in range(20))]
    for seen in combinations(range(4), 3):
        for candidate in candidates:
            points = [(0, candidate), *((holders[i], _number(shares[i])) for i in seen)]
            # Four points and four coefficients: the solver finds one only if it is unique.
            polynomial = _solve(points)
            secret = candidate.to_bytes(32, "big")
            again = shamir._split_with(secret, polynomial[1:], holders)
            assert polynomial[0] == candidate
            assert [again[i] for i in seen] == [shares[i] for i in seen]
            missing = ({0, 1, 2, 3} - set(seen)).pop()
            assert (again[missing] == shares[missing]) == (secret == true)


def test_shares_below_the_threshold_are_exactly_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a field of 11, all polynomials listed: each pair of shares comes once from each secret."""
    monkeypatch.setattr(shamir, "PRIME", 11)
    for value in (0, 1, 10):
        secret = value.to_bytes(32, "big")
        every = [(a, b) for a in range(11) for b in range(11)]
        for pair in ((1, 2), (3, 10), (7, 5)):
            seen = {shamir._split_with(secret, coefficients, pair) for coefficients in every}
            assert len(seen) == 121


def test_low_bits_of_two_shares_do_not_depend_on_the_secret() -> None:
    """Two shares of a threshold of three: their low bits, 64 cells, chi-square at 10^-6 each."""
    counts = []
    for secret in (bytes(32), b"\xff" * 32):
        cells = [0] * 64
        for _ in range(6400):
            first, second, _third = split(secret, 3, (1, 2, 3))
            cells[8 * (first[-1] % 8) + second[-1] % 8] += 1
        assert chisquare(cells).pvalue > FALSE_ALARM
        counts.append(cells)
    assert chi2_contingency(counts).pvalue > FALSE_ALARM


def test_coefficients_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def randbelow(bound: int) -> int:
        asked.append(bound)
        return len(asked)

    monkeypatch.setattr(secrets, "randbelow", randbelow)
    shares = split(_share(5)[1:], 4, (1, 2, 3, 10))
    assert asked == [PRIME] * 3
    assert [_number(share) for share in shares] == [
        5 + x + 2 * x**2 + 3 * x**3 for x in (1, 2, 3, 10)
    ]


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), bytearray(32), "x" * 32])
def test_what_is_no_secret(secret: bytes) -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        split(secret, 2, (1, 2, 3))


@pytest.mark.parametrize("threshold", [-1, 0, 1, 4])
def test_what_is_no_threshold(threshold: int) -> None:
    with pytest.raises(LocalError, match="threshold"):
        split(bytes(32), threshold, (1, 2, 3))


@pytest.mark.parametrize(
    "holders", [(0, 1, 2), (-1, 1, 2), (1, 2, 2**16), (1, 2, 2), (PRIME, 1, 2)]
)
def test_what_are_no_holders(holders: tuple[int, ...]) -> None:
    with pytest.raises(LocalError, match="holder"):
        split(bytes(32), 2, holders)


@pytest.mark.parametrize("coefficient", [-1, PRIME])
def test_what_is_no_coefficient(coefficient: int) -> None:
    with pytest.raises(LocalError, match="coefficient"):
        shamir._split_with(bytes(32), [coefficient], [1, 2])


def test_too_few_shares_or_impossible_holders() -> None:
    share = _share(1)
    with pytest.raises(LocalError, match="3 shares are needed, there are 2"):
        combine({1: share, 2: share}, 3)
    for threshold in (1, 0, -1):
        with pytest.raises(LocalError, match="threshold"):
            combine({1: share, 2: share}, threshold)
    for x in (0, -1, 2**16, PRIME + 1):
        with pytest.raises(LocalError, match="holder"):
            combine({x: share, 2: share}, 2)


@pytest.mark.parametrize(
    "bad", [b"", bytes(32), bytes(34), _share(PRIME), _share(PRIME + 1), b"\xff" * 33]
)
def test_what_is_no_share(bad: bytes) -> None:
    with pytest.raises(InconsistentShares):
        check_share(bad)
    with pytest.raises(InconsistentShares):
        combine({1: _share(1), 2: bad}, 2)


@pytest.mark.parametrize("value", [0, 1, 2**256 - 1, 2**256, PRIME - 1])
def test_every_element_of_the_field_is_a_share(value: int) -> None:
    check_share(_share(value))


@pytest.mark.parametrize("value", [2**256, 2**256 + 1, PRIME - 1])
def test_a_result_that_is_no_secret(value: int) -> None:
    # The constant polynomial `value`: proper shares, no proper secret.
    with pytest.raises(InconsistentShares, match="no secret"):
        combine({1: _share(value), 2: _share(value)}, 2)
    assert combine({1: _share(2**256 - 1), 2: _share(2**256 - 1)}, 2) == b"\xff" * 32


def test_error_texts_hold_no_share_and_no_secret() -> None:
    marker = 0xDEADBEEF << 200
    secret = marker.to_bytes(32, "big")
    failures: list[Callable[[], object]] = [
        lambda: split(secret + b"x", 2, (1, 2)),
        lambda: split(secret, 3, (1, 2)),
        lambda: split(secret, 2, (1, 1)),
        lambda: shamir._split_with(secret, [PRIME + marker], (1, 2)),
        lambda: combine({1: _share(marker)}, 2),
        lambda: combine({0: _share(marker), 1: _share(marker)}, 2),
        lambda: combine({1: _share(marker) + b"x", 2: _share(marker)}, 2),
        lambda: combine({1: _share(PRIME + marker), 2: _share(marker)}, 2),
        lambda: combine({1: _share(2**256 + 5), 2: _share(2**256 + 5)}, 2),
    ]
    for fail in failures:
        with pytest.raises((LocalError, InconsistentShares)) as caught:
            fail()
        text = repr(caught.value) + str(caught.value)
        for form in ("deadbeef", "\\xde", str(marker), str(PRIME + marker), str(2**256 + 5)):
            assert form not in text
