"""How much the sites' yes and no can say: how many answers, and about what (CK-6).

``test_budget.py`` shows what one answer says, and what all of them say about the next attempt.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ckks_cast import (
    COUNT,
    Aggregate,
    Scene,
    constant,
    counted,
    drawn,
    message,
    noise_of,
    plus,
    read,
    restarted,
    words,
)
from ckks_world import World, binding

from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.packing import Polynomials
from fedbcs_protocols.ckks.params import NOISE_BOUND, PRIME
from fedbcs_protocols.ckks.products import Products
from fedbcs_protocols.ckks.tagging import Gathered
from fedbcs_protocols.ckks.words import pack_words
from fedbcs_protocols.errors import BadCiphertext, PeerError, Refused
from fedbcs_protocols.group import MAX_REFUSALS, GroupSecret, MemoryKeys
from fedbcs_protocols.ring import Words
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS

SITES = 4


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(Decryptor, "decrypt", Decryptor.decrypt)
    return counted()


@pytest.fixture(scope="module")
def nine_chunks() -> Scene:
    """Three batches, the last of one chunk."""
    scene = Scene(World(count=9 * 8000))
    assert len(scene.honest) == scene.world.setting.chunks == 9
    return scene


WRONG = {
    "a tag": lambda scene, c: plus(scene.honest[c], message(scene.world.setting.params, {9: 1})),
    "noise": lambda scene, c: plus(scene.honest[c], words(100)),
    "a digit": lambda scene, c: plus(scene.honest[c], words(PRIME - (1 << 58), 5)),
    "everything": lambda scene, c: pack_words(drawn(c)),
    "one site alone": lambda scene, c: scene.world.chunks("site0")[c],
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("chunks", [(), (0,), (3,), (4,), (8,), (0, 5), (1, 2), tuple(range(9))])
def test_as_many_are_decrypted_wherever_the_wrong_ones_are(
    nine_chunks: Scene,
    kind: str,
    chunks: tuple[int, ...],
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CK-5.7: and as many go into the check of the tags, so that it takes as long."""
    kept: list[tuple[int, int]] = []
    multiplied: list[int] = []
    put, of = Gathered.put, Products.of

    def putting(self: Gathered, index: int, values: Words) -> None:
        kept.append((index, len(values)))
        put(self, index, values)

    def multiplying(self: Products, polynomials: Polynomials) -> Polynomials:
        multiplied.append(len(polynomials))
        return of(self, polynomials)

    monkeypatch.setattr(Gathered, "put", putting)
    monkeypatch.setattr(Products, "of", multiplying)
    aggregate = list(nine_chunks.honest)
    for chunk in chunks:
        aggregate[chunk] = WRONG[kind](nine_chunks, chunk)
    if chunks:
        with pytest.raises(PeerError):
            nine_chunks.tell(aggregate)
    else:
        nine_chunks.tell(aggregate)
    assert len(calls) == 9
    assert kept == [(0, 4), (4, 4), (8, 1)]
    # SEAL is given whole batches, also at the end.
    assert multiplied == [4, 4, 4]


@pytest.mark.parametrize("at", [0, 5, 8])
def test_what_is_no_ciphertext_leaves_nothing_out(
    nine_chunks: Scene, at: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CK-5.7, though whoever wrote a number that is no residue (CK-3.7) knows where it is."""
    kept: list[int] = []
    put = Gathered.put

    def putting(self: Gathered, index: int, values: Words) -> None:
        kept.append(len(values))
        put(self, index, values)

    monkeypatch.setattr(Gathered, "put", putting)
    aggregate = list(nine_chunks.honest)
    aggregate[at] = pack_words(words(PRIME, 7))
    with pytest.raises(BadCiphertext):
        nine_chunks.tell(aggregate)
    assert len(calls) == 9
    assert kept == [4, 4, 1]


# How many answers ---------------------------------------------------------------------------------


class Combiner:
    """One that asks: it has a crafted aggregate signed, then tells it to whom it likes.

    ``answers`` are what it saw: round, attempt, site, and yes, no or nothing.
    """

    def __init__(self, rekey_every: int = 1) -> None:
        self.rekey_every = rekey_every
        self.keepers: dict[str, MemoryKeys] = {}
        self.key = World(count=10).key
        self.answers: list[tuple[int, int, str, str]] = []

    def deal(self, epoch: int, round: int = 0) -> None:
        """A new key for all sites that still say *ready*: refused ones are not asked (GK-6.3)."""
        members = frozenset(range(SITES))
        self.key = GroupSecret(epoch, round, members, bytes([epoch]) * 32)
        for keeper in self.keepers.values():
            ring = keeper.read()
            assert ring is not None
            if ring.refusals < MAX_REFUSALS:
                keeper.write(ring.taking(self.key))

    def signed(self, round: int, attempt: int, *, wrong: bool) -> tuple[World, bytes] | None:
        """An aggregate that at least t sites upload for and sign; None if they do not."""
        world = World(
            count=10,
            binding=binding(round, attempt),
            keepers=self.keepers,
            secret=self.key,
            rekey_every=self.rekey_every,
        )
        came: dict[str, bytes] = {}
        for name in world.names:
            try:
                came[name] = world.session(name).encrypt(world.vectors[name])
            except Refused:
                continue
        if len(came) < world.setting.terms.threshold:
            return None
        world.__dict__["uploads"] = came
        aggregate: Aggregate = world.honest(tuple(came))
        # Within the noise that a sum may have, or a digit more (CK-6.1).
        e = constant(1 << 20 if wrong else 3)
        return world, world.forged([plus(aggregate[0], e)], tuple(came))

    def ask(self, question: tuple[World, bytes], name: str) -> str:
        world, frame = question
        try:
            read(world, name, frame)
            answer = "yes"
        except PeerError:
            answer = "no"
        except Refused:
            answer = "nothing"
        self.answers.append((world.binding.round, world.binding.attempt, name, answer))
        return answer

    def count(self, answer: str) -> int:
        return sum(1 for each in self.answers if each[3] == answer)


def attempts() -> Iterator[int]:
    """Two more than there are."""
    return iter(range(MAX_ATTEMPTS + 2))


@pytest.mark.parametrize("rekey_every", [1, 10])
def test_sums_that_a_key_answers_for(rekey_every: int) -> None:
    """CK-6.2: 16 a round, for rekey_every rounds, with a restart after each."""
    combiner = Combiner(rekey_every)
    for round in range(rekey_every + 2):
        for attempt in attempts():
            question = combiner.signed(round, attempt, wrong=False)
            if question is None:
                assert attempt >= MAX_ATTEMPTS or round >= rekey_every
                continue
            assert combiner.ask(question, "site0") == "yes"
            restarted(question[0], "site0")
    assert combiner.count("yes") == MAX_ATTEMPTS * rekey_every


def test_one_site_says_no_once_an_epoch_and_three_times_in_all() -> None:
    """GK-6.2, GK-6.3: what CK-6.2 counts."""
    combiner = Combiner()
    for epoch in range(1, 6):
        combiner.deal(epoch)
        for attempt in range(3):
            question = combiner.signed(0, 3 * (epoch - 1) + attempt, wrong=True)
            if question is not None:
                combiner.ask(question, "site0")
    assert combiner.count("no") == MAX_REFUSALS
    assert combiner.count("yes") == 0


def test_every_site_can_be_asked_another_question() -> None:
    """CK-6.1, CK-6.2: a refusal ends the epoch for the site that refuses. A combiner that has many
    aggregates signed before it tells one gets a *no* from each site under one key, and 3·n in all.
    """
    combiner = Combiner()
    first = []
    for epoch in range(1, MAX_REFUSALS + 3):
        combiner.deal(epoch)
        start = SITES * (epoch - 1)
        questions = [combiner.signed(0, start + place, wrong=True) for place in range(SITES)]
        for place, question in enumerate(questions):
            if question is not None:
                combiner.ask(question, f"site{place}")
        first = first or [answer for *_, answer in combiner.answers]
    assert first == ["no"] * SITES
    assert combiner.count("no") == SITES * MAX_REFUSALS
    # Each was about another aggregate.
    asked = {(round, attempt) for round, attempt, _, answer in combiner.answers if answer == "no"}
    assert len(asked) == SITES * MAX_REFUSALS


def test_questions_that_depend_on_the_last_answer() -> None:
    """CK-6.2: n - t + 1 refusals a key, since then too few sites have it to sign another."""
    combiner = Combiner()
    for attempt in attempts():
        question = combiner.signed(0, attempt, wrong=True)
        if question is None:
            break
        combiner.ask(question, f"site{attempt}")
    assert [answer for *_, answer in combiner.answers] == ["no"] * 2
    assert World().setting.terms.threshold == 3


def test_all_sites_give_the_same_answer_about_one_aggregate() -> None:
    """CK-6.1: asking another site about the same one says nothing new."""
    for wrong, expected in ((True, "no"), (False, "yes")):
        combiner = Combiner()
        question = combiner.signed(0, 0, wrong=wrong)
        assert question is not None
        answers = {combiner.ask(question, name) for name in question[0].names}
        assert answers == {expected}


def test_the_bounds_are_those_of_the_noise_that_was_there() -> None:
    """CK-6.1: what is added is taken while it and the noise stay within 21·k: 84 for four sites.

    So it is a bit about that noise, which the combiner does not know and the key would tell it.
    """
    scene = Scene(World(count=COUNT))
    bound = NOISE_BOUND * scene.world.sites
    noise = noise_of(scene.world, scene.honest)[1]
    rng = np.random.default_rng(3)
    for at in rng.choice(noise.size, 8, replace=False):
        taken = []
        border = range(bound - 25, bound + 26)
        for value in border:
            told = [scene.honest[0], plus(scene.honest[1], words(value, at))]
            try:
                scene.tell(told)
            except PeerError:
                continue
            taken.append(value)
        assert taken == [value for value in border if value + noise[at] <= bound]
