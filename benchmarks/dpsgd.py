"""Time of private training beside the same training without privacy."""

from __future__ import annotations

from functools import partial
from typing import Any

from common.timing import interleaved_medians, parser, report

from fedbcs_secure.data.sources import load_synthetic
from fedbcs_secure.learning.device import set_threads
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.private import PrivateRound
from fedbcs_secure.study import Study, build

_HELP = """\
Eight patients of four slices (synthetic MRI), each slice four times, with augmentation; CPU, in
turn, one process. Without privacy: batches of 6. With it: four steps over all eight patients, a
gradient for each patient over its slices, clipped to integers, and noise for each parameter in
each step; what the ledger does is not in it.

dp_time_ratio        private_s / plain_s: the same number of slices forward and backward
private_s, plain_s   median seconds of a round
noise_s              of private_s, drawing noise, as measured by itself
parameters           of the network
"""
_PATIENTS, _SLICES, _TIMES = 8, 4, 4


def _study(width: int, size: int, *, privacy: bool) -> Study:
    values: dict[str, Any] = {
        "method": "fedavg",
        "data": {"size_px": size, "channels": 1},
        "model": {"width": width},
        "training": {"local_epochs": _TIMES},
    }
    if privacy:
        terms = {"noise_multiplier": 1.0, "sampling_rate": 1.0, "steps": _TIMES, "slices": _SLICES}
        values["privacy"] = terms
    return build(values).resolved()


def main() -> None:
    from fedbcs_secure.privacy.randomness import SecretStream
    from fedbcs_secure.privacy.wide_gaussian import wide_gaussian

    options = parser(_HELP, repeats=7)
    options.add_argument("--width", type=int, default=16, help="of the network (default 16)")
    options.add_argument("--size", type=int, default=64, help="image side (default 64)")
    arguments = options.parse_args()
    set_threads(arguments.threads)
    plain, private = (
        Learner(_study(arguments.width, arguments.size, privacy=wanted), "cpu")
        for wanted in (False, True)
    )
    dataset = load_synthetic("synthetic-mri", plain.study.data, patients=20, slices=_SLICES)
    patients = dataset.cohorts["A"].train[:_PATIENTS]
    weights, stream = plain.initial_weights(), SecretStream.fresh()

    def train_privately() -> None:
        private.train(
            weights, patients, site="A", round_index=0, private=PrivateRound(len(patients))
        )

    seconds = interleaved_medians(
        {
            "plain_s": partial(plain.train, weights, patients, site="A", round_index=0),
            "private_s": train_privately,
            "noise_s": lambda: [wide_gaussian(weights.size, stream) for _ in range(_TIMES)],
        },
        repeats=arguments.repeats,
    )
    ratio = seconds["private_s"] / seconds["plain_s"]
    report(
        {"parameters": plain.parameters, "dp_time_ratio": ratio, **seconds},
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
