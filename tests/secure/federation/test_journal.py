"""Journals on disk: what was synced is read back, whatever became of the rest."""

from __future__ import annotations

import gc
import io
import os
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg.journal import CLOSE, frame_in, frame_record
from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.journal import Begun, FileJournal, FileJournals, NoJournals

FIRST = Binding(b"s" * 32, 7, 0, 1, b"g" * 32)
RECORDS = [b"Fone", b"C", b"F" + bytes(300), b"", b"Flast"]
HEAD_BYTES = 12
KEY_ID = b"k" * 32


def begun(binding: Binding) -> Begun:
    return Begun(binding, KEY_ID)


def written(folder: Path, records: list[bytes], binding: Binding = FIRST) -> Path:
    journal = FileJournals(folder).begin(begun(binding))
    for record in records:
        journal.append(record)
    journal.sync()
    (path,) = folder.glob(f"*-{binding.attempt:05d}-*.journal")
    return path


def held(folder: Path, binding: Binding = FIRST) -> list[bytes]:
    _, records = FileJournals(folder).reopen(binding)
    return [bytes(record) for record in records]


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    written(tmp_path, RECORDS)
    assert held(tmp_path) == RECORDS
    assert FileJournals(tmp_path).latest(FIRST) == begun(FIRST)


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """The sum follows from it."""
    path = written(tmp_path / "journals", [b"x"])
    assert [p.stat().st_mode & 0o777 for p in (path.parent, path)] == [0o700, 0o600]


def test_a_reopened_journal_goes_on(tmp_path: Path) -> None:
    written(tmp_path, RECORDS[:2])
    journal, records = FileJournals(tmp_path).reopen(FIRST)
    assert [bytes(record) for record in records] == RECORDS[:2]
    for record in RECORDS[2:]:
        journal.append(record)
    journal.sync()
    assert held(tmp_path) == RECORDS


def test_views_can_be_appended(tmp_path: Path) -> None:
    written(tmp_path, [memoryview(b"xFabcx")[1:5]])  # type: ignore[list-item]
    assert held(tmp_path) == [b"Fabc"]


def test_begin_empties_what_was_there(tmp_path: Path) -> None:
    written(tmp_path, RECORDS)
    written(tmp_path, [b"Fnew"])
    assert held(tmp_path) == [b"Fnew"]


def test_sync_reaches_the_disk_and_begin_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file was synced")
    monkeypatch.setattr(os, "fsync", fsync)
    journal = FileJournals(tmp_path / "deep" / "folder").begin(begun(FIRST))
    (path,) = (tmp_path / "deep" / "folder").iterdir()
    assert synced == [path, path.parent]
    journal.append(b"Fone")
    assert synced == [path, path.parent]
    journal.sync()
    assert synced == [path, path.parent, path]
    # what a new process reads may never have been synced, and it acts on it
    FileJournals(path.parent).reopen(FIRST)
    assert synced == [path, path.parent, path, path]
    assert held(path.parent) == [b"Fone"]


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks are not waited for: only what is in the files matters."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("no_waiting")
def test_a_tail_cut_at_any_byte_leaves_a_prefix(tmp_path: Path) -> None:
    whole = written(tmp_path, RECORDS).read_bytes()
    gc.collect()
    path = next(tmp_path.iterdir())
    ends = [HEAD_BYTES + Begun.LENGTH]
    for record in RECORDS:
        ends.append(ends[-1] + HEAD_BYTES + len(record))
    assert ends[-1] == len(whole)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert FileJournals(tmp_path).latest(FIRST) == (begun(FIRST) if complete else None)
        if complete:
            assert held(tmp_path) == RECORDS[: complete - 1]
            # what was half written is gone for good, and the journal goes on behind the rest
            assert path.stat().st_size == ends[complete - 1]
            journal, _ = FileJournals(tmp_path).reopen(FIRST)
            journal.append(b"Fnext")
            journal.sync()
            assert held(tmp_path) == [*RECORDS[: complete - 1], b"Fnext"]


@pytest.mark.usefixtures("no_waiting")
def test_a_flipped_byte_cuts_there(tmp_path: Path) -> None:
    whole = written(tmp_path, RECORDS).read_bytes()
    path = next(tmp_path.iterdir())
    ends = [HEAD_BYTES + Begun.LENGTH]
    for record in RECORDS:
        ends.append(ends[-1] + HEAD_BYTES + len(record))
    for place in range(ends[0], len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        before = sum(end <= place for end in ends)
        assert held(tmp_path) == RECORDS[: before - 1]
    for place in range(ends[0]):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        assert FileJournals(tmp_path).latest(FIRST) is None


@given(st.binary(max_size=300))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_anything_behind_the_records_is_dropped_or_a_record(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path, RECORDS[:3])
    with path.open("ab") as stream:
        stream.write(tail)
    # a record of eight checked bytes does not come about by chance
    assert held(tmp_path) == RECORDS[:3]


@pytest.mark.parametrize("length", [1000, 2**31, 2**32 - 1])
def test_a_huge_length_is_not_allocated(tmp_path: Path, length: int) -> None:
    path = written(tmp_path, RECORDS[:1])
    with path.open("ab") as stream:
        stream.write(struct.pack(">I8s", length, bytes(8)) + bytes(500))
    tracemalloc.start()
    try:
        assert held(tmp_path) == RECORDS[:1]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_latest_attempt_of_this_very_round(tmp_path: Path) -> None:
    journals = FileJournals(tmp_path)
    assert FileJournals(tmp_path / "absent").latest(FIRST) is None
    assert journals.latest(FIRST) is None
    for attempt in (0, 3, 12, 2):
        written(tmp_path, [b"C"], replace(FIRST, attempt=attempt))
    assert journals.latest(FIRST) == begun(replace(FIRST, attempt=12))
    for other in (
        replace(FIRST, attempt=20, study_digest=b"t" * 32),
        replace(FIRST, attempt=21, round=8),
        replace(FIRST, attempt=22, phase=0),
        replace(FIRST, attempt=23, state_digest=b"g" * 31 + b"h"),
    ):
        journals.begin(begun(other))
    assert journals.latest(FIRST) == begun(replace(FIRST, attempt=12))
    assert journals.latest(replace(FIRST, round=8)) == begun(replace(FIRST, attempt=21, round=8))


def test_files_that_are_no_journals_are_ignored(tmp_path: Path) -> None:
    written(tmp_path, [b"C"])
    for name, content in (
        ("0000000007-00009-1-73737373-67676767.journal", b""),
        ("0000000007-00010-1-73737373-67676767.journal", b"nonsense" * 100),
        ("0000000007-00011-1-73737373-67676767.journal.tmp", b"half"),
        ("0000000007-notes.journal", struct.pack(">I8s", 2**32 - 1, bytes(8))),
        ("README", b"by hand"),
    ):
        (tmp_path / name).write_bytes(content)
    # whole records of which the first is no binding
    stranger = tmp_path / "0000000007-00012-1-73737373-67676767.journal"
    stranger.write_bytes(b"")
    journal = FileJournals(tmp_path).reopen(replace(FIRST, attempt=12))[0]
    journal.append(b"short")
    journal.sync()
    assert FileJournals(tmp_path).latest(FIRST) == begun(FIRST)


def test_forget_removes_the_round_and_what_a_crash_left_of_those_before(tmp_path: Path) -> None:
    journals = FileJournals(tmp_path)
    for attempt in (0, 1):
        journals.begin(begun(replace(FIRST, attempt=attempt)))
    for round_ in (0, 6, 8, 100):
        journals.begin(begun(replace(FIRST, round=round_)))
    (tmp_path / "README").write_bytes(b"by hand")
    journals.forget(replace(FIRST, attempt=1))
    left = ["0000000008", "0000000100", "README"]
    assert sorted(path.name[:10] for path in tmp_path.iterdir()) == left
    assert journals.latest(FIRST) is None
    journals.forget(FIRST)
    FileJournals(tmp_path / "absent").forget(FIRST)
    assert sorted(path.name[:10] for path in tmp_path.iterdir()) == left


def test_no_journals_keep_nothing(tmp_path: Path) -> None:
    journals = NoJournals()
    journal = journals.begin(begun(FIRST))
    journal.append(b"C")
    journal.sync()
    assert journals.latest(FIRST) is None
    again, records = journals.reopen(FIRST)
    again.append(b"C")
    again.sync()
    assert list(records) == []
    journals.forget(FIRST)


def test_records_say_what_they_are() -> None:
    assert frame_in(CLOSE) is None
    assert bytes(frame_in(frame_record(b"abc")) or b"") == b"abc"
    assert bytes(frame_in(b"F") or b"") == b""
    for wrong in (b"", b"X", b"Cx", b"\0"):
        with pytest.raises(LocalError):
            frame_in(wrong)


def test_two_studies_in_a_folder_do_not_touch_each_others_journals(tmp_path: Path) -> None:
    written(tmp_path, [b"C"])
    other = replace(FIRST, study_digest=b"o" * 32)
    FileJournals(tmp_path).begin(begun(other))
    assert FileJournals(tmp_path).latest(FIRST) == begun(FIRST)
    assert list(FileJournals(tmp_path).reopen(FIRST)[1]) == [b"C"]
    FileJournals(tmp_path).forget(FIRST)
    assert FileJournals(tmp_path).latest(FIRST) is None
    assert FileJournals(tmp_path).latest(other) == begun(other)


def test_nothing_is_written_behind_half_a_record(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        room = 2

        def write(self, data: object) -> int:
            self.room -= 1
            if not self.room:
                raise OSError(28, "No space left on device")
            return super().write(data)  # type: ignore[arg-type]

    journal = FileJournal(Full())
    with pytest.raises(OSError, match="No space"):
        journal.append(b"half")
    with pytest.raises(RunFolderError, match="start it anew"):
        journal.append(b"C")
