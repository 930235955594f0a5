"""How much the sites' yes and no can say about the key: how many answers, and from what (CK-6)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ckks_cast import (
    COUNT,
    Aggregate,
    Scene,
    combined,
    constant,
    counted,
    drawn,
    message,
    plus,
    read,
    restarted,
    whole,
)
from ckks_world import World, binding

from fedbcs_protocols.ckks.cipher import SecretContext
from fedbcs_protocols.ckks.tagging import Gathered
from fedbcs_protocols.errors import PeerError, Refused
from fedbcs_protocols.group import MAX_REFUSALS, GroupSecret, MemoryKeys
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS

SITES = 4


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(SecretContext, "decrypt", SecretContext.decrypt)
    return counted()


@pytest.fixture(scope="module")
def four_chunks() -> Scene:
    return Scene(World(count=30000))


WRONG = {
    "a tag": lambda scene, c: plus(
        scene.honest[c], message(scene.world.context, {9: 1}), constant(0)
    ),
    "a digit": lambda scene, c: combined((-1, scene.honest[c])),
    "everything": lambda scene, c: whole(drawn(2 * c), drawn(2 * c + 1)),
    "one site alone": lambda scene, c: scene.world.added(scene.world.chunks("site0"))[c],
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("chunks", [(), (0,), (1,), (3,), (0, 2), (0, 1, 2, 3)])
def test_as_many_are_decrypted_wherever_the_wrong_ones_are(
    four_chunks: Scene,
    kind: str,
    chunks: tuple[int, ...],
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CK-5.7: and as many go into the check of the tags, so that it takes as long."""
    kept: list[int] = []
    put = Gathered.put
    monkeypatch.setattr(
        Gathered, "put", lambda self, index, values: (kept.append(index), put(self, index, values))
    )
    aggregate = list(four_chunks.honest)
    for chunk in chunks:
        aggregate[chunk] = WRONG[kind](four_chunks, chunk)
    if chunks:
        with pytest.raises(PeerError):
            four_chunks.tell(aggregate)
    else:
        four_chunks.tell(aggregate)
    assert len(calls) == 4
    assert kept == [0, 1, 2, 3]


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
        # Smaller than half a step in every component, or larger in some (CK-6.1).
        e = constant(1 << 20 if wrong else 0)
        return world, world.forged([plus(aggregate[0], constant(0), e)], tuple(came))

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


def test_a_crafted_part_says_which_side_of_half_a_step_it_fell() -> None:
    """CK-6.1: the one bit, and that it is about the key: (0, e) is taken while e·s is small."""
    scene = Scene(World(count=COUNT))
    taken = []
    for power in range(12):
        crafted = plus(scene.honest[1], constant(0), constant(1 << power))
        try:
            scene.tell([scene.honest[0], crafted])
        except PeerError:
            continue
        taken.append(power)
    # A component of the key is about √(N/3) = 37, half a step 4766, and noise has 300 of it.
    assert taken == list(range(len(taken)))
    assert 2 <= len(taken) <= 3
