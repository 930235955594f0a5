"""A simulation's folder: study, checkpoints, metrics, model, pictures, summary.

Layout::

    study.toml          the resolved study and settings; ``simulate --study`` runs it again
    metrics.jsonl       one line a round and site
    checkpoint/*.safetensors   the last completed round (``global``, or one a learner)
    model.safetensors, summary.json, curves.png, overlays/    after the last round
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.settings import SimulationSettings, build_settings
from fedbcs_secure.federation.state import GlobalState, completed_rounds, load_state, save_state
from fedbcs_secure.files import write_durably
from fedbcs_secure.study import Study, build, load


@dataclass(frozen=True)
class RunFolder:
    """Paths and reading and writing; holds nothing in memory."""

    path: Path

    @classmethod
    def create(cls, path: Path, study: Study, settings: SimulationSettings) -> RunFolder:
        """Start a new run. Raises :class:`RunFolderError` when one is there already."""
        if (path / "study.toml").exists():
            raise RunFolderError(
                f"{path} already holds a run; go on with it by --resume {path}, "
                "or choose another --out"
            )
        try:
            (path / "checkpoint").mkdir(parents=True, exist_ok=True)
            tables = study.model_dump(mode="json", exclude_none=True)
            tables["simulate"] = settings.model_dump(mode="json", exclude_none=True)
            write_durably(path / "study.toml", tomli_w.dumps(tables).encode())
        except OSError as error:
            raise RunFolderError(f"cannot write to {path}: {error.strerror}") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises :class:`RunFolderError` when there is none."""
        if not (path / "study.toml").is_file():
            raise RunFolderError(f"{path} holds no run (no study.toml); check the path")
        return cls(path)

    def document(self) -> tuple[Study, SimulationSettings]:
        """The resolved study and the settings that the run was started with."""
        tables = load(self.path / "study.toml")
        settings = build_settings(tables.pop("simulate", {}))
        return build(tables), settings

    @property
    def finished(self) -> bool:
        """Whether the summary was written."""
        return (self.path / "summary.json").is_file()

    def save_states(self, states: Mapping[str, GlobalState], study: Study) -> None:
        """Checkpoint all learners of a round. A crash between two files is mended on load."""
        for name, state in states.items():
            current = self._checkpoint(name)
            if current.exists() and len(states) > 1:
                current.replace(current.with_suffix(".previous"))
            save_state(state, current, study=study.digest)

    def load_states(self, names: Sequence[str], study: Study) -> dict[str, GlobalState] | None:
        """The last round that every learner completed, or None before the first.

        Raises :class:`RunFolderError` for a checkpoint that is damaged or of another study.
        """
        found = []
        for name in names:
            path = self._checkpoint(name)
            candidates = [p for p in (path, path.with_suffix(".previous")) if p.exists()]
            states = [load_state(p, study=study.digest) for p in candidates]
            found.append({state.round: state for state in states})
        common = set.intersection(*(set(f) for f in found)) if found else set()
        if not common:
            return None
        last = max(common)
        return {name: f[last] for name, f in zip(names, found, strict=True)}

    def completed(self) -> int:
        """Rounds that will not be run again."""
        paths = sorted((self.path / "checkpoint").glob("*.safetensors"))
        return min((completed_rounds(path) for path in paths), default=0)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in the same folder; the system frees it on a crash.

        Raises :class:`RunFolderError` when one does. Windows has no such lock and is not guarded.
        """
        try:
            import fcntl
        except ImportError:
            yield
            return
        with (self.path / ".lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunFolderError(f"another process is running in {self.path}") from None
            yield

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add lines durably."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """The rows so far; a half-written last line (a crash) is dropped."""
        path = self.path / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
        return rows

    def forget_metrics_from(self, round_index: int) -> None:
        """Drop rows of rounds that will be run again."""
        kept = [row for row in self.metrics() if row["round"] < round_index]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_durably(self.path / "metrics.jsonl", text.encode())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Mark the run as finished."""
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_durably(self.path / "summary.json", text.encode())

    def _checkpoint(self, name: str) -> Path:
        return self.path / "checkpoint" / f"{name}.safetensors"
