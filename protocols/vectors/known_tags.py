"""Known answers of verified sums (VS): tags of sites, and sums that are true or are not.

What each must raise is written here by hand, not observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from known_values import BINDING, Json, binding_json, fixed_bytes, fixed_words

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.tags import Tagger

NAMES = ("aachen", "bern", "cork")
SECRET, EPOCH = fixed_bytes("group secret"), 5
BAD = "BadTag"
Sum = tuple[str, str, Sequence[str], list[int], list[int]]


def _tagger(bits: int, chunk: int, epoch: int = EPOCH, **changes: Any) -> Tagger:
    return Tagger(SECRET, epoch, replace(BINDING, **changes), bits, chunk)


def _sealed(tagger: Tagger, values: list[int], site: str) -> list[int]:
    return [int(limb) for limb in tagger.sealed(np.array(values, np.uint32), site)]


def _added(*vectors: list[int]) -> list[int]:
    return [sum(column) for column in zip(*vectors, strict=True)]


def _sums(bits: int, chunk: int, vectors: dict[str, list[int]]) -> Iterator[Sum]:
    """Sums, who is said to be in them, and the sums of their limbs."""
    tagger = _tagger(bits, chunk)
    limbs = {name: _sealed(tagger, values, name) for name, values in vectors.items()}
    total, tags = _added(*vectors.values()), _added(*limbs.values())
    two, two_tags = (_added(given["aachen"], given["cork"]) for given in (vectors, limbs))
    count = len(tags)

    def under(other: Tagger) -> list[int]:
        return _added(*(_sealed(other, values, name) for name, values in vectors.items()))

    yield "all", "ok", NAMES, total, tags
    yield "in another order", "ok", NAMES[::-1], total, tags
    yield "two", "ok", ("aachen", "cork"), two, two_tags
    yield "one", "ok", ("bern",), vectors["bern"], limbs["bern"]
    yield "one value one more", BAD, NAMES, [total[0] + 1, *total[1:]], tags
    yield "the last value one less", BAD, NAMES, [*total[:-1], total[-1] - 1], tags
    yield "two values swapped", BAD, NAMES, [total[1], total[0], *total[2:]], tags
    yield "a site less than is said", BAD, NAMES, two, two_tags
    yield "a site more than is said", BAD, ("aachen", "cork"), total, tags
    yield "another site than is said", BAD, ("aachen", "bern"), two, two_tags
    yield "nobody is in it", BAD, (), total, tags
    yield "a site twice", BAD, NAMES, _added(total, vectors["bern"]), _added(tags, limbs["bern"])
    yield "all of it twice", BAD, NAMES, _added(total, total), _added(tags, tags)
    yield "no change", BAD, NAMES, [0] * len(total), [0] * count
    yield "no change under true tags", BAD, NAMES, [0] * len(total), tags
    yield "true values without tags", BAD, NAMES, total, [0] * count
    yield "a tag one more", BAD, NAMES, total, [tags[0] + 1, *tags[1:]]
    yield "tags of another attempt", BAD, NAMES, total, under(_tagger(bits, chunk, attempt=0))
    yield "tags of another round", BAD, NAMES, total, under(_tagger(bits, chunk, round=6))
    yield "tags of another phase", BAD, NAMES, total, under(_tagger(bits, chunk, phase=3))
    yield (
        "tags of another study",
        BAD,
        NAMES,
        total,
        under(_tagger(bits, chunk, study_digest=bytes(32))),
    )
    yield (
        "tags of another state",
        BAD,
        NAMES,
        total,
        under(_tagger(bits, chunk, state_digest=bytes(32))),
    )
    yield "tags of another epoch", BAD, NAMES, total, under(_tagger(bits, chunk, epoch=4))
    if len(total) > 2 * chunk:
        rows = -(-len(total) // chunk)
        swapped = total[chunk : 2 * chunk] + total[:chunk] + total[2 * chunk :]
        moved = [limb for at in range(0, count, rows) for limb in _swapped(tags[at : at + rows])]
        yield "two chunks swapped", BAD, NAMES, swapped, tags
        yield "two chunks swapped with their tags", BAD, NAMES, swapped, moved
        mixed = total[:chunk] + two[chunk:]
        some = [tags[i] if i % rows == 0 else two_tags[i] for i in range(count)]
        yield "one chunk over other sites", BAD, NAMES, mixed, some
        yield "the others over other sites", BAD, ("aachen", "cork"), mixed, some
    # VS-3.1: other limbs that stand for the same number are no lie.
    rows = -(-len(total) // chunk)
    width = min(16, bits)
    carried = list(tags)
    carried[0] -= 1 << width
    carried[rows] += 1
    if carried[0] >= 0:
        yield "a carry taken", "ok", NAMES, total, carried


def _swapped(row: list[int]) -> list[int]:
    return [row[1], row[0], *row[2:]]


def _case(what: str, bits: int, chunk: int, vectors: dict[str, list[int]]) -> Json:
    tagger = _tagger(bits, chunk)
    rows = -(-len(vectors["bern"]) // chunk)
    return {
        "what": what,
        "bits": bits,
        "chunk": chunk,
        "weights": [int(weight) for weight in tagger._weights],
        "sites": [
            {
                "name": name,
                "values": values,
                "pads": [int(pad) for pad in tagger.pads(name, rows)],
                "limbs": _sealed(tagger, values, name),
            }
            for name, values in vectors.items()
        ],
        "sums": [
            {"what": label, "expect": expect, "over": list(over), "values": values, "limbs": limbs}
            for label, expect, over, values, limbs in _sums(bits, chunk, vectors)
        ],
    }


def tags() -> Json:
    """Chunks of several sizes, the last one short; values of 8, 16, 18 and 24 bits."""

    def drawn(count: int, bits: int) -> dict[str, list[int]]:
        return {name: fixed_words(f"tagged {name} {bits}", count, bits) for name in NAMES}

    def full(count: int, bits: int) -> dict[str, list[int]]:
        return {name: [2**bits - 1, 0, *[2**bits - 1] * (count - 2)] for name in NAMES}

    binding: Binding = BINDING
    return {
        "secret": SECRET.hex(),
        "epoch": EPOCH,
        "binding": binding_json(binding),
        "cases": [
            _case("18 bits, a short last chunk", 18, 8, drawn(21, 18)),
            _case("8 bits, eight limbs", 8, 8, drawn(24, 8)),
            _case("16 bits, one chunk", 16, 32, drawn(20, 16)),
            _case("24 bits, all but one at the most", 24, 4, full(9, 24)),
            _case("a value a chunk", 12, 1, drawn(3, 12)),
        ],
    }
