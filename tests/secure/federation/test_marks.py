"""Marks in a file: the last that were written, or a person has to look."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.secagg import Marks
from fedbcs_protocols.secagg.marks import Answer
from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.marks import FileMarks

BINDING = Binding(b"s" * 32, 7, 2, 1, b"g" * 32)
MARKS = Marks(BINDING, (Answer(1, 2, 1, b"t" * 32),), b"\x0f")


def test_nothing_written_nothing_read(tmp_path: Path) -> None:
    assert FileMarks(tmp_path / "marks").read() is None


def test_the_last_of_two_writes_counts(tmp_path: Path) -> None:
    marks = FileMarks(tmp_path / "marks")
    marks.write(MARKS)
    assert marks.read() == MARKS
    later = Marks(replace(BINDING, attempt=3))
    marks.write(later)
    assert marks.read() == FileMarks(tmp_path / "marks").read() == later
    assert {path.name for path in tmp_path.iterdir()} == {"marks", "marks.lock"}


HOLDER = """
import sys
from pathlib import Path
from fedbcs_secure.federation.marks import FileMarks
FileMarks(Path(sys.argv[1])).read()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_two_processes_of_a_site_do_not_share_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for use in (FileMarks(path).read, lambda: FileMarks(path).write(MARKS)):
            with pytest.raises(RunFolderError, match="another process"):
                use()
        other.kill()
    # However the other ended, its lock is gone.
    FileMarks(path).write(MARKS)
    assert FileMarks(path).read() == MARKS


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    data = MARKS.encode()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(RunFolderError, match="take no part until that is clear"):
            FileMarks(path).read()


@pytest.mark.parametrize(
    "data",
    [
        MARKS.encode() + b"\0",
        b"\0" * len(MARKS.encode()),
        b"XBMK" + MARKS.encode()[4:],
        MARKS.encode()[:4] + b"\x02" + MARKS.encode()[5:],
        MARKS.encode() + bytes(1 << 20),
        bytes((1 << 14) + 1),
    ],
)
def test_a_damaged_file_is_for_a_person_and_stays_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "marks"
    path.write_bytes(data)
    with pytest.raises(RunFolderError) as caught:
        FileMarks(path).read()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    with pytest.raises(RunFolderError, match="cannot read marks"):
        FileMarks(tmp_path / "marks").read()


def test_what_a_crash_left_beside_it_does_not_matter(tmp_path: Path) -> None:
    marks = FileMarks(tmp_path / "marks")
    (tmp_path / "marks.tmp").write_bytes(b"half a fi")
    assert marks.read() is None
    marks.write(MARKS)
    (tmp_path / "marks.tmp").write_bytes(MARKS.encode()[:50])
    assert marks.read() == MARKS
    marks.write(MARKS)
    assert marks.read() == MARKS


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_marks(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = FileMarks(tmp_path / "marks")
    marks.write(MARKS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        with pytest.raises(RunFolderError, match="No space"):
            marks.write(Marks(replace(BINDING, attempt=3)))
    assert marks.read() == MARKS
