from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbcs_secure.learning.recalibration import EPSILON, TEMPERATURE, StyleRecalibration

_AMPLITUDE_FLOOR = 1e-5**0.5
"""The published code raises smaller Fourier amplitudes to this, which the closed form does not."""


def _normalise(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + EPSILON).sqrt()


def _spectral(x: Tensor, module: StyleRecalibration) -> Tensor:
    """The paper's form, without floor: mixed amplitudes of both maps, phase of x, and back."""
    shares = torch.softmax(module.mix / TEMPERATURE, dim=0)
    spectrum = torch.fft.fft2(x)
    amplitude = shares[0] * torch.fft.fft2(_normalise(x)).abs() + shares[1] * spectrum.abs()
    # instance normalisation removes the DC term, whose phase is then that of x times zero
    mixed = torch.fft.ifft2(torch.polar(amplitude, spectrum.angle())).real
    return module.gain[:, None, None] * mixed + module.shift[:, None, None]


def _module(channels: int, seed: int) -> StyleRecalibration:
    generator = torch.Generator().manual_seed(seed)
    module = StyleRecalibration(channels).double()
    with torch.no_grad():
        for parameter, start in ((module.gain, 1.0), (module.shift, 0.0), (module.mix, 0.0)):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(start + 0.1 * noise)
    return module


def _floor_is_active(x: Tensor) -> bool:
    normalised = torch.fft.fft2(_normalise(x)).abs()
    normalised[..., 0, 0] = torch.inf
    smallest = torch.minimum(torch.fft.fft2(x).abs(), normalised).min()
    return bool(smallest < 1.01 * _AMPLITUDE_FLOOR)


def test_matches_the_published_code(fsr_golden: Any) -> None:
    x = fsr_golden["x"].requires_grad_()
    assert float(fsr_golden["temperature"]) == pytest.approx(TEMPERATURE)
    module = StyleRecalibration(x.shape[1])
    module.load_state_dict(
        {n: fsr_golden[g] for n, g in (("gain", "gain"), ("shift", "shift"), ("mix", "h"))}
    )
    y = module(x)
    y.backward(fsr_golden["cotangent"])
    assert fsr_golden.abs_error("y", y) <= 5e-5
    limit = 5e-2 if _floor_is_active(fsr_golden["x"].double()) else 1e-4
    assert fsr_golden.rel_error("grad_x", x.grad) <= limit
    assert fsr_golden.rel_error("grad_gain", module.gain.grad) <= 5e-5
    assert fsr_golden.rel_error("grad_shift", module.shift.grad) <= 1e-6
    assert fsr_golden.rel_error("grad_h", module.mix.grad) <= 2e-3


@settings(deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(2, 17),
    st.integers(2, 17),
    st.floats(0.05, 20),
    st.integers(0, 2**31),
)
def test_equals_the_fourier_form(
    images: int, channels: int, height: int, width: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.rand(images, channels, height, width, generator=generator).double()
    module = _module(channels, seed)
    with torch.no_grad():
        y, expected = module(x), _spectral(x, module)
    assert float((y - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(0, 2**31))
def test_gradients_equal_those_of_the_plain_formula(
    images: int, channels: int, side: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, side, side + 1, generator=generator).double()
    cotangent = torch.randn(x.shape, generator=generator).double()
    module = _module(channels, seed)
    inputs = (x.requires_grad_(), *module.parameters())
    ours = torch.autograd.grad(module(x), inputs, cotangent)
    shares = torch.softmax(module.mix / TEMPERATURE, dim=0)
    mixed = shares[0] * _normalise(x) + shares[1] * x
    plain = module.gain[:, None, None] * mixed + module.shift[:, None, None]
    for got, expected in zip(ours, torch.autograd.grad(plain, inputs, cotangent), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


def test_gradcheck() -> None:
    module = _module(2, 3)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    parameters = tuple(p.detach().clone().requires_grad_() for p in module.parameters())

    def call(x: Tensor, gain: Tensor, shift: Tensor, mix: Tensor) -> Tensor:
        values = {"gain": gain, "shift": shift, "mix": mix}
        return torch.func.functional_call(module, values, (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters))


def test_any_memory_layout_gives_the_same_result() -> None:
    module = _module(3, 0)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    strided = x.to(memory_format=torch.channels_last).requires_grad_()
    dense = x.clone().requires_grad_()
    cotangent = torch.randn_like(x)
    module(strided).backward(cotangent.to(memory_format=torch.channels_last))
    module(dense).backward(cotangent)
    torch.testing.assert_close(module(strided), module(dense))
    torch.testing.assert_close(strided.grad, dense.grad)


def test_dead_and_constant_channels_stay_finite() -> None:
    module = StyleRecalibration(2)
    x = torch.stack((torch.zeros(4, 4), torch.full((4, 4), 0.5)))[None].requires_grad_()
    y = module(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    torch.testing.assert_close(y[0, 0], torch.zeros(4, 4))


_FREQUENCY = torch.fft.fftfreq(32) * 32
_RADIUS = (_FREQUENCY[:, None] ** 2 + _FREQUENCY[None] ** 2).sqrt()


def _smooth(generator: torch.Generator, mean: float, deviation: float) -> Tensor:
    """A random image with a falling spectrum."""
    noise = torch.fft.fft2(torch.randn(1, 1, 32, 32, generator=generator, dtype=torch.float64))
    image = torch.fft.ifft2(noise / (1 + _RADIUS) ** 1.5).real
    return mean + deviation * (image - image.mean()) / image.std()


def _with_style_of(content: Tensor, other: Tensor) -> Tensor:
    """``content`` with the low-frequency amplitudes of ``other``, keeping its own phase."""
    spectrum = torch.fft.fft2(content)
    low = _RADIUS <= 4
    amplitude = torch.where(low, torch.fft.fft2(other).abs(), spectrum.abs())
    return torch.fft.ifft2(torch.polar(amplitude, spectrum.angle())).real


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.7, 0.9), st.floats(0.3, 0.45))
def test_reduces_a_change_of_style(seed: int, brightness: float, deviation: float) -> None:
    """Another site's low-frequency amplitudes change the output less than the input, each
    difference measured in standard deviations of the image that it changes."""
    generator = torch.Generator().manual_seed(seed)
    content = _smooth(generator, 0.4, 0.15)
    restyled = _with_style_of(content, _smooth(generator, brightness, deviation))
    module = StyleRecalibration(1).double()

    def change(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / a.std())

    with torch.no_grad():
        assert change(module(content), module(restyled)) < 0.7 * change(content, restyled)


def test_full_normalisation_removes_brightness_and_contrast() -> None:
    module = StyleRecalibration(1).double()
    with torch.no_grad():
        module.mix.copy_(torch.tensor([4.0, -4.0]))
    x = _smooth(torch.Generator().manual_seed(1), 0.4, 0.15)
    with torch.no_grad():
        torch.testing.assert_close(module(0.3 + 1.8 * x), module(x), rtol=0, atol=2e-3)
