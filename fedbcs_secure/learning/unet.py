"""The U-Net of FedBCS (arXiv 2511.10945), with style recalibration and fusion as options.

A block is twice (3x3 convolution without bias, normalisation, ReLU). Four levels down by 2x2
maximum, a bottleneck, four levels up by 2x2 transposed convolutions joined as (up, skip), and a 1x1
head. Level k has ``width·2^k`` channels at H/2^k, the bottleneck ``16·width`` at H/16.

No normalisation has a gain or shift of its own, as published: the convolution after it (or FSR's)
scales the channel anyway, a site sends fewer numbers, and the parameter count stays the paper's.
Instance normalisation treats every image by itself. ``batch`` uses the statistics of the batch at
hand, in evaluation too, so a prediction depends on its neighbours: it is here for parity only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbcs_secure.errors import ModelError
from fedbcs_secure.learning.fusion import Features, Fusion
from fedbcs_secure.learning.recalibration import StyleRecalibration
from fedbcs_secure.study import Study

Norm = Literal["instance", "group", "batch"]
Placement = Literal["off", "published", "all"]

LEVELS = (0, 1, 2, 3)
_DIVISOR = 16
_GROUPS = 8
_EPSILON = 1e-5
_PLACES: dict[Placement, tuple[str, ...]] = {
    "off": (),
    "published": ("enc1", "enc2", "enc3"),
    "all": tuple(f"{path}{level}" for path in ("enc", "dec") for level in LEVELS),
}


@dataclass(frozen=True)
class NetworkConfig:
    """What fixes the shape of every tensor of the network.

    ``width`` is f; ``fused_width`` is d, 0 for a network without fusion convolutions. The
    parameters of the submodules ``frozen`` take no gradient.
    """

    channels: int
    classes: int
    width: int
    norm: Norm = "instance"
    fsr: Placement = "published"
    fused_width: int = 0
    frozen: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: Study) -> NetworkConfig:
        """The network of a study; fusion convolutions exist only where alignment uses them."""
        resolved = study.resolved()
        aligned = resolved.alignment.form != "off"
        return cls(
            channels=resolved.data.channels,
            classes=resolved.data.classes,
            width=resolved.model.width,
            norm=resolved.model.norm,
            fsr=resolved.model.fsr or "off",
            fused_width=(resolved.model.fused_width or 0) if aligned else 0,
            frozen=resolved.model.frozen,
        )

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of levels 0 to 3."""
        return tuple(self.width * 2**level for level in LEVELS)


class _Normalise(nn.Module):
    """Zero mean and unit variance over a channel of an image, a channel group, or a batch.

    Biased variance, eps 1e-5. Instance normalisation is group normalisation with a group for each
    channel, which torch runs about four times faster on a CPU. The operators are called directly:
    their wrappers refuse the 1x1 bottleneck of a 16-pixel image, whose normalised value is just 0.
    """

    def __init__(self, norm: Norm, channels: int) -> None:
        super().__init__()
        self.norm = norm
        self.groups = channels if norm == "instance" else math.gcd(channels, _GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm == "batch":
            return torch.batch_norm(x, None, None, None, None, True, 0.0, _EPSILON, True)
        return torch.group_norm(x, self.groups, eps=_EPSILON)


class Block(nn.Module):
    """Twice (3x3 convolution without bias, normalisation, ReLU)."""

    def __init__(self, entering: int, leaving: int, norm: Norm) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(entering, leaving, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.norm = _Normalise(norm, leaving)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.conv0(x)))
        return torch.relu_(self.norm(self.conv1(x)))


class UNet(nn.Module):
    """(B, channels, H, W) to :class:`Features`; H and W are multiples of 16.

    Submodules ``enc0``-``enc3``, ``mid``, ``up3``-``up0``, ``dec3``-``dec0``, ``head``; ``fsr``
    maps the name of a block to the recalibration after it; ``fusion`` is None without
    ``fused_width``.
    """

    fusion: Fusion | None

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.level_channels
        entering = config.channels
        for level in LEVELS:
            self.add_module(f"enc{level}", Block(entering, widths[level], config.norm))
            entering = widths[level]
        self.mid = Block(entering, 2 * entering, config.norm)
        for level in reversed(LEVELS):
            leaving = widths[level]
            self.add_module(f"up{level}", nn.ConvTranspose2d(2 * leaving, leaving, 2, stride=2))
            self.add_module(f"dec{level}", Block(2 * leaving, leaving, config.norm))
        self.head = nn.Conv2d(config.width, config.classes, 1)
        self.fsr = nn.ModuleDict(
            {place: StyleRecalibration(widths[int(place[3:])]) for place in _PLACES[config.fsr]}
        )
        self.fusion = Fusion(widths, config.fused_width) if config.fused_width else None
        for part in config.frozen:
            module = getattr(self, part, None)
            if module is not None:
                module.requires_grad_(False)

    def _block(self, name: str, x: Tensor) -> Tensor:
        x = self.get_submodule(name)(x)
        return self.fsr[name](x) if name in self.fsr else x

    def forward(self, x: Tensor) -> Features:
        """Raises :class:`ModelError` for an input of another shape than the network takes."""
        self._check(x.shape)
        encoder: list[Tensor] = []
        for level in LEVELS:
            x = self._block(f"enc{level}", x)
            encoder.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.mid(x)
        decoder: list[Tensor] = []
        for level in reversed(LEVELS):
            raised = self.get_submodule(f"up{level}")(x)
            x = self._block(f"dec{level}", torch.cat((raised, encoder[level]), dim=1))
            decoder.append(x)
        return Features(self.head(x), tuple(encoder), tuple(reversed(decoder)))

    def _check(self, shape: Sequence[int]) -> None:
        if len(shape) != 4 or shape[1] != self.config.channels:
            raise ModelError(
                f"the network takes (B, {self.config.channels}, H, W) images, got {tuple(shape)}: "
                "check the study's data.channels against the data"
            )
        if not all(side > 0 and side % _DIVISOR == 0 for side in shape[2:]):
            raise ModelError(
                f"image height and width must be multiples of {_DIVISOR}, got {shape[2]} x "
                f"{shape[3]}: resize or pad the images (data.size_px)"
            )
