"""Sites that vanish on purpose, at a stage of a round: for tests and demonstrations."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from fedbcs_protocols.wire import MAX_BODY_BYTES, Kind, decode
from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.channel import Channel

STAGES = ("ready", "keys", "advertise", "share", "masked_input", "consistency", "unmask", "sum")
"""What a site does in a round, in order; it can vanish before any of these."""

_ASKS_FOR = {
    Kind.START: "ready",
    Kind.HELP: "ready",
    Kind.PRESENT: "keys",
    Kind.DEALT: "keys",
    Kind.JOIN: "keys",
    Kind.ADMITTED: "keys",
    Kind.CHECKPOINT: "keys",
    Kind.RESTORE: "keys",
    Kind.OPEN: "advertise",
    Kind.KEY_LIST: "share",
    Kind.DELIVERY: "masked_input",
    Kind.SURVIVORS: "consistency",
    Kind.AGGREGATE: "consistency",
    Kind.CERTIFICATE: "unmask",
    Kind.PLAIN_PROTOTYPES: "unmask",
    Kind.SUM: "sum",
}
_FORM = re.compile(r"(?P<site>[^@]+)@(?P<stage>[a-z_]+):(?P<round>[1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Drop:
    """``site`` does not answer from ``stage`` on until round ``round`` (from 0) is over."""

    site: str
    stage: str
    round: int


def parse_drop(text: str) -> Drop:
    """``A@masked_input:2``: site A vanishes in the second round. Raises :class:`StudyError`."""
    found = _FORM.fullmatch(text)
    if found is None or found["stage"] not in STAGES:
        raise StudyError(
            f"drop {text!r} is not SITE@STAGE:ROUND, such as A@masked_input:2; rounds count from "
            f"1, stages are {', '.join(STAGES)}"
        )
    return Drop(found["site"], found["stage"], int(found["round"]) - 1)


def check_drops(drops: Collection[Drop], sites: Collection[str], rounds: int) -> None:
    """Raise :class:`StudyError` for a site or round that the study does not have, or a repeat."""
    seen = set()
    for drop in drops:
        if drop.site not in sites:
            raise StudyError(f"there is no site {drop.site} to drop; sites are {', '.join(sites)}")
        if drop.round >= rounds:
            raise StudyError(f"no drop in round {drop.round + 1}: the study has {rounds} rounds")
        if (drop.site, drop.round) in seen:
            raise StudyError(f"site {drop.site} is dropped twice in round {drop.round + 1}")
        seen.add((drop.site, drop.round))


class DroppingChannel:
    """A channel for one round on which some sites vanish.

    Without masks a site sends its vector ``at_once``, so whoever vanishes before *masked input* has
    not sent it there either: all protections lose the same sites.
    """

    def __init__(
        self, inner: Channel, drops: Collection[Drop], round: int, *, at_once: bool
    ) -> None:
        self._inner = inner
        self._round = round
        self._at_once = at_once
        self._from = {drop.site: STAGES.index(drop.stage) for drop in drops if drop.round == round}

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        return self._inner.exchange(
            {site: frame for site, frame in requests.items() if not self._gone(site, frame)}
        )

    def _gone(self, site: str, frame: bytes) -> bool:
        if site not in self._from:
            return False
        head = decode(frame, dict.fromkeys(Kind, MAX_BODY_BYTES))
        if head.binding.round != self._round:  # a sum that it missed in an earlier round
            return False
        stage = _ASKS_FOR[head.kind]
        if self._at_once and head.kind is Kind.OPEN:
            stage = "masked_input"
        return STAGES.index(stage) >= self._from[site]
