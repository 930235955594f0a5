"""States sealed under the group's key: who can read one, and what proves that it is the one (RO-6).

Keys and *ready* frames come from true key stages; the state is any state, named by its digest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hostile_group import ANY, GroupCast, Stage, make_group

from fedbcs_protocols.binding import COMBINER, Binding, encode_fields
from fedbcs_protocols.errors import (
    BadKeyList,
    BadSignature,
    Inconsistent,
    MalformedFrame,
    PeerError,
    Refused,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.framelist import encode_frames
from fedbcs_protocols.group import Group, KeyRing
from fedbcs_protocols.group.messages import present_limit
from fedbcs_protocols.wire import UNSIGNED, Frame, Kind, decode, seal
from fedbcs_secure.federation.checkpoint import (
    SEALED_SEQUENCE,
    Checkpoint,
    seal_state,
    sealed_limit,
    unseal_state,
)
from fedbcs_secure.federation.state import ClassPrototypes, GlobalState

SEALER, OTHER, LOST = "site1", "site2", "site4"
NOT_IT = "not the state that the sites are at"


def make_state(round: int, prototypes: int = 2) -> GlobalState:
    rng = np.random.default_rng(round)
    return GlobalState(
        round,
        rng.standard_normal(20).astype(np.float32),
        rng.standard_normal(20).astype(np.float32),
        tuple(
            ClassPrototypes(0, label, rng.standard_normal((1, 6)).astype(np.float32))
            for label in range(prototypes)
        ),
        (-8, 3),
    )


BEGINNING = make_state(0, prototypes=0)


def at(cast: GroupCast, state: GlobalState) -> GroupCast:
    """The same cast in the round that begins with ``state``."""
    control = replace(cast.control, round=state.round, state_digest=state.digest)
    return replace(cast, control=control)


@dataclass
class World:
    """site0 to site3 are ready for a state and share a key; site4 was given it, but lost all."""

    cast: GroupCast
    state: GlobalState
    stage: Stage
    lost: KeyRing

    @property
    def control(self) -> Binding:
        return self.cast.control

    @property
    def present(self) -> bytes:
        return self.stage.combiner.present

    def ring(self, name: str = SEALER) -> KeyRing:
        return self.cast.ring(name)

    def body(self, name: str = SEALER, state: GlobalState | None = None) -> bytes:
        return seal_state(state or self.state, self.ring(name), self.control, name)

    def sealed(self, name: str = SEALER, body: bytes | None = None, **changes: object) -> bytes:
        """The signed *sealed state* frame of a site."""
        frame = Frame(
            Kind.SEALED_STATE,
            self.control,
            name,
            SEALED_SEQUENCE,
            self.body(name) if body is None else body,
        )
        signer = self.cast.sites[name]
        return seal(replace(frame, **changes), signer)  # type: ignore[arg-type]

    def checkpoint(self, present: bytes | None = None, sealed: bytes | None = None) -> Checkpoint:
        return Checkpoint(
            self.present if present is None else present,
            self.sealed() if sealed is None else sealed,
        )

    def open(
        self,
        checkpoint: Checkpoint,
        own: GlobalState = BEGINNING,
        control: Binding | None = None,
        group: Group | None = None,
    ) -> GlobalState:
        return checkpoint.open(group or self.cast.group, self.lost, control or self.control, own)


def make_world(round: int = 7, cast: GroupCast | None = None) -> World:
    state = make_state(round)
    cast = at(cast or make_group(5, threshold=3, rekey_every=1), state)
    names = cast.names[:-1]
    stage = Stage(cast, names).run()
    helper = cast.ring("site0")
    lost = KeyRing(cast.control.study_digest, 5).joining(helper.secrets, helper.epoch)
    return World(cast, state, stage, lost)


@pytest.fixture
def world() -> World:
    return make_world()


def refused(
    call: Callable[[], object], error: type[PeerError], sender: str, match: str = ""
) -> None:
    with pytest.raises(error, match=match or None) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.sender == sender


# Sealing -----------------------------------------------------------------------------------------


def test_a_sealed_state_comes_back_bit_for_bit(world: World) -> None:
    """RO-6.2"""
    body = world.body()
    again = unseal_state(body, world.lost, world.control, SEALER)
    assert again.encode() == world.state.encode()
    current = world.ring().current
    assert current is not None
    assert body[:32] == current.key_id
    assert len(body) == 32 + 32 + len(world.state.encode()) + 16 <= sealed_limit(BEGINNING)


def test_it_is_what_the_specification_says(world: World) -> None:
    """RO-6.2 once more, with nothing of ours but the list (WI-3.1)."""
    body, control, current = world.body(), world.control, world.ring().current
    assert current is not None
    key = HKDF(
        SHA256(),
        32,
        salt=control.study_digest,
        info=encode_fields("sealed state", 1, current.epoch, SEALER, body[32:64]),
    ).derive(current.secret)
    associated = encode_fields("sealed state", 1, control.encode(), SEALER)
    plain = ChaCha20Poly1305(key).decrypt(bytes(12), body[64:], associated)
    assert plain == world.state.encode()


def test_nothing_of_the_state_or_the_key_is_in_it(world: World) -> None:
    body, plain = world.body(), world.state.encode()
    current = world.ring().current
    assert current is not None
    assert current.secret not in body
    pieces = {plain[at : at + 8] for at in range(0, len(plain) - 8, 4)} - {bytes(8)}
    assert not [piece for piece in pieces if piece in body]


def test_no_two_are_alike(world: World) -> None:
    """A fresh salt, so a key encrypts one message and the nonce may be zero."""
    first, second = world.body(), world.body()
    assert first[32:64] != second[32:64]
    same = sum(a == b for a, b in zip(first[64:], second[64:], strict=True))
    assert same < 0.05 * len(first)


def test_a_site_without_a_key_seals_nothing(world: World) -> None:
    empty = KeyRing(world.control.study_digest, 5)
    current = world.ring().current
    assert current is not None
    for ring in (empty, world.ring().refusing(current.key_id)):
        with pytest.raises(Refused, match="no key of the group's to seal"):
            seal_state(world.state, ring, world.control, SEALER)


def test_after_three_refusals_it_seals_and_opens_nothing(world: World) -> None:
    """GK-6.3"""
    body = world.body()
    for use in (
        lambda ring: seal_state(world.state, ring, world.control, SEALER),
        lambda ring: unseal_state(body, ring, world.control, SEALER),
    ):
        use(replace(world.ring(), refusals=2))
        with pytest.raises(Refused, match="until a person has looked"):
            use(replace(world.ring(), refusals=3))


def test_a_site_without_that_key_cannot_open_it(world: World) -> None:
    empty = KeyRing(world.control.study_digest, 5)
    elsewhere = make_world(cast=make_group(5, threshold=3)).lost
    for ring in (empty, elsewhere):
        with pytest.raises(Refused, match="does not have the key"):
            unseal_state(world.body(), ring, world.control, SEALER)


def test_another_key_of_that_name_opens_nothing(world: World) -> None:
    """As if names could collide: the key is what counts."""
    (secret,) = world.lost.secrets
    for other in (
        replace(secret, secret=bytes(32)),
        # GK-1.3: the epoch is part of what the key is derived from.
        replace(secret, epoch=secret.epoch + 1),
    ):

        class Ring(KeyRing):
            def find(self, key_id: bytes, other: object = other) -> object:  # type: ignore[override]
                return other

        ring = Ring(world.control.study_digest, 5)
        refused(
            lambda ring=ring: unseal_state(world.body(), ring, world.control, SEALER),  # type: ignore[misc]
            Inconsistent,
            SEALER,
            NOT_IT,
        )


def test_it_is_that_sites_of_that_state_and_round_and_study(world: World) -> None:
    """The associated data: the same key opens it nowhere else."""
    body = world.body()
    refused(lambda: unseal_state(body, world.lost, world.control, OTHER), Inconsistent, OTHER)
    for change in (
        {"round": 8},
        {"attempt": 1},
        {"phase": 1},
        {"state_digest": make_state(8).digest},
        {"study_digest": bytes(32)},
    ):
        control = replace(world.control, **change)  # type: ignore[arg-type]
        refused(
            lambda control=control: unseal_state(body, world.lost, control, SEALER),  # type: ignore[misc]
            Inconsistent,
            SEALER,
            NOT_IT,
        )


def test_every_truncation_and_every_flipped_byte_is_refused(world: World) -> None:
    body = world.body()
    for length in range(len(body)):
        with pytest.raises((MalformedFrame, Inconsistent)):
            unseal_state(body[:length], world.lost, world.control, SEALER)
    for at_byte in range(len(body)):
        flipped = body[:at_byte] + bytes([body[at_byte] ^ 4]) + body[at_byte + 1 :]
        with pytest.raises(Refused if at_byte < 32 else Inconsistent):
            unseal_state(flipped, world.lost, world.control, SEALER)


def test_a_member_that_seals_another_state(world: World) -> None:
    """RO-6.4: it has the key, so only the digest tells."""
    liar = make_state(7, prototypes=1)
    body = seal_state(liar, world.ring(), world.control, SEALER)
    refused(
        lambda: unseal_state(body, world.lost, world.control, SEALER), Inconsistent, SEALER, NOT_IT
    )


# A checkpoint's bytes ----------------------------------------------------------------------------


def test_a_checkpoint_is_written_in_one_way(world: World) -> None:
    """RO-6.3"""
    one = world.checkpoint()
    data = one.encode()
    assert data == len(one.present).to_bytes(4, "big") + one.present + one.sealed
    again = Checkpoint.decode(data, sites=5)
    assert (again.present, again.sealed) == (one.present, one.sealed)
    assert len(data) <= Checkpoint.limit(5, BEGINNING)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\1",
        b"\xff\xff\xff\xff" + bytes(100),
        (present_limit(5) + 1).to_bytes(4, "big") + bytes(2 * present_limit(5)),
    ],
)
def test_impossible_lengths(data: bytes) -> None:
    refused(lambda: Checkpoint.decode(data, sites=5), MalformedFrame, COMBINER)


def test_every_truncation_is_refused(world: World) -> None:
    data = world.checkpoint().encode()
    for length in range(len(data)):
        with pytest.raises(PeerError):
            world.open(Checkpoint.decode(data[:length], sites=5))


def test_the_limit_holds_a_state_with_all_it_may_have() -> None:
    """A site that has no prototypes yet must take a state that has them."""
    big = make_state(7, prototypes=300)
    assert len(big.encode()) + 80 <= sealed_limit(BEGINNING)


# Opening one -------------------------------------------------------------------------------------


def test_a_site_that_lost_its_state_comes_to_the_same(world: World) -> None:
    state = world.open(world.checkpoint())
    assert state.encode() == world.state.encode()
    # So does one that was only away, and from any of the sites in the list.
    for name in world.cast.names[:-1]:
        sealed = world.sealed(name)
        own = make_state(6)
        assert world.open(world.checkpoint(sealed=sealed), own).digest == world.state.digest


def test_a_threshold_of_sites_is_enough_and_fewer_are_not(world: World) -> None:
    """RO-6.3"""
    frames = [world.stage.readies.get(name) for name in world.cast.names]
    three = encode_frames([None, *frames[1:]])
    assert world.open(world.checkpoint(three)).digest == world.state.digest
    two = encode_frames([None, *frames[1:3], None, None])
    refused(lambda: world.open(world.checkpoint(two)), BadKeyList, COMBINER, "2 sites are ready")
    refused(lambda: world.open(world.checkpoint(encode_frames([None] * 5))), BadKeyList, COMBINER)


def test_the_same_ready_frame_does_not_count_twice(world: World) -> None:
    frames = [world.stage.readies.get(name) for name in world.cast.names]
    doubled = encode_frames([frames[0], frames[1], frames[1], None, None])
    refused(lambda: world.open(world.checkpoint(doubled)), UnknownSender, SEALER)


def test_the_sealer_must_be_in_the_list(world: World) -> None:
    """RO-6.4"""
    frames = [world.stage.readies.get(name) for name in world.cast.names]
    frames[1] = None
    refused(
        lambda: world.open(world.checkpoint(encode_frames(frames))),
        BadKeyList,
        COMBINER,
        "sealed by a site that is not at it",
    )


def test_ready_frames_that_the_combiner_made(world: World) -> None:
    """It has no site's key, and its own signature stands for no site."""
    forged = []
    for place, name in enumerate(world.cast.names):
        true = world.stage.readies.get(name)
        if true is None:
            forged.append(None)
            continue
        frame = replace(decode(true, ANY), signature=UNSIGNED)
        forged.append(seal(frame, world.cast.boss) if place < 2 else true)
    refused(lambda: world.open(world.checkpoint(encode_frames(forged))), BadSignature, "site0")
    mine = [*[world.stage.readies.get(name) for name in world.cast.names[:-1]], None]
    mine[0] = seal(Frame(Kind.READY, world.control, COMBINER, 0, b""), world.cast.boss)
    refused(lambda: world.open(world.checkpoint(encode_frames(mine))), UnknownSender, COMBINER)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"study_digest": bytes(32)}, "study digest"),
        ({"round": 6}, "round"),
        ({"attempt": 1}, "attempt"),
        ({"phase": 1}, "phase"),
        ({"state_digest": bytes(32)}, "state digest"),
    ],
)
def test_true_frames_of_another_time(world: World, change: dict[str, object], field: str) -> None:
    """Of another study, round, attempt, phase or state; the list as well as the sealed state."""
    binding = replace(world.control, **change)  # type: ignore[arg-type]
    sealed = world.sealed(binding=binding)
    refused(
        lambda: world.open(world.checkpoint(sealed=sealed)), WrongBinding, SEALER, f"'s {field} is"
    )
    frames = [world.stage.readies.get(name) for name in world.cast.names]
    frames[2] = world.cast.site(OTHER).ready(binding)
    refused(
        lambda: world.open(world.checkpoint(encode_frames(frames))),
        WrongBinding,
        OTHER,
        f"'s {field} is",
    )


def test_a_checkpoint_of_an_earlier_round_shown_as_one_of_this(world: World) -> None:
    """Replay: every signature in it is true, but none is for this state."""
    later = make_world(8, world.cast)
    for old in (
        world.checkpoint(),
        Checkpoint(world.present, later.sealed()),
        Checkpoint(later.present, world.sealed()),
    ):
        with pytest.raises(WrongBinding, match="round"):
            later.open(old)
    # As what it is, it is still a state that the sites were at, and a later one than none.
    assert later.open(world.checkpoint(), control=world.control).digest == world.state.digest


@pytest.mark.parametrize("own", [7, 8, 30])
def test_no_site_goes_back_or_sideways(world: World, own: int) -> None:
    """RO-6.4: for a later round than its own only."""
    with pytest.raises(Refused, match=f"a checkpoint of round 7, and this site is at {own}"):
        world.open(world.checkpoint(), make_state(own))


def test_a_member_that_seals_what_it_likes_is_named(world: World) -> None:
    for body in (
        seal_state(make_state(7, prototypes=1), world.ring(), world.control, SEALER),
        world.body()[:-1] + bytes([world.body()[-1] ^ 1]),
        # What another site sealed, under its own signature.
        world.body(OTHER),
    ):
        sealed = world.sealed(body=body)
        refused(
            lambda sealed=sealed: world.open(world.checkpoint(sealed=sealed)),  # type: ignore[misc]
            Inconsistent,
            SEALER,
            NOT_IT,
        )
    short = world.sealed(body=bytes(79))
    refused(lambda: world.open(world.checkpoint(sealed=short)), MalformedFrame, SEALER)


def test_a_state_that_the_combiner_made_up(world: World) -> None:
    """It can name any state; no threshold of sites has signed that it is at that one."""
    made_up = make_state(9)
    control = replace(world.control, round=9, state_digest=made_up.digest)
    body = seal_state(made_up, world.ring(), control, SEALER)
    accomplice = world.sealed(body=body, binding=control)
    with pytest.raises(WrongBinding, match="round"):
        world.open(world.checkpoint(sealed=accomplice), control=control)
    # Nor with as many accomplices as are below the threshold.
    frames = [None, *(world.cast.site(name).ready(control) for name in (SEALER, OTHER)), None, None]
    listed = encode_frames(frames)
    with pytest.raises(BadKeyList, match="2 sites are ready, the threshold is 3"):
        world.open(world.checkpoint(listed, accomplice), control=control)


def test_frames_of_other_kinds_and_senders(world: World) -> None:
    """What is in the place of the sealed state."""
    ready = world.stage.readies[SEALER]
    by_boss = seal(
        Frame(Kind.SEALED_STATE, world.control, COMBINER, SEALED_SEQUENCE, world.body()),
        world.cast.boss,
    )
    for sealed, error in (
        (ready, UnexpectedFrame),
        (by_boss, UnknownSender),
        (world.sealed(sender=OTHER), BadSignature),
        (world.sealed(sequence=4), WrongBinding),
        (b"", MalformedFrame),
        (world.sealed() + b"\0", MalformedFrame),
        (world.sealed(body=bytes(sealed_limit(BEGINNING) + 1)), MalformedFrame),
    ):
        with pytest.raises(error):
            world.open(world.checkpoint(sealed=sealed))


def test_what_is_refused_shows_no_secret(world: World) -> None:
    current = world.ring().current
    assert current is not None
    for name in (SEALER, OTHER):
        body = world.body(name)
        with pytest.raises((Inconsistent, Refused)) as caught:
            unseal_state(body[:-1], world.lost, world.control, name)
        assert current.secret.hex() not in repr(caught.value)
    assert current.secret.hex() not in repr(world.checkpoint())
