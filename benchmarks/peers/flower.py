"""Flower's SecAgg+ client for one vector: its own functions, called in its client's order.

The order is that of ``flwr.client.mod.secure_aggregation.secaggplus_mod``: quantise, put the weight
in front, add the self mask, add or subtract the mask of every neighbour, take the modulus, and one
``bytes`` an array. Key agreement and secret sharing come before and are left out here, as is the
multiplication by the weight, which is no part of quantising. The parameters are the defaults of
its ``SecAggPlusWorkflow``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

CLIPPING_RANGE = 8.0
TARGET_RANGE = 1 << 22
MOD_RANGE = 1 << 32

Vectors: TypeAlias = list[NDArray[Any]]


class PeerMissing(Exception):
    """Flower is not installed, or has moved the functions that are measured."""

    def __init__(self, reason: ImportError) -> None:
        super().__init__(
            f"Flower's SecAgg+ cannot be measured ({reason}); "
            "install it with: pip install 'fedbcs-secure[bench]'"
        )


@dataclass(frozen=True)
class _Primitives:
    quantize: Callable[[Vectors, float, int], Vectors]
    factor_combine: Callable[[int, Vectors], Vectors]
    pseudo_rand_gen: Callable[[bytes, int, list[tuple[int, ...]]], Vectors]
    addition: Callable[[Vectors, Vectors], Vectors]
    subtraction: Callable[[Vectors, Vectors], Vectors]
    mod: Callable[[Vectors, int], Vectors]
    ndarray_to_bytes: Callable[[NDArray[Any]], bytes]


@functools.cache
def _primitives() -> _Primitives:
    try:
        from flwr.common import ndarray_to_bytes
        from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
        from flwr.common.secure_aggregation.quantization import quantize
        from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    except ImportError as reason:
        raise PeerMissing(reason) from reason
    return _Primitives(
        quantize,
        arithmetic.factor_combine,
        pseudo_rand_gen,
        arithmetic.parameters_addition,
        arithmetic.parameters_subtraction,
        arithmetic.parameters_mod,
        ndarray_to_bytes,
    )


def installed_version() -> str:
    """Flower's version. Raises :class:`PeerMissing` when its functions cannot be imported."""
    _primitives()
    return version("flwr")


def quantise(update: NDArray[np.float32]) -> Vectors:
    """The weight and the (P,) integers of a (P,) ``update``, stochastically rounded."""
    flower = _primitives()
    codes = flower.quantize([update], CLIPPING_RANGE, TARGET_RANGE)
    return flower.factor_combine(TARGET_RANGE, codes)


def mask(quantised: Vectors, seeds: Sequence[tuple[bytes, bool]]) -> Vectors:
    """``quantised`` with the mask of each seed added (True) or subtracted; the self mask first.

    A seed has a length that is a multiple of 4, as Flower asks for.
    """
    flower = _primitives()
    shapes = [vector.shape for vector in quantised]
    for seed, adds in seeds:
        noise = flower.pseudo_rand_gen(seed, MOD_RANGE, shapes)
        quantised = (flower.addition if adds else flower.subtraction)(quantised, noise)
    return flower.mod(quantised, MOD_RANGE)


def serialise(masked: Vectors) -> list[bytes]:
    """What the client hands to the transport: one ``bytes`` for the weight, one for the vector."""
    flower = _primitives()
    return [flower.ndarray_to_bytes(vector) for vector in masked]
