"""The noise is what the formula says: every margin rests on that."""

from __future__ import annotations

import numpy as np
import pytest
from ckks_world import SECRET, scratch

from fedbcs_protocols.ckks.cipher import Context, SecretContext
from fedbcs_protocols.ckks.packing import check_noise, pack, unpack
from fedbcs_protocols.ckks.params import (
    DEGREE,
    ParameterSet,
    parameter_set,
    variance,
    variance_bounds,
)

CHUNKS = 8
"""A standard deviation from 8 · 4096 components is within 5 % of the true one but for a chance of
about 10^-36 (its own relative deviation is 1/√(2·32768) = 0.4 %, and components of a ciphertext are
nearly independent). With 64 sites two chunks are taken: 2·10^-10."""


@pytest.mark.parametrize("added", [1, 4, 64])
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_standard_deviation(added: int, kind: str) -> None:
    params = parameter_set(64, 16)
    cipher = SecretContext(params, scratch(), SECRET, bytes(32), 1)
    context, squares = Context(params, scratch()), 0.0
    rng = np.random.default_rng(3)

    def fresh() -> object:
        values = np.full(params.capacity, 1 << 15, np.uint32)
        if kind == "random":
            values = rng.integers(0, 1 << 16, params.capacity).astype(np.uint32)
        return context.fresh(cipher.encrypt(pack(values, params)), "x")

    for _ in range(CHUNKS if added < 64 else 2):
        total = fresh()
        for _ in range(added - 1):
            context.evaluator.add_inplace(total, fresh())
        squares += unpack(cipher.decrypt(total), params, added)[1]
    chunks = CHUNKS if added < 64 else 2
    measured = np.sqrt(squares / chunks / DEGREE) * params.scale
    assert measured == pytest.approx(np.sqrt(variance(added)), rel=0.05)


def test_sites_that_all_send_the_same() -> None:
    """Then the encoder rounds alike at all of them, and that error adds up: CK-1.3 counts on it."""
    params = parameter_set(64, 16)
    cipher = SecretContext(params, scratch(), SECRET, bytes(32), 1)
    context = Context(params, scratch())
    values = np.random.default_rng(5).integers(0, 1 << 16, params.capacity).astype(np.uint32)
    total = context.fresh(cipher.encrypt(pack(values, params)), "x")
    for _ in range(63):
        context.evaluator.add_inplace(
            total, context.fresh(cipher.encrypt(pack(values, params)), "x")
        )
    got, squares = unpack(cipher.decrypt(total), params, 64)
    assert np.array_equal(got, 64 * values)
    check_noise(squares, DEGREE, params, 64)
    measured = np.sqrt(squares / DEGREE) * params.scale
    assert measured == pytest.approx(np.sqrt(variance_bounds(64)[1]), rel=0.05)
    assert measured > 1.1 * np.sqrt(variance(64))


def test_noise_is_centred_and_bell_shaped() -> None:
    """No more tail than a Gaussian's: of 32,768 components none beyond 6 deviations (chance 10^-4),

    and the fourth moment is that of a sum of many terms.
    """
    params = parameter_set(4, 16)
    cipher = SecretContext(params, scratch(), SECRET, bytes(32), 1)
    values = np.full(params.capacity, 1 << 15, np.uint32)
    seen = []
    for _ in range(CHUNKS):
        data = cipher.encrypt(pack(values, params))
        seen.append(cipher.decrypt(cipher.fresh(data, "x")).view(np.float64))
    noise = np.concatenate(seen) * params.scale / np.sqrt(variance(1))
    assert abs(noise.mean()) < 6 / np.sqrt(noise.size)
    assert np.abs(noise).max() < 6
    assert (noise**4).mean() == pytest.approx(3, abs=0.25)


@pytest.mark.parametrize(("sites", "bits"), [(3, 16), (4, 16), (64, 16), (8, 20), (8, 12)])
def test_the_margin_in_standard_deviations(sites: int, bits: int) -> None:
    params: ParameterSet = parameter_set(sites, bits)
    assert params.scale / 2 / np.sqrt(params.variance) == params.margin_sigmas >= 10
