from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbcs_secure.errors import ModelError
from fedbcs_secure.learning.losses import joint_loss
from fedbcs_secure.learning.unet import NetworkConfig, UNet
from fedbcs_secure.study import build

_SMALL = NetworkConfig(channels=1, classes=3, width=4)


def _parameter_name(golden_name: str) -> str:
    """``enc0_conv0`` to ``enc0.conv0.weight``, ``fsr1_h`` to ``fsr.enc1.mix``, and so on."""
    if found := re.fullmatch(r"fsr(\d)_(gain|shift|h)", golden_name):
        return f"fsr.enc{found[1]}.{'mix' if found[2] == 'h' else found[2]}"
    if "_conv" in golden_name:
        return golden_name.replace("_", ".") + ".weight"
    return golden_name.replace("_", ".")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_matches_the_published_network(net_golden: Any) -> None:
    x = net_golden["x"].requires_grad_()
    classes, width = net_golden["w_head_weight"].shape[:2]
    fsr = "published" if net_golden.names("w_fsr") else "off"
    model = UNet(NetworkConfig(x.shape[1], classes, width, norm="batch", fsr=fsr))
    weights = {name: _parameter_name(name[2:]) for name in net_golden.names("w_")}
    model.load_state_dict({ours: net_golden[name] for name, ours in weights.items()})

    features = model(x)
    loss = joint_loss(features.logits, net_golden["labels"]).total
    loss.backward()

    assert net_golden.abs_error("logits", features.logits) <= 1e-3
    for level in range(4):
        assert net_golden.abs_error(f"enc{level}", features.encoder[level]) <= 1e-3
        assert net_golden.abs_error(f"dec{level}", features.decoder[level]) <= 1e-3
    assert net_golden.abs_error("joint", loss) <= 1e-5
    assert net_golden.rel_error("grad_x", x.grad) <= 5e-3
    parameters = dict(model.named_parameters())
    gradients = net_golden.names("g_")
    assert len(gradients) == len(parameters)
    expected = torch.cat([net_golden[name].flatten() for name in gradients])
    got = torch.cat([parameters[_parameter_name(n[2:])].grad.flatten() for n in gradients])
    assert float((got - expected).norm() / expected.norm()) <= 5e-3


def test_has_the_papers_parameter_count() -> None:
    model = UNet(NetworkConfig(3, 2, 32, fsr="published", fused_width=256))
    assert model.fusion is not None
    assert _count(model) == 8_267_528
    assert _count(model.fusion) == 509_440
    assert _count(model.fsr) == 902


@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
@pytest.mark.parametrize("fsr", ["off", "published", "all"])
def test_shapes_of_all_variants(norm: Any, fsr: Any) -> None:
    model = UNet(NetworkConfig(3, 5, 6, norm=norm, fsr=fsr, fused_width=2))
    features = model(torch.rand(2, 3, 32, 48))
    assert features.logits.shape == (2, 5, 32, 48)
    for level in range(4):
        shape = (2, 6 * 2**level, 32 // 2**level, 48 // 2**level)
        assert features.encoder[level].shape == features.decoder[level].shape == shape
    places = {"off": 0, "published": 3, "all": 8}
    assert len(model.fsr) == places[fsr]


@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
def test_the_smallest_image_trains(norm: Any) -> None:
    model = UNet(NetworkConfig(1, 2, 4, norm=norm))
    loss = model(torch.rand(1, 1, 16, 16)).logits.square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("fsr", ["published", "all"])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_images_of_a_batch_do_not_see_each_other(norm: Any, fsr: Any) -> None:
    torch.manual_seed(0)
    model = UNet(NetworkConfig(1, 3, 4, norm=norm, fsr=fsr)).double()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    together = model(x).logits
    alone = torch.cat([model(image[None]).logits for image in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_batch_norm_uses_the_batch_in_evaluation_too() -> None:
    torch.manual_seed(0)
    model = UNet(NetworkConfig(1, 2, 4, norm="batch")).eval()
    x = torch.rand(2, 1, 32, 32)
    assert not torch.allclose(model(x).logits[:1], model(x[:1]).logits, atol=1e-3)
    assert not list(model.buffers())


@pytest.mark.parametrize("shape", [(1, 1, 24, 32), (1, 1, 32, 0), (1, 2, 32, 32), (1, 32, 32)])
def test_wrong_shapes_are_refused_with_a_way_out(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"data\."):
        UNet(_SMALL)(torch.zeros(shape))


def test_published_recalibration_feeds_pool_skip_and_prototypes() -> None:
    torch.manual_seed(0)
    model = UNet(NetworkConfig(1, 2, 4, fsr="published", fused_width=2))
    with torch.no_grad():
        model.fsr["enc1"].shift.fill_(7.0)
    seen: list[Tensor] = []
    model.enc2.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model.dec1.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    features = model(torch.rand(1, 1, 32, 32))
    torch.testing.assert_close(seen[0], torch.max_pool2d(features.encoder[1], 2))
    torch.testing.assert_close(seen[1][:, 8:], features.encoder[1])
    assert features.encoder[1].mean() > 5


def test_config_of_a_study() -> None:
    gentle = NetworkConfig.of(build({"model": {"width": 8}}))
    assert gentle == NetworkConfig(3, 2, 8, "instance", "published", 16)
    faithful = NetworkConfig.of(build({"alignment": {"form": "faithful"}}))
    assert faithful.fused_width == 256
    assert NetworkConfig.of(build({"alignment": {"form": "off"}})).fused_width == 0
    plain = NetworkConfig.of(build({"method": "fedavg", "model": {"fused_width": 8}}))
    assert (plain.fsr, plain.fused_width) == ("off", 0)
    assert UNet(plain).fusion is None
