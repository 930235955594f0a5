"""Where the network runs and in which precision."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

from fedbcs_secure.errors import FedBCSError

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Runtime:
    """A device and the number format of its forward pass (losses stay float32)."""

    device: torch.device
    precision: Literal["float32", "bfloat16"]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def __str__(self) -> str:
        return f"{self.device.type} {self.precision}"


def choose(device: DeviceChoice = "auto", precision: Precision = "auto") -> Runtime:
    """``auto`` takes CUDA, then MPS, then the CPU; bfloat16 where a CUDA card computes in it.

    On the CPU the kernels are pinned to deterministic ones, so that a seed repeats a run to the
    bit. Raises :class:`FedBCSError` when the device asked for is not there.
    """
    have = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        kind = next(name for name, there in have.items() if there)
    elif have[device]:
        kind = device
    else:
        raise FedBCSError(
            f"device {device!r} was asked for, but this PyTorch sees none; "
            "use --device cpu or install a matching build"
        )
    if kind == "cpu":
        torch.use_deterministic_algorithms(True)
    if precision == "auto":
        fast = kind == "cuda" and torch.cuda.is_bf16_supported()
        return Runtime(torch.device(kind), "bfloat16" if fast else "float32")
    return Runtime(torch.device(kind), precision)


def set_threads(count: int | None) -> None:
    """Limit the CPU threads of the process; None leaves torch's choice."""
    if count is not None:
        torch.set_num_threads(count)
