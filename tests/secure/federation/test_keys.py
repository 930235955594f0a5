"""The group's key over rounds: when it is made anew, how a site that was away comes by it (GK)."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation_fixtures import ANYTHING
from federation_world import GROUPED, World, away, world

from fedbcs_protocols.errors import MalformedFrame, Refused, UnexpectedFrame
from fedbcs_protocols.group import GROUP_PHASE, MemoryKeys
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.federation.journal import FileJournals
from fedbcs_secure.federation.missed import SumShelf
from fedbcs_secure.federation.rounds import CONTROL

grouped = pytest.mark.parametrize("values", GROUPED.values(), ids=GROUPED)


def epochs(w: World) -> str:
    """The last epoch of each site, all below 10."""
    return "".join(str(w.ring(name).epoch) for name in w.identities)


@pytest.mark.parametrize(
    ("rekey_every", "expected"), [(1, "12345"), (2, "11223"), (3, "11122"), (100, "11111")]
)
@grouped
def test_a_key_serves_so_many_rounds(
    values: dict[str, object], rekey_every: int, expected: str
) -> None:
    """GK-2.4"""
    w = world("ABC", rekey_every=rekey_every, **values)
    for epoch in expected:
        w.round()
        assert epochs(w) == 3 * epoch
    names = {w.ring(name).secrets for name in "ABC"}
    assert len(names) == 1
    assert len({secret.secret for secret in names.pop()}) == int(expected[-1])


@grouped
def test_who_comes_or_goes_makes_a_new_key(values: dict[str, object]) -> None:
    """GK-2.4: nobody who left goes on with the others' key, nobody who comes has their old one."""
    w = world(rekey_every=100, **values)
    seen = []
    for silent in (None, None, away("B"), away("B"), None, None, away("A"), None):
        w.round(silent)
        seen.append(epochs(w))
    assert seen == ["1111", "1111", "2122", "2122", "3333", "3333", "3444", "5555"]
    assert w.behind() == ""
    members = [set(secret.members) for secret in w.ring("D").secrets]
    assert members == [{0, 1, 2, 3}, {0, 2, 3}, {0, 1, 2, 3}, {1, 2, 3}, {0, 1, 2, 3}]


@grouped
def test_how_long_a_key_serves_is_not_the_combiners_to_choose(values: dict[str, object]) -> None:
    """GK-5.1: a combiner that makes no key stage gets nothing under a key that has served."""
    w = world(rekey_every=2, **values)
    w.round()
    w.round()
    for name, site in w.lines.sites.items():
        site.handle(w.frame(Kind.START, w.control(), 0))
        for attempt in (0, 1):
            binding = w.parties.binding(w.state, CONTROL, attempt)
            with pytest.raises(Refused, match=r"has served 2 round\(s\)"):
                site.handle(w.frame(Kind.OPEN, binding, 1))
        assert w.ring(name).epoch == 1


@grouped
def test_before_that_the_stage_is_not_needed(values: dict[str, object]) -> None:
    w = world(rekey_every=2, **values)
    w.round()
    for site in w.lines.sites.values():
        site.handle(w.frame(Kind.START, w.control(), 0))
        assert site.handle(w.frame(Kind.OPEN, w.control(), 1))


@grouped
def test_without_a_key_nothing_is_opened(values: dict[str, object]) -> None:
    w = world(**values)
    for site in w.lines.sites.values():
        site.handle(w.frame(Kind.START, w.control(), 0))
        with pytest.raises(Refused, match="no key of the group's"):
            site.handle(w.frame(Kind.OPEN, w.control(), 1))


@grouped
def test_a_dealer_that_does_not_deal_is_passed_over(values: dict[str, object]) -> None:
    """GK-7.5: it is out of this round only."""
    w = world(**values)
    assert w.round(away("A", Kind.PRESENT)).survivors == ("B", "C", "D")
    assert w.asked(Kind.PRESENT) == "B"
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")


@grouped
def test_a_site_that_lost_its_keys_makes_a_new_epoch(values: dict[str, object]) -> None:
    """It kept its state; under ckks nobody else's ciphertexts are under the old key any more."""
    w = world(rekey_every=100, **values)
    w.round()
    w.keys["C"] = MemoryKeys()
    w.restart("C")
    result = w.round()
    assert (result.survivors, result.faults) == (("A", "B", "C", "D"), {})
    assert (epochs(w), w.behind()) == ("2222", "")
    assert len(w.ring("C").secrets) == 1
    w.round()
    assert epochs(w) == "2222"


# A site that was away ----------------------------------------------------------------------------


@grouped
def test_a_site_that_was_away_is_given_what_the_others_have(values: dict[str, object]) -> None:
    """GK-4: all keys of the sums that it missed, and then a new one with it."""
    w = world(**values)
    w.round()
    for _ in range(3):
        w.round(away("B"))
    assert epochs(w) == "4144"
    result = w.round()
    assert (result.survivors, w.behind()) == (("A", "B", "C", "D"), "")
    assert w.ring("B").secrets == w.ring("A").secrets
    assert (w.asked(Kind.JOIN), w.asked(Kind.HELP), w.asked(Kind.ADMITTED)) == ("B", "C", "B")
    # in the phase of the key, and about the state that each is at
    (join,) = [f for f in map(_decoded, w.lines.down["B"]) if f.kind is Kind.JOIN]
    assert (join.binding.phase, join.binding.round) == (GROUP_PHASE, 1)
    # No secret was ever to be seen.
    secrets = [s.secret for s in w.ring("A").secrets]
    assert len(secrets) == 5
    assert not [secret for secret in secrets if secret in w.seen()]


def _decoded(frame: bytes):  # type: ignore[no-untyped-def]
    return decode(frame, ANYTHING)


@pytest.mark.parametrize("silent", ["D", "DA", "DAC"])
@grouped
def test_a_helper_that_does_not_answer_is_passed_over(
    values: dict[str, object], silent: str
) -> None:
    """In round 2 D is asked first: helpers take turns."""
    w = world(**values)
    w.round()
    w.round(away("B"))
    result = w.round(away(silent, Kind.HELP))
    helped = len(silent) < 3
    assert (w.behind() == "") == helped
    assert ("B" in result.survivors) == helped
    assert w.asked(Kind.HELP) == {"D": "A", "DA": "C"}.get(silent, "")
    assert w.round().survivors == ("A", "B", "C", "D")
    assert w.behind() == ""


class Babbling:
    """A site answers *help* with something else."""

    def __init__(self, w: World, name: str, answer: bytes) -> None:
        self.w, self.name, self.answer = w, name, answer

    def exchange(self, requests):  # type: ignore[no-untyped-def]
        for name, request in requests.items():
            help_asked = decode(request, ANYTHING).kind is Kind.HELP
            for site, reply in self.w.lines.exchange({name: request}):
                yield site, self.answer if name == self.name and help_asked else reply


@grouped
def test_a_helper_that_answers_with_something_else_is_passed_over(
    values: dict[str, object],
) -> None:
    w = world(**values)
    w.round()
    w.round(away("B"))
    result = w.combiner.run(Babbling(w, "D", b"no frame"), w.state)
    w.state = result.state
    # It is the helper's fault, not that of the site that was away.
    assert list(result.faults) == ["D"]
    assert isinstance(result.faults["D"], MalformedFrame)
    assert set(w.asked(Kind.HELP)) == {"D", "A"}
    assert (result.survivors, w.behind()) == (("A", "B", "C", "D"), "")


@grouped
def test_a_site_that_is_past_the_round_asks_for_no_keys(values: dict[str, object]) -> None:
    """Else a combiner could have a site show standings, and take keys, for rounds long over."""
    w = world(**values)
    first = w.state
    w.round()
    w.round()
    ring = w.ring("A")
    for kind, sequence in ((Kind.JOIN, 2), (Kind.ADMITTED, 4)):
        binding = w.parties.binding(first, GROUP_PHASE)
        with pytest.raises(Refused, match="was not away"):
            w.lines.sites["A"].handle(w.frame(kind, binding, sequence))
    assert w.ring("A") is ring


def test_without_a_group_key_there_are_no_such_frames() -> None:
    w = world(verified_sum=False)
    binding = w.parties.binding(w.state, GROUP_PHASE)
    for kind in (Kind.PRESENT, Kind.DEALT, Kind.JOIN, Kind.HELP, Kind.ADMITTED):
        with pytest.raises(UnexpectedFrame):
            w.lines.sites["A"].handle(w.frame(kind, binding, 0))


@grouped
def test_a_new_combiner_tells_what_it_finds_on_the_shelf(
    values: dict[str, object], tmp_path: Path
) -> None:
    """RO-2.8: B catches up by the same steps, in the round that the new process runs first."""
    shelf, journals = SumShelf(tmp_path / "sums"), FileJournals(tmp_path / "journals")
    w = world(shelf=shelf, journals=journals, **values)
    w.round()
    for _ in range(3):
        w.round(away("B"))
    assert len(shelf.kept()) == 3
    w.restart_combiner()
    result = w.round()
    assert (result.survivors, result.faults) == (("A", "B", "C", "D"), {})
    assert (w.behind(), w.asked(Kind.CHECKPOINT)) == ("", "")
