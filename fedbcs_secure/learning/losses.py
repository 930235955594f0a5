"""Segmentation loss and the two forms of prototype alignment (L_MP of arXiv 2511.10945).

``faithful`` is the published formula. ``gentle`` is the default of the toolkit: centred cosines, no
clamp (so a gradient everywhere), no consistency term, background included. Global prototypes are
constants of either loss. Class 0 is background.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedbcs_secure.learning.fusion import VIEWS, Features, Fusion
from fedbcs_secure.learning.prototypes import GlobalPrototypes

_DICE_SMOOTHING = 1e-5
_CONTRAST_SMOOTHING = 1e-9
_LARGEST_EXPONENT = 20.0
_LARGEST_SIMILARITY = 1e6
_TINY_SQUARED_NORM = 1e-16
_IGNORED = -1


class JointLoss(NamedTuple):
    """``total = (ce + dice) / 2``, all scalars."""

    total: Tensor
    ce: Tensor
    dice: Tensor


def joint_loss(logits: Tensor, labels: Tensor, foreground_weight: float = 1.0) -> JointLoss:
    """L_joint: ``ce`` is the pixel mean, ``dice = 1 − mean_c (2·I_c + ε) / (Z_c + Y_c + ε)``.

    ``I_c = Σ p_c·y_c``, ``Z_c = Σ p_c``, ``Y_c = Σ y_c`` over batch and pixels, ε = 1e-5,
    background and absent classes included. ``logits`` (B, K, H, W), ``labels`` (B, H, W) integers.
    ``foreground_weight``: of a pixel of class 1 or above in ``ce``, whose mean is then weighted.
    """
    labels = labels.long()
    log_shares = torch.log_softmax(logits, dim=1)
    weights = None
    if foreground_weight != 1:
        weights = logits.new_full((logits.shape[1],), foreground_weight)
        weights[0] = 1
    ce = functional.nll_loss(log_shares, labels, weight=weights)
    shares = log_shares.exp()
    flat = labels.flatten()
    chosen = shares.gather(1, labels[:, None]).flatten()
    zeros = shares.new_zeros(shares.shape[1])
    overlap = zeros.index_add(0, flat, chosen)
    members = torch.bincount(flat, minlength=len(zeros)).to(shares.dtype)
    ratio = (2 * overlap + _DICE_SMOOTHING) / (
        shares.sum(dim=(0, 2, 3)) + members + _DICE_SMOOTHING
    )
    dice = 1 - ratio.mean()
    return JointLoss((ce + dice) / 2, ce, dice)


def contrast(
    dots: Tensor,
    squared_norms: Tensor,
    anchors: Tensor,
    members: Tensor,
    owner: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """L_contra and L_consis of N pixels, each (N,), as published.

    L_contra = −log((Σ_pos e + 1e-9) / (Σ_all e + 1e-9)) with
    ``e = min(exp(min(cos/τ, 20)), 1e6)``; L_consis is the mean squared difference between the
    pixel's feature and the unweighted mean of the positives.

    ``dots`` (n, N) are products of the features with the ``anchors`` (n, D), ``squared_norms`` (N,)
    those of the features. ``members`` (k, n) is 1 where an anchor belongs to a class (every row has
    one), ``owner`` (N,) the row of each pixel's class. The two clamps leave no gradient where
    cos/τ > ln 1e6: that is the paper's formula.
    """
    members = members.to(dots.dtype)
    positive = members.T[:, owner]
    reciprocal = squared_norms.clamp(min=_TINY_SQUARED_NORM).rsqrt()
    anchor_norms = anchors.square().sum(dim=1).clamp(min=_TINY_SQUARED_NORM).sqrt()
    cosines = dots * reciprocal / anchor_norms[:, None]
    exponents = (cosines / temperature).clamp(max=_LARGEST_EXPONENT)
    similarity = exponents.exp().clamp(max=_LARGEST_SIMILARITY)
    near = (positive * similarity).sum(dim=0)
    share = (near + _CONTRAST_SMOOTHING) / (similarity.sum(dim=0) + _CONTRAST_SMOOTHING)
    weights = members / members.sum(dim=1, keepdim=True)
    targets = weights @ anchors
    product = (weights.T[:, owner] * dots).sum(dim=0)
    distance = squared_norms - 2 * product + targets.square().sum(dim=1)[owner]
    return -share.log(), distance / anchors.shape[1]


def faithful_alignment(
    features: Features,
    fusion: Fusion,
    labels: Tensor,
    prototypes: GlobalPrototypes,
    temperature: float,
) -> Tensor:
    """L_MP as published: mean over both views of the mean over foreground classes.

    The classes of a view are those present on its grid that have a global prototype; their pixels
    are the anchors of L_contra + L_consis. A view without such a class adds 0. ``labels`` is
    (B, H, W) integers; the paper's temperature is 0.005 for nuclei.
    """
    losses = [
        _faithful_view(features, fusion, labels, prototypes, temperature, view) for view in VIEWS
    ]
    return _mean_of_views(losses, features.logits)


def _faithful_view(
    features: Features,
    fusion: Fusion,
    labels: Tensor,
    prototypes: GlobalPrototypes,
    temperature: float,
    view: int,
) -> Tensor | None:
    known = sorted(prototypes.views[view])
    on_grid = fusion.labels_on_grid(features, view, labels).flatten().long()
    counts = torch.bincount(on_grid, minlength=max(known, default=0) + 1)
    chosen = [c for c, count in enumerate(counts.tolist()) if count and c and c in known]
    if not chosen:
        return None
    rows = [prototypes.views[view][c].to(features.logits) for c in known]
    anchors = torch.cat(rows)
    members = anchors.new_zeros(len(chosen), len(anchors))
    start = 0
    for c, row in zip(known, rows, strict=True):
        if c in chosen:
            members[chosen.index(c), start : start + len(row)] = 1
        start += len(row)
    place = torch.full_like(counts, -1)
    place[chosen] = torch.arange(len(chosen), device=counts.device)
    owner = place[on_grid]
    pixels = (owner >= 0).nonzero().flatten()
    owner = owner[pixels]
    dots, norms = fusion.products_at(features, view, anchors, pixels)
    terms = contrast(dots, norms, anchors, members, owner, temperature)
    share = 1 / counts[chosen].to(anchors.dtype)
    return torch.dot(share[owner], terms[0] + terms[1]) / len(chosen)


def gentle_alignment(
    features: Features,
    fusion: Fusion,
    labels: Tensor,
    prototypes: GlobalPrototypes,
    temperature: float = 0.3,
) -> Tensor:
    """Cross-entropy over centred cosines, averaged per class, then over classes, then over views.

    With ``p_c`` the mean of the global prototypes of class c and ``m`` the mean of all ``p_c``, the
    logit of class c at a pixel with fused feature f is ``cos(f − m, p_c − m) / temperature``. Every
    class with a prototype takes part, background included; pixels of other classes do not count.
    Zero where fewer than two classes have prototypes.
    """
    losses = [
        _gentle_view(features, fusion, labels, prototypes, temperature, view) for view in VIEWS
    ]
    return _mean_of_views(losses, features.logits)


def _gentle_view(
    features: Features,
    fusion: Fusion,
    labels: Tensor,
    prototypes: GlobalPrototypes,
    temperature: float,
    view: int,
) -> Tensor | None:
    known = sorted(prototypes.views[view])
    if len(known) < 2:
        return None
    means = torch.stack([prototypes.mean(view, c).to(features.logits) for c in known])
    centre = means.mean(dim=0)
    directions = functional.normalize(means - centre, dim=1)
    on_grid = fusion.labels_on_grid(features, view, labels).long()
    largest = max(*known, int(on_grid.max()))
    place = torch.full((largest + 1,), _IGNORED, device=on_grid.device)
    place[known] = torch.arange(len(known), device=on_grid.device)
    target = place[on_grid]
    counts = torch.bincount(target.flatten() + 1, minlength=len(known) + 1)[1:]
    if not int(counts.sum()):
        return None
    dots, norms = fusion.products(features, view, directions, centre)
    reciprocal = norms.clamp(min=_TINY_SQUARED_NORM).rsqrt() / temperature
    # weighting by 1/count makes the weighted pixel mean the mean over classes of class means
    return functional.cross_entropy(
        dots * reciprocal[:, None],
        target,
        weight=1 / counts.clamp(min=1).to(dots.dtype),
        ignore_index=_IGNORED,
    )


def _mean_of_views(losses: list[Tensor | None], like: Tensor) -> Tensor:
    present = [loss for loss in losses if loss is not None]
    if not present:
        # differentiable, and adds nothing
        return like.new_zeros((), requires_grad=True)
    return torch.stack(present).sum() / len(losses)
