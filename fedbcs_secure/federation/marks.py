"""A site's marks in one study, in a file that is synced before anything follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import Marks
from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.locks import hold
from fedbcs_secure.files import write_durably

_LONGEST_BYTES = 1 << 14


@dataclass(frozen=True)
class FileMarks:
    """A :class:`fedbcs_protocols.secagg.MarkKeeper`; one file a study, for one process at a time.

    A file that was restored from a backup forgets what came after: keep it where backups are not
    restored over it. A file that is damaged or that another process holds raises
    :class:`RunFolderError`: then a person decides, since going on could answer twice.
    """

    path: Path

    def read(self) -> Marks | None:
        _hold(self.path)
        try:
            with self.path.open("rb") as stream:
                data = stream.read(_LONGEST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(f"cannot read marks {self.path}: {error.strerror}") from None
        try:
            if len(data) > _LONGEST_BYTES:
                raise LocalError("these are no marks: too long")
            return Marks.decode(data)
        except LocalError as error:
            raise RunFolderError(
                f"{self.path}: {error}. This file says which rounds the site has answered; without "
                "it the site could be made to answer twice, so take no part until that is clear"
            ) from None

    def write(self, marks: Marks) -> None:
        _hold(self.path)
        try:
            write_durably(self.path, marks.encode())
        except OSError as error:
            raise RunFolderError(
                f"cannot write marks {self.path}: {error.strerror}; without them the site takes no "
                "part"
            ) from None


def _hold(path: Path) -> None:
    """SA-8.1"""
    hold(path, "marks", "two could answer for one state")
