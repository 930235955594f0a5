from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_protocols import ring
from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import BadKey, LocalError
from fedbcs_protocols.secagg.masking import Masker, PairMask, masked_blocks, pair_mask

BINDING = Binding(bytes(32), 1, 0, 0, bytes(32))
PRIVATE = [X25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in range(1, 6)]
SITES = [(f"site{i}", key.public_key().public_bytes_raw()) for i, key in enumerate(PRIVATE)]


def _masks(me: int, sites: int, binding: Binding = BINDING) -> list[PairMask]:
    others = [peer for peer in range(sites) if peer != me]
    return [pair_mask(PRIVATE[me], binding, SITES[:sites], me, peer) for peer in others]


@given(st.integers(3, 5), st.integers(8, 32), st.integers(1, 100), st.integers(0, 2**32))
def test_masks_cancel_in_the_sum_of_all(sites: int, bits: int, count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(0, 1 << bits, (sites, count), dtype=np.uint32)
    expected = [sum(column) % (1 << bits) for column in vectors.T.tolist()]
    total = np.zeros(count, np.uint32)
    for me, vector in enumerate(vectors):
        Masker(_masks(me, sites), bits).apply(vector)
        assert int(vector.max()) < 1 << bits
        ring.add_in_place(total, vector, bits)
    assert total.tolist() == expected


def test_no_smaller_group_cancels() -> None:
    masked = []
    for me in range(4):
        vector = np.zeros(50, np.uint32)
        Masker(_masks(me, 4), 20).apply(vector)
        masked.append(vector)
    for size in (1, 2, 3):
        for group in combinations(masked, size):
            total = np.sum(group, axis=0, dtype=np.uint32) & ring.modulus_mask(20)
            assert np.count_nonzero(total) > 40


def test_both_sides_derive_one_key_and_opposite_signs() -> None:
    for one, two in combinations(range(5), 2):
        here = pair_mask(PRIVATE[one], BINDING, SITES, one, two)
        there = pair_mask(PRIVATE[two], BINDING, SITES, two, one)
        assert here.key == there.key
        assert (here.adds, there.adds) == (True, False)
    assert len({mask.key for me in range(5) for mask in _masks(me, 5)}) == 10


def test_differing_states_do_not_cancel() -> None:
    other = Binding(bytes(32), 1, 0, 0, b"\1" * 32)
    total = np.zeros(50, np.uint32)
    for me in range(3):
        vector = np.zeros(50, np.uint32)
        Masker(_masks(me, 3, other if me == 0 else BINDING), 20).apply(vector)
        ring.add_in_place(total, vector, 20)
    assert np.count_nonzero(total) > 40


@pytest.mark.parametrize("count", [1, 70, ring.BLOCK - 1, ring.BLOCK, ring.BLOCK + 1000])
def test_blocks_are_the_whole(count: int) -> None:
    vector = np.random.default_rng(0).integers(0, 1 << 18, count, dtype=np.uint32)
    kept = vector.copy()
    whole = vector.copy()
    Masker(_masks(1, 4), 18).apply(whole)
    pieces = [piece.copy() for piece in masked_blocks(vector, _masks(1, 4), 18)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(vector, kept)


def _chi_square(values: NDArray[np.uint32], bits: int) -> float:
    counts = np.bincount(values >> np.uint32(bits - 8), minlength=256)
    expected = values.size / 256
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("bits", [8, 18, 32])
def test_a_masked_vector_looks_uniform(bits: int) -> None:
    """Whatever is under the mask. Keys are fixed; a bound of 1e-6 a side is crossed by none."""
    for label, plain in (("zeros", 0), ("largest", (1 << bits) - 1)):
        key = hashlib.sha256(label.encode()).digest()
        vector = np.full(2**17, plain, np.uint32)
        Masker([PairMask(key, adds=plain == 0)], bits).apply(vector)
        # The 1e-6 quantiles of chi-square with 255 degrees of freedom lie at 161.6 and 377.1.
        assert 161.6 < _chi_square(vector, bits) < 377.1
        low = np.bincount(vector & np.uint32(1), minlength=2)
        assert abs(int(low[0]) - 2**16) < 5 * 2**7.5


@pytest.mark.parametrize(
    "point",
    [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
    ],
)
def test_keys_of_low_order_are_refused(point: int) -> None:
    sites = [SITES[0], ("mallory", point.to_bytes(32, "little")), SITES[2]]
    with pytest.raises(BadKey, match="low order") as caught:
        pair_mask(PRIVATE[0], BINDING, sites, 0, 1)
    assert caught.value.sender == "mallory"


def test_no_mask_with_oneself() -> None:
    with pytest.raises(LocalError):
        pair_mask(PRIVATE[0], BINDING, SITES, 0, 0)


def test_keys_are_not_shown() -> None:
    mask = _masks(0, 3)[0]
    assert mask.key.hex() not in repr(mask)
    assert repr(mask.key) not in repr(mask)
