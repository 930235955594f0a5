"""Where the network runs and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
        """The context of a forward pass in this precision."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextlib.contextmanager
    def repeatable(self) -> Iterator[None]:
        """Deterministic kernels on the CPU while the context lasts, so a seed repeats a run."""
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(before or self.device.type == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)

    def __str__(self) -> str:
        return f"{self.device.type} {self.precision}"


def choose(device: DeviceChoice = "auto", precision: Precision = "auto") -> Runtime:
    """``auto`` takes CUDA, then MPS, then the CPU; bfloat16 where a CUDA card computes in it.

    Raises :class:`FedBCSError` when the device asked for is not there.
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
    if precision == "auto":
        fast = kind == "cuda" and torch.cuda.is_bf16_supported()
        return Runtime(torch.device(kind), "bfloat16" if fast else "float32")
    return Runtime(torch.device(kind), precision)


def set_threads(count: int | None) -> int:
    """Limit the CPU threads of the process (None leaves torch's choice) and return their number.

    Another number of threads adds up in another order: a seed repeats a run at the same number.
    """
    if count is not None:
        torch.set_num_threads(count)
    return torch.get_num_threads()
