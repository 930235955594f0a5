"""Speed and size of the protected sum: its parts, its stages beside training, its growth.

Measured beside Flower's SecAgg+ client where that is installed (peers/flower.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from common.timing import Action, interleaved_medians, parser, report
from numpy.typing import NDArray
from peers import flower
from secagg_parts import growth, session, share_of_round

from fedbcs_protocols import codec, ring
from fedbcs_protocols.derive import PublicStream
from fedbcs_protocols.messages import VectorShape
from fedbcs_protocols.secagg.masking import Mask, masked_blocks
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES
from fedbcs_secure.federation.machine import choose_keystream
from fedbcs_secure.learning.device import set_threads

_HELP = """\
8.3 million values (--values), 16 bits a value, one thread.

quantise_ms             float32 update -> codes, the public rounding stream included
mask_pack_ms_nN         a site's N masks (N - 1 pairs and its own) added, and the result packed
pack_ms, unpack_ms      the packed form alone, at the 19 bits of 8 sites
add_ms                  the combiner's work for one packed vector: check, unpack, add
bytes_per_parameter_nN  a whole frame with a masked vector, divided by the number of values

Flower's SecAgg+ client on the same update, in turn with ours; null where it is not installed:

flower_version               what was measured
flower_quantise_ms           float32 update -> integers, with its default parameters
flower_mask_serialise_ms_nN  the same N masks added, modulus taken, arrays written to bytes
flower_bytes_per_parameter   its arrays as bytes, divided by the number of values
quantise_speedup             flower_quantise_ms / quantise_ms
mask_pack_speedup_nN         flower_mask_serialise_ms_nN / mask_pack_ms_nN

Whole sums, every frame of every party (secagg_parts/):

server_unmask_s_n64_drop20   CPU seconds to take the masks off: 64 sites, 20 of them gone
stages_share_of_round        stages of 4 sites and combiner / (the same + their round of training),
                             CPU seconds of all threads; without tags
verified_stages_share_of_round  the same with the key stage and the tags, as is the default
stages_cpu_s, training_cpu_s the two; real images where FEDBCS_REAL_DATA names them
training_s                   the latter by the clock
growth_...                   with --growth: lists over the number of sites

Times are medians, ratios are those of medians. Key agreement is in neither side's times.
"""
_BITS = 16
_SITES = (4, 16, 64)
_SIZE_SITES = (4, 8, 64)
_FLOWER_SIZE = ("flower_version", "flower_bytes_per_parameter")

# The ratio, our time and Flower's.
_COMPARED = [
    ("quantise_speedup", "quantise_ms", "flower_quantise_ms"),
    *((f"mask_pack_speedup_n{n}", f"mask_pack_ms_n{n}", f"flower_mask_serialise_ms_n{n}")
      for n in _SITES),
]  # fmt: skip

Update: TypeAlias = NDArray[np.float32]
Seeds: TypeAlias = list[tuple[bytes, bool]]
Figures: TypeAlias = dict[str, float | str | list[float] | None]


def measure(count: int, repeats: int, *, with_peer: bool) -> Figures:
    """All figures for vectors of ``count`` values; Flower's are None without the peer."""
    update = np.random.default_rng(0).standard_normal(count, dtype=np.float32)
    seeds = _seeds(max(_SITES))
    actions = _own_actions(update, seeds)
    if with_peer:
        actions |= _flower_actions(update, seeds)
    milliseconds = _timed(actions, repeats)
    figures: Figures = {**milliseconds, **_bytes_per_parameter(count)}
    figures |= _flower_size(update, seeds) if with_peer else dict.fromkeys(_FLOWER_SIZE)
    for ratio, ours, theirs in _COMPARED:
        figures.setdefault(theirs, None)
        figures[ratio] = milliseconds[theirs] / milliseconds[ours] if with_peer else None
    return figures


def _timed(actions: Mapping[str, Action], repeats: int) -> dict[str, float]:
    """Median milliseconds; what is compared is called one right after the other."""
    compared = [name for _, *pair in _COMPARED for name in pair if name in actions]
    order = dict.fromkeys([*compared, *actions])
    seconds = interleaved_medians({name: actions[name] for name in order}, repeats=repeats)
    return {name: 1e3 * seconds[name] for name in actions}


def _seeds(sites: int) -> Seeds:
    """Seed and sign of a site's masks: its own, which is added, then those of its pairs."""
    random = np.random.default_rng(1)
    return [(random.bytes(32), index % 2 == 0) for index in range(sites)]


def _own_actions(update: Update, seeds: Seeds) -> dict[str, Action]:
    count = update.size
    segments = [codec.Segment("all", 0, count)]

    def quantise() -> codec.Quantised:
        words = PublicStream(0, "rounding").words16(count)
        return codec.quantise(update, segments, [4], _BITS, words)

    codes = quantise().codes

    def mask_and_pack(sites: int) -> Action:
        bits = ring.ring_bits(_BITS, sites)
        own = [Mask(seed, adds) for seed, adds in seeds[:sites]]
        return lambda: ring.pack_blocks(masked_blocks(codes, own, bits), count, bits)

    bits = ring.ring_bits(_BITS, 8)
    packed = ring.pack(codes, bits)
    accumulator = ring.Accumulator(count, bits)
    return {
        "quantise_ms": quantise,
        **{f"mask_pack_ms_n{sites}": mask_and_pack(sites) for sites in _SITES},
        "pack_ms": lambda: ring.pack(codes, bits),
        "unpack_ms": lambda: ring.unpack(packed, count, bits),
        "add_ms": lambda: accumulator.add(packed),
    }


def _flower_actions(update: Update, seeds: Seeds) -> dict[str, Action]:
    quantised = flower.quantise(update)

    def mask_and_serialise(sites: int) -> Action:
        return lambda: flower.serialise(flower.mask(quantised, seeds[:sites]))

    return {
        "flower_quantise_ms": lambda: flower.quantise(update),
        **{f"flower_mask_serialise_ms_n{sites}": mask_and_serialise(sites) for sites in _SITES},
    }


def _bytes_per_parameter(count: int) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for sites in _SIZE_SITES:
        shape = VectorShape(count, ring.ring_bits(_BITS, sites), sites)
        size = shape.body_bytes + MAX_OVERHEAD_BYTES
        sizes[f"bytes_per_parameter_n{sites}"] = size / count
    return sizes


def _flower_size(update: Update, seeds: Seeds) -> Figures:
    sent = flower.serialise(flower.mask(flower.quantise(update), seeds[:1]))
    sizes = (flower.installed_version(), sum(map(len, sent)) / update.size)
    return dict(zip(_FLOWER_SIZE, sizes, strict=True))


def _with_peer(wanted: bool | None) -> bool:
    """Whether to measure Flower: as asked for, by default where it is installed."""
    if wanted is False:
        return False
    try:
        flower.installed_version()
    except flower.PeerMissing as missing:
        print(missing, file=sys.stderr)
        if wanted:
            raise SystemExit(1) from None
        return False
    return True


def _server_unmask(count: int) -> float:
    """CPU seconds of the combiner's last step, at threshold 44 with 12 colluders."""
    return session.run(64, count, terms=(44, 12), dropped=20).combiner["unmask"]


def main() -> None:
    options = parser(_HELP, repeats=7)
    options.add_argument("--values", type=int, default=8_300_000)
    options.add_argument("--data", help="images for the training round (default: see above)")
    options.add_argument("--width", type=int, default=32, help="of the network (default 32)")
    options.add_argument("--size", type=int, default=128, help="of the images (default 128)")
    options.add_argument("--patients", type=int, default=20, help="a synthetic site (default 20)")
    options.add_argument(
        "--growth",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[],
        metavar="N,N,…",
        help="also whole sums over so many sites, e.g. 32,64,128,256,512,1000 (10 minutes)",
    )
    options.add_argument(
        "--peer",
        action=argparse.BooleanOptionalAction,
        help="measure Flower too, and fail where it is missing (default: if it is installed)",
    )
    arguments = options.parse_args()
    with_peer = _with_peer(arguments.peer)
    set_threads(arguments.threads)
    engine = choose_keystream()
    figures = measure(arguments.values, arguments.repeats, with_peer=with_peer)
    figures["keystream"] = engine.name
    figures["server_unmask_s_n64_drop20"] = _server_unmask(arguments.values)
    figures |= share_of_round.measure(
        arguments.data, arguments.width, arguments.size, arguments.patients
    )
    figures |= growth.measure(arguments.growth)
    report(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
