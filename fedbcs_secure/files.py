"""Files that are whole or not there, on the disk when a function returns, and for one process.

Failures are the system's own ``OSError``; each layer says in its own words what they mean.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

_BINARY = getattr(os, "O_BINARY", 0)


def write_durably(path: Path, *parts: bytes, mode: int = 0o666) -> None:
    """Replace ``path`` by ``parts``: temporary file, sync, rename, sync of the folder.

    ``mode`` is what a new file may be used for, before the process's mask.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode)
    with os.fdopen(descriptor, "wb") as stream:
        for part in parts:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())
    # By the system's name, where tests cut the power.
    os.replace(temporary, path)  # noqa: PTH105
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in ``folder`` are on the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> TextIO | None:
    """A lock on ``path`` that lasts until what is returned is closed, or the process ends.

    It is on a file of its own beside ``path``, which may be replaced. Raises
    :class:`BlockingIOError` when another has it. None on Windows, which has no such lock.
    """
    try:
        import fcntl
    except ImportError:
        return None
    stream = path.with_name(path.name + ".lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        stream.close()
        raise
    return stream
