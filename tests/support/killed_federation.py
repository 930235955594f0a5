"""A federation of four sites in one process that kills itself at a chosen moment.

    python killed_federation.py

reads lines of JSON, ``{"folder": ..., "at": number or null}``, and answers each with the exit code
of a process of its own that ran the federation in that folder: -9 killed, 0 finished, 3 a named
error. Everything that must last is in the folder: identities are known, marks, journals and each
party's state are files. ``moments`` lists the moments of the last run, ``result`` the digest of the
last state, ``error`` the error, ``answers`` a line for each *unmask* frame a site let go.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from crashes import DyingMarks, Moments
from federation_fixtures import ANYTHING, TENSORS, Cast, Lines, make_study

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg import Journal
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.errors import FedBCSError
from fedbcs_secure.federation.combine import initial_state
from fedbcs_secure.federation.filekeys import FileKeys
from fedbcs_secure.federation.journal import Begun, FileJournals
from fedbcs_secure.federation.layout import layout
from fedbcs_secure.federation.marks import FileMarks
from fedbcs_secure.federation.state import GlobalState, load_state, save_state

ROUNDS = 2
SITES = "ABCD"
COMBINER = "combiner"


class MarkedJournal:
    """A real journal, whose process dies before or after it is synced."""

    def __init__(self, inner: Journal, moments: Moments) -> None:
        self._inner, self._moments = inner, moments
        self.append = inner.append

    def sync(self) -> None:
        self._moments.pass_by("before sync")
        self._inner.sync()
        self._moments.pass_by("after sync")


class MarkedJournals:
    """Journals whose process dies around each sync. Nothing is flushed before its time."""

    def __init__(self, inner: FileJournals, moments: Moments) -> None:
        self._inner, self._moments = inner, moments
        self.latest, self.forget = inner.latest, inner.forget

    def begin(self, begun: Begun) -> Journal:
        self._moments.pass_by("before begin")
        journal = MarkedJournal(self._inner.begin(begun), self._moments)
        self._moments.pass_by("after begin")
        return journal

    def reopen(self, binding: Binding) -> tuple[Journal, Iterator[Buffer]]:
        journal, records = self._inner.reopen(binding)
        return MarkedJournal(journal, self._moments), records


class SavingLines(Lines):
    """Each site saves its state before it says that it has accepted a sum."""

    def __init__(self, federation: Federation) -> None:
        states = {name: federation.load(name) for name in SITES}
        super().__init__({name: federation.cast.site(name, states[name]) for name in SITES})
        self._federation = federation

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            before = self.sites[name].state
            for site, reply in super().exchange({name: request}):
                state = self.sites[name].state
                if state is not before:
                    self._federation.save(name, state)
                if decode(reply, ANYTHING).kind is Kind.UNMASK:
                    digest = hashlib.sha256(reply).hexdigest()
                    with (self._federation.folder / "answers").open("a") as stream:
                        stream.write(f"{name} {state.round} {digest}\n")
                yield site, reply


class Federation:
    """What a process finds in the folder, and goes on with."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self.folder = folder
        self.moments = Moments(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
        study = make_study(SITES, method="fedavg", server_momentum=0.5, rounds=ROUNDS)
        plan = layout(study, TENSORS, 0)
        weights = np.random.default_rng(0).standard_normal(plan.parameters).astype(np.float32)
        self._first = initial_state(study, plan, weights)
        marks = {
            name: DyingMarks(FileMarks(folder / f"{name}.marks"), self.moments) for name in SITES
        }
        keys = {name: FileKeys(folder / f"{name}.keys", bytes(32)) for name in SITES}
        self.cast = Cast(study, plan, dict(marks), dict(keys))

    def load(self, party: str) -> GlobalState:
        path = self.folder / f"{party}.safetensors"
        if not path.exists():
            return self._first
        return load_state(path, study=self.cast.study.digest)

    def save(self, party: str, state: GlobalState) -> None:
        self.moments.pass_by(f"{party}: before save")
        save_state(state, self.folder / f"{party}.safetensors", study=self.cast.study.digest)
        self.moments.pass_by(f"{party}: after save")

    def run(self) -> str:
        """The digest of the last state."""
        journals = MarkedJournals(FileJournals(self.folder / "journals"), self.moments)
        combiner, lines = self.cast.combiner(journals), SavingLines(self)
        state = self.load(COMBINER)
        while state.round < ROUNDS:
            following = combiner.run(lines, state).state
            self.save(COMBINER, following)
            combiner.finished(state)
            self.moments.pass_by("finished")
            state = following
        return " ".join([state.digest.hex(), *(lines.sites[n].state.digest.hex() for n in SITES)])


def play(folder: Path, at: int | None) -> int:
    """The exit code."""
    federation = Federation(folder, at)
    try:
        result = federation.run()
    except FedBCSError as error:
        (folder / "error").write_text(str(error))
        return 3
    (folder / "result").write_text(result)
    (folder / "moments").write_text("\n".join(federation.moments.names))
    return 0


def serve() -> None:
    """A process for each line; each is waited for before the next."""
    # What the system has is safe from a signal, so the disk need not be waited for.
    os.fsync = lambda descriptor: None
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = play(Path(order["folder"]), order["at"])
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
