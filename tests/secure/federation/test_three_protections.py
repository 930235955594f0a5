"""Three ways to a sum, and the one in the clear: the same states, whoever vanishes and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from federation_fixtures import ANYTHING, fake_training, make_study
from federation_world import GROUPED, PROTECTIONS, World, away, world

from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.dropouts import STAGES, Drop
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.memory import MemoryFederation, RoundOutcome
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
PROTECTED = [name for name in PROTECTIONS if name != "none"]
SENDS = STAGES.index("masked_input")
"""Whoever vanishes before this stage is over has sent no vector."""


def play(
    start: Start, names: str, drops: list[Drop], rounds: int, protection: str, **values: object
) -> list[RoundOutcome]:
    study = make_study(names, rounds=rounds, **(PROTECTIONS[protection] | values))
    plan, state = start(study)
    federation, outcomes = MemoryFederation(study, plan, fake_training, drops), []
    for _ in range(rounds):
        outcomes.append(federation.run_round(state))
        state = outcomes[-1].state
    return outcomes


def turns(names: str, rounds: int, gone: int) -> list[Drop]:
    """In each round other sites vanish, each at a later stage than the one before it.

    Each is back in the round after, or vanishes again in it at another stage.
    """
    drops = []
    for round in range(rounds):
        for index in range(gone):
            site = names[(round + index) % len(names)]
            drops.append(Drop(site, STAGES[(round + 3 * index) % len(STAGES)], round))
    return drops


def in_the_sum(names: str, drops: list[Drop], round: int) -> tuple[str, ...]:
    gone = {d.site for d in drops if d.round == round and STAGES.index(d.stage) <= SENDS}
    return tuple(name for name in names if name not in gone)


@pytest.mark.parametrize(
    ("names", "gone", "rekey_every"),
    [("ABCD", 1, 1), ("ABCD", 1, 100), ("ABCDEFG", 2, 2)],
)
def test_drops_at_every_stage_give_the_same_states_under_all_protections(
    start: Start, names: str, gone: int, rekey_every: int
) -> None:
    """RO-3.3, RO-4.1: bit for bit, over rounds in which as many are gone as may be."""
    rounds = len(STAGES) + 1
    assert len(names) - make_study(names).terms[0] == gone
    drops = turns(names, rounds, gone)
    assert {drop.stage for drop in drops} == set(STAGES)
    values = {"rekey_every": rekey_every, "server_momentum": 0.5}
    plain = play(start, names, drops, rounds, "none", **values)
    for protection in PROTECTED:
        outcomes = play(start, names, drops, rounds, protection, **values)
        for round, (one, other) in enumerate(zip(outcomes, plain, strict=True)):
            about = (protection, round)
            assert one.state.encode() == other.state.encode(), about
            assert one.survivors == in_the_sum(names, drops, round), about
            assert one.attempts == 1, about


ENDS = {
    "verified": STAGES[:-1],
    "unverified": STAGES[:-1],
    "ckks": STAGES,
    "none": STAGES[: SENDS + 1],
}
"""The stages from which on a round needs a threshold of sites: where it still asks for something.

A sum is complete though nobody hears it, but under ckks only the sites know where it led to.
"""


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_one_more_than_may_be_gone_ends_the_round_while_sites_are_needed(
    start: Start, protection: str
) -> None:
    for stage in STAGES:
        drops = [Drop(site, stage, 0) for site in "BC"]
        if stage in ENDS[protection]:
            with pytest.raises(RoundError):
                play(start, "ABCD", drops, 1, protection)
        else:
            assert play(start, "ABCD", drops, 1, protection)[0].survivors == tuple("ABCD"), stage


# A deal that is lost -----------------------------------------------------------------------------


class LosesDeals:
    """The reply to *present* is lost, and its site hears nothing more in that round."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.lost = ""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            if name == self.lost:
                continue
            for site, reply in self.w.lines.exchange({name: request}):
                if not self.lost and decode(request, ANYTHING).kind is Kind.PRESENT:
                    self.lost = site
                    continue
                yield site, reply


@pytest.mark.parametrize("rekey_every", [1, 100])
@pytest.mark.parametrize("protection", GROUPED)
@pytest.mark.parametrize("times", [1, 3])
def test_a_dealer_whose_deal_is_lost_comes_back(
    protection: str, rekey_every: int, times: int
) -> None:
    """GK-4.4, GK-7.5: it keeps a key that nobody else has."""
    w, calm = (world(rekey_every=rekey_every, **GROUPED[protection]) for _ in range(2))
    for each in (w, calm):
        each.round()
        # Where a key goes on for long, one is due only when somebody comes or goes.
        each.round(away("D"))
    for _ in range(times):
        channel = LosesDeals(w)
        result = w.combiner.run(channel, w.state)
        w.state = result.state
        assert (channel.lost, result.survivors, result.faults) == ("A", ("B", "C", "D"), {})
        # What it dealt last is nobody else's, and perhaps for an epoch that others have, too.
        (others,) = {w.ring(name).secrets for name in "BCD"}
        assert w.ring("A").secrets[-1].secret not in {secret.secret for secret in others}
        calm.round(away("A"))
    # It is not even missed once more.
    result = w.round()
    calm.round()
    assert result.survivors == tuple("ABCD")
    assert (w.behind(), w.lines.errors, result.faults) == ("", [], {})
    # What it dealt to nobody serves no sum, and the states are those of a site that was away.
    assert w.at("A").encode() == calm.at("A").encode()
    assert len({w.ring(name).secrets[-1] for name in "ABCD"}) == 1
    assert w.round().survivors == tuple("ABCD")


@pytest.mark.parametrize("protection", GROUPED)
def test_a_dealer_that_is_ahead_of_the_others_takes_their_keys_all_the_same(
    protection: str,
) -> None:
    """GK-4.4: it dealt epochs 2 to 4 to nobody, then missed epochs 2 and 3 of the others."""
    w = world("ABCDEFG", threshold=5, rekey_every=100, **GROUPED[protection])
    w.round(away("A"))
    for epoch in (2, 3, 4):
        # Without A the others have the key that they need.
        w.state = w.combiner.run(LosesDeals(w), w.state).state
        assert [w.ring(name).epoch for name in "AB"] == [epoch, 1]
    for others in ("AE", "A"):
        w.round(away(others))
    assert [w.ring(name).epoch for name in "AB"] == [4, 3]
    assert w.round().survivors == tuple("ABCDEFG")
    assert (w.behind(), w.lines.errors) == ("", [])
    assert {w.ring(name).secrets[-1].epoch for name in "ABCDEFG"} == {5}
