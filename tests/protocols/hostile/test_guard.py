"""What a site demands before its first key, whatever the study and the combiner say (SA-0.5)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hostile_attack import COLLUDER, VICTIM
from hostile_combiner import HostileCombiner, OpenHost, Refusal
from hostile_host import only_ours
from our_site import OurHost
from protected_sum import STAGES, make_cast

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import CombinerSession, Guard, NoJournal, Terms
from fedbcs_protocols.secagg.ephemeral import Ephemeral


@pytest.mark.parametrize("sites", range(3, 10))
def test_numbers_below_the_bound_are_refused_before_any_key(
    open_host: OpenHost, sites: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_key(cls: type[Ephemeral]) -> Ephemeral:
        raise AssertionError("a key was made")

    made = Ephemeral.generate
    refused, admitted = [], []
    for threshold in range(1, sites + 1):
        for colluders in range(1, sites):
            cast = make_cast(sites, threshold, colluders)
            host = open_host(cast.sites[VICTIM], VICTIM, cast.guard)
            safe = threshold >= 3 and threshold - colluders >= 2
            # In words: two sets of t sites share one that does not collude.
            if safe and 2 * (threshold - colluders) > sites - colluders:
                assert host.open(cast.setting).advertise()
                admitted.append((threshold, colluders))
                continue
            monkeypatch.setattr(Ephemeral, "generate", classmethod(no_key))
            with pytest.raises(Refusal) as caught:
                host.open(cast.setting)
            monkeypatch.setattr(Ephemeral, "generate", made)
            assert caught.value.kind == "Refused"
            refused.append((threshold, colluders))
    assert (sites, 1) in admitted
    assert (sites // 2, 1) in refused
    assert (sites, sites - 1) in refused


def test_a_study_without_colluders_does_not_exist() -> None:
    with pytest.raises(LocalError):
        Terms(6, 4, 0)


@pytest.mark.parametrize(
    ("threshold", "verified", "accepted"),
    # Six sites, c = 1: with u unverified it takes 2t > 7 + u and t > 2 + u.
    [(4, 6, True), (4, 5, False), (5, 4, True), (5, 3, False), (6, 3, True), (6, 2, False)],
)
def test_sites_that_nobody_verified_count_as_colluding(
    open_host: OpenHost, threshold: int, verified: int, accepted: bool
) -> None:
    cast = make_cast(6, threshold, 1)
    # The site knows itself, listed or not.
    prints = [identity.fingerprint for identity in cast.roster.values()][1:verified]
    host = open_host(cast.sites[VICTIM], VICTIM, Guard(frozenset(prints)))
    if accepted:
        assert host.open(cast.setting).advertise()
        return
    with pytest.raises(Refusal) as caught:
        host.open(cast.setting)
    assert caught.value.kind == "Refused"


def test_fingerprints_of_strangers_do_not_count(open_host: OpenHost) -> None:
    cast = make_cast(6)
    others = {f"{i}" * 79 for i in range(6)}
    host = open_host(cast.sites[VICTIM], VICTIM, Guard(frozenset(others)))
    with pytest.raises(Refusal):
        host.open(cast.setting)


@pytest.mark.parametrize(
    ("demand", "accepted"),
    [
        ({"colluders": 2}, False),
        ({"colluders": 1}, True),
        ({"min_sites": 4}, True),
        ({"min_sites": 5}, False),
    ],
)
def test_a_sites_own_minima(open_host: OpenHost, demand: dict[str, int], accepted: bool) -> None:
    cast = make_cast(6, 4, 1)
    host = open_host(cast.sites[VICTIM], VICTIM, replace(cast.guard, **demand))
    if accepted:
        assert host.open(cast.setting).advertise()
        return
    with pytest.raises(Refusal) as caught:
        host.open(cast.setting)
    assert caught.value.kind == "Refused"


def test_too_few_verified_survivors(open_host: OpenHost) -> None:
    """Enough sites, but too few whom the victim knows: it does not sign."""
    cast = make_cast(6, 6, 1)
    prints = [cast.roster[f"site{i}"].fingerprint for i in (0, 1, 2)]
    for minimum, accepted in ((3, True), (4, False)):
        guard = Guard(frozenset(prints), min_sites=minimum)
        script = HostileCombiner(cast, open_host, colluders=[COLLUDER])
        script.hosts[VICTIM] = open_host(cast.sites[VICTIM], VICTIM, guard)
        script.play("consistency")
        if accepted:
            assert script.play("finished", start="consistency").came["unmask"]
            continue
        with pytest.raises(Refusal) as caught:
            script.site(VICTIM).consistency(script.survivors())
        assert caught.value.kind == "Refused"
        assert not script.site(VICTIM).holds_secrets()


SETS = [chosen for size in range(6) for chosen in combinations("01234", size)]
"""All sets of five sites."""


def test_a_threshold_of_the_servers_does_not_matter(open_host: OpenHost) -> None:
    """A combiner that was started with t = 2: its frames carry no t, and the sites keep theirs."""
    script = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER])
    low = replace(script.setting, terms=replace(script.setting.terms, threshold=2))
    combiner = CombinerSession(low, identity=script.cast.combiner, journal=NoJournal())
    few = (VICTIM, "site1", COLLUDER)
    for name in few:
        combiner.receive(script.ask(name, "advertise", b""))
    combiner.close()
    for name in few[:2]:
        with pytest.raises(Refusal) as caught:
            script.site(name).share(combiner.requests[name])
        assert (caught.value.kind, caught.value.sender) == ("BadKeyList", "@combiner")


@pytest.mark.parametrize(
    ("stage", "refused_in", "kind"),
    [("share", "masked_input", "BadSiteList"), ("masked_input", "consistency", "BadSiteList")],
)
def test_a_low_threshold_shows_in_the_next_stage(
    open_host: OpenHost, stage: str, refused_in: str, kind: str
) -> None:
    script = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER])
    script.gone[stage] |= {"site2", "site3", "site4"}
    script.play(refused_in)
    with pytest.raises(Refusal) as caught:
        script.ask(VICTIM, refused_in, script.honest(refused_in, VICTIM))
    assert caught.value.kind == kind
    assert not script.site(VICTIM).holds_secrets()


def test_a_certificate_of_a_low_threshold(open_host: OpenHost) -> None:
    script = HostileCombiner(make_cast(6), open_host, colluders=[COLLUDER])
    script.gone["consistency"] |= {"site2", "site3", "site4"}
    script.play("unmask")
    with pytest.raises(Refusal) as caught:
        script.site(VICTIM).unmask(script.certificate())
    assert caught.value.kind == "BadSiteList"


def _said(threshold: int, came: dict[str, dict[str, bytes]]) -> list[tuple[str, bytes]]:
    """What a combiner with this t sends, and to whom, when it gets these frames of the sites."""
    cast = make_cast(6, threshold, 1)
    session = CombinerSession(cast.setting, identity=cast.combiner, journal=NoJournal())
    said: list[tuple[str, bytes]] = []
    for stage in STAGES[:-1]:
        for frame in came[stage].values():
            session.receive(frame)
        session.close()
        said += session.requests.items()
    return said


def test_no_frame_of_the_combiners_carries_a_threshold(open_host: OpenHost) -> None:
    """Combiners with t = 4 and t = 6 write the same bytes, so there is no t in them to forge."""
    came = HostileCombiner(make_cast(6, 4, 1), open_host).play("unmask").came
    four, six = _said(4, came), _said(6, came)
    assert len(four) == 4 * 6
    assert four == six


@pytest.mark.parametrize("chosen", SETS, ids=lambda chosen: "".join(chosen) or "none")
@pytest.mark.parametrize("stage", ["share", "masked_input", "consistency", "unmask"])
def test_no_set_of_fewer_than_t(open_host: OpenHost, stage: str, chosen: tuple[str, ...]) -> None:
    """Whichever of five sites a frame names, with t = 4 it takes four: all sets are tried."""
    names = [f"site{i}" for i in chosen]
    script = HostileCombiner(make_cast(5, 4, 1), open_host, colluders=["site4"]).play(stage)
    match stage:
        case "share":
            absent = dict.fromkeys(set(script.cast.sites) - set(names))
            frame = script.key_list(absent)
        case "masked_input":
            frame = script.delivery(VICTIM, names)
        case "consistency":
            frame = script.survivors(names)
        case _:
            signatures = script.signatures()
            frame = script.certificate(signatures={name: signatures[name] for name in names})
    # Others' signatures are as good as the victim's own.
    if len(names) >= 4 and (VICTIM in names or stage == "unmask"):
        assert script.ask(VICTIM, stage, frame)
        return
    with pytest.raises(Refusal) as caught:
        script.ask(VICTIM, stage, frame)
    assert caught.value.kind == ("BadKeyList" if stage == "share" else "BadSiteList")


@only_ours("it is about this repository's guard")
def test_our_guard_is_asked_by_every_session() -> None:
    """The collusion tests lift it; here it is in place."""
    cast = make_cast(4, 3, 2)
    with pytest.raises(Refusal):
        OurHost(cast.sites[VICTIM], VICTIM, cast.guard).open(cast.setting)
