"""Attacks over several sums: what a site remembers, also when it was started anew (SA-8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hostile_attack import COLLUDER, VICTIM
from hostile_combiner import Host, HostileCombiner, OpenHost, Refusal
from hostile_host import only_ours
from our_site import OurHost
from protected_sum import Cast, make_cast, refusal

from fedbcs_protocols.errors import LocalError, Refused
from fedbcs_protocols.secagg import Guard, Marks, SiteSession
from fedbcs_protocols.secagg.states import SiteState

Play = Callable[..., HostileCombiner]
ANOTHER = bytes(32)


class Sums:
    """Sums of the same six installations, one after the other."""

    def __init__(self, open_host: OpenHost, restarts: bool) -> None:
        self.open_host, self.restarts = open_host, restarts
        self.hosts: dict[str, Host] = {}
        self.cast = make_cast(6)

    def next(self, **binding: Any) -> HostileCombiner:
        """The script for another sum, its sites started anew if ``restarts``."""
        if self.restarts:
            for host in self.hosts.values():
                host.restart()
        return HostileCombiner(
            self.cast.changed(**binding),
            self.open_host,
            victim=VICTIM,
            colluders=[COLLUDER],
            hosts=self.hosts,
        )

    def refused(self, **binding: Any) -> None:
        """The victim takes no part in this sum, and has made no key for it."""
        site = self.next(**binding).site(VICTIM)
        with pytest.raises(Refusal) as caught:
            site.advertise()
        assert caught.value.kind == "Refused"
        assert not site.holds_secrets()


@pytest.fixture(params=[False, True], ids=["same process", "started anew"])
def sums(open_host: OpenHost, request: pytest.FixtureRequest) -> Sums:
    return Sums(open_host, request.param)


BEFORE = {
    "the same again": {},
    "an earlier round": {"round": 2},
    "an earlier round, later attempt and phase": {"round": 2, "attempt": 9, "phase": 9},
    "an earlier round from its own state": {"round": 2, "state_digest": ANOTHER},
    "an earlier attempt": {"attempt": 1},
    "an earlier attempt, later phase": {"attempt": 1, "phase": 9},
    "an earlier phase": {"phase": 0},
    "another state in the same round": {"attempt": 3, "state_digest": ANOTHER},
    "another state in another phase": {"phase": 2, "state_digest": ANOTHER},
}
AFTER = {
    "a later attempt": {"attempt": 3},
    "a later phase": {"phase": 2},
    "a later round from another state": {"round": 4, "attempt": 0, "state_digest": ANOTHER},
}


@pytest.mark.parametrize("change", BEFORE.values(), ids=BEFORE.keys())
def test_a_stale_sum(sums: Sums, change: dict[str, Any]) -> None:
    """Refused though nobody answered: the combiner can go back to nothing."""
    here = {"attempt": 2}
    sums.next(**here).play("unmask")
    sums.refused(**{**here, **change})
    assert sums.next(attempt=3).site(VICTIM).advertise()


@pytest.mark.parametrize("change", AFTER.values(), ids=AFTER.keys())
def test_a_later_sum_is_no_stale_one(sums: Sums, change: dict[str, Any]) -> None:
    sums.next(attempt=2).play("unmask")
    script = sums.next(**{"attempt": 2, **change}).play("finished")
    assert VICTIM in script.came["unmask"]


AGAIN = {
    "a later attempt": {"attempt": 1},
    "a much later attempt": {"attempt": 15},
    "the next round from the same state": {"round": 4},
    "a much later round from the same state": {"round": 2**32 - 1},
}


@pytest.mark.parametrize("change", AGAIN.values(), ids=AGAIN.keys())
def test_no_second_answer_for_a_state(sums: Sums, change: dict[str, Any]) -> None:
    sums.next().play("finished")
    sums.refused(**change)
    # Another phase has other vectors, and the next round another state.
    assert sums.next(phase=2).play("finished").came["unmask"]
    sums.refused(**change)
    assert sums.next(round=4, state_digest=ANOTHER).play("finished").came["unmask"]


def test_the_next_round_from_a_state_that_nobody_answered_for(sums: Sums) -> None:
    """The control of the refusals above: it is the answer that counts, not the number."""
    sums.next().play("unmask")
    assert sums.next(round=4).play("finished").came["unmask"]
    sums.refused(round=5)


def test_answers_are_kept_as_long_as_the_state(sums: Sums) -> None:
    """Another phase under the next number does not make the first one forgotten."""
    sums.next().play("finished")
    assert sums.next(round=4, phase=2).play("finished").came["unmask"]
    sums.refused(round=4, attempt=1)
    sums.refused(round=5)


def test_sixteen_attempts_a_round(sums: Sums) -> None:
    """Each has new draws (SA-9), of which the combiner must not have as many as it likes."""
    assert sums.next(attempt=15).site(VICTIM).advertise()
    sums.refused(attempt=16)
    sums.refused(attempt=65535)
    assert sums.next(round=4, state_digest=ANOTHER).site(VICTIM).advertise()


def test_an_old_checkpoint(sums: Sums) -> None:
    """A site that is set back to an earlier round, with its marks: it says no to that round."""
    states = {number: bytes([number]) * 32 for number in range(3, 6)}
    for number, state in states.items():
        sums.next(round=number, state_digest=state).play("finished")
    for number, state in states.items():
        for attempt in (0, 1):
            sums.refused(round=number, state_digest=state, attempt=attempt)
    # An old state under the number of the last round is no better, nor the last under a new one.
    sums.refused(round=5, state_digest=states[3], attempt=1)
    sums.refused(round=6, state_digest=states[5])
    assert sums.next(round=6, state_digest=ANOTHER).site(VICTIM).advertise()


def test_one_reuse_is_allowed_once_and_counted(sums: Sums) -> None:
    sums.cast = replace(sums.cast, terms=replace(sums.cast.terms, max_reused_states=1))
    for attempt, times in ((0, 1), (3, 2)):
        sums.next(attempt=attempt).play("finished")
        host = sums.hosts[VICTIM]
        if isinstance(host, OurHost):
            marks = host.marks.read()
            assert marks is not None
            assert [(a.attempt, a.times) for a in marks.answers] == [(attempt, times)]
    sums.refused(attempt=4)
    assert sums.next(phase=2, attempt=4).play("finished").came["unmask"]
    sums.refused(attempt=5)
    assert sums.next(round=4, state_digest=ANOTHER).site(VICTIM).advertise()


def test_a_feigned_failure(sums: Sums) -> None:
    """The combiner reads attempt 0 and calls it a failure: those who answered do not come back."""
    first = sums.next().play("unmask")
    # As few answers as it takes, so that as many sites as possible can come back.
    certificate = first.certificate()
    answered = ("site1", "site2", "site3")
    for name in answered:
        assert first.ask(name, "unmask", certificate)
    second = sums.next(attempt=1)
    for name in answered:
        with pytest.raises(Refusal) as caught:
            second.site(name).advertise()
        assert caught.value.kind == "Refused"
    # site0 and site4 are left, with the colluder one fewer than t, so they refuse the list.
    for name in (VICTIM, "site4", COLLUDER):
        second.came["advertise"][name] = second.ask(name, "advertise", b"")
    with pytest.raises(Refusal) as caught:
        second.site(VICTIM).share(second.key_list())
    assert caught.value.kind == "BadKeyList"
    # Nor is there a way back to the attempt that was read.
    sums.refused()


def test_the_certificate_of_an_attempt_that_was_given_up(open_host: OpenHost) -> None:
    """The first session is over when the marks have gone on, though its process never ended."""
    sums = Sums(open_host, restarts=False)
    first = sums.next().play("unmask")
    assert sums.next(attempt=1).site(VICTIM).advertise()
    with pytest.raises(Refusal) as caught:
        first.site(VICTIM).unmask(first.certificate())
    assert caught.value.kind == "Refused"
    assert not first.site(VICTIM).holds_secrets()
    # The control: the same certificate for a site that has not gone on.
    assert first.site("site1").unmask(first.certificate())


@only_ours("it is about the stand-in for a process")
def test_a_session_ends_with_its_process(open_host: OpenHost) -> None:
    """Else a script that goes on with one would look as if sites could be asked like that."""
    sums = Sums(open_host, restarts=True)
    site = sums.next().play("unmask").site(VICTIM)
    sums.next(attempt=1)
    with pytest.raises(RuntimeError, match="has ended"):
        site.holds_secrets()


def test_a_true_failure_before_any_answer_costs_nothing(sums: Sums) -> None:
    """The control: a second attempt with one site fewer, nobody having answered in the first."""
    sums.next().play("unmask")
    second = sums.next(attempt=1)
    second.gone["advertise"].add("site4")
    assert len(second.play("finished").came["unmask"]) == 5


def test_a_real_state_for_one_site_and_another_for_the_rest(open_host: OpenHost) -> None:
    """The victim alone trains from a state (or within ranges) that the combiner made for it.

    Its sum would be its own vector, as the others' masks do not cancel. Nothing of theirs fits
    into its sum, and nothing of its own into theirs.
    """
    rest = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER])
    cast = rest.cast.changed(state_digest=ANOTHER)
    alone = HostileCombiner(cast, open_host, victim=VICTIM, colluders=[COLLUDER])
    advert = alone.ask(VICTIM, "advertise", b"")
    rest.play("share")
    mixed = alone.key_list({**rest.came["advertise"], VICTIM: advert})
    with pytest.raises(Refusal) as caught:
        alone.site(VICTIM).share(mixed)
    assert (caught.value.kind, caught.value.sender) == ("WrongBinding", "site1")
    assert caught.value.field == "state digest"
    with pytest.raises(Refusal) as caught:
        rest.site("site1").share(rest.key_list({VICTIM: advert}))
    assert (caught.value.kind, caught.value.sender) == ("WrongBinding", VICTIM)
    # The colluder helps with either state, but two sites are fewer than t.
    fresh = HostileCombiner(cast, open_host, victim=VICTIM, colluders=[COLLUDER])
    fresh.gone["advertise"] |= {"site1", "site2", "site3", "site4"}
    fresh.play("share")
    with pytest.raises(Refusal) as caught:
        fresh.site(VICTIM).share(fresh.key_list())
    assert caught.value.kind == "BadKeyList"


# What this repository's sites put on disk, and when ----------------------------------------------


OUR_DISK = only_ours("it looks at what this repository's sites write")


class Disk:
    """Marks that keep a list of what happened, and break when told to."""

    def __init__(self, log: list[str]) -> None:
        self.log, self.broken = log, False
        self.marks: Marks | None = None

    def read(self) -> Marks | None:
        return self.marks

    def write(self, marks: Marks) -> None:
        if self.broken:
            raise OSError("disk full")
        self.log.append("answer" if marks.answers else "advertise")
        self.marks = marks


def _until_certificate(cast: Cast, disk: Disk) -> tuple[HostileCombiner, SiteSession]:
    script = HostileCombiner(cast, OurHost, colluders=[COLLUDER])
    script.play("advertise").site(VICTIM).session._marks = disk
    return script, script.play("unmask").site(VICTIM).session


@OUR_DISK
def test_nothing_is_sent_that_is_not_booked() -> None:
    disk = Disk([])
    script, session = _until_certificate(make_cast(6), disk)
    assert disk.log == ["advertise"]
    disk.broken = True
    with pytest.raises(OSError, match="disk full"):
        session.unmask(script.certificate())
    assert session.state is SiteState.SIGNED
    disk.broken = False
    assert session.unmask(script.certificate())
    assert disk.log == ["advertise", "answer"]
    later = HostileCombiner(script.cast.changed(attempt=1), OurHost)
    later.site(VICTIM).session._marks = disk
    disk.broken = True
    with pytest.raises(Refusal):
        later.site(VICTIM).advertise()
    phase = HostileCombiner(script.cast.changed(phase=2), OurHost)
    phase.site(VICTIM).session._marks = disk
    with pytest.raises(OSError, match="disk full"):
        phase.site(VICTIM).advertise()
    assert not phase.site(VICTIM).holds_secrets()


@OUR_DISK
def test_marks_of_another_study_or_of_no_marks() -> None:
    host = OurHost(make_cast(6).sites[VICTIM], VICTIM, Guard(frozenset()))
    cast = make_cast(6)
    session = cast.site(VICTIM)
    session.advertise()
    other = cast.changed(study_digest=ANOTHER)
    assert isinstance(refusal(lambda: other.site(VICTIM).advertise()), LocalError)
    host.marks.disk["marks"] = b"FBMK" + bytes(40)
    with pytest.raises(LocalError):
        host.marks.read()


def test_the_policy_against_single_changes_outlives_a_restart(open_host: OpenHost) -> None:
    """Two sums that differ by one site give its update roughly, also in two different rounds."""
    cast = make_cast(6)
    guard = replace(cast.guard, forbid_single_changes=True)
    hosts: dict[str, Host] = {VICTIM: open_host(cast.sites[VICTIM], VICTIM, guard)}

    def another(number: int, left: str) -> HostileCombiner:
        hosts[VICTIM].restart()
        binding = {"round": number, "state_digest": bytes([number]) * 32}
        script = HostileCombiner(cast.changed(**binding), open_host, hosts=hosts)
        script.gone["masked_input"] |= {f"site{i}" for i in left}
        return script.play("consistency")

    first = another(3, "")
    assert first.play("finished", start="consistency").came["unmask"]
    script = another(4, "4")
    with pytest.raises(Refusal) as caught:
        script.site(VICTIM).consistency(script.survivors())
    assert caught.value.kind == Refused.__name__
    assert not script.site(VICTIM).holds_secrets()
    for number, left in ((5, "45"), (6, "45"), (7, "")):
        assert VICTIM in another(number, left).play("finished", start="consistency").came["unmask"]
