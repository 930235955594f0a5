"""Sessions that are interrupted or lied to: what stays as it was, and what is durable by then.

``test_steps.py`` has the way of a sum, ``test_reading.py`` what a wrong one is.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from ckks_cast import willing
from ckks_world import ANY, World, binding, scratch

from fedbcs_protocols.ckks import CkksCombiner, CkksSession, CombinerState, SiteState
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES
from fedbcs_protocols.errors import (
    BadCiphertext,
    BadSignature,
    Inconsistent,
    LocalError,
    MalformedFrame,
    PeerError,
    Refused,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.group import MAX_REFUSALS, GroupSecret, KeyRing
from fedbcs_protocols.wire import Kind, decode

HEAD = 100
THREE = 3 * 8188 - 100
"""Values that fill three chunks."""
MANY = 10 * 8188 - 100
"""Three batches of chunks."""


def told_by(combiner: CkksCombiner) -> bytes:
    """What the combiner announces: who is in the aggregate, and its digest."""
    combiner.close()
    return combiner.requests["site0"]


# What a combiner does not take -------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize("first", [True, False])
def test_a_refused_upload_changes_nothing(chunk: int, first: bool) -> None:
    """CK-3.9: wherever its one bad number is, even in the very first upload that comes."""
    world = World(count=THREE)
    body = bytearray(decode(world.uploads["site1"], ANY).body)
    start = HEAD + chunk * POLYNOMIAL_BYTES
    # Word 255 of row 14, and the last of row 15, which is in the top bits of the rows above.
    body[start + POLYNOMIAL_BYTES - 8 : start + POLYNOMIAL_BYTES] = b"\xff" * 8
    bad = world.resigned(world.uploads["site1"], body=bytes(body))
    clean, lied_to = world.combiner(), world.combiner()
    for name in world.names:
        clean.receive(world.uploads[name])
    before = () if first else world.names[2:]
    for name in before:
        lied_to.receive(world.uploads[name])
    with pytest.raises(BadCiphertext, match="site1: a coefficient that is no residue"):
        lied_to.receive(bad, line="site1")
    assert "site1" in lied_to.expected
    for name in lied_to.expected:
        lied_to.receive(world.uploads[name])
    assert told_by(lied_to) == told_by(clean)


def test_the_second_stage_takes_what_it_waits_for() -> None:
    """CK-4.3: one signature each, of a site that is in the aggregate."""
    world = World(count=10)
    combiner = world.combiner()
    for name in world.names[:3]:
        combiner.receive(world.uploads[name])
    combiner.close()
    assert combiner.survivors == combiner.expected == world.names[:3]
    assert set(combiner.requests) == set(world.names[:3])
    answer = world.sessions["site0"].agree(combiner.requests["site0"])
    out = world.signed(Kind.CONSISTENCY, 1, decode(answer, ANY).body, "site3")
    with pytest.raises(UnexpectedFrame, match="site3: it has dropped out"):
        combiner.receive(out)
    for bad, error in (
        (world.uploads["site0"], MalformedFrame),
        (world.signed(Kind.ADVERTISE, 1, bytes(32), "site0"), UnexpectedFrame),
        (world.signed(Kind.CONSISTENCY, 1, bytes(32), "site1"), UnknownSender),
        (world.resigned(answer, sequence=0), WrongBinding),
        (world.resigned(answer, body=bytes(31)), Inconsistent),
        (world.resigned(answer, body=bytes(33)), MalformedFrame),
        (world.resigned(answer, body=bytes(32)), Inconsistent),
        (world.resigned(answer, binding=binding(0, 1)), WrongBinding),
        (answer[:-1] + bytes([answer[-1] ^ 1]), BadSignature),
    ):
        with pytest.raises(error):
            combiner.receive(bad, line="site0")
        assert combiner.state is CombinerState.AGREEMENT
        assert combiner.expected == world.names[:3]
    combiner.receive(answer, line="site0")
    with pytest.raises(UnexpectedFrame, match="comes twice"):
        combiner.receive(answer)
    assert combiner.expected == world.names[1:3]


# What a site does not take -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.SUM, Kind.CONSISTENCY, Kind.ENCRYPTED])
def test_another_frame_than_an_aggregate(kind: Kind) -> None:
    world = World(count=10)
    site = willing(world, "site0")
    body = decode(world.announcement(world.names), ANY).body
    with pytest.raises(PeerError):
        site.agree(world.signed(kind, 0, body))
    for bad in (
        world.signed(Kind.AGGREGATE, 1, body),
        world.signed(Kind.AGGREGATE, 0, body, "site1"),
        world.signed(Kind.AGGREGATE, 0, bytes(body) + b"\0"),
        World(count=10, binding=binding(0, 1)).announcement(world.names),
        World(count=10, binding=binding(1)).announcement(world.names),
    ):
        with pytest.raises(PeerError):
            site.agree(bad)
        assert site.transcript is None
        assert site.state is SiteState.ENCRYPTED


def test_it_signs_for_nothing_after_it_gave_the_key_up() -> None:
    """GK-6.2"""
    world = World(count=10)
    site = willing(world, "site0")
    world.keys("site0").burn(world.key.key_id)
    with pytest.raises(Refused, match="given up the key"):
        site.agree(world.announcement(world.names))
    assert (site.state, site.transcript) == (SiteState.LEFT, None)


def test_it_signs_for_nothing_until_a_person_has_looked() -> None:
    """GK-6.3"""
    world = World(count=10)
    site = willing(world, "site0")
    keys = world.keys("site0")
    keys.keep(replace(keys.ring, refusals=3))
    with pytest.raises(Refused, match="until a person has looked"):
        site.agree(world.announcement(world.names))


def test_sessions_for_somebody_else() -> None:
    world = World(count=10)
    for name, of in (("site0", "site1"), ("site9", "site0"), ("@combiner", "@combiner")):
        with pytest.raises(LocalError, match="the roster does not list"):
            CkksSession(
                world.setting,
                identity=world.identities[of],
                name=name,
                guard=world.guard,
                keys=world.keys("site0"),
                scratch=scratch(),
            )
    with pytest.raises(LocalError, match="not the combiner's"):
        CkksCombiner(world.setting, identity=world.identities["site0"])


def test_a_stranger_that_secagg_would_admit() -> None:
    """CK-0.3: with a threshold of all four, one that is not verified could be borne there."""
    world = World(count=10)
    terms = replace(world.setting.terms, threshold=4)
    world.__dict__["setting"] = replace(world.setting, terms=terms)
    roster = world.setting.roster
    for stranger in world.names[1:]:
        known = frozenset(key.fingerprint for name, key in roster.items() if name != stranger)
        guard = replace(world.guard, verified=known)
        guard.admit(terms, roster, "site0")
        with pytest.raises(Refused, match=r"1 site\(s\) .* would get the key"):
            world.session("site0", guard)
        # Itself it knows.
        world.session(stranger, guard)


# Interruptions -----------------------------------------------------------------------------------


def wrong(world: World, chunk: int = 0) -> bytes:
    """A sum that is signed for, with one bit of one chunk changed."""
    aggregate = world.honest()
    changed = bytearray(aggregate[chunk])
    # Bit 32 of coefficient 1: 64 in its second digit.
    changed[12] ^= 1
    aggregate[chunk] = bytes(changed)
    return world.forged(aggregate)


class FullDisk(OSError):
    pass


def test_a_key_that_cannot_be_given_up_is_no_refusal() -> None:
    """GK-6.2: without the disk's word nothing is said that the combiner could take for an answer.

    What was tried is written, so after a restart the site reads that aggregate again, or none.
    """
    world = World(count=9000)
    frame, other = wrong(world), wrong(world, 1)
    keeper = world.keepers["site0"]
    original = type(keeper).write

    def write(ring: KeyRing) -> None:
        if ring.refusals:
            raise FullDisk
        original(keeper, ring)

    with mock.patch.object(keeper, "write", write), pytest.raises(FullDisk):
        world.open("site0", frame)
    ring = KeyRing.decode(keeper.read().encode())
    assert (ring.opened, ring.refusals, ring.burned) == ((0, 1), 0, False)
    for asked in (other, world.run()):
        with pytest.raises(Refused, match="reads one for each attempt"):
            world.open("site0", asked)
    with pytest.raises(PeerError):
        world.open("site0", frame)
    assert (world.keys("site0").ring.refusals, world.keys("site0").ring.burned) == (1, True)


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_process_that_dies_while_it_decrypts(batch: int) -> None:
    """GK-6.1: at any batch; the next process reads this aggregate and no other of the attempt."""
    world = World(count=MANY)
    honest, calls = world.run(), []
    original = Decryptor.decrypt

    def decrypt(self: Decryptor, ciphertexts: object) -> object:
        calls.append(1)
        if len(calls) == batch + 1:
            raise KeyboardInterrupt
        return original(self, ciphertexts)

    with mock.patch.object(Decryptor, "decrypt", decrypt), pytest.raises(KeyboardInterrupt):
        world.open("site0", honest)
    ring = world.keys("site0").ring
    assert (ring.opened, ring.refusals) == ((0, 1), 0)
    with pytest.raises(Refused, match="reads one for each attempt"):
        world.open("site0", wrong(world, 3 * batch))
    assert world.open("site0", honest).total.tolist() == world.total
    assert world.keys("site0").ring.refusals == 0


def test_a_disk_that_is_full_before_anything_is_decrypted() -> None:
    """GK-6.1: what is not written down is not decrypted."""
    world = World(count=10)
    frame = world.run()
    with (
        mock.patch.object(world.keepers["site0"], "write", side_effect=FullDisk),
        mock.patch.object(Decryptor, "decrypt") as decrypt,
        pytest.raises(FullDisk),
    ):
        world.open("site0", frame)
    decrypt.assert_not_called()


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_refusals_are_counted_over_restarts(chunk: int) -> None:
    """GK-6.3: the first, the middle, the last chunk; each time from what was written."""
    keepers: dict[str, object] = {}
    for attempt in range(MAX_REFUSALS + 1):
        secret = GroupSecret(attempt + 1, 0, frozenset(range(4)), bytes([attempt + 1]) * 32)
        world = World(
            count=THREE,
            binding=binding(0, attempt),
            keepers=keepers,  # type: ignore[arg-type]
            secret=secret,
        )
        for name in world.names:
            keeper = world.keepers.get(name)
            if keeper is not None:
                ring = KeyRing.decode(keeper.read().encode())
                keeper.write(ring.taking(secret))
        if attempt == MAX_REFUSALS:
            with pytest.raises(Refused, match="until a person has looked"):
                world.session("site0").encrypt(world.vectors["site0"])
            return
        with pytest.raises(PeerError):
            world.open("site0", wrong(world, chunk))
        ring = KeyRing.decode(world.keepers["site0"].read().encode())
        assert (ring.refusals, ring.burned, ring.current) == (attempt + 1, True, None)


# What is drawn for each upload --------------------------------------------------------------------


def test_salt_and_noise_are_the_operating_systems(small: World) -> None:
    """CK-3.3, CK-3.4: both, for each upload."""
    with mock.patch(
        "fedbcs_protocols.ckks.site.secrets.token_bytes", side_effect=[b"s" * 32, b"n" * 32]
    ) as drawn:
        frame = small.session("site0").encrypt(small.vectors["site0"])
    assert [call.args for call in drawn.call_args_list] == [(32,), (32,)]
    assert bytes(decode(frame, ANY).body)[64:96] == b"s" * 32


def test_two_uploads_of_a_vector_have_nothing_in_common() -> None:
    """CK-3.1: another secret and other noise, so another ciphertext."""
    worlds = World(count=10), World(count=10)
    bodies = [
        bytes(decode(world.session("site0").encrypt(world.vectors["site0"]), ANY).body)
        for world in worlds
    ]
    words = [np.frombuffer(body[HEAD:], "<u8") for body in bodies]
    assert bodies[0][64:96] != bodies[1][64:96]
    assert not (words[0] == words[1]).any()


def test_another_salt_than_its_own() -> None:
    """CK-4.3: it signs nothing, decrypts nothing and keeps its key."""
    world = World(count=10)
    site = willing(world, "site0")
    with pytest.raises(Inconsistent, match="another salt"):
        site.agree(world.announcement(world.names, salts={"site0": b"x" * 32}))
    assert (site.state, site.transcript) == (SiteState.LEFT, None)
    ring = world.keys("site0").ring
    assert (ring.refusals, ring.burned, ring.find(world.key.key_id)) == (0, False, world.key)


def test_the_salts_of_the_others_are_signed() -> None:
    """CK-4.3: who is told other salts signs something else, so there is no agreement."""
    world = World(count=10)
    found = set()
    for salts in ({}, {"site1": b"x" * 32}, {"site2": b"x" * 32}):
        site = willing(world, "site0")
        site.agree(world.announcement(world.names, salts=salts))
        found.add(site.transcript)
    assert len(found) == 3


def test_the_file_that_seal_reads_is_empty_afterwards() -> None:
    """CK-6.6: whatever came of it."""
    world, fresh = World(count=10), World(count=10)
    with pytest.raises(LocalError):
        fresh.session("site0").encrypt(world.vectors["site0"][:-1])
    assert scratch().read() == b""
    world.uploads  # noqa: B018
    assert scratch().read() == b""
    frame = world.run()
    world.open("site0", frame)
    assert scratch().read() == b""
    with pytest.raises(PeerError):
        world.open("site1", wrong(world))
    assert scratch().read() == b""


# What a session says about itself ----------------------------------------------------------------


def test_what_they_are_for(small: World) -> None:
    site, combiner = small.session("site0"), small.combiner()
    assert site.binding == combiner.binding == small.binding
    assert repr(site) == "CkksSession(site0, round 0, FRESH)"
    assert repr(combiner) == "CkksCombiner(round 0, ENCRYPTED)"
    assert combiner.survivors == ()
    assert combiner.expected == small.names


@pytest.mark.parametrize("lost", ["site0", "site3"])
def test_a_site_that_never_encrypted_reads_the_sum(lost: str) -> None:
    """CK-5.1: it holds the key, and the agreement is of the others."""
    world = World(count=10)
    others = tuple(name for name in world.names if name != lost)
    outcome = world.open(lost, world.run(others))
    assert outcome.survivors == others
    assert world.keys(lost).ring.survivors == frozenset(map(world.names.index, others))


def test_two_rounds_with_one_key() -> None:
    """CK-0.2, GK-5.1: another binding, other sessions, other tags; a sum of one is none of both."""
    first = World(count=10, rekey_every=2)
    later = World(
        count=10, rekey_every=2, binding=binding(1), secret=first.key, keepers=first.keepers
    )
    one, two = first.run(), later.run()
    assert first.open("site1", one).total.tolist() == first.total
    assert later.open("site1", two).total.tolist() == later.total
    told = replace(decode(two, ANY), binding=first.binding)
    with pytest.raises(PeerError):
        first.open("site2", first.resigned(one, body=bytes(told.body)))
    assert first.keys("site2").ring.refusals == 0
