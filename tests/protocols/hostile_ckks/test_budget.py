"""Refusals through whole key stages until a study stops, and what one says of the key (CK-6.2).

``test_oracle.py`` counts answers under keys that are there; here the sites deal each other theirs.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from ckks_cast import Polynomial, constant, plus, with_key
from ckks_world import World, binding
from hostile_group import GroupCast, Stage
from tenseal import sealapi

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.cipher import Context
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.errors import BadTag, Refused, SumOutOfRange, TooFewSites
from fedbcs_protocols.group import MAX_REFUSALS, Group, MemoryKeys
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS
from fedbcs_protocols.secagg.setting import default_terms


class Budget:
    """A combiner that asks on and on, of sites that keep to the rules."""

    def __init__(self, sites: int) -> None:
        self.sites = sites
        self.keepers: dict[str, MemoryKeys] = {}
        self.names = World(sites=sites).names
        self.threshold = default_terms(sites)[0]
        self.stop: set[str] = set()
        """Sites that are not ready any more."""

    def world(self, round: int, attempt: int) -> World:
        any_ring = self.keepers[self.holders()[0]].read()
        assert any_ring is not None
        return World(
            sites=self.sites, count=9000, keepers=self.keepers, binding=binding(round, attempt),
            secret=any_ring.current,
        )  # fmt: skip

    def holders(self) -> list[str]:
        """The sites that hold the key of the last epoch."""
        rings = {n: ring for n, k in self.keepers.items() if (ring := k.read())}
        epoch = max(ring.epoch for ring in rings.values())
        return [n for n, ring in rings.items() if ring.current and ring.epoch == epoch]

    def deal(self, round: int) -> None:
        """A key stage of all that would be ready. Raises TooFewSites."""
        world = World(sites=self.sites)
        setting = world.setting
        group = Group(setting.roster, setting.combiner, self.threshold, 1)
        control = replace(binding(round), phase=0)
        sites = {name: world.identities[name] for name in self.names}
        cast = GroupCast(sites, world.identities[COMBINER], group, control, self.keepers)
        willing = []
        for name in self.names:
            try:
                cast.site(name).ready(control)
            except Refused:
                self.stop.add(name)
            else:
                willing.append(name)
        Stage(cast, willing).run()

    def signed(self, round: int, attempt: int) -> tuple[World, bytes]:
        """A wrong aggregate that all who hold the key have sent and signed."""
        world, members = self.world(round, attempt), self.holders()
        world.__dict__["uploads"] = {
            n: world.sessions[n].encrypt(world.vectors[n]) for n in members
        }
        return world, world.forged(world.honest(members)[::-1], members)


def refuses(question: tuple[World, bytes], name: str) -> None:
    world, frame = question
    with pytest.raises((BadTag, SumOutOfRange)):
        world.open(name, frame)


@pytest.mark.parametrize("sites", [4, 6])
@pytest.mark.parametrize("beforehand", [False, True])
def test_refusals_until_the_study_stops(sites: int, beforehand: bool) -> None:
    """CK-6.2, GK-6.3: three a site, not three a study, if a combiner shows each wrong sum to one.

    It gets 3·n if it has all of them signed before it shows the first. If it shows each at once, a
    key is over when fewer than t sites hold it, and the study when fewer than t are ready.
    """
    budget, refusals = Budget(sites), Counter[str]()
    t = budget.threshold
    with suppress(TooFewSites):
        for round in range(10):
            budget.deal(round)
            if beforehand:
                questions = [budget.signed(round, attempt) for attempt in range(sites)]
                for question, name in zip(questions, budget.names, strict=True):
                    refuses(question, name)
                    refusals[name] += 1
            for attempt in range(MAX_ATTEMPTS):
                if len(budget.holders()) < t:
                    break
                name = min(budget.holders(), key=lambda n: refusals[n])
                refuses(budget.signed(round, attempt), name)
                refusals[name] += 1
    assert len(budget.stop) > sites - t
    if beforehand:
        assert refusals == dict.fromkeys(budget.names, MAX_REFUSALS)
    else:
        assert refusals.total() == MAX_REFUSALS * (sites - t + 1) + (MAX_REFUSALS - 1) * (t - 1)


@pytest.mark.parametrize("sites", [4, 6])
def test_refusals_when_all_sites_are_shown_every_sum(sites: int) -> None:
    """CK-6.2 as it is meant: then it is three."""
    budget = Budget(sites)
    for attempt in range(MAX_REFUSALS + 1):
        try:
            budget.deal(0)
        except TooFewSites:
            break
        world, members = budget.world(0, attempt), budget.holders()
        world.uploads  # noqa: B018
        for name in members:
            with pytest.raises((BadTag, SumOutOfRange)):
                world.open(name, world.forged(world.honest()[::-1]))
    assert attempt == MAX_REFUSALS
    assert budget.stop == set(budget.names)


def test_an_answer_is_a_bit_about_the_key() -> None:
    """CK-6.1: a small ciphertext (0, c·X^j) on one chunk of many. Whether the sum is accepted
    depends on the key, as whoever has it can work out beforehand; nobody else can. In fewer chunks
    the noise check is in its way (CK-5.4).
    """
    world = World(count=160 * 8000)
    world.uploads  # noqa: B018
    rings = {n: k.read() for n, k in world.keepers.items()}
    true, at = world.honest(), 7
    context = with_key(world)
    before = context.decrypt(context.both(true[at], "x")).view(np.float64)

    def crafted(power: int, factor: int) -> bytes:
        return plus(true[at], constant(0), monomial(context, power, factor))

    def unnoticed(ciphertext: bytes) -> bool:
        after = context.decrypt(context.both(ciphertext, "x")).view(np.float64)
        return bool((np.rint(before) == np.rint(after)).all())

    def noticed(factor: int) -> dict[bool, int]:
        """A power of X for each of the two answers, where there are both."""
        return {unnoticed(crafted(power, factor)): power for power in range(12)}

    factor, powers = next((f, p) for f in range(20, 50) if len(p := noticed(f)) == 2)
    heard = []
    for power in powers.values():
        told = list(true)
        told[at] = crafted(power, factor)
        for name, ring in rings.items():
            assert ring is not None
            world.keepers[name].write(ring)
        try:
            world.open("site0", world.forged(told))
        except BadTag:
            heard.append(False)
        else:
            heard.append(True)
    assert heard == list(powers)


def monomial(context: Context, power: int, factor: int) -> Polynomial:
    """factor·X^power in NTT form: by SEAL's own encoder."""
    plain = sealapi.Plaintext()
    context.encoder.encode((factor * slots(power)).tolist(), 1.0, plain)
    return np.array([plain.data(at) for at in range(DEGREE)], np.uint64)


def slots(power: int) -> np.ndarray:
    """(N/2,) values of X^power where SEAL has its slots: slot i at exp(πi·3^i/N)."""
    return np.exp(1j * np.pi * (_ROOTS * power % (2 * DEGREE)) / DEGREE)


_ROOTS = np.array([pow(3, at, 2 * DEGREE) for at in range(DEGREE // 2)])
