"""How frames travel. Protocol and rounds know this interface and nothing of what is behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol


class Channel(Protocol):
    """The combiner's lines to its sites. Everything on them is public to whoever runs them."""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Send each named site its frame and yield (site, reply) as replies come.

        A site that refuses, or does not answer in time, is left out: that is what dropping out is.
        Replies are taken one at a time, so the combiner never holds two big ones.
        """
        ...


class CountingChannel:
    """A channel that also counts the bytes of the site that sent, and was sent, the most."""

    def __init__(self, inner: Channel) -> None:
        self._inner = inner
        self._up: dict[str, int] = {}
        self._down: dict[str, int] = {}

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for site, reply in self._inner.exchange(requests):
            self._down[site] = self._down.get(site, 0) + len(requests[site])
            self._up[site] = self._up.get(site, 0) + len(reply)
            yield site, reply

    def take(self) -> tuple[int, int]:
        """(bytes up, bytes down) of the site with the most, since the last call."""
        counts = max(self._up.values(), default=0), max(self._down.values(), default=0)
        self._up, self._down = {}, {}
        return counts
