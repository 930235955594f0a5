"""Ciphertexts that nobody encrypted, put into an aggregate that enough sites have signed for.

A combiner chooses b and nothing else: a_j is not in what it sends (CK-3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from ckks_cast import (
    Attack,
    Polynomial,
    Scene,
    combined,
    common,
    constant,
    drawn,
    message,
    noise_of,
    opener,
    plus,
    residues,
    secret,
    turned,
    words,
)
from ckks_world import scratch
from numpy.typing import NDArray

from fedbcs_protocols.ckks.cipher import Encryptor
from fedbcs_protocols.ckks.packing import unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, pack_words, unpack_words
from fedbcs_protocols.errors import SumOutOfRange

Q = np.uint64
BOUND = 84
"""21 for each of four sites."""
PUSHED = 17
"""The coefficient that is pushed to its bounds."""


def attacks() -> Iterator[Attack]:
    scene = Scene()
    yield Attack(
        "CK-5.1", "what no attack is: the true aggregate", lambda: scene.tell(scene.honest)
    )
    yield Attack(
        "CK-6.1", "who sees what all zeros open to has the secrets", lambda: recover(scene)
    )
    yield Attack(
        "CK-5.2", "who sees a sum and its noise has the secrets", lambda: recover_from_noise(scene)
    )
    yield from _second_polynomials(scene)
    yield from _common(scene)
    yield from _constants(scene)
    yield from _small(scene)
    yield from _whole(scene)
    yield from _words(scene)


def _added(scene: Scene, polynomial: Polynomial, chunk: int = 1) -> Callable[[], object]:
    told = list(scene.honest)
    told[chunk] = plus(told[chunk], polynomial)
    return lambda: scene.tell(told)


def _instead(scene: Scene, polynomial: Polynomial, chunk: int = 1) -> Callable[[], object]:
    told = list(scene.honest)
    told[chunk] = pack_words(polynomial)
    return lambda: scene.tell(told)


def _second_polynomials(scene: Scene) -> Iterator[Attack]:
    """(0, 2^40), whose decryption is the secret, has no place in a frame."""
    pair = [pack_words(constant(0)), pack_words(constant(1 << 40))]
    true = [scene.honest[0], pack_words(constant(1 << 40))]
    yield Attack("CK-4.5", "(0, 2^40) in place of each chunk", lambda: scene.tell(pair * 2))
    yield Attack(
        "CK-4.5", "a second polynomial behind a chunk", lambda: scene.tell([*true, scene.honest[1]])
    )
    # Of the same length as two chunks: it is read as two.
    yield Attack("CK-3.5", "(0, 2^40) in place of all chunks", lambda: scene.tell(pair))


def _common(scene: Scene) -> Iterator[Attack]:
    """Multiples of what hides the sum: each asks for the decryption under another secret."""
    now = scene.world.binding
    own = [common(now, chunk) for chunk in (0, 1)]
    for chunk, a in enumerate(own):
        yield Attack("CK-3.5", f"a_{chunk} added to chunk {chunk}", _added(scene, a, chunk))
    a = own[1]
    yield Attack("CK-3.5", "a_1 taken from chunk 1", _added(scene, (PRIME - a) % PRIME))
    for power in (1, 2048, 4095):
        yield Attack("CK-3.5", f"a_1 times X^{power} added", _added(scene, turned(a, power)))
    for power in (1, 20, 40, 59):
        factor = 1 << power
        yield Attack(
            "CK-3.5",
            f"a_1 times 2^{power} added",
            _added(scene, (a.astype(object) * factor % PRIME).astype(np.uint64)),
        )
    yield Attack("CK-3.5", "a_0 added to chunk 1", _added(scene, own[0]))
    yield Attack("CK-3.5", "a_1 for a_0: a_0 less a_1 added", _added(scene, (own[0] - a) % PRIME))
    for name, changes in {
        "the next attempt": {"attempt": now.attempt + 1},
        "the next round": {"round": now.round + 1},
        "another phase": {"phase": now.phase + 1},
        "another study": {"study_digest": bytes(32)},
        "another state": {"state_digest": bytes(32)},
    }.items():
        there = replace(now, **changes)  # type: ignore[arg-type]
        yield Attack("CK-3.5", f"a_1 of {name} added", _added(scene, common(there, 1)))
    yield Attack("CK-3.5", "a_1 in place of chunk 1", _instead(scene, a))
    # What is small is taken for what it is, whatever it is a multiple of.
    one = quotient(constant(2), a)
    assert (times(a, one) == constant(2)).all()
    yield Attack("CK-6.1", "a_1 times 2 / a_1 added", _added(scene, times(a, one)))


def _constants(scene: Scene) -> Iterator[Attack]:
    for power in (0, 5, 8, 20, 40, 59):
        yield Attack("CK-6.1", f"2^{power} added to chunk 1", _added(scene, constant(1 << power)))
    # Who has the key knows where the borders are; a combiner does not.
    noise = int(noise_of(scene.world, scene.honest)[1, PUSHED])
    half = scene.world.setting.params.scale // 2
    for goal, name in (
        (BOUND, "to its bound"),
        (BOUND + 1, "to one more than its bound"),
        (half - 1, "to half a step less one"),
        (half, "to half a step"),
        (2 * half - BOUND - 1, "to a step less one more than its bound"),
        (2 * half - BOUND, "to a step less its bound"),
        (-BOUND, "down to its bound"),
        (-BOUND - 1, "down to one more than its bound"),
        (-half, "down to half a step"),
        (-half - 1, "down to half a step and one"),
    ):
        yield Attack(
            "CK-5.4",
            f"the noise of a coefficient pushed {name}",
            _added(scene, words((goal - noise) % PRIME, PUSHED)),
        )


def _small(scene: Scene) -> Iterator[Attack]:
    """Small in every coefficient: what counts is the root mean square."""
    rng = np.random.default_rng(2)
    signs = rng.choice(np.array([-1, 1]), DEGREE)
    for size in (1, 2, 5):
        name = f"{size} added to or taken from each coefficient"
        yield Attack("CK-5.4", name, _added(scene, residues(size * signs)))
    for size in (1, 2, 5, 40):
        name = f"{size} added to each coefficient"
        yield Attack("CK-5.4", name, _added(scene, residues(np.full(DEGREE, size))))
    noise = noise_of(scene.world, scene.honest)[1]
    expected = np.sqrt(4 * 10.5)
    for percent in (11.95, 12.05, -11.95, -12.05):
        change = along(noise, expected * (1 + percent / 100))
        size = np.sqrt(((noise + change).astype(float) ** 2).mean())
        assert abs(size / expected - 1 - percent / 100) < 0.0002
        yield Attack(
            "CK-5.4",
            f"the noise of a chunk brought to {percent:+} %",
            _added(scene, residues(change)),
        )
    yield Attack("CK-5.4", "the noise of a chunk taken out", _added(scene, residues(-noise)))


def along(noise: NDArray[np.int64], goal: float) -> NDArray[np.int64]:
    """What brings the root mean square of ``noise`` to ``goal``: 2 more or less in many places."""
    size, gap = np.abs(noise), DEGREE * goal**2 - float((noise**2).sum())
    step = 2 if gap > 0 else -2
    gains = np.where(size >= 2, np.abs((size + step) ** 2 - size**2), 0)
    order = np.argsort(-gains)
    places = order[np.cumsum(gains[order]) <= abs(gap)]
    change = np.zeros(DEGREE, np.int64)
    change[places] = step * np.sign(noise[places])
    return change


def _whole(scene: Scene) -> Iterator[Attack]:
    """Aggregates that no site had a part in."""
    world, params = scene.world, scene.world.setting.params
    zeros, ones = pack_words(constant(0)), pack_words(words(PRIME - 1))
    yield Attack("CK-3.5", "all zeros", lambda: scene.tell([zeros] * 2))
    yield Attack("CK-3.5", "all words q - 1", lambda: scene.tell([ones] * 2))
    for chunk in (0, 1):
        yield Attack("CK-3.5", f"zeros in chunk {chunk}", _instead(scene, constant(0), chunk))
        yield Attack(
            "CK-3.5", f"every word q - 1 in chunk {chunk}", _instead(scene, words(PRIME - 1), chunk)
        )
    yield Attack("CK-3.5", "one in one coefficient", _instead(scene, words(1, at=77)))
    yield Attack("CK-3.5", "2^40 in one coefficient", _instead(scene, constant(1 << 40)))
    yield Attack(
        "CK-3.5", "random words", lambda: scene.tell([pack_words(drawn(1)), pack_words(drawn(2))])
    )
    yield Attack("CK-3.5", "a true chunk less its last word", _instead(scene, _without_last(scene)))
    yield Attack(
        "CK-3.5", "Δm: an own message in place of a chunk", _instead(scene, message(params, {0: 1}))
    )
    # The combiner as a site: with a secret and noise of its own, and a vector of ones.
    rng = np.random.default_rng(8)
    own = rng.integers(-1, 2, DEGREE)
    cipher = Encryptor(params, world.binding, own, bytes(32), scratch())
    made = cipher.encrypt(np.ones((2, params.capacity), np.uint32))
    mine = [made[:POLYNOMIAL_BYTES], made[POLYNOMIAL_BYTES:]]
    yield Attack("CK-3.5", "the combiner's own ciphertexts alone", lambda: scene.tell(mine))
    yield Attack(
        "CK-3.5",
        "the combiner's own ciphertexts added",
        lambda: scene.tell(
            [combined((1, a), (1, b)) for a, b in zip(scene.honest, mine, strict=True)]
        ),
    )
    true = unpack_words(scene.honest[1], "x")
    yield Attack("CK-3.5", "a chunk times X", _instead(scene, turned(true, 1)))
    yield Attack("CK-3.5", "a chunk and X times it", _added(scene, turned(true, 1)))
    mirrored = turned(true[::-1].copy(), 1)
    yield Attack("CK-3.5", "a chunk with 1/X for X", _instead(scene, mirrored))


def _without_last(scene: Scene) -> Polynomial:
    true = unpack_words(scene.honest[1], "x")
    true[-1] = 0
    return true


def _words(scene: Scene) -> Iterator[Attack]:
    """Numbers that are no residues."""
    for value, name in ((PRIME, "q"), (PRIME + 1, "q + 1"), ((1 << 60) - 1, "2^60 - 1")):
        for chunk in (0, 1):
            for at in (0, 4095):
                wrong = unpack_words(scene.honest[chunk], "x")
                wrong[at] = value
                yield Attack(
                    "CK-3.7",
                    f"word {at} of chunk {chunk} is {name}",
                    _instead(scene, wrong, chunk),
                )
    # A true number in its other form, which is below 2^60 for the least numbers only.
    small = unpack_words(scene.honest[1], "x")
    small[9] = 5 + PRIME
    yield Attack("CK-3.7", "5 written as q + 5", _instead(scene, small))
    yield Attack(
        "CK-3.7",
        "every bit set",
        lambda: scene.tell([scene.honest[0], b"\xff" * POLYNOMIAL_BYTES]),
    )


def recover(scene: Scene) -> None:
    """Decryptions must be shown to nobody: what zeros open to is a_0 times the sum of the secrets,

    and with that sum alone the sites' vectors' sum can be read.
    """
    world, params = scene.begin(), scene.world.setting.params
    a = common(world.binding, 0)
    shown = opener(world, world.names).decrypt(np.zeros((1, DEGREE), np.uint64))[0]
    found = quotient(shown, a)
    # The sum of four secrets, each -1, 0 or 1.
    assert set(np.unique((found + Q(4)) % Q(PRIME))) == set(range(9))
    total = unpack_words(scene.honest[0], "x")

    def opened(under: Polynomial) -> list[int]:
        plain = (total + times(a, under)) % Q(PRIME)
        return unpack(plain[None], params, world.sites)[0][0].tolist()

    read = opened(found)
    assert read[world.sites : params.payload] == world.total[: params.payload - world.sites]
    try:
        opened((found + words(1, at=5)) % Q(PRIME))
    except SumOutOfRange:
        return
    raise AssertionError("the sum was read under another secret")


def recover_from_noise(scene: Scene) -> None:
    """Li and Micciancio 2021: m + e - b is a_j times the sum of the secrets. A sum is known to

    many; so what was rounded off is shown to nobody. Without it this gives no secret.
    """
    world, params = scene.begin(), scene.world.setting.params
    told = np.stack([unpack_words(each, "x") for each in scene.honest])
    plain = opener(world, world.names).decrypt(told)
    values, noise = unpack(plain, params, world.sites)
    sums = np.zeros(DEGREE, np.uint64)
    for digit, part in enumerate(values[1].reshape(-1, DEGREE)):
        sums += part.astype(np.uint64) << Q(params.digit_bits * digit + params.scale_bits)
    true = sum(secret(world, name) for name in world.names)
    hidden = (sums + (Q(PRIME) - told[1])) % Q(PRIME)
    a = common(world.binding, 1)
    found = quotient((hidden + residues(noise[1])) % Q(PRIME), a)
    assert (found == residues(true)).all()
    assert (quotient(hidden, a) != residues(true)).mean() > 0.99


# Products and quotients, in Python's numbers -----------------------------------------------------


_ROOT = next(
    root
    for root in (pow(g, (PRIME - 1) // (2 * DEGREE), PRIME) for g in range(2, 99))
    if pow(root, DEGREE, PRIME) == PRIME - 1
)
"""A root of X^N + 1."""


def _powers(root: int, count: int) -> NDArray[np.object_]:
    out = [1]
    for _ in range(count - 1):
        out.append(out[-1] * root % PRIME)
    return np.array(out, object)


def _transformed(numbers: NDArray[np.object_], root: int) -> NDArray[np.object_]:
    """Values of a polynomial at the powers of ``root``, in their order."""
    if numbers.size == 1:
        return numbers
    even, odd = (_transformed(numbers[at::2], root * root % PRIME) for at in (0, 1))
    odd = odd * _powers(root, odd.size)
    return np.concatenate(((even + odd) % PRIME, (even - odd) % PRIME))


def _values(polynomial: Polynomial) -> NDArray[np.object_]:
    """At all roots of X^N + 1."""
    return _transformed(
        polynomial.astype(object) * _powers(_ROOT, DEGREE) % PRIME, _ROOT * _ROOT % PRIME
    )


def _with_values(values: NDArray[np.object_]) -> Polynomial:
    back = pow(_ROOT, -1, PRIME)
    out = _transformed(values, back * back % PRIME) * pow(DEGREE, -1, PRIME) % PRIME
    return (out * _powers(back, DEGREE) % PRIME).astype(np.uint64)


def times(a: Polynomial, b: Polynomial) -> Polynomial:
    return _with_values(_values(a) * _values(b) % PRIME)


def quotient(a: Polynomial, b: Polynomial) -> Polynomial:
    """a / b, where b has an inverse."""
    inverses = np.array([pow(value, -1, PRIME) for value in _values(b)], object)
    return _with_values(_values(a) * inverses % PRIME)
