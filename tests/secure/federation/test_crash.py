"""Crashes at every moment of a round: whoever goes on ends where nobody crashed, or says why not.

First with exceptions in place of crashes, which allows hundreds of them; then with real processes
that kill themselves.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from crashes import Crash, DyingChannel, DyingJournals, Moments
from federation_fixtures import Cast, Lines, make_study

from fedbcs_protocols.errors import Refused, UnexpectedFrame
from fedbcs_protocols.secagg import Marks
from fedbcs_protocols.wire import Kind
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.combiner import RoundCombiner, RoundResult
from fedbcs_secure.federation.journal import FileJournals
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.marks import FileMarks
from fedbcs_secure.federation.rounds import SUM
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
SITES = "ABCD"
LEAST_MOMENTS = 55
"""Replies of seven stages, what is written of them, and the ends of five stages, for four sites."""
KEYS_MADE = 1 + len(SITES) + 2 * len(SITES) + 1
"""Moments up to the end of the first stage: begin, ready, replies and records, close."""


@dataclass
class Crashing:
    """A federation whose combiner crashes; sites and marks outlive it."""

    cast: Cast
    state: GlobalState
    folder: Path
    lines: Lines

    def answers(self) -> dict[str, int]:
        """How often each site has answered for the state, as its marks say."""
        given = {}
        for name in SITES:
            marks = self.cast.marks[name].read()
            answer = marks.answer(self.cast.parties.binding(self.state, SUM)) if marks else None
            given[name] = answer.times if answer else 0
        return given

    def closed(self) -> tuple[int, int]:
        """Stages that the last attempt's journal has closed, and frames that it holds since."""
        journals = FileJournals(self.folder)
        begun = journals.latest(self.cast.parties.binding(self.state, SUM))
        if begun is None:
            return 0, 0
        kinds = [bytes(record[:1]) for record in journals.reopen(begun)[1]]
        ends = [index for index, kind in enumerate(kinds) if kind == b"C"]
        return len(ends), len(kinds) - (ends[-1] + 1 if ends else 0)

    def crash_at(self, at: int, kept: float) -> bool:
        """Whether the combiner came to the moment ``at``, and died."""
        moments = Moments(at)
        journals = DyingJournals(self.folder, moments)
        combiner = self.cast.combiner(journals)
        try:
            combiner.run(DyingChannel(self.lines, moments), self.state)
        except Crash:
            journals.cut_back(kept)
            return True
        return False

    def go_on(self) -> tuple[RoundCombiner, RoundResult]:
        """A new combiner, with the same journals."""
        combiner = self.cast.combiner(FileJournals(self.folder))
        return combiner, combiner.run(self.lines, self.state)

    def restart_sites(self) -> None:
        """New processes at all sites: each has its state and its marks, and no session."""
        states = {name: site.state for name, site in self.lines.sites.items()}
        self.lines.sites = {name: self.cast.site(name, states[name]) for name in SITES}

    def unmask_frames(self) -> dict[str, int]:
        return {name: len(frames) for name, frames in self.lines.sent(Kind.UNMASK).items()}


Federation = Callable[[], Crashing]


@pytest.fixture
def federation(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    """A new one each time, in a folder of its own. Disks are not waited for, only files matter."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    study = make_study(SITES, method="fedavg", server_momentum=0.5)
    plan, state = start(study)
    numbers = count()

    def make() -> Crashing:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        cast = Cast(study, plan, {name: FileMarks(folder / f"{name}.marks") for name in SITES})
        return Crashing(cast, state, folder / "journals", Lines(cast.sites(state)))

    return make


@pytest.fixture
def expected(federation: Federation) -> list[bytes]:
    """The digests of the first two rounds' states without a crash."""
    calm = federation()
    combiner, first = calm.go_on()
    assert first.survivors == tuple(SITES)
    return [first.state.digest, combiner.run(calm.lines, first.state).state.digest]


def finishes(crashing: Crashing, result: RoundResult, expected: list[bytes]) -> None:
    assert result.state.digest == expected[0]
    assert result.survivors == tuple(SITES)
    assert result.faults == {}
    assert {site.state.digest for site in crashing.lines.sites.values()} == {expected[0]}
    for given in (crashing.answers(), crashing.unmask_frames()):
        assert set(given.values()) <= {0, 1}
        assert sum(given.values()) >= 3


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_a_combiner_that_crashes_anywhere_finishes_with_the_same_sites(
    federation: Federation, expected: list[bytes], kept: float
) -> None:
    """The sites live on; of what was not synced nothing, half or all is on the disk."""
    for at in count():
        crashing = federation()
        if not crashing.crash_at(at, kept):
            break
        combiner, result = crashing.go_on()
        finishes(crashing, result, expected)
        assert set(crashing.answers().values()) == {1}
        # a new attempt only if it crashed while keys were made; the end of that stage may be kept
        assert result.attempts == (2 if at < KEYS_MADE - (kept == 1) else 1)
        if at % 5 == 0:
            after = combiner.run(crashing.lines, result.state)
            assert after.state.digest == expected[1]
            combiner.finished(crashing.state)
            combiner.finished(result.state)
            assert not list(crashing.folder.iterdir())
    assert at > LEAST_MOMENTS


def test_a_combiner_that_crashes_again_and_again_finishes_too(
    federation: Federation, expected: list[bytes]
) -> None:
    random = np.random.default_rng(11)
    for _ in range(25):
        crashing = federation()
        crashes = 0
        while crashes < 6 and crashing.crash_at(int(random.integers(30)), random.random()):
            crashes += 1
        _, result = crashing.go_on()
        finishes(crashing, result, expected)


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_when_the_sites_crash_with_it_the_round_is_finished_or_nobody_answers_twice(
    federation: Federation, expected: list[bytes], kept: float
) -> None:
    """Sessions are lost, marks are not. What becomes of the round follows from the journal."""
    seen = set()
    for at in count():
        crashing = federation()
        if not crashing.crash_at(at, kept):
            break
        closed, frames = crashing.closed()
        answered = {name for name, times in crashing.answers().items() if times}
        before = crashing.unmask_frames()
        crashing.restart_sites()
        # Three frames are enough to close a stage with, even when nobody is there any more.
        reached = closed + (frames >= 3)
        if reached == 5:
            seen.add("from the journal")
            combiner, result = crashing.go_on()
            finishes(crashing, result, expected)
            assert crashing.unmask_frames() == before
            after = combiner.run(crashing.lines, result.state)
            assert after.state.digest == expected[1]
            continue
        if reached == 4:
            # SA-8.4: it may be that sites were asked to unmask.
            seen.add("lost")
            with pytest.raises(RoundError, match="people at the sites must decide"):
                crashing.go_on()
            assert {n for n, times in crashing.answers().items() if times} == answered
        if len(answered) > 1:
            # Whoever tries again is refused by those who have answered, and too few are left.
            seen.add("refused")
            with pytest.raises(RoundError, match="people at"):
                crashing.go_on()
            assert any(isinstance(error, Refused) for _, error in crashing.lines.errors)
            assert crashing.unmask_frames() == before
        elif answered:
            seen.add("without the one that answered")
            _, result = crashing.go_on()
            assert set(result.survivors) == set(SITES) - answered
        else:
            seen.add("a new attempt")
            _, result = crashing.go_on()
            finishes(crashing, result, expected)
            assert result.attempts == 2
        assert max(crashing.answers().values()) == 1
        assert max(crashing.unmask_frames().values()) == 1
    assert at > LEAST_MOMENTS
    outcomes = {"a new attempt", "lost", "without the one that answered", "refused"}
    assert seen == outcomes | {"from the journal"}


def test_a_site_that_crashes_alone_is_missed_in_this_attempt_only(
    federation: Federation, expected: list[bytes]
) -> None:
    """Site B starts anew before any of the combiner's requests; it is back in the next round."""
    kinds = [Kind.OPEN, Kind.KEY_LIST, Kind.DELIVERY, Kind.SURVIVORS, Kind.CERTIFICATE, Kind.SUM]
    for kind in kinds:
        crashing = federation()
        lines, cast = crashing.lines, crashing.cast

        def restart(name: str, frame, lines=lines, cast=cast, kind=kind) -> bool:  # type: ignore[no-untyped-def]
            if name == "B" and frame.kind is kind and frame.binding.round == 0:
                lines.sites["B"] = cast.site("B", lines.sites["B"].state)
            return False

        lines.silent = restart
        combiner, result = crashing.go_on()
        in_it = kinds.index(kind) >= kinds.index(Kind.SURVIVORS)
        assert result.survivors == tuple(SITES if in_it else "ACD")
        assert (result.state.digest == expected[0]) == in_it
        assert {site.state.digest for site in lines.sites.values()} == {result.state.digest}
        assert all(isinstance(error, UnexpectedFrame) for _, error in lines.errors)
        after = combiner.run(lines, result.state)
        assert after.survivors == tuple(SITES)
        assert max(crashing.answers().values()) <= 1


# Real processes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Killed:
    """The processes of ``tests/support/killed_federation.py``, one an order."""

    server: subprocess.Popen[str]
    folder: Path

    def run(self, name: str, at: int | None = None) -> int:
        """The exit code of a federation in folder ``name`` that kills itself at moment ``at``."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps({"folder": str(folder), "at": at}) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def text(self, name: str, file: str) -> str:
        return (self.folder / name / file).read_text()

    def answers(self, name: str) -> dict[str, int]:
        """How many different *unmask* frames each site let go in each round."""
        path = self.folder / name / "answers"
        lines = set(path.read_text().splitlines()) if path.exists() else set()
        return Counter(line.rsplit(" ", 1)[0] for line in lines)

    def booked(self, name: str) -> set[str]:
        """The sites whose marks say that they have answered in the round of their marks."""
        files = {site: self.folder / name / f"{site}.marks" for site in SITES}
        # Not through FileMarks, which would keep the marks for this process.
        read = {site: Marks.decode(f.read_bytes()) for site, f in files.items() if f.exists()}
        return {site for site, marks in read.items() if marks.answers}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    root = Path(__file__).parents[3]
    places = [root, root / "protocols", root / "tests" / "support"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    with subprocess.Popen(
        [sys.executable, str(root / "tests" / "support" / "killed_federation.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        yield Killed(server, tmp_path_factory.mktemp("killed"))
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def calm(killed: Killed) -> tuple[list[str], str]:
    """The moments of a first round that is not killed, and the states that two rounds end in."""
    assert killed.run("calm") == 0
    moments = killed.text("calm", "moments").splitlines()
    result = killed.text("calm", "result")
    assert len(set(result.split())) == 1
    assert set(killed.answers("calm").values()) == {1}
    return moments[: moments.index("finished") + 2], result


def _lost(moments: list[str]) -> range:
    """From where sites may have been asked to unmask, to where their answers are on the disk."""
    ends = [index for index, name in enumerate(moments) if name == "after sync"]
    assert len(ends) == 5
    return range(ends[3], ends[4])


def test_a_killed_federation_ends_in_the_same_state(
    killed: Killed, calm: tuple[list[str], str]
) -> None:
    """SIGKILL: what was in memory is gone, for the combiner and all four sites."""
    moments, expected = calm
    lost = _lost(moments)
    for at, moment in enumerate(moments):
        # of the sites only the first and the last to come, for the sake of time
        if at in lost or moment.removeprefix("before ").removeprefix("after ")[:2] in ("B:", "C:"):
            continue
        name = f"at{at}"
        assert killed.run(name, at) == -signal.SIGKILL, moment
        assert killed.run(name) == 0, moment
        assert killed.text(name, "result") == expected, moment
        assert set(killed.answers(name).values()) == {1}, moment
        assert not list((killed.folder / name / "journals").iterdir()), moment


def test_a_federation_that_is_killed_again_and_again_ends_in_the_same_state(
    killed: Killed, calm: tuple[list[str], str]
) -> None:
    """Three processes in a row die before their sites are asked to unmask."""
    moments, expected = calm
    random = np.random.default_rng(5)
    for number in range(4):
        name = f"again{number}"
        for at in random.integers(_lost(moments).start, size=3):
            assert killed.run(name, int(at)) == -signal.SIGKILL
        assert killed.run(name) == 0
        assert killed.text(name, "result") == expected
        assert set(killed.answers(name).values()) == {1}


def test_killed_between_the_answers_and_the_journal(
    killed: Killed, calm: tuple[list[str], str]
) -> None:
    """SA-8.4: the named error; and whoever tries again gets no second answer from anybody."""
    moments, expected = calm
    seen = Counter[str]()
    for at in _lost(moments):
        name, moment = f"lost{at}", moments[at]
        assert killed.run(name, at) == -signal.SIGKILL, moment
        booked = killed.booked(name)
        before = killed.answers(name)
        assert killed.run(name) == 3, moment
        assert "people at the sites must decide" in killed.text(name, "error")
        assert killed.booked(name) == booked
        code = killed.run(name)
        if len(booked) >= 2:
            assert code == 3, moment
            assert "people at the sites must decide" in killed.text(name, "error")
            assert killed.answers(name) == before
            seen["too few are left"] += 1
            continue
        assert code == 0, moment
        result = killed.text(name, "result")
        assert len(set(result.split())) == 1
        assert (result == expected) == (not booked), moment
        assert set(killed.answers(name).values()) == {1}
        seen["one refused" if booked else "nobody had answered"] += 1
    assert seen == {"nobody had answered": 2, "one refused": 2, "too few are left": 6}
