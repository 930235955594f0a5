"""Ledgers for tests, and ledgers in processes that kill themselves at a chosen moment.

    python ledger_support.py

reads lines of JSON, ``{"folder": ..., "at": number or null, "limit": bytes or null}``, and answers
each with the exit code of a process of its own that went through ``SCRIPT`` with the ledger in that
folder: -9 killed at moment ``at``, -25 killed by the system in the middle of a write that would
have made a file longer than ``limit``, 0 finished. ``sent`` has a line for each release that was
handed out, ``drawn`` one for each that was made, ``moments`` the moments of a run to the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedbcs_protocols.errors import Refused
from fedbcs_protocols.identity import Identity
from fedbcs_secure.privacy import store as module
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.ledger import Claim, Ledger
from fedbcs_secure.privacy.policy import SitePolicy

IDENTITY = Identity.from_secret_bytes(bytes(range(32)))
OTHER = Identity.from_secret_bytes(bytes(range(1, 33)))
STORAGE_KEY = bytes(range(100, 132))
STATE = b"s" * 32
PEOPLE = frozenset(f"patient {number}" for number in range(100))


def study(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def cheap(events: Events, delta: float) -> float:
    """Zero-concentrated privacy, q² and all: quick, increasing, and like an accountant's curve."""
    if not events.private:
        return math.inf
    rho = sum(n * (e.sampling_rate / e.noise_multiplier) ** 2 / 2 for e, n in events.parts)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def claim(
    name: str = "A",
    number: int = 0,
    patients: frozenset[str] = PEOPLE,
    sigma: float = 10.0,
    **changes: Any,
) -> Claim:
    values: dict[str, Any] = {
        "study": study(name),
        "round": number,
        "state": STATE,
        "unit": "patient",
        "events": Gaussian(sigma).times(1),
        "patients": patients,
    }
    return Claim(**{**values, **changes})


def open_ledger(folder: Path, policy: SitePolicy | None = None, **changes: Any) -> Ledger:
    values: dict[str, Any] = {
        "head": folder / "apart" / "head",
        "identity": IDENTITY,
        "storage_key": STORAGE_KEY,
        "policy": policy or SitePolicy(),
        "cost": cheap,
        "clock": lambda: "noon",
    }
    return Ledger.open(folder / "ledger.sqlite", **{**values, **changes})


def rows_of(folder: Path) -> list[tuple[int, bytes, bytes, bytes]]:
    """The rows of a closed ledger."""
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        found = connection.execute("SELECT * FROM entries ORDER BY sequence").fetchall()
    connection.close()
    return found


def fields_of(content: bytes) -> list[Any]:
    """A reader of an entry's content of its own: tag, length, value."""
    found: list[Any] = []
    while content:
        size = int.from_bytes(content[1:5], "big")
        value: Any = content[5 : 5 + size]
        if content[:1] == b"s":
            value = value.decode()
        elif content[:1] == b"i":
            value = int.from_bytes(value, "big")
        found.append(value)
        content = content[5 + size :]
    return found


@dataclass
class Moments:
    """Counts the moments at which a crash would make a difference; dies at number ``at``."""

    at: int | None = None
    names: list[str] = field(default_factory=list)

    def pass_by(self, name: str) -> None:
        self.names.append(name)
        if self.at == len(self.names) - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **more: Any) -> Any:
            self.pass_by(f"before {name}")
            result = function(*arguments, **more)
            self.pass_by(f"after {name}")
            return result

        return watched


MOMENTS = Moments()


class Watched(sqlite3.Connection):
    """A connection whose process dies before and after what changes the file."""

    def execute(self, sql: str, /, *arguments: Any) -> sqlite3.Cursor:
        run = super().execute
        if sql == "PRAGMA synchronous = FULL":
            sql = "PRAGMA synchronous = OFF"  # as for os.fsync below
        if sql.startswith(("BEGIN", "CREATE", "INSERT", "COMMIT", "PRAGMA journal_mode")):
            name = " ".join(sql.split()[:2])
            MOMENTS.pass_by(f"before {name}")
            cursor = run(sql, *arguments)
            MOMENTS.pass_by(f"after {name}")
            return cursor
        return run(sql, *arguments)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, factory=Watched)


SMALL = SitePolicy(epsilon=3.0)
SCRIPT = [
    claim("A", 0, sigma=10),
    claim("A", 1, sigma=10),
    claim("B", 0, frozenset({"patient 7"}), sigma=1),  # refused: epsilon 5.2
    claim("B", 1, sigma=20),
]
LONG_SCRIPT = [claim("A", number, sigma=40) for number in range(12)]
LONG_BYTES = 300_000
"""Longer than the -wal file when the last release of the long script is written."""


def play(folder: Path, at: int | None, limit: int | None) -> int:
    """The exit code."""
    MOMENTS.at, MOMENTS.names = at, []
    # What the system has is safe from a signal, so the disk need not be waited for.
    os.fsync = MOMENTS.around("sync", lambda descriptor: None)
    os.replace = MOMENTS.around("rename", os.replace)
    module.connect = _connect
    script = SCRIPT
    if limit is not None:
        script = LONG_SCRIPT
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with open_ledger(folder, SMALL) as ledger:
        for wanted in script:
            # Real noise: another draw would be other bytes.
            size = LONG_BYTES if wanted is LONG_SCRIPT[-1] else 100

            def make(size: int = size, wanted: Claim = wanted) -> bytes:
                _log(folder / "drawn", f"{wanted.study.hex()} {wanted.round}")
                MOMENTS.pass_by("drawn")
                return os.urandom(size)

            try:
                data = ledger.release(wanted, make)
            except Refused:
                MOMENTS.pass_by("refused")
                continue
            digest = hashlib.sha256(data).hexdigest()
            head = f"{ledger.head.sequence} {ledger.head.hash.hex()}"
            _log(folder / "sent", f"{wanted.study.hex()} {wanted.round} {digest} {head}")
            MOMENTS.pass_by("returned")
    MOMENTS.pass_by("closed")
    (folder / "moments").write_text("\n".join(MOMENTS.names))
    return 0


def _log(path: Path, line: str) -> None:
    with path.open("a") as stream:
        stream.write(line + "\n")


def serve() -> None:
    """A process for each line; each is waited for before the next."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = play(Path(order["folder"]), order["at"], order["limit"])
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
