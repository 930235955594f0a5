"""Sums that a combiner made up: with the common key of the sites (VS) nobody takes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from federation_fixtures import ANYTHING, Stepwise
from federation_world import World, world

from fedbcs_protocols.errors import BadTag, Inconsistent, Refused
from fedbcs_protocols.group import MAX_REFUSALS, Status
from fedbcs_protocols.messages import SumBroadcast
from fedbcs_protocols.ring import Words, pack, unpack
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.wire import Kind, decode, seal
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.filekeys import FileKeys
from fedbcs_secure.federation.rounds import CONTROL
from fedbcs_secure.federation.site_sums import SecaggSum
from fedbcs_secure.federation.state import GlobalState

Make = Callable[..., Stepwise]
Change = Callable[[Words, int], Words]
"""The numbers of a sum, tags behind them, and how many are no tags, to other numbers."""


class Forging:
    """A combiner that tells other numbers than the sum, to all sites or to some."""

    def __init__(self, w: World, change: Change, to: str = "ABCD") -> None:
        self.w, self.change, self.to = w, change, to
        self.told: list[Words] = []
        """The true numbers."""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        yield from self.w.lines.exchange(
            {name: self._changed(name, request) for name, request in requests.items()}
        )

    def _changed(self, name: str, request: bytes) -> bytes:
        frame = decode(request, ANYTHING)
        if frame.kind is not Kind.SUM or name not in self.to:
            return request
        parties = self.w.parties
        shape = parties.setting(self.w.beginning, 0).shape
        _, end = Certificate.decode_from(frame.body, sender="server", sites=len(parties.roster))
        body = SumBroadcast.decode(frame.body[end:], sender="server", shape=shape)
        total = unpack(body.packed, shape.count, shape.bits)
        self.told.append(total.copy())
        other = self.change(total.copy(), parties.plan.length)
        packed = pack(other & np.uint32((1 << shape.bits) - 1), shape.bits)
        forged = bytes(frame.body[:end]) + SumBroadcast(shape, packed).encode()
        return seal(replace(frame, body=forged), self.w.server)


def one_more(total: Words, count: int) -> Words:
    total[7] += 1
    return total


def no_change(total: Words, count: int) -> Words:
    """What four sites send that have learnt nothing."""
    total[:count] = 4 * (2**15 - 1)
    return total


def nothing(total: Words, count: int) -> Words:
    return np.zeros_like(total)


def twice(total: Words, count: int) -> Words:
    return 2 * total


def other_tag(total: Words, count: int) -> Words:
    total[-1:] ^= 1
    return total


def backwards(total: Words, count: int) -> Words:
    total[:count] = total[:count][::-1]
    return total


CHANGES = [one_more, no_change, nothing, twice, other_tag, backwards]


def refused(w: World, name: str, times: int) -> bool:
    """Whether the site gave its last key up and counted (GK-6.2)."""
    ring = w.ring(name)
    standing = ring.standing(bytes(32), w.at(name).round)
    return (
        (ring.current, standing.status) == (None, Status.BURNED)
        and ring.refusals == w.lines.sites[name].refusals == times
        and len(ring.given_up) == times
    )


@pytest.mark.parametrize("change", CHANGES)
def test_no_site_takes_a_sum_that_was_changed(change: Change) -> None:
    """VS-3.2, for a key of several rounds: what was refused is the second sum under it."""
    w = world(rekey_every=5)
    w.round()
    before = {name: w.at(name) for name in "ABCD"}
    rings = {name: w.ring(name) for name in "ABCD"}
    w.combiner.run(Forging(w, change), w.state)
    assert [(name, type(error)) for name, error in w.lines.errors] == [(n, BadTag) for n in "ABCD"]
    for name in "ABCD":
        assert w.at(name) is before[name]
        assert refused(w, name, 1)
        key_id = rings[name].secrets[-1].key_id
        assert w.ring(name).given_up == (key_id,)
        assert w.ring(name).find(key_id) is None


@pytest.mark.parametrize("change", [one_more, no_change, twice, backwards])
def test_without_the_key_they_take_any_numbers(change: Change) -> None:
    """The price of *verified_sum = false*: all sites go where the combiner sends them."""
    w, calm = (world(verified_sum=False, method="fedavg") for _ in range(2))
    calm.round()
    w.combiner.run(Forging(w, change), w.state)
    assert w.lines.errors == []
    (digest,) = {w.at(name).digest for name in "ABCD"}
    assert w.at("A").round == 1
    assert digest != calm.state.digest
    if change is no_change:
        assert (w.at("A").weights == w.beginning.weights).all()


def test_the_numbers_of_the_round_before_are_no_sum_of_this_one() -> None:
    """VS-4.2: true numbers with true tags, at another time."""
    w = world(rekey_every=5)
    listening = Forging(w, lambda total, count: total)
    w.state = w.combiner.run(listening, w.state).state
    assert w.lines.errors == []
    w.combiner.run(Forging(w, lambda total, count: listening.told[0]), w.state)
    assert {type(error) for _, error in w.lines.errors} == {BadTag}
    assert {w.at(name).round for name in "ABCD"} == {1}


def test_tags_of_another_attempt_fit_no_sum(stepwise: Make) -> None:
    """VS-1.1: two sums over one state, under one key; the same numbers with the other's tags."""
    step = stepwise(max_reused_states=1)
    first = step.run(Kind.SUM)
    second = step.session(1)
    for stage in (Kind.OPEN, Kind.KEY_LIST, Kind.DELIVERY, Kind.SURVIVORS, Kind.CERTIFICATE):
        for name in second.expected:
            request = step.open(1) if stage is Kind.OPEN else second.requests[name]
            second.receive(step.sites[name].handle(request))
        second.close()
    count, shape = step.cast.plan.length, step.cast.parties.setting(step.state, 1).shape
    assert (first.total()[:count] == second.total()[:count]).all()
    assert (first.total()[count:] != second.total()[count:]).any()
    frame = decode(second.sum_frame(), ANYTHING)
    _, end = Certificate.decode_from(frame.body, sender="server", sites=4)
    old = bytes(frame.body[:end]) + SumBroadcast(shape, pack(first.total(), shape.bits)).encode()
    with pytest.raises(BadTag):
        step.sites["A"].handle(seal(replace(frame, body=old), step.cast.server))
    step.sites["B"].handle(second.sum_frame())
    assert step.sites["B"].state.round == 1


def test_no_second_try_with_that_key() -> None:
    """GK-6.2: neither the same frame nor another nor the true one is looked at again."""
    w = world()
    sent: list[bytes] = []

    class Recording(Forging):
        def _changed(self, name: str, request: bytes) -> bytes:
            forged = super()._changed(name, request)
            sent.extend([request, forged] if forged != request else [])
            return forged

    w.combiner.run(Recording(w, one_more), w.state)
    true, forged = sent[:2]
    for frame in (forged, true):
        for name in "ABCD":
            with pytest.raises(Refused, match="has given it up"):
                w.lines.sites[name].handle(frame)
            assert refused(w, name, 1)
            assert w.at(name) is w.beginning


def test_after_three_refusals_a_site_does_not_even_look(stepwise: Make) -> None:
    """GK-6.3: sites sign several attempts of a round, under different keys."""
    step = stepwise(rekey_every=5)
    session = step.run(Kind.SUM)
    site = step.sites["A"]
    ring = site._keys.ring
    site._keys.keep(replace(ring, refusals=MAX_REFUSALS))
    with pytest.raises(Refused, match="until a person has looked"):
        site.handle(session.sum_frame())
    site._keys.keep(ring)
    site.handle(session.sum_frame())
    assert site.state.round == 1


def test_what_was_given_up_stays_so_in_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GK-6.2 on a disk: the site is killed right after it refused."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    w = world()
    for name in "ABCD":
        w.keys[name] = FileKeys(tmp_path / name, bytes([ord(name)]) * 32)
    w.restart(*"ABCD")
    w.combiner.run(Forging(w, one_more), w.state)
    assert all(refused(w, name, 1) for name in "ABCD")
    for name in "ABCD":
        w.keys[name] = FileKeys(tmp_path / name, bytes([ord(name)]) * 32)
    w.restart(*"ABCD")
    assert all(refused(w, name, 1) for name in "ABCD")


def test_a_sum_under_another_keys_name_is_not_the_one_that_was_signed(stepwise: Make) -> None:
    """Else a combiner could choose a key that a site no longer has, or one that is old."""
    step = stepwise(rekey_every=5)
    session = step.run(Kind.SUM)
    frame = decode(session.sum_frame(), ANYTHING)
    certificate, end = Certificate.decode_from(frame.body, sender="server", sites=4)
    assert certificate.key_id == step.key_id
    renamed = replace(certificate, key_id=bytes(32)).encode(4) + bytes(frame.body[end:])
    for name, site in step.sites.items():
        with pytest.raises(Inconsistent):
            site.handle(seal(replace(frame, body=renamed), step.cast.server))
        assert site.refusals == 0
        site.handle(session.sum_frame())
        assert site.state.round == 1, name


def test_one_site_that_is_lied_to_comes_back_and_after_three_lies_a_person_must_look() -> None:
    """GK-6.3; the others never hear of it. D is given keys and the state each time (RO-6)."""
    w = world()
    for times in range(1, MAX_REFUSALS + 1):
        result = w.combiner.run(Forging(w, one_more, to="D"), w.state)
        w.state = result.state
        assert w.lines.sites["D"].refusals == w.ring("D").refusals == times
        assert w.behind() == "D"
    lies = [error for name, error in w.lines.errors if name == "D" and isinstance(error, BadTag)]
    assert len(lies) == MAX_REFUSALS
    # It says nothing more to any request that needs the key, whoever asks.
    stuck = w.at("D")
    w.lines.up["D"].clear()
    for _ in range(2):
        assert w.round().survivors == ("A", "B", "C")
    assert w.at("D") is stuck
    assert not [f for f in w.lines.sent(Kind.READY)["D"] if f.binding.round >= stuck.round]
    start = w.frame(Kind.START, w.parties.binding(stuck, CONTROL), 0)
    for _ in range(2):
        with pytest.raises(Refused, match="until a person has looked"):
            w.lines.sites["D"].handle(start)
    w.restart("D")
    with pytest.raises(Refused, match="until a person has looked"):
        w.lines.sites["D"].handle(start)
    # The person has looked.
    w.keys["D"].write(w.ring("D").approved())
    assert w.round().survivors == ("A", "B", "C")
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")
    assert w.lines.sites["D"].refusals == 0


def test_a_site_with_tags_that_do_not_fit_loses_the_round_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """VS-4.4: nobody knows who it was, and SA-8.4 keeps the sites from a second answer."""
    w = world()
    true = SecaggSum._tagged

    def spoilt(self: SecaggSum, vector: Words, state: GlobalState, attempt: int) -> Words:
        tagged = true(self, vector, state, attempt)
        tagged[-1] ^= self._name == "B"
        return tagged

    monkeypatch.setattr(SecaggSum, "_tagged", spoilt)
    w.round()
    assert [(name, type(error)) for name, error in w.lines.errors] == [(n, BadTag) for n in "ABCD"]
    assert all(refused(w, name, 1) and w.at(name) is w.beginning for name in "ABCD")
    monkeypatch.undo()
    # The combiner knows a state that no site is at.
    with pytest.raises(RoundError, match="0 of 4 sites are ready"):
        w.round()
    w.state = w.beginning
    w.restart_combiner()
    with pytest.raises(RoundError, match="came to no sum"):
        w.round()
    assert {w.at(name).round for name in "ABCD"} == {0}
    assert "has answered" in str(w.lines.errors[-1][1])
