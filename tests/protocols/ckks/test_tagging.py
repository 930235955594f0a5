"""A vector's chunks: who sends them, what is where, and what a sum of them must be (CK-2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ckks_world import SECRET, World
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_protocols.ckks import CkksSetting
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.setting import MAX_CHUNKS
from fedbcs_protocols.ckks.tagging import Gathered, batches_of, tagger_of
from fedbcs_protocols.errors import BadMembers, BadTag, LocalError, PeerError
from fedbcs_protocols.tags import Tagger, joined, split

Chunks = list[NDArray[np.uint32]]


def chunks(world: World, name: str, vector: NDArray[np.uint32] | None = None) -> Chunks:
    setting = world.setting
    given = world.vectors[name] if vector is None else vector
    batches = batches_of(given, setting, tagger(world), name)
    return [chunk.copy() for batch in batches for chunk in batch]


def tagger(world: World) -> Tagger:
    return tagger_of(world.setting, SECRET, 1)


def added(world: World, *names: str) -> Chunks:
    every = [chunks(world, name) for name in names]
    return [np.sum(pieces, axis=0, dtype=np.uint32) for pieces in zip(*every, strict=True)]


def checked(world: World, total: Chunks, *places: int) -> NDArray[np.uint32]:
    gathered = Gathered(world.setting)
    for index, values in enumerate(total):
        gathered.put(index, values[None])
    return gathered.check(tagger(world), places)


@pytest.mark.parametrize(("sites", "bits"), [(4, 16), (9, 8), (3, 24), (8, 20)])
@pytest.mark.parametrize("short", [True, False])
def test_what_is_where(sites: int, bits: int, short: bool) -> None:
    """CK-2.2, CK-2.3: fields, vector, zeros; then the limbs; by hand."""
    payload = World(sites, bits=bits).setting.params.payload
    world = World(sites, bits=bits, count=50 if short else 2 * payload - sites)
    name, vector = world.names[1], world.vectors[world.names[1]]
    found = chunks(world, name)
    assert len(found) == world.setting.chunks == (1 if short else 2)
    assert {c.size for c in found} == {world.setting.params.capacity}
    flat = np.concatenate([c[:payload] for c in found]).tolist()
    assert flat[:sites] == [0, 1] + [0] * (sites - 2)
    assert flat[sites : sites + vector.size] == vector.tolist()
    assert not any(flat[sites + vector.size :])
    # VS-2.3: a chunk's limbs are those of its own tag.
    width = min(16, bits)
    tags = tagger(world).tags(np.array(flat, np.uint32)) + tagger(world).pads(name, len(found))
    for chunk, tag in zip(found, tags.tolist(), strict=True):
        limbs = chunk[payload:].tolist()
        assert sum(limb << (width * at) for at, limb in enumerate(limbs)) == tag % (2**61 - 1)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 8183, 8184, 8185, 20000]), st.data())
@settings(max_examples=30)
def test_sums_over_any_members(seed: int, count: int, data: st.DataObject) -> None:
    """CK-5.5, CK-5.6"""
    world = World(5, count=count)
    random = np.random.default_rng(seed)
    world.__dict__["vectors"] = {
        name: random.integers(0, 1 << 16, count).astype(np.uint32) for name in world.names
    }
    places = sorted(data.draw(st.frozensets(st.integers(0, 4), min_size=1)))
    names = [world.names[place] for place in places]
    total = checked(world, added(world, *names), *places)
    assert (total == sum(world.vectors[name] for name in names)).all()


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 3, 4, 100, 8186, 8187, 8188, 8191])
def test_every_value_is_under_a_tag(chunk: int, place: int) -> None:
    """CK-2.4: fields, vector, zeros and limbs of every chunk."""
    world = World(count=2 * 8188 + 50)
    total = added(world, *world.names)
    total[chunk][place] += 1
    with pytest.raises(BadTag):
        checked(world, total, 0, 1, 2, 3)


@pytest.mark.parametrize("places", [(0, 1, 2), (0, 1, 3), (1, 2, 3)])
def test_other_members_than_are_said(places: tuple[int, ...]) -> None:
    world = World()
    with pytest.raises(BadTag):
        checked(world, added(world, *world.names), *places)
    with pytest.raises(BadTag):
        checked(world, added(world, *(world.names[p] for p in places)), 0, 1, 2, 3)


def test_right_tags_over_wrong_fields() -> None:
    """CK-5.5: a site that stands for another, with tags that fit, as only a site can make them."""
    world = World()
    swapped = chunks(world, "site0")
    payload = world.setting.params.payload
    swapped[0][:4] = (0, 1, 0, 0)
    tags = tagger(world).sealed(swapped[0][:payload], "site0")
    swapped[0][payload:] = tags
    total = [a + b + c for a, b, c in zip(swapped, *(chunks(world, n) for n in world.names[1:3]),
                                          strict=True)]  # fmt: skip
    with pytest.raises(BadMembers, match="not over the sites"):
        checked(world, total, 0, 1, 2)


def test_tags_of_another_sum() -> None:
    """VS-4.2: an old sum, told again."""
    world = World()
    total = added(world, *world.names)
    for change in ({"round": 1}, {"attempt": 1}, {"phase": 2}, {"state_digest": bytes(32)}):
        later = World()
        later.__dict__["setting"] = replace(
            world.setting, binding=replace(world.setting.binding, **change)
        )
        with pytest.raises(BadTag):
            checked(later, total, 0, 1, 2, 3)
    for secret, epoch in ((bytes(32), 1), (SECRET, 2)):
        gathered = Gathered(world.setting)
        gathered.put(0, total[0][None])
        with pytest.raises(BadTag):
            gathered.check(tagger_of(world.setting, secret, epoch), range(4))


def test_a_chunk_that_never_came() -> None:
    """What could not be decrypted stands as zeros, which no tag fits."""
    world = World(count=9000)
    with pytest.raises(PeerError):
        checked(world, added(world, *world.names)[:1], 0, 1, 2, 3)


def test_limbs_come_together_again() -> None:
    tags = np.array([0, 1, 2**61 - 2, 2**60 + 12345], np.uint64)
    for bits in (8, 12, 16, 17, 24):
        assert joined(split(tags, bits), bits).tolist() == tags.tolist()


@pytest.mark.parametrize(
    "change", ["short", "long", "signed", "wide", "two-dimensional", "over bits", "bytes"]
)
def test_what_is_no_vector(change: str) -> None:
    world = World()
    good = world.vectors["site0"]
    bad = {
        "short": good[:-1],
        "long": np.append(good, np.uint32(0)),
        "signed": good.astype(np.int32),
        "wide": good.astype(np.uint64),
        "two-dimensional": good.reshape(2, -1),
        "over bits": np.where(np.arange(good.size) == 99, np.uint32(1 << 16), good),
        "bytes": good.astype(np.uint8),
    }[change]
    with pytest.raises(LocalError):
        chunks(world, "site0", bad)


def test_the_array_is_used_again() -> None:
    """So that memory does not grow; who keeps chunks copies them."""
    world = World(count=5 * 8188 - 4)
    first, second = batches_of(world.vectors["site0"], world.setting, tagger(world), "site0")
    assert first.shape == (4, 2 * DEGREE)
    assert second.shape == (1, 2 * DEGREE)
    assert second.base is first.base is not None


# The setting -------------------------------------------------------------------------------------


def test_settings_that_do_not_fit_together() -> None:
    setting = World().setting
    roster = dict(setting.roster)
    first = next(iter(roster))
    most = MAX_CHUNKS * setting.params.payload - 4
    assert replace(setting, count=most).chunks == MAX_CHUNKS
    for change in (
        {"count": 0},
        {"count": -5},
        {"count": most + 1},
        {"roster": {n: roster[n] for n in list(roster)[1:]}},
        {"roster": roster | {"site9": World(5).setting.roster["site4"]}},
        {"params": World(5).setting.params},
        {"terms": World(5).setting.terms},
        {"roster": {**roster, first: roster["site1"]}},
        {"combiner": roster["site1"]},
        {"roster": {**{n: roster[n] for n in list(roster)[1:]}, "@combiner": roster[first]}},
        {"roster": {**{n: roster[n] for n in list(roster)[1:]}, "a b": roster[first]}},
    ):
        with pytest.raises(LocalError):
            replace(setting, **change)
    assert isinstance(setting, CkksSetting)
