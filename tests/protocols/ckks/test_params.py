"""Parameter sets: the proof, checked again with whole numbers, and what lies beyond it (CK-1)."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from unittest import mock

import pytest
from ckks_world import scratch
from second_implementation import fields as listed
from tenseal import sealapi

from fedbcs_protocols.ckks import ParameterSet, check_build, parameter_set, params
from fedbcs_protocols.ckks.params import (
    DEGREE,
    NOISE_BOUND,
    NOISE_VARIANCE,
    PRIME,
    PRIME_BITS,
    SECURITY_BITS,
    STANDARD_BITS,
)
from fedbcs_protocols.errors import LocalError

PAGE = Path(__file__).parents[3] / "protocols" / "specs" / "ckks.md"
ROW = re.compile(r"^\| (\d+) \| (\d+) \| (\d) \| ([\d.]+) \| (\d+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text("utf-8"))
BITS, FIELDS, SITES = range(8, 25), range(1, 5), range(1, 1025)


def refused(sites: int, bits: int, fields: int) -> bool:
    try:
        ParameterSet(sites, bits, fields)
    except LocalError:
        return True
    return False


def room(sites: int) -> int:
    """2^⌈log2 n⌉, without a logarithm."""
    out = 1
    while out < sites:
        out *= 2
    return out


def largest(sites: int, bits: int, fields: int) -> int:
    """M (CK-1.2)."""
    base = 2**bits * room(sites)
    return sum(sites * (2**bits - 1) * base**power for power in range(fields))


def fits(sites: int, bits: int, fields: int) -> bool:
    """CK-1.4"""
    scale = 64 * room(sites)
    exact = scale * (largest(sites, bits, fields) + 1) <= PRIME
    return exact and sites * (2**bits - 1) < 2**32


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
    check_build(scratch())


def test_seal_is_asked_for_192_bits() -> None:
    """CK-1.1: another 40 bits of modulus, which the standard allows for 128-bit security only."""
    create = sealapi.CoeffModulus.Create
    longer = create(DEGREE, [PRIME_BITS, 40])
    assert longer[0].value() == PRIME
    assert STANDARD_BITS[192] < PRIME_BITS + 40 < STANDARD_BITS[128]
    with (
        mock.patch.object(sealapi.CoeffModulus, "Create", return_value=longer),
        pytest.raises(LocalError, match="does not take the parameters"),
    ):
        check_build(scratch())


def test_another_prime_is_refused() -> None:
    other = sealapi.CoeffModulus.Create(DEGREE, [PRIME_BITS - 1])
    assert other[0].value() != PRIME
    with (
        mock.patch.object(sealapi.CoeffModulus, "Create", return_value=other),
        pytest.raises(LocalError, match="does not take the parameters"),
    ):
        check_build(scratch())


def test_the_page_has_rows() -> None:
    assert len(ROWS) == 8


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"n {row[0]}, b {row[1]}")
def test_the_table_of_the_page(row: tuple[str, ...]) -> None:
    """CK-1.5: each is the last number of sites for so many fields."""
    sites, bits, fields = map(int, row[:3])
    chosen = parameter_set(sites, bits)
    assert chosen.fields == fields
    assert chosen.margin_bits == pytest.approx(float(row[3]), abs=0.05)
    assert chosen.margin_sigmas == pytest.approx(float(row[4]), abs=0.5)
    assert refused(sites + 1, bits, fields)


LAST = {
    (8, 4): 16, (8, 3): 128, (9, 4): 8, (9, 3): 64, (10, 4): 4, (10, 3): 64, (11, 4): 4,
    (11, 3): 32, (12, 4): 2, (12, 3): 16, (12, 2): 1024, (13, 3): 8, (13, 2): 512, (14, 3): 8,
    (14, 2): 256, (15, 3): 4, (15, 2): 256, (16, 3): 2, (16, 2): 128, (16, 1): 1024, (17, 2): 64,
    (18, 2): 64, (19, 2): 32, (20, 2): 16, (21, 2): 16, (22, 2): 8, (22, 1): 1024, (23, 2): 4,
    (23, 1): 512, (24, 2): 4, (24, 1): 256,
}  # fmt: skip


@pytest.mark.parametrize(("bits", "fields"), LAST)
def test_the_last_number_of_sites(bits: int, fields: int) -> None:
    """CK-1.4"""
    most = LAST[bits, fields]
    assert parameter_set(most, bits).fields == fields
    assert most == 1024 or refused(most + 1, bits, fields)


def test_the_proof_in_whole_numbers() -> None:
    """CK-1.2 to CK-1.4, for every set that can be asked for."""
    taken = 0
    for bits in BITS:
        for fields in FIELDS:
            for sites in SITES:
                right = fits(sites, bits, fields)
                assert refused(sites, bits, fields) != right, (sites, bits, fields)
                if not right:
                    continue
                taken += 1
                chosen = ParameterSet(sites, bits, fields)
                assert chosen.scale == 64 * room(sites)
                assert chosen.largest == largest(sites, bits, fields)
                # A digit has room for a sum, so none carries over.
                assert sites * (2**bits - 1) < 2**chosen.digit_bits
                # Noise of either sign: not the next whole number, and not across q.
                assert 2 * NOISE_BOUND * sites < chosen.scale
                high = chosen.scale * chosen.largest + NOISE_BOUND * sites
                assert high < PRIME - NOISE_BOUND * sites
                assert chosen.margin_bits >= 0
                assert chosen.margin_sigmas >= 9.8 * math.sqrt(sites)
                assert chosen.payload > sites
    assert taken > 20000


def test_how_large_noise_can_be() -> None:
    """CK-1.1, CK-1.3: 21 coins less 21 coins."""
    assert NOISE_BOUND == 21
    assert NOISE_VARIANCE == 2 * NOISE_BOUND / 4 == 10.5


def test_the_most_fields_are_taken() -> None:
    """CK-1.5"""
    for sites in (3, 4, 8, 9, 16, 17, 18, 32, 33, 64, 65, 1024):
        for bits in (8, 12, 16, 17, 20):
            chosen = parameter_set(sites, bits).fields
            assert all(refused(sites, bits, more) for more in range(chosen + 1, 5))


@pytest.mark.parametrize(
    ("sites", "bits", "fields", "missing"),
    [(4, 16, 3, "2.0"), (17, 20, 2, "0.1"), (129, 16, 2, "1.0"), (9, 14, 3, "3.2")],
)
def test_a_refusal_says_how_much_is_missing(
    sites: int, bits: int, fields: int, missing: str
) -> None:
    """CK-1.4"""
    over = math.log2(64 * room(sites) * (largest(sites, bits, fields) + 1) / PRIME)
    assert f"{over:.1f}" == missing
    words = rf"{fields} fields of {bits} bits from {sites} sites do not fit .*: {missing} bits too"
    with pytest.raises(LocalError, match=words):
        ParameterSet(sites, bits, fields)


@pytest.mark.parametrize(("sites", "bits"), [(257, 24), (1000, 24), (513, 23), (1024, 24)])
def test_a_sum_that_needs_more_than_a_word(sites: int, bits: int) -> None:
    """CK-1.4"""
    assert 64 * room(sites) * (largest(sites, bits, 1) + 1) <= PRIME
    with pytest.raises(LocalError, match="need over 32 bits"):
        parameter_set(sites, bits)


@pytest.mark.parametrize(
    ("sites", "bits", "fields"),
    [(0, 16, 1), (1025, 16, 1), (4, 7, 1), (4, 25, 1), (4, 16, 0), (4, 8, 5), (-3, 16, 1)],
)
def test_sets_out_of_range(sites: int, bits: int, fields: int) -> None:
    with pytest.raises(LocalError, match="1-1024 sites"):
        ParameterSet(sites, bits, fields)


def test_the_default_margin() -> None:
    """At least 10 standard deviations up to the next rounding error, and none is ever reached."""
    four = parameter_set(4, 16)
    assert (four.fields, four.scale) == (2, 256)
    assert four.margin_sigmas == pytest.approx(128 / math.sqrt(42))
    assert four.margin_bits == pytest.approx(16, abs=0.01)
    for sites in range(3, 129):
        chosen = parameter_set(sites, 16)
        assert chosen.fields == 2
        assert chosen.margin_sigmas >= 10
        assert chosen.margin_bits >= 1


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [(4, 16, 2), (8, 14, 3), (1024, 16, 1), (1, 8, 4)])
def test_the_name_of_a_set(chosen: tuple[int, int, int]) -> None:
    """CK-1.6, by the second implementation's list."""
    named = ["ckks parameters", 2, 4096, 2**60 - 2**14 + 1, *chosen, 64 * room(chosen[0])]
    assert ParameterSet(*chosen).digest == hashlib.sha256(listed(named)).digest()


def test_the_name_of_the_default_set() -> None:
    known = "1b8e52e4d579b212050469084cd25a8a0aa105d392dc407b40291a2100e536df"
    assert parameter_set(4, 16).digest.hex() == known


def test_every_set_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-1.6: every number in it counts."""
    names = {ParameterSet(n, b, f).digest for n in (3, 4) for b in (8, 10) for f in (1, 2, 3)}
    assert len(names) == 12
    for name, value in (("DEGREE", 8192), ("PRIME", PRIME + 2**15), ("_SCALE_BITS", 7)):
        with monkeypatch.context() as patch:
            patch.setattr(params, name, value)
            names.add(ParameterSet(4, 8, 1).digest)
    assert len(names) == 15


# Room --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "bits", "payload"),
    [(4, 16, 2 * 4096 - 4), (8, 14, 3 * 4096 - 5), (16, 8, 4 * 4096 - 8), (200, 24, 4096 - 4)],
)
def test_chunks(sites: int, bits: int, payload: int) -> None:
    """CK-2.2, CK-2.3: the fields and the vector fill the payloads, none more than needed."""
    chosen = parameter_set(sites, bits)
    assert chosen.capacity == chosen.fields * DEGREE
    assert chosen.payload == payload
    for chunks in (1, 2, 5):
        full = chunks * payload - sites
        assert chosen.chunks(full) == chunks
        assert chosen.chunks(full + 1) == chunks + 1
    assert chosen.chunks(1) == 1
