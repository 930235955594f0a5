"""DP-SGD whose unit is the patient: one clipped gradient a patient, noise on integers (DP-3).

Opacus's optimizer with its two steps that floating point makes unprovable done in integers. A
patient's gradient g becomes ``trunc(g · L / max(‖g‖, C))``, integers of length at most L, checked
exactly; integers are added exactly; and the noise is a discrete Gaussian of standard deviation
W ≥ σL. Whatever is done with the sum afterwards costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.accountants.accountant import IAccountant
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedbcs_secure.errors import PrivacyError, StudyError
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.randomness import SecretStream
from fedbcs_secure.privacy.wide_gaussian import WIDTH_SQUARED, wide_gaussian

MAX_LENGTH = 1 << 24
"""Of a patient's integers: their squares add up exactly in float64."""

Noise = Callable[[int, SecretStream], NDArray[np.int64]]


def length_limit(noise_multiplier: float) -> int:
    """L, the most integer length that noise of the fixed width W covers: floor(W / σ).

    Raises :class:`PrivacyError` when that is no length, or the noise hardly any.
    """
    ratio = WIDTH_SQUARED / Fraction(noise_multiplier) ** 2
    limit = math.isqrt(ratio.numerator // ratio.denominator)
    if not 1 <= limit <= MAX_LENGTH:
        least = math.sqrt(WIDTH_SQUARED) / MAX_LENGTH
        most = math.sqrt(WIDTH_SQUARED)
        raise PrivacyError(
            f"a noise multiplier of {noise_multiplier:g} is outside {least:.2g} to {most:.2g}"
        )
    return limit


def on_grid(gradient: Sequence[Tensor], clip: float, limit: int) -> list[Tensor] | None:
    """One patient's gradient as int64 of length at most ``limit``, which stands for ``clip``.

    Truncation is toward zero, so it never lengthens; rounding does (DP-3.2). None if the gradient
    is not finite: the patient then contributes nothing.
    """
    exact = [_precise(part.detach()) for part in gradient]
    square = float(sum(part.square().sum() for part in exact))
    if not math.isfinite(square):
        return None
    scale = limit / max(math.sqrt(square), clip)
    while True:
        units = [torch.trunc(part * scale) for part in exact]
        # DP-3.2: exact, since all partial sums below 2^53 are.
        if float(sum(part.square().sum() for part in units)) <= limit**2:
            return [part.long() for part in units]
        scale *= 1 - 2.0**-20


def _precise(part: Tensor) -> Tensor:
    """float64, which Apple's devices do not have."""
    return (part.cpu() if part.device.type == "mps" else part).double()


class EventAccountant(IAccountant):
    """Opacus's accountant interface; gathers what the ledger books."""

    def __init__(self) -> None:
        super().__init__()
        self.events = Events()

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        self.events += Gaussian(noise_multiplier, sample_rate).times(1)

    def get_epsilon(self, delta: float, *_: Any, **__: Any) -> float:
        from fedbcs_secure.privacy.accountant import epsilon

        return epsilon(self.events, delta)

    def __len__(self) -> int:
        return sum(count for _, count in self.events.parts)

    @classmethod
    def mechanism(cls) -> str:
        return "fedbcs-secure"


class PatientOptimizer(DPOptimizer):
    """An optimizer whose step sees nothing of a patient but the noised sum.

    :meth:`take` the gradient of each sampled patient, then :meth:`step`, also when there was none.
    ``expected`` is q·n̄, from the study: a count of today's patients would be data. ``dropped``
    counts gradients that were not finite, for this site's eyes.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        clip: float,
        expected: float,
        stream: SecretStream,
        noise: Noise = wide_gaussian,
    ) -> None:
        if optimizer.state:
            raise PrivacyError("the optimizer has seen gradients before; begin with a fresh one")
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=expected,
        )
        self.dropped = 0
        # What a run that broke off may have left would be added to somebody's gradient.
        self.zero_grad(set_to_none=True)
        self._limit = length_limit(noise_multiplier)
        self._stream, self._noise = stream, noise

    def take(self) -> None:
        """Clip and add the gradient that is in the parameters, and clear it."""
        for parameter in self.params:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            parameter.grad_sample, parameter.grad = gradient.detach()[None], None
        self.clip_and_accumulate()
        for parameter in self.params:
            parameter.grad_sample = None

    def drop(self) -> None:
        """Take nothing of a patient whose data break the computation (DP-3.4)."""
        for parameter in self.params:
            parameter.grad = None
        self.dropped += 1

    def clip_and_accumulate(self) -> None:
        samples = [parameter.grad_sample for parameter in self.params]
        for index in range(len(samples[0])):
            units = on_grid([s[index] for s in samples], self.max_grad_norm, self._limit)
            if units is None:
                self.dropped += 1
                continue
            for parameter, part in zip(self.params, units, strict=True):
                held = parameter.summed_grad
                parameter.summed_grad = part if held is None else held + part

    def add_noise(self) -> None:
        sizes = [parameter.numel() for parameter in self.params]
        drawn = torch.from_numpy(self._noise(sum(sizes), self._stream)).split(sizes)
        grid = self.max_grad_norm / self._limit
        for parameter, noise in zip(self.params, drawn, strict=True):
            total = noise.view_as(parameter)
            if parameter.summed_grad is not None:
                total = total.to(parameter.summed_grad.device) + parameter.summed_grad
            parameter.grad = (total.double() * grid).to(parameter.dtype).to(parameter.device)

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One noisy step over what was taken. A step without patients is a step (DP-3.1)."""
        for parameter in self.params:
            # Opacus counts the batches here; gradients have been added already.
            parameter.grad_sample = torch.zeros((0, *parameter.shape), device=parameter.device)
        super().step(closure)
        self.zero_grad(set_to_none=True)


def check_network(network: nn.Module) -> None:
    """Refuse layers that mix patients or remember them (DP-3.5). Raises :class:`StudyError`.

    Opacus lets ``BatchNorm2d(affine=False, track_running_stats=False)`` pass, whose gradients are
    not one patient's.
    """
    for name, module in network.named_modules():
        running = isinstance(module, _InstanceNorm) and module.track_running_stats
        if isinstance(module, _BatchNorm) or running:
            raise StudyError(
                f"differential privacy: layer {name} ({type(module).__name__}) keeps or mixes "
                'statistics of patients; use norm = "instance" or "group"'
            )
