"""Speed and size of the protected sum: quantise, mask, pack, unpack, add; bytes a parameter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from common.timing import interleaved_medians, parser, report

from fedbcs_protocols import codec, ring
from fedbcs_protocols.derive import PublicStream
from fedbcs_protocols.messages import VectorShape
from fedbcs_protocols.secagg.masking import PairMask, masked_blocks
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES

_HELP = """\
8.3 million values (--values), 16 bits a value, one thread.

quantise_ms             float32 update -> codes, the public rounding stream included
mask_pack_ms_nN         the masks of all N - 1 pairs added, and the result packed
pack_ms, unpack_ms      the packed form alone, at the 19 bits of 8 sites
add_ms                  the combiner's work for one packed vector: check, unpack, add
bytes_per_parameter_nN  a whole frame with a masked vector, divided by the number of values

Times are medians.
"""
_BITS = 16


def measure(count: int, repeats: int) -> dict[str, float]:
    """All figures for vectors of ``count`` values."""
    random = np.random.default_rng(0)
    update = random.standard_normal(count, dtype=np.float32)
    segments = [codec.Segment("all", 0, count)]

    def quantise() -> codec.Quantised:
        words = PublicStream(0, "rounding").words16(count)
        return codec.quantise(update, segments, [4], _BITS, words)

    codes = quantise().codes

    def mask_and_pack(sites: int) -> Callable[[], bytearray]:
        bits = ring.ring_bits(_BITS, sites)
        pairs = [PairMask(random.bytes(32), adds=i % 2 == 0) for i in range(sites - 1)]
        return lambda: ring.pack_blocks(masked_blocks(codes, pairs, bits), count, bits)

    bits = ring.ring_bits(_BITS, 8)
    packed = ring.pack(codes, bits)
    accumulator = ring.Accumulator(count, bits)
    seconds = interleaved_medians(
        {
            "quantise_ms": quantise,
            **{f"mask_pack_ms_n{sites}": mask_and_pack(sites) for sites in (4, 16, 64)},
            "pack_ms": lambda: ring.pack(codes, bits),
            "unpack_ms": lambda: ring.unpack(packed, count, bits),
            "add_ms": lambda: accumulator.add(packed),
        },
        repeats=repeats,
    )
    results = {name: 1e3 * value for name, value in seconds.items()}
    for sites in (4, 8, 64):
        shape = VectorShape(count, ring.ring_bits(_BITS, sites), sites)
        size = shape.body_bytes + MAX_OVERHEAD_BYTES
        results[f"bytes_per_parameter_n{sites}"] = size / count
    return results


def main() -> None:
    options = parser(_HELP, repeats=7)
    options.add_argument("--values", type=int, default=8_300_000)
    arguments = options.parse_args()
    report(measure(arguments.values, arguments.repeats), as_json=arguments.json)


if __name__ == "__main__":
    main()
