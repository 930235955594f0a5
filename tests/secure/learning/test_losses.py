"""Losses against dense float64 forms, and what they must do at the edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbcs_secure.learning.fusion import VIEWS, Features, Fusion
from fedbcs_secure.learning.losses import faithful_alignment, gentle_alignment, joint_loss
from fedbcs_secure.learning.prototypes import GlobalPrototypes


def _case(seed: int, classes: int, width: int) -> tuple[Features, Fusion, Tensor, GlobalPrototypes]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).double()

    channels = (3, 4, 5, 6)
    sizes = [(16 >> k, 32 >> k) for k in range(4)]
    encoder, decoder = (
        tuple(draw(2, c, *s).requires_grad_() for c, s in zip(channels, sizes, strict=True))
        for _ in VIEWS
    )
    torch.manual_seed(seed)
    fusion = Fusion(channels, width).double()
    features = Features(draw(2, classes, 16, 32).requires_grad_(), encoder, decoder)
    labels = torch.randint(0, classes, (2, 16, 32), generator=g)
    counts = [1 + int(torch.randint(0, 3, (), generator=g)) for _ in range(classes)]
    views = [{c: draw(n, 3 * width) for c, n in enumerate(counts)} for _ in VIEWS]
    return features, fusion, labels, GlobalPrototypes((views[0], views[1]))


def _gradients(loss: Tensor, features: Features, fusion: Fusion) -> list[Tensor]:
    inputs = [*features.encoder, *features.decoder, *fusion.parameters()]
    return list(torch.autograd.grad(loss, inputs))


def _dense_faithful(
    features: Features, fusion: Fusion, labels: Tensor, prototypes: GlobalPrototypes, tau: float
) -> Tensor:
    views = []
    for view in VIEWS:
        fused = fusion.fused(features, view).movedim(1, -1).flatten(0, 2)
        step = labels.shape[1] // fusion.grid(features, view)[0]
        on_grid = labels[:, ::step, ::step].flatten()
        rows = prototypes.views[view]
        terms = []
        for c in (c for c in sorted(rows) if c and (on_grid == c).any()):
            f = fused[on_grid == c]

            def similarity(p: Tensor, f: Tensor = f) -> Tensor:
                cosine = torch.nn.functional.cosine_similarity(f[:, None], p[None], dim=2)
                return (cosine / tau).clamp(max=20).exp().clamp(max=1e6).sum(1)

            near = similarity(rows[c])
            every = similarity(torch.cat(list(rows.values())))
            terms.append(
                -((near + 1e-9) / (every + 1e-9)).log().mean()
                + (f - rows[c].mean(0)).square().mean()
            )
        views.append(sum(terms) / len(terms) if terms else torch.zeros(()).double())
    return (views[0] + views[1]) / 2


def _dense_gentle(
    features: Features, fusion: Fusion, labels: Tensor, prototypes: GlobalPrototypes, tau: float
) -> Tensor:
    views = []
    for view in VIEWS:
        fused = fusion.fused(features, view).movedim(1, -1).flatten(0, 2)
        step = labels.shape[1] // fusion.grid(features, view)[0]
        on_grid = labels[:, ::step, ::step].flatten()
        known = sorted(prototypes.views[view])
        means = torch.stack([prototypes.views[view][c].mean(0) for c in known])
        centre = means.mean(0)
        cosine = torch.nn.functional.cosine_similarity(
            (fused - centre)[:, None], (means - centre)[None], dim=2
        )
        scores = (cosine / tau).log_softmax(dim=1)
        present = [i for i, c in enumerate(known) if (on_grid == c).any()]
        losses = [-scores[on_grid == known[i], i].mean() for i in present]
        views.append(sum(losses) / len(losses) if losses else torch.zeros(()).double())
    return (views[0] + views[1]) / 2


_FORMS = {
    "faithful": (faithful_alignment, _dense_faithful),
    "gentle": (gentle_alignment, _dense_gentle),
}


@pytest.mark.parametrize("form", sorted(_FORMS))
@pytest.mark.parametrize("width", [2, 4, 9])
@settings(deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 5), tau=st.sampled_from([0.05, 0.3, 1]))
def test_equals_the_dense_form(form: str, width: int, seed: int, classes: int, tau: float) -> None:
    features, fusion, labels, prototypes = _case(seed, classes, width)
    ours, dense = (f(features, fusion, labels, prototypes, tau) for f in _FORMS[form])
    torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-12)
    pairs = zip(
        _gradients(ours, features, fusion), _gradients(dense, features, fusion), strict=True
    )
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", sorted(_FORMS))
@pytest.mark.parametrize(
    ("labelled", "known"),
    [((0, 1, 3), (0, 1, 2, 3)), ((0, 1, 2, 3), (0, 2)), ((1, 3), (0, 1, 2)), ((0, 2), (0, 1, 2))],
)
def test_absent_classes_are_ordinary(
    form: str, labelled: tuple[int, ...], known: tuple[int, ...]
) -> None:
    """Classes may lack pixels, prototypes, or both, and the two sets need not agree."""
    features, fusion, labels, prototypes = _case(5, 4, 4)
    labels = torch.tensor(labelled)[labels % len(labelled)]
    views = [{c: view[c] for c in known} for view in prototypes.views]
    prototypes = GlobalPrototypes((views[0], views[1]))
    ours, dense = (f(features, fusion, labels, prototypes, 0.3) for f in _FORMS[form])
    torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", sorted(_FORMS))
@settings(deadline=None)
@given(seed=st.integers(0, 2**31), order=st.permutations([1, 2, 3]))
def test_names_of_foreground_classes_do_not_matter(form: str, seed: int, order: list[int]) -> None:
    features, fusion, labels, prototypes = _case(seed, 4, 3)
    renamed = torch.tensor([0, *order])
    views = [{int(renamed[c]): rows for c, rows in view.items()} for view in prototypes.views]
    loss = _FORMS[form][0]
    torch.testing.assert_close(
        loss(features, fusion, labels, prototypes, 0.3),
        loss(features, fusion, renamed[labels], GlobalPrototypes((views[0], views[1])), 0.3),
        rtol=1e-10,
        atol=1e-12,
    )


def test_nothing_to_align_is_a_differentiable_zero() -> None:
    features, fusion, labels, prototypes = _case(0, 3, 2)
    only_one = GlobalPrototypes(({1: prototypes.views[0][1]}, {}))
    nothing = GlobalPrototypes(({}, {}))
    unseen = GlobalPrototypes(({5: prototypes.views[0][1], 6: prototypes.views[0][2]}, {}))
    background = torch.zeros_like(labels)
    for loss in (
        gentle_alignment(features, fusion, labels, only_one),
        gentle_alignment(features, fusion, labels, nothing),
        gentle_alignment(features, fusion, labels, unseen),
        faithful_alignment(features, fusion, labels, nothing, 0.1),
        faithful_alignment(features, fusion, background, prototypes, 0.1),
    ):
        assert loss.item() == 0
        (features.logits.sum() * 0 + loss).backward()


def test_a_view_without_prototypes_counts_as_zero() -> None:
    features, fusion, labels, prototypes = _case(1, 3, 2)
    encoder = GlobalPrototypes((prototypes.views[0], {}))
    decoder = GlobalPrototypes(({}, prototypes.views[1]))
    for loss, _ in _FORMS.values():
        parts = [loss(features, fusion, labels, p, 0.3) for p in (encoder, decoder)]
        whole = loss(features, fusion, labels, prototypes, 0.3)
        torch.testing.assert_close(parts[0] + parts[1], whole)


def test_gentle_pulls_features_to_their_own_class() -> None:
    features, fusion, labels, prototypes = _case(2, 3, 4)
    before = gentle_alignment(features, fusion, labels, prototypes)
    gradients = torch.autograd.grad(before, features.encoder)
    moved = tuple(x - 0.5 * g / g.norm() for x, g in zip(features.encoder, gradients, strict=True))
    after = gentle_alignment(features._replace(encoder=moved), fusion, labels, prototypes)
    assert after < before
    assert all(g.abs().amax() > 0 for g in gradients)


def test_labels_may_be_bytes() -> None:
    features, fusion, labels, prototypes = _case(3, 3, 2)
    small = labels.to(torch.uint8)
    assert joint_loss(features.logits, small).total == joint_loss(features.logits, labels).total
    for loss, _ in _FORMS.values():
        assert loss(features, fusion, small, prototypes, 0.3) == loss(
            features, fusion, labels, prototypes, 0.3
        )


def test_foreground_weighs_as_many_times_more() -> None:
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(2))
    pixels = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    weights = torch.where(labels > 0, 5.0, 1.0)
    loss = joint_loss(logits, labels, 5.0)
    torch.testing.assert_close(loss.ce, (weights * pixels).sum() / weights.sum())
    assert loss.dice == joint_loss(logits, labels).dice


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_joint_loss_of_a_perfect_prediction_is_nearly_zero(seed: int, classes: int) -> None:
    labels = torch.randint(0, classes, (2, 8, 8), generator=torch.Generator().manual_seed(seed))
    logits = 50.0 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    loss = joint_loss(logits, labels)
    assert loss.total == (loss.ce + loss.dice) / 2
    assert 0 <= loss.total < 1e-4
    assert joint_loss(-logits, labels).total > 1
