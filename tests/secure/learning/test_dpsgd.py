"""DP-SGD on patients: what one patient can move, and what noise is added, in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedbcs_secure.errors import PrivacyError, StudyError
from fedbcs_secure.learning.dpsgd import (
    EventAccountant,
    PatientOptimizer,
    check_network,
    length_limit,
    on_grid,
)
from fedbcs_secure.learning.unet import NetworkConfig, UNet
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.randomness import SecretStream
from fedbcs_secure.privacy.wide_gaussian import WIDTH_SQUARED

CLIP, SIGMA = 0.2, 2.7
LIMIT = length_limit(SIGMA)


def silent(count: int, stream: SecretStream) -> NDArray[np.int64]:
    return np.zeros(count, np.int64)


def model(width: int = 4) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))


def optimizer(
    network: nn.Module,
    *,
    noise: Callable[[int, SecretStream], NDArray[np.int64]] | None = None,
    lr: float = 1.0,
    sigma: float = SIGMA,
    expected: float = 4.0,
    stream: SecretStream | None = None,
) -> PatientOptimizer:
    return PatientOptimizer(
        torch.optim.SGD(network.parameters(), lr=lr),
        noise_multiplier=sigma,
        clip=CLIP,
        expected=expected,
        stream=stream or SecretStream.for_tests(1),
        **({} if noise is None else {"noise": noise}),
    )


def patient(seed: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(5, 3, generator=generator), torch.randn(5, 1, generator=generator)


def took(network: nn.Module, chosen: Sequence[tuple[Tensor, Tensor]]) -> PatientOptimizer:
    """An optimizer without noise that took these patients' gradients."""
    private = optimizer(network, noise=silent)
    for images, labels in chosen:
        nn.functional.mse_loss(network(images), labels).backward()
        private.take()
    return private


def units(private: PatientOptimizer) -> NDArray[np.int64]:
    """The sum before noise, flat."""
    parts = [p.summed_grad for p in private.params]
    return np.concatenate([part.numpy().reshape(-1) for part in parts])


# The length of one patient -----------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.7, 15.7, 1000.0])
def test_noise_covers_the_limit_exactly(sigma: float) -> None:
    """DP-3.3: W ≥ σL, and the next length would not be covered."""
    limit = length_limit(sigma)
    assert (Fraction(sigma) * limit) ** 2 <= WIDTH_SQUARED < (Fraction(sigma) * (limit + 1)) ** 2


@pytest.mark.parametrize("sigma", [1e-3, 1e6])
def test_noise_out_of_range(sigma: float) -> None:
    with pytest.raises(PrivacyError, match="outside"):
        length_limit(sigma)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_gradient_is_longer_than_the_limit(data: st.DataObject) -> None:
    """DP-3.2, in exact integers, whatever the size; and it is the clipped gradient."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size = data.draw(st.sampled_from([1e-30, 1e-4, 0.05, 1.0, 1e6, 1e30]))
    shapes = data.draw(st.sampled_from([[(1,)], [(3,), (2, 5)], [(4000,)]]))
    limit = data.draw(st.sampled_from([1, 7, LIMIT, 1 << 24]))
    gradient = [torch.tensor(size * rng.standard_normal(s), dtype=torch.float32) for s in shapes]
    parts = on_grid(gradient, CLIP, limit)
    assert parts is not None
    flat = [int(value) for part in parts for value in part.reshape(-1)]
    assert sum(value * value for value in flat) <= limit**2
    true = np.concatenate([g.double().numpy().reshape(-1) for g in gradient])
    scaled = true * limit / max(float(np.linalg.norm(true)), CLIP)
    # Toward zero, by less than one unit (and what a second try takes off).
    assert (np.abs(flat) <= np.abs(scaled) + 1e-6 * limit).all()
    assert (np.abs(np.array(flat) - scaled) <= 1 + 1e-5 * np.abs(scaled)).all()


def test_rounding_would_break_the_bound() -> None:
    """DP-3.2: half of all values up, and the vector is longer than what noise covers."""
    values = torch.full((4000,), 1.0)
    limit = math.floor(1.6 * math.sqrt(4000))
    parts = on_grid([values], CLIP, limit)
    assert parts is not None
    assert int(parts[0].square().sum()) <= limit**2
    rounded = torch.round(values * limit / math.sqrt(4000))
    assert float(rounded.square().sum()) > limit**2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_no_gradient(bad: float) -> None:
    """DP-3.4: what a patient's data do must not decide whether there is a release."""
    network = model()
    images, labels = patient(1)
    private = took(network, [patient(0)])
    alone = units(private)
    images[2, 1] = bad
    nn.functional.mse_loss(network(images), labels).backward()
    private.take()
    assert private.dropped == 1
    assert np.array_equal(units(private), alone)


def test_each_patient_moves_the_sum_by_at_most_the_limit() -> None:
    """DP-3.3: measured by removing each in turn; several are near the bound."""
    network = model()
    cohort = [patient(seed, 10.0 ** (seed % 4 - 1)) for seed in range(10)]
    easy = patient(10)[0]
    cohort.append((easy, network(easy).detach() + 0.01))
    whole = units(took(network, cohort))
    lengths = []
    for index in range(len(cohort)):
        rest = units(took(network, cohort[:index] + cohort[index + 1 :]))
        square = sum(int(d) ** 2 for d in whole - rest)
        assert square <= LIMIT**2
        lengths.append(math.sqrt(square) / LIMIT)
    assert max(lengths) > 0.9999
    assert min(lengths) < 0.99


def test_slices_of_a_patient_are_clipped_together() -> None:
    """The unit is the patient: five slices that all pull one way move no more than one."""
    network = model()
    images, labels = patient(5, 100.0)
    (alone,) = [units(took(network, [(images.repeat(5, 1), labels.repeat(5, 1))]))]
    assert sum(int(value) ** 2 for value in alone) <= LIMIT**2


def test_the_step_is_that_of_opacus_without_noise() -> None:
    """A second implementation: clip, sum and division are those of its optimizer."""
    cohort = [patient(seed, 0.3 * (seed + 1)) for seed in range(6)]
    ours, theirs = model(), model()
    took(ours, cohort).step()
    other = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=4,
    )
    samples: list[list[Tensor]] = []
    for images, labels in cohort:
        theirs.zero_grad()
        nn.functional.mse_loss(theirs(images), labels).backward()
        samples.append([p.grad.clone() for p in theirs.parameters()])  # type: ignore[union-attr]
    for parameter, parts in zip(theirs.parameters(), zip(*samples, strict=True), strict=True):
        parameter.grad_sample = torch.stack(parts)  # type: ignore[attr-defined]
    other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=2e-5 * CLIP)


def test_a_parameter_without_a_gradient_is_zero() -> None:
    network = model()
    private = optimizer(network, noise=silent)
    first = network[0](torch.ones(1, 3)).sum()
    first.backward()
    private.take()
    assert not units(private)[-5:].any()
    assert units(private).any()


# Noise -------------------------------------------------------------------------------------------


def noise_of(private: PatientOptimizer) -> NDArray[np.float64]:
    """What one step over nobody adds to the parameters, in standard deviations."""
    before = [p.detach().clone() for p in private.params]
    private.step()
    moved = [(b - p.detach()) for p, b in zip(private.params, before, strict=True)]
    flat = np.concatenate([m.double().numpy().reshape(-1) for m in moved])
    return flat * 4.0 / (CLIP * math.sqrt(WIDTH_SQUARED) / LIMIT)


def wide() -> nn.Module:
    return nn.ParameterList([nn.Parameter(torch.zeros(40_000)), nn.Parameter(torch.zeros(3, 7))])


def scale_is_right(noise: NDArray[np.float64]) -> bool:
    """A chi-square test of the variance; false alarm 10^-6 (4.9 deviations)."""
    return bool(abs(np.square(noise).mean() - 1) < 4.9 * math.sqrt(2 / noise.size))


def test_a_step_over_nobody_is_noise_of_the_right_scale() -> None:
    """DP-3.3, with secret noise; a scale that is 5 % off would be seen."""
    noise = noise_of(optimizer(wide(), stream=SecretStream.fresh()))
    assert noise.size == 40_021
    assert scale_is_right(noise)
    assert not scale_is_right(noise * 1.05)
    assert not scale_is_right(noise * 0.95)
    assert abs(noise.mean()) < 4.9 / math.sqrt(noise.size)
    # At least σC, since W ≥ σL.
    assert math.sqrt(WIDTH_SQUARED) / LIMIT >= SIGMA


def reused(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two noises hang together; false alarm 10^-6."""
    return bool(abs(float(np.mean(first * second))) > 4.9 / math.sqrt(first.size))


def test_noise_is_never_used_twice() -> None:
    """Neither by the next step nor by another process or restart; what did would be seen."""
    private = optimizer(wide(), stream=SecretStream.fresh())
    first, second = noise_of(private), noise_of(private)
    anew = noise_of(optimizer(wide(), stream=SecretStream.fresh()))
    assert not reused(first, second)
    assert not reused(first, anew)
    again = [noise_of(optimizer(wide(), stream=SecretStream.for_tests(9))) for _ in range(2)]
    assert reused(*again)
    assert reused(first, 0.1 * first + second)


def test_noise_is_added_to_the_sum() -> None:
    network, noisy = model(), model()
    cohort = [patient(seed) for seed in range(4)]
    took(network, cohort).step()
    private = optimizer(noisy, noise=lambda count, _: np.full(count, 1000, np.int64))
    for images, labels in cohort:
        nn.functional.mse_loss(noisy(images), labels).backward()
        private.take()
    private.step()
    shift = 1000 * CLIP / LIMIT / 4.0
    for a, b in zip(network.parameters(), noisy.parameters(), strict=True):
        assert torch.allclose(a - b, torch.full_like(a, shift), rtol=0, atol=1e-7)


# Accounting --------------------------------------------------------------------------------------


def test_every_step_counts_the_empty_ones_too() -> None:
    """DP-3.1"""
    network, accountant = model(), EventAccountant()
    private = optimizer(network)
    private.attach_step_hook(accountant.get_optimizer_hook_fn(0.25))
    for chosen in ([], [patient(0), patient(1)], []):
        for images, labels in chosen:
            nn.functional.mse_loss(network(images), labels).backward()
            private.take()
        private.step()
    assert accountant.events == Gaussian(SIGMA, 0.25).times(3)
    assert len(accountant) == 3
    assert Events.decode(accountant.events.encode()) == accountant.events


def test_nothing_of_a_step_is_left_for_the_next() -> None:
    network = model()
    private = took(network, [patient(0)])
    private.step()
    assert all(p.summed_grad is None and p.grad is None for p in private.params)


def test_an_optimizer_that_has_seen_gradients_is_refused() -> None:
    """DP-3.5: momentum of raw gradients would carry them out."""
    network = model()
    used = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9)
    network(torch.ones(2, 3)).sum().backward()
    used.step()
    with pytest.raises(PrivacyError, match="fresh one"):
        PatientOptimizer(
            used, noise_multiplier=1.0, clip=1.0, expected=1.0, stream=SecretStream.for_tests(0)
        )


BAD_LAYERS = [
    nn.BatchNorm2d(4),
    # Opacus's own validator lets this one pass.
    nn.BatchNorm2d(4, affine=False, track_running_stats=False),
    nn.BatchNorm1d(4),
    nn.InstanceNorm2d(4, track_running_stats=True),
]


@pytest.mark.parametrize("layer", BAD_LAYERS, ids=str)
def test_layers_that_mix_patients_are_refused(layer: nn.Module) -> None:
    """DP-3.5"""
    with pytest.raises(StudyError, match=r"layer 1 .*(BatchNorm|InstanceNorm)"):
        check_network(nn.Sequential(nn.Conv2d(1, 4, 3), layer))


def test_our_network_is_taken() -> None:
    config = NetworkConfig(channels=1, classes=2, width=4, fused_width=4)
    check_network(UNet(config))
