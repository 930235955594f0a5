"""A combiner under secagg, with a true certificate, that tells another sum (VS-3.2, VS-4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
from ckks_cast import Attack
from protected_sum import Cast, make_cast, run_sum

from fedbcs_protocols.messages import SumBroadcast
from fedbcs_protocols.ring import Words, pack, ring_bits
from fedbcs_protocols.secagg import open_sum
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.tags import Tagger, limbs_of, split, tagged_count
from fedbcs_protocols.wire import Kind, decode, seal

BITS, COUNT, SITES = 16, 20000, 4
"""Three chunks of tags; the last is shorter."""
SECRET, EPOCH = bytes(range(32)), 3
ANY = dict.fromkeys(Kind, 1 << 30)
OFFSET = 1 << (BITS - 1)


def tagger(cast: Cast, secret: bytes = SECRET) -> Tagger:
    return Tagger(secret, EPOCH, cast.binding, BITS)


@lru_cache
def cast_of(round: int = 3, attempt: int = 0) -> Cast:
    cast = make_cast(
        SITES, bits=ring_bits(BITS, SITES), count=tagged_count(COUNT, BITS), key_id=b"k" * 32
    )
    return cast.changed(round=round, attempt=attempt)


def vectors(cast: Cast) -> dict[str, Words]:
    rng = np.random.default_rng(cast.binding.round)
    return {n: rng.integers(0, 1 << BITS, COUNT).astype(np.uint32) for n in cast.sites}


@lru_cache
def finished(round: int = 3, attempt: int = 0, gone: tuple[str, ...] = ()) -> tuple[bytes, Words]:
    """The *sum* frame of a whole session, and the numbers in it with their tags."""
    cast = replace(cast_of(round, attempt), marks={})
    sent = {n: tagger(cast).tagged(v, n) for n, v in vectors(cast).items()}
    combiner = run_sum(cast, sent, {"masked_input": gone})
    frame = combiner.sum_frame()
    return frame, open_sum(frame, cast.setting, {}).total


def told(change: Callable[[Words], Words], **which: object) -> Callable[[], object]:
    """A site reads the frame after ``change``, under the combiner's signature."""

    def run() -> object:
        frame, total = finished(**which)  # type: ignore[arg-type]
        cast = cast_of()
        held = decode(frame, ANY)
        _, end = Certificate.decode_from(held.body, sender="x", sites=SITES)
        shape = cast.setting.shape
        other = change(total.copy()) & np.uint32((1 << shape.bits) - 1)
        body = bytes(held.body[:end]) + SumBroadcast(shape, pack(other, shape.bits)).encode()
        outcome = open_sum(seal(replace(held, body=body), cast.combiner), cast.setting, {})
        return tagger(cast).opened(outcome.total, COUNT, outcome.survivors)

    return run


def at(place: int, by: int) -> Callable[[Words], Words]:
    def change(total: Words) -> Words:
        total[place] = (int(total[place]) + by) % 2**32
        return total

    return change


def values(to: Callable[[Words], Words]) -> Callable[[Words], Words]:
    """Other values, the tags as they are."""
    return lambda total: np.concatenate([to(total[:COUNT]), total[COUNT:]])


def limbs(to: Callable[[Words], Words]) -> Callable[[Words], Words]:
    """Other tags on the true values; ``to`` gets a row a limb, a column a chunk."""

    def change(total: Words) -> Words:
        rows = total[COUNT:].reshape(limbs_of(BITS), -1)
        return np.concatenate([total[:COUNT], to(rows).reshape(-1)])

    return change


def retagged(secret: bytes) -> Callable[[Words], Words]:
    """One value more, and the tags that belong to it under this secret."""

    def change(total: Words) -> Words:
        cast = cast_of()
        new = total[:COUNT].copy()
        new[7] += 1
        tags = tagger(cast, secret)
        sums = tags.tags(new)
        for name in cast.sites:
            sums = (sums + tags.pads(name, sums.size)) % np.uint64((1 << 61) - 1)
        return np.concatenate([new, split(sums, BITS)])

    return change


def attacks() -> Iterator[Attack]:
    rng = np.random.default_rng(5)
    swap = [1, 0, *range(2, limbs_of(BITS))]
    yield Attack("VS-3.2", "what no attack is: the true sum", told(lambda t: t))
    for place, where in (
        (0, "the first value"),
        (COUNT - 1, "the last value"),
        (8192, "the second chunk"),
    ):
        for by in (1, -1):
            yield Attack("VS-3.2", f"{by:+d} on {where}", told(at(place, by)))
    yield Attack("VS-3.2", "one moved from a value to the next", told(values(_moved)))
    yield Attack("VS-3.2", "a value of 2^17 more", told(at(9, 1 << 17)))
    yield Attack(
        "VS-4.2",
        "no change: every code at the offset",
        told(values(lambda v: np.full_like(v, SITES * OFFSET))),
    )
    yield Attack(
        "VS-4.2",
        "no change, tags of zeros",
        told(
            lambda t: np.where(np.arange(t.size) < COUNT, np.uint32(SITES * OFFSET), np.uint32(0))
        ),
    )
    yield Attack("VS-4.2", "zeros", told(np.zeros_like))
    yield Attack("VS-4.2", "every value twice", told(values(lambda v: 2 * v)))
    yield Attack("VS-4.2", "values and tags twice", told(lambda t: 2 * t))
    yield Attack("VS-4.2", "all values in another order", told(values(lambda v: v[::-1])))
    yield Attack(
        "VS-4.2",
        "random values",
        told(values(lambda v: rng.integers(0, 1 << 17, v.size).astype(np.uint32))),
    )
    yield Attack("VS-4.2", "chunks exchanged, tags and all", told(_chunks_exchanged))
    yield Attack(
        "VS-4.2",
        "another set's true sum under this set's certificate",
        told(lambda t: finished(gone=("site3",))[1]),
    )
    yield Attack(
        "VS-4.2",
        "this set's sum under another set's certificate",
        told(lambda t: finished()[1], gone=("site3",)),
    )
    yield Attack("VS-4.2", "another set's true values in one chunk", told(_one_chunk_of_three))
    yield Attack("VS-4.2", "the sum of the round before", told(lambda t: finished(round=2)[1]))
    yield Attack("VS-4.2", "the sum of another attempt", told(lambda t: finished(attempt=1)[1]))
    yield Attack(
        "VS-4.2",
        "this attempt's values with another's tags",
        told(lambda t: np.concatenate([t[:COUNT], finished(attempt=1)[1][COUNT:]])),
    )
    yield Attack("VS-4.2", "this sum and the last one's", told(lambda t: t + finished(round=2)[1]))
    yield Attack("VS-3.2", "limbs in another order", told(limbs(lambda rows: rows[swap])))
    yield Attack(
        "VS-3.2", "limbs of one chunk for another's", told(limbs(lambda rows: rows[:, [1, 0, 2]]))
    )
    yield Attack(
        "VS-3.2",
        "all limbs of one chunk one more",
        told(limbs(lambda rows: rows + np.uint32([1, 0, 0]))),
    )
    yield Attack(
        "VS-3.2",
        "random limbs",
        told(limbs(lambda rows: rng.integers(0, 1 << 18, rows.shape).astype(np.uint32))),
    )
    yield Attack("VS-3.1", "a carry moved between two limbs: the same number", told(limbs(_carry)))
    yield Attack(
        "VS-4.1", "one more, tags recomputed under a guessed key", told(retagged(bytes(32)))
    )
    yield Attack(
        "VS-4.3", "one more, tags recomputed by a site that has the key", told(retagged(SECRET))
    )


def _moved(v: Words) -> Words:
    v[3] += 1
    v[4] -= 1
    return v


def _chunks_exchanged(total: Words) -> Words:
    v, rows = total[:COUNT], total[COUNT:].reshape(limbs_of(BITS), -1)
    v = np.concatenate([v[8192:16384], v[:8192], v[16384:]])
    return np.concatenate([v, rows[:, [1, 0, 2]].reshape(-1)])


def _one_chunk_of_three(total: Words) -> Words:
    three = finished(gone=("site3",))[1]
    total[:8192] = three[:8192]
    total[COUNT:].reshape(limbs_of(BITS), -1)[:, 0] = three[COUNT:].reshape(limbs_of(BITS), -1)[
        :, 0
    ]
    return total


def _carry(rows: Words) -> Words:
    rows = rows.copy()
    rows[0, 0] += 1 << BITS
    rows[1, 0] -= 1
    return rows
