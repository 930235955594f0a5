"""Sums of true ciphertexts that are not the sum, each with every signature that it needs (CK-6.3).

At the end a hostile site, which has the key: what it cannot hide, and what it spoils.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from ckks_cast import (
    Aggregate,
    Attack,
    Scene,
    combined,
    message,
    plus,
    residues,
    secret,
)
from ckks_world import World, binding, scratch
from numpy.typing import NDArray

from fedbcs_protocols.ckks.cipher import Encryptor
from fedbcs_protocols.ckks.messages import ciphertexts_of
from fedbcs_protocols.ckks.packing import pack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.samples import NoiseStream, Small, upload_secret
from fedbcs_protocols.ckks.tagging import batches_of, tagger_of
from fedbcs_protocols.ckks.words import pack_words
from fedbcs_protocols.tags import PRIME as P
from fedbcs_protocols.tags import limb_bits, limbs_of

A, B, C, D = (f"site{place}" for place in range(4))


def attacks() -> Iterator[Attack]:
    scene = Scene()
    yield from _members(scene)
    yield from _salts(scene)
    yield from _plaintexts(scene)
    yield from _replays(scene)
    yield from _sites(scene)


def _members(scene: Scene) -> Iterator[Attack]:
    world, true = scene.world, scene.honest
    single = {name: world.chunks(name) for name in world.names}

    def of(**factors: int) -> Aggregate:
        """Each site's ciphertexts so many times."""
        return [
            combined(*((factor, single[name][chunk]) for name, factor in factors.items()))
            for chunk in range(2)
        ]

    def told(
        name: str,
        aggregate: Aggregate,
        members: Sequence[str] | None = None,
        clause: str = "CK-3.5",
    ) -> Attack:
        return Attack(clause, name, lambda: scene.tell(aggregate, members))

    everyone, three = of(site0=1, site1=1, site2=1, site3=1), of(site0=1, site1=1, site2=1)
    yield told("what no attack is: A + B + C + D", everyone, None, "CK-5.1")
    yield told("what no attack is: A + B + C, of these", three, [A, B, C], "CK-5.1")
    yield told("A alone, said to be all", single[A])
    yield told("B alone, said to be all, to A", single[B])
    yield told("A alone, said to be three", single[A], [A, B, C])
    yield told("A alone, said to be A", single[A], [A], "CK-4.4")
    yield told("A + B, said to be these two", of(site0=1, site1=1), [A, B], "CK-4.4")
    yield told("A twice, said to be three", of(site0=2), [A, B, C])
    yield told("A four times", of(site0=4))
    yield told("A twice, B and C", of(site0=2, site1=1, site2=1))
    yield told("A twice, B, C and D", of(site0=2, site1=1, site2=1, site3=1))
    yield told("A twice less B, C twice, D", of(site0=2, site1=-1, site2=2, site3=1))
    yield told("A twice less B", of(site0=2, site1=-1))
    yield told("A less B", of(site0=1, site1=-1))
    yield told("the sum, D less", of(site0=1, site1=1, site2=1, site3=-1))
    yield told("D dropped, said to be in it", three)
    yield told("D in it, said to be dropped", true, [A, B, C])
    yield told("C in it, D said to be", three, [A, B, D])
    yield told("B for A, said to be A, C and D", of(site1=1, site2=1, site3=1), [A, C, D])
    without = world.honest([A, B, C])
    other = world.honest([A, B, D])
    yield told("all in chunk 0, three in chunk 1", [true[0], without[1]])
    yield told("three in chunk 0, all in chunk 1", [without[0], true[1]])
    yield told("D in chunk 1 only, said to be dropped", [without[0], true[1]], [A, B, C])
    yield told("C in chunk 0, D in chunk 1", [without[0], other[1]], [A, B, C])
    yield told("all in chunk 0, A four times in chunk 1", [true[0], of(site0=4)[1]])
    yield told(
        "all in chunk 0, A twice, B and C in chunk 1",
        [true[0], of(site0=2, site1=1, site2=1)[1]],
    )
    yield told("chunks in another order", true[::-1])
    yield told("chunk 0 twice", [true[0]] * 2)
    yield told("chunk 1 twice", [true[1]] * 2)
    crossed = world.added(*(single[name] for name in (A, B, C)), single[D][::-1])
    yield told("one site's chunks in another order", crossed)
    yield told("both chunks added up, in chunk 0", [combined((1, true[0]), (1, true[1])), true[1]])
    yield told("the sum twice", [combined((2, each)) for each in true])
    yield told("the sum three times in chunk 1", [true[0], combined((3, true[1]))])
    yield told("the sum negated", [combined((-1, each)) for each in true])
    yield told("the sum less the sum", [combined((1, each), (-1, each)) for each in true])


def _salts(scene: Scene) -> Iterator[Attack]:
    """The true sum, said to be under other salts. Sites sign for each salt but their own blindly:

    a salt that a site has not sent is signed by the others (``times``).
    """
    world, true = scene.world, scene.honest
    key, count = world.key, world.count

    def other(**changes: int) -> World:
        then = binding(**changes)
        return World(count=count, secret=key, rekey_every=9, binding=then)

    def under(name: str, salts: Mapping[str, bytes]) -> Attack:
        return Attack("CK-3.3", name, lambda: scene.tell(true, salts=salts))

    own = {name: world.salt(name) for name in world.names}
    attempt, round = other(attempt=1), other(round=1)
    assert len({*own.values(), *map(attempt.salt, own), *map(round.salt, own)}) == 12
    yield Attack("CK-3.3", "what no attack is: the true salts", lambda: scene.tell(true, salts=own))
    yield under("D's salt of another attempt", {D: attempt.salt(D)})
    yield under("D's salt of another round", {D: round.salt(D)})
    yield under("all salts of another attempt", {n: attempt.salt(n) for n in own})
    yield under("zeros for D's salt", {D: bytes(32)})
    yield under("zeros for all salts", dict.fromkeys(own, bytes(32)))
    yield under("C's salt for D too", {D: own[C]})
    yield under("A's salt for all", dict.fromkeys(own, own[A]))
    yield under("C's and D's salts exchanged", {C: own[D], D: own[C]})
    yield under(
        "each site's salt for the next", {n: own[m] for n, m in zip(own, (B, C, D, A), strict=True)}
    )
    for place in (0, 31):
        bent = bytearray(own[D])
        bent[place] ^= 0x80 if place else 1
        yield under(f"a bit of byte {place} of D's salt", {D: bytes(bent)})
    # One ciphertext of another site under a member's name, with the salt that belongs to it.
    swapped = world.added(*(world.chunks(n) for n in (A, B, D)))
    yield Attack(
        "CK-3.3",
        "D in it under C's name, with D's salt",
        lambda: scene.tell(swapped, [A, B, C], salts={C: own[D]}),
    )


def _plaintexts(scene: Scene) -> Iterator[Attack]:
    world, true = scene.world, scene.honest
    params, setting = world.setting.params, world.setting
    payload, bits = params.payload, limb_bits(params.bits)
    last = setting.sites + setting.count - params.payload

    def added(values: dict[int, int], chunk: int) -> Callable[[], object]:
        """A message on top of the true one: Δ·m onto b, no key needed."""
        aggregate = list(true)
        aggregate[chunk] = plus(true[chunk], message(params, values))
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
        payload + at: P >> (bits * at) & ((1 << bits) - 1) for at in range(limbs_of(params.bits))
    }
    yield Attack("VS-3.1", "p added to the tag: the same number mod p", added(prime, 1))

    rng, step = np.random.default_rng(1), params.scale
    for size in (2, 10, 50, 3 * step):
        noise = [residues(rng.integers(-size, size + 1, DEGREE)) for _ in true]
        aggregate = [plus(t, n) for t, n in zip(true, noise, strict=True)]
        yield Attack(
            "CK-5.4",
            f"noise of up to {size} added",
            lambda a=aggregate: scene.tell(a),  # type: ignore[misc]
        )
    pushed = [plus(each, residues(np.full(DEGREE, step // 3))) for each in true]
    yield Attack("CK-5.4", "all values pushed by a third of a step", lambda: scene.tell(pushed))
    more = [plus(each, residues(np.full(DEGREE, step))) for each in true]
    yield Attack("CK-5.6", "all values pushed by a step", lambda: scene.tell(more))


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
        old = {n: scene.world.salt(n) for n in scene.world.names}
        yield Attack("CK-3.5", f"the sum of the {name} before", lambda n=now: n.tell(scene.honest))  # type: ignore[misc]
        # The right secrets of another time: what is derived from a salt differs with the binding.
        yield Attack(
            "CK-3.3",
            f"the sum of the {name} before, with its salts",
            lambda n=now, s=old: n.tell(scene.honest, salts=s),  # type: ignore[misc]
        )
        for chunk in (0, 1):
            mixed = list(now.honest)
            mixed[chunk] = scene.honest[chunk]
            yield Attack(
                "CK-3.5",
                f"chunk {chunk} of the {name} before",
                lambda n=now, m=mixed: n.tell(m),  # type: ignore[misc]
            )
        both = [combined((1, a), (1, b)) for a, b in zip(now.honest, scene.honest, strict=True)]
        yield Attack(
            "CK-3.5",
            f"both this {name}'s and the last's",
            lambda n=now, b=both: n.tell(b),  # type: ignore[misc]
        )
    # The same vectors again: only secrets, tags and noise differ, so this comes nearest.
    again = later(attempt=1)
    again.world.__dict__["vectors"] = scene.world.vectors
    one_old = again.world.added(
        again.world.chunks(A), *(scene.world.chunks(name) for name in (B, C, D))
    )
    yield Attack(
        "CK-3.5", "three sites' of the attempt before, the same values", lambda: again.tell(one_old)
    )
    salts = {name: scene.world.salt(name) for name in (B, C, D)}
    yield Attack(
        "CK-3.3",
        "three sites' of the attempt before, with their salts",
        lambda: again.tell(one_old, salts=salts),
    )


NOISE_KEY = bytes(32)
"""So that these attacks know the noise of what they encrypt."""


def made(
    world: World,
    *,
    name: str = B,
    fields: Mapping[int, int] | None = None,
    under: Small | None = None,
    noise: NDArray[np.int64] | None = None,
) -> list[bytes]:
    """B's upload, by B or whoever has the key: tagged as ``name``'s, with other fields, under

    another secret, or with other noise.
    """
    setting, params = world.setting, world.setting.params
    tagger = tagger_of(setting, world.key.secret, world.key.epoch)
    (batch,) = batches_of(world.vectors[B], setting, tagger, name)
    rows = batch.copy()
    for place, value in (fields or {}).items():
        rows[0, place] = value
    limbs = tagger.sealed(rows[:, : params.payload].reshape(-1), name)
    rows[:, params.payload :] = limbs.reshape(-1, len(rows)).T
    drawn = NoiseStream(NOISE_KEY).next(len(rows))
    if under is not None and not under.any():
        return [pack_words(residues(e)) for e in pack(rows, params).view(np.int64) + drawn]
    upload = secret(world, B) if under is None else under
    cipher = Encryptor(params, setting.binding, upload, NOISE_KEY, scratch())
    out = [bytes(each) for each in ciphertexts_of(cipher.encrypt(rows))]
    if noise is None:
        return out
    return [plus(each, residues(noise - e)) for each, e in zip(out, drawn, strict=True)]


def _sites(scene: Scene) -> Iterator[Attack]:
    """A site that cheats. It has the key, so its tags and its secrets fit what it says."""
    world = scene.world

    def summed(at: Scene = scene, **lies: object) -> Callable[[], object]:
        others = at.world.honest([name for name in at.world.names if name != B])
        aggregate = at.world.added(others, made(at.world, **lies))  # type: ignore[arg-type]
        return lambda: at.tell(aggregate)

    yield Attack("CK-5.1", "what no attack is: a site's chunks made here", summed())
    yield Attack("CK-5.5", "a site that says it is another", summed(fields={1: 0, 2: 1}))
    yield Attack("CK-5.5", "a site that says it is two", summed(fields={1: 1, 3: 1}))
    yield Attack("CK-5.5", "a site that says nothing of itself", summed(fields={1: 0}))
    yield Attack("CK-5.6", "tags under another site's pads", summed(name=C))

    key, now, salt = world.key, world.binding, world.salt(B)
    nearly = secret(world, B)
    nearly[9] += 1
    for what, under in {
        "no secret": np.zeros(DEGREE, np.int64),
        "its secret of the next attempt": upload_secret(
            key.secret, key.epoch, replace(now, attempt=1), B, salt
        ),
        "its secret of the next epoch": upload_secret(key.secret, key.epoch + 1, now, B, salt),
        "another site's secret": secret(world, C),
        "its secret with one coefficient changed": nearly,
        "its secret negated": -secret(world, B),
    }.items():
        yield Attack("CK-3.3", f"a site that encrypts under {what}", summed(under=under))

    one = np.zeros(DEGREE, np.int64)
    one[3] = 128
    loud = np.where(np.arange(DEGREE) % 2, 21, -21)
    yield Attack("CK-5.4", "a site whose noise is 21 everywhere", summed(noise=loud))
    yield Attack("CK-5.4", "a site whose noise is half a step in one place", summed(noise=one))
    # Of four, a site without noise is as near to CK-5.4's border as chance is wide.
    few, silent = Scene(World(sites=3, count=scene.world.count)), np.zeros(DEGREE, np.int64)
    yield Attack("CK-5.1", "what no attack is: the same, of three sites", summed(few))
    yield Attack("CK-5.4", "a site of three without noise", summed(few, noise=silent))
