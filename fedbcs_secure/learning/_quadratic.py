"""Squared norms and dot products of one fused level, from maps at their own resolution.

One level of a fused map is ``u = A·s + up(e)``: ``s`` the shallow map (C channels), ``A`` (d, C) a
1x1 convolution, ``e`` (d channels) what the deep map contributes, constant on r x r blocks. The
losses need ``‖u‖²`` and ``P·u`` only. Two exact forms: *direct* forms u itself, one image at a time
(best when d <= C); *Gram* never has d channels at the shallow resolution:

    ‖u‖² = sᵀ(AᵀA)s + 2·sᵀ·up(Aᵀe) + up(‖e‖²),      P·u = (P·A)·s + up(P·e).

Both keep nothing for the backward pass but their inputs, which the network holds anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def _add_blocks(rows: Tensor, deep: Tensor, shape: torch.Size) -> Tensor:
    """Add ``deep`` (c, h, w), repeated on blocks, to ``rows`` (c, pixels of ``shape``) in place."""
    height, width = deep.shape[1:]
    blocks = rows.view(-1, height, shape[0] // height, width, shape[1] // width)
    blocks.add_(deep[:, :, None, :, None])
    return rows


def _sum_blocks(rows: Tensor, deep_shape: torch.Size, shape: torch.Size) -> Tensor:
    """Sums of ``rows`` (c, pixels of ``shape``) over the blocks of a (c, h, w) grid."""
    height, width = deep_shape
    blocks = rows.view(-1, height, shape[0] // height, width, shape[1] // width)
    return blocks.sum(dim=(2, 4))


class _Direct(torch.autograd.Function):
    """(s (B,C,h,w), A (d,C), e (B,d,h',w'), P (n,d)) to (P·u (B,n,h,w), ‖u‖² (B,h,w))."""

    @staticmethod
    def forward(
        ctx: Any, shallow: Tensor, weight: Tensor, deep: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        images, shape = shallow.shape[0], shallow.shape[2:]
        dots = shallow.new_empty(images, anchors.shape[0], shape.numel())
        norms = shallow.new_empty(images, shape.numel())
        for i in range(images):
            fused = _add_blocks(weight @ shallow[i].flatten(1), deep[i], shape)
            torch.mm(anchors, fused, out=dots[i])
            torch.sum(fused.square_(), dim=0, out=norms[i])
        ctx.save_for_backward(shallow, weight, deep, anchors)
        return dots.unflatten(2, shape), norms.unflatten(1, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_dots: Tensor, by_norms: Tensor) -> tuple[Tensor | None, ...]:
        shallow, weight, deep, anchors = ctx.saved_tensors
        shape = shallow.shape[2:]
        grad_shallow = torch.empty_like(shallow, memory_format=torch.contiguous_format)
        grad_weight = torch.zeros_like(weight)
        grad_deep = torch.empty_like(deep)
        for i in range(shallow.shape[0]):
            rows = shallow[i].flatten(1)
            fused = _add_blocks(weight @ rows, deep[i], shape)
            fused.mul_(2 * by_norms[i].flatten())
            fused.addmm_(anchors.T, by_dots[i].flatten(1))
            torch.mm(weight.T, fused, out=grad_shallow[i].view(rows.shape))
            grad_weight.addmm_(fused, rows.T)
            grad_deep[i] = _sum_blocks(fused, deep.shape[2:], shape)
        return grad_shallow, grad_weight, grad_deep, None


class _Gram(torch.autograd.Function):
    """(s (B,C,h,w), M (C,C), q (B,C,h',w'), V (n,C)) to (V·s, sᵀMs + 2·sᵀ·up(q)); M symmetric."""

    @staticmethod
    def forward(
        ctx: Any, shallow: Tensor, gram: Tensor, deep: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        images, shape = shallow.shape[0], shallow.shape[2:]
        dots = shallow.new_empty(images, anchors.shape[0], shape.numel())
        norms = shallow.new_empty(images, shape.numel())
        twice = 2 * deep
        for i in range(images):
            rows = shallow[i].flatten(1)
            torch.mm(anchors, rows, out=dots[i])
            slope = _add_blocks(gram @ rows, twice[i], shape)
            torch.sum(slope.mul_(rows), dim=0, out=norms[i])
        ctx.save_for_backward(shallow, gram, deep, anchors)
        return dots.unflatten(2, shape), norms.unflatten(1, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_dots: Tensor, by_norms: Tensor) -> tuple[Tensor, ...]:
        shallow, gram, deep, anchors = ctx.saved_tensors
        shape = shallow.shape[2:]
        grad_shallow = torch.empty_like(shallow, memory_format=torch.contiguous_format)
        grad_gram = torch.zeros_like(gram)
        grad_deep = torch.empty_like(deep)
        grad_anchors = torch.zeros_like(anchors)
        for i in range(shallow.shape[0]):
            rows = shallow[i].flatten(1)
            twice = 2 * by_norms[i].flatten()
            scaled = rows * twice
            grad_gram.addmm_(scaled, rows.T, alpha=0.5)
            grad_deep[i] = _sum_blocks(scaled, deep.shape[2:], shape)
            grad_anchors.addmm_(by_dots[i].flatten(1), rows.T)
            slope = torch.mm(gram, rows, out=grad_shallow[i].view(rows.shape))
            _add_blocks(slope, deep[i], shape).mul_(twice)
            slope.addmm_(anchors.T, by_dots[i].flatten(1))
        return grad_shallow, grad_gram, grad_deep, grad_anchors


def level_products(
    shallow: Tensor, weight: Tensor, deep: Tensor, anchors: Tensor
) -> tuple[Tensor, Tensor]:
    """Dot products and squared norms of ``u = weight·shallow + up(deep)``.

    ``shallow`` (B, C, h, w), ``weight`` (d, C), ``deep`` (B, d, h', w') with h' dividing h and w'
    dividing w, ``anchors`` (n, d), constants: no gradient reaches them. Returns (B, n, h, w) and
    (B, h, w).
    """
    width, channels = weight.shape
    anchors = anchors.detach()
    if width <= channels:
        dots, norms = _Direct.apply(shallow, weight, deep, anchors)
        return dots, norms
    gram, pulled = weight.T @ weight, anchors @ weight
    slope = functional.conv2d(deep, weight.T[:, :, None, None])
    dots, norms = _Gram.apply(shallow, gram, slope, pulled)
    deep_dots = functional.conv2d(deep, anchors[:, :, None, None])
    deep_norms = deep.square().sum(dim=1, keepdim=True)
    size = shallow.shape[2:]
    raised = functional.interpolate(torch.cat((deep_dots, deep_norms), dim=1), size=size)
    return dots + raised[:, :-1], norms + raised[:, -1]
