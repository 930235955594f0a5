"""What all parties agree on about a group's keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import BadKeyList, LocalError
from fedbcs_protocols.framelist import decode_frames
from fedbcs_protocols.group.messages import ready_limit
from fedbcs_protocols.group.standing import Standing, Task, check_distinct, task_of
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import Kind, expect_sequence, open_frame

GROUP_PHASE = 2
"""The phase of the frames of the key stage."""


@dataclass(frozen=True, eq=False)
class Group:
    """The sites of a study by name, in the order that all share, and who speaks for the combiner.

    ``threshold`` sites must be there before a key is dealt; a key serves ``rekey_every`` rounds.
    """

    roster: Mapping[str, PublicIdentity]
    combiner: PublicIdentity
    threshold: int
    rekey_every: int

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.roster) or self.rekey_every < 1:
            raise LocalError("a threshold within the roster, and a key for 1 round or more")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sites' names by place."""
        return tuple(self.roster)

    @property
    def sites(self) -> int:
        """Sites in the roster."""
        return len(self.roster)

    def open_ready(self, data: Buffer, control: Binding, *, place: int) -> Standing:
        """The standing in a site's *ready* frame. Raises a :class:`PeerError`."""
        name = self.names[place]
        # GK-3.1: each word comes in its site's own signed frame, for this very round.
        frame = open_frame(
            data,
            roster={name: self.roster[name]},
            expect=control,
            limits={Kind.READY: Standing.length(self.sites)},
        )
        expect_sequence(frame, 0)
        return Standing.decode(frame.body, sender=name, sites=self.sites, round=control.round)

    def read_present(self, body: Buffer, control: Binding) -> Mapping[int, Standing]:
        """The standings in the combiner's list, by place. Raises a :class:`PeerError`."""
        frames = decode_frames(
            body,
            sender=COMBINER,
            sites=self.sites,
            longest=ready_limit(self.sites),
            what="list of ready sites",
        )
        standings = {
            place: self.open_ready(frame, control, place=place)
            for place, frame in enumerate(frames)
            if frame is not None
        }
        # GK-3.2
        if len(standings) < self.threshold:
            raise BadKeyList(
                COMBINER, f"{len(standings)} sites are ready, the threshold is {self.threshold}"
            )
        check_distinct({self.names[place]: s for place, s in standings.items()})
        return standings

    def task(self, standings: Mapping[int, Standing], round: int) -> Task | None:
        """What has to be done before a sum (GK-2.4)."""
        return task_of(standings, round, self.rekey_every)
