"""Who may use an open ledger: one process, a thread at a time, nobody after a failed write."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fedbcs_secure.errors import LedgerError


class Guard:
    """Of one open ledger, by the process that opened it (DP-5.1, DP-5.5)."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self._process = os.getpid()
        self._broken = False

    @contextmanager
    def using(self) -> Iterator[None]:
        """While this lasts, no other thread has it. Raises :class:`LedgerError` if nobody may."""
        # A forked child would write behind a head that its parent has moved.
        if self._process != os.getpid():
            raise LedgerError(
                "the ledger belongs to the process that opened it; in a forked process open it "
                "anew, after the other has closed it"
            )
        with self.mutex:
            if self._broken:
                raise LedgerError(
                    "the ledger is closed, or could not be written to before; open it again"
                )
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What is on the disk after an error, only a new start can tell."""
        try:
            yield
        except BaseException:
            self._broken = True
            raise

    def end(self) -> None:
        """Nobody may use it any more."""
        self._broken = True
