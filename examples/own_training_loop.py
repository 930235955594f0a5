"""A federation by hand: three sites, three rounds, every step in sight.

Run it with ``.venv/bin/python examples/own_training_loop.py``. It shows the pieces that
``simulate`` puts together: a data set, a study with its roster, a learner, a federation in memory.
"""

from __future__ import annotations

from fedbcs_secure.data import sources
from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.layout import layout
from fedbcs_secure.federation.memory import MemoryFederation
from fedbcs_secure.federation.simulation import with_roster
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.evaluate import summarise
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.study import build


def main() -> None:
    study = build(
        {
            "rounds": 3,
            "data": {"size_px": 64, "channels": 1},
            "model": {"width": 8},
            "training": {"lr": 2e-3},
        }
    )
    dataset = sources.load("synthetic-mri", study.data, sites=("A", "B", "C"), patients=8, slices=3)
    study = with_roster(study.resolved(), dataset)
    learner = Learner(study, "cpu")

    def train(site: str, state: GlobalState) -> LocalResult:
        return learner.train(
            state.weights,
            dataset.cohorts[site].train,
            site=site,
            round_index=state.round,
            prototypes=state.prototype_rows(),
        )

    plan = layout(study, learner.tensors, learner.fused_channels)
    federation = MemoryFederation(study, plan, train)
    state = initial_state(study, plan, learner.initial_weights())
    for _ in range(study.rounds):
        outcome = federation.run_round(state)
        state = outcome.state
        dice = {
            site: summarise(learner.evaluate(state.weights, dataset.cohorts[site].test)).dice
            for site in dataset.sites
        }
        scores = ", ".join(f"{site} {value:.3f}" for site, value in dice.items())
        digest = state.digest.hex()[:12]
        print(f"round {state.round}: {outcome.bytes_up} bytes up a site, state {digest}")
        print(f"  test Dice {scores}")


if __name__ == "__main__":
    main()
