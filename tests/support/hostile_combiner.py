"""A combiner that cheats, and the interface of the site that it cheats.

The script has the combiner's true signing key and the secrets of colluding sites. It plays a sum
stage after stage, keeps every frame, and can forge, delay, replay and mix whatever it sends.
``tests/protocols/hostile/README.md`` says how to run it against another implementation: give it a
:class:`Host` of your own; ``our_site.py`` has the one for this repository's sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
from colluder import ANY, Colluder, read_table
from numpy.typing import NDArray
from protected_sum import STAGES, Cast

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import Guard, Setting
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.messages import SEALED_SHARES_BYTES, Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.transcript import transcript
from fedbcs_protocols.sitesets import encode_set
from fedbcs_protocols.wire import Frame, Kind, decode, seal

Vector = NDArray[np.uint32]
T = TypeVar("T")


class Refusal(Exception):
    """What a site under test raises for a frame that it does not accept.

    ``kind`` is the name of the error as in ``fedbcs_protocols.errors``; ``sender`` is whom it
    blames; ``field`` is, for a *WrongBinding*, what differs.
    """

    def __init__(self, kind: str, sender: str = "", field: str = "") -> None:
        self.kind, self.sender, self.field = kind, sender, field
        super().__init__(f"{kind} {sender} {field}")


class SiteUnderTest(Protocol):
    """One site's session in one sum: the combiner's frame in, the site's frame out.

    A method raises :class:`Refusal` for a frame that the site does not accept.
    """

    def advertise(self) -> bytes: ...

    def share(self, frame: bytes, /) -> bytes: ...

    def masked_input(self, frame: bytes, vector: Vector, /) -> bytes: ...

    def consistency(self, frame: bytes, /) -> bytes: ...

    def unmask(self, frame: bytes, /) -> bytes: ...

    def holds_secrets(self) -> bool | None:
        """Whether a key, a seed or a share is left in the session.

        None if nobody can tell: the tests then leave out that assertion and make all others.
        """
        ...


class Host(Protocol):
    """A site's installation: its identity, its guard, and what it keeps on disk between sums.

    Whoever opens one keeps it for as long as its sessions are used, so it may end its process when
    it is dropped. Several may be open for one identity, each with a disk of its own, and several
    sessions in one host.
    """

    def open(self, setting: Setting) -> SiteUnderTest:
        """A new session. Raises :class:`Refusal` when the site's guard does not allow it."""
        ...

    def restart(self) -> None:
        """The process ends and starts again: only what is on disk is left.

        Its sessions have ended with it; none of them is called again, not even to be refused.
        """
        ...


OpenHost = Callable[[Identity, str, Guard], Host]


def ask(site: SiteUnderTest, stage: str, frame: bytes, vector: Vector) -> bytes:
    """The site's answer to ``frame`` in ``stage``."""
    if stage == "advertise":
        return site.advertise()
    if stage == "masked_input":
        return site.masked_input(frame, vector)
    method: Callable[[bytes], bytes] = getattr(site, stage)
    return method(frame)


def attempt(call: Callable[[], bytes]) -> bytes | Refusal:
    """What ``call`` gives, or the refusal that it meets."""
    try:
        return call()
    except Refusal as refusal:
        return refusal


class HostileCombiner:
    """The script: one sum of ``cast`` with honest sites of ``open_host`` and some colluding ones.

    ``came[stage][name]`` are the sites' frames. ``gone[stage]`` are those that do not answer from
    that stage on. ``instead[stage, name]`` makes another frame for that site than the honest one;
    without it the script is an honest combiner.
    """

    def __init__(
        self,
        cast: Cast,
        open_host: OpenHost,
        *,
        victim: str = "site0",
        colluders: Iterable[str] = (),
        hosts: dict[str, Host] | None = None,
    ) -> None:
        self.cast, self.setting, self.victim = cast, cast.setting, victim
        self.open_host = open_host
        self.colluders = {
            name: Colluder(self.setting, cast.sites[name], name) for name in colluders
        }
        # Installations outlive a sum, so a second script can go on with those of the first.
        self.hosts = hosts if hosts is not None else {}
        for name, identity in cast.sites.items():
            if name not in self.colluders and name not in self.hosts:
                self.hosts[name] = open_host(identity, name, cast.guard)
        self._spare: list[Host] = []
        self.vectors: Mapping[str, Vector] = cast.vectors()
        self.sites: dict[str, SiteUnderTest] = {}
        self.came: dict[str, dict[str, bytes]] = {stage: {} for stage in STAGES}
        self.gone: dict[str, set[str]] = {stage: set() for stage in STAGES}
        self.instead: dict[tuple[str, str], Callable[[HostileCombiner], bytes]] = {}

    # Playing -----------------------------------------------------------------------------------

    def play(self, until: str, *, start: str = "advertise") -> HostileCombiner:
        """Let every site go through the stages from ``start`` to before ``until``."""
        for stage in STAGES[STAGES.index(start) :]:
            if stage == until:
                break
            requests = {name: self.request(stage, name) for name in self.remaining(stage)}
            for name, request in requests.items():
                self.came[stage][name] = self.ask(name, stage, request)
        return self

    def remaining(self, stage: str) -> tuple[str, ...]:
        """Who is asked in ``stage``: who answered in the one before and is not gone."""
        if stage == "advertise":
            here: Iterable[str] = self.cast.sites
        else:
            here = self.came[STAGES[STAGES.index(stage) - 1]]
        return tuple(name for name in here if name not in self.gone[stage])

    def ask(self, name: str, stage: str, frame: bytes) -> bytes:
        """What ``name`` answers to ``frame``, honest or not."""
        return ask(self.site(name), stage, frame, self.vectors[name])

    def site(self, name: str) -> SiteUnderTest:
        """The session of ``name`` in this sum."""
        if name not in self.sites:
            if name in self.colluders:
                self.sites[name] = self.colluders[name]
            else:
                self.sites[name] = self.hosts[name].open(self.setting)
        return self.sites[name]

    def twin(self, name: str) -> SiteUnderTest:
        """A session of ``name`` in this sum in a second installation, with nothing on its disk."""
        host = self.open_host(self.cast.sites[name], name, self.cast.guard)
        # A host that is dropped may take its process along, and the session with it.
        self._spare.append(host)
        return host.open(self.setting)

    def request(self, stage: str, name: str) -> bytes:
        """The frame that ``name`` gets in ``stage``."""
        if (stage, name) in self.instead:
            return self.instead[stage, name](self)
        return self.honest(stage, name)

    def honest(self, stage: str, name: str) -> bytes:
        """The frame that an honest combiner would send."""
        match stage:
            case "advertise":
                return b""
            case "share":
                return self.key_list()
            case "masked_input":
                return self.delivery(name)
            case "consistency":
                return self.survivors()
            case _:
                return self.certificate()

    def elsewhere(self, until: str, **binding: Any) -> HostileCombiner:
        """The same parties in another sum, up to a stage, with nothing on their disks."""
        other = HostileCombiner(
            self.cast.changed(**binding), self.open_host, colluders=self.colluders
        )
        return other.play(until)

    # Frames: honest unless something is changed ------------------------------------------------

    def forge(self, kind: Kind, sequence: int, body: bytes, **changes: Any) -> bytes:
        """A frame under the combiner's key; ``changes`` of its fields, its binding, its signer."""
        signer = changes.pop("signer", self.cast.combiner)
        fields = {"kind": kind, "sender": COMBINER, "sequence": sequence, "body": body}
        binding = self.cast.binding
        for field in ("study_digest", "round", "attempt", "phase", "state_digest"):
            if field in changes:
                binding = replace(binding, **{field: changes.pop(field)})
        return seal(Frame(**{"binding": binding, **fields, **changes}), signer)

    def key_list(self, frames: Mapping[str, bytes | None] | None = None, **changes: Any) -> bytes:
        """The key list; ``frames`` replace those of the sites, None leaves one out."""
        came: Mapping[str, bytes | None] = {**self.came["advertise"], **(frames or {})}
        body = KeyList(tuple(came.get(name) for name in self.cast.sites)).encode()
        return self.forge(Kind.KEY_LIST, 0, body, **changes)

    def delivery(
        self,
        to: str,
        sharers: Iterable[str] | None = None,
        sealed: Mapping[str, bytes] | None = None,
        **changes: Any,
    ) -> bytes:
        """The delivery for ``to``; ``sealed`` replaces ciphertexts by their sender."""
        names = tuple(self.came["share"] if sharers is None else sharers)
        owners = self.table(to).owners(self.place(to)) & self.places(names)
        pieces = []
        for place in sorted(owners - {self.place(to)}):
            owner = self.setting.names[place]
            pieces.append((sealed or {}).get(owner) or self.sealed(owner, to))
        body = Delivery(self.places(names), tuple(pieces)).encode(self.setting.terms.sites)
        return self.forge(Kind.DELIVERY, 1, body, **changes)

    def survivors(self, names: Iterable[str] | None = None, **changes: Any) -> bytes:
        """Who is said to be in the sum."""
        stayed = self.came["masked_input"] if names is None else names
        body = encode_set(self.places(stayed), self.setting.terms.sites)
        return self.forge(Kind.SURVIVORS, 2, body, **changes)

    def certificate(
        self,
        *,
        key_list: bytes | None = None,
        key_id: bytes | None = None,
        sharers: Iterable[str] | None = None,
        survivors: Iterable[str] | None = None,
        signatures: Mapping[str, bytes] | None = None,
        **changes: Any,
    ) -> bytes:
        """The certificate of all who signed; ``signatures`` replaces them, by signer."""
        signed = self.signatures() if signatures is None else signatures
        body = Certificate(
            self.table(self.victim).digest if key_list is None else key_list,
            self.setting.key_id if key_id is None else key_id,
            self.places(self.came["share"] if sharers is None else sharers),
            self.places(self.came["masked_input"] if survivors is None else survivors),
            {self.place(name): signature for name, signature in signed.items()},
        ).encode(self.setting.terms.sites)
        return self.forge(Kind.CERTIFICATE, 3, body, **changes)

    # What the script knows ---------------------------------------------------------------------

    def place(self, name: str) -> int:
        return self.setting.places[name]

    def places(self, names: Iterable[str]) -> frozenset[int]:
        return frozenset(self.setting.places[name] for name in names)

    def table(self, name: str) -> KeyTable:
        """What the key list says that was shown to ``name``."""
        return read_table(self.request("share", name), self.setting)

    def body(self, stage: str, name: str) -> bytes:
        """The body of the frame that ``name`` sent in ``stage``."""
        return bytes(decode(self.came[stage][name], ANY).body)

    def sealed(self, owner: str, to: str) -> bytes:
        """The ciphertext of ``owner``'s shares for ``to``."""
        recipients = self.table(owner).recipients(self.place(owner))
        at = recipients.index(self.place(to)) * SEALED_SHARES_BYTES
        return self.body("share", owner)[at : at + SEALED_SHARES_BYTES]

    def signatures(self) -> dict[str, bytes]:
        """The signatures on transcripts that came, by signer."""
        return {
            name: decode(frame, ANY).signature for name, frame in self.came["consistency"].items()
        }

    def transcript(self, survivors: Iterable[str], sharers: Iterable[str] | None = None) -> bytes:
        """The digest that a site signs for this list of survivors."""
        sharing = self.places(self.came["share"] if sharers is None else sharers)
        digest = self.table(self.victim).digest
        return transcript(self.setting, digest, sharing, self.places(survivors))
