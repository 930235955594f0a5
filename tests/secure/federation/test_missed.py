"""Sums that a site was away for: told in order, until it has accepted them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from federation_fixtures import known_identity

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import (
    BadSignature,
    MalformedFrame,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.wire import Frame, Kind, seal
from fedbcs_secure.federation.missed import MAX_MISSED, MissedSums, SumShelf, Told

STATE = bytes(range(32))
ROSTER = {name: known_identity(name).public for name in "ABC"}


def told(number: int) -> Told:
    binding = Binding(b"s" * 32, number, 0, 0, bytes([number]) * 32)
    return Told(b"sum %d" % number, binding, 2)


def accepted(name: str, item: Told, **changes: int) -> bytes:
    sequence = changes.get("sequence", item.sequence)
    kind = Kind(changes.get("kind", Kind.ACCEPTED))
    return seal(Frame(kind, item.binding, name, sequence, STATE), known_identity(name))


class Script:
    """Sites that accept what they are told, but for what a test puts in a reply's place."""

    def __init__(self, instead: Mapping[tuple[str, bytes], bytes | None]) -> None:
        self.instead = dict(instead)
        self.items = {told(number).frame: told(number) for number in range(40)}
        self.heard: dict[str, list[bytes]] = {name: [] for name in ROSTER}

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, frame in requests.items():
            self.heard[name].append(frame)
            reply = self.instead.get((name, frame), accepted(name, self.items[frame]))
            if reply is not None:
                yield name, reply


def test_all_are_current_before_anything_was_said() -> None:
    missed, script = MissedSums(dict(ROSTER)), Script({})
    assert missed.current == {"A", "B", "C"}
    assert missed.tell(script) == {}
    assert script.heard == {"A": [], "B": [], "C": []}


def test_a_site_hears_what_it_missed_in_order() -> None:
    missed = MissedSums(dict(ROSTER))
    missed.add([told(0)])
    away = Script({("B", b"sum 0"): None})
    assert missed.tell(away) == {}
    assert missed.current == {"A", "C"}
    missed.add([told(1), told(2)])
    script = Script({})
    assert missed.tell(script) == {}
    assert missed.current == {"A", "B", "C"}
    assert script.heard["B"] == [b"sum 0", b"sum 1", b"sum 2"]
    assert script.heard["A"] == script.heard["C"] == [b"sum 1", b"sum 2"]


def test_nobody_is_told_on_after_a_silence() -> None:
    missed = MissedSums(dict(ROSTER))
    missed.add([told(0), told(1)])
    script = Script({("B", b"sum 0"): None})
    missed.tell(script)
    assert script.heard == {"A": [b"sum 0", b"sum 1"], "B": [b"sum 0"], "C": [b"sum 0", b"sum 1"]}


def test_only_the_sites_own_acceptance_of_that_very_frame_counts() -> None:
    first, second = told(0), told(1)
    wrong = {
        accepted("A", first): UnknownSender,
        accepted("B", second): WrongBinding,
        accepted("B", first, sequence=1): WrongBinding,
        accepted("B", first, kind=Kind.READY): UnexpectedFrame,
        b"": MalformedFrame,
        seal(Frame(Kind.ACCEPTED, first.binding, "B", 2, STATE), known_identity("A")): BadSignature,
    }
    for reply, error in wrong.items():
        missed = MissedSums(dict(ROSTER))
        missed.add([first])
        faults = missed.tell(Script({("B", first.frame): reply}))
        assert set(faults) == {"B"}
        assert isinstance(faults["B"], error)
        assert missed.current == {"A", "C"}
        # a right one later is taken
        assert missed.tell(Script({})) == {}
        assert missed.current == {"A", "B", "C"}


def test_a_reply_that_comes_twice_counts_once() -> None:
    class Doubled(Script):
        def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
            for reply in super().exchange(requests):
                yield reply
                yield reply

    missed, doubled = MissedSums(dict(ROSTER)), Doubled({})
    missed.add([told(0), told(1)])
    assert missed.tell(doubled) == {}
    assert missed.current == {"A", "B", "C"}
    assert doubled.heard["A"] == [b"sum 0", b"sum 1"]


def test_who_is_away_too_long_cannot_come_back() -> None:
    """It never hears of a later sum without the earlier, and no more than so many are kept."""
    missed = MissedSums(dict(ROSTER))
    silent = {("B", b"sum %d" % number): None for number in range(MAX_MISSED + 3)}
    for number in range(MAX_MISSED + 1):
        missed.add([told(number)])
        missed.tell(Script(silent))
    # the first one is gone, and without it B can do nothing with the others
    asked = Script({})
    missed.tell(asked)
    assert asked.heard["B"] == []
    assert (missed.current, missed.lost) == ({"A", "C"}, {"B"})
    assert missed.lacks("B") is None
    # nor with later ones
    missed.add([told(MAX_MISSED + 1)])
    assert missed.tell(asked) == {}
    assert asked.heard == {"A": [b"sum 17"], "B": [], "C": [b"sum 17"]}


def test_a_site_that_came_back_by_another_way_is_told_what_follows() -> None:
    """RO-6.1: after a checkpoint nothing of what it missed counts any more."""
    missed = MissedSums(dict(ROSTER))
    missed.add([told(0), told(1)])
    missed.tell(Script({("B", b"sum 0"): None}))
    assert missed.lacks("B") is not None
    missed.restored("B")
    assert missed.current == {"A", "B", "C"}
    for number in range(2, MAX_MISSED + 4):
        missed.add([told(number)])
        missed.tell(Script({("B", b"sum 2"): None}))
    assert missed.lost == {"B"}
    missed.restored("B")
    assert missed.lost == frozenset()
    missed.add([told(30)])
    script = Script({})
    assert missed.tell(script) == {}
    assert script.heard["B"] == [b"sum 30"]


def test_where_the_sites_came_to_is_known_by_their_own_words(tmp_path: Path) -> None:
    """RO-2.11: of the frame that was added last, and of no site that did not say."""
    shelf = SumShelf(tmp_path / "sums")
    missed = MissedSums(dict(ROSTER), shelf)
    missed.add([told(0)])
    missed.tell(Script({("B", b"sum 0"): None}))
    assert missed.came_to == {"A": STATE, "C": STATE}
    missed.add([told(1)])
    assert missed.came_to == {}
    missed.tell(Script({("C", b"sum 1"): None, ("B", b"sum 1"): None}))
    assert missed.came_to == {"A": STATE}
    # a body that names no state is refused, and the site is asked again
    for body in (b"", STATE[:-1]):
        frame = Frame(Kind.ACCEPTED, told(1).binding, "C", 2, body)
        wrong = {("C", b"sum 1"): seal(frame, known_identity("C"))}
        faults = missed.tell(Script(wrong | {("B", b"sum 1"): None}))
        assert isinstance(faults["C"], MalformedFrame)
        assert missed.came_to == {"A": STATE}
    # a new process knows as much as the sites say again
    again = MissedSums(dict(ROSTER), shelf)
    again.tell(Script({("B", b"sum 1"): None}))
    assert again.came_to == {"A": STATE, "C": STATE}


def test_a_frame_that_nobody_accepts_can_be_withdrawn(tmp_path: Path) -> None:
    shelf = SumShelf(tmp_path / "sums")
    missed = MissedSums(dict(ROSTER), shelf)
    missed.add([told(0)])
    missed.tell(Script({("B", b"sum 0"): None}))
    declined = told(1)
    missed.add([declined])
    missed.tell(Script({(name, b"sum 1"): None for name in "ABC"} | {("B", b"sum 0"): None}))
    missed.withdraw(declined)
    # B still lacks what came before
    assert missed.current == {"A", "C"}
    assert [item.frame for item in shelf.kept()] == [b"sum 0"]
    script = Script({})
    missed.tell(script)
    assert script.heard == {"A": [], "B": [b"sum 0"], "C": []}


def test_just_not_too_long_is_fine() -> None:
    missed = MissedSums(dict(ROSTER))
    for number in range(MAX_MISSED):
        missed.add([told(number)])
        missed.tell(Script({("B", b"sum 0"): None}))
    script = Script({})
    missed.tell(script)
    assert script.heard["B"] == [b"sum %d" % number for number in range(MAX_MISSED)]
    assert missed.current == {"A", "B", "C"}


def test_a_new_process_knows_what_is_still_to_be_told(tmp_path: Path) -> None:
    shelf = SumShelf(tmp_path / "sums")
    first = MissedSums(dict(ROSTER), shelf)
    first.add([told(0)])
    first.tell(Script({("B", b"sum 0"): None}))
    first.add([told(1)])
    first.tell(Script({("B", b"sum 0"): None}))
    again, script = MissedSums(dict(ROSTER), SumShelf(tmp_path / "sums")), Script({})
    assert again.current == frozenset()
    assert again.tell(script) == {}
    # The others say again that they have accepted.
    assert script.heard == {name: [b"sum 0", b"sum 1"] for name in ROSTER}
    assert again.current == {"A", "B", "C"}


def test_the_shelf_holds_what_somebody_lacks_and_no_more(tmp_path: Path) -> None:
    shelf = SumShelf(tmp_path / "sums")
    missed = MissedSums(dict(ROSTER), shelf)
    missed.add([told(0)])
    assert [item.frame for item in shelf.kept()] == [b"sum 0"]
    missed.tell(Script({}))
    assert shelf.kept() == []
    for number in range(MAX_MISSED):
        missed.add([told(number)])
        missed.tell(Script({("B", b"sum 0"): None}))
    assert [item.frame for item in shelf.kept()] == [b"sum %d" % n for n in range(MAX_MISSED)]
    assert [item.binding for item in shelf.kept()] == [told(n).binding for n in range(MAX_MISSED)]
    # B is lost with the next one, and nobody else waits for anything
    missed.add([told(MAX_MISSED)])
    missed.tell(Script({}))
    assert missed.lost == {"B"}
    assert shelf.kept() == []
