"""Ciphertexts that nobody encrypted, put into an aggregate that enough sites have signed for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ckks_cast import (
    Attack,
    Polynomial,
    Scene,
    constant,
    drawn,
    halves,
    message,
    plus,
    whole,
    with_key,
    words,
)
from tenseal import sealapi

from fedbcs_protocols.ckks.cipher import POLYNOMIAL_BYTES, Context
from fedbcs_protocols.ckks.params import DEGREE, PRIME


def attacks() -> Iterator[Attack]:
    scene = Scene()
    world, honest = scene.world, scene.honest
    context, zero = world.context, constant(0)

    yield Attack("CK-5.1", "what no attack is: the true aggregate", lambda: scene.tell(honest))
    yield Attack(
        "CK-6.1", "who sees what (0, 2^40) decrypts to has the key", lambda: recover(scene)
    )

    def instead(first: Polynomial, second: Polynomial, chunk: int) -> object:
        told = list(honest)
        told[chunk] = whole(first, second)
        return scene.tell(told)

    for value, name in ((1 << 40, "2^40"), (1, "1"), (9, "9"), (-1, "-1")):
        for chunk in (0, 1):
            yield Attack(
                "CK-6.1",
                f"(0, {name}) in place of chunk {chunk}",
                lambda v=value, c=chunk: instead(zero, constant(v), c),  # type: ignore[misc]
            )
    yield Attack(
        "CK-6.1",
        "(0, 2^40) in place of both chunks",
        lambda: scene.tell([whole(zero, constant(1 << 40))] * 2),
    )
    for power in (0, 1, 3, 6, 20, 40):
        yield Attack(
            "CK-6.1",
            f"(0, 2^{power}) added to chunk 1",
            lambda p=power: scene.tell([honest[0], plus(honest[1], zero, constant(1 << p))]),  # type: ignore[misc]
        )
    yield Attack(
        "CK-3.5",
        "(Δm, 0): an own message in place of a chunk",
        lambda: instead(message(context, {0: 1.0}), zero, 1),
    )
    yield Attack(
        "CK-3.5",
        "c1 = 0 under the true c0",
        lambda: instead(halves(honest[0])[0], zero, 0),
    )
    yield Attack("CK-3.5", "all zeros", lambda: scene.tell([whole(zero, zero)] * 2))
    yield Attack(
        "CK-5.3",
        "c1 of one word that is not zero",
        lambda: instead(halves(honest[1])[0], words(1, at=77), 1),
    )
    yield Attack("CK-5.3", "c0 and c1 exchanged", lambda: instead(*halves(honest[1])[::-1], 1))
    yield Attack(
        "CK-5.3",
        "random words",
        lambda: scene.tell([whole(drawn(1), drawn(2)), whole(drawn(3), drawn(4))]),
    )
    yield Attack(
        "CK-5.3", "every word q - 1", lambda: instead(words(PRIME - 1), words(PRIME - 1), 1)
    )
    yield Attack(
        "CK-5.3", "one word q - 1", lambda: instead(drawn(5), words(PRIME - 1, at=4095), 1)
    )
    for value, name in ((PRIME, "q"), (PRIME + 1, "q + 1"), ((1 << 60) - 1, "2^60 - 1")):
        for half, which in enumerate(("c0", "c1")):
            for at in (0, 4095):
                wrong = [drawn(6), drawn(7)]
                wrong[half][at] = value
                yield Attack(
                    "CK-3.3",
                    f"word {at} of {which} is {name}",
                    lambda w=tuple(wrong): instead(*w, 0),  # type: ignore[misc]
                )
    yield Attack(
        "CK-3.3",
        "every bit set",
        lambda: scene.tell([honest[0], b"\xff" * 2 * POLYNOMIAL_BYTES]),
    )


def recover(scene: Scene) -> None:
    """The attack is real: SEAL's own decryptor gives the key for (0, 2^40), coefficient by
    coefficient, and with that alone the sites' sum can be read.
    """
    context = with_key(scene.begin())
    scale = context.params.scale
    shown = context.decrypt(context.both(whole(constant(0), constant(1 << 40)), "x"))
    key = np.rint(_coefficients(shown) * scale / 2**40)
    assert set(np.unique(key)) == {-1, 0, 1}
    true = np.rint(context.decrypt(context.both(scene.honest[1], "x")).view(np.float64))
    for tried, share in ((key, 1.0), (np.where(np.arange(DEGREE) == 5, key + 1, key), 0.0)):
        # c0 + c1·s, in Python's numbers.
        first, second = (half.astype(object) for half in halves(scene.honest[1]))
        read = (first + second * _as_words(context, tried).astype(object)) % PRIME
        # SEAL decodes: (read - s, 1) is a ciphertext of what was read.
        rest = ((read - _as_words(context, key).astype(object)) % PRIME).astype(np.uint64)
        slots = context.decrypt(context.both(whole(rest, constant(1)), "x"))
        assert np.isclose((np.rint(slots.view(np.float64)) == true).mean(), share, atol=0.01)


def _roots() -> np.ndarray:
    """SEAL's slot i is the value at ζ^(3^i), ζ = exp(πi/N); the powers as odd numbers' halves."""
    powers = np.array([pow(3, at, 2 * DEGREE) for at in range(DEGREE // 2)])
    return (powers - 1) // 2


_TWIST = np.exp(1j * np.pi * np.arange(DEGREE) / DEGREE)


def _coefficients(slots: np.ndarray) -> np.ndarray:
    """(N/2,) slots as the (N,) coefficients of the real polynomial that has them."""
    values = np.zeros(DEGREE, complex)
    values[_roots()] = slots
    values[DEGREE - 1 - _roots()] = np.conj(slots)
    return (np.fft.fft(values) / DEGREE / _TWIST).real


def _as_words(context: Context, coefficients: np.ndarray) -> Polynomial:
    """Small whole coefficients in NTT form, by SEAL's encoder."""
    values = np.fft.ifft(coefficients * _TWIST) * DEGREE
    plain = sealapi.Plaintext()
    context.encoder.encode(values[_roots()].tolist(), 1.0, plain)
    return np.array([plain.data(at) for at in range(DEGREE)], np.uint64)
