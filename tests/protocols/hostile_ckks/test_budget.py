"""Refusals through whole key stages until a study stops, and what answers say (CK-6).

``test_oracle.py`` counts answers under keys that are there; here the sites deal each other theirs.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from ckks_cast import common, noise_of, opener, plus, secret, words
from ckks_world import SECRET, World, binding, scratch
from hostile_group import GroupCast, Stage

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.packing import unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.samples import upload_secret
from fedbcs_protocols.ckks.words import unpack_words
from fedbcs_protocols.errors import PeerError, Refused, SumOutOfRange, TooFewSites
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
    with pytest.raises(SumOutOfRange):
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
        # CK-6.2's example.
        assert refusals.total() == {4: 12, 6: 18}[sites]
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
            with pytest.raises(SumOutOfRange):
                world.open(name, world.forged(world.honest()[::-1]))
    assert attempt == MAX_REFUSALS
    assert budget.stop == set(budget.names)


# What an answer says ------------------------------------------------------------------------------


def answer(world: World, told: list[bytes]) -> str:
    """What the first site says, begun anew; the combiner sees only whether it is yes."""
    world.keepers.clear()
    try:
        world.open("site0", world.forged(told))
    except PeerError as error:
        return type(error).__name__
    return "yes"


def test_an_answer_is_a_bit_about_the_noise() -> None:
    """CK-6.1: the same polynomial is taken where the noise that was there is below zero, and

    refused where it is above; who has the key works it out beforehand, nobody else can.
    """
    world = World(count=9000)
    true = world.honest()
    noise = noise_of(world, true)[1]
    below, above = np.flatnonzero(noise < 0)[:8], np.flatnonzero(noise > 0)[:8]
    for places, said in ((below, "yes"), (above, "BadNoise")):
        for at in places:
            assert answer(world, [true[0], plus(true[1], words(84, at))]) == said


def test_of_what_changes_no_digit_a_site_says_one_bit_and_it_is_of_this_sum() -> None:
    """CK-6.1: another attempt has other noise, so the same question is another question."""
    first, second = World(count=9000), World(count=9000, binding=binding(0, 1))
    truths = {}
    for world in (first, second):
        true = world.honest()
        truths[world] = np.sign(noise_of(world, true)[1])
        for at in range(6):
            told = [true[0], plus(true[1], words(84, at))]
            said = answer(world, told)
            assert (said == "yes") == (truths[world][at] <= 0)
            assert said in ("yes", "BadNoise")
    assert agreement(truths[first], truths[second]) < 6


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """How far the number of places that agree is from what chance would give, in its deviations."""
    shares = [(np.mean(one == v), np.mean(other == v)) for v in np.unique(one)]
    expected = sum(a * b for a, b in shares)
    deviation = np.sqrt(expected * (1 - expected) / one.size)
    return float(abs(np.mean(one == other) - expected) / deviation)


# What it is worth afterwards ---------------------------------------------------------------------


def test_secrets_of_two_attempts_have_nothing_in_common() -> None:
    """CK-6.2: each of 6,492 bits, and whoever had one whole would know nothing of another."""
    assert int(DEGREE * np.log2(3)) == 6492
    worlds = [World(count=10, binding=binding(0, attempt)) for attempt in range(3)]
    salts = {world.salt(name) for world in worlds for name in world.names}
    assert len(salts) == 3 * 4
    secrets = [secret(world, name) for world in worlds for name in world.names]
    # Also where a salt came twice, the rest would differ.
    salt, now = worlds[0].salt("site0"), worlds[0].binding
    for changes in ({"attempt": 1}, {"round": 1}, {"phase": 2}, {"state_digest": bytes(32)}):
        there = replace(now, **changes)
        secrets.append(upload_secret(SECRET, 1, there, "site0", salt))
    secrets.append(upload_secret(SECRET, 2, now, "site0", salt))
    secrets.append(upload_secret(SECRET, 1, now, "site1", salt))
    for at, one in enumerate(secrets):
        # Uniform: 1365 of each, give or take 30.
        assert np.abs(np.bincount(one + 1, minlength=3) - DEGREE / 3).max() < 6 * 30.2
        for other in secrets[:at]:
            assert agreement(one, other) < 6
            assert abs(int(one @ other)) < 6 * np.sqrt(DEGREE * 4 / 9)


def uniform(words: np.ndarray) -> None:
    """Return if each of the highest four bits' values comes up as often as chance has it."""
    counts = np.bincount((words.reshape(-1) * 16.0 / PRIME).astype(int), minlength=16)
    expected = words.size / 16
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_the_secrets_of_one_attempt_open_nothing_of_the_next() -> None:
    """CK-6.2: not even all secrets and all noise of an attempt, and the same vectors again."""
    first, second = World(count=30000), World(count=30000, binding=binding(0, 1))
    assert all((first.vectors[n] == second.vectors[n]).all() for n in first.names)
    params, then, now = first.setting.params, first.binding, second.binding
    told = np.stack([unpack_words(each, "x") for each in second.honest()])
    assert unpack(opener(second, second.names).decrypt(told), params, 4)[0].max() < 1 << 18
    old = [secret(first, name) for name in first.names]
    for there in (then, now):
        plain = Decryptor(there, old, scratch()).decrypt(told)
        with pytest.raises(SumOutOfRange):
            unpack(plain, params, 4)
        uniform(plain)
    # What two attempts have in common is the vector, and it is under two masks.
    before = np.stack([unpack_words(each, "x") for each in first.honest()])
    uniform((told + (np.uint64(PRIME) - before)) % np.uint64(PRIME))
    # And one site's secret does not open a sum that it is part of: three others' are in the way.
    plain = Decryptor(now, [secret(second, "site0")], scratch()).decrypt(told)
    uniform(plain)


def test_no_attempt_has_a_common_polynomial_of_another() -> None:
    """CK-3.2: what was prepared for one is worth nothing for the next, or for the next chunk."""
    now = binding()
    there = [binding(0, attempt) for attempt in range(MAX_ATTEMPTS)]
    there += [binding(1), replace(now, phase=2), replace(now, state_digest=bytes(32))]
    there += [replace(now, study_digest=bytes(32))]
    found = [common(each, chunk) for each in there for chunk in (0, 1)]
    for at, one in enumerate(found):
        uniform(one)
        for other in found[:at]:
            assert (one != other).all()
            uniform((one + (np.uint64(PRIME) - other)) % np.uint64(PRIME))
