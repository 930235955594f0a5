"""Two aggregates where there must be one, and questions that come again (CK-4.3, CK-5.1, GK-6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ckks_cast import Attack, Scene, read, restarted, willing
from ckks_world import World, binding

from fedbcs_protocols.ckks.messages import (
    Agreement,
    Announced,
    aggregate_digest,
    agree_frame,
    encode_sum,
    transcript,
)
from fedbcs_protocols.errors import Inconsistent, ProtocolError
from fedbcs_protocols.group import MAX_REFUSALS
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS
from fedbcs_protocols.wire import Kind, decode

ANY = dict.fromkeys(Kind, 1 << 32)
Act = Callable[[], object]


def attacks() -> Iterator[Attack]:
    scene = Scene()
    yield from _equivocation(scene)
    yield from _again(scene)


def _equivocation(scene: Scene) -> Iterator[Attack]:
    """Every site signs what it is shown, once: so there are t signatures for one thing only."""
    world = scene.world
    one, other = scene.honest, world.honest(world.names[:3])
    threshold = world.setting.terms.threshold
    assert threshold == 3

    def asked(
        name: str,
        aggregate: list[bytes],
        members: tuple[str, ...],
        salts: dict[str, bytes] | None = None,
    ) -> bytes:
        """The site's own signature, from a session of its own."""
        digest = aggregate_digest(b"".join(aggregate))
        frame = willing(world, name).agree(world.announcement(members, digest, salts))
        return decode(frame, ANY).signature

    def told(aggregate: list[bytes], signed: dict[str, tuple[list[bytes], tuple[str, ...]]]) -> Act:
        """The sum frame with the signatures that the sites gave for what each was shown."""

        def run() -> object:
            scene.begin()
            signatures = {
                world.names.index(name): asked(name, *shown) for name, shown in signed.items()
            }
            body = b"".join(aggregate)
            members = world.names if aggregate is one else world.names[:3]
            announced = Announced(world.salts(members), aggregate_digest(body))
            agreement = Agreement(world.key.key_id, announced, signatures)
            frame = world.signed(Kind.SUM, 1, encode_sum(agreement, body, world.setting))
            return read(world, "site0", frame)

        return run

    both, three = (one, world.names), (other, world.names[:3])
    yield Attack(
        "CK-4.4",
        "what no attack is: three signatures on one aggregate",
        told(one, {"site0": both, "site1": both, "site3": both}),
    )
    yield Attack(
        "CK-4.4",
        "two were shown this, two another: the two signatures",
        told(one, {"site0": both, "site1": both}),
    )
    yield Attack(
        "CK-4.4",
        "two were shown this, two another: all four signatures",
        told(one, {"site0": both, "site1": both, "site2": three, "site3": both}),
    )
    yield Attack(
        "CK-4.4",
        "two were shown this, one another: three signatures",
        told(other, {"site0": three, "site1": three, "site2": both}),
    )

    def blind(salts: dict[str, bytes], signers: tuple[str, ...]) -> Act:
        """Sites sign for salts of others that those have not sent; then they open the true sum."""

        def run() -> object:
            scene.begin()
            signatures = {world.names.index(n): asked(n, one, world.names, salts) for n in signers}
            body = b"".join(one)
            announced = Announced(world.salts(world.names, salts), aggregate_digest(body))
            agreement = Agreement(world.key.key_id, announced, signatures)
            frame = world.signed(Kind.SUM, 1, encode_sum(agreement, body, world.setting))
            return read(world, "site0", frame)

        return run

    last, own = world.names[3], world.salt("site0")
    yield Attack(
        "CK-6.3",
        "three signed for a salt that the fourth did not send",
        blind({last: bytes(32)}, world.names[:3]),
    )
    yield Attack(
        "CK-4.3",
        "the fourth is asked to sign for it too",
        blind({last: bytes(32)}, world.names),
    )
    yield Attack(
        "CK-6.3",
        "three signed for the first one's salt in the fourth's place",
        blind({last: own}, world.names[:3]),
    )

    def signatures(change: Callable[[dict[int, bytes]], dict[int, bytes]]) -> Act:
        def run() -> object:
            true = world.forged(one)
            agreement, end = Agreement.decode_from(
                decode(true, ANY).body, sender="x", sites=world.sites
            )
            changed = replace(agreement, signatures=change(dict(agreement.signatures)))
            body = changed.encode(world.sites) + bytes(decode(true, ANY).body)[end:]
            return read(scene.begin(), "site0", world.signed(Kind.SUM, 1, body))

        return run

    yield Attack("CK-4.4", "no signature", signatures(lambda s: {}))
    yield Attack("CK-4.4", "two signatures", signatures(lambda s: {0: s[0], 1: s[1]}))
    yield Attack(
        "CK-4.4",
        "one site's signature in three places",
        signatures(lambda s: {0: s[0], 1: s[0], 2: s[0]}),
    )
    yield Attack(
        "CK-4.4", "signatures in each other's places", signatures(lambda s: s | {0: s[1], 1: s[0]})
    )
    yield Attack(
        "CK-4.4", "three signatures and one of zeros", signatures(lambda s: s | {3: bytes(64)})
    )

    seen = {0: b"what this site signed".ljust(32, b".")}
    yield Attack(
        "CK-5.1",
        "all but this site signed it",
        lambda: read(scene.begin(), "site0", world.forged(one), seen),
    )
    yield Attack(
        "CK-5.1",
        "all signed it, another aggregate is sent",
        lambda: _exchanged(scene),
    )
    for name, changes in {
        "another round": {"binding": replace(world.binding, round=1)},
        "another attempt": {"binding": replace(world.binding, attempt=1)},
        "a vector of another length": {"count": world.count - 1},
        "other parameters": {"params": replace(world.setting.params, bits=15)},
        "another key": {"key_id": bytes(32)},
    }.items():
        yield Attack(
            "CK-4.3",
            f"signatures that were given for {name}",
            lambda c=changes: _moved(scene, c),  # type: ignore[misc]
        )

    def session(*frames: Callable[[World], bytes]) -> Act:
        def run() -> None:
            fresh = World(count=10)
            fresh.uploads  # noqa: B018
            for frame in frames:
                fresh.sessions["site0"].agree(frame(fresh))

        return run

    def all_of(w: World) -> bytes:
        return w.announcement(w.names, b"1" * 32)

    yield Attack(
        "CK-4.3",
        "a second aggregate to sign",
        session(all_of, lambda w: w.announcement(w.names, b"2" * 32)),
    )
    yield Attack("CK-4.3", "the same one to sign again", session(all_of, all_of))
    yield Attack(
        "CK-4.3", "an aggregate without this site", session(lambda w: w.announcement(w.names[1:]))
    )
    yield Attack("CK-4.3", "an aggregate of two", session(lambda w: w.announcement(w.names[:2])))
    others = World(count=10, binding=binding(attempt=1))
    for name, salts in {
        "zeros": lambda w: {"site0": bytes(32)},
        "another site's": lambda w: {"site0": w.salt("site1")},
        "its own of another attempt": lambda w: {"site0": others.salt("site0")},
        "each other's": lambda w: {"site0": w.salt("site1"), "site1": w.salt("site0")},
    }.items():
        yield Attack(
            "CK-4.3",
            f"an aggregate in which this site's salt is {name}",
            session(lambda w, s=salts: w.announcement(w.names, salts=s(w))),  # type: ignore[misc]
        )

    def false_then_true() -> None:
        fresh = World(count=10)
        fresh.uploads  # noqa: B018
        false = fresh.announcement(fresh.names, salts={"site0": bytes(32)})
        try:
            fresh.sessions["site0"].agree(false)
        except Inconsistent:
            fresh.sessions["site0"].agree(all_of(fresh))
        else:
            raise AssertionError("it signed for a salt that is not its own")

    yield Attack("CK-4.3", "a true aggregate to sign, after one with a false salt", false_then_true)
    yield Attack(
        "CK-4.3",
        "before it sent anything",
        lambda: World(count=10).session("site0").agree(all_of(World(count=10))),
    )


def _exchanged(scene: Scene) -> object:
    world = scene.begin()
    true = bytes(decode(world.forged(scene.honest), ANY).body)
    other = b"".join(world.honest(world.names[:3]))
    return read(world, "site0", world.signed(Kind.SUM, 1, true[: -len(other)] + other))


def _moved(scene: Scene, changes: dict[str, object]) -> object:
    world = scene.begin()
    true = world.setting
    world.__dict__["setting"] = replace(true, **changes)  # type: ignore[arg-type]
    try:
        signed = world.setting
        aggregate = b"".join(scene.honest)
        announced = Announced(world.salts(world.names), aggregate_digest(aggregate))
        digest = transcript(signed, announced)
        signatures = {
            place: world.identities[name].sign(agree_frame(signed, name, digest).signed_message())
            for place, name in enumerate(world.names)
        }
    finally:
        world.__dict__["setting"] = true
    agreement = Agreement(world.key.key_id, announced, signatures)
    body = encode_sum(agreement, aggregate, true)
    return read(world, "site0", world.signed(Kind.SUM, 1, body))


def _again(scene: Scene) -> Iterator[Attack]:
    """GK-6: what a site answered, or would not, it does not answer otherwise later."""
    key = scene.world.key
    other = scene.world.honest(scene.world.names[:3])
    members = scene.world.names[:3]

    def true(world: World) -> bytes:
        return world.forged(scene.honest)

    def crafted(world: World) -> bytes:
        return world.forged(scene.honest[::-1])

    def following(world: World, **changes: int) -> World:
        """The next attempt or round, of the same sites, with what they keep."""
        return World(
            count=world.count,
            secret=key,
            rekey_every=9,
            keepers=world.keepers,
            binding=binding(**changes),
        )

    def after(first: Callable[[World], bytes], then: Callable[[World], object]) -> Act:
        def run() -> object:
            world = scene.begin()
            try:
                read(world, "site0", first(world))
            except ProtocolError:
                assert first is not true
            return then(world)

        return run

    def telling(frame: Callable[[World], bytes]) -> Callable[[World], object]:
        return lambda world: read(world, "site0", frame(world))

    def anew(then: Callable[[World], object]) -> Callable[[World], object]:
        def run(world: World) -> object:
            restarted(world, "site0")
            return then(world)

        return run

    def three(world: World) -> bytes:
        return world.forged(other, members)

    yield Attack("GK-6.1", "what no attack is: the same sum again", after(true, telling(true)))
    yield Attack("GK-6.1", "another aggregate of the attempt", after(true, telling(crafted)))
    yield Attack("GK-6.1", "a true one over other sites", after(true, telling(three)))
    yield Attack("GK-6.1", "another aggregate after a restart", after(true, anew(telling(crafted))))

    def next_and_back(world: World) -> object:
        later = following(world, attempt=1)
        read(later, "site0", later.run())
        return read(world, "site0", true(world))

    yield Attack("GK-6.1", "the attempt before, after a later one", after(true, next_and_back))

    def never_read(world: World) -> object:
        later = following(world, attempt=1)
        read(later, "site0", later.run())
        restarted(world, "site0")
        return read(world, "site0", crafted(world))

    yield Attack(
        "GK-6.1",
        "an attempt that was passed over, after a restart",
        lambda: never_read(scene.begin()),
    )

    yield Attack("GK-6.2", "the true sum after a refusal", after(crafted, telling(true)))
    yield Attack(
        "GK-6.2", "the crafted one again after a refusal", after(crafted, telling(crafted))
    )
    yield Attack(
        "GK-6.2", "the true sum after a refusal and a restart", after(crafted, anew(telling(true)))
    )
    yield Attack(
        "GK-6.2",
        "the next attempt's true sum after a refusal",
        after(crafted, lambda w: _told_by_others(following(w, attempt=1))),
    )
    yield Attack(
        "GK-6.2",
        "another upload under a key that was given up",
        after(
            crafted, lambda w: following(w, attempt=1).session("site0").encrypt(w.vectors["site0"])
        ),
    )
    yield Attack(
        "GK-5.2",
        "another upload of the attempt",
        lambda: (w := scene.begin()).session("site0").encrypt(w.vectors["site0"]),
    )

    def read_without_it(world: World) -> object:
        later = following(world, attempt=1)
        _told_by_others(later)
        return later.session("site0").encrypt(later.vectors["site0"])

    yield Attack(
        "GK-5.2",
        "an upload for a sum that was read, over the others",
        lambda: read_without_it(scene.begin()),
    )
    yield Attack(
        "GK-5.2",
        "an upload of an attempt whose sum was read",
        after(true, lambda w: w.session("site0").encrypt(w.vectors["site0"])),
    )
    yield Attack(
        "GK-5.2",
        "the seventeenth attempt's upload",
        lambda: (
            (w := following(scene.begin(), attempt=MAX_ATTEMPTS))
            .session("site0")
            .encrypt(w.vectors["site0"])
        ),
    )
    yield Attack(
        "GK-5.2",
        "the seventeenth attempt's sum",
        lambda: _told_by_others(following(scene.begin(), attempt=MAX_ATTEMPTS)),
    )
    yield Attack(
        "GK-5.1",
        "an upload in the round after the key's last",
        lambda: (
            (w := following(scene.begin(), round=9)).session("site0").encrypt(w.vectors["site0"])
        ),
    )

    def refused_thrice(then: Callable[[World], object]) -> Act:
        def run() -> object:
            world = scene.begin()
            keys = world.keys("site0")
            for _ in range(MAX_REFUSALS):
                keys.keep(keys.ring.refusing(bytes(32)))
            restarted(world, "site0")
            assert keys.ring.find(key.key_id) is not None
            return then(world)

        return run

    yield Attack("GK-6.3", "a true sum after three refusals", refused_thrice(telling(true)))
    yield Attack(
        "GK-6.3",
        "an upload after three refusals",
        refused_thrice(
            lambda w: following(w, attempt=1).session("site0").encrypt(w.vectors["site0"])
        ),
    )
    yield Attack(
        "GK-6.3",
        "ready after three refusals",
        refused_thrice(lambda w: w.keys("site0").ready(replace(w.binding, phase=0))),
    )


def _told_by_others(world: World) -> object:
    """A true sum over the other three sites, told to the first."""
    if world.binding.attempt < MAX_ATTEMPTS:
        for name in world.names[1:]:
            world.__dict__.setdefault("uploads", {})[name] = world.session(name).encrypt(
                world.vectors[name]
            )
        return read(world, "site0", world.forged(world.honest(world.names[1:]), world.names[1:]))
    # No honest site sends anything in such an attempt, so any ciphertexts will do.
    now = World(count=world.count, secret=world.key)
    return read(world, "site0", world.forged(now.honest()))
