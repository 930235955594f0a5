"""Accuracy of the methods side by side: the same data, rounds and seeds for each.

    python benchmarks/methods.py --data nuclei/manifest.csv --size 128 --width 16 --rounds 12 \\
        --methods fedavg,fedbcs,local,pooled --seeds 1,2,3 --out runs/nuclei

Runs every method and seed that ``--out`` does not hold yet (an interrupted one goes on) and prints
test Dice a site as mean and standard deviation over the seeds. Keys of the JSON object:
``mean_dice`` and ``worst_dice`` a method (mean over seeds), ``sites`` the same a site,
``seconds_per_round``, ``runs``.
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

from fedbcs_secure.cli.options import FLAGS, study_and_settings
from fedbcs_secure.cli.session import fitting_contract
from fedbcs_secure.data import sources
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.simulation import Simulation, check_dataset, with_roster
from fedbcs_secure.learning.device import set_threads
from fedbcs_secure.learning.learner import Learner


def one_run(folder: Path, flags: dict[str, Any]) -> dict[str, Any]:
    """The summary of a run: read, resumed or made.

    Ends the program when the folder holds a run of other flags or other data sizes.
    """
    study, settings = study_and_settings(None, flags)
    data = fitting_contract(settings.data, study.data)
    study = study.model_copy(update={"data": data}).resolved()
    dataset = read(study, settings)
    check_dataset(study, dataset)
    study = with_roster(study, dataset)
    if (folder / "study.toml").exists():
        run = RunFolder.open(folder)
        if run.document()[0] != study:
            raise SystemExit(f"{folder} holds a run of another study; choose another --out")
    else:
        run = RunFolder.create(folder, study, settings)
    if run.finished:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        return summary
    learner = Learner(study, settings.device, settings.precision)
    return Simulation(study, settings, dataset, run, learner).run()


def read(study: Any, settings: Any) -> Any:
    return sources.load(
        settings.data,
        study.data,
        seed=study.seed,
        fold=settings.fold,
        patients=settings.patients,
        slices=settings.slices,
        severity=settings.severity,
    )


def spread(values: list[float]) -> str:
    """``.912 ± .004``, or the value alone for one seed."""
    mean = f"{statistics.mean(values):.3f}".removeprefix("0")
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.3f}".replace("± 0", "± ")


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table with a row a method."""
    sites = sorted(next(iter(results.values()))[0]["sites"])
    lines = [
        "| method | mean | " + " | ".join(sites) + " | worst site |",
        "|---" * (len(sites) + 3) + "|",
    ]
    for method, runs in results.items():
        cells = [spread([run["mean_dice"] for run in runs])]
        cells += [spread([run["sites"][site]["dice"] for run in runs]) for site in sites]
        cells.append(spread([run["worst_dice"] for run in runs]))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synthetic-mri")
    parser.add_argument("--methods", default="fedavg,fedbcs", help="comma-separated")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    for name, kind, value in (
        ("rounds", int, 6), ("width", int, 8), ("size", int, 64), ("channels", int, None),
        ("lr", float, None), ("server-momentum", float, None), ("fsr", str, None),
        ("alignment", str, None), ("alignment-weight", float, None), ("patients", int, None),
        ("slices", int, None), ("severity", float, None), ("fold", int, None),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=value)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="methods-"))
    given = {k: v for k, v in vars(arguments).items() if k in FLAGS and k != "out"}
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds.split(","):
        for method in arguments.methods.split(","):
            folder = out / f"{method}-{seed}"
            summary = one_run(folder, given | {"method": method, "seed": int(seed)})
            results.setdefault(method, []).append(summary)
            print(f"{folder}: {summary['mean_dice']:.3f}", file=sys.stderr)
    print(table(results) + "\n")
    every = [run for runs in results.values() for run in runs]
    sites = sorted(every[0]["sites"])

    def means(key: str) -> dict[str, float]:
        return {m: statistics.mean(run[key] for run in runs) for m, runs in results.items()}

    report(
        {
            "mean_dice": means("mean_dice"),
            "worst_dice": means("worst_dice"),
            "sites": {
                m: {s: statistics.mean(run["sites"][s]["dice"] for run in runs) for s in sites}
                for m, runs in results.items()
            },
            "seconds_per_round": means("seconds_per_round"),
            "runs": str(out),
        },
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
