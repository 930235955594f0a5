"""Sums of true ciphertexts that are not the sum, each with every signature that it needs (CK-6.3).

At the end a hostile site, which has the key: what it cannot hide, and what it spoils.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ckks_cast import (
    Aggregate,
    Attack,
    Scene,
    combined,
    constant,
    encoded,
    message,
    plus,
    whole,
    with_key,
)
from ckks_world import World, binding

from fedbcs_protocols.ckks.packing import pack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.tagging import chunks_of, tagger_of
from fedbcs_protocols.tags import PRIME as P
from fedbcs_protocols.tags import limb_bits, limbs_of

A, B, C, D = (f"site{place}" for place in range(4))


def attacks() -> Iterator[Attack]:
    scene = Scene()
    yield from _members(scene)
    yield from _plaintexts(scene)
    yield from _replays(scene)
    yield from _sites(scene)


def _members(scene: Scene) -> Iterator[Attack]:
    world, true = scene.world, scene.honest
    single = {name: world.added(world.chunks(name)) for name in world.names}

    def of(**factors: int) -> Aggregate:
        """Each site's ciphertexts so many times."""
        return [
            combined(*((factor, single[name][chunk]) for name, factor in factors.items()))
            for chunk in range(2)
        ]

    def told(
        clause: str, name: str, aggregate: Aggregate, members: Sequence[str] | None = None
    ) -> Attack:
        return Attack(clause, name, lambda: scene.tell(aggregate, members))

    yield told("CK-5.1", "what no attack is: A + B + C + D", of(site0=1, site1=1, site2=1, site3=1))
    yield told(
        "CK-5.1", "what no attack is: A + B + C, of these", of(site0=1, site1=1, site2=1), [A, B, C]
    )
    yield told("CK-5.6", "A alone, said to be all", single[A])
    yield told("CK-5.6", "B alone, said to be all, to A", single[B])
    yield told("CK-5.6", "A alone, said to be three", single[A], [A, B, C])
    yield told("CK-4.4", "A alone, said to be A", single[A], [A])
    yield told("CK-4.4", "A + B, said to be these two", of(site0=1, site1=1), [A, B])
    yield told("CK-5.6", "A twice, said to be three", of(site0=2), [A, B, C])
    yield told("CK-5.6", "A four times", of(site0=4))
    yield told("CK-5.6", "A twice, B and C", of(site0=2, site1=1, site2=1))
    yield told("CK-5.3", "A twice less B, C twice, D", of(site0=2, site1=-1, site2=2, site3=1))
    yield told("CK-5.6", "A twice less B", of(site0=2, site1=-1))
    yield told("CK-5.6", "A less B", of(site0=1, site1=-1))
    yield told("CK-5.6", "D dropped, said to be in it", of(site0=1, site1=1, site2=1))
    yield told("CK-5.3", "D in it, said to be dropped", true, [A, B, C])
    yield told("CK-5.6", "C in it, D said to be", of(site0=1, site1=1, site2=1), [A, B, D])
    without = world.honest([A, B, C])
    yield told("CK-5.6", "all in chunk 0, three in chunk 1", [true[0], without[1]])
    yield told("CK-5.6", "three in chunk 0, all in chunk 1", [without[0], true[1]])
    yield told("CK-5.6", "all in chunk 0, A four times in chunk 1", [true[0], of(site0=4)[1]])
    yield told(
        "CK-5.6",
        "all in chunk 0, A twice, B and C in chunk 1",
        [true[0], of(site0=2, site1=1, site2=1)[1]],
    )
    yield told("CK-5.6", "chunks in another order", true[::-1])
    yield told("CK-5.6", "chunk 0 twice", [true[0]] * 2)
    yield told("CK-5.6", "chunk 1 twice", [true[1]] * 2)
    yield told(
        "CK-5.3",
        "the first polynomial of another chunk",
        [
            plus(true[0], constant(0), constant(0)),
            true[1][: len(true[1]) // 2] + true[0][len(true[0]) // 2 :],
        ],
    )
    yield told("CK-5.3", "the sum twice", [combined((2, each)) for each in true])
    yield told("CK-5.3", "the sum three times in chunk 1", [true[0], combined((3, true[1]))])
    yield told("CK-5.3", "the sum negated", [combined((-1, each)) for each in true])
    yield told("CK-3.5", "the sum less the sum", [whole(constant(0), constant(0))] * 2)


def _plaintexts(scene: Scene) -> Iterator[Attack]:
    world, true = scene.world, scene.honest
    context, params, setting = world.context, world.setting.params, world.setting
    payload, bits = params.payload, limb_bits(params.bits)
    last = setting.sites + setting.count - params.payload

    def added(values: dict[int, float], chunk: int) -> Callable[[], object]:
        """A message on top of the true one: Δ·m onto c0, no key needed."""
        aggregate = list(true)
        aggregate[chunk] = plus(true[chunk], message(context, values), constant(0))
        return lambda: scene.tell(aggregate)

    yield Attack("CK-5.1", "what no attack is: a message of zeros added", added({}, 1))
    yield Attack("CK-5.6", "one added to a value", added({17: 1}, 1))
    yield Attack("CK-5.6", "one taken from a value", added({17: -1}, 1))
    yield Attack("CK-5.6", "one added in chunk 0", added({17: 1}, 0))
    yield Attack("CK-5.6", "one added to a value of the second digit", added({5000: 1}, 1))
    yield Attack("CK-5.6", "one moved between two values", added({17: 1, 18: -1}, 1))
    yield Attack("CK-5.6", "one added, and to a limb of the tag", added({17: 1, payload: 1}, 1))
    yield Attack("CK-5.6", "2^17 added to a value", added({17: 1 << 17}, 1))
    yield Attack("CK-5.6", "one added to the zeros behind the vector", added({last + 3: 1}, 1))
    yield Attack("CK-5.3", "one taken from the zeros behind it", added({last + 3: -1}, 1))
    yield Attack("CK-5.6", "a site's field raised", added({3: 1}, 0))
    yield Attack("CK-5.6", "a site's field taken away", added({3: -1}, 0))
    yield Attack("CK-5.6", "one field moved to another", added({2: -1, 3: 1}, 0))
    yield Attack(
        "CK-5.6",
        "one added to each limb",
        added(dict.fromkeys(range(payload, params.capacity), 1), 1),
    )
    yield Attack("CK-5.6", "two limbs exchange one", added({payload: 1, payload + 1: -1}, 1))
    yield Attack(
        "VS-3.1",
        "a carry moved between two limbs: the same number",
        added({payload: -(1 << bits), payload + 1: 1}, 1),
    )
    prime = {
        payload + at: float(P >> (bits * at) & ((1 << bits) - 1))
        for at in range(limbs_of(params.bits))
    }
    yield Attack("VS-3.1", "p added to the tag: the same number mod p", added(prime, 1))

    rng = np.random.default_rng(1)
    for size in (0.0005, 0.08, 0.2):
        noise = [encoded(context, rng.uniform(-size, size, DEGREE)) for _ in range(2)]
        aggregate = [plus(t, n, constant(0)) for t, n in zip(true, noise, strict=True)]
        yield Attack(
            "CK-5.4",
            f"noise of up to {size} of a step added",
            lambda a=aggregate: scene.tell(a),  # type: ignore[misc]
        )
    large = [plus(t, encoded(context, rng.uniform(-3, 3, DEGREE)), constant(0)) for t in true]
    yield Attack("CK-5.3", "noise of up to 3 steps added", lambda: scene.tell(large))
    shifted = [plus(t, encoded(context, np.full(DEGREE, 0.3)), constant(0)) for t in true]
    yield Attack("CK-5.4", "all components pushed by 0.3 of a step", lambda: scene.tell(shifted))


def _replays(scene: Scene) -> Iterator[Attack]:
    """True sums of another time, under the same key, with signatures of now."""
    key = scene.world.key

    def later(**changes: int) -> Scene:
        return Scene(
            World(count=scene.world.count, secret=key, rekey_every=9, binding=binding(**changes))
        )

    for changes in ({"attempt": 1}, {"round": 1}):
        now = later(**changes)
        (name,) = changes
        yield Attack("CK-5.6", f"the sum of the {name} before", lambda n=now: n.tell(scene.honest))  # type: ignore[misc]
        for chunk in (0, 1):
            mixed = list(now.honest)
            mixed[chunk] = scene.honest[chunk]
            yield Attack(
                "CK-5.6",
                f"chunk {chunk} of the {name} before",
                lambda n=now, m=mixed: n.tell(m),  # type: ignore[misc]
            )
        both = [combined((1, a), (1, b)) for a, b in zip(now.honest, scene.honest, strict=True)]
        yield Attack(
            "CK-5.3", f"both this {name}'s and the last's", lambda n=now, b=both: n.tell(b)
        )  # type: ignore[misc]
    # The same vectors again: only tags and noise differ, so this comes nearest.
    again = later(attempt=1)
    again.world.__dict__["vectors"] = scene.world.vectors
    one_old = [
        combined(
            (1, again.world.added(again.world.chunks(A))[at]),
            (1, scene.world.honest([B, C, D])[at]),
        )
        for at in range(2)
    ]
    yield Attack(
        "CK-5.6", "three sites' of the attempt before, the same values", lambda: again.tell(one_old)
    )


def _sites(scene: Scene) -> Iterator[Attack]:
    """A site that cheats. It has the key, so its tags fit what it says."""
    world = scene.world
    setting, context = world.setting, with_key(world)
    tagger = tagger_of(setting, world.key.secret, world.key.epoch)
    own = {n: world.chunks(n) for n in world.names}

    def encrypted(name: str, liar: str, fields: dict[int, int] | None = None) -> list[bytes]:
        """``liar``'s vector, said to be by ``name``, with other fields."""
        out = []
        payload = []
        for chunk in chunks_of(world.vectors[liar], setting, tagger, name):
            payload.append(chunk[: setting.params.payload].copy())
        for place, value in (fields or {}).items():
            payload[0][place] = value
        limbs = tagger.sealed(np.concatenate(payload), name).reshape(-1, len(payload))
        for at, values in enumerate(payload):
            out.append(
                context.encrypt(pack(np.concatenate([values, limbs[:, at]]), setting.params))
            )
        return out

    def summed(chunks: list[bytes]) -> Callable[[], object]:
        aggregate = world.added(own[A], chunks, own[C], own[D])
        return lambda: scene.tell(aggregate)

    yield Attack("CK-5.1", "what no attack is: a site's chunks made here", summed(encrypted(B, B)))
    yield Attack("CK-5.5", "a site that says it is another", summed(encrypted(B, B, {1: 0, 2: 1})))
    yield Attack("CK-5.5", "a site that says it is two", summed(encrypted(B, B, {1: 1, 3: 1})))
    yield Attack("CK-5.5", "a site that says nothing of itself", summed(encrypted(B, B, {1: 0})))
    yield Attack("CK-5.6", "tags under another site's pads", summed(encrypted(C, B, {1: 1, 2: 0})))
    quiet = [
        _without_noise(world, chunk) for chunk in chunks_of(world.vectors[B], setting, tagger, B)
    ]
    three = world.honest([A, C, D])
    yield Attack(
        "CK-5.4",
        "a site that adds its vector without noise",
        lambda: scene.tell([plus(t, m, constant(0)) for t, m in zip(three, quiet, strict=True)]),
    )


def _without_noise(world: World, chunk: np.ndarray) -> np.ndarray:
    return encoded(world.context, pack(chunk, world.setting.params).view(np.float64))
