"""Accuracy against privacy: test Dice at several epsilons, with and without a pre-trained start.

    python benchmarks/private.py --epsilons 1,4,8,inf --inits none,synthetic-he --seeds 1,2,3 \\
        --patients 300 --out runs/private

Private runs are DP-SGD on patients with the settings of the flags below; ``inf`` is usual training
of the whole network (Adam 1e-3, ``--plain-rounds`` epochs), without any noise; ``0`` is the start
alone, which no patient was shown to. Runs what ``--out`` does not hold yet (an interrupted run goes
on). Keys of the JSON object: ``dice``, start -> epsilon -> mean over the seeds; ``share``, the same
over ``inf`` of that start; ``noise_multiplier``; ``delta``; ``runs``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.timing import report
from methods import read, spread

from fedbcs_secure.cli.options import study_and_settings
from fedbcs_secure.cli.session import fitting_contract
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.simulation import Simulation, check_dataset, with_roster
from fedbcs_secure.federation.starting import given_weights, keep, naming
from fedbcs_secure.learning.device import set_threads
from fedbcs_secure.learning.evaluate import summarise
from fedbcs_secure.learning.learner import Learner

PRIVATE = {"optimizer": "sgd", "private_steps": 1, "lr_end": 0.025}
"""Few large steps."""


class Data:
    """The data set and the pre-trained starts of a seed, made once."""

    def __init__(self) -> None:
        self._held: dict[Any, Any] = {}
        self._starts: dict[Any, Any] = {}

    def start(self, study: Any, settings: Any) -> Any:
        key = (study.seed, settings.init)
        if key not in self._starts:
            self._starts[key] = given_weights(study, settings)
        return self._starts[key]

    def of(self, study: Any, settings: Any) -> Any:
        key = (study.seed, study.data.size_px, study.data.split, settings.data)
        if key not in self._held:
            self._held = {key: read(study, settings)}
        return self._held[key]


def one_run(
    folder: Path, flags: dict[str, Any], data: Data, *, slices: int = 4, rounds: bool = True
) -> Any:
    """The summary of a run: read, resumed or made; or that of its start, evaluated as it is."""
    study, settings = study_and_settings(None, flags)
    contract = fitting_contract(settings.data, study.data)
    study = study.model_copy(update={"data": contract}).resolved()
    if study.privacy is not None:
        privacy = study.privacy.model_copy(update={"slices": slices})
        study = study.model_copy(update={"privacy": privacy})
    dataset = data.of(study, settings)
    check_dataset(study, dataset)
    study = with_roster(study, dataset)
    summary_file = folder / "summary.json"
    if (folder / "study.toml").exists():
        run = RunFolder.open(folder)
        wanted, (study, settings) = study, run.document()
        without = {"model": study.model.model_copy(update={"initial": None})}
        if study.model_copy(update=without) != wanted:
            raise SystemExit(f"{folder} holds a run of another study; choose another --out")
        if run.finished:
            return json.loads(summary_file.read_text())
    elif summary_file.exists():  # of a start alone
        return json.loads(summary_file.read_text())
    else:
        weights = data.start(study, settings)
        study = naming(study, weights)
        if not rounds:
            learner = Learner(study, settings.device, settings.precision)
            start = learner.initial_weights() if weights is None else weights
            sites = {
                name: summarise(learner.evaluate(start, cohort.test, with_distances=False)).dice
                for name, cohort in dataset.cohorts.items()
            }
            summary = {"mean_dice": statistics.mean(sites.values()), "sites": sites}
            folder.mkdir(parents=True, exist_ok=True)
            summary_file.write_text(json.dumps(summary))
            return summary
        run = RunFolder.create(folder, study, settings)
        keep(run.path, study, weights)
    learner = Learner(study, settings.device, settings.precision)
    return Simulation(study, settings, dataset, run, learner).run()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synthetic-mri")
    parser.add_argument("--epsilons", default="8,inf", help="comma-separated; 0 and inf too")
    parser.add_argument("--inits", default="none", help="none, synthetic-mri, synthetic-he")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--lr", type=float, default=7.5, help="of private training from scratch")
    parser.add_argument("--lr-init", type=float, default=7.5, help="... from a pre-trained start")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--rounds-init", type=int, default=40, help="... from a pre-trained start")
    parser.add_argument("--plain-rounds", type=int, default=12)
    parser.add_argument("--frozen", default="enc3,mid,up3,dec3", help="parts not trained")
    parser.add_argument("--slices", type=int, default=2, help="of a patient in a step, at random")
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    for name, kind, value in (
        ("width", int, 8), ("size", int, 64), ("channels", int, None), ("patients", int, 20),
        ("method", str, "fedavg"), ("clip", float, 0.2), ("delta", float, 1e-5),
        ("sampling-rate", float, 0.2), ("foreground-weight", float, 10.0),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=value)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="private-"))
    usual = ("data", "width", "size", "channels", "patients", "method")
    given = {name: getattr(arguments, name) for name in usual}
    own = ("clip", "sampling_rate", "foreground_weight")
    data, results, noise = Data(), {}, {}
    for seed in map(int, arguments.seeds.split(",")):
        for init in arguments.inits.split(","):
            for epsilon in arguments.epsilons.split(","):
                if epsilon == "0" and init == "none":
                    continue
                flags = given | {"seed": seed, "init": None if init == "none" else init}
                if epsilon == "inf":
                    flags |= {"rounds": arguments.plain_rounds, "lr": 1e-3}
                elif epsilon != "0":
                    rate = arguments.lr if init == "none" else arguments.lr_init
                    rounds = arguments.rounds if init == "none" else arguments.rounds_init
                    frozen = [part for part in arguments.frozen.split(",") if part]
                    flags |= PRIVATE | {"rounds": rounds, "lr": rate, "frozen": frozen}
                    flags |= {"epsilon": float(epsilon), "delta": arguments.delta}
                    flags |= {k: getattr(arguments, k) for k in own}
                folder = out / f"{init}-{epsilon}-{seed}"
                summary = one_run(
                    folder, flags, data, slices=arguments.slices, rounds=epsilon != "0"
                )
                results.setdefault(init, {}).setdefault(epsilon, []).append(summary["mean_dice"])
                for row in summary["sites"].values():
                    if isinstance(row, dict) and "privacy" in row:
                        noise[epsilon] = row["privacy"]["noise_multiplier"]
                print(f"{folder}: {summary['mean_dice']:.3f}", file=sys.stderr, flush=True)
    epsilons = arguments.epsilons.split(",")
    lines = ["| start | " + " | ".join(f"ε = {e}" for e in epsilons) + " |"]
    lines.append("|---" * (len(epsilons) + 1) + "|")
    for init, row in results.items():
        cells = [spread(row[e]) if e in row else "" for e in epsilons]
        lines.append(f"| {init} | " + " | ".join(cells) + " |")
    print("\n".join(lines) + "\n")
    means = {i: {e: statistics.mean(v) for e, v in row.items()} for i, row in results.items()}
    report(
        {
            "dice": means,
            "share": {
                i: {e: v / row["inf"] for e, v in row.items()}
                for i, row in means.items()
                if row.get("inf")
            },
            "noise_multiplier": noise,
            "delta": arguments.delta,
            "runs": str(out),
        },
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
