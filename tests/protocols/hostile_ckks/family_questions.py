"""Decryptions asked for again: of an attempt that was read, refused, or forgotten (GK-6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from ckks_cast import COUNT, Attack, constant, plus, read, restarted
from ckks_world import World, binding

from fedbcs_protocols.ckks import Outcome
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.errors import LocalError, ProtocolError, Refused, SumOutOfRange
from fedbcs_protocols.group import MAX_REFUSALS, GroupSecret, KeyRing, MemoryKeys

SITE = "site0"


def began(round: int = 0, attempt: int = 0, after: World | None = None) -> World:
    """A sum in which all sites sent their ciphertexts; ``after`` another one, under its key."""
    world = World(
        count=COUNT,
        rekey_every=9,
        binding=binding(round, attempt),
        keepers=after.keepers if after else {},
        secret=after.key if after else None,
    )
    world.uploads  # noqa: B018
    return world


def ask(world: World, aggregate: list[bytes] | None = None, **forged: object) -> Outcome:
    honest = world.honest() if aggregate is None else aggregate
    return read(world, SITE, world.forged(honest, **forged))  # type: ignore[arg-type]


def first(call: Callable[[], object]) -> None:
    """What comes before the attack: a refusal here is none of the attack's."""
    try:
        call()
    except ProtocolError as error:
        raise AssertionError(f"the scene could not be set: {error}") from error


def wrong(world: World) -> list[bytes]:
    return world.honest()[::-1]


def refused(world: World) -> None:
    """One sum that the site decrypts and refuses."""
    try:
        ask(world, wrong(world))
    except SumOutOfRange:
        return
    raise AssertionError("a wrong sum was taken")


def attacks() -> Iterator[Attack]:
    def again(change: Callable[[World], object]) -> Callable[[], object]:
        """A true sum is read, then what ``change`` asks for."""

        def attack() -> None:
            world = began()
            first(lambda: ask(world))
            change(world)

        return attack

    yield Attack(
        "GK-6.1",
        "what no attack is: the same again, after a restart",
        again(lambda w: (restarted(w, SITE), ask(w))),
    )
    yield Attack(
        "GK-6.1",
        "what no attack is: the same again, with the signatures of others",
        again(lambda w: ask(w, signers=w.names[1:])),
    )
    yield Attack(
        "GK-6.1",
        "the same ciphertexts for another set",
        again(lambda w: ask(w, members=w.names[:3])),
    )
    yield Attack(
        "GK-6.1",
        "the same ciphertexts under another salt",
        again(lambda w: ask(w, salts={"site3": bytes(32)})),
    )
    yield Attack(
        "GK-6.1",
        "a sum less by a small polynomial, after the true one",
        again(lambda w: ask(w, [plus(each, constant(-1)) for each in w.honest()])),
    )
    yield Attack("GK-6.1", "the same attempt of another phase", again(other_phase))
    yield Attack("GK-6.1", "an earlier round's true sum, never read before", earlier_round)
    yield Attack(
        "CK-4.4",
        "two members' signatures and that of a site that is none",
        lambda: signed_from_outside(began()),
    )
    yield Attack(
        "GK-5.2",
        "an upload of an attempt whose sum was read, and that it was not in",
        lambda: late_upload(began()),
    )

    def afterwards(change: Callable[[World], object]) -> Callable[[], object]:
        """A wrong sum is refused, then what ``change`` asks for."""

        def attack() -> None:
            world = began()
            first(lambda: refused(world))
            change(world)

        return attack

    yield Attack(
        "GK-6.2",
        "the same ciphertexts under the true salts, after false ones were refused",
        false_salts_first,
    )
    yield Attack(
        "GK-3.6",
        "the key that was given up, dealt again",
        afterwards(lambda w: w.keys(SITE).ring.taking(w.key)),
    )
    yield Attack(
        "GK-3.6",
        "another key of the epoch that was given up",
        afterwards(lambda w: w.keys(SITE).ring.taking(replace(w.key, secret=bytes(32)))),
    )
    yield Attack(
        "GK-3.6",
        "the same secret as a later epoch, after a refusal and a restart",
        afterwards(lambda w: restarted(w, SITE).taking(replace(w.key, epoch=2))),
    )

    def after_three(change: Callable[[World], object]) -> Callable[[], object]:
        return lambda: change(thrice())

    yield Attack(
        "GK-6.3",
        "a true sum under a fourth key, after three refused under three keys",
        after_three(lambda w: (restarted(w, SITE), ask(w))),
    )
    yield Attack("GK-6.3", "what no attack is: a person has looked", after_three(looked))
    yield Attack("GK-6.1", "killed while it decrypts, then asked for another", killed(wrong))
    yield Attack(
        "GK-6.1", "what no attack is: killed while it decrypts, asked again", killed(World.honest)
    )
    yield Attack("GK-5.3", "the disk is full before it decrypts", unwritten)
    yield Attack("GK-6.2", "killed after it decrypted, before it gave the key up", unburned)


def other_phase(world: World) -> None:
    other = World(count=COUNT, keepers=world.keepers, binding=replace(world.binding, phase=2))
    ask(other, world.honest())


def earlier_round() -> None:
    before = began()
    old = before.honest()
    after = began(1, 0, before)
    first(lambda: ask(after))
    ask(before, old)


def false_salts_first() -> None:
    world = began()
    try:
        ask(world, salts={"site3": bytes(32)})
    except SumOutOfRange:
        ask(world)
    else:
        raise AssertionError("a sum under a false salt was taken")


def signed_from_outside(world: World) -> None:
    members, signers = world.names[:3], (*world.names[:2], world.names[3])
    ask(world, world.honest(members), members=members, signers=signers)


def late_upload(world: World) -> None:
    """Another process of the site, which the others went on without."""
    members, following = (
        world.names[1:],
        World(
            count=COUNT,
            rekey_every=9,
            binding=binding(0, 1),
            keepers=world.keepers,
            secret=world.key,
        ),
    )
    following.__dict__["uploads"] = {
        name: following.sessions[name].encrypt(following.vectors[name]) for name in members
    }
    first(lambda: ask(following, following.honest(members), members=members))
    following.session(SITE).encrypt(following.vectors[SITE])


def thrice() -> World:
    """Three keys, three wrong sums, and then a sum under a fourth key that all hold."""
    worlds: list[World] = []
    first(lambda: worlds.append(_thrice()))
    return worlds[0]


def _thrice() -> World:
    keepers: dict[str, MemoryKeys] = {}
    for epoch in range(1, MAX_REFUSALS + 2):
        key = GroupSecret(epoch, 0, frozenset(range(4)), bytes([epoch]) * 32)
        world = World(
            count=COUNT, rekey_every=9, binding=binding(0, epoch), keepers=keepers, secret=key
        )
        for name in world.names:
            kept = world.keys(name).ring
            if epoch > MAX_REFUSALS and name == SITE:
                # It would send nothing more; so that there is a sum to ask about, it does here.
                assert kept.refusals == MAX_REFUSALS
                kept = kept.approved()
            keepers[name].write(kept.taking(key))
        world.uploads  # noqa: B018
        if epoch <= MAX_REFUSALS:
            refused(world)
    keepers[SITE].write(replace(world.keys(SITE).ring, refusals=MAX_REFUSALS))
    return world


def looked(world: World) -> None:
    ring = world.keys(SITE).ring
    try:
        ask(world)
    except Refused:
        world.keepers[SITE].write(ring.approved())
        ask(world)
    else:
        raise AssertionError("it went on by itself")


class Killed(BaseException):
    """The process ends here."""


def killed(then: Callable[[World], list[bytes]]) -> Callable[[], object]:
    def attack() -> None:
        world = began()
        true = Decryptor.decrypt

        def dying(self: Decryptor, ciphertexts: object) -> object:
            raise Killed

        Decryptor.decrypt = dying  # type: ignore[assignment]
        try:
            world.open(SITE, world.forged(world.honest()))
        except Killed:
            pass
        finally:
            Decryptor.decrypt = true  # type: ignore[method-assign]
        restarted(world, SITE)
        world.open(SITE, world.forged(then(world)))

    return attack


class Failing(MemoryKeys):
    """A disk that takes ``good`` writes and no more."""

    def __init__(self, ring: KeyRing, good: int) -> None:
        super().__init__()
        super().write(ring)
        self.good = good

    def write(self, ring: KeyRing) -> None:
        if self.good <= 0:
            raise LocalError("the disk is full")
        self.good -= 1
        super().write(ring)


def failing(world: World, good: int) -> None:
    ring = world.keepers[SITE].read()
    assert ring is not None
    world.keepers[SITE] = Failing(ring, good)


def unwritten() -> None:
    world = began()
    failing(world, 0)
    world.open(SITE, world.forged(wrong(world)))


def unburned() -> None:
    """The answer is not out, so the combiner has learned nothing; the same is refused again."""
    world = began()
    failing(world, 1)
    with suppress(LocalError):
        world.open(SITE, world.forged(wrong(world)))
    ring = restarted_from(world)
    assert ring.opened == (0, 1)
    assert ring.current == world.key
    world.keepers[SITE] = MemoryKeys()
    world.keepers[SITE].write(ring)
    try:
        world.open(SITE, world.forged(world.honest()))
    except Refused:
        world.open(SITE, world.forged(wrong(world)))
    else:
        raise AssertionError("a second aggregate was read")


def restarted_from(world: World) -> KeyRing:
    kept = world.keepers[SITE].read()
    assert kept is not None
    return KeyRing.decode(kept.encode())
