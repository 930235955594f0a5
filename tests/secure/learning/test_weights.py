from __future__ import annotations

import numpy as np
import pytest

from fedbcs_secure.learning.initial import initial_weights
from fedbcs_secure.learning.unet import NetworkConfig, UNet
from fedbcs_secure.learning.weights import (
    flatten,
    load_flat,
    split,
    tensor_specs,
    weights_sha256,
)

CONFIG = NetworkConfig(channels=1, classes=2, width=4, fused_width=3)


def test_flat_vector_round_trip() -> None:
    network = UNet(CONFIG)
    size = sum(spec.size for spec in tensor_specs(network))
    weights = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    load_flat(network, weights)
    assert np.array_equal(flatten(network), weights)
    named = split(weights, tensor_specs(network))
    for name, parameter in network.named_parameters():
        assert np.array_equal(named[name], parameter.detach().numpy())


@pytest.mark.parametrize("wrong", [0, 1])
def test_wrong_length_is_refused(wrong: int) -> None:
    network = UNet(CONFIG)
    size = flatten(network).size + (1 if wrong else -1)
    with pytest.raises(ValueError, match="expected"):
        load_flat(network, np.zeros(size, np.float32))
    with pytest.raises(ValueError):
        split(np.zeros(size, np.float32), tensor_specs(network))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first = initial_weights(UNet(CONFIG), 3)
    network = UNet(CONFIG)
    load_flat(network, first * 7)
    # gains and mixing keep what the network has, so compare the kernels
    again = split(initial_weights(UNet(CONFIG), 3), tensor_specs(network))
    other = split(initial_weights(UNet(CONFIG), 4), tensor_specs(network))
    named = split(first, tensor_specs(network))
    for name, array in named.items():
        assert np.array_equal(array, again[name])
        if array.ndim >= 2:
            assert not np.array_equal(array, other[name])
            bound = 1 / np.sqrt(np.prod(array.shape[1:]))
            assert np.abs(array).max() <= bound
            if array.size > 500:
                assert abs(array.std() / bound - 1 / np.sqrt(3)) < 0.06
        elif name.endswith("bias"):
            assert not array.any()


def test_initial_weights_known_answer() -> None:
    """All sites compute these themselves: another platform or version must find the same bits."""
    named = split(initial_weights(UNet(CONFIG), 42), tensor_specs(UNet(CONFIG)))
    assert weights_sha256(named) == KNOWN


def test_fingerprint_covers_names_shapes_and_values() -> None:
    base = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    others = [
        {"b": base["a"]},
        {"a": base["a"].reshape(3, 2)},
        {"a": base["a"] + np.float32(1e-7)},
        {"a": base["a"], "b": base["a"]},
    ]
    digests = {weights_sha256(x) for x in [base, *others]}
    assert len(digests) == 4 + (not np.array_equal(base["a"], others[2]["a"]))
    assert weights_sha256({"a": np.asfortranarray(base["a"])}) == weights_sha256(base)


KNOWN = "dbecaa91851657fb1b675978abb3868bcb379efb9f2d8fd4304b4a60db75467c"
