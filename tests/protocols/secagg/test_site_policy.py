"""A site's guard and marks, as its session obeys them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from protected_sum import make_cast, run_sum

from fedbcs_protocols.errors import ProtocolError, Refused
from fedbcs_protocols.secagg import Guard, Marks, MemoryMarks
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS
from fedbcs_protocols.secagg.setting import Terms
from fedbcs_protocols.secagg.states import SiteState

SITES = 5
Start = Callable[..., Any]


def test_the_guard_comes_before_the_first_key() -> None:
    cast = make_cast(SITES)
    listed = [identity.fingerprint for identity in cast.roster.values()]
    for guard in (
        Guard(frozenset(listed[:3])),
        replace(cast.guard, colluders=3),
        replace(cast.guard, min_sites=5),
    ):
        with pytest.raises(Refused):
            cast.site("site0", guard=guard)
    # Its own terms count, not what a study may say beyond them.
    unsafe = replace(cast, terms=Terms(SITES, 3, 1))
    with pytest.raises(Refused, match="too low"):
        unsafe.site("site0")
    assert "site0" not in {name for name, marks in cast.marks.items() if marks.read()}


class FullDisk(MemoryMarks):
    """Fails at the ``fail_at``-th write."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self.left = fail_at

    def write(self, marks: Marks) -> None:
        if self.left == 0:
            raise OSError("no space")
        self.left -= 1
        super().write(marks)


def test_no_advertise_without_a_mark() -> None:
    site = make_cast(SITES).site("site0", marks=FullDisk(0))
    with pytest.raises(OSError, match="no space"):
        site.advertise()
    assert site.state is SiteState.FRESH
    assert site._ephemeral is None


def test_no_answer_without_a_mark(site_play: Start) -> None:
    cast = make_cast(SITES)
    disk = FullDisk(1)
    cast.marks["site1"] = disk
    play = site_play("unmask", cast)
    with pytest.raises(OSError, match="no space"):
        play.answer()
    assert play.site.state is not SiteState.ANSWERED
    written = disk.read()
    assert written is not None
    assert written.answers == ()


def test_what_is_written_and_when(site_play: Start) -> None:
    cast = make_cast(SITES)
    play = site_play("unmask", cast, masked_input={"site4"})
    keeper = cast.marks["site1"]
    assert keeper.read() == Marks(cast.binding)
    play.answer()
    after = keeper.read()
    assert after is not None
    (given,) = after.answers
    assert (given.phase, given.attempt, given.times) == (1, 0, 1)
    assert given.transcript == play.site.transcript
    assert after.survivors == b"\x0f"


def test_marks_outlive_a_session() -> None:
    cast = make_cast(SITES)
    run_sum(cast, cast.vectors())
    # The last: the same state again, under the number of the next round.
    for change in ({}, {"round": 2}, {"attempt": 1}, {"round": 4}):
        with pytest.raises(Refused):
            cast.changed(**change).site("site0").advertise()
    cast.changed(phase=2).site("site0").advertise()
    cast.changed(round=4, state_digest=bytes(32)).site("site0").advertise()


def test_a_site_takes_part_in_sixteen_attempts_of_a_round() -> None:
    cast = make_cast(SITES)
    cast.changed(attempt=MAX_ATTEMPTS - 1).site("site0").advertise()
    for name in ("site0", "site1"):
        site = cast.changed(attempt=MAX_ATTEMPTS).site(name)
        with pytest.raises(Refused, match="more than 16 attempts at round 3"):
            site.advertise()
        assert site.state is SiteState.FRESH
        assert site._ephemeral is None
    assert cast.marks["site1"].read() is None
    cast.changed(round=4, state_digest=bytes(32)).site("site0").advertise()


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_reuses_that_the_study_allows(allowed: int) -> None:
    cast = make_cast(3)
    cast = replace(cast, terms=replace(cast.terms, max_reused_states=allowed))
    for attempt in range(allowed + 1):
        run_sum(cast.changed(attempt=attempt), cast.vectors())
    for name in cast.sites:
        with pytest.raises(Refused, match=f"has answered {allowed + 1} time"):
            cast.changed(attempt=allowed + 1).site(name).advertise()


def test_two_sessions_of_one_site(site_play: Start) -> None:
    """A second process with the same marks: the older one can no longer answer."""
    play = site_play("unmask")
    play.cast.changed(attempt=1).site("site1").advertise()
    with pytest.raises(ProtocolError, match="gone on from the attempt"):
        play.answer()
    assert play.site._held == {}


def test_single_changes(site_play: Start) -> None:
    cast = make_cast(SITES)
    strict = replace(cast.guard, forbid_single_changes=True)
    run_sum(cast, cast.vectors())
    following = cast.changed(round=4, state_digest=bytes(32))

    def play(**drops: set[str]) -> Any:
        here = replace(following, marks={name: _copy(kept) for name, kept in cast.marks.items()})
        return site_play("consistency", here, guard=strict, **drops)

    assert play().answer()
    one_less = play(masked_input={"site4"})
    one_less.refuses(one_less.request, Refused, "one site more or less")


def _copy(marks: MemoryMarks) -> MemoryMarks:
    kept, copied = marks.read(), MemoryMarks()
    if kept is not None:
        copied.write(kept)
    return copied


def test_verified_survivors(site_play: Start) -> None:
    cast = make_cast(7, 6, 1)
    assert len(cast.guard.verified) == 7
    all_but_one = frozenset(i.fingerprint for n, i in cast.roster.items() if n != "site6")
    play = site_play("consistency", cast, masked_input={"site5"})
    play.site._guard = Guard(all_but_one, min_sites=6)
    play.refuses(play.request, Refused, "5 verified sites in the sum, this site wants 6")
