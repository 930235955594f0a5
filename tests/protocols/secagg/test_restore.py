"""A combiner that crashes anywhere and is restored from what it had written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protected_sum import STAGES, answer, make_cast

from fedbcs_protocols.errors import LocalError, PeerError, TooFewSites, UnexpectedFrame
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.secagg import CombinerSession
from fedbcs_protocols.secagg.journal import frame_in, frame_record
from fedbcs_protocols.secagg.states import CombinerState

CAST = make_cast(5)
DROPS = {"share": {"site4"}}


class Crash(Exception):
    """The process ends here."""


class ListJournal:
    """Records in memory. Ends the process at the ``crash_at``-th call, before or after its work."""

    def __init__(self, crash_at: int | None = None, *, too_late: bool = False) -> None:
        self.records: list[bytes] = []
        self.synced = 0
        self.calls = 0
        self._crash_at = crash_at
        self._too_late = too_late
        self.session: CombinerSession | None = None
        self.requests_at_sync: list[Mapping[str, bytes]] = []

    def append(self, record: Buffer) -> None:
        self._call(lambda: self.records.append(bytes(record)))

    def sync(self) -> None:
        if self.session is not None:
            self.requests_at_sync.append(dict(self.session.requests))
        self._call(lambda: setattr(self, "synced", len(self.records)))

    def _call(self, work: Any) -> None:
        crashes = self.calls == self._crash_at
        self.calls += 1
        if crashes and not self._too_late:
            raise Crash
        work()
        if crashes:
            raise Crash


@dataclass(frozen=True)
class Snapshot:
    """What the world can see of a session."""

    state: CombinerState
    expected: tuple[str, ...]
    survivors: tuple[str, ...]
    requests: Mapping[str, bytes]


def _snapshot(session: CombinerSession) -> Snapshot:
    return Snapshot(session.state, session.expected, session.survivors, dict(session.requests))


@dataclass(frozen=True)
class Story:
    """A whole sum: what the combiner was told, None for the end of a stage, and how it looked."""

    events: tuple[bytes | None, ...]
    snapshots: tuple[Snapshot, ...]
    records: tuple[bytes, ...]
    total: list[int]
    sum_frame: bytes


def _tell(session: CombinerSession, event: bytes | None) -> None:
    if event is None:
        session.close()
    else:
        session.receive(event)


def _tell_all(session: CombinerSession, seen: list[Snapshot] | None = None) -> None:
    """The whole story; ``seen`` gets how the session looked before each event."""
    for event in STORY.events:
        if seen is not None:
            seen.append(_snapshot(session))
        _tell(session, event)


def _story(drops: Mapping[str, set[str]] = DROPS) -> Story:
    journal = ListJournal()
    cast = replace(CAST, marks={})
    combiner, sessions, vectors = cast.combine(journal), cast.all_sites(), cast.vectors()
    events: list[bytes | None] = []
    snapshots = [_snapshot(combiner)]
    gone: set[str] = set()
    for stage in STAGES:
        gone |= drops.get(stage, set())
        frames: list[bytes | None] = [
            answer(sessions[name], stage, combiner.requests.get(name, b""), vectors[name])
            for name in combiner.expected
            if name not in gone
        ]
        for event in (*frames, None):
            _tell(combiner, event)
            events.append(event)
            snapshots.append(_snapshot(combiner))
    return Story(
        tuple(events),
        tuple(snapshots),
        tuple(journal.records),
        combiner.total().tolist(),
        combiner.sum_frame(),
    )


STORY = _story()


def _finish(session: CombinerSession, story: Story, done: int) -> None:
    """Go on from event ``done``, and end with the same sum, byte for byte."""
    for event in story.events[done:]:
        _tell(session, event)
    assert session.total().tolist() == story.total
    assert session.sum_frame() == story.sum_frame


def test_every_event_is_one_record() -> None:
    assert len(STORY.records) == len(STORY.events)
    for record, event in zip(STORY.records, STORY.events, strict=True):
        held = frame_in(record)
        assert (None if held is None else bytes(held)) == event


@pytest.mark.parametrize("done", range(len(STORY.records) + 1))
def test_restored_at_every_point(done: int) -> None:
    session = CAST.combine()
    session.restore(STORY.records[:done])
    assert _snapshot(session) == STORY.snapshots[done]
    _finish(session, STORY, done)


@given(st.data())
@settings(max_examples=8)
def test_restored_under_other_drop_outs(data: st.DataObject) -> None:
    stage = data.draw(st.sampled_from(STAGES))
    story = _story({stage: {f"site{data.draw(st.integers(0, 4))}"}})
    for done in range(len(story.records) + 1):
        session = CAST.combine()
        session.restore(memoryview(record) for record in story.records[:done])
        assert _snapshot(session) == story.snapshots[done]
    _finish(session, story, len(story.events))


@pytest.mark.parametrize("too_late", [False, True])
def test_crashes_at_every_call_of_the_journal(too_late: bool) -> None:
    calls = len(STORY.events) + len(STAGES)
    for crash_at in range(calls):
        journal = ListJournal(crash_at, too_late=too_late)
        session = CAST.combine(journal)
        seen: list[Snapshot] = []
        with pytest.raises(Crash):
            _tell_all(session, seen)
        # What was to be written first was not acted on.
        assert _snapshot(session) == seen[-1]

        again = ListJournal()
        restored = CAST.combine(again)
        restored.restore(journal.records)
        done = len(journal.records)
        assert _snapshot(restored) == STORY.snapshots[done]
        # Sites that heard nothing send again what was taken already.
        for event in STORY.events[:done][-1:]:
            if event is not None:
                with pytest.raises(UnexpectedFrame, match="comes twice"):
                    restored.receive(event)
        _finish(restored, STORY, done)
        assert journal.records + again.records == list(STORY.records)


def test_what_the_disk_lost_was_never_acted_on() -> None:
    """Of a journal at most the records after the last sync are lost, and no request depends on
    those: the restored session asks for the same again."""
    calls = len(STORY.events) + len(STAGES)
    for crash_at in range(calls):
        journal = ListJournal(crash_at)
        session = CAST.combine(journal)
        with pytest.raises(Crash):
            _tell_all(session)
        restored = CAST.combine()
        restored.restore(journal.records[: journal.synced])
        assert restored.requests == session.requests
        assert restored.state is session.state
        _finish(restored, STORY, journal.synced)


def test_synced_before_requests_exist() -> None:
    journal = ListJournal()
    session = journal.session = CAST.combine(journal)
    expected, shown = [], dict(session.requests)
    for event in STORY.events:
        _tell(session, event)
        if event is None:
            assert journal.synced == len(journal.records)
            # At the moment of the sync the requests were still the old ones.
            expected.append(shown)
            shown = dict(session.requests)
    assert journal.requests_at_sync == expected
    assert len(expected) == len(STAGES)


def test_a_refused_frame_leaves_no_record() -> None:
    journal = ListJournal()
    session = CAST.combine(journal)
    first = STORY.events[0]
    assert first is not None
    session.receive(first)
    for bad in (first, first[:-1], b""):
        with pytest.raises(PeerError):
            session.receive(bad)
    with pytest.raises(UnexpectedFrame, match="on the line of site3"):
        session.receive(STORY.events[1], line="site3")
    assert journal.records == [frame_record(first)]


def test_an_attempt_that_failed_stays_failed() -> None:
    journal = ListJournal()
    session = CAST.combine(journal)
    for event in STORY.events[:3]:
        _tell(session, event)
    with pytest.raises(TooFewSites):
        session.close()
    restored = CAST.combine()
    with pytest.raises(TooFewSites):
        restored.restore(journal.records)
    assert _snapshot(restored) == _snapshot(session)
    assert restored.state is CombinerState.FAILED


@pytest.mark.parametrize("events", [STORY.events, (*STORY.events[:3], None)])
def test_nothing_is_written_after_the_end(events: tuple[bytes | None, ...]) -> None:
    """A record there would make the whole journal unreadable."""
    journal = ListJournal()
    session = CAST.combine(journal)
    for event in events[:-1]:
        _tell(session, event)
    if len(events) < len(STORY.events):
        with pytest.raises(TooFewSites):
            session.close()
    else:
        session.close()
    calls, before = journal.calls, _snapshot(session)
    with pytest.raises(LocalError, match="does not allow CLOSE"):
        session.close()
    for event in STORY.events:
        if event is not None:
            with pytest.raises(UnexpectedFrame, match="when the sum is"):
                session.receive(event)
    assert journal.calls == calls
    assert len(journal.records) == len(events)
    assert _snapshot(session) == before


@pytest.mark.parametrize("done", range(len(STORY.records) + 1))
def test_what_was_read_back_is_synced(done: int) -> None:
    """The process may have died between a record and its sync, and the machine may be next."""
    journal = ListJournal()
    journal.records = list(STORY.records[:done])
    CAST.combine(journal).restore(STORY.records[:done])
    assert journal.synced == len(journal.records) == done
    assert journal.calls == 1
    with pytest.raises(Crash):
        CAST.combine(ListJournal(0)).restore(STORY.records[:done])


def test_a_journal_of_another_sum() -> None:
    for other in (CAST.changed(attempt=1), CAST.changed(round=4), make_cast(6)):
        with pytest.raises(PeerError):
            other.combine().restore(STORY.records)
