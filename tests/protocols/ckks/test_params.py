"""Parameter sets: the proof, checked again with whole numbers, and what lies beyond it (CK-1)."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from unittest import mock

import pytest
from ckks_world import scratch
from tenseal import sealapi

from fedbcs_protocols.ckks import ParameterSet, parameter_set
from fedbcs_protocols.ckks.cipher import Context
from fedbcs_protocols.ckks.params import (
    DEGREE,
    PRIME,
    PRIME_BITS,
    SECURITY_BITS,
    STANDARD_BITS,
)
from fedbcs_protocols.errors import LocalError

PAGE = Path(__file__).parents[3] / "protocols" / "specs" / "ckks.md"
ROW = re.compile(r"^\| (\d+) \| (\d+) \| (\d) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text("utf-8"))
LOOSE = Fraction(1, 10**9)
"""What floating point may be off by, in a ratio."""


def refused(sites: int, bits: int, fields: int) -> bool:
    try:
        ParameterSet(sites, bits, fields)
    except LocalError:
        return True
    return False


def fits(sites: int, bits: int, fields: int, loose: Fraction = Fraction(0)) -> bool:
    """CK-1.4 anew, in squares of whole numbers: no root, no logarithm of a ratio."""
    base = sites * 2**bits
    largest = sum(base // 2 * base**power for power in range(fields))
    variance = (sites * Fraction(21, 2) + sites**2 * Fraction(1, 12)) * DEGREE / 2
    room_squared = (Fraction(PRIME, 2) - Fraction(43, 2) * sites) ** 2 / (2 * largest**2)
    least = min(room_squared, 32**2 * variance)
    scale = math.isqrt(least.numerator // least.denominator)
    total = variance + Fraction(largest * scale, 2**51) ** 2
    # ln 2^24 + 64·ln 2 is 88·ln 2.
    needed_squared = 8 * total * 88 * Fraction(math.log(2))
    enough = scale**2 >= needed_squared * (1 + loose)
    return enough and largest < 2**52 and sites * (2**bits - 1) < 2**32


def test_the_prime() -> None:
    """CK-1.1"""
    assert PRIME == 2**60 - 2**14 + 1
    assert PRIME.bit_length() == PRIME_BITS
    assert PRIME % (2 * DEGREE) == 1
    # Pocklington: PRIME - 1 = 2^14·(2^46 - 1), and the factors below make up more than its root.
    factors = {2: 2**14, 3: 3, 47: 47, 178481: 178481, 2796203: 2796203}
    assert math.prod(factors.values()) == PRIME - 1
    for base in range(2, 60):
        if pow(base, PRIME - 1, PRIME) != 1:
            pytest.fail("not a prime")
        if all(math.gcd(pow(base, (PRIME - 1) // f, PRIME) - 1, PRIME) == 1 for f in factors):
            return
    pytest.fail("not proven")


def test_the_standard_allows_it() -> None:
    """CK-1.1: with 15 bits to spare."""
    assert PRIME_BITS <= STANDARD_BITS[SECURITY_BITS] == 75
    assert STANDARD_BITS[256] < PRIME_BITS


def test_seal_takes_it() -> None:
    """CK-1.1: SEAL enforces the standard's bound for 192 bits, and has this prime."""
    assert Context(parameter_set(4, 16), scratch()).seal.parameters_set()


def test_seal_refuses_what_is_below_192_bits() -> None:
    """CK-1.1: another 40 bits of modulus, which the standard allows for 128-bit security only."""
    create = sealapi.CoeffModulus.Create
    longer = create(DEGREE, [PRIME_BITS, 40])
    assert longer[0].value() == PRIME
    assert STANDARD_BITS[192] < PRIME_BITS + 40 < STANDARD_BITS[128]
    with (
        mock.patch.object(sealapi.CoeffModulus, "Create", return_value=longer),
        pytest.raises(LocalError, match="does not take the parameters"),
    ):
        Context(parameter_set(4, 16), scratch())


def test_the_page_has_rows() -> None:
    assert len(ROWS) == 6


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"n {row[0]}, b {row[1]}")
def test_the_table_of_the_page(row: tuple[str, ...]) -> None:
    """CK-1.5"""
    sites, bits, fields = map(int, row[:3])
    params = parameter_set(sites, bits)
    assert params.fields == fields
    assert params.margin_bits == pytest.approx(float(row[3]), abs=0.05)
    assert params.margin_sigmas == pytest.approx(float(row[4]), abs=0.05)


@pytest.mark.parametrize(
    ("bits", "fields", "most"),
    [
        (8, 4, 11), (8, 3, 102), (12, 3, 10), (12, 2, 532), (16, 2, 73), (17, 2, 43),
        (20, 2, 8), (22, 1, 1024), (23, 1, 512), (24, 1, 256),
    ],
)  # fmt: skip
def test_the_last_number_of_sites(bits: int, fields: int, most: int) -> None:
    assert parameter_set(most, bits).fields == fields
    if most < 1024:
        assert refused(most + 1, bits, fields)


def test_the_proof_in_whole_numbers() -> None:
    """CK-1.3, CK-1.4, for every set that can be asked for."""
    taken = 0
    for bits in range(8, 25):
        for fields in range(1, 5):
            for sites in (*range(1, 130), *range(130, 1025, 7), 256, 257, 512, 513, 533, 534, 1024):
                if refused(sites, bits, fields):
                    assert not fits(sites, bits, fields, LOOSE)
                    continue
                taken += 1
                assert fits(sites, bits, fields, -LOOSE)
                params = ParameterSet(sites, bits, fields)
                scale = int(params.scale)
                assert scale == params.scale
                assert scale >= params.needed_scale
                room = Fraction(PRIME, 2) - Fraction(43, 2) * sites
                assert 2 * (scale * params.largest) ** 2 <= room**2
                assert params.margin_sigmas <= 16
    assert taken > 3000


def test_the_most_fields_are_taken() -> None:
    """CK-1.5"""
    for sites in (3, 4, 8, 9, 16, 17, 18, 32, 33, 64, 65, 1024):
        for bits in (8, 12, 16, 17, 20):
            fields = parameter_set(sites, bits).fields
            assert all(refused(sites, bits, more) for more in range(fields + 1, 5))


def test_a_refusal_says_how_much_is_missing() -> None:
    """CK-1.4"""
    with pytest.raises(LocalError, match=r"3 fields of 16 bits from 4 sites .* [78]\.\d bits"):
        ParameterSet(4, 16, 3)
    with pytest.raises(LocalError, match="over 32 bits"):
        parameter_set(257, 24)


@pytest.mark.parametrize(
    ("sites", "bits", "fields"),
    [(0, 16, 1), (1025, 16, 1), (4, 7, 1), (4, 25, 1), (4, 16, 0), (4, 8, 5), (-3, 16, 1)],
)
def test_sets_out_of_range(sites: int, bits: int, fields: int) -> None:
    with pytest.raises(LocalError, match="1-1024 sites"):
        ParameterSet(sites, bits, fields)


def test_the_default_margin() -> None:
    """At least 10 standard deviations up to the next rounding error, up to 64 sites of 16 bits."""
    for sites in range(3, 65):
        params = parameter_set(sites, 16)
        assert params.fields == 2
        assert params.margin_sigmas >= 10
        # erfc(x/√2) for 8 million values is below 2^-64 by far.
        assert 2**23 * math.erfc(params.margin_sigmas / math.sqrt(2)) < 2.0**-64


def test_every_set_has_its_own_name() -> None:
    """CK-1.6"""
    sets = [ParameterSet(n, b, f) for n in (3, 4) for b in (8, 10) for f in (1, 2, 3)]
    assert len({params.digest for params in sets}) == len(sets)


def test_chunks() -> None:
    """CK-2.2, CK-2.3: the fields and the vector fill the payloads, none more than needed."""
    params = parameter_set(4, 16)
    assert params.payload == 2 * DEGREE - 4
    assert params.chunks(1) == params.chunks(params.payload - 4) == 1
    assert params.chunks(params.payload - 3) == 2
