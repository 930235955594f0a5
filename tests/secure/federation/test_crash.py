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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from crashes import BetweenExchanges, Crash, DyingChannel, DyingJournals, DyingKeys, Moments
from federation_fixtures import ANYTHING, Cast, Lines, make_study
from federation_world import World, away, world

from fedbcs_protocols.ckks import outcome
from fedbcs_protocols.errors import Refused, UnexpectedFrame
from fedbcs_protocols.secagg import Marks
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.combiner import RoundCombiner, RoundResult
from fedbcs_secure.federation.filekeys import FileKeys
from fedbcs_secure.federation.journal import FileJournals
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.marks import FileMarks
from fedbcs_secure.federation.missed import SumShelf
from fedbcs_secure.federation.rounds import SUM
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
SITES = "ABCD"
LEAST_MOMENTS = 59
"""Replies of eight stages, what is written of them, and the ends of five stages, for four sites."""
BEGUN = 2 * len(SITES)
"""Moments before an attempt begins: all are ready, one deals a key, the others take it."""
KEYS_MADE = BEGUN + 1 + 2 * len(SITES) + 1
"""Moments up to the end of the first stage: begin, replies and records, close."""


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
        kinds = [bytes(record[:1]) for record in journals.reopen(begun.binding)[1]]
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
    # half of it is like nothing or like all; for the sake of time
    for at in count(step={0.0: 1, 0.5: 3, 1.0: 2}[kept]):
        crashing = federation()
        if not crashing.crash_at(at, kept):
            break
        combiner, result = crashing.go_on()
        finishes(crashing, result, expected)
        assert set(crashing.answers().values()) == {1}
        # a new attempt only if it crashed while keys were made; the end of that stage may be kept
        assert result.attempts == (2 if BEGUN <= at < KEYS_MADE - (kept == 1) else 1)
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
    for _ in range(15):
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
            assert result.attempts == (1 if at < BEGUN else 2)
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


# Encrypted sums ----------------------------------------------------------------------------------


@pytest.fixture
def decryptions(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[object, int]]:
    """How often each process of a site decrypted an aggregate of each round."""
    seen: Counter[tuple[object, int]] = Counter()
    true = outcome._decrypted

    def counted(ciphertexts, agreement, setting, secret, scratch):  # type: ignore[no-untyped-def]
        seen[scratch, setting.binding.round] += 1
        return true(ciphertexts, agreement, setting, secret, scratch)

    monkeypatch.setattr(outcome, "_decrypted", counted)
    return seen


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """A new federation each time, after a round; the combiner's shelf and the sites' keys last."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    numbers = count()

    def make(**values: object) -> World:
        w = world(shelf=SumShelf(tmp_path / str(next(numbers))), protection="ckks", **values)
        w.round()
        w.combiner.finished(w.beginning)
        return w

    return make


def uploads(w: World, name: str) -> list[tuple[int, int]]:
    """The rounds and attempts of the different uploads that a site let go, in their order."""
    return [(f.binding.round, f.binding.attempt) for f in w.lines.sent(Kind.ENCRYPTED)[name]]


def dies(w: World, at: int) -> bool:
    """Whether the combiner died before its exchange ``at``; if not, then right after the last."""
    try:
        w.combiner.run(BetweenExchanges(w.lines, Moments(at)), w.state)
    except Crash:
        return True
    finally:
        w.restart_combiner()
    return False


@pytest.mark.parametrize(("times", "rekey_every"), [(3, 1), (1, 100)])
def test_the_combiner_of_an_encrypted_round_dies_between_any_two_exchanges(
    encrypted: Callable[..., World],
    decryptions: Counter[tuple[object, int]],
    times: int,
    rekey_every: int,
) -> None:
    """GK-5.2, GK-6.1, RO-2.11: also after the last one, before a state's name is kept."""
    calm = encrypted(rekey_every=rekey_every)
    expected = [calm.round().state.digest, calm.round().state.digest]
    for at in count():
        w = encrypted(rekey_every=rekey_every)
        before = w.state
        died = [dies(w, at) for _ in range(times)]
        result = w.round()
        assert (result.state.digest, w.behind()) == (expected[0], ""), at
        assert (result.survivors, result.faults) == (tuple(SITES), {})
        w.combiner.finished(before)
        assert w.shelf is not None
        assert w.shelf.kept() == []
        assert w.round().state.digest == expected[1]
        for name in SITES:
            # The sites say which attempt it is, and none encrypts twice for the same one.
            attempts = [attempt for round, attempt in uploads(w, name) if round == 1]
            assert attempts == list(range(len(attempts)))
        # GK-6.1
        assert {w.ring(name).opened for name in SITES} == {(2, 1)}
        assert w.lines.errors == []
        if not any(died):
            break
    # start, present, dealt, open, aggregate, sum
    assert at == (6 if rekey_every == 1 else 4)
    assert set(decryptions.values()) == {1}


class Deaf:
    """What sites say to a sum is lost."""

    def __init__(self, w: World) -> None:
        self.w = w

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, reply in self.w.lines.exchange(requests):
            if decode(reply, ANYTHING).kind is not Kind.ACCEPTED:
                yield name, reply


@pytest.mark.parametrize("anew", [False, True])
def test_a_sum_that_all_took_and_nobody_was_heard_about_is_never_given_up(
    encrypted: Callable[..., World], ends: Callable[[str], bytes], anew: bool
) -> None:
    """RO-2.11: from outside they look like sites that declined; but they are ready no more."""
    w = encrypted()
    for what in ("every site declined the sum", "0 of 4 sites are ready", "0 of 4 sites are ready"):
        with pytest.raises(RoundError, match=what):
            w.combiner.run(Deaf(w), w.state)
        if anew:
            w.restart_combiner()
    result = w.round()
    assert (result.survivors, w.behind()) == (tuple(SITES), "")
    assert w.round().state.digest == ends("")


class OneDies:
    """One site dies with its reply to the first frame of a kind, or of itself; it starts anew."""

    def __init__(self, w: World, name: str, kind: Kind | None = None) -> None:
        self.w, self.name, self.kind = w, name, kind
        self.died = False

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            try:
                replies = list(self.w.lines.exchange({name: request}))
                kind = decode(request, ANYTHING).kind
                if (name, kind, self.died) == (self.name, self.kind, False):
                    raise Crash
            except Crash:
                self.died = True
                self.w.restart(name)
                continue
            yield from replies


@pytest.fixture
def ends(encrypted: Callable[..., World]) -> Callable[[str], bytes]:
    """The state two rounds on where a site is away for one, or nobody ("")."""

    @cache
    def end(gone: str) -> bytes:
        w = encrypted()
        w.round(away(gone))
        return w.round().state.digest

    return end


def is_not_missed_for_long(w: World, channel: OneDies, ends: Callable[[str], bytes]) -> None:
    """The others finish the round, and the site is with them in the next, at the same state."""
    first = w.combiner.run(channel, w.state)
    w.state = first.state
    assert channel.died
    assert {*first.survivors} | {channel.name} == {*SITES}
    second = w.round()
    assert (second.survivors, w.behind()) == (tuple(SITES), "")
    missing = "" if channel.name in first.survivors else channel.name
    assert second.state.digest == ends(missing)
    for name in SITES:
        sent = uploads(w, name)
        assert sent == sorted(set(sent))
        assert w.ring(name).refusals == 0


def test_a_site_that_dies_with_its_reply_to_any_request_of_an_encrypted_round(
    encrypted: Callable[..., World], ends: Callable[[str], bytes]
) -> None:
    """What it did is done, nobody heard of it, and all that is left are its state and its keys."""
    asked = {Kind.PRESENT: "A", Kind.DEALT: "D"}
    for kind in (Kind.START, *asked, Kind.OPEN, Kind.AGGREGATE, Kind.SUM):
        for name in asked.get(kind, "AD"):
            w = encrypted()
            is_not_missed_for_long(w, OneDies(w, name, kind), ends)


@pytest.mark.parametrize(("name", "rekey_every"), [("A", 1), ("D", 100)])
def test_a_site_that_dies_around_anything_it_writes_of_its_keys(
    encrypted: Callable[..., World],
    ends: Callable[[str], bytes],
    tmp_path: Path,
    name: str,
    rekey_every: int,
) -> None:
    """GK-5.3, GK-6.1: a key, an upload, a decryption, who was in it."""
    w, writes = encrypted(rekey_every=rekey_every), Moments()
    w.keys[name] = DyingKeys(w.keys[name], writes)
    w.restart(name)
    w.round()
    assert len(writes.names) == (10 if rekey_every == 1 else 8)
    for at in range(len(writes.names)):
        w, file = encrypted(rekey_every=rekey_every), FileKeys(tmp_path / f"{at}.keys", bytes(32))
        file.write(w.ring(name))
        w.keys[name] = DyingKeys(file, Moments(at))
        w.restart(name)
        is_not_missed_for_long(w, OneDies(w, name), ends)


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
    for number in range(3):
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
