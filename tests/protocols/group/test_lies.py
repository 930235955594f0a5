"""A combiner with its true key that lies in the key stage, and dealers that do (GK-3, GK-4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hostile_group import ANY, GroupCast, Stage, identity, make_group

from fedbcs_protocols.errors import (
    BadKey,
    BadKeyList,
    BadShare,
    BadSignature,
    Inconsistent,
    MalformedFrame,
    PeerError,
    Refused,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.group import KeyRing, Standing, Status
from fedbcs_protocols.group.messages import Deal
from fedbcs_protocols.wire import Frame, Kind, decode, seal

BOSS = "@combiner"
OTHER_BINDINGS = (
    ({"round": 9}, "round"),
    ({"attempt": 1}, "attempt"),
    ({"phase": 1}, "phase"),
    ({"state_digest": bytes(32)}, "state digest"),
    ({"study_digest": bytes(32)}, "study digest"),
)


def refused(
    call: Callable[[], object], error: type[PeerError], sender: str, match: str = ""
) -> None:
    with pytest.raises(error, match=match or None) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.sender == sender


@pytest.fixture
def stage() -> Stage:
    """Up to the deal, among five sites that have had a key before; site1 is the victim."""
    cast = make_group(5, threshold=4)
    Stage(cast).run()
    return Stage(cast.at(10)).ready().ask().make()


class Victim:
    """site1, which takes the true deal after every lie as if nothing had come."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.site = stage, stage.sites["site1"]

    def refuses(self, frame: bytes, error: type[PeerError], sender: str, match: str = "") -> None:
        before = self.site.ring
        refused(lambda: self.site.take(frame, self.stage.cast.control), error, sender, match)
        assert self.site.ring == before

    def still_takes_the_truth(self) -> None:
        self.site.take(self.stage.dealt, self.stage.cast.control)
        assert self.site.usable(10).key_id == self.stage.combiner.key_id


@pytest.fixture
def victim(stage: Stage) -> Victim:
    return Victim(stage)


def changed_list(stage: Stage, **frames: bytes | None) -> bytes:
    return stage.cast.present({**stage.readies, **frames})


# Lists (GK-3.1 to GK-3.3) ------------------------------------------------------------------------


def test_the_victims_own_frame(stage: Stage, victim: Victim) -> None:
    """GK-3.3: left out, an old one, one of another process, one that the combiner made."""
    cast = stage.cast
    twin = cast.site("site1").ready(cast.control)
    for own in (None, twin):
        frame = stage.dealt_with(changed_list(stage, site1=own))
        victim.refuses(frame, BadKeyList, BOSS, "own frame was replaced or left out")
    victim.still_takes_the_truth()


def test_frames_in_each_others_places(stage: Stage, victim: Victim) -> None:
    """GK-3.1"""
    readies = stage.readies
    swapped = changed_list(stage, site2=readies["site3"], site3=readies["site2"])
    victim.refuses(stage.dealt_with(swapped), UnknownSender, "site3")
    twice = changed_list(stage, site3=readies["site2"])
    victim.refuses(stage.dealt_with(twice), UnknownSender, "site2")
    victim.still_takes_the_truth()


def test_frames_that_the_combiner_made(stage: Stage, victim: Victim) -> None:
    """GK-3.1: signed by itself, by another site, by a key of its own, or changed on the way."""
    cast, frame = stage.cast, decode(stage.readies["site3"], ANY)
    own = stage.readies["site3"]
    for forged in (
        seal(frame, cast.boss),
        seal(frame, cast.sites["site4"]),
        seal(frame, identity("invented")),
        own[:-1] + bytes([own[-1] ^ 1]),
    ):
        lie = stage.dealt_with(changed_list(stage, site3=forged))
        victim.refuses(lie, BadSignature, "site3")
    mine = seal(replace(frame, sender=BOSS), cast.boss)
    victim.refuses(stage.dealt_with(changed_list(stage, site3=mine)), UnknownSender, BOSS)
    victim.still_takes_the_truth()


def test_old_frames(stage: Stage, victim: Victim) -> None:
    """GK-3.1: of this very round and state."""
    cast, true = stage.cast, decode(stage.readies["site3"], ANY)
    for change, field in OTHER_BINDINGS:
        old = cast.signed("site3", true, binding=replace(cast.control, **change))
        lie = stage.dealt_with(changed_list(stage, site3=old))
        victim.refuses(lie, WrongBinding, "site3", field)
    numbered = stage.dealt_with(changed_list(stage, site3=cast.signed("site3", true, sequence=1)))
    victim.refuses(numbered, WrongBinding, "site3", "sequence")
    victim.still_takes_the_truth()


def test_a_list_of_too_few(stage: Stage, victim: Victim) -> None:
    """GK-3.2"""
    few = changed_list(stage, site3=None, site4=None)
    victim.refuses(stage.dealt_with(few), BadKeyList, BOSS, "3 sites are ready, the threshold is 4")
    for frames in (stage.cast.listed(stage.present_body)[:4], []):
        lie = stage.dealt_with(stage.cast.present(frames))
        victim.refuses(lie, MalformedFrame, BOSS)
    victim.still_takes_the_truth()


def test_a_standing_that_is_none(stage: Stage, victim: Victim) -> None:
    """GK-2.2: a site that lies about its epoch; also a lower one leads to no old epoch."""
    cast = stage.cast
    frame = decode(stage.readies["site3"], ANY)
    standing = Standing.decode(frame.body, sender="a", sites=5, round=10)
    far = replace(standing, epoch=2**32 - 1).encode(5)
    lie = stage.dealt_with(changed_list(stage, site3=cast.signed("site3", frame, body=far)))
    victim.refuses(lie, MalformedFrame, "site3")
    dull = replace(standing, exchange=bytes(32)).encode(5)
    lie = stage.dealt_with(changed_list(stage, site3=cast.signed("site3", frame, body=dull)))
    victim.refuses(lie, BadKey, "site3")
    # GK-2.3
    mine = Standing.decode(decode(stage.readies["site1"], ANY).body, sender="a", sites=5, round=10)
    copied = replace(standing, exchange=mine.exchange).encode(5)
    lie = stage.dealt_with(changed_list(stage, site3=cast.signed("site3", frame, body=copied)))
    victim.refuses(lie, BadKey, "site3", "another site's")
    victim.still_takes_the_truth()


def test_other_lists_to_other_sites(stage: Stage, victim: Victim) -> None:
    """GK-3.4: the deal opens under the list that the dealer saw only; GK-7.3."""
    cast = stage.cast
    shorter = changed_list(stage, site4=None)
    victim.refuses(stage.dealt_with(shorter), Inconsistent, "site0", "something else")
    # The same members, but another frame of one of them: a second process of site4.
    other = cast.site("site4").ready(cast.control)
    lie = stage.dealt_with(changed_list(stage, site4=other))
    victim.refuses(lie, BadShare, "site0")
    victim.still_takes_the_truth()


def test_two_keys_for_two_parts() -> None:
    """GK-7.3: with two lists of enough sites each, two keys; a site takes part in one."""
    cast = make_group(5, threshold=3)
    stage = Stage(cast).ready()
    one = stage.cast.present({n: stage.readies[n] for n in ("site0", "site1", "site2")})
    two = stage.cast.present({n: stage.readies[n] for n in ("site2", "site3", "site4")})
    lists = [cast.forge(Kind.PRESENT, 0, body) for body in (one, two)]
    deals = [
        stage.sites[dealer].deal(frame, cast.control)
        for dealer, frame in zip(("site0", "site2"), lists, strict=True)
    ]
    assert len({decode(deal, ANY).body[4:36].hex() for deal in map(bytes, deals)}) == 2
    stage.present, stage.deal = lists[0], deals[0]
    dealt = cast.forge(Kind.DEALT, 1, len(one).to_bytes(4, "big") + one + deals[0])
    stage.sites["site1"].take(dealt, cast.control)
    # site2 dealt for the other part: its exchange key is spent.
    with pytest.raises(UnexpectedFrame):
        stage.sites["site2"].take(dealt, cast.control)
    names = [stage.sites[name].usable(7).key_id for name in ("site0", "site1", "site2")]
    assert names[0] == names[1] != names[2]


# Deals (GK-3.4 to GK-3.6) ------------------------------------------------------------------------


def by(stage: Stage, name: str, change: Callable[[Deal], Deal]) -> bytes:
    """The true deal after a change, under the true signature of a site."""
    frame = decode(stage.deal, ANY)
    deal = Deal.decode(frame.body, sender="a", sites=5)
    return stage.cast.signed(name, frame, body=change(deal).encode(5))


def test_another_dealer(stage: Stage, victim: Victim) -> None:
    """GK-3.5: only the site whose turn it is."""
    other = stage.cast.signed("site2", replace(decode(stage.deal, ANY), sender="site2"))
    victim.refuses(stage.dealt_with(deal=other), UnknownSender, "site2")
    mine = stage.cast.forge(Kind.DEAL, 0, bytes(decode(stage.deal, ANY).body))
    victim.refuses(stage.dealt_with(deal=mine), UnknownSender, BOSS)
    for name in ("site2", "site1"):
        forged = by(stage, name, lambda deal: deal)
        victim.refuses(stage.dealt_with(deal=forged), BadSignature, "site0")
    victim.still_takes_the_truth()


def test_a_deal_of_something_else(stage: Stage, victim: Victim) -> None:
    """GK-3.5: another epoch, also a lower one, or other members than follow from the list."""
    assert stage.combiner.key_id
    for epoch in (0, 1, 3, 2**32 - 1):
        lie = by(stage, "site0", lambda deal, e=epoch: replace(deal, epoch=e))
        victim.refuses(stage.dealt_with(deal=lie), Inconsistent, "site0", "something else")
    fewer = by(
        stage,
        "site0",
        lambda d: replace(d, members=d.members - {4}, wrapped=d.wrapped[:-1]),
    )
    victim.refuses(stage.dealt_with(deal=fewer), Inconsistent, "site0", "something else")
    victim.still_takes_the_truth()


def test_ciphertexts_that_are_not_the_victims(stage: Stage, victim: Victim) -> None:
    """GK-3.4"""

    def swapped(deal: Deal) -> Deal:
        first, second, *rest = deal.wrapped
        return replace(deal, wrapped=(second, first, *rest))

    for change in (
        swapped,
        lambda d: replace(d, wrapped=(bytes(48), *d.wrapped[1:])),
        lambda d: replace(d, key_id=b"k" * 32),
    ):
        victim.refuses(stage.dealt_with(deal=by(stage, "site0", change)), BadShare, "site0")
    victim.still_takes_the_truth()


def test_a_key_under_another_name(stage: Stage, victim: Victim) -> None:
    """GK-3.5: the dealer gives each site another key, under one name."""
    cast = stage.cast
    dealer = cast.site("site0")
    ready = dealer.ready(cast.control)
    body = changed_list(stage, site0=ready)
    said = cast.group.read_present(body, cast.control)
    standings = {place: ready.standing for place, ready in said.items()}
    key_id = b"k" * 32
    wrapped = tuple(
        dealer._envelope(3, key_id, body, cast.binding, standings, 0, to).seal(
            dealer._private(), bytes([to]) * 32
        )
        for to in range(1, 5)
    )
    deal = Deal(3, key_id, frozenset(range(5)), wrapped)
    lie = seal(Frame(Kind.DEAL, cast.binding, "site0", 0, deal.encode(5)), cast.sites["site0"])
    victim.refuses(stage.dealt_with(body, lie), Inconsistent, "site0", "not the one that it names")


def test_replayed_deals(stage: Stage, victim: Victim) -> None:
    """A deal of an earlier round, or of this round's earlier stage, is over another list."""
    old = Stage(make_group(5, threshold=4)).ready().ask().make()
    victim.refuses(old.dealt, WrongBinding, BOSS)
    victim.refuses(stage.dealt_with(deal=old.deal), WrongBinding, "site0")
    victim.refuses(stage.dealt_with(old.present_body), WrongBinding, "site0")
    victim.still_takes_the_truth()
    # And the true one again: its exchange key is spent (GK-3.3).
    victim.refuses(stage.dealt, UnexpectedFrame, BOSS, "not waiting for")


def test_the_deal_of_a_stage_that_was_begun_again(stage: Stage) -> None:
    """GK-3.3: after a new *ready*, nothing that was made for the last one is taken."""
    control = stage.cast.control
    site = stage.sites["site1"]
    site.ready(control)
    refused(lambda: site.take(stage.dealt, control), BadKeyList, BOSS)


def test_a_deal_that_is_not_due() -> None:
    """GK-2.4: all hold the same, so nobody may be led to another key."""
    cast = make_group(4)
    Stage(cast).run()
    stage = Stage(cast).ready()
    assert stage.combiner.dealer is None
    present = cast.forge(Kind.PRESENT, 0, cast.present(stage.readies))
    refused(
        lambda: stage.sites["site0"].deal(present, cast.control),
        UnexpectedFrame,
        BOSS,
        "nobody needs a key",
    )


def test_the_wrong_site_is_asked_to_deal(stage: Stage) -> None:
    """GK-2.5"""
    again = Stage(stage.cast).ready().ask()
    for name in ("site1", "site4"):
        refused(
            lambda n=name: again.sites[n].deal(again.present, again.cast.control),
            BadKeyList,
            BOSS,
            "not this site's turn",
        )
    # Unless the others are not in the list that it is shown: then it deals, for those in it.
    shorter = again.cast.forge(Kind.PRESENT, 0, changed_list(again, site0=None))
    assert again.sites["site1"].deal(shorter, again.cast.control)


def test_a_dealer_checks_the_list_as_all_do(stage: Stage) -> None:
    """GK-3.1 to GK-3.3"""
    again = Stage(stage.cast).ready().ask()
    dealer, control, forge = again.sites["site0"], again.cast.control, again.cast.forge
    before = dealer.ring
    for body, error, sender in (
        (changed_list(again, site0=None), BadKeyList, BOSS),
        (changed_list(again, site0=stage.readies["site0"]), BadKeyList, BOSS),
        (changed_list(again, site3=None, site4=None), BadKeyList, BOSS),
        (changed_list(again, site3=again.readies["site4"]), UnknownSender, "site4"),
        (b"", MalformedFrame, BOSS),
    ):
        refused(lambda b=body: dealer.deal(forge(Kind.PRESENT, 0, b), control), error, sender)
    assert dealer.ring == before
    assert dealer.deal(again.present, control)
    # GK-3.3: once.
    refused(lambda: dealer.deal(again.present, control), UnexpectedFrame, BOSS)


def test_frames_that_are_not_the_combiners(stage: Stage, victim: Victim) -> None:
    cast, frame = stage.cast, decode(stage.dealt, ANY)
    body = bytes(frame.body)
    victim.refuses(seal(frame, cast.sites["site2"]), BadSignature, BOSS)
    victim.refuses(cast.signed("site2", frame, sender="site2"), UnknownSender, "site2")
    victim.refuses(cast.forge(Kind.PRESENT, 1, body), UnexpectedFrame, BOSS)
    for change, field in OTHER_BINDINGS:
        other = cast.forge(Kind.DEALT, 1, body, binding=replace(cast.binding, **change))
        victim.refuses(other, WrongBinding, BOSS, field)
    victim.refuses(cast.forge(Kind.DEALT, 0, body), WrongBinding, BOSS, "sequence")
    for bad in (b"", body[:4], b"\xff" * 4 + body[4:]):
        victim.refuses(cast.forge(Kind.DEALT, 1, bad), MalformedFrame, BOSS)
    # What comes after the list is no frame then.
    for bad in (body[:-1], body + b"\0"):
        victim.refuses(cast.forge(Kind.DEALT, 1, bad), MalformedFrame, "unread frame")
    victim.still_takes_the_truth()


def test_a_ring_that_is_ahead_of_its_word(stage: Stage) -> None:
    """GK-3.6: whatever the list leads to, the ring has the last word."""
    site = stage.sites["site1"]
    site.keep(replace(site.ring, epoch=9, secrets=()))
    with pytest.raises(Refused, match="epoch 2 of the group's key is over here"):
        site.take(stage.dealt, stage.cast.control)
    assert site.ring.epoch == 9


def test_the_deal_is_all_that_a_stranger_can_read(stage: Stage) -> None:
    """GK-7.1: who holds which epoch, the keys' names, and sizes."""
    deal = Deal.decode(decode(stage.deal, ANY).body, sender="a", sites=5)
    secret = stage.sites["site0"].usable(10)
    assert (deal.epoch, deal.key_id, deal.members) == (2, secret.key_id, secret.members)
    assert len(set(deal.wrapped)) == 4


def test_a_site_that_says_it_has_a_key_that_it_has_not(stage: Stage) -> None:
    """It is believed, and then alone: the others go on, it can neither check nor encrypt."""
    cast: GroupCast = stage.cast
    stage.take()
    later = cast.at(11)
    liar = later.site("site4")
    true = liar.ring
    liar.keep(KeyRing(cast.control.study_digest, 5))
    standing = true.standing(b"\x09" + bytes(31), 11)
    assert standing.status is Status.HOLDS
    combiner = later.combiner()
    for name in cast.names[:-1]:
        combiner.ready(name, later.site(name).ready(later.control))
    frame = Frame(Kind.READY, later.control, "site4", 0, standing.encode(5))
    combiner.ready("site4", later.signed("site4", frame))
    assert combiner.dealer is None
    with pytest.raises(Refused, match="no key"):
        liar.usable(11)
