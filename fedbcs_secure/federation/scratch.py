"""A file for libraries that read and write paths only; in memory where the system has that."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

from fedbcs_protocols.ring import Buffer


class ScratchFile:
    """One file under ``path``, gone with this object. It is for bytes that are no secret."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("fedbcs-secure")
            self.path = f"/proc/self/fd/{self._descriptor}"
            weakref.finalize(self, os.close, self._descriptor)
        else:
            # Readable by this user only.
            self._descriptor, self.path = tempfile.mkstemp(prefix="fedbcs-secure-")
            weakref.finalize(self, _remove, self._descriptor, self.path)

    def write(self, data: Buffer) -> None:
        """Make ``data`` the whole content."""
        view, at = memoryview(data), 0
        while at < len(view):
            at += os.pwrite(self._descriptor, view[at:], at)
        # Not before: giving memory back only to ask for it again takes as long as the writing.
        if os.fstat(self._descriptor).st_size != len(view):
            os.ftruncate(self._descriptor, len(view))

    def read(self) -> bytes:
        """The whole content."""
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, size, 0)


def _remove(descriptor: int, path: str) -> None:
    os.close(descriptor)
    Path(path).unlink(missing_ok=True)
