"""A ledger whose process is killed anywhere: what was handed out is booked, and booked once.

Real processes that kill themselves around every write, and that the system kills within one; then
ends of SQLite's log that were half on the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ledger_support
import pytest
from ledger_support import SCRIPT, SMALL, cheap, claim, fields_of, open_ledger, rows_of, study

from fedbcs_protocols.errors import Refused
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.chain import Head
from fedbcs_secure.privacy.events import total
from fedbcs_secure.privacy.ledger import Ledger

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork there")

LEAST_MOMENTS = 80
REFUSED = 2


@dataclass
class Killed:
    """Talks to a server that forks a process for each run."""

    server: subprocess.Popen[str]
    folder: Path

    def run(self, name: str, at: int | None = None, limit: int | None = None) -> int:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        order = {"folder": str(folder), "at": at, "limit": limit}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def sent(self, name: str) -> list[list[str]]:
        return self._lines(name, "sent")

    def drawn(self, name: str) -> Counter[tuple[str, ...]]:
        return Counter(tuple(line) for line in self._lines(name, "drawn"))

    def _lines(self, name: str, file: str) -> list[list[str]]:
        path = self.folder / name / file
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    script = str(Path(ledger_support.__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        yield Killed(server, tmp_path_factory.mktemp("ledgers"))
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def moments(killed: Killed) -> list[str]:
    """The moments of a run that is not killed."""
    assert killed.run("calm") == 0
    names = (killed.folder / "calm" / "moments").read_text().splitlines()
    assert len(names) > LEAST_MOMENTS
    assert names.count("returned") == 3
    assert names.count("refused") == 1
    return names


def booked(folder: Path) -> dict[tuple[str, str], str]:
    """The digest of each (study, round); fails if there are two of one."""
    found: dict[tuple[str, str], str] = {}
    for _, content, _, _ in rows_of(folder):
        kind, _, *fields = fields_of(content)
        if kind == "release":
            slot = fields[0].hex(), str(fields[1])
            assert slot not in found
            found[slot] = fields[6].hex()
    return found


def check_after_kill(killed: Killed, name: str) -> None:
    """A restart finds every release that was handed out, and at most one that is not booked."""
    folder = killed.folder / name
    sent = killed.sent(name)
    with open_ledger(folder, SMALL) as ledger:
        ledger.verify()
        for _, _, _, sequence, digest in sent:
            assert ledger._book.contains(Head(int(sequence), bytes.fromhex(digest)))
    entries = booked(folder)
    assert {(s, r): digest for s, r, digest, *_ in sent}.items() <= entries.items()
    files = {path.name for path in (folder / "releases").glob("*")}
    whole = {f"{s}-{int(r):010d}.release" for s, r in entries}
    aside = files - whole
    assert files >= whole
    assert len(aside) <= 1
    assert all(name.endswith(".release.unbooked") for name in aside)
    assert not {name.removesuffix(".unbooked") for name in aside} & whole


def check_after_rerun(killed: Killed, name: str, wanted: int) -> None:
    """All is sent, each release as the same bytes every time, and drawn anew only if unbooked."""
    sent: dict[tuple[str, str], str] = {}
    for s, r, digest, *_ in killed.sent(name):
        assert sent.setdefault((s, r), digest) == digest
    assert sent == booked(killed.folder / name)
    assert len(sent) == wanted
    with open_ledger(killed.folder / name, SMALL) as ledger:
        assert ledger.verify().releases == wanted
    assert not list((killed.folder / name / "releases").glob("*.unbooked"))


WRITES = ["sync", "rename", "sync"]
"""A file that is written durably: its content, its name, the folder that has the name."""


def test_a_release_is_stored_then_booked_then_known_apart_then_returned(moments: list[str]) -> None:
    """DP-5.5: the order that every other test here relies on."""
    start = moments.index("returned") + 1
    second = moments[start : moments.index("returned", start)]
    assert second[0] == "drawn"
    assert [name.removeprefix("before ") for name in second[1::2]] == [
        *WRITES,
        "BEGIN IMMEDIATE",
        "INSERT INTO",
        "COMMIT",
        *WRITES,
    ]
    assert second[2::2] == [name.replace("before", "after") for name in second[1::2]]


def test_a_ledger_that_is_killed_anywhere_goes_on(killed: Killed, moments: list[str]) -> None:
    for at, moment in enumerate(moments):
        name = f"at{at}"
        assert killed.run(name, at) == -signal.SIGKILL, moment
        before = killed.drawn(name)
        check_after_kill(killed, name)
        entries, rows = booked(killed.folder / name), rows_of(killed.folder / name)
        assert killed.run(name) == 0, moment
        check_after_rerun(killed, name, 3)
        # What was on the disk stays as it was, sent or not.
        assert rows_of(killed.folder / name)[: len(rows)] == rows, moment
        again = killed.drawn(name) - before
        assert not set(again) & set(entries), moment
        assert max(killed.drawn(name).values()) <= 2
        with open_ledger(killed.folder / name, SMALL) as ledger:
            statement = ledger.statement()
        assert statement.refusals == 1
        events = total(c.events for c in SCRIPT[:REFUSED] + SCRIPT[REFUSED + 1 :])
        assert statement.epsilon == pytest.approx(cheap(events, SMALL.delta))


def test_a_ledger_that_is_killed_again_and_again_goes_on(
    killed: Killed, moments: list[str]
) -> None:
    """The second process dies while it mends what the first left, and so on."""
    for start in range(0, len(moments), 9):
        name = f"again{start}"
        for at in (start, 5, 2, 9, 14):
            if killed.run(name, at) == 0:  # less to do than at first
                break
            check_after_kill(killed, name)
        assert killed.run(name) == 0
        check_after_rerun(killed, name, 3)


def test_a_ledger_that_is_killed_within_a_write_goes_on(killed: Killed) -> None:
    """The system stops it at a byte of a file: of SQLite's log, or of a release."""
    torn = Counter[str]()
    for number, limit in enumerate([*range(33_000, 66_000, 1_971), 200_000, 299_999, 300_000]):
        name = f"torn{number}"
        assert killed.run(name, limit=limit) == -signal.SIGXFSZ
        folder = killed.folder / name
        torn["release"] += bool(list(folder.glob("releases/*.tmp")))
        torn["log"] += (folder / "ledger.sqlite-wal").stat().st_size == limit
        check_after_kill(killed, name)
        assert killed.run(name, limit=1 << 20) == 0
        check_after_rerun(killed, name, 12)
    assert torn["release"] == 3
    assert torn["log"] >= 12


def test_a_power_cut_within_a_commit_leaves_the_entry_or_nothing(tmp_path: Path) -> None:
    """Any part of what a commit added to SQLite's log; the release file and the old head stay."""
    base, after = tmp_path / "base", tmp_path / "after"
    with open_ledger(base, SMALL) as ledger:
        first = ledger.release(claim("A", 0), lambda: b"first")
        shutil.copytree(base, after)
        before = (base / "ledger.sqlite-wal").stat().st_size
        ledger.release(claim("A", 1), lambda: b"second")
        log = (base / "ledger.sqlite-wal").read_bytes()
        second = next((base / "releases").glob("*1.release"))
        shutil.copy(second, after / "releases")
    seen = Counter[bool]()
    for number, end in enumerate([*range(before, len(log), 257), len(log) - 1, len(log)]):
        folder = tmp_path / str(number)
        shutil.copytree(after, folder)
        (folder / "ledger.sqlite-wal").write_bytes(log[:end])
        with open_ledger(folder, SMALL) as ledger:
            ledger.verify()
            there = (study("A").hex(), "1") in booked_in(ledger)
            seen[there] += 1
            assert (folder / "releases" / second.name).exists() == there
            assert ledger.release(claim("A", 0), lambda: b"no") == first
            expected = b"second" if there else b"anew"
            assert ledger.release(claim("A", 1), lambda: b"anew") == expected
    assert seen[True] >= 1
    assert seen[False] >= 15


def booked_in(ledger: Ledger) -> set[tuple[str, str]]:
    return {(s.hex(), str(r)) for s, r in ledger._book.releases}


def test_an_entry_that_is_lost_after_it_was_handed_out_is_missed(tmp_path: Path) -> None:
    """The end of the log goes, the head stays: a named error, not a fresh start."""
    with open_ledger(tmp_path / "base", SMALL) as ledger:
        ledger.release(claim("A", 0), lambda: b"first")
        before = (tmp_path / "base" / "ledger.sqlite-wal").stat().st_size
        ledger.release(claim("A", 1), lambda: b"second")
        shutil.copytree(tmp_path / "base", tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "ledger.sqlite-wal", before)
    with pytest.raises(LedgerError, match=r"ends at entry 3, but had 4 .* or the end was lost"):
        open_ledger(tmp_path / "cut", SMALL)


def test_a_crash_in_the_making_spends_nothing(tmp_path: Path) -> None:
    def fails() -> bytes:
        raise ZeroDivisionError

    with open_ledger(tmp_path, SMALL) as ledger:
        with pytest.raises(ZeroDivisionError):
            ledger.release(claim(), fails)
        assert ledger.spent() == 0
        assert ledger.release(claim(), lambda: b"one") == b"one"
        with pytest.raises(Refused):
            ledger.release(claim(state=b"t" * 32), fails)
