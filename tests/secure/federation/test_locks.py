"""Files for one process at a time: the other is told, and an end of any kind frees them."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation import locks
from fedbcs_secure.federation.locks import hold

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")

HOLDER = """
import sys
from pathlib import Path
from fedbcs_secure.federation.locks import hold
hold(Path(sys.argv[1]), "keys", "why")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other
        other.kill()


def test_one_process_may_hold_a_file_again_and_by_another_name(tmp_path: Path) -> None:
    hold(tmp_path / "ring", "keys", "why")
    hold(tmp_path / "ring", "keys", "why")
    (tmp_path / "link").symlink_to(tmp_path)
    hold(tmp_path / "link" / "ring", "keys", "why")
    assert [path.name for path in tmp_path.glob("*.lock")] == ["ring.lock"]
    assert not (tmp_path / "ring").exists()


def test_files_with_one_stem_have_locks_of_their_own(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "a.ring"):
        hold(tmp_path / "a.marks", "marks", "why")
        hold(tmp_path / "b.ring", "keys", "why")


def test_another_process_is_told_what_and_why(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with held_elsewhere(path):
        for _ in range(2):
            with pytest.raises(RunFolderError, match=f"another process .* uses {path}; two could"):
                hold(path, "keys", "two could decrypt")
        # By whatever name.
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(RunFolderError, match="another process"):
            hold(tmp_path / "link" / "ring", "keys", "two could decrypt")
    hold(path, "keys", "two could decrypt")


def test_the_lock_outlives_the_file(tmp_path: Path) -> None:
    """It is on a file of its own, since the one that it guards is replaced at every write."""
    path = tmp_path / "ring"
    path.write_bytes(b"one")
    with held_elsewhere(path):
        (tmp_path / "new").write_bytes(b"two")
        (tmp_path / "new").replace(path)
        with pytest.raises(RunFolderError, match="another process"):
            hold(path, "keys", "why")


def test_a_folder_where_no_lock_can_be(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot lock keys .*No such file"):
        hold(tmp_path / "absent" / "ring", "keys", "why")
    (tmp_path / "ring.lock").mkdir()
    with pytest.raises(RunFolderError, match="cannot lock keys"):
        hold(tmp_path / "ring", "keys", "why")


def test_a_file_system_without_locks_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", none)
        with pytest.raises(RunFolderError, match=r"cannot lock keys .*No locks available"):
            hold(tmp_path / "ring", "keys", "why")
    assert (tmp_path / "ring").resolve() not in locks._HELD
    hold(tmp_path / "ring", "keys", "why")
