from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbcs_secure.learning.fusion import DECODER, ENCODER, VIEWS, Features, Fusion
from fedbcs_secure.learning.losses import (
    contrast,
    faithful_alignment,
    gentle_alignment,
    joint_loss,
)
from fedbcs_secure.learning.prototypes import GlobalPrototypes, batch_class_means

_PATHS = {ENCODER: "enc", DECODER: "dec"}


# --- against the published code ---------------------------------------------------------------


def test_joint_loss_matches_the_published_code(joint_golden: Any) -> None:
    logits = joint_golden["logits"].requires_grad_()
    loss = joint_loss(logits, joint_golden["labels"])
    loss.total.backward()
    assert joint_golden.abs_error("joint", loss.total) <= 1e-6
    assert joint_golden.abs_error("ce", loss.ce) <= 1e-6
    assert joint_golden.abs_error("dice_loss", loss.dice) <= 1e-6
    assert joint_golden.rel_error("grad_logits", logits.grad) <= 1e-5


def test_contrast_matches_the_published_code(contra_golden: Any) -> None:
    f = contra_golden["f"].requires_grad_()
    positive = contra_golden["pos"]
    anchors = torch.cat((positive, contra_golden["neg"]))
    members = (torch.arange(len(anchors)) < len(positive))[None]
    owner = torch.zeros(len(f), dtype=torch.long)
    temperature = float(contra_golden["temperature"])
    terms = contrast(anchors @ f.T, f.square().sum(1), anchors, members, owner, temperature)
    contra, consis = (term.mean() for term in terms)
    (grad_contra,) = torch.autograd.grad(contra, f, retain_graph=True)
    (grad_total,) = torch.autograd.grad(contra + consis, f)
    assert contra_golden.rel_error("contra", contra) <= 1e-5
    assert contra_golden.rel_error("consis", consis) <= 1e-5
    assert contra_golden.rel_error("L_MP", contra + consis) <= 1e-5
    assert contra_golden.rel_error("grad_L_MP", grad_total) <= 1e-4
    if not contra_golden["grad_contra"].any():
        assert not grad_contra.any()
    assert contra_golden.rel_error("grad_contra", grad_contra) <= 1e-4


def _golden_prototypes(golden: Any) -> GlobalPrototypes:
    views = []
    for view in VIEWS:
        prefix = f"global_view{view}_class"
        views.append({int(n.removeprefix(prefix)): golden[n] for n in golden.names(prefix)})
    return GlobalPrototypes((views[0], views[1]))


def _golden_fusion(golden: Any) -> Fusion:
    encoder, decoder = ([golden[f"{p}{k}"].shape[1] for k in range(4)] for p in ("enc", "dec"))
    fusion = Fusion(encoder, golden["enc_fuse0_b"].shape[0], decoder)
    for path, convolutions in (("enc", fusion.encoder), ("dec", fusion.decoder)):
        for k in range(3):
            weight = golden[f"{path}_fuse{k}_w"]
            convolutions[k].load_state_dict(
                {"weight": weight[:, :, None, None], "bias": golden[f"{path}_fuse{k}_b"]}
            )
    return fusion


def test_client_step_matches_the_published_code(client_golden: Any) -> None:
    fusion = _golden_fusion(client_golden)
    maps = {
        f"{p}{k}": client_golden[f"{p}{k}"].requires_grad_()
        for p in ("enc", "dec")
        for k in range(4)
    }
    logits = client_golden["logits"].requires_grad_()
    features = Features(
        logits,
        tuple(maps[f"enc{k}"] for k in range(4)),
        tuple(maps[f"dec{k}"] for k in range(4)),
    )
    labels = client_golden["labels"]
    prototypes = _golden_prototypes(client_golden)
    temperature = float(client_golden["temperature"])

    for view, name in ((ENCODER, "encoder_fused"), (DECODER, "decoder_fused")):
        assert client_golden.abs_error(name, fusion.fused(features, view)) <= 2e-6
    classes = logits.shape[1]
    for view, found in enumerate(batch_class_means(features, fusion, labels, classes)):
        for c in range(classes):
            name = f"proto_view{view}_class{c}"
            assert (name in client_golden) == bool(found.present[c])
            if name in client_golden:
                assert client_golden.abs_error(name, found.means[c]) <= 2e-6

    joint = joint_loss(logits, labels).total
    alignment = faithful_alignment(features, fusion, labels, prototypes, temperature)
    total = joint + alignment
    total.backward()
    assert client_golden.abs_error("joint", joint) <= 1e-6
    assert client_golden.rel_error("L_MP", alignment) <= 1e-5
    assert client_golden.rel_error("total", total) <= 1e-5
    for view in VIEWS:
        _check_view(client_golden, fusion, features, labels, prototypes, temperature, view)

    gradients = {f"grad_{name}": x.grad for name, x in maps.items()}
    gradients["grad_logits"] = logits.grad
    for path, convolutions in (("enc", fusion.encoder), ("dec", fusion.decoder)):
        for k in range(3):
            gradients[f"grad_{path}_fuse{k}_w"] = convolutions[k].weight.grad.flatten(1)
            gradients[f"grad_{path}_fuse{k}_b"] = convolutions[k].bias.grad
    assert set(client_golden.names("grad_")) == set(gradients)
    for name, gradient in gradients.items():
        assert client_golden.rel_error(name, gradient) <= 1e-4, name


def _check_view(
    golden: Any,
    fusion: Fusion,
    features: Features,
    labels: Tensor,
    prototypes: GlobalPrototypes,
    temperature: float,
    view: int,
) -> None:
    """The terms of one view, class by class, from ``products`` and ``contrast``."""
    on_grid = fusion.labels_on_grid(features, view, labels).flatten()
    present = [c for c in on_grid.unique().tolist() if c]
    assert golden[f"view{view}_classes"].tolist() == present
    rows = prototypes.views[view]
    anchors = torch.cat([rows[c] for c in sorted(rows)])
    of_class = torch.cat([torch.full((len(rows[c]),), c) for c in sorted(rows)])
    dots, norms = fusion.products(features, view, anchors)
    contra, consis = [], torch.zeros(())
    for c in present:
        pixels = (on_grid == c).nonzero().flatten()
        owner = torch.zeros(len(pixels), dtype=torch.long)
        terms = contrast(
            dots.transpose(0, 1).flatten(1)[:, pixels],
            norms.flatten()[pixels],
            anchors,
            (of_class == c)[None],
            owner,
            temperature,
        )
        contra.append(terms[0].mean())
        consis = consis + terms[1].mean()
    assert golden.rel_error(f"view{view}_contra", torch.stack(contra)) <= 1e-5
    assert golden.rel_error(f"view{view}_consis_sum", consis) <= 1e-5
    loss = (sum(contra) + consis) / len(present)
    assert golden.rel_error(f"view{view}_L_MP", loss) <= 1e-5


# --- against dense float64 forms --------------------------------------------------------------


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


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_joint_loss_of_a_perfect_prediction_is_nearly_zero(seed: int, classes: int) -> None:
    labels = torch.randint(0, classes, (2, 8, 8), generator=torch.Generator().manual_seed(seed))
    logits = 50.0 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    loss = joint_loss(logits, labels)
    assert loss.total == (loss.ce + loss.dice) / 2
    assert 0 <= loss.total < 1e-4
    assert joint_loss(-logits, labels).total > 1
