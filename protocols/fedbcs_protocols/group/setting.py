"""What all parties agree on about a group's keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import BadKeyList, LocalError
from fedbcs_protocols.framelist import decode_frames
from fedbcs_protocols.group.messages import Dealt, Ready, present_limit, ready_limit
from fedbcs_protocols.group.standing import Standing, Task, check_distinct, task_of
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import Kind, expect_sequence, open_frame

GROUP_PHASE = 2
"""The phase of the frames of the key stage."""
MAX_ANNEX_BYTES = 256
"""A list of *ready* frames is bounded for any study."""


@dataclass(frozen=True, eq=False)
class Group:
    """The sites of a study by name, in the order that all share, and who speaks for the combiner.

    ``threshold`` sites must be there before a key is dealt; a key serves ``rekey_every`` rounds.
    ``annex_bytes``: how much of the study's own stands in *ready* behind a standing (GK-2.7).
    """

    roster: Mapping[str, PublicIdentity]
    combiner: PublicIdentity
    threshold: int
    rekey_every: int
    annex_bytes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.roster) or self.rekey_every < 1:
            raise LocalError("a threshold within the roster, and a key for 1 round or more")
        if not 0 <= self.annex_bytes <= MAX_ANNEX_BYTES:
            raise LocalError(f"an annex has at most {MAX_ANNEX_BYTES} bytes")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sites' names by place."""
        return tuple(self.roster)

    @property
    def sites(self) -> int:
        """Sites in the roster."""
        return len(self.roster)

    @property
    def ready_bytes(self) -> int:
        """The exact length of the body of *ready*."""
        return Ready.length(self.sites, self.annex_bytes)

    @property
    def present_limit(self) -> int:
        """The longest list of *ready* frames."""
        return present_limit(self.sites, self.annex_bytes)

    @property
    def dealt_limit(self) -> int:
        """The longest body of *dealt*."""
        return Dealt.limit(self.sites, self.annex_bytes)

    def open_ready(self, data: Buffer, control: Binding, *, place: int) -> Ready:
        """The standing and the annex in a site's *ready* frame. Raises a :class:`PeerError`."""
        name = self.names[place]
        # GK-3.1: each word comes in its site's own signed frame, for this very round.
        frame = open_frame(
            data,
            roster={name: self.roster[name]},
            expect=control,
            limits={Kind.READY: self.ready_bytes},
        )
        expect_sequence(frame, 0)
        return Ready.decode(
            frame.body,
            sender=name,
            sites=self.sites,
            round=control.round,
            annex_bytes=self.annex_bytes,
        )

    def present_frames(self, body: Buffer) -> tuple[bytes | None, ...]:
        """The frames in the combiner's list, unopened. Raises :class:`MalformedFrame`."""
        return decode_frames(
            body,
            sender=COMBINER,
            sites=self.sites,
            longest=ready_limit(self.sites, self.annex_bytes),
            what="list of ready sites",
        )

    def read_present(self, body: Buffer, control: Binding) -> Mapping[int, Ready]:
        """What the sites in the combiner's list say, by place. Raises a :class:`PeerError`."""
        said = {
            place: self.open_ready(frame, control, place=place)
            for place, frame in enumerate(self.present_frames(body))
            if frame is not None
        }
        # GK-3.2
        if len(said) < self.threshold:
            raise BadKeyList(
                COMBINER, f"{len(said)} sites are ready, the threshold is {self.threshold}"
            )
        check_distinct({self.names[place]: ready.standing for place, ready in said.items()})
        return said

    def task(self, standings: Mapping[int, Standing], round: int) -> Task | None:
        """What has to be done before a sum (GK-2.4)."""
        return task_of(standings, round, self.rekey_every)
