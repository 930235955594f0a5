"""A small federation under differential privacy: real ledgers, training that draws fresh noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from federation_fixtures import FUSED, TENSORS, Cast, Lines, known_identity, make_study
from ledger_support import cheap

from fedbcs_secure.federation.booking import Books, private_round
from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.layout import layout
from fedbcs_secure.federation.readies import ReadyFile
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.privacy.ledger import Ledger
from fedbcs_secure.privacy.policy import SitePolicy
from fedbcs_secure.privacy.schedule import round_events
from fedbcs_secure.study import Study

PRIVACY = {
    "noise_multiplier": 4.0, "sampling_rate": 0.2, "steps": 5, "prototype_noise": 16.0,
    "prototype_every": 2,
}  # fmt: skip


def private_study(**values: Any) -> Study:
    privacy = PRIVACY | values.pop("privacy", {})
    roster = [
        {"name": s, "weight": 10.0, "steps": 5, "classes": [0, 1], "patients": 30} for s in "ABCD"
    ]
    given = {"rounds": 6, "roster": roster, "privacy": privacy, "alignment": {"warmup_rounds": 1}}
    return make_study(**(given | values))


class Private:
    """A small federation whose training draws fresh noise each time, and counts."""

    def __init__(self, folder: Path, study: Study, **policies: SitePolicy) -> None:
        self.folder, self.study, self.policies = folder, study, policies
        plan = layout(study, TENSORS, FUSED if study.alignment.form != "off" else 0)
        weights = np.random.default_rng(0).standard_normal(plan.parameters).astype(np.float32)
        self.state = initial_state(study, plan, weights)
        self.cast = Cast(study, plan)
        self.trained: list[tuple[str, int]] = []
        for name in "ABCD":
            self.open(name)
        self.lines = Lines({name: self.site(name, self.state) for name in "ABCD"})
        self.readies = ReadyFile(folder / "server" / "readies")
        self.restart_combiner()

    def restart_combiner(self) -> None:
        """A new process, with what the last one kept of *ready* frames."""
        self.combiner = self.cast.combiner(readies=self.readies)

    def open(self, name: str) -> None:
        """The site's ledger, as a new process finds it."""
        if name in self.cast.books:
            self.cast.books[name].ledger.close()
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        ledger = Ledger.open(
            folder / "ledger.sqlite",
            head=folder / "head",
            identity=known_identity(name),
            storage_key=name.encode() * 32,
            policy=self.policies.get(name, SitePolicy(min_noise_multiplier=0.1)),
            cost=cheap,
        )
        patients = frozenset(f"{name}{number}" for number in range(30))
        self.cast.books[name] = Books(ledger, patients)

    def site(self, name: str, state: GlobalState) -> Any:
        return self.cast.site(name, state, self.train)

    def restart(self, name: str) -> None:
        self.open(name)
        self.lines.sites[name] = self.site(name, self.lines.sites[name].state)

    def train(self, site: str, state: GlobalState) -> LocalResult:
        self.trained.append((site, state.round))
        rng = np.random.default_rng()
        private = private_round(self.study, self.cast.plan, site, state.round)
        assert private is not None
        assert private.nominal == 30
        sums = {}
        if private.release is not None:
            width = private.release.slot_width
            sums = {s: rng.standard_normal(width).astype(np.float32) for s in private.release.slots}
        delta = (1e-3 * rng.standard_normal(state.weights.size)).astype(np.float32)
        events = round_events(self.study, state.round)
        done = events.own if sums else events.steps
        return LocalResult(delta, (), 0.5, 5, 0.0, prototype_sums=sums, events=done)

    def round(self, silent: Any = None) -> Any:
        self.lines.silent = silent
        result = self.combiner.run(self.lines, self.state)
        following = result.state
        if not isinstance(following, GlobalState):
            following = next(
                s.state for s in self.lines.sites.values() if s.state.digest == following.digest
            )
        self.state = following
        return result

    def backup(self, name: str) -> Path:
        """A copy of all that a site's ledger has on its disk: entries, head and releases."""
        self.cast.books[name].ledger.close()
        copy = self.folder / f"{name}.copy{len(list(self.folder.iterdir()))}"
        shutil.copytree(self.folder / name, copy)
        self.restart(name)
        return copy

    def put_back(self, name: str, copy: Path) -> None:
        """Restore the copy, and start the site anew."""
        self.cast.books[name].ledger.close()
        shutil.rmtree(self.folder / name)
        shutil.copytree(copy, self.folder / name)
        self.restart(name)

    def ledger(self, name: str) -> Ledger:
        return self.cast.books[name].ledger


Make = Callable[..., Private]
