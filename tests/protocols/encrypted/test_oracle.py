"""What a combiner that crafts aggregates can learn from answers: how many, and from what (CK-6)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ckks_world import World, binding

from fedbcs_protocols.ckks.cipher import SecretContext
from fedbcs_protocols.errors import PeerError, Refused
from fedbcs_protocols.group import MAX_REFUSALS, MemoryKeys
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS


@pytest.mark.parametrize("wrong", [(0,), (3,), (0, 1, 2, 3), ()])
def test_every_chunk_is_decrypted_whatever_the_others_hold(
    wrong: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CK-5.7"""
    world = World(count=30000)
    world.uploads  # noqa: B018
    aggregate = world.honest()
    for chunk in wrong:
        aggregate[chunk] = world.chunks("site0")[chunk][64:] * 2
    calls = []
    decrypt = SecretContext.decrypt
    monkeypatch.setattr(
        SecretContext, "decrypt", lambda self, ct: (calls.append(1), decrypt(self, ct))[1]
    )
    try:
        world.open("site0", world.forged(aggregate))
    except PeerError:
        assert wrong
    assert len(calls) == world.setting.chunks == 4


def asked(world: World, *, crafted: bool) -> str:
    """What the combiner sees of one question: the site accepted, declined, or was never asked."""
    try:
        world.uploads  # noqa: B018
    except Refused:
        return "silent"
    aggregate = world.honest()
    frame = world.forged(aggregate[::-1] if crafted else aggregate)
    try:
        world.open("site0", frame)
    except PeerError:
        return "declined"
    except Refused:
        return "silent"
    return "accepted"


@pytest.mark.parametrize("rekey_every", [1, 10])
def test_answers_under_one_key(rekey_every: int) -> None:
    """CK-6.2: at most 16 a round while it is accepted, for rekey_every rounds."""
    keepers: dict[str, MemoryKeys] = {}
    answers = 0
    key = World(count=10).key
    for round in range(rekey_every + 2):
        for attempt in range(MAX_ATTEMPTS + 2):
            world = World(
                count=10, binding=binding(round, attempt), keepers=keepers, secret=key,
                rekey_every=rekey_every,
            )  # fmt: skip
            answers += asked(world, crafted=False) == "accepted"
    assert answers == MAX_ATTEMPTS * rekey_every


def test_a_refusal_ends_the_key_and_three_the_study() -> None:
    """CK-6.2, GK-6.2, GK-6.3: with a new key each time, as many as there are keys, but three."""
    keepers: dict[str, MemoryKeys] = {}
    seen = []
    for epoch in range(1, 8):
        key = replace(World().key, epoch=epoch, secret=bytes([epoch]) * 32)
        for attempt in range(2):
            world = World(
                count=9000, binding=binding(0, 2 * epoch + attempt - 2), keepers=keepers, secret=key
            )
            for name in world.names:
                keys = world.keys(name)
                if keys.ring.epoch < epoch:
                    keys.keep(keys.ring.taking(key))
            seen.append(asked(world, crafted=True))
    assert seen.count("declined") == MAX_REFUSALS
    assert seen == ["declined", "silent"] * MAX_REFUSALS + ["silent"] * (14 - 2 * MAX_REFUSALS)
