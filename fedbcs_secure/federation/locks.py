"""Files that one process at a time may use, until it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.files import lock

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
        held = lock(key)
    except BlockingIOError:
        raise RunFolderError(f"another process of this site uses {path}; {why}") from None
    except OSError as error:
        raise RunFolderError(f"cannot lock {what} {path}: {error.strerror}") from None
    if held is not None:
        _HELD[key] = held
