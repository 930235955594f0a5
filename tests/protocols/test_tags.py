"""Verified sums (specs/verified.md): exactness, and the false sums that sites must see through.

The arithmetic is held against Python's integers (``protocols/vectors/second_tags.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protected_sum import make_cast, run_sum
from second_tags import P, Tags

from fedbcs_protocols import tags
from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import BadTag, LocalError
from fedbcs_protocols.ring import ring_bits
from fedbcs_protocols.secagg import open_sum
from fedbcs_protocols.tags import CHUNK, MAX_CHUNK, PRIME, Tagger, joined, limbs_of, split

SECRET, EPOCH = bytes(range(32)), 6
BINDING = Binding(bytes(32), 7, 1, 1, bytes(range(32)))
AS_JSON = {
    "study_digest": BINDING.study_digest.hex(),
    "round": 7,
    "attempt": 1,
    "phase": 1,
    "state_digest": BINDING.state_digest.hex(),
}
NAMES = ("aachen", "bern", "cork")


def tagger(bits: int = 18, chunk: int = CHUNK, **changes: Any) -> Tagger:
    binding = replace(BINDING, **{k: v for k, v in changes.items() if k not in ("secret", "epoch")})
    return Tagger(changes.get("secret", SECRET), changes.get("epoch", EPOCH), binding, bits, chunk)


def second(bits: int = 18, chunk: int = CHUNK) -> Tags:
    return Tags(SECRET, EPOCH, AS_JSON, bits, chunk)


def drawn(count: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, count, dtype=np.uint32)


# Arithmetic --------------------------------------------------------------------------------------

VALUES = {
    "zeros": lambda count: np.zeros(count, np.uint32),
    "ones": lambda count: np.ones(count, np.uint32),
    "the most of a site": lambda count: np.full(count, 2**24 - 1, np.uint32),
    "the most of a sum": lambda count: np.full(count, 2**32 - 1, np.uint32),
    "one at the most": lambda count: (
        np.eye(1, count, count - 1, np.uint32)[0] * np.uint32(2**32 - 1)
    ),
    "drawn": lambda count: drawn(count, 32),
}
SIZES = [
    (1, 3),
    (2, 5),
    (8191, 8192),
    (8192, 8192),
    (8192, 3 * 8192 + 1),
    (8193, 8193),
    (16384, 16384),
    (16384, 16385),
    (16384, 5),
]


@pytest.mark.parametrize(("chunk", "count"), SIZES)
def test_exact_at_the_extremes(chunk: int, count: int) -> None:
    """No rounding, whatever the values and however many: also with the largest weights."""
    ours, other = tagger(24, chunk), second(24, chunk)
    for make in VALUES.values():
        values = make(count)
        expected = [number % P for number in other.hashes(values.tolist())]
        assert ours.tags(values).tolist() == expected
    ours._weights = np.full(chunk, PRIME - 1, np.uint64)
    other.weights = [P - 1] * chunk
    for make in VALUES.values():
        values = make(count)
        assert ours.tags(values).tolist() == [h % P for h in other.hashes(values.tolist())]


@settings(max_examples=60)
@given(st.data(), st.integers(1, 40), st.integers(1, 90))
def test_any_values_and_weights(data: st.DataObject, chunk: int, count: int) -> None:
    edges = st.sampled_from([0, 1, 2**24 - 1, 2**24, 2**31, 2**32 - 1])
    values = data.draw(st.lists(edges | st.integers(0, 2**32 - 1), min_size=count, max_size=count))
    heavy = st.sampled_from([0, 1, PRIME - 1, 2**60, 2**53, 2**53 - 1])
    weights = data.draw(st.lists(heavy | st.integers(0, PRIME - 1), min_size=chunk, max_size=chunk))
    ours, other = tagger(24, chunk), second(24, chunk)
    ours._weights, other.weights = np.array(weights, np.uint64), weights
    found = ours.tags(np.array(values, np.uint32))
    assert found.dtype == np.uint64
    assert found.tolist() == [number % P for number in other.hashes(values)]


@pytest.mark.parametrize("count", [0, 1, 32767, 32768, 32769, 70000])
def test_pads_and_weights_are_the_keystream(count: int) -> None:
    """VS-2.1, VS-2.2: however long, in one piece or in several."""
    assert tagger().pads("bern", count).tolist() == second().pads("bern", count)


def test_weights() -> None:
    for chunk in (1, 8192, MAX_CHUNK):
        assert tagger(chunk=chunk)._weights.tolist() == second(chunk=chunk).weights
    # Every chunk and every site has the same, so a shorter chunk has their beginning.
    assert tagger(chunk=9)._weights.tolist() == second(chunk=20).weights[:9]


def test_a_word_of_p_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """VS-2.1: else a number would have two forms, and a sum of limbs would be refused."""

    class Fixed:
        def __init__(self, key: bytes) -> None:
            words = [PRIME, PRIME - 1, 2**64 - 1, 2**61, 2**61 + 5, 0]
            self.data = np.array(words, "<u8").tobytes()

        def next(self, size: int) -> bytes:
            return self.data[:size]

    monkeypatch.setattr(tags, "Keystream", Fixed)
    assert tagger(chunk=6)._weights.tolist() == [0, PRIME - 1, 0, 0, 5, 0]


@given(st.integers(8, 24), st.lists(st.integers(0, PRIME - 1), min_size=1, max_size=20))
def test_limbs_there_and_back(bits: int, numbers: list[int]) -> None:
    limbs = split(np.array(numbers, np.uint64), bits)
    width = min(16, bits)
    # VS-2.3: lowest first, all first limbs, then all second ones.
    assert limbs.dtype == np.uint32
    assert limbs.tolist() == [
        number >> width * at & (1 << width) - 1
        for at in range(-(-61 // width))
        for number in numbers
    ]
    assert joined(limbs, bits).tolist() == numbers


@pytest.mark.parametrize("bits", range(1, 25))
def test_limbs_at_the_edges(bits: int) -> None:
    numbers = [0, 1, PRIME - 1, 2**60, (1 << min(16, bits)) - 1]
    assert joined(split(np.array(numbers, np.uint64), bits), bits).tolist() == numbers
    assert limbs_of(bits) == {8: 8, 9: 7, 12: 6, 15: 5, 16: 4, 18: 4, 24: 4}.get(
        bits, -(-61 // min(16, bits))
    )


@given(st.integers(8, 24), st.lists(st.integers(0, PRIME - 1), min_size=2, max_size=40))
def test_sums_of_limbs_stand_for_sums(bits: int, numbers: list[int]) -> None:
    """VS-3.1, whatever the carries."""
    total = np.zeros(limbs_of(bits), np.uint32)
    for number in numbers:
        total += split(np.array([number], np.uint64), bits)
    assert joined(total, bits).tolist() == [sum(numbers) % PRIME]


@pytest.mark.parametrize("bits", [8, 16, 18, 24])
def test_a_thousand_sites_at_the_most(bits: int) -> None:
    total = np.uint32(1024) * split(np.full(3, PRIME - 1, np.uint64), bits)
    assert joined(total, bits).tolist() == [-1024 % PRIME] * 3
    # As large as limbs can be in 32 bits.
    most = np.full(3 * limbs_of(bits), 2**32 - 1, np.uint32)
    width = min(16, bits)
    expected = sum((2**32 - 1) << width * at for at in range(limbs_of(bits))) % PRIME
    assert joined(most, bits).tolist() == [expected] * 3


@given(st.integers(1, 24), st.integers(1, 40000))
def test_lengths(bits: int, count: int) -> None:
    chunks = (count + 8191) // 8192
    assert tags.tags_of(count) == chunks
    assert tags.tagged_count(count, bits) == count + chunks * -(-61 // min(16, bits))


# Sums that are true ------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 12, 16, 18, 24])
@pytest.mark.parametrize("count", [1, 8192, 8193])
def test_a_true_sum(bits: int, count: int) -> None:
    ours = tagger(bits)
    vectors = {name: drawn(count, bits, seed) for seed, name in enumerate(NAMES)}
    total = sum(ours.tagged(values, name) for name, values in vectors.items())
    # VS-3.2: each site by itself, in a process of its own.
    opened = tagger(bits).opened(total, count, reversed(NAMES))
    assert opened.tolist() == sum(vectors.values()).tolist()
    # VS-2.3: a limb is no larger than a value, so the ring's bound holds for both.
    assert all(ours.tagged(values, name).max() < 1 << bits for name, values in vectors.items())


def test_many_sites_at_the_most() -> None:
    """256 sites, 24 bits: the largest sum that a ring of 32 bits holds."""
    sites = [f"site{i}" for i in range(256)]
    ours, values = tagger(24), np.full(8200, 2**24 - 1, np.uint32)
    total = np.zeros(tags.tagged_count(8200, 24), np.uint64)
    for site in sites:
        total += ours.tagged(values, site)
    assert total.max() < 2**32
    assert (ours.opened(total.astype(np.uint32), 8200, sites) == 256 * (2**24 - 1)).all()


def test_a_tagged_vector_under_secagg() -> None:
    """VS-1.2, VS-2.3: tags go through the protected sum as values do; one site leaves."""
    bits, count = 16, 70
    cast = make_cast(5, bits=ring_bits(bits, 5), count=tags.tagged_count(count, bits))
    cast = replace(cast, key_id=b"k" * 32)
    ours = Tagger(SECRET, EPOCH, cast.binding, bits)
    vectors = {name: drawn(count, bits, seed) for seed, name in enumerate(cast.sites)}
    sealed = {name: ours.tagged(values, name) for name, values in vectors.items()}
    done = run_sum(cast, sealed, {"masked_input": ["site2"]})
    outcome = open_sum(done.sum_frame(), cast.setting, {})
    opened = ours.opened(outcome.total, count, outcome.survivors)
    assert opened.tolist() == sum(vectors[name] for name in outcome.survivors).tolist()
    with pytest.raises(BadTag):
        ours.opened(outcome.total, count, cast.sites)


# Sums that are not (VS-4.2) ----------------------------------------------------------------------

BITS, SMALL = 18, 16
VECTORS = {name: drawn(70, BITS, seed) for seed, name in enumerate(NAMES)}


def limbs(name: str, **changes: Any) -> np.ndarray:
    return tagger(BITS, SMALL, **changes).sealed(VECTORS[name], name)


def _sum(*names: str, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    return sum(VECTORS[n] for n in names), sum(limbs(n, **changes) for n in names)


def refused(values: np.ndarray, told: np.ndarray, over: tuple[str, ...] = NAMES) -> None:
    with pytest.raises(BadTag, match="not that of the sites in it") as caught:
        tagger(BITS, SMALL).check(values, told, over)
    assert caught.value.sender == "@combiner"


TOTAL, TOLD = _sum(*NAMES)


@given(st.integers(0, 69), st.integers(1, 2**20))
def test_a_value_that_was_changed(at: int, by: int) -> None:
    for change in (by, -by):
        values = TOTAL.copy()
        values[at] = (int(values[at]) + change) % 2**32
        refused(values, TOLD)


@given(st.integers(0, len(TOLD) - 1), st.integers(0, 31))
def test_a_limb_that_was_changed(at: int, bit: int) -> None:
    told = TOLD.copy()
    told[at] ^= np.uint32(1 << bit)
    # VS-3.1: a whole multiple of p would be no change; a power of two is none.
    refused(TOTAL, told)


def test_other_sites_than_are_said() -> None:
    two = _sum("aachen", "cork")
    tagger(BITS, SMALL).check(*two, ["cork", "aachen"])
    for over in (NAMES, ("aachen", "bern"), ("aachen",), (), ("aachen", "cork", "cork")):
        refused(*two, over)
    refused(*_sum(*NAMES), ("aachen", "cork"))
    refused(*_sum(*NAMES, "bern"))
    # Names are part of the pads; these differ in their end only.
    refused(*two, ("aachen", "cor"))


def test_one_sites_vector_for_anothers() -> None:
    told = limbs("aachen") + limbs("bern") + tagger(BITS, SMALL).sealed(VECTORS["aachen"], "cork")
    refused(TOTAL, told)


def test_sums_of_sums() -> None:
    refused(2 * TOTAL, 2 * TOLD)
    refused(TOTAL + _sum("bern")[0], TOLD + _sum("bern")[1])


def test_the_tags_of_another_sum() -> None:
    """VS-1.1: of an attempt that was given up, of rounds swapped, of another key."""
    for change in (
        {"attempt": 0},
        {"round": 6},
        {"round": 8},
        {"phase": 2},
        {"state_digest": bytes(32)},
        {"study_digest": bytes(range(32))},
        {"epoch": 5},
        {"secret": bytes(32)},
    ):
        refused(*_sum(*NAMES, **change))


def test_the_last_rounds_sum_again() -> None:
    """The true sum of the round before, values, tags and all."""
    before = {name: drawn(70, BITS, 10 + seed) for seed, name in enumerate(NAMES)}
    old = tagger(BITS, SMALL, round=6)
    values = sum(before.values())
    told = sum(old.sealed(vector, name) for name, vector in before.items())
    old.check(values, told, NAMES)
    refused(values, told)


def test_no_change() -> None:
    """Zeros in the ring, and the offset that stands for zero."""
    for constant in (0, 3 << BITS - 1):
        values = np.full(70, constant, np.uint32)
        refused(values, TOLD)
        refused(values, np.zeros_like(TOLD))


def test_chunks_in_another_order() -> None:
    rows = 5
    for first, second_ in ((0, 1), (1, 3), (0, 3)):
        order = list(range(rows))
        order[first], order[second_] = second_, first
        values = np.concatenate([TOTAL[16 * at : 16 * at + 16] for at in order])
        told = TOLD.reshape(-1, rows)[:, order].ravel()
        refused(values, TOLD)
        refused(values, told)


def test_other_sites_in_some_chunks() -> None:
    """Neither for those that are said to be in it nor for the others."""
    two, told = _sum("aachen", "cork")
    for chunk in range(5):
        values, mixed = TOTAL.copy(), TOLD.copy().reshape(-1, 5)
        values[16 * chunk : 16 * chunk + 16] = two[16 * chunk : 16 * chunk + 16]
        mixed[:, chunk] = told.reshape(-1, 5)[:, chunk]
        refused(values, mixed.ravel())
        refused(values, mixed.ravel(), ("aachen", "cork"))


def test_one_wrong_chunk_of_many_is_enough() -> None:
    """VS-3.2"""
    for chunk in range(5):
        values = TOTAL.copy()
        values[16 * chunk] += 1
        refused(values, TOLD)


@given(st.integers(0, PRIME - 1))
def test_who_has_seen_tags_but_no_key(guess: int) -> None:
    """VS-4.1: tags of other sums, also of the same values, give nothing away about this one."""
    values = TOTAL.copy()
    values[0] += 1
    shift = split(np.array([guess, 0, 0, 0, 0], np.uint64), BITS)
    refused(values, TOLD + shift)


@pytest.mark.parametrize("by", [1, 7, 2**20])
def test_a_site_that_has_the_key_can_lie(by: int) -> None:
    """VS-4.3: the check is no protection from a member; this must not look like one."""
    values = TOTAL.copy()
    values[20] += by
    member = tagger(BITS, SMALL)
    shift = by * int(member._weights[20 - 16])
    told = TOLD + split(np.array([0, shift % PRIME, 0, 0, 0], np.uint64), BITS)
    member.check(values, told, NAMES)


def test_a_site_that_tags_wrongly_spoils_the_sum() -> None:
    """VS-4.4: nobody can tell who did."""
    wrong = tagger(BITS, SMALL, epoch=5).sealed(VECTORS["bern"], "bern")
    refused(TOTAL, limbs("aachen") + limbs("cork") + wrong)


@pytest.mark.parametrize("forget", ["weights", "pads"])
def test_every_sum_has_weights_and_pads_of_its_own(forget: str) -> None:
    """VS-1.1: pads are used once (VS-2.2), so no two sums may share any."""
    find: Callable[[Tagger], list[int]] = (
        (lambda t: t._weights.tolist())
        if forget == "weights"
        else (lambda t: t.pads("a", 3).tolist())
    )
    seen: set[int] = set()
    others = [
        {},
        {"attempt": 2},
        {"round": 8},
        {"phase": 2},
        {"state_digest": bytes(32)},
        {"study_digest": bytes(range(32))},
        {"epoch": 7},
        {"secret": bytes(32)},
    ]
    for change in others:
        seen.update(find(tagger(18, 3, **change)))
    assert len(seen) == 3 * len(others)


def test_pads_of_sites_have_nothing_in_common() -> None:
    ours = tagger()
    pads = [ours.pads(name, 50).tolist() for name in (*NAMES, "aache", "aachen2")]
    assert len({pad for row in pads for pad in row}) == 5 * 50


# Misuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "chunk"), [(18, 0), (18, MAX_CHUNK + 1), (0, 8), (25, 8), (18, -1)]
)
def test_misuse(bits: int, chunk: int) -> None:
    with pytest.raises(LocalError, match="16384 values of at most 24 bits"):
        Tagger(SECRET, EPOCH, BINDING, bits, chunk)


def test_a_sum_of_another_length() -> None:
    ours = tagger()
    total = ours.tagged(drawn(10, 18), "bern")
    for count in (9, 11, len(total)):
        with pytest.raises(LocalError, match="for a vector of"):
            ours.opened(total, count, ["bern"])


def test_the_key_is_not_shown() -> None:
    ours = tagger(secret=hashlib.sha256(b"secret").digest())
    secret = hashlib.sha256(b"secret").digest()
    for text in (repr(ours), str(ours), f"{ours}"):
        assert secret.hex() not in text
        assert repr(secret) not in text
        assert str(EPOCH) in text


def test_a_tagged_sum_in_other_chunks() -> None:
    ours, values = tagger(18, 4), drawn(10, 18)
    assert ours.opened(ours.tagged(values, "bern"), 10, ["bern"]).tolist() == values.tolist()


@pytest.mark.parametrize("count", [3, 5, 7])
def test_limbs_that_are_too_few_or_too_many(count: int) -> None:
    with pytest.raises((BadTag, LocalError)):
        tagger().check(drawn(10, 18), np.zeros(count, np.uint32), ["bern"])


@pytest.mark.parametrize("count", [0, 4, 12])
def test_limbs_of_another_number_of_chunks(count: int) -> None:
    values = drawn(2 * CHUNK, 18)
    with pytest.raises(BadTag):
        tagger().check(values, np.zeros(count, np.uint32), ["bern"])
