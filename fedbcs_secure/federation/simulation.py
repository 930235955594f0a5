"""A whole study in one process: every site, the combiner and the tables at the end.

A simulation sees every site anyway, so it gathers validation and test metrics outside the
protocol; what crosses between sites and combiner is exactly what would cross a network.
"""

from __future__ import annotations

import hashlib
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedbcs_secure import __version__
from fedbcs_secure.data.pictures import save_overlay
from fedbcs_secure.data.records import SPLITS, Cohort, Dataset, Patient
from fedbcs_secure.errors import DataError, RunFolderError, StudyError
from fedbcs_secure.federation.booking import Books, private_round
from fedbcs_secure.federation.combine import initial_state, moved
from fedbcs_secure.federation.dropouts import Drop, check_drops, parse_drop
from fedbcs_secure.federation.events import (
    Observer,
    RoundFinished,
    RoundStarted,
    SiteTrained,
    SiteValidated,
    StepDone,
    ignore,
)
from fedbcs_secure.federation.figures import save_curves
from fedbcs_secure.federation.layout import Layout, layout
from fedbcs_secure.federation.memory import Lasting, MemoryFederation, RoundOutcome
from fedbcs_secure.federation.rounds import Train
from fedbcs_secure.federation.runfolder import RunFolder
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.federation.starting import starting_weights
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.evaluate import SiteMetrics, summarise
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.local import LocalResult, steps_per_round
from fedbcs_secure.learning.modelfile import GLOBAL, ModelFile, model_sha256, save_model
from fedbcs_secure.learning.private import PrivateRound, units_of
from fedbcs_secure.privacy.policy import SitePolicy
from fedbcs_secure.sections import SiteEntry
from fedbcs_secure.study import Study, build

POOLED = "pooled"


def with_roster(study: Study, dataset: Dataset) -> Study:
    """The study with one roster line a site: training slices as nominal weight, classes held.

    In a study between institutions the roster is agreed beforehand; a simulation may look.
    """
    entries = []
    for site in dataset.sites:
        train = dataset.cohorts[site].train
        slices = sum(p.slices for p in train)
        privacy = study.privacy
        held = sorted({int(c) for p in train for c in np.unique(p.masks)})
        entries.append(
            SiteEntry(
                name=site,
                weight=float(slices),
                steps=privacy.steps if privacy else steps_per_round(slices, study),
                classes=tuple(held),
                patients=len(units_of(train, privacy)) if privacy else None,
            )
        )
    written = study.model_dump() | {"roster": [e.model_dump() for e in entries]}
    # Resolved again, since threshold and colluders follow from the roster.
    return build(written).resolved()


@dataclass(frozen=True, eq=False)
class Simulation:
    """One run: a resolved study with its roster, data, folder, learner and observer."""

    study: Study
    settings: SimulationSettings
    dataset: Dataset
    folder: RunFolder
    learner: Learner
    observer: Observer = ignore
    policies: Mapping[str, SitePolicy] = field(default_factory=dict)
    """Of single sites, in place of one that allows the study and no more."""

    def run(self) -> dict[str, Any]:
        """Train from the last completed round, or from the start, and return the summary.

        Interrupted at any point, the last completed round stays in the folder, and running again
        gives what an uninterrupted run would have given.
        """
        with self.folder.locked():
            return self._run()

    def _run(self) -> dict[str, Any]:
        if self.folder.finished:
            raise RunFolderError(f"{self.folder.path} is finished; its summary.json has the result")
        if self.study.privacy is None:
            return self._rounds({})
        # Not before it is needed: the accountants take a while to import.
        from fedbcs_secure.federation.simulated_books import lasting, opened, study_policy

        policy = study_policy(self.study, self.settings.cap)
        policies = dict.fromkeys(self.dataset.sites, policy) | dict(self.policies)
        with opened(self.folder.path, self.study, self.dataset, policies) as books:
            return self._rounds(books, lasting(self.folder.path, self.study))

    def _rounds(self, books: Mapping[str, Books], lasting: Lasting | None = None) -> dict[str, Any]:
        plan = layout(self.study, self.learner.tensors, self.learner.fused_channels)
        names = self._learners()
        states = self.folder.load_states(names, self.study)
        if states is None:
            weights = starting_weights(self.study, self.folder.path, self.learner)
            start = initial_state(self.study, plan, weights)
            states = dict.fromkeys(names, start)
        first = next(iter(states.values())).round
        self.folder.forget_metrics_from(first)
        drops = drops_of(self.study, self.settings)
        federation = (
            MemoryFederation(self.study, plan, self._trainer(plan), drops, books, lasting)
            if self.study.federated
            else None
        )
        for index in range(first, self.study.rounds):
            self.observer(RoundStarted(index, self.study.rounds))
            started = time.perf_counter()
            if federation is not None:
                outcome = federation.run_round(states[GLOBAL_LEARNER])
                states = {GLOBAL_LEARNER: outcome.state}
            else:
                outcome = None
                states, losses = self._train_alone(states)
            seconds = time.perf_counter() - started
            if outcome is not None:
                losses = outcome.losses
            self._finish_round(states, index, losses, outcome, seconds)
        return self._conclude(states, books)

    def _trainer(self, plan: Layout) -> Train:
        """Local training as a federation calls it."""

        def train(site: str, state: GlobalState) -> LocalResult:
            return self._train(site, state, private_round(self.study, plan, site, state.round))

        return train

    def _learners(self) -> tuple[str, ...]:
        if self.study.federated:
            return (GLOBAL_LEARNER,)
        return (POOLED,) if self.study.method == "pooled" else self.dataset.sites

    def _train(
        self, site: str, state: GlobalState, private: PrivateRound | None = None
    ) -> LocalResult:
        """A site's local training; ``pooled`` is one site with everybody's patients."""
        if site == POOLED:
            patients = tuple(p for s in self.dataset.sites for p in self.dataset.cohorts[s].train)
        else:
            patients = self.dataset.cohorts[site].train
        result = self.learner.train(
            state.weights,
            patients,
            site=site,
            round_index=state.round,
            prototypes=state.prototype_rows(),
            private=private,
            progress=lambda done, total: self.observer(StepDone(site, done, total)),
        )
        self.observer(SiteTrained(site, result.loss, result.seconds))
        return result

    def _train_alone(
        self, states: Mapping[str, GlobalState]
    ) -> tuple[dict[str, GlobalState], dict[str, float]]:
        after, losses = {}, {}
        for name, state in states.items():
            result = self._train(name, state)
            weights, velocity = moved(state, result.delta, self.study)
            after[name] = replace(state, round=state.round + 1, weights=weights, velocity=velocity)
            losses[name] = result.loss
        return after, losses

    def _finish_round(
        self,
        states: Mapping[str, GlobalState],
        index: int,
        losses: Mapping[str, float],
        outcome: RoundOutcome | None,
        seconds: float,
    ) -> None:
        every = self.settings.validate_every
        survivors = self.dataset.sites if outcome is None else outcome.survivors
        up, down = (outcome.bytes_up, outcome.bytes_down) if outcome else (0, 0)
        attempts = outcome.attempts if outcome else 1
        reused = outcome.reused if outcome else ()
        rows = []
        for site in self.dataset.sites:
            dice = None
            patients = self.dataset.cohorts[site].validation
            if patients and every and ((index + 1) % every == 0 or index + 1 == self.study.rounds):
                weights = self._state_of(states, site).weights
                metrics = self.learner.evaluate(weights, patients, with_distances=False)
                dice = summarise(metrics).dice
                self.observer(SiteValidated(site, dice))
            loss = losses.get(site, losses.get(POOLED))
            if loss is not None and not math.isfinite(loss):
                # No step of a private round took anybody.
                loss = None
            rows.append(
                {
                    "round": index,
                    "site": site,
                    "loss": loss,
                    "validation_dice": dice,
                    "clipped": outcome.clipped.get(site, 0) if outcome else 0,
                    "in_sum": site in survivors,
                    "attempts": attempts,
                    "state_reused": site in reused,
                    "round_seconds": seconds,
                    "bytes_up": up,
                    "bytes_down": down,
                }
            )
        self.folder.append_metrics(rows)
        self.folder.save_states(states, self.study)
        self._tensorboard(rows)
        missing = tuple(site for site in self.dataset.sites if site not in survivors)
        late = tuple(
            drop.site
            for drop in drops_of(self.study, self.settings)
            if drop.round == index and drop.site in survivors
        )
        self.observer(RoundFinished(index, seconds, up, down, missing, attempts, late, reused))

    def _state_of(self, states: Mapping[str, GlobalState], site: str) -> GlobalState:
        return states[site] if site in states else next(iter(states.values()))

    def _tensorboard(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self.settings.tensorboard:
            return
        from fedbcs_secure.federation.tensorboard import write_scalars

        write_scalars(self.folder.path / "tensorboard", rows)

    def _conclude(
        self, states: Mapping[str, GlobalState], books: Mapping[str, Books]
    ) -> dict[str, Any]:
        if self.study.method == "local":
            weights = {site: states[site].weights for site in self.dataset.sites}
        else:
            weights = {GLOBAL: next(iter(states.values())).weights}
        model = ModelFile(self.study, weights)
        sites: dict[str, dict[str, Any]] = {}
        for site in self.dataset.sites:
            cohort = self.dataset.cohorts[site]
            metrics = self.learner.evaluate(model.for_site(site), cohort.test)
            sites[site] = site_row(summarise(metrics), len(cohort.test))
            if site in books:
                sites[site]["privacy"] = privacy_row(self.study, books[site])
            self._overlays(model, cohort)
        rows = self.folder.metrics()
        summary = {
            "method": self.study.method,
            "protection": self.study.protection if self.study.federated else "none",
            "rounds": self.study.rounds,
            "seed": self.study.seed,
            "verified_sum": self.study.group_key if self.study.federated else None,
            "threshold": self.study.threshold if self.study.federated else None,
            "colluders": self.study.colluders if self.study.federated else None,
            "rounds_missed": {
                site: sum(row["site"] == site and not row.get("in_sum", True) for row in rows)
                for site in self.dataset.sites
            },
            "states_reused": sum(bool(row.get("state_reused")) for row in rows),
            "sites": sites,
            "mean_dice": float(np.mean([row["dice"] for row in sites.values()])),
            "worst_dice": min(row["dice"] for row in sites.values()),
            "worst_site": min(sites, key=lambda s: sites[s]["dice"]),
            "seconds_per_round": float(
                np.mean(list({row["round"]: row["round_seconds"] for row in rows}.values()))
            ),
            "bytes_up_per_parameter": rows[-1]["bytes_up"] / self.learner.parameters,
            "bytes_down_per_parameter": rows[-1]["bytes_down"] / self.learner.parameters,
            "parameters": self.learner.parameters,
            "model_sha256": model_sha256(model),
            "study_digest": self.study.digest.hex(),
            "peak_memory_mb": peak_memory_mb(),
            "device": str(self.learner.runtime),
            "python": platform.python_version(),
            "version": __version__,
        }
        save_model(model, self.folder.path / "model.safetensors")
        title = f"{self.study.method}, {summary['protection']}, seed {self.study.seed}"
        save_curves(rows, self.folder.path / "curves.png", title=title)
        self.folder.write_summary(summary)
        return summary

    def _overlays(self, model: ModelFile, cohort: Cohort) -> None:
        chosen: Sequence[Patient] = cohort.test[: self.settings.overlays]
        for patient in chosen:
            folder = self.folder.path / "overlays"
            folder.mkdir(exist_ok=True)
            middle = patient.slices // 2
            image = patient.images[middle : middle + 1]
            mask = self.learner.predict(model.for_site(cohort.site), image)[0]
            save_overlay(
                folder / f"{cohort.site}-{patient.patient}.png",
                image[0],
                patient.masks[middle],
                mask,
                stacked=self.study.data.volume == "stack3",
            )


GLOBAL_LEARNER = "global"


def site_row(metrics: SiteMetrics, patients: int) -> dict[str, Any]:
    """A site's metrics as they stand in ``summary.json``."""
    return {
        "dice": metrics.dice,
        "hd95": metrics.hd95,
        "assd": metrics.assd,
        "unit": metrics.unit,
        "patients": patients,
    }


def privacy_row(study: Study, books: Books) -> dict[str, Any]:
    """What a site's ledger says it has spent, and on what terms."""
    privacy, said = study.privacy, books.ledger.statement()
    if privacy is None:
        return {}
    return {
        "epsilon": said.epsilon,
        "delta": said.delta,
        "unit": privacy.unit,
        "noise_multiplier": privacy.noise_multiplier,
        "local_epsilon": said.local_epsilon,
        "releases": said.releases,
        "refusals": said.refusals,
    }


def data_digest(dataset: Dataset) -> str:
    """SHA-256 over every patient's site, split, pseudonym, images and masks, in hex."""
    digest = hashlib.sha256()
    for site in dataset.sites:
        for split in SPLITS:
            for patient in dataset.cohorts[site].split(split):
                head = f"{site}/{split}/{patient.patient}/{patient.images.shape}\n"
                digest.update(head.encode())
                digest.update(np.ascontiguousarray(patient.images).data)
                digest.update(np.ascontiguousarray(patient.masks).data)
    return digest.hexdigest()


def drops_of(study: Study, settings: SimulationSettings) -> tuple[Drop, ...]:
    """The settings' drop-outs. Raises :class:`StudyError` for those that the study cannot have."""
    drops = tuple(parse_drop(text) for text in settings.drop)
    if drops and not study.federated:
        raise StudyError(
            f"drop: method {study.method} has no rounds that a site could leave; remove drop"
        )
    check_drops(drops, [entry.name for entry in study.roster], study.rounds)
    return drops


def peak_memory_mb() -> float | None:
    """The process's peak resident set in MB (1e6 bytes); None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def check_dataset(study: Study, dataset: Dataset) -> None:
    """Raise :class:`DataError` when a federated study has too few sites to sum over."""
    if study.federated and len(dataset.sites) < study.min_sites:
        raise DataError(
            f"the data hold {len(dataset.sites)} site(s) ({', '.join(dataset.sites)}), and the "
            f"study wants at least {study.min_sites}; add sites, or use --method local or pooled"
        )
