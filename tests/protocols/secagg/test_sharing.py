from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from protected_sum import make_cast

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.errors import BadShare, LocalError
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.messages import SEALED_SHARES_BYTES, cut
from fedbcs_protocols.secagg.shamir import PRIME, combine
from fedbcs_protocols.secagg.sharing import ShareBox, SharePair, deal

CAST = make_cast(5)
Open = Callable[..., Any]


def _box(stage: Any, me: int, **changes: Any) -> ShareBox:
    table = changes.get("table", stage.table)
    setting = changes.get("setting", stage.setting)
    return ShareBox(stage.ephemerals[me].share_key, setting, table, me)


def _pieces(body: bytes) -> tuple[bytes, ...]:
    count = len(body) // SEALED_SHARES_BYTES
    return cut(body, count, SEALED_SHARES_BYTES, sender="a", what="shares")


def _dealt(stage: Any, owner: int) -> dict[int, SharePair]:
    return deal(stage.ephemerals[owner], sorted(stage.table.holders(owner)), 3)


def test_any_threshold_of_shares_gives_both_secrets(fixed_secrets: Open) -> None:
    secret = fixed_secrets("owner")
    holders = (0, 3, 4, 7, 9)
    dealt = deal(secret, holders, 3)
    assert tuple(dealt) == holders
    for chosen in combinations(holders, 3):
        keys = {place + 1: dealt[place].mask_key for place in chosen}
        seeds = {place + 1: dealt[place].seed for place in chosen}
        assert combine(keys, 3) == secret.mask_key.private_bytes_raw()
        assert combine(seeds, 3) == secret.seed


def test_shares_are_fresh_each_time(fixed_secrets: Open) -> None:
    secret = fixed_secrets("owner")
    one, two = (deal(secret, (0, 1, 2), 2) for _ in range(2))
    pairs = [*one.values(), *two.values()]
    assert len({share for pair in pairs for share in (pair.mask_key, pair.seed)}) == 12


def test_too_few_holders(fixed_secrets: Open) -> None:
    with pytest.raises(LocalError):
        deal(fixed_secrets("owner"), (0, 1), 3)


def test_what_is_sealed_opens_at_its_holder(backstage: Open) -> None:
    stage = backstage(CAST, absent=frozenset({2}))
    dealt = {owner: _dealt(stage, owner) for owner in (0, 1, 3, 4)}
    sealed = {owner: _pieces(_box(stage, owner).seal_all(dealt[owner])) for owner in dealt}
    for holder in dealt:
        owners = [owner for owner in dealt if owner != holder]
        pieces = [sealed[o][stage.table.recipients(o).index(holder)] for o in owners]
        opened = _box(stage, holder).open_all(owners, pieces)
        assert opened == {owner: dealt[owner][holder] for owner in owners}


def test_a_ciphertext_is_what_sa_3_2_says(backstage: Open) -> None:
    """Opened without the module, from the clauses."""
    stage = backstage(CAST)
    dealt = _dealt(stage, 1)
    body = _box(stage, 1).seal_all(dealt)
    assert len(body) == 4 * 82
    to, binding = 3, CAST.binding
    public = [stage.table.adverts[place].share_key for place in range(5)]
    shared = stage.ephemerals[to].share_key.exchange(stage.ephemerals[1].share_key.public_key())
    info = encode_fields(
        "secagg share", 1, binding.round, binding.attempt, binding.phase, binding.state_digest,
        "site1", "site3", public[1], public[3],
    )  # fmt: skip
    key = HKDF(SHA256(), 32, salt=binding.study_digest, info=info).derive(shared)
    associated = encode_fields(
        "secagg share", 1, binding.encode(), "site1", "site3", stage.table.digest
    )
    # Recipients are 0, 2, 3, 4.
    plain = ChaCha20Poly1305(key).decrypt(bytes(12), body[2 * 82 : 3 * 82], associated)
    assert plain == dealt[to].mask_key + dealt[to].seed
    with pytest.raises(InvalidTag):
        ChaCha20Poly1305(key).decrypt(bytes(12), body[3 * 82 :], associated)


def test_a_changed_ciphertext_names_its_owner(backstage: Open) -> None:
    stage = backstage(CAST)
    piece = _pieces(_box(stage, 1).seal_all(_dealt(stage, 1)))[2]
    box = _box(stage, 3)
    box.open_all([1], [piece])
    for at in range(0, len(piece), 9):
        changed = bytearray(piece)
        changed[at] ^= 1
        with pytest.raises(BadShare, match="changed") as caught:
            box.open_all([1], [bytes(changed)])
        assert caught.value.sender == "site1"


def test_a_ciphertext_fits_one_place_only(backstage: Open) -> None:
    stage = backstage(CAST)
    to_3 = _pieces(_box(stage, 1).seal_all(_dealt(stage, 1)))[2]
    back_to_1 = _pieces(_box(stage, 3).seal_all(_dealt(stage, 3)))[1]
    other_list = KeyTable(stage.table.adverts, stage.table.graph, b"\1" * 32)
    other_attempt = CAST.changed(attempt=1).setting
    other_state = CAST.changed(state_digest=bytes(32)).setting
    for box, owner, piece in (
        (_box(stage, 2), 1, to_3),
        (_box(stage, 3), 2, to_3),
        (_box(stage, 3), 1, back_to_1),
        (_box(stage, 1), 3, to_3),
        (_box(stage, 3, table=other_list), 1, to_3),
        (_box(stage, 3, setting=other_attempt), 1, to_3),
        (_box(stage, 3, setting=other_state), 1, to_3),
    ):
        with pytest.raises(BadShare):
            box.open_all([owner], [piece])


@pytest.mark.parametrize("field", ["mask_key", "seed"])
def test_what_is_no_share(backstage: Open, field: str) -> None:
    stage = backstage(CAST)
    dealt = _dealt(stage, 1)
    for value in (PRIME, 2**264 - 1):
        wrong = {**dealt, 3: replace(dealt[3], **{field: value.to_bytes(33, "big")})}
        piece = _pieces(_box(stage, 1).seal_all(wrong))[2]
        with pytest.raises(BadShare, match="is no share") as caught:
            _box(stage, 3).open_all([1], [piece])
        assert caught.value.sender == "site1"
