from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from protected_sum import make_cast

from fedbcs_protocols import ring
from fedbcs_protocols.errors import BadShare
from fedbcs_protocols.secagg.masking import Masker, pair_mask, self_mask
from fedbcs_protocols.secagg.shamir import PRIME, split
from fedbcs_protocols.secagg.sharing import SharePair, deal
from fedbcs_protocols.secagg.unmasking import apply_masks, masks_left, recover

CAST = make_cast(7)
SECRET = bytes(range(1, 33))
PLACES = (0, 2, 3, 5, 6, 8)
Open = Callable[..., Any]
Shares = dict[int, dict[int, bytes]]


def _shares(threshold: int = 3, secret: bytes = SECRET) -> dict[int, bytes]:
    at = [place + 1 for place in PLACES]
    return dict(zip(PLACES, split(secret, threshold, at), strict=True))


def _false(share: bytes) -> bytes:
    # Not a constant on top: with two holders who both add it, the errors can cancel.
    return pow(int.from_bytes(share, "big"), 2, PRIME).to_bytes(33, "big")


def _recover(shares: Mapping[int, bytes], threshold: int = 3) -> bytes:
    return recover(shares, threshold, "site4", lambda secret: secret == SECRET)


@given(st.frozensets(st.sampled_from(PLACES), min_size=3))
def test_enough_shares_give_the_secret(chosen: frozenset[int]) -> None:
    shares = _shares()
    assert _recover({place: shares[place] for place in chosen}) == SECRET


@given(
    st.frozensets(st.sampled_from(PLACES), min_size=4),
    st.binary(min_size=33, max_size=33),
    st.data(),
)
def test_one_false_share_among_more_than_enough(
    chosen: frozenset[int], false: bytes, data: st.DataObject
) -> None:
    shares = {place: share for place, share in _shares().items() if place in chosen}
    shares[data.draw(st.sampled_from(sorted(chosen)))] = false
    assert _recover(shares) == SECRET


@given(st.frozensets(st.sampled_from(PLACES), min_size=3, max_size=3), st.data())
def test_one_false_share_among_just_enough_names_the_owner(
    chosen: frozenset[int], data: st.DataObject
) -> None:
    shares = {place: share for place, share in _shares().items() if place in chosen}
    liar = data.draw(st.sampled_from(sorted(chosen)))
    shares[liar] = _false(shares[liar])
    with pytest.raises(BadShare, match="do not give what it committed to") as caught:
        _recover(shares)
    assert caught.value.sender == "site4"


def test_too_many_false_shares() -> None:
    shares = _shares()
    for liars in (PLACES[:2], PLACES[:3], PLACES):
        wrong = {**shares, **{place: _false(shares[place]) for place in liars}}
        with pytest.raises(BadShare) as caught:
            _recover(wrong)
        assert caught.value.sender == "site4"


def test_false_shares_that_are_never_read_do_no_harm() -> None:
    shares = _shares()
    high = {**shares, **dict.fromkeys(PLACES[3:], b"\xff" * 33)}
    assert _recover(high) == SECRET


def test_a_dealer_who_shared_something_else() -> None:
    with pytest.raises(BadShare) as caught:
        _recover(_shares(secret=bytes(32)))
    assert caught.value.sender == "site4"
    # A polynomial of too high a degree: no set of three gives the secret.
    with pytest.raises(BadShare):
        _recover(_shares(threshold=4))


def test_the_order_of_shares_does_not_matter() -> None:
    assert _recover(dict(reversed(_shares().items()))) == SECRET


# Whole sets of masks ----------------------------------------------------------------------------


def _dealt(stage: Any, sharers: frozenset[int]) -> dict[int, dict[int, SharePair]]:
    graph = stage.table.graph
    return {
        owner: deal(stage.ephemerals[owner], sorted(stage.table.holders(owner)), graph.threshold)
        for owner in sharers
    }


def _answers(
    dealt: Mapping[int, Mapping[int, SharePair]],
    survivors: frozenset[int],
    answering: frozenset[int],
) -> Shares:
    return {
        owner: {
            holder: pair.seed if owner in survivors else pair.mask_key
            for holder, pair in pairs.items()
            if holder in answering
        }
        for owner, pairs in dealt.items()
    }


def _masked_sum(
    stage: Any, sharers: frozenset[int], survivors: frozenset[int], bits: int
) -> tuple[Any, list[int]]:
    vectors = np.random.default_rng(1).integers(0, 1 << bits, (12, 60), dtype=np.uint32)
    expected = [sum(column) % (1 << bits) for column in vectors[sorted(survivors)].T.tolist()]
    total = np.zeros(60, np.uint32)
    setting, table = stage.setting, stage.table
    for me in survivors:
        secret, name = stage.ephemerals[me], setting.names[me]
        masks = [self_mask(secret.seed, setting.binding, name, table.adverts[me].mask_key)]
        masks += [
            pair_mask(secret.mask_key, setting, table, me, peer)
            for peer in table.neighbours(me) & sharers
        ]
        vector = vectors[me].copy()
        Masker(masks, bits).apply(vector)
        ring.add_in_place(total, vector, bits)
    return total, expected


@given(st.frozensets(st.integers(0, 6), min_size=5), st.sampled_from([8, 19, 32]), st.data())
def test_the_plain_sum_remains(
    backstage: Open, sharers: frozenset[int], bits: int, data: st.DataObject
) -> None:
    stage = backstage(CAST)
    some = st.sampled_from(sorted(sharers))
    survivors = data.draw(st.frozensets(some, min_size=1))
    answering = data.draw(st.frozensets(some, min_size=stage.table.graph.threshold))
    shares = _answers(_dealt(stage, sharers), survivors, answering)
    total, expected = _masked_sum(stage, sharers, survivors, bits)
    masks = list(masks_left(stage.setting, stage.table, sharers, survivors, shares))
    apply_masks(total, masks, bits)
    assert total.tolist() == expected


@given(st.frozensets(st.integers(0, 9), min_size=1, max_size=10))
def test_the_plain_sum_remains_in_a_sparse_graph(
    backstage: Open, survivors: frozenset[int]
) -> None:
    """Places 10 and 11 are absent; each site drew the next four; all holders answer."""
    cast = make_cast(12)
    draws = {i: frozenset((i + step) % 12 for step in (1, 2, 3, 5)) for i in range(12)}
    stage = backstage(cast, draws=draws, absent=frozenset({10, 11}))
    sharers = frozenset(range(10))
    shares = _answers(_dealt(stage, sharers), survivors, sharers)
    total, expected = _masked_sum(stage, sharers, survivors, 20)
    masks = list(masks_left(stage.setting, stage.table, sharers, survivors, shares))
    apply_masks(total, masks, 20)
    assert total.tolist() == expected


@pytest.mark.parametrize("left", [False, True])
def test_the_wrong_kind_of_share_is_noticed(backstage: Open, left: bool) -> None:
    """Holders that answer with a share of the other secret: nothing fits, nothing opens."""
    stage = backstage(CAST)
    sharers = frozenset(range(7))
    survivors = sharers - {4} if left else sharers
    shares = _answers(_dealt(stage, sharers), survivors ^ {4}, sharers)
    with pytest.raises(BadShare) as caught:
        list(masks_left(stage.setting, stage.table, sharers, survivors, shares))
    assert caught.value.sender == "site4"


def test_many_masks_are_taken_off_in_turn(backstage: Open) -> None:
    stage = backstage(CAST)
    name, public = "site0", stage.table.adverts[0].mask_key
    masks = [self_mask(bytes([i]) * 32, CAST.binding, name, public) for i in range(40)]
    total = np.arange(50, dtype=np.uint32)
    apply_masks(total, masks, 20)
    once = np.arange(50, dtype=np.uint32)
    Masker(masks, 20).apply(once)
    assert total.tolist() == once.tolist()
    apply_masks(total, [mask.removed for mask in masks], 20)
    assert total.tolist() == list(range(50))
