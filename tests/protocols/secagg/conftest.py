"""Sums to look into: without sessions, before one site's answer, or at the combiner."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from protected_sum import STAGES, Cast, answer, make_cast, run_sum

from fedbcs_protocols.errors import ProtocolError, UnexpectedFrame
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import CombinerSession, Guard, Journal
from fedbcs_protocols.secagg.ephemeral import Ephemeral, commitment
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.messages import Advertise
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.secagg.states import SiteState
from fedbcs_protocols.wire import MAX_BODY_BYTES, Frame, Kind, decode, seal

Draws = Mapping[int, frozenset[int]]
ANYTHING = dict.fromkeys(Kind, MAX_BODY_BYTES)


@dataclass(frozen=True)
class Backstage:
    """What goes on behind a sum: all sites' secrets and the table of their keys."""

    setting: Setting
    ephemerals: Mapping[int, Ephemeral]
    table: KeyTable


def fixed_ephemeral(label: str) -> Ephemeral:
    """Secrets that anybody can compute, so that statistics come out the same each time."""
    mask, share, seed = (
        hashlib.sha256(f"{what} of {label}".encode()).digest() for what in ("mask", "share", "seed")
    )
    private = X25519PrivateKey.from_private_bytes
    return Ephemeral(private(mask), private(share), seed)


def open_backstage(
    cast: Cast,
    *,
    draws: Draws | None = None,
    local_threshold: int = 2,
    absent: frozenset[int] = frozenset(),
    label: str = "",
) -> Backstage:
    """All sites but ``absent``; with ``draws``, in the sparse graph that follows from them."""
    setting = cast.setting
    present = [place for place in range(cast.terms.sites) if place not in absent]
    secrets = {place: fixed_ephemeral(f"{label}{place}") for place in present}
    adverts = {
        place: Advertise(
            public_bytes(secret.mask_key),
            public_bytes(secret.share_key),
            commitment(secret.seed, setting.binding, setting.names[place]),
            draws[place] if draws else frozenset(),
        )
        for place, secret in secrets.items()
    }
    graph = cast.terms.graph
    if draws:
        graph = Neighbourhood(len(draws[0]), local_threshold, complete=False)
    return Backstage(setting, secrets, KeyTable(adverts, graph, bytes(32)))


class SitePlay:
    """A sum of five up to the moment at which site1 is to answer in ``stage``.

    ``drops`` maps a stage to the sites that vanish before they answer in it.
    """

    def __init__(
        self, stage: str, cast: Cast | None = None, *, guard: Guard | None = None, **drops: set[str]
    ) -> None:
        self.cast = cast or make_cast(5)
        self.stage = stage
        guard = guard or self.cast.guard
        self.sites = {name: self.cast.site(name, guard=guard) for name in self.cast.sites}
        self.vectors = self.cast.vectors()
        self.combiner: CombinerSession = run_sum(
            self.cast, self.vectors, drops, until=stage, sites=self.sites
        )
        self.site = self.sites["site1"]

    @property
    def request(self) -> bytes:
        return self.combiner.requests["site1"]

    @property
    def opened(self) -> Frame:
        return decode(self.request, ANYTHING)

    def forged(self, signer: Identity | None = None, **changes: Any) -> bytes:
        """The combiner's request for site1 with changes, under its genuine signature."""
        return seal(replace(self.opened, **changes), signer or self.cast.combiner)

    def answer(self, request: bytes | None = None, stage: str | None = None) -> bytes:
        given = self.request if request is None else request
        return answer(self.site, stage or self.stage, given, self.vectors["site1"])

    def refuses(self, request: bytes, error: type[ProtocolError], match: str = ".") -> str | None:
        """The site leaves the attempt over ``request``, with its secrets dropped.

        Returns whom it blames.
        """
        with pytest.raises(error, match=match) as caught:
            self.answer(request)
        assert type(caught.value) is error
        assert self.site.state is SiteState.LEFT
        assert self.site._ephemeral is None
        assert self.site._held == {}
        with pytest.raises(UnexpectedFrame, match="in state LEFT"):
            self.answer()
        return getattr(caught.value, "sender", None)


class CombinerPlay:
    """A sum of five that can be stopped anywhere, and every frame that was sent in it."""

    def __init__(self, cast: Cast | None = None, journal: Journal | None = None) -> None:
        self.cast = cast or make_cast(5)
        self.combiner = self.cast.combine(journal)
        self.sites = self.cast.all_sites()
        self.vectors = self.cast.vectors()
        self.frames: dict[tuple[str, str], bytes] = {}

    def frame(self, stage: str, name: str) -> bytes:
        if (stage, name) not in self.frames:
            request = self.combiner.requests.get(name, b"")
            made = answer(self.sites[name], stage, request, self.vectors[name])
            self.frames[stage, name] = made
        return self.frames[stage, name]

    def stage(self, stage: str, *absent: str) -> None:
        """All expected sites but ``absent`` answer; the stage stays open."""
        for name in self.combiner.expected:
            if name not in absent:
                self.combiner.receive(self.frame(stage, name))

    def until(self, stage: str) -> CombinerPlay:
        for earlier in STAGES[: STAGES.index(stage)]:
            self.stage(earlier)
            self.combiner.close()
        return self

    def to_the_end(self) -> CombinerPlay:
        self.until(STAGES[-1]).stage(STAGES[-1])
        self.combiner.close()
        return self

    def resealed(self, frame: bytes, *, signer: Identity | None = None, **changes: Any) -> bytes:
        """A site's frame with changes, under its own signature unless ``signer`` is given."""
        opened = decode(frame, ANYTHING)
        return seal(replace(opened, **changes), signer or self.cast.sites[opened.sender])

    def look(self) -> tuple[Any, ...]:
        """All that a refused frame must leave as it is."""
        return (
            self.combiner.state,
            self.combiner.expected,
            self.combiner.survivors,
            dict(self.combiner.requests),
            self.combiner._accumulator.added,
            self.combiner._accumulator.total().tolist(),
        )


@pytest.fixture(scope="session")
def backstage() -> Callable[..., Backstage]:
    return open_backstage


@pytest.fixture(scope="session")
def fixed_secrets() -> Callable[[str], Ephemeral]:
    return fixed_ephemeral


@pytest.fixture(scope="session")
def site_play() -> type[SitePlay]:
    return SitePlay


@pytest.fixture(scope="session")
def combiner_play() -> type[CombinerPlay]:
    return CombinerPlay
