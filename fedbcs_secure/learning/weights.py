"""A network's parameters as one flat vector, in the order of ``named_parameters``."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedbcs_secure.learning.unet import UNet


@dataclass(frozen=True)
class TensorSpec:
    """One named parameter of the flat vector."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def tensor_specs(network: UNet) -> tuple[TensorSpec, ...]:
    """Names and shapes in the order of the flat vector."""
    return tuple(TensorSpec(n, tuple(p.shape)) for n, p in network.named_parameters())


def flatten(network: UNet) -> NDArray[np.float32]:
    """The parameters as (P,) float32."""
    with torch.no_grad():
        flat = torch.cat([p.detach().reshape(-1).float() for p in network.parameters()])
    return flat.cpu().numpy()


def load_flat(network: UNet, weights: NDArray[np.float32]) -> None:
    """Copy (P,) float32 into the network. Raises ValueError when P does not match."""
    expected = sum(p.numel() for p in network.parameters())
    if weights.shape != (expected,):
        raise ValueError(f"expected ({expected},) weights, got {weights.shape}")
    flat = torch.tensor(weights)
    start = 0
    with torch.no_grad():
        for parameter in network.parameters():
            stop = start + parameter.numel()
            parameter.copy_(flat[start:stop].view_as(parameter))
            start = stop


def split(
    weights: NDArray[np.float32], specs: Sequence[TensorSpec]
) -> dict[str, NDArray[np.float32]]:
    """Named arrays of a flat vector."""
    out: dict[str, NDArray[np.float32]] = {}
    start = 0
    for spec in specs:
        out[spec.name] = weights[start : start + spec.size].reshape(spec.shape)
        start += spec.size
    if start != weights.size:
        raise ValueError(f"expected {start} weights, got {weights.size}")
    return out


def weights_sha256(tensors: dict[str, NDArray[np.float32]]) -> str:
    """SHA-256 over (name, shape, little-endian float32 bytes), in sorted order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype="<f4")
        header = name.encode() + b"\x00" + struct.pack("<I", array.ndim)
        digest.update(header + struct.pack(f"<{array.ndim}q", *array.shape))
        digest.update(array.data)
    return digest.hexdigest()
