"""Files that are whole or not there: the order of sync and rename is what makes them so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fedbcs_secure.files import lock, sync_folder, write_durably


def test_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_content_first_then_the_name_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file was synced")
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    events: list[tuple[str, str, bytes]] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        events.append(("sync", name, path.read_bytes()))
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert Path(source).read_bytes() == b"new"
        events.append(("rename", Path(source).name, path.read_bytes()))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_durably(path, b"new")
    assert events == [
        ("sync", "a.txt.tmp", b"old"),
        ("rename", "a.txt.tmp", b"old"),
        ("sync", tmp_path.name, b"new"),
    ]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_durably(path, b"old")

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fails)
        with pytest.raises(OSError, match="Input/output"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"


def test_parts_follow_each_other_and_the_mode_is_kept(tmp_path: Path) -> None:
    write_durably(tmp_path / "a.txt", b"one", b"", b"two", mode=0o600)
    assert (tmp_path / "a.txt").read_bytes() == b"onetwo"
    if os.name != "nt":
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="no such lock there")
def test_one_lock_at_a_time_until_it_is_closed(tmp_path: Path) -> None:
    first = lock(tmp_path / "a.txt")
    assert first is not None
    with pytest.raises(BlockingIOError):
        lock(tmp_path / "a.txt")
    other = lock(tmp_path / "b.txt")
    assert other is not None
    other.close()
    first.close()
    again = lock(tmp_path / "a.txt")
    assert again is not None
    again.close()
    with pytest.raises(FileNotFoundError):
        lock(tmp_path / "absent" / "a.txt")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "absent" / "a.txt", b"x")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "absent")


def test_folders_leave_no_descriptor_open(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to count descriptors")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        write_durably(tmp_path / "a.txt", b"x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
