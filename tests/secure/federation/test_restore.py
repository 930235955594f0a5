"""Sites that lost their state, or were away for too long, come back over the channel (RO-6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from federation_fixtures import ANYTHING, Lines, fake_training
from federation_world import World, away, world

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import (
    BadKeyList,
    Inconsistent,
    LocalError,
    MalformedFrame,
    PeerError,
    ProtocolError,
    Refused,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.framelist import encode_frames
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.checkpoint import Checkpoint, seal_state
from fedbcs_secure.federation.missed import MAX_MISSED, SumShelf
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult

GROUPED = [{"protection": "secagg"}, {"protection": "ckks"}]
"""Studies with a group key: verified sums, and encrypted ones."""
UNGROUPED = [{"protection": "none"}, {"protection": "secagg", "verified_sum": False}]
NAMES = ("verified", "ckks")


# Coming back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", GROUPED, ids=NAMES)
def test_a_site_that_lost_everything_is_in_the_sum_of_the_round_after(
    values: dict[str, object],
) -> None:
    """RO-6.1"""
    w = world(**values)
    w.round()
    w.round()
    w.wipe("C")
    first = w.round()
    assert first.survivors == ("A", "B", "D")
    # It is at the new state already: it came to the last one, and took this round's sum.
    assert w.behind() == ""
    second = w.round()
    assert second.survivors == ("A", "B", "C", "D")
    assert (w.behind(), second.faults) == ("", {})
    assert (w.asked(Kind.RESTORE), w.asked(Kind.CHECKPOINT)) == ("C", "D")
    # Nothing of this is needed again.
    w.lines.down = {name: [] for name in w.identities}
    assert w.round().survivors == ("A", "B", "C", "D")
    assert w.asked(Kind.JOIN) == w.asked(Kind.CHECKPOINT) == w.asked(Kind.RESTORE) == ""


@pytest.mark.parametrize("values", GROUPED, ids=NAMES)
def test_a_site_that_was_away_for_longer_than_sums_are_kept(values: dict[str, object]) -> None:
    w = world(**values)
    w.round()
    for _ in range(MAX_MISSED + 4):
        w.round(away("B"))
    assert w.behind() == "B"
    assert w.at("B").round == 1
    assert w.round().survivors == ("A", "C", "D")
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")
    assert w.behind() == ""


def test_one_round_less_and_the_sums_are_enough() -> None:
    """RO-2.8: no state travels where the steps can be computed."""
    w = world()
    w.round()
    for _ in range(MAX_MISSED):
        w.round(away("B"))
    assert w.round().survivors == ("A", "B", "C", "D")
    assert (w.asked(Kind.CHECKPOINT), w.behind()) == ("", "")


@pytest.mark.parametrize("values", GROUPED, ids=NAMES)
def test_the_study_ends_where_it_would_have_without_the_loss(values: dict[str, object]) -> None:
    """The state that a site is given is the one that it would have computed."""
    lost, kept = world(**values), world(**values)
    for w in (lost, kept):
        w.round()
    lost.wipe("D")
    kept_away = away("D", Kind.START)
    lost.round()
    kept.round(kept_away)
    for w in (lost, kept):
        assert w.round().survivors == ("A", "B", "C", "D")
        assert w.behind() == ""
    assert lost.state.digest == kept.state.digest
    assert lost.at("D").encode() == kept.at("D").encode()


@pytest.mark.parametrize("values", GROUPED, ids=NAMES)
def test_a_site_that_kept_its_keys_and_lost_its_state(values: dict[str, object]) -> None:
    w = world(**values)
    w.round()
    w.lines.sites["A"] = w.site("A")
    assert w.round().survivors == ("B", "C", "D")
    assert (w.behind(), w.round().survivors) == ("", ("A", "B", "C", "D"))


@pytest.mark.parametrize("values", GROUPED, ids=NAMES)
def test_a_site_whose_disk_goes_in_the_middle_of_a_round(values: dict[str, object]) -> None:
    """It was not told the sum, and can do nothing with it any more."""
    w = world(**values)
    w.round()
    w.round(away("C", Kind.SUM))
    w.wipe("C")
    w.lines.down["C"].clear()
    assert w.round().survivors == ("A", "B", "D")
    assert w.behind() == ""
    # The sum that it did not take is behind it, and it is told the next one only.
    kinds = [decode(frame, ANYTHING).kind for frame in w.lines.down["C"]]
    assert kinds.count(Kind.SUM) == 2
    assert w.round().survivors == ("A", "B", "C", "D")


def test_as_many_as_the_threshold_allows_come_back_together() -> None:
    w = world("ABCDEF", threshold=4)
    w.round()
    w.wipe("A", "F")
    assert w.round().survivors == ("B", "C", "D", "E")
    assert (w.asked(Kind.RESTORE), w.asked(Kind.CHECKPOINT)) == ("AF", "C")
    assert (w.behind(), len(w.round().survivors)) == ("", 6)


def test_where_too_few_are_left_nobody_comes_back() -> None:
    """RO-6.3: fewer than the threshold are at the state, so nothing proves it."""
    w = world(threshold=3)
    w.round()
    w.wipe("A", "B")
    with pytest.raises(RoundError, match="2 of 4 sites are ready, the threshold is 3"):
        w.round()
    assert (w.asked(Kind.CHECKPOINT), w.at("A").round) == ("", 0)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_combiner_that_was_started_anew_knows_of_no_loss_and_finds_it(
    on_disk: bool, tmp_path: Path
) -> None:
    shelf = SumShelf(tmp_path / "sums") if on_disk else None
    w = world(shelf=shelf)
    w.round()
    for _ in range(MAX_MISSED + 2):
        w.round(away("B"))
    w.wipe("C")
    w.restart_combiner()
    with pytest.raises(RoundError, match="2 of 4 sites are ready"):
        w.round()
    # B alone is not missing for long.
    w = world(shelf=shelf)
    w.round()
    for _ in range(MAX_MISSED + 2):
        w.round(away("B"))
    w.restart_combiner()
    assert w.round().survivors == ("A", "C", "D")
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")


def test_it_trains_and_answers_as_any_other_from_then_on() -> None:
    """RO-6.1: no answer of the round in which it came back, one of the next."""
    w = world()
    w.round()
    w.wipe("C")
    w.lines.up["C"].clear()
    w.round()
    kinds = [decode(reply, ANYTHING).kind for reply in w.lines.up["C"]]
    assert kinds == [Kind.JOINING, Kind.TAKEN, Kind.ACCEPTED, Kind.ACCEPTED]
    accepted = [f.body for f in w.lines.sent(Kind.ACCEPTED)["C"]]
    assert bytes(accepted[-1]) == w.state.digest
    w.lines.up["C"].clear()
    w.round()
    assert w.lines.sent(Kind.MASKED_INPUT)["C"]


# Without a group key -----------------------------------------------------------------------------


@pytest.mark.parametrize("values", UNGROUPED, ids=["none", "unverified"])
def test_without_a_group_key_it_stays_out_and_nothing_breaks(values: dict[str, object]) -> None:
    """RO-6.1"""
    w = world(**values)
    w.round()
    w.wipe("C")
    for _ in range(3):
        result = w.round()
        assert result.survivors == ("A", "B", "D")
        assert result.faults == {}
    assert w.behind() == "C"
    for kind in (Kind.JOIN, Kind.HELP, Kind.CHECKPOINT, Kind.RESTORE):
        assert w.asked(kind) == ""


@pytest.mark.parametrize("values", UNGROUPED, ids=["none", "unverified"])
def test_without_a_group_key_no_state_is_given_or_taken(values: dict[str, object]) -> None:
    w = world(**values)
    w.round()
    for kind, sequence in ((Kind.CHECKPOINT, 3), (Kind.RESTORE, 4)):
        frame = w.frame(kind, w.control(), sequence)
        with pytest.raises(UnexpectedFrame):
            w.lines.sites["A"].handle(frame)


# Sites that do not do their part -----------------------------------------------------------------


class Instead:
    """Lines on which some replies are others."""

    def __init__(self, inner: Lines, replies: Mapping[tuple[str, Kind], bytes]) -> None:
        self.inner, self.replies = inner, replies

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            kind = decode(request, ANYTHING).kind
            for site, reply in self.inner.exchange({name: request}):
                yield site, self.replies.get((name, kind), reply)


def test_the_next_site_is_asked_for_its_state() -> None:
    w = world()
    w.round()
    w.wipe("D")
    w.round(away("AB", Kind.CHECKPOINT))
    assert (w.behind(), w.asked(Kind.CHECKPOINT)) == ("", "C")


def test_the_next_site_is_asked_for_keys() -> None:
    w = world()
    w.round()
    w.wipe("D")
    w.round(away("AB", Kind.HELP))
    assert (w.behind(), w.asked(Kind.HELP)) == ("", "C")


def test_if_nobody_gives_a_state_the_round_goes_on_without() -> None:
    w = world()
    w.round()
    w.wipe("D")
    assert w.round(away("ABC", Kind.CHECKPOINT)).survivors == ("A", "B", "C")
    assert w.behind() == "D"
    assert w.round().survivors == ("A", "B", "C")
    assert w.behind() == ""


def test_a_giver_that_answers_with_something_else_is_passed_over() -> None:
    w = world()
    w.round()
    w.wipe("D")
    junk = {
        ("C", Kind.CHECKPOINT): b"no frame",
        ("B", Kind.CHECKPOINT): seal(
            Frame(Kind.SEALED_STATE, w.control(), "B", 7, b""), w.identities["B"]
        ),
    }
    result = w.combiner.run(Instead(w.lines, junk), w.state)
    assert set(result.faults) == {"B", "C"}
    assert isinstance(result.faults["C"], MalformedFrame)
    assert isinstance(result.faults["B"], WrongBinding)
    assert w.at("D").digest == result.state.digest


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.ADMITTED, Kind.RESTORE])
def test_a_site_that_does_not_answer_is_asked_again_in_the_next_round(kind: Kind) -> None:
    w = world()
    w.round()
    w.wipe("D")
    assert w.round(away("D", kind)).survivors == ("A", "B", "C")
    assert w.behind() == "D"
    assert w.round().survivors == ("A", "B", "C")
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")


def test_what_a_site_says_instead_of_accepting_is_its_fault_and_does_not_count() -> None:
    w = world()
    w.round()
    w.wipe("D")
    wrong = seal(Frame(Kind.ACCEPTED, w.control(), "D", 2, bytes(32)), w.identities["D"])
    result = w.combiner.run(Instead(w.lines, {("D", Kind.RESTORE): wrong}), w.state)
    assert isinstance(result.faults["D"], WrongBinding)
    w.state = result.state
    w.round()
    assert w.round().survivors == ("A", "B", "C", "D")


def test_a_site_that_refused_three_sums_is_given_no_state() -> None:
    """GK-6.3: a person has to look, and a lost state is no way around that."""
    w = world()
    w.round()
    for _ in range(3):
        w.lines.sites["D"]._keys.burn(bytes(32))  # type: ignore[union-attr]
    w.lines.sites["D"] = w.site("D")
    for _ in range(2):
        assert w.round().survivors == ("A", "B", "C")
    assert w.behind() == "D"
    assert w.at("D").round == 0


def test_a_site_that_is_at_the_state_takes_no_other() -> None:
    """One whose training failed is not ready either; it is asked, and goes on as it is."""
    w = world()
    w.round()
    there = w.at("D")
    assert w.round(away("D", Kind.START)).survivors == ("A", "B", "C")
    refused = [error for name, error in w.lines.errors if name == "D"]
    assert [type(error) for error in refused] == [Refused]
    assert there.round == 1
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")


# A combiner that lies ----------------------------------------------------------------------------


@dataclass
class Lie:
    """D lost everything and was given keys; what a combiner can do with true frames of A to C."""

    w: World
    ready: dict[str, bytes]

    @property
    def site(self) -> SiteRunner:
        return self.w.lines.sites["D"]

    @property
    def present(self) -> bytes:
        return encode_frames([self.ready.get(name) for name in self.w.identities])

    def sealed(self, name: str = "B") -> bytes:
        request = self.w.frame(Kind.CHECKPOINT, self.w.control(), 3)
        return self.w.lines.sites[name].handle(request)

    def restore(
        self,
        binding: Binding | None = None,
        present: bytes | None = None,
        sealed: bytes | None = None,
        sequence: int = 4,
    ) -> bytes:
        body = Checkpoint(present or self.present, sealed or self.sealed()).encode()
        return self.w.frame(Kind.RESTORE, binding or self.w.control(), sequence, body)

    def signed_for(self, binding: Binding) -> bytes:
        """As if every site had signed all of it for ``binding``."""
        w = self.w
        ready = {
            name: seal(replace(decode(frame, ANYTHING), binding=binding), w.identities[name])
            for name, frame in self.ready.items()
        }
        ring = w.keys["B"].read()
        assert ring is not None
        body = seal_state(w.at("B"), ring, binding, "B")
        sealed = seal(Frame(Kind.SEALED_STATE, binding, "B", 3, body), w.identities["B"])
        present = encode_frames([ready.get(name) for name in w.identities])
        return self.restore(binding, present, sealed)

    def refused(self, request: bytes, error: type[ProtocolError]) -> None:
        """D refuses, and nothing about it has changed."""
        before = (self.site.state.encode(), self.w.keys["D"].read(), self.w.marks["D"].read())
        with pytest.raises(error) as caught:
            self.site.handle(request)
        assert type(caught.value) is error
        assert isinstance(caught.value, PeerError | Refused | LocalError)
        assert before == (
            self.site.state.encode(),
            self.w.keys["D"].read(),
            self.w.marks["D"].read(),
        )


def make_lie(names: str = "ABCD", **values: object) -> Lie:
    # A key that outlives the round, so that the state can be sealed before the next key stage.
    w = world(names, **({"rekey_every": 3} | values))
    w.round()
    w.wipe("D")
    w.round(away("D", Kind.RESTORE))
    start = w.frame(Kind.START, w.control(), 0)
    return Lie(w, {name: w.lines.sites[name].handle(start) for name in names if name != "D"})


@pytest.fixture
def lie() -> Lie:
    return make_lie()


def test_the_truth_is_taken(lie: Lie) -> None:
    """Else the refusals below would prove nothing."""
    w = lie.w
    request = lie.restore()
    reply = lie.site.handle(request)
    frame = decode(reply, ANYTHING)
    assert (frame.kind, frame.sequence, frame.sender) == (Kind.ACCEPTED, 4, "D")
    assert bytes(frame.body) == w.state.digest
    assert frame.binding == w.control()
    assert w.behind() == ""
    assert lie.signed_for(w.control()) != request
    # RO-2.9, and only as its last request.
    assert lie.site.handle(request) == reply
    lie.site.handle(w.frame(Kind.START, w.control(), 0))
    lie.refused(request, Refused)


def test_it_trains_for_the_state_that_it_came_to() -> None:
    """It had trained when it was cut off: RO-2.1 is about the round that it trained for."""
    lie, trained = make_lie(), []

    def train(name: str, state: GlobalState) -> LocalResult:
        trained.append(state.round)
        return fake_training(name, state)

    w, lie.site._train = lie.w, train
    lie.site.handle(w.frame(Kind.START, w.control(w.beginning), 0))
    lie.site.handle(lie.restore())
    lie.site.handle(w.frame(Kind.START, w.control(), 0))
    assert trained == [0, 2]


def made_up(lie: Lie) -> tuple[GlobalState, Binding]:
    true = lie.w.at("A")
    state = replace(true, weights=true.weights + np.float32(1))
    return state, lie.w.control(state)


def test_a_state_that_the_combiner_made_up(lie: Lie) -> None:
    """It has no key to seal one, and no site signs that it is at it."""
    state, binding = made_up(lie)
    lie.refused(lie.restore(binding), WrongBinding)
    # With a member's help that seals and signs what it is asked to: too few say so.
    ring = lie.w.keys["C"].read()
    assert ring is not None
    body = seal_state(state, ring, binding, "C")
    sealed = seal(Frame(Kind.SEALED_STATE, binding, "C", 3, body), lie.w.identities["C"])
    ready = replace(decode(lie.ready["C"], ANYTHING), binding=binding)
    signed = seal(ready, lie.w.identities["C"])
    listed = encode_frames([None, None, signed, None])
    lie.refused(lie.restore(binding, listed, sealed), BadKeyList)
    lie.refused(lie.restore(binding, sealed=sealed), WrongBinding)
    # Under the true name of the state it does not open as that.
    body = seal_state(state, ring, lie.w.control(), "C")
    sealed = seal(Frame(Kind.SEALED_STATE, lie.w.control(), "C", 3, body), lie.w.identities["C"])
    lie.refused(lie.restore(sealed=sealed), Inconsistent)


def test_frames_that_do_not_belong_together(lie: Lie) -> None:
    w = lie.w
    for change, error in (
        ({"study_digest": bytes(32)}, WrongBinding),
        ({"round": 1}, WrongBinding),
        ({"round": 9}, WrongBinding),
        ({"attempt": 1}, WrongBinding),
        ({"phase": 1}, WrongBinding),
        ({"state_digest": bytes(32)}, WrongBinding),
        # RO-6.4: not even a later one than none.
        ({"round": 0}, Refused),
    ):
        lie.refused(lie.restore(replace(w.control(), **change)), error)  # type: ignore[arg-type]
    # Not even where all that is in it is signed for the same.
    for change in ({"study_digest": bytes(32)}, {"attempt": 1}, {"phase": 1}):
        binding = replace(w.control(), **change)  # type: ignore[arg-type]
        lie.refused(lie.signed_for(binding), WrongBinding)
    lie.refused(lie.restore(sequence=3), WrongBinding)
    frame = Frame(Kind.RESTORE, w.control(), "A", 4, Checkpoint(lie.present, b"").encode())
    with pytest.raises(PeerError, match="not among those who may speak here"):
        lie.site.handle(seal(frame, w.identities["A"]))
    lie.refused(w.frame(Kind.RESTORE, w.control(), 4), MalformedFrame)


def test_fewer_sites_than_the_threshold(lie: Lie) -> None:
    frames = [lie.ready["A"], lie.ready["B"], None, None]
    lie.refused(lie.restore(present=encode_frames(frames)), BadKeyList)


def test_a_state_sealed_by_a_site_that_is_not_in_the_list() -> None:
    lie = make_lie("ABCDEF", threshold=4)
    frames = [lie.ready.get(name) if name != "B" else None for name in "ABCDEF"]
    listed = encode_frames(frames)
    lie.refused(lie.restore(present=listed, sealed=lie.sealed("B")), BadKeyList)
    lie.site.handle(lie.restore(present=listed, sealed=lie.sealed("C")))
    assert lie.w.behind() == ""


def test_a_true_checkpoint_of_the_round_before_is_no_way_back(lie: Lie) -> None:
    """RO-6.4: what was kept and is shown again."""
    old = lie.restore()
    lie.w.round()
    lie.w.round()
    assert lie.w.behind() == ""
    lie.refused(old, Refused)


def test_a_site_without_keys_is_given_none_by_a_restore() -> None:
    lie = make_lie()
    lie.w.wipe("D")
    lie.refused(lie.restore(), Refused)


def test_a_state_is_sealed_for_the_state_that_a_site_is_at_only(lie: Lie) -> None:
    w, site = lie.w, lie.w.lines.sites["A"]
    for change in (
        {"round": 1},
        {"attempt": 1},
        {"phase": 2},
        {"state_digest": bytes(32)},
        {"study_digest": bytes(32)},
    ):
        binding = replace(w.control(), **change)  # type: ignore[arg-type]
        with pytest.raises(WrongBinding):
            site.handle(w.frame(Kind.CHECKPOINT, binding, 3))
    with pytest.raises(WrongBinding, match="sequence"):
        site.handle(w.frame(Kind.CHECKPOINT, w.control(), 4))
    with pytest.raises(MalformedFrame):
        site.handle(w.frame(Kind.CHECKPOINT, w.control(), 3, b"x"))


def test_no_state_is_sealed_under_a_key_that_has_served() -> None:
    """GK-5.1: the next key comes first."""
    lie = make_lie(rekey_every=1)
    with pytest.raises(Refused, match="has served 1 round"):
        lie.sealed("A")


@pytest.mark.parametrize("values", GROUPED, ids=NAMES)
def test_a_site_that_is_ready_but_took_no_key_is_given_that_only(values: dict[str, object]) -> None:
    """It is at the state; a checkpoint of a whole model would be for nothing."""
    w = world(**values)
    w.round()
    assert w.round(away("D", Kind.DEALT)).survivors == ("A", "B", "C")
    assert (w.asked(Kind.CHECKPOINT), w.asked(Kind.RESTORE), w.asked(Kind.JOIN)) == ("", "", "D")
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")


def test_what_the_combiner_sees_of_it_is_sealed() -> None:
    """RO-6.2: under ckks it must not learn the model this way."""
    lie = make_lie(protection="ckks")
    w = lie.w
    w.round()
    plain = w.at("A").encode()
    secrets = [s.secret for name in "ABCD" for s in w.keys[name].read().secrets]  # type: ignore[union-attr]
    seen = (
        b"".join(
            frame for frames in (*w.lines.up.values(), *w.lines.down.values()) for frame in frames
        )
        + lie.sealed()
    )
    assert not [s for s in secrets if s in seen]
    pieces = [plain[at : at + 16] for at in range(16, len(plain) - 16, 64)]
    assert len(pieces) > 5
    assert not [piece for piece in pieces if piece in seen]
