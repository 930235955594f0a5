"""What a study puts behind a standing (GK-2.7), checked by whoever knows what it is (GK-3.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hostile_group import ANY, GroupCast, Stage, make_group

from fedbcs_protocols.errors import Inconsistent, LocalError, MalformedFrame
from fedbcs_protocols.group import Group, SiteKeys, Standing
from fedbcs_protocols.group.messages import Dealt, Ready, present_limit, ready_limit
from fedbcs_protocols.wire import Kind, decode

BYTES = 40


class Watched:
    """A stage whose sites have an annex each, and note those that they are shown."""

    def __init__(self, cast: GroupCast, refused: str = "") -> None:
        self.cast = replace(cast, group=replace(cast.group, annex_bytes=BYTES))
        self.shown: dict[str, list[Mapping[str, bytes]]] = {name: [] for name in cast.names}
        self.refused = refused
        self.sites = {name: self.site(name) for name in cast.names}
        self.combiner = self.cast.combiner()
        self.readies = {n: s.ready(self.cast.control, annex(n)) for n, s in self.sites.items()}

    def site(self, name: str) -> SiteKeys:
        def check(annexes: Mapping[str, bytes]) -> None:
            self.shown[name].append(annexes)
            if self.refused in annexes:
                raise Inconsistent(self.refused, "its annex is not what it was")

        site = self.cast.site(name)
        site._check_annexes = check
        return site


def annex(name: str) -> bytes:
    return name.encode().ljust(BYTES, b".")


def test_annexes_are_shown_to_everybody_who_is_shown_a_list() -> None:
    w = Watched(make_group(4))
    for name, data in w.readies.items():
        assert w.combiner.ready(name, data) == annex(name)
    dealer, *others = w.cast.names
    assert w.combiner.dealer == dealer
    w.combiner.dealt(w.sites[dealer].deal(w.combiner.present_frame(), w.cast.control))
    for name in others:
        answer = w.sites[name].take(w.combiner.dealt_frame(), w.cast.control)
        w.combiner.taken(name, answer)
    assert w.combiner.holders == set(w.cast.names)
    everybody = {name: annex(name) for name in w.cast.names}
    assert w.shown == {name: [everybody] for name in w.cast.names}


def test_an_annex_that_is_refused_changes_nothing() -> None:
    """GK-3.8: no key is made, none is taken, and the site waits on."""
    w = Watched(make_group(4), refused="site2")
    for name, data in w.readies.items():
        w.combiner.ready(name, data)
    present = w.combiner.present_frame()
    with pytest.raises(Inconsistent, match="site2"):
        w.sites["site0"].deal(present, w.cast.control)
    assert w.cast.ring("site0").current is None
    w.refused = ""
    w.combiner.dealt(w.sites["site0"].deal(present, w.cast.control))
    dealt, w.refused = w.combiner.dealt_frame(), "site2"
    with pytest.raises(Inconsistent, match="site2"):
        w.sites["site1"].take(dealt, w.cast.control)
    assert w.cast.ring("site1").current is None
    w.refused = ""
    w.combiner.taken("site1", w.sites["site1"].take(dealt, w.cast.control))


def test_without_a_site_whose_annex_is_refused() -> None:
    w = Watched(make_group(4))
    for name, data in w.readies.items():
        w.combiner.ready(name, data)
    w.combiner.without("site0")
    assert w.combiner.sites == ("site1", "site2", "site3")
    w.combiner.dealt(w.sites["site1"].deal(w.combiner.present_frame(), w.cast.control))
    assert "site0" not in w.shown["site1"][0]


@pytest.mark.parametrize("length", [0, 1, BYTES - 1, BYTES + 1])
def test_another_length_is_refused_by_all(length: int) -> None:
    """GK-2.7: the combiner, and a site that is shown it in a list."""
    w = Watched(make_group(4))
    frame = decode(w.readies["site3"], ANY)
    body = bytes(frame.body)[:-BYTES] + bytes(length)
    lie = w.cast.signed("site3", frame, body=body)
    with pytest.raises(MalformedFrame, match="site3"):
        w.combiner.ready("site3", lie)
    listed = w.cast.present({**w.readies, "site3": lie})
    with pytest.raises(MalformedFrame):
        w.sites["site0"].deal(w.cast.forge(Kind.PRESENT, 0, listed), w.cast.control)
    assert not any(w.shown.values())


def test_lengths_follow_from_the_group() -> None:
    plain = make_group(5).group
    longer = replace(plain, annex_bytes=BYTES)
    assert plain.ready_bytes == Standing.length(5)
    assert longer.ready_bytes == plain.ready_bytes + BYTES == Ready.length(5, BYTES)
    assert ready_limit(5, BYTES) == ready_limit(5) + BYTES
    assert longer.present_limit == present_limit(5, BYTES) == plain.present_limit + 5 * BYTES
    assert longer.dealt_limit == Dealt.limit(5, BYTES) == plain.dealt_limit + 5 * BYTES
    for wrong in (-1, 257):
        with pytest.raises(LocalError, match="at most 256"):
            replace(plain, annex_bytes=wrong)


def test_a_site_gives_what_the_group_says() -> None:
    cast = make_group(4)
    with pytest.raises(LocalError, match="an annex of 1 bytes, not 0"):
        cast.site("site0").ready(cast.control, b"a")
    longer: Group = replace(cast.group, annex_bytes=BYTES)
    with pytest.raises(LocalError, match="not 40"):
        replace(cast, group=longer).site("site0").ready(cast.control)


def test_a_stage_without_annexes_asks_nobody() -> None:
    """The frames are those that they were: a standing and nothing else."""
    stage = Stage(make_group(4)).run()
    for data in stage.readies.values():
        assert len(decode(data, ANY).body) == Standing.length(4)
