"""Files beside the ledger: whole and theirs, or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_support import IDENTITY, OTHER, STATE, STORAGE_KEY, study

from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy import releases
from fedbcs_secure.privacy.chain import START, Booked, Head
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


def booked(*slots: releases.Slot, data: bytes = DATA) -> dict[releases.Slot, Booked]:
    return dict.fromkeys(slots, Booked(STATE, hashlib.sha256(data).digest()))


def test_what_a_crash_left_is_removed_or_put_aside(files: ReleaseFiles) -> None:
    files.write(SLOT, STATE, START, b"booked")
    files.write((SLOT[0], 4), STATE, HEAD, b"not booked")
    torn = files.folder / f"{SLOT[0].hex()}-0000000005.release.tmp"
    torn.write_bytes(b"half")
    mine = files.folder / "notes.tmp"
    mine.write_bytes(b"a person's")
    for _ in range(2):
        files.settle(booked(SLOT), HEAD)
        assert files.slots() == [SLOT]
        assert files.read((SLOT[0], 4), STATE) is None
        names = {path.name for path in files.folder.iterdir()} - {only_name(SLOT)}
        assert names == {only_name((SLOT[0], 4)) + ".unbooked", "notes.tmp"}
    files.forget_unbooked()
    assert {path.name for path in files.folder.iterdir()} == {only_name(SLOT), "notes.tmp"}


def only_name(slot: releases.Slot) -> str:
    return f"{slot[0].hex()}-{slot[1]:010d}.release"


def put_aside(files: ReleaseFiles, data: bytes = DATA) -> Path:
    files.write(SLOT, STATE, HEAD, data)
    files.settle({}, HEAD)
    return only(files)


def test_what_was_put_aside_comes_back_when_it_is_booked(files: ReleaseFiles) -> None:
    aside = put_aside(files)
    for other in ({}, booked((SLOT[0], 4)), booked(SLOT, data=b"others")):
        files.settle(other, Head(8, b"i" * 32))
        assert only(files) == aside
    files.settle({SLOT: replace(booked(SLOT)[SLOT], state=b"t" * 32)}, HEAD)
    assert only(files) == aside
    files.settle(booked(SLOT), Head(8, b"i" * 32))
    assert only(files) == aside.with_suffix("")
    assert files.read(SLOT, STATE) == DATA


def test_one_is_put_aside_for_a_round_and_goes_with_it(files: ReleaseFiles) -> None:
    put_aside(files, b"older")
    aside = put_aside(files)
    # The round's own bytes are there: those put aside are of no use.
    files.write(SLOT, STATE, HEAD, DATA)
    files.settle(booked(SLOT), HEAD)
    assert not aside.exists()
    # Others' bytes are there: those put aside are the right ones.
    files.forget(SLOT[0], 4)
    put_aside(files)
    files.write(SLOT, STATE, HEAD, b"others")
    files.settle(booked(SLOT), HEAD)
    assert files.read(SLOT, STATE) == DATA
    # A damaged one is left where it is, and goes with its round.
    files.forget(SLOT[0], 4)
    aside = put_aside(files)
    aside.write_bytes(aside.read_bytes()[:-1])
    files.settle(booked(SLOT), HEAD)
    files.forget(study("B"), 9)
    files.forget(SLOT[0], 3)
    assert only(files) == aside
    files.forget(SLOT[0], 4)
    assert not aside.exists()


def test_what_cannot_be_put_aside_is_said(
    files: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    files.write(SLOT, STATE, HEAD, DATA)
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(LedgerError, match=r"cannot rename .* Permission denied"):
        files.settle({}, HEAD)
    assert files.read(SLOT, STATE) == DATA


def test_what_no_crash_can_leave_is_an_older_ledgers_sign(files: ReleaseFiles) -> None:
    """An unbooked file that was to come behind an entry which the ledger does not end with."""
    files.write(SLOT, STATE, HEAD, DATA)
    for head in (Head(6, HEAD.hash), Head(8, HEAD.hash), Head(7, b"g" * 32), START):
        with pytest.raises(LedgerError, match="an older copy of the ledger was restored"):
            files.settle({}, head)
    only(files).write_bytes(b"no release")
    with pytest.raises(LedgerError, match="or damaged"):
        files.settle({}, HEAD)
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
