"""Products of polynomials: SEAL's against Python's integers (CK-1.1, CK-3.5)."""

from __future__ import annotations

import copy
import hashlib
import pickle

import ckks_slowly as slowly
import numpy as np
import pytest
from ckks_world import SECRET, binding, scratch
from numpy.typing import NDArray

from fedbcs_protocols.ckks import check_build, products
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.products import BATCH, Products
from fedbcs_protocols.ckks.samples import CommonPolynomials, upload_secret
from fedbcs_protocols.errors import LocalError


def drawn(seed: int, count: int = BATCH) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, PRIME, (count, DEGREE), dtype=np.uint64)


def factor(kind: str) -> NDArray[np.int64]:
    """Small coefficients, as of a secret, or of a sum of up to 1024."""
    random, places = np.random.default_rng(9), np.arange(DEGREE)
    return {
        "ternary": random.integers(-1, 1, DEGREE, endpoint=True),
        "a sum of 128": random.integers(-128, 128, DEGREE, endpoint=True),
        "a sum of 1024": random.integers(-1024, 1024, DEGREE, endpoint=True),
        "the largest of 1024": np.full(DEGREE, 1024),
        "the least of 1024": np.full(DEGREE, -1024),
        "in turn": np.where(places % 2, 1024, -1024),
        "only the first and the last": np.where(places % (DEGREE - 1), 0, -1),
    }[kind]


def extreme(kind: str) -> NDArray[np.uint64]:
    """Polynomials of numbers at a border; a few by chance, so that no product has a pattern."""
    out = drawn(3)
    keep = np.random.default_rng(4).random(out.shape) < 0.01
    fill = {
        "below q": PRIME - 1,
        "zeros": 0,
        "half": PRIME // 2,
        "in turn": np.where(np.arange(DEGREE) % 2, PRIME - 1, 0).astype(np.uint64),
    }[kind]
    return np.where(keep, out, np.uint64(fill) if isinstance(fill, int) else fill)


FACTORS = ("ternary", "a sum of 128", "a sum of 1024", "the largest of 1024", "the least of 1024")
FACTORS += ("in turn", "only the first and the last")


def check(polynomials: NDArray[np.uint64], small: NDArray[np.int64], some: range) -> None:
    got = Products(small, scratch()).of(polynomials)
    assert got.dtype == np.uint64
    for at in some:
        expected = slowly.product(polynomials[at].tolist(), small.tolist())
        assert got[at].tolist() == expected


def test_the_slow_product_is_right() -> None:
    """By the definition, place by place: X^N is -1."""
    one = drawn(1)[0].tolist()
    other = [0] * DEGREE
    terms = {0: 3, 1: -1024, 2047: 1, 4095: -2}
    for place, value in terms.items():
        other[place] = value
    expected = [0] * DEGREE
    for i, a in enumerate(one):
        for place, value in terms.items():
            sign = 1 if i + place < DEGREE else -1
            at = (i + place) % DEGREE
            expected[at] = (expected[at] + sign * a * value) % PRIME
    assert slowly.product(one, other) == expected


@pytest.mark.parametrize("kind", FACTORS)
def test_random_polynomials(kind: str) -> None:
    """CK-1.1"""
    check(drawn(2), factor(kind), range(BATCH))


@pytest.mark.parametrize("kind", FACTORS[:3])
@pytest.mark.parametrize("fill", ["below q", "zeros", "half", "in turn"])
def test_extreme_polynomials(fill: str, kind: str) -> None:
    check(extreme(fill), factor(kind), range(2))


@pytest.mark.parametrize("place", [1, 3, 101, DEGREE - 1])
@pytest.mark.parametrize("value", [1, -1, 1024, -1024])
def test_a_power_of_x(place: int, value: int) -> None:
    """Coefficients move up, and come in again at the bottom with another sign."""
    small, polynomials = np.zeros(DEGREE, np.int64), drawn(5)
    small[place] = value
    got = Products(small, scratch()).of(polynomials)
    for before, after in zip(polynomials.tolist(), got.tolist(), strict=True):
        turned = [-number for number in before[-place:]] + before[:-place]
        assert after == [value * number % PRIME for number in turned]


def test_products_of_what_a_sum_is_made_of() -> None:
    """CK-3.5: with a secret, and with the sum of some; batch after batch."""
    common = CommonPolynomials(binding())
    each = [upload_secret(SECRET, 1, binding(), f"site{i}", bytes(32)) for i in range(3)]
    single = [Products(secret, scratch()) for secret in each]
    together = Products(np.sum(each, axis=0), scratch())
    for _ in range(2):
        polynomials = common.next(BATCH)
        apart = (p.of(polynomials)[1].tolist() for p in single)
        total = [sum(row) % PRIME for row in zip(*apart, strict=True)]
        got = together.of(polynomials)
        assert got[1].tolist() == total
        assert got[3].tolist() == slowly.product(
            polynomials[3].tolist(), np.sum(each, axis=0).tolist()
        )


def test_nothing_is_compressed() -> None:
    """Words look random, or so nearly that zstd stores them; 100 batches, and none is refused."""
    small = Products(factor("ternary"), scratch())
    seen = {small.of(drawn(seed)).tobytes() for seed in range(100)}
    assert len(seen) == 100


@pytest.mark.parametrize("place", [None, 0, 2, 100])
def test_what_has_a_pattern_is_refused(place: int | None) -> None:
    """No secret is such a factor but by a chance of 3^-2048; it is not taken for another."""
    small = np.zeros(DEGREE, np.int64)
    if place is not None:
        # An even power has the same value at pairs of roots.
        small[place] = 1
    with pytest.raises(LocalError, match="compressed"):
        Products(small, scratch())


# This build of SEAL ------------------------------------------------------------------------------


def test_the_known_product() -> None:
    """CK-3.5: from the public stream to the digest without the package."""
    words = slowly.public_stream(0, "ckks known product", 4 * (2 * BATCH + 1) * DEGREE)
    numbers = np.frombuffer(words, "<u4").tolist()
    high, low = (numbers[at : at + BATCH * DEGREE] for at in (0, BATCH * DEGREE))
    polynomial = [(a * 2**32 + b) % PRIME for a, b in zip(high, low, strict=True)]
    small = [number % 3 - 1 for number in numbers[2 * BATCH * DEGREE :]]
    known = hashlib.sha256()
    for at in range(0, BATCH * DEGREE, DEGREE):
        product = slowly.product(polynomial[at : at + DEGREE], small)
        known.update(np.array(product, "<u8").tobytes())
    assert known.digest() == products._KNOWN_PRODUCT


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a process."""
    monkeypatch.setattr(products._Checked, "done", False)


@pytest.mark.usefixtures("unchecked")
def test_a_build_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-3.5: a known product before the first that is used."""
    seen, times = [], products._Ring.times

    def counted(self: products._Ring, polynomials: object, small: object) -> object:
        seen.append(polynomials)
        return times(self, polynomials, small)

    monkeypatch.setattr(products._Ring, "times", counted)
    for _ in range(3):
        Products(factor("ternary"), scratch())
    assert len(seen) == 1
    assert products._Checked.done
    check_build(scratch())
    assert len(seen) == 2


def broken(kind: str) -> object:
    """A build that multiplies wrongly, in one way each."""
    times = products._Ring.times

    def off(self: products._Ring, polynomials: NDArray[np.uint64], small: object) -> object:
        out = times(self, polynomials, small).copy()
        match kind:
            case "one number":
                out[3, 4095] = (out[3, 4095] + np.uint64(1)) % np.uint64(PRIME)
            case "cyclic":
                out = np.roll(out, 1, axis=1)
            case "other order":
                out = out[::-1]
            case "not reduced":
                out[0, 0] += np.uint64(PRIME)
            case "no product":
                out = polynomials
        return out

    return off


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "kind", ["one number", "cyclic", "other order", "not reduced", "no product"]
)
def test_a_wrong_build_is_not_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-3.5"""
    with monkeypatch.context() as patch:
        patch.setattr(products._Ring, "times", broken(kind))
        for _ in range(2):
            with pytest.raises(LocalError, match="multiplies polynomials wrongly: use secagg"):
                Products(factor("ternary"), scratch())
        with pytest.raises(LocalError, match="multiplies polynomials wrongly"):
            check_build(scratch())
        assert not products._Checked.done
    Products(factor("ternary"), scratch())


def test_another_known_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_KNOWN_PRODUCT", bytes(32))
    with pytest.raises(LocalError, match="wrongly"):
        check_build(scratch())


# Nothing leaks -----------------------------------------------------------------------------------


def test_products_say_nothing_of_themselves() -> None:
    made = Products(factor("ternary"), scratch())
    assert repr(made) == str(made) == "Products(factor redacted)"
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            copied(made)
