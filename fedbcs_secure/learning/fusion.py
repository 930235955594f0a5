"""CDPA's fused feature maps (arXiv 2511.10945): two views, three levels each fused with level 3.

View 0, encoder: levels 0, 1, 2, each with level 3 by a 1x1 convolution to d channels, at H x W.
View 1, decoder: levels 2, 1, 0, each with level 3, at H/4 x W/4 (the top-left pixel of a block).
Either map has 3d channels; :meth:`Fusion.fused` forms it, and nothing else does. What losses and
prototypes need of it follows from smaller maps, exactly: see :mod:`._quadratic` and, for class
means, linearity (the mean of ``W·x + b`` is ``W·mean(x) + b``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbcs_secure.learning._quadratic import Level, fused_products, selected

VIEWS = (0, 1)
ENCODER, DECODER = VIEWS
_ORDER = ((0, 1, 2), (2, 1, 0))
_FEW_PIXELS = 0.5


class Features(NamedTuple):
    """What the network computes: ``logits`` (B, K, H, W) and the maps of levels 0-3 of both paths.

    ``encoder[k]`` and ``decoder[k]`` are (B, C_k, H/2^k, W/2^k).
    """

    logits: Tensor
    encoder: tuple[Tensor, ...]
    decoder: tuple[Tensor, ...]


def _subsample(x: Tensor, size: torch.Size) -> Tensor:
    """Every n-th row and column of ``x`` (..., H, W), the first included, down to ``size``."""
    return x[..., :: x.shape[-2] // size[0], :: x.shape[-1] // size[1]]


class Fusion(nn.Module):
    """The fusion convolutions of both views.

    ``channels`` are the widths of levels 0-3 (of the encoder; of the decoder too unless
    ``decoder_channels`` says otherwise), ``width`` is d. ``encoder[k]`` and ``decoder[k]`` are the
    convolutions of shallow level k over (shallow_k, nearest-up(level 3)).
    """

    def __init__(
        self, channels: Sequence[int], width: int, decoder_channels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        below = channels if decoder_channels is None else decoder_channels
        if len(channels) != 4 or len(below) != 4:
            raise ValueError("fusion needs the channels of four levels, 0 to 3, for either path")
        self.width = width
        self.encoder = nn.ModuleList(nn.Conv2d(c + channels[3], width, 1) for c in channels[:3])
        self.decoder = nn.ModuleList(nn.Conv2d(c + below[3], width, 1) for c in below[:3])

    @property
    def prototype_width(self) -> int:
        """Length 3d of a prototype."""
        return 3 * self.width

    def grid(self, features: Features, view: int) -> torch.Size:
        """Height and width of a view's fused map."""
        return (features.encoder[0] if view == ENCODER else features.decoder[2]).shape[2:]

    def labels_on_grid(self, features: Features, view: int, labels: Tensor) -> Tensor:
        """``labels`` (B, H, W) resampled to the view's grid by nearest (top-left) neighbour."""
        return _subsample(labels, self.grid(features, view))

    def _levels(self, features: Features, view: int, subsampled: bool = True) -> list[Level]:
        """The levels of a view in fused order.

        Encoder maps keep their own resolution, decoder maps are subsampled to the view's grid, or
        do too unless ``subsampled``.
        """
        maps, convolutions = (
            (features.encoder, self.encoder)
            if view == ENCODER
            else (features.decoder, self.decoder)
        )
        grid = self.grid(features, view)
        levels = []
        for k in _ORDER[view]:
            shallow = _subsample(maps[k], grid) if view == DECODER and subsampled else maps[k]
            weight: Tensor = convolutions[k].get_parameter("weight").flatten(1)
            bias: Tensor = convolutions[k].get_parameter("bias")
            split = shallow.shape[1]
            levels.append(Level(shallow, weight[:, :split], weight[:, split:], bias))
        return levels

    def _deep(self, features: Features, view: int) -> Tensor:
        return (features.encoder if view == ENCODER else features.decoder)[3]

    def products(
        self, features: Features, view: int, anchors: Tensor, centre: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``anchors·(f − centre)`` (B, n, h, w) and ``‖f − centre‖²`` (B, h, w), f the fused map.

        ``anchors`` (n, 3d) and ``centre`` (3d) or None are constants. Equal to the dense form up to
        rounding, without a tensor of 3d channels.
        """
        grid, levels = self.grid(features, view), self._levels(features, view)
        if centre is not None:
            # moving the biases moves the whole map, without a difference of large numbers
            shifts = centre.detach().split(self.width)
            levels = [
                level._replace(bias=level.bias - shift)
                for level, shift in zip(levels, shifts, strict=True)
            ]
        total: Tensor | None = None
        for dots, norms in fused_products(levels, self._deep(features, view), anchors):
            scalars = torch.cat((dots, norms[:, None]), dim=1)
            if scalars.shape[2:] != grid:
                scalars = functional.interpolate(scalars, size=grid)
            total = scalars if total is None else total + scalars
        if total is None:
            raise ValueError("a view has no level")
        return total[:, :-1], total[:, -1]

    def products_at(
        self, features: Features, view: int, anchors: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``anchors·f`` (n, N) and ``‖f‖²`` (N,) at the flat ``pixels`` (N) of (B, h, w).

        As :meth:`products`, and cheaper where the pixels are few.
        """
        grid, deep = self.grid(features, view), self._deep(features, view)
        if not 0 < len(pixels) <= _FEW_PIXELS * len(deep) * grid.numel():
            dots, norms = self.products(features, view, anchors)
            everywhere = torch.cat((dots, norms[:, None]), dim=1).transpose(0, 1).flatten(1)
            scalars = everywhere.index_select(1, pixels)
        else:
            part = selected(self._levels(features, view, subsampled=False), deep, pixels, grid)
            addends = fused_products(part.levels, part.deep, anchors, part.parents)
            raised = [
                torch.cat((dots[0, :, 0], norms[0])).index_select(1, columns)
                for (dots, norms), columns in zip(addends, part.columns, strict=False)
            ]
            scalars = torch.stack(raised).sum(dim=0)
        return scalars[:-1], scalars[-1]

    def class_sums(
        self, features: Features, view: int, labels: Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """Sums of the fused map over the pixels of each image and class, (B, K, 3d), and the pixel
        counts (B, K). ``labels`` is (B, H, W), any integer type."""
        deep = self._deep(features, view)
        on_grid = self.labels_on_grid(features, view, labels)
        index = torch.arange(classes, device=labels.device, dtype=on_grid.dtype)
        members = (on_grid[:, None] == index[:, None, None]).to(deep.dtype)
        counts = members.sum(dim=(2, 3))
        pooled: dict[torch.Size, Tensor] = {}

        def sums(x: Tensor) -> Tensor:
            """Sums (B, K, C) over class pixels of ``x`` as if it were upsampled to the grid."""
            size = x.shape[2:]
            if size not in pooled:
                steps = [big // small for big, small in zip(members.shape[2:], size, strict=True)]
                pooled[size] = functional.avg_pool2d(members, steps, divisor_override=1).flatten(2)
            return torch.bmm(pooled[size], x.flatten(2).transpose(1, 2))

        deep_sums = sums(deep)
        parts = [
            sums(shallow) @ weight.T + deep_sums @ deep_weight.T + counts[..., None] * bias
            for shallow, weight, deep_weight, bias in self._levels(features, view)
        ]
        return torch.cat(parts, dim=2), counts

    def class_means(
        self, features: Features, view: int, labels: Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """Class means (K, 3d) over all pixels of the batch and pixel counts (K); absent: zeros."""
        sums, counts = self.class_sums(features, view, labels, classes)
        counts = counts.sum(dim=0)
        return sums.sum(dim=0) / counts.clamp(min=1)[:, None], counts

    def fused(self, features: Features, view: int) -> Tensor:
        """The fused map itself, (B, 3d, h, w): for tests and small inputs, not for training."""
        grid, deep = self.grid(features, view), self._deep(features, view)
        raised_deep = functional.interpolate(deep, size=grid)
        parts = [
            functional.conv2d(
                torch.cat((functional.interpolate(shallow, size=grid), raised_deep), dim=1),
                torch.cat((weight, deep_weight), dim=1)[:, :, None, None],
                bias,
            )
            for shallow, weight, deep_weight, bias in self._levels(features, view)
        ]
        return torch.cat(parts, dim=1)
