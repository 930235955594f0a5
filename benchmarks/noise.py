"""Speed of the exact noise of differential privacy, beside floating-point noise and OpenDP."""

from __future__ import annotations

import time
from fractions import Fraction
from functools import partial

import numpy as np
from common.timing import Action, interleaved_medians, parser, report
from numpy.typing import NDArray
from scipy.special import ndtri

from fedbcs_secure.privacy.discrete_gaussian import discrete_gaussian
from fedbcs_secure.privacy.randomness import SecretStream
from fedbcs_secure.privacy.wide_gaussian import WIDTH, base_table, wide_gaussian

_HELP = """\
All noise comes from ChaCha20 under a fresh key; one thread.

discrete_gaussian_s_1e5_sigma_S  CPU seconds for 100,000 exact draws of width S: 0.5, 4, 64, 10000
opendp_s_1e5              CPU seconds of OpenDP's sampler for the same at width 4; null where it is
                          not installed
discrete_gaussian_speedup  opendp_s_1e5 / discrete_gaussian_s_1e5_sigma_4
wide_ns                   a value of the wide noise of DP-SGD, integers of width 524289
float_ns                  a value of the same noise by floating point: 53 random bits, the inverse
                          normal distribution (scipy's ndtri), rounding to the grid
wide_over_float           wide_ns / float_ns
table_ms                  making the table of the wide noise, once a process

Times are medians over --values values, the two kinds of wide noise in turn.
"""
_COUNT = 100_000
_SCALES = {
    "0.5": Fraction(1, 4),
    "4": Fraction(16),
    "64": Fraction(4096),
    "10000": Fraction(10**8),
}
_BATCH = 1 << 15


def float_noise(count: int, stream: SecretStream) -> NDArray[np.int64]:
    """Rounded floating-point noise of the same width: what the integers are the proof for."""
    out = np.empty(count, np.int64)
    for start in range(0, count, _BATCH):
        part = out[start : start + _BATCH]
        # The middles of 2^53 equal steps: never 0 or 1.
        uniform = stream.uniform53(len(part)) + 2.0**-54
        part[:] = np.rint(ndtri(uniform) * WIDTH)
    return out


def _cpu_seconds(action: Action, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        seconds.append(time.process_time() - started)
    return float(np.median(seconds))


def _opendp(count: int) -> Action | None:
    try:
        import opendp.prelude as dp
    except ImportError:
        return None
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    mechanism = dp.m.make_gaussian(*space, scale=4.0)
    zeros = [0] * count
    return lambda: mechanism(zeros)


def measure(values: int, repeats: int) -> dict[str, float | None]:
    stream = SecretStream.fresh()
    started = time.perf_counter()
    base_table()
    figures: dict[str, float | None] = {"table_ms": 1e3 * (time.perf_counter() - started)}
    seconds = interleaved_medians(
        {
            "wide": lambda: wide_gaussian(values, stream),
            "float": lambda: float_noise(values, stream),
        },
        repeats=repeats,
    )
    figures["wide_ns"] = 1e9 * seconds["wide"] / values
    figures["float_ns"] = 1e9 * seconds["float"] / values
    figures["wide_over_float"] = seconds["wide"] / seconds["float"]
    for name, sigma2 in _SCALES.items():
        figures[f"discrete_gaussian_s_1e5_sigma_{name}"] = _cpu_seconds(
            partial(discrete_gaussian, sigma2, _COUNT, stream), repeats
        )
    peer = _opendp(_COUNT)
    ours, theirs = figures["discrete_gaussian_s_1e5_sigma_4"], None
    if peer is not None:
        theirs = _cpu_seconds(peer, min(repeats, 3))
    figures["opendp_s_1e5"] = theirs
    figures["discrete_gaussian_speedup"] = theirs / ours if theirs and ours else None
    return figures


def main() -> None:
    options = parser(_HELP, repeats=7)
    options.add_argument("--values", type=int, default=1 << 22, help="(default 4 million)")
    options.add_argument("--quick", action="store_true", help="one repetition, 65,536 values")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.values, arguments.repeats = 1 << 16, 1
    report(measure(arguments.values, arguments.repeats), as_json=arguments.json)


if __name__ == "__main__":
    main()
