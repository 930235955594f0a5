from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbcs_secure.learning._quadratic import Level, fused_products
from fedbcs_secure.learning.fusion import DECODER, ENCODER, VIEWS, Features, Fusion


def _features(seed: int, encoder: list[int], decoder: list[int], size: tuple[int, int]) -> Features:
    g = torch.Generator().manual_seed(seed)

    def maps(channels: list[int]) -> tuple[Tensor, ...]:
        return tuple(
            torch.randn(2, c, size[0] >> k, size[1] >> k, generator=g).double().requires_grad_()
            for k, c in enumerate(channels)
        )

    return Features(torch.zeros(2, 2, *size).double(), maps(encoder), maps(decoder))


_channels = st.lists(st.integers(1, 7), min_size=4, max_size=4)
_sizes = st.tuples(st.sampled_from([8, 16, 32]), st.sampled_from([8, 16, 24]))


@settings(deadline=None)
@given(st.integers(0, 2**31), _channels, _channels, _sizes, st.integers(1, 8), st.booleans())
def test_products_and_sums_equal_the_dense_form(
    seed: int,
    encoder: list[int],
    decoder: list[int],
    size: tuple[int, int],
    width: int,
    centred: bool,
) -> None:
    features = _features(seed, encoder, decoder, size)
    torch.manual_seed(seed)
    fusion = Fusion(encoder, width, decoder).double()
    anchors = torch.randn(3, 3 * width).double()
    centre = torch.randn(3 * width).double() if centred else None
    labels = torch.randint(0, 4, (2, *size)) % 3
    for view in VIEWS:
        fused = fusion.fused(features, view)
        grid = size if view == ENCODER else (size[0] // 4, size[1] // 4)
        assert fused.shape == (2, 3 * width, *grid)
        moved = fused if centre is None else fused - centre[:, None, None]
        dots, norms = fusion.products(features, view, anchors, centre)
        expected = torch.einsum("nd,bdhw->bnhw", anchors, moved), moved.square().sum(1)
        torch.testing.assert_close(dots, expected[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(norms, expected[1], rtol=1e-9, atol=1e-10)

        step = 1 if view == ENCODER else 4
        members = torch.nn.functional.one_hot(labels[:, ::step, ::step], 4).double()
        sums, counts = fusion.class_sums(features, view, labels, 4)
        torch.testing.assert_close(sums, torch.einsum("bhwk,bdhw->bkd", members, fused))
        torch.testing.assert_close(counts, members.sum((1, 2)))
        assert not counts[:, 3].any()
        means, pixels = fusion.class_means(features, view, labels, 4)
        torch.testing.assert_close(means * pixels[:, None], sums.sum(0))


@pytest.mark.parametrize("width", [2, 5])
@pytest.mark.parametrize("view", VIEWS)
def test_gradcheck_of_both_exact_forms(width: int, view: int) -> None:
    """Width 2 goes through the direct form at every level, width 5 through the Gram form."""
    features = _features(0, [3, 3, 4, 4], [3, 3, 4, 4], (8, 8))
    torch.manual_seed(0)
    fusion = Fusion([3, 3, 4, 4], width).double()
    anchors = torch.randn(2, 3 * width).double()
    maps = features.encoder if view == ENCODER else features.decoder
    parameters = list((fusion.encoder if view == ENCODER else fusion.decoder).parameters())

    def call(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        replaced = features._replace(**{"encoder" if view == ENCODER else "decoder": inputs[:4]})
        return fusion.products(replaced, view, anchors)

    assert torch.autograd.gradcheck(call, (*maps, *parameters), fast_mode=True)


@pytest.mark.parametrize("width", [2, 4, 6])
def test_fused_products_gradcheck(width: int) -> None:
    """Two levels of 3 and 5 channels over a deep map of 7: both direct, mixed, neither."""
    anchors = torch.randn(2, 2 * width, dtype=torch.float64)
    shapes = [(2, 7, 2, 1)]
    for channels, side in ((3, 8), (5, 4)):
        shapes += [(2, channels, side, side // 2), (width, channels), (width, 7), (width,)]

    def call(deep: Tensor, *parts: Tensor) -> list[Tensor]:
        levels = [Level(*parts[:4]), Level(*parts[4:])]
        return [x for addend in fused_products(levels, deep, anchors) for x in addend]

    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("width", [2, 6])
def test_any_memory_layout_gives_the_same_result(width: int) -> None:
    torch.manual_seed(0)
    dense = _features(0, [3, 4, 5, 6], [3, 4, 5, 6], (16, 16))
    fusion, anchors = Fusion([3, 4, 5, 6], width).double(), torch.randn(2, 3 * width).double()

    def strided(x: Tensor) -> Tensor:
        return x.detach().clone(memory_format=torch.channels_last).requires_grad_()

    other = Features(
        dense.logits, tuple(map(strided, dense.encoder)), tuple(map(strided, dense.decoder))
    )
    for view in VIEWS:
        ours, expected = (fusion.products(f, view, anchors) for f in (other, dense))
        torch.testing.assert_close(ours, expected)
        for dots, norms in (ours, expected):
            (dots.sin().sum() + norms.sum()).backward()
    for a, b in zip(other.encoder + other.decoder, dense.encoder + dense.decoder, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("width", [2, 4, 9])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.9])
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), _channels, _channels, _sizes)
def test_products_at_pixels_equal_the_whole(
    width: int,
    share: float,
    seed: int,
    encoder: list[int],
    decoder: list[int],
    size: tuple[int, int],
) -> None:
    """Values and gradients, the same bits twice where only deterministic algorithms may run."""
    features = _features(seed, encoder, decoder, size)
    torch.manual_seed(seed)
    fusion = Fusion(encoder, width, decoder).double()
    anchors = torch.randn(3, 3 * width).double()
    for view in VIEWS:
        grid = fusion.grid(features, view)
        pixels = (torch.rand(2 * grid.numel()) < share).nonzero().flatten()
        inputs = [*(features.decoder if view else features.encoder)]
        inputs += (fusion.decoder if view else fusion.encoder).parameters()
        dots, norms = fusion.products(features, view, anchors)
        whole = dots.transpose(0, 1).flatten(1)[:, pixels], norms.flatten()[pixels]
        weights = torch.randn(3, len(pixels)).double(), torch.randn(len(pixels)).double()

        def gradients(
            found: tuple[Tensor, Tensor],
            weights: tuple[Tensor, Tensor] = weights,
            inputs: list[Tensor] = inputs,
        ) -> list[Tensor]:
            loss = (found[0] * weights[0]).sum() + (found[1] * weights[1]).sum()
            return list(torch.autograd.grad(loss, inputs))

        torch.use_deterministic_algorithms(True)
        try:
            runs = [fusion.products_at(features, view, anchors, pixels) for _ in range(2)]
            results = [gradients(found) for found in runs]
        finally:
            torch.use_deterministic_algorithms(False)
        torch.testing.assert_close(runs[0], whole, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(results[0], gradients(whole), rtol=1e-8, atol=1e-9)
        for a, b in zip([*runs[0], *results[0]], [*runs[1], *results[1]], strict=True):
            assert torch.equal(a, b)


def test_decoder_keeps_the_top_left_pixel_of_each_block() -> None:
    features = _features(0, [1] * 4, [1] * 4, (16, 16))
    fusion = Fusion([1] * 4, 1).double()
    with torch.no_grad():
        for convolution in fusion.decoder:
            convolution.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
            convolution.bias.zero_()
    fused = fusion.fused(features, DECODER)
    torch.testing.assert_close(fused[:, 0], features.decoder[2][:, 0])
    torch.testing.assert_close(fused[:, 1], features.decoder[1][:, 0, ::2, ::2])
    torch.testing.assert_close(fused[:, 2], features.decoder[0][:, 0, ::4, ::4])


def test_four_levels_are_required() -> None:
    with pytest.raises(ValueError, match="four levels"):
        Fusion([1, 2, 3], 4)
    assert Fusion([1, 2, 3, 4], 5).prototype_width == 15
