from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ckks_world import SECRET, World

from fedbcs_protocols.ckks.tagging import Gathered, chunks_of, tagger_of
from fedbcs_protocols.errors import BadMembers, BadTag, LocalError
from fedbcs_protocols.tags import joined

WORLD = World(count=9000)
SETTING = WORLD.setting
TAGGER = tagger_of(SETTING, SECRET, 1)


def gathered(change: Callable[[int, np.ndarray], None] | None = None) -> Gathered:
    """The sums of all sites' chunks, as decryption gives them."""
    out = Gathered(SETTING)
    lists = [
        [chunk.copy() for chunk in chunks_of(WORLD.vectors[name], SETTING, TAGGER, name)]
        for name in WORLD.names
    ]
    for index, chunks in enumerate(zip(*lists, strict=True)):
        total = sum(chunk.astype(np.uint64) for chunk in chunks).astype(np.uint32)
        if change is not None:
            change(index, total)
        out.put(index, total)
    return out


def test_where_everything_stands() -> None:
    """CK-2.2 to CK-2.4"""
    first, second = (c.copy() for c in chunks_of(WORLD.vectors["site2"], SETTING, TAGGER, "site2"))
    payload = SETTING.params.payload
    assert first[:4].tolist() == [0, 0, 1, 0]
    vector = WORLD.vectors["site2"]
    assert np.array_equal(first[4:payload], vector[: payload - 4])
    rest = 9000 - (payload - 4)
    assert np.array_equal(second[:rest], vector[payload - 4 :])
    assert not second[rest:payload].any()
    for index, chunk in enumerate((first, second)):
        tag = int(TAGGER.tags(chunk[:payload])[0])
        pad = int(TAGGER.pads("site2", 2)[index])
        assert int(joined(chunk[payload:], 16)[0]) == (tag + pad) % (2**61 - 1)


def test_the_sum() -> None:
    assert gathered().check(TAGGER, range(4)).tolist() == WORLD.total


@pytest.mark.parametrize("place", [0, 3, 4, 100, 8187, 8188, 8191])
@pytest.mark.parametrize("chunk", [0, 1])
def test_every_value_is_under_a_tag(chunk: int, place: int) -> None:
    """CK-5.6"""

    def change(index: int, total: np.ndarray) -> None:
        if index == chunk:
            total[place] += 1

    with pytest.raises(BadTag):
        gathered(change).check(TAGGER, range(4))


@pytest.mark.parametrize("members", [(0, 1, 2), (1, 2, 3), (0,)])
def test_other_members(members: tuple[int, ...]) -> None:
    with pytest.raises(BadTag):
        gathered().check(TAGGER, members)


def test_fields_that_say_something_else() -> None:
    """CK-5.5: a site that has the key and marks another as sender; tags cannot tell that."""
    lists = {name: name for name in WORLD.names} | {"site3": "site0"}
    out = Gathered(SETTING)
    for index in range(2):
        total = np.zeros(SETTING.params.capacity, np.uint64)
        for name, marks in lists.items():
            chunks = [c.copy() for c in chunks_of(WORLD.vectors[name], SETTING, TAGGER, marks)]
            payload = chunks[index][: SETTING.params.payload]
            values = np.concatenate([c[: SETTING.params.payload] for c in chunks])
            limbs = TAGGER.sealed(values, name).reshape(4, 2)[:, index]
            total += np.concatenate([payload, limbs])
        out.put(index, total.astype(np.uint32))
    with pytest.raises(BadMembers):
        out.check(TAGGER, range(4))


@pytest.mark.parametrize("wrong", ["short", "long", "type", "bits"])
def test_a_vector_that_does_not_fit(wrong: str) -> None:
    vector = WORLD.vectors["site0"].copy()
    if wrong == "bits":
        vector[77] = 1 << 16
    changed = {
        "short": vector[:-1], "long": np.append(vector, vector[:1]),
        "type": vector.astype(np.int64), "bits": vector,
    }[wrong]  # fmt: skip
    with pytest.raises(LocalError):
        next(chunks_of(changed, SETTING, TAGGER, "site0"))
