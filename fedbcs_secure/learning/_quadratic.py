"""Dot products and squared norms of a fused map, from maps at their own resolution.

Level j of a fused map is ``u_j = A_j·s_j + B_j·up(t) + b_j``: ``s_j`` the shallow map (C_j
channels), ``t`` the deep map, constant on r x r blocks of s_j, ``(A_j | B_j)`` a 1x1 convolution
to d channels. Losses need ``Σ_j ‖u_j‖²`` and ``Σ_j P_j·u_j`` only. Where d <= C_j, u_j is formed
and dropped again (*direct*). Where d > C_j nothing of d channels is formed at the resolution of s_j
(*Gram*): with ``q_j = A_jᵀ(B_j·t + b_j)``

    ‖u_j‖² = s_jᵀ(A_jᵀA_j)s_j + 2·s_jᵀ·up(q_j) + up(‖B_j·t + b_j‖²),

and the last term, summed over j, is itself such a form of t. Both keep nothing for the backward
pass but their inputs, which the network holds anyway.

Where only some pixels of u are wanted, :func:`selected` first reduces the maps to the cells under
them, each a column of a map of height 1; the columns of t are then repeated by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_BUFFER_NUMBERS = 2**22


class Level(NamedTuple):
    """One fused level: ``shallow`` (B, C, h, w), ``weight`` A (d, C), ``deep_weight`` B (d, C'),
    ``bias`` (d)."""

    shallow: Tensor
    weight: Tensor
    deep_weight: Tensor
    bias: Tensor


def _raised(coarse: Tensor, shape: torch.Size) -> Tensor:
    """``coarse`` (k, c, h', w') as (k, c, h', 1, w), to be broadcast over (k, c, h', r, w)."""
    step = shape[1] // coarse.shape[3]
    return coarse.repeat_interleave(step, dim=3)[:, :, :, None]


def _bands(rows: Tensor, coarse: Tensor, shape: torch.Size) -> Tensor:
    """``rows`` (k, c, h·w) seen as (k, c, h', r, w), the row bands of the blocks of ``coarse``."""
    return rows.unflatten(2, (coarse.shape[2], -1, shape[1]))


def _block_sums(rows: Tensor, coarse: Tensor, shape: torch.Size) -> Tensor:
    """Sums of ``rows`` (k, c, h·w) over the blocks that ``coarse`` is constant on."""
    bands = _bands(rows, coarse, shape).sum(dim=3)
    return bands.unflatten(3, (coarse.shape[3], -1)).sum(dim=4)


def _chunks(shallow: Tensor, channels: int) -> list[slice]:
    """Runs of images that bound the working buffer of ``channels`` channels to 16 MB on a CPU."""
    images, pixels = shallow.shape[0], shallow.shape[2:].numel()
    most = images if shallow.is_cuda else max(1, _BUFFER_NUMBERS // (channels * pixels))
    return [slice(start, min(start + most, images)) for start in range(0, images, most)]


def _times(matrix: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
    """``matrix`` (a, b) times each of ``rows`` (k, b, N): (k, a, N)."""
    result = rows.new_empty(len(rows), matrix.shape[0], rows.shape[2]) if out is None else out
    return torch.bmm(matrix.expand(len(rows), -1, -1), rows, out=result)


class _Direct(torch.autograd.Function):
    """(s (B,C,h,w), A (d,C), e (B,d,h',w'), P (n,d)) to (P·u, ‖u‖²) of ``u = A·s + up(e)``.

    The results are (B, n, h, w) and (B, h, w); P is a constant.
    """

    @staticmethod
    def forward(
        ctx: Any, shallow: Tensor, weight: Tensor, coarse: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        images, shape = shallow.shape[0], shallow.shape[2:]
        dots = shallow.new_empty(images, anchors.shape[0], shape.numel())
        norms = shallow.new_empty(images, shape.numel())
        for part in _chunks(shallow, weight.shape[0]):
            fused = _times(weight, shallow[part].flatten(2))
            _bands(fused, coarse, shape).add_(_raised(coarse[part], shape))
            _times(anchors, fused, out=dots[part])
            torch.sum(fused.square_(), dim=1, out=norms[part])
        ctx.save_for_backward(shallow, weight, coarse, anchors)
        return dots.unflatten(2, shape), norms.unflatten(1, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_dots: Tensor, by_norms: Tensor) -> tuple[Tensor | None, ...]:
        """``g = (2·g_norms)·u + Pᵀ·g_dots`` is the gradient of u."""
        shallow, weight, coarse, anchors = ctx.saved_tensors
        shape = shallow.shape[2:]
        grad_shallow = torch.empty_like(shallow, memory_format=torch.contiguous_format)
        grad_weight = torch.zeros_like(weight)
        grad_coarse = torch.empty_like(coarse)
        for part in _chunks(shallow, weight.shape[0]):
            rows = shallow[part].flatten(2)
            fused = _times(weight, rows)
            _bands(fused, coarse, shape).add_(_raised(coarse[part], shape))
            fused.mul_(2 * by_norms[part].flatten(1)[:, None])
            fused.baddbmm_(anchors.T.expand(len(rows), -1, -1), by_dots[part].flatten(2))
            _times(weight.T, fused, out=grad_shallow[part].flatten(2))
            grad_weight += torch.bmm(fused, rows.transpose(1, 2)).sum(dim=0)
            grad_coarse[part] = _block_sums(fused, coarse, shape)
        return grad_shallow, grad_weight, grad_coarse, None


class _Gram(torch.autograd.Function):
    """(s (B,C,h,w), A (d,C), q (B,C,h',w'), P (n,d)) to (P·A·s, ‖A·s‖² + 2·sᵀ·up(q)).

    The results are (B, n, h, w) and (B, h, w); P is a constant.
    """

    @staticmethod
    def forward(
        ctx: Any, shallow: Tensor, weight: Tensor, coarse: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        images, channels, *_ = shallow.shape
        shape = shallow.shape[2:]
        stacked = torch.cat((weight.T, anchors)) @ weight
        dots = shallow.new_empty(images, anchors.shape[0], shape.numel())
        norms = shallow.new_empty(images, shape.numel())
        for part in _chunks(shallow, len(stacked)):
            rows = shallow[part].flatten(2)
            products = _times(stacked, rows)
            dots[part] = products[:, channels:]
            slope = products[:, :channels]
            _bands(slope, coarse, shape).add_(_raised(2 * coarse[part], shape))
            torch.sum(slope.mul_(rows), dim=1, out=norms[part])
        ctx.save_for_backward(shallow, weight, coarse, anchors, stacked)
        return dots.unflatten(2, shape), norms.unflatten(1, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_dots: Tensor, by_norms: Tensor) -> tuple[Tensor | None, ...]:
        """``(2·g_norms)·(AᵀA·s + up(q)) + AᵀPᵀ·g_dots`` is the gradient of s.

        That of A is ``(A | Pᵀ)·G·sᵀ`` with G the stacked ``(2·g_norms)·s`` and ``g_dots``.
        """
        shallow, weight, coarse, anchors, stacked = ctx.saved_tensors
        channels, shape = shallow.shape[1], shallow.shape[2:]
        grad_stacked = torch.zeros_like(stacked)
        grad_shallow = torch.empty_like(shallow, memory_format=torch.contiguous_format)
        grad_coarse = torch.empty_like(coarse)
        for part in _chunks(shallow, len(stacked)):
            rows = shallow[part].flatten(2)
            twice = 2 * by_norms[part].flatten(1)[:, None]
            scaled = rows.new_empty(len(rows), len(stacked), rows.shape[2])
            torch.mul(rows, twice, out=scaled[:, :channels])
            scaled[:, channels:] = by_dots[part].flatten(2)
            grad_stacked += torch.bmm(scaled, rows.transpose(1, 2)).sum(dim=0)
            grad_coarse[part] = _block_sums(scaled[:, :channels], coarse, shape)
            slope = _times(stacked.T, scaled, out=grad_shallow[part].flatten(2))
            bands = _bands(slope, coarse, shape)
            bands.addcmul_(_raised(coarse[part], shape), _bands(twice, coarse, shape))
        grad_weight = torch.cat((weight, anchors.T), dim=1) @ grad_stacked
        return grad_shallow, grad_weight, grad_coarse, None


class _Columns(torch.autograd.Function):
    """The columns (1, C, 1, N) of x (B, C, h, w) at distinct, ascending flat cells (N) of
    (B, h, w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor) -> Tensor:
        area = x.shape[2:].numel()
        ctx.shape, ctx.counts = x.shape, torch.bincount(cells // area, minlength=len(x)).tolist()
        places = cells % area
        ctx.save_for_backward(places)
        columns = x.new_empty(x.shape[1], len(cells))
        parts = columns.split(ctx.counts, dim=1)
        for image, part, place in zip(x.flatten(2), parts, places.split(ctx.counts), strict=True):
            torch.gather(image, 1, place.expand(len(image), -1), out=part)
        return columns[None, :, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_columns: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        grad = by_columns.new_zeros(ctx.shape)
        parts = by_columns[0, :, 0].split(ctx.counts, dim=1)
        for image, part, place in zip(
            grad.flatten(2), parts, places.split(ctx.counts), strict=True
        ):
            image.scatter_(1, place.expand(len(image), -1), part)
        return grad, None


def _resampled(cells: Tensor, size: torch.Size, other: torch.Size) -> Tensor:
    """Flat cells (N) of (B, h, w) as those of (B, h', w'): their block, or its top-left cell."""
    rows, columns = cells // size[1], cells % size[1]
    return rows * other[0] // size[0] * other[1] + columns * other[1] // size[1]


class Selection(NamedTuple):
    """Maps reduced to columns, the arguments ``levels``, ``deep`` and ``parents`` of
    :func:`fused_products`, and for each of its addends the column of each wanted pixel (N)."""

    levels: list[Level]
    deep: Tensor
    parents: list[Tensor]
    columns: list[Tensor]


def selected(levels: Sequence[Level], deep: Tensor, pixels: Tensor, grid: torch.Size) -> Selection:
    """The parts of the maps that flat ``pixels`` (N) of the grid (B, h, w) depend on."""
    size = deep.shape[2:]
    above, column = torch.unique(_resampled(pixels, grid, size), return_inverse=True)
    result = Selection([], _Columns.apply(deep, above), [], [])
    for level in levels:
        own = level.shallow.shape[2:]
        cells, columns = torch.unique(_resampled(pixels, grid, own), return_inverse=True)
        result.levels.append(level._replace(shallow=_Columns.apply(level.shallow, cells)))
        result.parents.append(torch.searchsorted(above, _resampled(cells, own, size)))
        result.columns.append(columns)
    result.columns.append(column)
    return result


def _is_direct(weight: Tensor) -> bool:
    return weight.shape[0] <= weight.shape[1]


def _term(x: Tensor, weight: Tensor, coarse: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Products of ``weight·x + up(e)``, up to ‖e‖² and anchors·e in the Gram form.

    ``coarse`` is e in the direct form and ``weightᵀ·e`` in the other.
    """
    form = _Direct if _is_direct(weight) else _Gram
    dots, norms = form.apply(x, weight, coarse, anchors)
    return dots, norms


def fused_products(
    levels: Sequence[Level],
    deep: Tensor,
    anchors: Tensor,
    parents: Sequence[Tensor] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """(``P·u`` (B, n, h, w), ``‖u‖²`` (B, h, w)) of the fused map u as addends at several sizes.

    ``deep`` is (B, C', h', w') with h' dividing every h, and w' every w; ``anchors`` P are (n, Jd)
    for J levels, constants: no gradient reaches them. The sum of the addends, each upsampled to the
    largest by nearest neighbour, is the result. ``parents``, if any, hold the column of ``deep``
    (1, C', 1, N') over each column of each level.
    """
    parts = anchors.detach().split([len(level.bias) for level in levels], dim=1)
    weights = [
        level.deep_weight if _is_direct(level.weight) else level.weight.T @ level.deep_weight
        for level in levels
    ]
    offsets = [
        level.bias if _is_direct(level.weight) else level.weight.T @ level.bias for level in levels
    ]
    # as one product of matrices: torch's 1x1 convolution is several times slower at this size
    lowered = functional.linear(deep.movedim(1, -1), torch.cat(weights), torch.cat(offsets))
    coarse = lowered.movedim(-1, 1).split([len(offset) for offset in offsets], dim=1)
    if parents is not None:
        coarse = [low.index_select(3, above) for low, above in zip(coarse, parents, strict=True)]
    addends = [
        _term(level.shallow, level.weight, low, part)
        for level, low, part in zip(levels, coarse, parts, strict=True)
    ]
    rest = [j for j, level in enumerate(levels) if not _is_direct(level.weight)]
    if rest:
        weight = torch.cat([levels[j].deep_weight for j in rest])
        bias = torch.cat([levels[j].bias for j in rest])
        anchor = torch.cat([parts[j] for j in rest], dim=1)
        direct = _is_direct(weight)
        constant = bias if direct else weight.T @ bias
        dots, norms = _term(
            deep, weight, constant[None, :, None, None].expand(len(deep), -1, 1, 1), anchor
        )
        if not direct:
            dots, norms = dots + (anchor @ bias)[:, None, None], norms + bias.square().sum()
        addends.append((dots, norms))
    return addends
