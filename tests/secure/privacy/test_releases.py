"""Files beside the ledger: whole and theirs, or not there."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
from ledger_support import IDENTITY, OTHER, STATE, STORAGE_KEY, study

from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy import releases
from fedbcs_secure.privacy.chain import START, Head
from fedbcs_secure.privacy.releases import HeadFile, ReleaseFiles, purpose_key
from fedbcs_secure.privacy.store import hold

KEY = purpose_key(STORAGE_KEY, "releases")
SLOT = study("A"), 3
HEAD = Head(7, b"h" * 32)
DATA = bytes(range(256)) * 20


@pytest.fixture
def files(tmp_path: Path) -> ReleaseFiles:
    return ReleaseFiles(tmp_path / "releases", KEY)


def only(files: ReleaseFiles) -> Path:
    (path,) = files.folder.iterdir()
    return path


def test_what_was_written_is_read(files: ReleaseFiles) -> None:
    assert files.slots() == []
    for data in (DATA, b""):
        files.write(SLOT, STATE, HEAD, data)
        assert files.read(SLOT, STATE) == data
        assert files.slots() == [SLOT]
    assert only(files).name == f"{SLOT[0].hex()}-0000000003.release"


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes there")
def test_only_the_owner_can_read_it(files: ReleaseFiles) -> None:
    files.write(SLOT, STATE, HEAD, DATA)
    assert stat.S_IMODE(only(files).stat().st_mode) == 0o600
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700


def test_the_bytes_are_encrypted_and_never_twice_alike(files: ReleaseFiles) -> None:
    seen = set()
    for _ in range(3):
        files.write(SLOT, STATE, HEAD, DATA)
        sealed = only(files).read_bytes()
        assert DATA[:16] not in sealed
        seen.add(sealed)
    assert len(seen) == 3
    assert repr(KEY) not in repr(files)


def test_another_state_round_study_or_key_reads_nothing(files: ReleaseFiles) -> None:
    files.write(SLOT, STATE, HEAD, DATA)
    assert files.read(SLOT, b"t" * 32) is None
    assert files.read((SLOT[0], 4), STATE) is None
    assert files.read((study("B"), 3), STATE) is None
    other = ReleaseFiles(files.folder, purpose_key(bytes(32), "releases"))
    assert other.read(SLOT, STATE) is None
    # nor under another's name
    only(files).rename(files.folder / f"{SLOT[0].hex()}-0000000004.release")
    assert files.read((SLOT[0], 4), STATE) is None


def test_any_changed_or_missing_byte_reads_nothing(files: ReleaseFiles) -> None:
    files.write(SLOT, STATE, HEAD, b"some bytes")
    path = only(files)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert files.read(SLOT, STATE) is None
        path.write_bytes(whole[:at])
        assert files.read(SLOT, STATE) is None
    path.write_bytes(whole + b"\0")
    assert files.read(SLOT, STATE) is None
    path.write_bytes(whole)
    assert files.read(SLOT, STATE) == b"some bytes"


def test_what_is_too_long_is_neither_written_nor_read(
    files: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "MAX_RELEASE_BYTES", 100)
    files.write(SLOT, STATE, HEAD, bytes(100))
    with pytest.raises(LedgerError, match="at most 100 bytes, this one has 101"):
        files.write(SLOT, STATE, HEAD, bytes(101))
    monkeypatch.setattr(releases, "MAX_RELEASE_BYTES", 99)
    assert files.read(SLOT, STATE) is None


def test_what_a_crash_left_is_removed(files: ReleaseFiles) -> None:
    files.write(SLOT, STATE, START, b"booked")
    files.write((SLOT[0], 4), STATE, HEAD, b"not booked")
    torn = files.folder / f"{SLOT[0].hex()}-0000000005.release.tmp"
    torn.write_bytes(b"half")
    mine = files.folder / "notes.tmp"
    mine.write_bytes(b"a person's")
    files.settle({SLOT}, HEAD)
    assert files.slots() == [SLOT]
    assert not torn.exists()
    assert mine.exists()


def test_what_no_crash_can_leave_is_an_older_ledgers_sign(files: ReleaseFiles) -> None:
    """An unbooked file that was to come behind an entry which the ledger does not end with."""
    files.write(SLOT, STATE, HEAD, DATA)
    for head in (Head(6, HEAD.hash), Head(8, HEAD.hash), Head(7, b"g" * 32), START):
        with pytest.raises(LedgerError, match="an older copy of the ledger was restored"):
            files.settle(set(), head)
    only(files).write_bytes(b"no release")
    with pytest.raises(LedgerError, match="or damaged"):
        files.settle(set(), HEAD)
    assert files.slots() == [SLOT]


def test_old_rounds_of_one_study_are_forgotten(files: ReleaseFiles) -> None:
    for slot in [(study(name), number) for name in "AB" for number in range(4)]:
        files.write(slot, STATE, HEAD, DATA)
    files.forget(study("A"), 3)
    assert set(files.slots()) == {(study("A"), 3), *((study("B"), n) for n in range(4))}


def test_a_full_disk_is_said_and_leaves_no_release(
    files: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LedgerError, match=r"No space left on device. Nothing was released"):
            files.write(SLOT, STATE, HEAD, DATA)
    assert files.slots() == []
    files.write(SLOT, STATE, HEAD, DATA)
    assert files.read(SLOT, STATE) == DATA


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("a file")
    files = ReleaseFiles(tmp_path / "releases", KEY)
    with pytest.raises(LedgerError, match="cannot"):
        files.slots()
    with pytest.raises(LedgerError, match="cannot store"):
        files.write(SLOT, STATE, HEAD, DATA)


def test_the_head_is_the_sites_own_and_whole(tmp_path: Path) -> None:
    file = HeadFile(tmp_path / "apart" / "head")
    assert file.read(IDENTITY.public) is None
    file.write(HEAD, IDENTITY)
    assert file.read(IDENTITY.public) == HEAD
    with pytest.raises(LedgerError, match="damaged, or another site's"):
        file.read(OTHER.public)
    whole = file.path.read_bytes()
    for at in range(len(whole)):
        for data in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            file.path.write_bytes(data)
            with pytest.raises(LedgerError, match="damaged, or another site's"):
                file.read(IDENTITY.public)
    file.path.write_bytes(whole + b"\0")
    with pytest.raises(LedgerError):
        file.read(IDENTITY.public)


def test_keys_of_purposes_differ_and_have_a_length() -> None:
    assert len({KEY, purpose_key(STORAGE_KEY, "patients"), STORAGE_KEY}) == 3
    with pytest.raises(LedgerError, match="32 bytes"):
        purpose_key(b"short", "releases")


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_one_lock_at_a_time_and_a_folder_that_has_none(tmp_path: Path) -> None:
    first = hold(tmp_path / "ledger")
    assert first is not None
    with pytest.raises(LedgerError, match="another process of this site uses the ledger"):
        hold(tmp_path / "ledger")
    first.close()
    again = hold(tmp_path / "ledger")
    assert again is not None
    again.close()
    (tmp_path / "other.lock").mkdir()
    with pytest.raises(LedgerError, match="cannot lock the ledger"):
        hold(tmp_path / "other")
