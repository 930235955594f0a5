"""Files that one process at a time may use, until it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from fedbcs_secure.errors import RunFolderError

_HELD: dict[Path, TextIO] = {}
"""Locks of this process; the system frees them when it ends, however it ends."""


def hold(path: Path, what: str, why: str) -> None:
    """Keep other processes from ``path`` until this one ends.

    Raises :class:`RunFolderError` when one has it; ``what`` and ``why`` go into its text. Windows
    has no such lock and is not guarded.
    """
    key = path.resolve()
    if key in _HELD:
        return
    try:
        import fcntl
    except ImportError:
        return
    try:
        stream = key.with_suffix(key.suffix + ".lock").open("w")
    except OSError as error:
        raise RunFolderError(f"cannot use {what} {path}: {error.strerror}") from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise RunFolderError(f"another process of this site uses {path}; {why}") from None
    except OSError as error:
        stream.close()
        raise RunFolderError(f"cannot lock {what} {path}: {error.strerror}") from None
    _HELD[key] = stream
