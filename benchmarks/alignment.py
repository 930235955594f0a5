"""A training step with prototype alignment against the same U-Net's step without: time, memory."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from common.timing import interleaved_medians, parser, report

from fedbcs_secure.learning.losses import faithful_alignment, gentle_alignment, joint_loss
from fedbcs_secure.learning.prototypes import (
    GlobalPrototypes,
    PrototypeMeter,
    batch_class_means,
)
from fedbcs_secure.learning.unet import NetworkConfig, UNet

_HELP = """\
One training step (forward, loss, backward, Adam) of the U-Net of width 32 with published style
recalibration, 128 px, 3 channels, 2 classes, batch 6; without alignment (the base), with the gentle
L_MP (fused width 16, the default) and with the faithful one (fused width 256, temperature 0.005,
two global prototypes a class).

l_mp_step_ratio        step with gentle L_MP / base step, medians (target <= 1.15)
faithful_step_ratio    the same with faithful L_MP (target <= 1.15)
l_mp_and_prototypes_step_ratio  gentle L_MP and the site's own class means gathered / base step
l_mp_memory_ratio      peak memory with gentle L_MP / base (target <= 1.15)
faithful_memory_ratio  the same with faithful L_MP (target <= 1.15)
*_step_ms, *_memory_mb the figures behind the ratios

Time: the three steps run in turn in one process. Memory: each variant trains three steps in a fresh
process of its own; its figure is the growth of the peak resident set since just before the network
was built, in MB (1e6 bytes), so it holds weights, optimizer state, activations and temporaries, but
not the libraries. Median of --memory-runs processes each. These processes give large blocks back to
the system as soon as they are freed (a fixed MALLOC_MMAP_THRESHOLD_), so that the figure is what is
in use at once. With --default-heap they do not; each variant is then 15-25 % larger by holes in the
heap, which differ between runs, and the ratios vary by several percent.
"""
_VARIANTS = {"base": 0, "gentle": 16, "faithful": 256, "metered": 16}
_BATCH, _CHANNELS, _CLASSES, _WIDTH = 6, 3, 2, 32
_MEMORY_STEPS = 3
_RETURNED_BLOCK_BYTES = 131_072


def _step(variant: str, side: int) -> Callable[[], None]:
    """One training step of a variant, on its own network and optimizer."""
    torch.manual_seed(0)
    network = UNet(NetworkConfig(_CHANNELS, _CLASSES, _WIDTH, fused_width=_VARIANTS[variant]))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    images = torch.rand(_BATCH, _CHANNELS, side, side)
    coarse = torch.rand(_BATCH, 1, side // 8, side // 8)
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    labels = (smooth[:, 0] > 0.65).long()
    fusion = network.fusion
    prototypes = GlobalPrototypes(({}, {}))
    if fusion is not None:
        with torch.no_grad():
            # one image is enough, and leaves the peak to the training steps
            means = batch_class_means(network(images[:1]), fusion, labels[:1], _CLASSES)
        count = 2 if variant == "faithful" else 1
        encoder, decoder = (
            {
                c: view.means[c] + 0.1 * torch.randn(count, fusion.prototype_width)
                for c in range(_CLASSES)
            }
            for view in means
        )
        prototypes = GlobalPrototypes((encoder, decoder))

    meter = None
    if fusion is not None and variant == "metered":
        meter = PrototypeMeter(fusion, classes=_CLASSES, per="image")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        features = network(images)
        loss = joint_loss(features.logits, labels).total
        if fusion is not None and variant in ("gentle", "metered"):
            loss = loss + 0.1 * gentle_alignment(features, fusion, labels, prototypes)
        if fusion is not None and variant == "faithful":
            loss = loss + faithful_alignment(features, fusion, labels, prototypes, 0.005)
        loss.backward()
        if meter is not None:
            meter.add(features, labels)
        optimizer.step()

    return step


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _own_memory_mb(variant: str, side: int) -> float:
    """Growth of this process's peak over the variant's building and first steps."""
    before = _peak_bytes()
    step = _step(variant, side)
    for _ in range(_MEMORY_STEPS):
        step()
    return (_peak_bytes() - before) / 1e6


def _memory_mb(variant: str, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--measure", variant, "--threads", str(options.threads)]
    command += ["--size", str(options.size)]
    environment = dict(os.environ)
    if not options.default_heap:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(_RETURNED_BLOCK_BYTES)
    runs = [
        float(
            subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            ).stdout
        )
        for _ in range(options.memory_runs)
    ]
    return statistics.median(runs)


def main() -> None:
    arguments = parser(_HELP, repeats=9)
    arguments.add_argument(
        "--memory-runs", type=int, default=3, help="fresh processes a variant (default 3)"
    )
    arguments.add_argument(
        "--default-heap", action="store_true", help="measure memory with the C library's defaults"
    )
    arguments.add_argument("--size", type=int, default=128, help="image side (default 128)")
    arguments.add_argument("--measure", choices=sorted(_VARIANTS), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(_own_memory_mb(options.measure, options.size))
        return
    # memory first: on Linux a child inherits the peak that its parent had reached
    memory = {name: _memory_mb(name, options) for name in ("base", "gentle", "faithful")}
    seconds = interleaved_medians(
        {name: _step(name, options.size) for name in _VARIANTS}, repeats=options.repeats
    )
    results = {
        "l_mp_step_ratio": seconds["gentle"] / seconds["base"],
        "faithful_step_ratio": seconds["faithful"] / seconds["base"],
        "l_mp_and_prototypes_step_ratio": seconds["metered"] / seconds["base"],
        "l_mp_memory_ratio": memory["gentle"] / memory["base"],
        "faithful_memory_ratio": memory["faithful"] / memory["base"],
        **{f"{name}_step_ms": 1e3 * value for name, value in seconds.items()},
        **{f"{name}_memory_mb": value for name, value in memory.items()},
        "threads": options.threads,
        "default_heap": options.default_heap,
    }
    report(results, as_json=options.json)


if __name__ == "__main__":
    main()
