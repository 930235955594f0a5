"""Attacks that only a sparse graph offers (SA-9): 200 sites, t = 180, c = 1; 33 holders, 19 give.

Everybody but the victim is played by the script.
"""

from __future__ import annotations

import pytest
from hostile_attack import VICTIM
from hostile_combiner import HostileCombiner, OpenHost, Refusal
from hostile_host import only_ours
from protected_sum import Cast, make_cast
from thief import Thief

from fedbcs_protocols.secagg import Guard


class Sparse:
    """A sum of 200 sites as far as the victim is concerned."""

    def __init__(self, open_host: OpenHost) -> None:
        self.names = [f"site{i}" for i in range(200)]
        cast = make_cast(200, 180, 1, bits=24, count=3)
        self.script = HostileCombiner(cast, open_host, colluders=self.names[1:])
        self.graph = cast.terms.graph
        self.script.play("share")

    def shared(self) -> Sparse:
        """Shares from everybody whose shares the victim holds."""
        script = self.script
        key_list = script.key_list()
        script.came["share"][VICTIM] = script.site(VICTIM).share(key_list)
        table = script.table(VICTIM)
        self.holders = [self.names[place] for place in sorted(table.holders(0))]
        owners = [self.names[place] for place in table.owners(0)]
        for name in owners:
            script.came["share"][name] = script.ask(name, "share", key_list)
        return self

    def without_holders(self, count: int) -> list[str]:
        """All sites but so many of the victim's holders."""
        out = set(self.holders[:count])
        return [name for name in self.names if name not in out]

    def refused(self, stage: str, frame: bytes) -> Refusal:
        with pytest.raises(Refusal) as caught:
            self.script.ask(VICTIM, stage, frame)
        return caught.value


@pytest.fixture
def sparse(open_host: OpenHost) -> Sparse:
    return Sparse(open_host)


def test_the_numbers(sparse: Sparse) -> None:
    """More sites may leave than the victim can spare holders; else there were nothing to test."""
    assert (sparse.graph.size, sparse.graph.threshold) == (33, 19)
    assert sparse.graph.size - sparse.graph.threshold < 200 - 180


def test_a_draw_that_is_none(sparse: Sparse) -> None:
    """A colluder that draws itself, or more or fewer sites than k."""
    script = sparse.script
    draws = {"itself": range(33), "more": range(10, 44), "fewer": range(10, 42)}
    for drawn in draws.values():
        bad = script.colluders["site5"].advertise(drawn=frozenset(drawn))
        other = HostileCombiner(script.cast, script.open_host, colluders=sparse.names[1:])
        other.came["advertise"][VICTIM] = other.site(VICTIM).advertise()
        listed = {**script.came["advertise"], **other.came["advertise"], "site5": bad}
        with pytest.raises(Refusal) as caught:
            other.site(VICTIM).share(other.key_list(listed))
        assert (caught.value.kind, caught.value.sender) == ("MalformedFrame", "site5")


def test_too_few_of_the_victims_holders_in_the_key_list(sparse: Sparse) -> None:
    """With 14 left out it goes on, with 15 it does not."""
    script = sparse.script
    drawn = [sparse.names[place] for place in sorted(script.table(VICTIM).holders(0))]
    refused = sparse.refused("share", script.key_list(dict.fromkeys(drawn[:15])))
    assert (refused.kind, refused.sender) == ("BadKeyList", "@combiner")
    assert not script.site(VICTIM).holds_secrets()
    again = HostileCombiner(
        script.cast.changed(attempt=1),
        script.open_host,
        colluders=sparse.names[1:],
        hosts=script.hosts,
    ).play("share")
    drawn = [sparse.names[place] for place in sorted(again.table(VICTIM).holders(0))]
    assert again.site(VICTIM).share(again.key_list(dict.fromkeys(drawn[:14])))


@pytest.mark.parametrize("stage", ["share", "masked_input", "consistency"])
def test_fewer_than_t_sites_with_all_of_the_victims_holders(sparse: Sparse, stage: str) -> None:
    """The study's t counts beside the local one: 179 sites are too few at every stage."""
    script = sparse.script
    drawn = script.table(VICTIM).holders(0)
    out = [name for name in sparse.names[1:] if script.place(name) not in drawn][:21]
    few = [name for name in sparse.names if name not in out]
    if stage == "share":
        frame = script.key_list(dict.fromkeys(out))
    elif stage == "masked_input":
        frame = sparse.shared().script.delivery(VICTIM, few)
    else:
        delivery = sparse.shared().script.delivery(VICTIM, sparse.names)
        script.ask(VICTIM, "masked_input", delivery)
        frame = script.survivors(few)
    refused = sparse.refused(stage, frame)
    expected = "BadKeyList" if stage == "share" else "BadSiteList"
    assert (refused.kind, refused.sender) == (expected, "@combiner")


def test_too_few_of_the_victims_holders_among_the_sharers(sparse: Sparse) -> None:
    sparse.shared()
    frame = sparse.script.delivery(VICTIM, sparse.without_holders(15))
    refused = sparse.refused("masked_input", frame)
    assert (refused.kind, refused.sender) == ("BadSiteList", "@combiner")
    assert not sparse.script.site(VICTIM).holds_secrets()


def test_too_few_of_the_victims_holders_among_the_survivors(sparse: Sparse) -> None:
    """With 14 gone it goes on, with 15 it does not."""
    sparse.shared()
    script = sparse.script
    frame = script.delivery(VICTIM, sparse.without_holders(14))
    assert script.ask(VICTIM, "masked_input", frame)
    refused = sparse.refused("consistency", script.survivors(sparse.without_holders(15)))
    assert (refused.kind, refused.sender) == ("BadSiteList", "@combiner")


def test_just_enough_of_the_victims_holders(sparse: Sparse) -> None:
    sparse.shared()
    script = sparse.script
    script.ask(VICTIM, "masked_input", script.delivery(VICTIM, sparse.names))
    assert script.ask(VICTIM, "consistency", script.survivors(sparse.without_holders(14)))


def _mostly_strangers() -> Cast:
    return make_cast(34, 31, 1, bits=24, count=3)


def test_a_graph_is_sized_for_the_studys_colluders_only(open_host: OpenHost) -> None:
    """34 sites, t = 31, c = 1: 2t > n + 27 holds, but 26 strangers hold 8 of a site's 11 shares.

    So the guard, which counts sites that nobody verified, must look at the graph as well.
    """
    cast = _mostly_strangers()
    known = [cast.roster[f"site{i}"].fingerprint for i in range(8)]
    host = open_host(cast.sites[VICTIM], VICTIM, Guard(frozenset(known)))
    with pytest.raises(Refusal) as caught:
        host.open(cast.setting)
    assert caught.value.kind == "Refused"


@only_ours("this repository's guard is lifted")
def test_a_graph_with_more_colluders_than_it_is_sized_for(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the guard lifted: both secrets are there as soon as the shares are dealt."""
    cast = _mostly_strangers()
    monkeypatch.setattr(Guard, "admit", lambda *arguments: None)
    script = HostileCombiner(cast, open_host, colluders=[f"site{i}" for i in range(8, 34)])
    script.play("consistency")
    thief = Thief(script)
    read = 0
    for name in [f"site{i}" for i in range(8)]:
        seed, key = thief.seed(name), thief.key(name)
        if seed is not None and key is not None:
            vector = thief.without_self(name, thief.without_pairs(name, key), seed)
            assert vector.tolist() == script.vectors[name].tolist()
            read += 1
    # A site draws 11 of 33, 7 of them honest: at most three honest ones with a chance of 0.85.
    # That none of eight does has a chance of 2e-07.
    assert read
