"""Losses and class means against golden files of the published code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedbcs_secure.learning.fusion import DECODER, ENCODER, VIEWS, Features, Fusion
from fedbcs_secure.learning.losses import contrast, faithful_alignment, joint_loss
from fedbcs_secure.learning.prototypes import GlobalPrototypes, batch_class_means


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
    if not present:
        return
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
