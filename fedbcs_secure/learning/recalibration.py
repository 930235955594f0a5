"""FSR, frequency-domain style recalibration, in closed form.

The paper (arXiv 2511.10945) mixes the Fourier amplitudes of ``instance_norm(x)`` and of ``x`` and
keeps the phase of ``x``. Instance normalisation changes only the scale of a channel and its DC
term, so it leaves every other phase alone, and the mixture is exactly

    FSR(x) = gain · (s0 · instance_norm(x) + s1 · x) + shift,    s = softmax(mix / 0.1),

which is one multiplication and one addition a pixel, with two numbers for each image and channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TEMPERATURE = 0.1
EPSILON = 1e-5


class _Recalibrate(torch.autograd.Function):
    """``x·a + b`` with ``a = gain·(s0·r + s1)``, ``b = shift − gain·s0·r·m`` a (image, channel).

    ``m`` is the mean and ``r`` the reciprocal deviation of the channel. Written in steps that torch
    runs at memory speed on a CPU (``var_mean`` takes ten times as long as a mean and a norm), with
    one new map in each direction.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, shares: Tensor) -> Tensor:
        rows = x.reshape(x.shape[0], x.shape[1], -1)
        mean = rows.mean(dim=2)
        result = rows - mean[..., None]
        variance = torch.linalg.vector_norm(result, dim=2).square() / rows.shape[2]
        reciprocal = torch.rsqrt(variance + EPSILON)
        scale = gain * (shares[0] * reciprocal + shares[1])
        offset = shift + gain * shares[1] * mean
        ctx.save_for_backward(x, gain, shares, mean, reciprocal, scale)
        return result.mul_(scale[..., None]).add_(offset[..., None]).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two sums, ``Σ g`` and ``Σ g·x``, then ``grad_x = a·g + c1·x + c0`` a channel."""
        x, gain, shares, mean, reciprocal, scale = ctx.saved_tensors
        images, channels = x.shape[:2]
        rows = x.reshape(images * channels, 1, -1)
        cotangent = grad.reshape(images * channels, 1, -1)
        pixels = rows.shape[2]
        total = cotangent.sum(dim=2).view(images, channels)
        product = torch.bmm(cotangent, rows.transpose(1, 2)).view(images, channels)
        # Σ g·(x − m), the derivative by r up to the factor gain·s0
        centred = product - mean * total
        per_pixel = gain * shares[0] / pixels
        slope = -per_pixel * reciprocal.pow(3) * centred
        constant = -per_pixel * reciprocal * total - slope * mean
        grad_x = cotangent * scale.view(-1, 1, 1)
        grad_x.addcmul_(rows, slope.view(-1, 1, 1)).add_(constant.view(-1, 1, 1))
        normalised = reciprocal * centred
        grad_gain = (shares[0] * normalised + shares[1] * product).sum(dim=0)
        grad_shares = torch.stack(((gain * normalised).sum(), (gain * product).sum()))
        return grad_x.view(x.shape), grad_gain, total.sum(dim=0), grad_shares


class StyleRecalibration(nn.Module):
    """``gain·(s0·instance_norm(x) + s1·x) + shift`` with ``s = softmax(mix / 0.1)``.

    (B, C, H, W) to the same shape; biased variance, eps 1e-5. Starts as the plain average of the
    normalised and the given map. Each image is treated by itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.mix = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.mix / TEMPERATURE, dim=0)
        result: Tensor = _Recalibrate.apply(x, self.gain, self.shift, shares)
        return result
