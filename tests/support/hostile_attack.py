"""Attacks on one site in one sum: a frame each, and the refusal that it must meet.

Each attack is tried on a fresh sum of six sites, of which four must stay and one, *site5*, works
for the combiner. *site0* is the victim. ``forge`` makes the frame when all sites have gone as far
as ``at``; it is given to the victim in place of the honest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from colluder import ANY
from hostile_combiner import HostileCombiner

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.wire import Kind, decode, seal

VICTIM, COLLUDER = "site0", "site5"
UNREAD = "unread frame"
"""Whom a site blames for bytes that are no frame."""

Forge = Callable[[HostileCombiner], bytes]
Prepare = Callable[[HostileCombiner], None]


class Fate(Enum):
    """What becomes of the victim's session."""

    LEAVES = "leaves, secrets dropped"
    STAYS = "stays, as if nothing had come"


@dataclass(frozen=True)
class Attack:
    """One frame, what it tries, and the clause, error and blame that it must meet.

    ``call`` is the stage whose method gets the frame, that of ``at`` if empty; ``field`` is what a
    *WrongBinding* must name. ``prepare`` sets the scene; ``poison`` does so too, but belongs to the
    attack: without it the honest frame is accepted.
    """

    name: str
    clause: str
    at: str
    forge: Forge
    refusal: str
    sender: str = COMBINER
    fate: Fate = Fate.LEAVES
    call: str = ""
    field: str = ""
    prepare: Prepare | None = None
    poison: Prepare | None = None

    @property
    def label(self) -> str:
        """For a test's name."""
        return f"{self.at}: {self.name}".replace(" ", "-")


OTHER_SUMS: Mapping[str, Any] = {
    "study_digest": bytes(32),
    "round": 2,
    "attempt": 1,
    "phase": 0,
    "state_digest": bytes(32),
}
KINDS = {
    "share": Kind.KEY_LIST,
    "masked_input": Kind.DELIVERY,
    "consistency": Kind.SURVIVORS,
    "unmask": Kind.CERTIFICATE,
}
"""The combiner's frame that opens each stage."""


def again(script: HostileCombiner, name: str, signer: str | None = None, **changes: Any) -> bytes:
    """The *advertise* frame of ``name`` with other fields, signed by it or by another."""
    frame = decode(script.came["advertise"][name], ANY)
    return seal(replace(frame, **changes), script.cast.sites[signer or name])


def table(rows: tuple[Attack, ...]) -> str:
    """The attacks as a table for the page; those that differ in the stage only share a line."""
    stages: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        error = f"{row.refusal}({row.field})" if row.field else row.refusal
        key = (row.name, row.clause, error, row.sender, row.fate.value)
        where = stages.setdefault(key, [])
        if row.at not in where:
            where.append(row.at)
    lines = [
        "| frame | in stage | clause | refusal | blames | the site |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {', '.join(where)} | {clause} | {error} | {sender} | {fate.split(',')[0]} |"
        for (name, clause, error, sender, fate), where in stages.items()
    ]
    return "\n".join(lines) + "\n"
