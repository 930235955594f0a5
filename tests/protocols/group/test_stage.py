"""Whole key stages, frame by frame, without a network."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hostile_group import ANY, GroupCast, Stage, identity, make_group

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import (
    BadKey,
    BadKeyList,
    Inconsistent,
    LocalError,
    Refused,
    TooFewSites,
    UnexpectedFrame,
)
from fedbcs_protocols.group import Group, KeyRing, KeyStage, MemoryKeys
from fedbcs_protocols.group.messages import Taken
from fedbcs_protocols.wire import Frame, Kind, decode


def agreed(cast: GroupCast, names: set[str]) -> tuple[int, bytes]:
    """Epoch and name of the one key that all these have."""
    secrets = {cast.site(name).usable(cast.control.round) for name in names}
    assert len(secrets) == 1
    (secret,) = secrets
    assert secret.members == {cast.names.index(name) for name in names}
    assert secret.began <= cast.control.round
    return secret.epoch, secret.key_id


def test_every_size() -> None:
    for sites in (3, 4, 9, 40):
        stage = Stage(make_group(sites)).run()
        cast, names = stage.cast, set(stage.cast.names)
        epoch, key_id = agreed(cast, names)
        assert epoch == 1
        assert (stage.combiner.holders, stage.combiner.key_id) == (names, key_id)
        assert stage.combiner.attempt == 0
        assert not stage.combiner.waiting
        # ready each, present, deal, dealt once, taken each but the dealer's.
        assert len(stage.frames) == sites + 3 + sites - 1
        kinds = [decode(frame, ANY).kind for frame in stage.frames]
        assert kinds[sites : sites + 3] == [Kind.PRESENT, Kind.DEAL, Kind.DEALT]
        assert set(kinds[sites + 3 :]) == {Kind.TAKEN}


def test_a_key_that_goes_on_needs_no_word_more() -> None:
    """GK-2.4; and after rekey_every rounds it is changed, whoever is there (GK-5.1)."""
    cast, seen = make_group(4, rekey_every=3), []
    for round in range(7, 14):
        now = cast.at(round)
        stage = Stage(now).run()
        assert (len(stage.frames) > 4) == (round in (7, 10, 13))
        assert stage.combiner.holders == set(cast.names)
        seen.append(agreed(now, set(cast.names)))
        assert seen[-1][1] == stage.combiner.key_id
    assert [epoch for epoch, _ in seen] == [1, 1, 1, 2, 2, 2, 3]
    assert len({key_id for _, key_id in seen}) == 3


def test_a_key_for_each_round() -> None:
    cast = make_group(3, rekey_every=1)
    for epoch, round in enumerate(range(7, 11), start=1):
        Stage(cast.at(round)).run()
        assert agreed(cast.at(round), set(cast.names))[0] == epoch


def test_a_key_is_not_used_longer_than_the_study_says() -> None:
    """GK-5.1: whatever the combiner says."""
    cast = make_group(4, rekey_every=3)
    site = Stage(cast).run().sites["site1"]
    for round in (7, 8, 9):
        assert site.usable(round).epoch == 1
    for round in (10, 11, 1000):
        with pytest.raises(Refused, match="has served 3 round"):
            site.usable(round)


def test_somebody_is_missing_and_comes_back() -> None:
    """GK-2.4: members are who is there, so a key is for no one else."""
    cast, keys = make_group(5), []
    everybody = set(cast.names)
    for round, names in enumerate(
        (everybody, everybody - {"site4"}, everybody - {"site4"}, everybody), start=7
    ):
        now = cast.at(round)
        Stage(now, [name for name in cast.names if name in names]).run()
        keys.append(agreed(now, names))
    assert [epoch for epoch, _ in keys] == [1, 2, 2, 3]
    # Who was away kept what it had, and no more.
    assert [s.epoch for s in cast.ring("site4").secrets] == [1, 3]
    assert [s.epoch for s in cast.ring("site0").secrets] == [1, 2, 3]


def test_the_first_site_that_is_ready_deals() -> None:
    """GK-2.5"""
    cast = make_group(5)
    stage = Stage(cast, ["site2", "site3", "site4", "site1"]).run()
    assert stage.combiner.sites == ("site1", "site2", "site3", "site4")
    assert decode(stage.deal, ANY).sender == "site1"


def test_a_key_that_was_given_up() -> None:
    """GK-2.4, GK-6.2"""
    cast = make_group(4)
    Stage(cast).run()
    epoch, key_id = agreed(cast, set(cast.names))
    site = cast.site("site2")
    site.burn(key_id)
    with pytest.raises(Refused, match="no key of the group's that it may use"):
        site.usable(7)
    assert cast.ring("site2").refusals == 1
    again = cast.at(8)
    Stage(again).run()
    new, name = agreed(again, set(cast.names))
    assert (new, name != key_id) == (epoch + 1, True)
    assert cast.ring("site2").find(key_id) is None
    assert cast.ring("site1").find(key_id) is not None


def test_keys_that_were_lost() -> None:
    """A site's disk is gone: it has no key, so there is a new one, of an epoch that is new."""
    cast = make_group(4)
    Stage(cast).run()
    cast.keepers["site0"] = MemoryKeys()
    Stage(cast).run()
    assert agreed(cast, set(cast.names))[0] == 2
    # All of them: epochs begin again, and so do their keys.
    cast.keepers.clear()
    Stage(cast).run()
    assert agreed(cast, set(cast.names))[0] == 1


def test_three_refusals_and_no_more_ready() -> None:
    """GK-6.3"""
    cast = make_group(4)
    for round in (7, 8, 9):
        now = cast.at(round)
        Stage(now).run()
        now.site("site2").burn(agreed(now, set(cast.names))[1])
    site = cast.at(10).site("site2")
    for call in (lambda: site.ready(cast.at(10).control), lambda: site.usable(10)):
        with pytest.raises(Refused, match="until a person has looked"):
            call()
    rest = [name for name in cast.names if name != "site2"]
    Stage(cast.at(10), rest).run()
    site.keep(site.ring.approved())
    Stage(cast.at(11)).run()
    assert agreed(cast.at(11), set(cast.names))[0] == 5


def test_a_dealer_that_does_not_answer_is_passed_over() -> None:
    """GK-7.5"""
    cast = make_group(5)
    stage = Stage(cast).ready().ask()
    assert stage.combiner.dealer == "site0"
    stage.combiner.without("site0")
    assert stage.combiner.dealer == "site1"
    # The list is another one now, and nobody has seen it.
    with pytest.raises(LocalError, match="nobody was asked"):
        stage.combiner.dealt(stage.deal)
    stage.ask().make().take()
    rest = set(cast.names) - {"site0"}
    assert stage.combiner.holders == rest
    assert agreed(cast, rest)[0] == 1
    Stage(cast.at(8)).run()
    assert agreed(cast.at(8), set(cast.names))[0] == 2


def test_a_dealer_whose_answer_was_lost() -> None:
    """It has the key of an epoch that nobody else has, so the next is above that one (GK-3.6)."""
    cast = make_group(4)
    stage = Stage(cast).ready().ask()
    stage.sites["site0"].deal(stage.present, cast.control)
    alone = cast.ring("site0").current
    stage.combiner.without("site0")
    stage.ask().make().take()
    assert agreed(cast, {"site1", "site2", "site3"})[0] == 1
    assert cast.ring("site0").current == alone
    Stage(cast.at(8)).run()
    epoch, key_id = agreed(cast.at(8), set(cast.names))
    assert epoch == 2
    assert alone is not None
    assert key_id != alone.key_id


def test_only_those_that_took_the_key_take_part() -> None:
    """GK-3.7"""
    cast = make_group(5)
    stage = Stage(cast).ready().ask().make().take(["site1", "site3"])
    assert stage.combiner.holders == {"site0", "site1", "site3"}
    assert stage.combiner.waiting == ("site2", "site4")
    Stage(cast.at(8)).run()
    assert agreed(cast.at(8), set(cast.names))[0] == 2


def test_too_few_are_ready() -> None:
    """GK-3.2"""
    cast = make_group(5, threshold=4)
    stage = Stage(cast, ["site0", "site1", "site2"]).ready()
    with pytest.raises(TooFewSites, match="3 of 5 sites are ready, the threshold is 4"):
        _ = stage.combiner.dealer
    four = Stage(cast, ["site0", "site1", "site2", "site4"]).ready()
    four.combiner.without("site4")
    with pytest.raises(TooFewSites):
        _ = four.combiner.dealer


def test_the_first_attempt_is_one_that_all_take_part_in() -> None:
    """GK-2.1, GK-5.2"""
    cast = make_group(4)
    Stage(cast).run()
    for name, attempt in (("site1", 3), ("site2", 2)):
        site = cast.site(name)
        site.keep(site.ring.uploading(replace(cast.control, attempt=attempt)))
    stage = Stage(cast).run()
    assert (stage.combiner.dealer, stage.combiner.attempt) == (None, 4)
    assert Stage(cast.at(8)).run().combiner.attempt == 0


def test_no_deal_is_taken_once_the_sum_has_begun() -> None:
    """GK-3.3"""
    cast = make_group(4)
    stage = Stage(cast).ready()
    stage.ask().make()
    late, request = stage.sites["site2"], stage.combiner.dealt_frame()
    late.end_stage()
    with pytest.raises(UnexpectedFrame, match="not waiting for"):
        late.take(request, cast.control)


def test_one_site_does_not_use_the_attempts_up() -> None:
    """GK-2.6: it is believed up to one more than the next; alone further on, it misses that one."""
    cast = make_group(4)
    Stage(cast).run()

    def went_to(name: str, attempt: int) -> int:
        site = cast.site(name)
        site.keep(site.ring.uploading(replace(cast.control, attempt=attempt)))
        return Stage(cast).run().combiner.attempt

    assert went_to("site3", 14) == 1
    assert went_to("site1", 0) == 2
    assert went_to("site1", 5) == 7
    # Two are believed.
    assert went_to("site2", 14) == 15
    # There is no sixteenth; who has answered in the last refuses it.
    assert went_to("site2", 15) == went_to("site1", 15) == 15


# What is kept before what is sent (GK-5.3) -------------------------------------------------------


class FullDisk(MemoryKeys):
    def write(self, ring: KeyRing) -> None:
        raise OSError("no space left")


def test_nothing_leaves_that_is_not_kept() -> None:
    """GK-5.3, GK-3.7"""
    cast = make_group(4)
    cast.keepers["site0"] = FullDisk()
    stage = Stage(cast).ready().ask()
    with pytest.raises(OSError, match="no space"):
        stage.make()
    cast = make_group(4)
    cast.keepers["site2"] = FullDisk()
    stage = Stage(cast).ready().ask().make()
    with pytest.raises(OSError, match="no space"):
        stage.take(["site2"])
    assert "site2" not in stage.combiner.holders


def test_a_process_that_was_started_anew() -> None:
    """What it keeps goes on; the exchange key of its last *ready* does not (GK-3.3)."""
    cast = make_group(4)
    stage = Stage(cast).ready().ask().make()
    with pytest.raises(BadKeyList, match="own frame was replaced"):
        cast.site("site1").take(stage.dealt, cast.control)
    stage.take()
    assert cast.site("site1").usable(7) == stage.sites["site1"].usable(7)


def test_keys_of_another_study() -> None:
    cast = make_group(4)
    Stage(cast).run()
    for ring in (KeyRing(bytes(32), 4), KeyRing(cast.control.study_digest, 5)):
        cast.site("site1").keep(ring)
        for call in (
            lambda: cast.site("site1").ready(cast.control),
            lambda: cast.site("site1").usable(7),
        ):
            with pytest.raises(Refused, match="another study's"):
                call()


# Frames of sites that the combiner does not take -------------------------------------------------


def test_ready_twice_or_too_late() -> None:
    cast = make_group(4)
    stage = Stage(cast, ["site0", "site1", "site2"]).ready()
    with pytest.raises(UnexpectedFrame, match="twice"):
        stage.combiner.ready("site1", stage.readies["site1"])
    stage.ask()
    late = cast.site("site3").ready(cast.control)
    with pytest.raises(UnexpectedFrame, match="too late"):
        stage.combiner.ready("site3", late)
    assert stage.combiner.sites == ("site0", "site1", "site2")


def test_another_sites_exchange_key() -> None:
    """GK-2.3: the second site that shows the same is not ready."""
    cast = make_group(4)
    stage = Stage(cast).ready()
    fresh = KeyStage(cast.group, identity=cast.boss, control=cast.control)
    fresh.ready("site0", stage.readies["site0"])
    copied = decode(stage.readies["site0"], ANY)
    copy = cast.signed("site3", replace(copied, sender="site3"))
    with pytest.raises(BadKey, match="another site's") as caught:
        fresh.ready("site3", copy)
    assert caught.value.sender == "site3"
    assert fresh.sites == ("site0",)


def test_answers_that_do_not_fit() -> None:
    """GK-3.7"""
    cast = make_group(4)
    stage = Stage(cast).ready().ask().make()
    key_id = stage.combiner.key_id
    for body in (Taken(2, key_id), Taken(1, b"k" * 32), Taken(0, bytes(32))):
        frame = Frame(Kind.TAKEN, cast.binding, "site1", 1, body.encode())
        with pytest.raises(Inconsistent, match="another key") as caught:
            stage.combiner.taken("site1", cast.signed("site1", frame))
        assert caught.value.sender == "site1"
    assert stage.combiner.holders == {"site0"}
    with pytest.raises(LocalError, match="nobody was asked"):
        Stage(cast).ready().combiner.dealt(stage.deal)


def test_misuse() -> None:
    cast = make_group(4)
    roster, boss = cast.group.roster, cast.group.combiner
    for threshold, every in ((0, 1), (5, 1), (3, 0), (-1, 1)):
        with pytest.raises(LocalError):
            Group(roster, boss, threshold, every)
    with pytest.raises(LocalError, match="not the combiner's"):
        KeyStage(cast.group, identity=identity("site0"), control=cast.control)


def test_the_phase_and_attempt_of_the_stage() -> None:
    """The stage has a phase of its own, so that no frame of it is one of a sum or a round."""
    cast = make_group(3)
    stage = Stage(replace(cast, control=replace(cast.control, attempt=0))).run()
    for frame in stage.frames:
        binding: Binding = decode(frame, ANY).binding
        phase = 0 if decode(frame, ANY).kind is Kind.READY else 2
        assert binding == replace(cast.control, phase=phase)
