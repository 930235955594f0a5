"""A file in memory, for libraries that read and write paths only."""

from __future__ import annotations

import os
import weakref

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.ring import Buffer


class ScratchFile:
    """One file under ``path``, in memory and of this process only; gone with this object.

    Raises :class:`LocalError` on a system without such files.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise LocalError("encrypted sums need files in memory, which Linux has: use secagg")
        self._descriptor = os.memfd_create("fedbcs-secure")
        self.path = f"/proc/self/fd/{self._descriptor}"
        weakref.finalize(self, os.close, self._descriptor)

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
