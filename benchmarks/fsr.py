"""Style recalibration: the closed form against the paper's Fourier form, forward and backward."""

from __future__ import annotations

import torch
from common.timing import interleaved_medians, parser, report
from torch import Tensor, nn

from fedbcs_secure.learning.recalibration import EPSILON, TEMPERATURE, StyleRecalibration

_HELP = """\
Time of style recalibration (FSR), forward and backward, at the three encoder levels that the paper
recalibrates: width 32, 128 px, batch 6, so 64, 128 and 256 channels at 64, 32 and 16 px.

fsr_speedup       time of the Fourier form / time of the closed form, all levels together (>= 10)
fourier_ms        the Fourier form, all levels, median
closed_form_ms    the closed form, all levels, median
plain_formula_ms  the closed form by ordinary torch operations, all levels, median
largest_output_difference  between both forms on these inputs (float32)

The peers run in turn in one process.
"""
_LEVELS = ((64, 64), (128, 32), (256, 16))
_BATCH = 6
_AMPLITUDE_FLOOR = 1e-5


class FourierRecalibration(nn.Module):
    """FSR as the paper describes it: amplitudes mixed in the Fourier domain, phase kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.mix = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.mix / TEMPERATURE, dim=0)
        spectrum = torch.fft.fft2(x)
        normalised = torch.fft.fft2(torch.group_norm(x, x.shape[1], eps=EPSILON))
        # without a floor the gradient of the amplitude is not finite where it is 0
        own, free = (
            (s.real.square() + s.imag.square()).clamp(min=_AMPLITUDE_FLOOR).sqrt()
            for s in (spectrum, normalised)
        )
        mixed = torch.polar(shares[0] * free + shares[1] * own, spectrum.angle())
        restored = torch.fft.ifft2(mixed).real
        return self.gain[:, None, None] * restored + self.shift[:, None, None]


class PlainRecalibration(StyleRecalibration):
    """The closed form, differentiated by autograd."""

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.mix / TEMPERATURE, dim=0)
        normalised = torch.group_norm(x, x.shape[1], eps=EPSILON)
        mixed = shares[0] * normalised + shares[1] * x
        return self.gain[:, None, None] * mixed + self.shift[:, None, None]


def main() -> None:
    options = parser(_HELP, repeats=15).parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.rand(_BATCH, channels, side, side, generator=generator).requires_grad_()
        for channels, side in _LEVELS
    ]
    cotangents = [torch.rand(x.shape, generator=generator) for x in inputs]
    forms = {
        "fourier": FourierRecalibration,
        "closed": StyleRecalibration,
        "plain": PlainRecalibration,
    }
    modules = {name: [form(c) for c, _ in _LEVELS] for name, form in forms.items()}

    def step(name: str) -> None:
        for module, x, cotangent in zip(modules[name], inputs, cotangents, strict=True):
            x.grad = None
            module.zero_grad()
            module(x).backward(cotangent)

    seconds = interleaved_medians(
        {name: lambda name=name: step(name) for name in forms}, repeats=options.repeats, warmup=2
    )
    with torch.no_grad():
        difference = max(
            float((closed(x) - fourier(x)).abs().max())
            for closed, fourier, x in zip(
                modules["closed"], modules["fourier"], inputs, strict=True
            )
        )
    results = {
        "fsr_speedup": seconds["fourier"] / seconds["closed"],
        "fourier_ms": 1e3 * seconds["fourier"],
        "closed_form_ms": 1e3 * seconds["closed"],
        "plain_formula_ms": 1e3 * seconds["plain"],
        "largest_output_difference": difference,
        "threads": options.threads,
    }
    report(results, as_json=options.json)


if __name__ == "__main__":
    main()
