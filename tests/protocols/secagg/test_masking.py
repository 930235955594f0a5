from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from protected_sum import Cast, make_cast

from fedbcs_protocols import ring
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.secagg.masking import Mask, Masker, masked_blocks, pair_mask, self_mask
from fedbcs_protocols.wire import Kind, decode

CAST = make_cast(5)
Open = Callable[..., Any]
# The 1e-6 quantiles of chi-square with 255 degrees of freedom: a false alarm in 500,000. All keys
# below are fixed, so what passes once passes always.
LOWEST, HIGHEST = 161.6, 377.1


def _pairs(stage: Any, me: int, peers: Sequence[int]) -> list[Mask]:
    private = stage.ephemerals[me].mask_key
    return [
        pair_mask(private, stage.setting, stage.table, me, peer) for peer in peers if peer != me
    ]


def _own(stage: Any, me: int) -> Mask:
    name, public = f"site{me}", stage.table.adverts[me].mask_key
    return self_mask(stage.ephemerals[me].seed, stage.setting.binding, name, public)


@given(st.integers(3, 5), st.integers(8, 32), st.integers(1, 100), st.integers(0, 2**32))
def test_pair_masks_cancel_in_the_sum_of_all(
    backstage: Open, sites: int, bits: int, count: int, seed: int
) -> None:
    stage = backstage(CAST)
    vectors = np.random.default_rng(seed).integers(0, 1 << bits, (sites, count), dtype=np.uint32)
    expected = [sum(column) % (1 << bits) for column in vectors.T.tolist()]
    total = np.zeros(count, np.uint32)
    for me, vector in enumerate(vectors):
        Masker(_pairs(stage, me, range(sites)), bits).apply(vector)
        assert int(vector.max()) < 1 << bits
        ring.add_in_place(total, vector, bits)
    assert total.tolist() == expected


def test_no_smaller_group_cancels(backstage: Open) -> None:
    stage = backstage(CAST)
    masked = []
    for me in range(4):
        vector = np.zeros(50, np.uint32)
        Masker(_pairs(stage, me, range(4)), 20).apply(vector)
        masked.append(vector)
    for size in (1, 2, 3):
        for group in combinations(masked, size):
            total = np.sum(group, axis=0, dtype=np.uint32) & ring.modulus_mask(20)
            assert np.count_nonzero(total) > 40


def test_a_self_mask_cancels_with_nothing_but_its_removal(backstage: Open) -> None:
    stage = backstage(CAST)
    vector = np.arange(50, dtype=np.uint32)
    masks = [_own(stage, me) for me in range(5)]
    Masker(masks, 20).apply(vector)
    assert np.count_nonzero(vector - np.arange(50, dtype=np.uint32)) > 40
    Masker([mask.removed for mask in masks], 20).apply(vector)
    assert vector.tolist() == list(range(50))


def test_both_sides_derive_one_key_and_opposite_signs(backstage: Open) -> None:
    stage = backstage(CAST)
    for one, two in combinations(range(5), 2):
        (here,), (there,) = _pairs(stage, one, [two]), _pairs(stage, two, [one])
        assert here.key == there.key
        assert (here.adds, there.adds) == (True, False)
    keys = {mask.key for me in range(5) for mask in _pairs(stage, me, range(5))}
    assert len(keys | {_own(stage, me).key for me in range(5)}) == 15


@pytest.mark.parametrize(
    "change",
    [
        {"state_digest": bytes(32)},
        {"attempt": 1},
        {"round": 4},
        {"phase": 0},
        {"study_digest": bytes(32)},
    ],
)
def test_another_binding_gives_other_masks(backstage: Open, change: dict[str, Any]) -> None:
    here, there = backstage(CAST), backstage(CAST.changed(**change))
    total = np.zeros(50, np.uint32)
    for me in range(3):
        vector = np.zeros(50, np.uint32)
        Masker(_pairs(there if me == 0 else here, me, range(3)), 20).apply(vector)
        ring.add_in_place(total, vector, 20)
    assert np.count_nonzero(total) > 40
    assert _own(here, 0).key != _own(there, 0).key


def test_a_self_mask_is_one_sites(backstage: Open) -> None:
    stage = backstage(CAST)
    seed, binding = stage.ephemerals[0].seed, CAST.binding
    public = [stage.table.adverts[place].mask_key for place in range(2)]
    keys = {
        self_mask(s, binding, name, key).key
        for s in (seed, stage.ephemerals[1].seed)
        for name in ("site0", "site1")
        for key in public
    }
    assert len(keys) == 8


@pytest.mark.parametrize("count", [1, 70, ring.BLOCK - 1, ring.BLOCK, ring.BLOCK + 1000])
def test_blocks_are_the_whole(backstage: Open, count: int) -> None:
    stage = backstage(CAST)
    masks = [_own(stage, 1), *_pairs(stage, 1, range(4))]
    vector = np.random.default_rng(0).integers(0, 1 << 18, count, dtype=np.uint32)
    kept = vector.copy()
    whole = vector.copy()
    Masker(masks, 18).apply(whole)
    pieces = [piece.copy() for piece in masked_blocks(vector, masks, 18)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(vector, kept)


def _check_uniform(values: NDArray[np.uint32], bits: int) -> None:
    for low in {0, bits - 8}:
        piece = values >> np.uint32(low) & np.uint32(255)
        counts = np.bincount(piece, minlength=256)
        expected = values.size / 256
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert LOWEST < chi_square < HIGHEST


@pytest.mark.parametrize("bits", [8, 18, 32])
def test_a_masked_vector_looks_uniform(bits: int) -> None:
    """Whatever is under the mask."""
    for label, plain in (("zeros", 0), ("largest", (1 << bits) - 1)):
        key = hashlib.sha256(label.encode()).digest()
        vector = np.full(2**17, plain, np.uint32)
        Masker([Mask(key, adds=plain == 0)], bits).apply(vector)
        _check_uniform(vector, bits)


def _masked_zeros(cast: Cast, secrets: Callable[[str], Any], label: str) -> NDArray[np.uint32]:
    """What site0's session sends for a vector of zeros; all secrets follow from the label."""
    combiner, sessions = cast.combine(), cast.all_sites()
    for name, session in sessions.items():
        session._seed_for_tests(secrets(label + name))
        combiner.receive(session.advertise())
    combiner.close()
    for name, session in sessions.items():
        combiner.receive(session.share(combiner.requests[name]))
    combiner.close()
    zeros = np.zeros(cast.count, np.uint32)
    frame = sessions["site0"].masked_input(combiner.requests["site0"], zeros)
    shape = cast.setting.shape
    body = decode(frame, {Kind.MASKED_INPUT: shape.body_bytes}).body
    packed = MaskedInput.decode(body, sender="site0", shape=shape).packed
    return ring.unpack(packed, cast.count, cast.bits)


def test_masked_inputs_of_a_session_look_uniform(fixed_secrets: Open) -> None:
    cast = make_cast(4, bits=18, count=2**17)
    first = _masked_zeros(cast, fixed_secrets, "first")
    # With the very same secrets, which no session ever has, another attempt has other masks still.
    again = _masked_zeros(cast.changed(attempt=1), fixed_secrets, "first")
    other = _masked_zeros(cast.changed(attempt=2), fixed_secrets, "second")
    for vector in (first, again, other):
        _check_uniform(vector, 18)
    for one, two in combinations((first, again, other), 2):
        _check_uniform(one - two & ring.modulus_mask(18), 18)


def test_two_attempts_share_no_mask(fixed_secrets: Open) -> None:
    """With the operating system's secrets, as in earnest: no more equal values than chance."""
    cast = make_cast(3, bits=32, count=10_000)
    frames = []
    for attempt in range(2):
        here = cast.changed(attempt=attempt)
        combiner, sessions = here.combine(), here.all_sites()
        for stage in ("advertise", "share"):
            for name, session in sessions.items():
                request = combiner.requests.get(name, b"")
                frame = session.advertise() if stage == "advertise" else session.share(request)
                combiner.receive(frame)
            combiner.close()
        zeros = np.zeros(cast.count, np.uint32)
        frames.append(sessions["site0"].masked_input(combiner.requests["site0"], zeros))
    first, second = (
        np.frombuffer(bytes(decode(f, {Kind.MASKED_INPUT: 10**6}).body)[8:], "<u4") for f in frames
    )
    # Two equal words or more in 10,008 pairs: chance 3e-12. (The filling, zero in both, is apart.)
    assert np.count_nonzero((first == second) & (first != 0)) < 2


def test_no_mask_with_oneself(backstage: Open) -> None:
    stage = backstage(CAST)
    with pytest.raises(LocalError):
        pair_mask(stage.ephemerals[0].mask_key, stage.setting, stage.table, 0, 0)
