"""This repository's sites for the malicious combiner: the adapter to copy for another stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hostile_combiner import Refusal, Vector

from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import Guard, Marks, Setting, SiteSession

T = TypeVar("T")


class DiskMarks:
    """Marks that exist as bytes only, on a disk that several processes may see."""

    def __init__(self, disk: dict[str, bytes]) -> None:
        self.disk = disk

    def read(self) -> Marks | None:
        data = self.disk.get("marks")
        return None if data is None else Marks.decode(data)

    def write(self, marks: Marks) -> None:
        self.disk["marks"] = marks.encode()


class OurSite:
    """A :class:`SiteSession` as a :class:`SiteUnderTest`, for as long as its process runs."""

    def __init__(self, session: SiteSession) -> None:
        self.session = session
        self.ended = False

    def advertise(self) -> bytes:
        return self._ask(self.session.advertise)

    def share(self, frame: bytes) -> bytes:
        return self._ask(lambda: self.session.share(frame))

    def masked_input(self, frame: bytes, vector: Vector) -> bytes:
        return self._ask(lambda: self.session.masked_input(frame, vector))

    def consistency(self, frame: bytes) -> bytes:
        return self._ask(lambda: self.session.consistency(frame))

    def unmask(self, frame: bytes) -> bytes:
        return self._ask(lambda: self.session.unmask(frame))

    def holds_secrets(self) -> bool:
        return self._ask(lambda: self.session._ephemeral is not None or bool(self.session._held))

    def _ask(self, call: Callable[[], T]) -> T:
        # No refusal: a script that asks a process that has ended is wrong.
        if self.ended:
            raise RuntimeError("the process of this session has ended")
        return _mapped(call)


class OurHost:
    """Identity, guard and marks of one site."""

    def __init__(self, identity: Identity, name: str, guard: Guard) -> None:
        self.identity, self.name, self.guard = identity, name, guard
        self.marks = DiskMarks({})
        self._running: list[OurSite] = []

    def open(self, setting: Setting) -> OurSite:
        site = OurSite(
            _mapped(
                lambda: SiteSession(
                    setting,
                    identity=self.identity,
                    name=self.name,
                    guard=self.guard,
                    marks=self.marks,
                )
            )
        )
        self._running.append(site)
        return site

    def restart(self) -> None:
        for site in self._running:
            site.ended = True
        self._running = []
        self.marks = DiskMarks(self.marks.disk)


def _mapped(call: Callable[[], T]) -> T:
    try:
        return call()
    except ProtocolError as error:
        sender, field = getattr(error, "sender", ""), getattr(error, "field", "")
        raise Refusal(type(error).__name__, sender, field) from error
