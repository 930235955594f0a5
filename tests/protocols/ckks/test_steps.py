"""Both sessions and the reading of the end, without a network: what they take and what not."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from ckks_cast import message, plus, willing
from ckks_world import ANY, SECRET, World, binding

from fedbcs_protocols.ckks import CkksCombiner, CombinerState, SiteState
from fedbcs_protocols.errors import (
    BadCiphertext,
    BadSignature,
    BadSiteList,
    BadTag,
    Inconsistent,
    LocalError,
    MalformedFrame,
    PeerError,
    Refused,
    TooFewSites,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.group import MAX_REFUSALS, KeyRing
from fedbcs_protocols.secagg import Guard
from fedbcs_protocols.wire import Kind, decode

# The site ----------------------------------------------------------------------------------------


def test_one_upload_a_session_and_attempt(small: World) -> None:
    """CK-0.2, GK-5.2"""
    session = small.session("site0")
    session.encrypt(small.vectors["site0"])
    assert session.state is SiteState.ENCRYPTED
    with pytest.raises(LocalError, match="does not allow ENCRYPT"):
        session.encrypt(small.vectors["site0"])
    with pytest.raises(Refused, match="not after what this site has sent"):
        small.session("site0").encrypt(small.vectors["site0"])


def test_the_upload_is_written_down_before_it_is_made(small: World) -> None:
    """GK-5.3"""

    class Dying(Exception):
        pass

    keys = small.keys("site0")
    kept = []

    def keep(ring: KeyRing) -> None:
        kept.append(ring)
        raise Dying

    keys.keep = keep  # type: ignore[method-assign]
    session = small.session("site0")
    session._keys = keys
    with pytest.raises(Dying):
        session.encrypt(small.vectors["site0"])
    assert kept[0].uploaded == (0, 1)
    assert session.state is SiteState.FRESH


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[:-1],
        lambda v: v.astype(np.uint64),
        lambda v: v.reshape(2, -1),
        lambda v: np.where(np.arange(v.size) == 7, np.uint32(1 << 16), v),
    ],
)
def test_a_vector_that_does_not_fit(small: World, change: object) -> None:
    with pytest.raises(LocalError):
        small.session("site0").encrypt(change(small.vectors["site0"]))  # type: ignore[operator]


def test_no_upload_without_the_key(small: World) -> None:
    """GK-5.1"""
    keeper_less = World(count=10)
    keeper_less.keys("site0").keep(KeyRing(bytes(32), 4))
    with pytest.raises(Refused, match="another study's"):
        keeper_less.session("site0").encrypt(keeper_less.vectors["site0"])
    other = World(count=10)
    other.keys("site0").burn(other.key.key_id)
    with pytest.raises(Refused, match="no key of the group's that it may use"):
        other.session("site0").encrypt(other.vectors["site0"])
    small.setting  # noqa: B018
    small.__dict__["setting"] = replace(small.setting, key_id=b"k" * 32)
    with pytest.raises(Refused, match="under another key"):
        small.session("site0").encrypt(small.vectors["site0"])


def test_a_key_serves_its_rounds() -> None:
    """GK-5.1: whatever the combiner says."""
    old = World(count=10).key
    for later, every, fits in ((0, 1, True), (1, 1, False), (4, 5, True), (5, 5, False)):
        world = World(count=10, binding=binding(later), rekey_every=every, secret=old)
        if fits:
            world.session("site0").encrypt(world.vectors["site0"])
        else:
            with pytest.raises(Refused, match="has served"):
                world.session("site0").encrypt(world.vectors["site0"])


def test_every_site_must_be_verified(small: World) -> None:
    """CK-0.3: each of them will have the key."""
    known = [key.fingerprint for name, key in small.setting.roster.items() if name != "site3"]
    with pytest.raises(Refused, match="not verified here"):
        small.session("site0", Guard(frozenset(known)))
    small.session("site3", Guard(frozenset(known)))


def test_a_threshold_that_is_too_low(small: World) -> None:
    """CK-0.1"""
    terms = replace(small.setting.terms, threshold=2)
    small.__dict__["setting"] = replace(small.setting, terms=terms)
    with pytest.raises(Refused, match="too low"):
        small.session("site0")


@pytest.mark.parametrize(
    ("members", "match"),
    [(("site1", "site2", "site3"), "leaves this site out"), (("site0", "site1"), "2 sites")],
)
def test_members_that_it_does_not_sign_for(
    small: World, members: tuple[str, ...], match: str
) -> None:
    """CK-4.3: and then it has left."""
    session = willing(small, "site0")
    with pytest.raises(BadSiteList, match=match):
        session.agree(small.announcement(members))
    assert session.state is SiteState.LEFT
    assert session.transcript is None
    with pytest.raises(UnexpectedFrame):
        session.agree(small.announcement(small.names))


def test_its_guard_has_a_word(small: World) -> None:
    """SA-5.2: a minimum, and sets that differ from the last by one."""
    with pytest.raises(Refused, match="this site's minimum is 4"):
        small.session("site0", replace(small.guard, min_sites=4))
    small.uploads  # noqa: B018
    after = World(count=10, binding=binding(0, 1), keepers=small.keepers)
    after.keys("site0").keep(replace(after.keys("site0").ring, survivors=frozenset({0, 1, 2})))
    after.__dict__["guard"] = replace(after.guard, forbid_single_changes=True)
    picky = willing(after, "site0")
    with pytest.raises(Refused, match="one site more or less"):
        picky.agree(after.announcement(after.names))


def test_what_it_signed_counts_as_told() -> None:
    """SA-5.2: from two sets that differ by one, and both signed for, two sites could learn."""
    first = World(count=10)
    picky = replace(first.guard, forbid_single_changes=True)
    first.__dict__["guard"] = picky
    willing(first, "site0").agree(first.announcement(first.names))
    again = World(count=10, binding=binding(0, 1), keepers=first.keepers)
    again.__dict__["guard"] = picky
    session = willing(again, "site0")
    with pytest.raises(Refused, match="one site more or less"):
        session.agree(again.announcement(again.names[:3]))


def test_it_signs_once(small: World) -> None:
    """CK-4.3"""
    session = small.session("site0")
    with pytest.raises(UnexpectedFrame, match="too early"):
        session.agree(small.announcement(small.names))
    session = willing(small, "site0")
    session.agree(small.announcement(small.names))
    with pytest.raises(UnexpectedFrame, match="or again"):
        session.agree(small.announcement(small.names, b"x" * 32))


# The combiner ------------------------------------------------------------------------------------


def ready(world: World, *names: str) -> CkksCombiner:
    combiner = world.combiner()
    for name in names:
        combiner.receive(world.uploads[name], line=name)
    return combiner


def test_what_the_combiner_does_not_take(small: World) -> None:
    """CK-3.9, RO-2.5: and it changes nothing."""
    combiner = ready(small, "site0", "site1")
    good = small.uploads["site2"]
    body = bytes(decode(good, ANY).body)
    high = body[:-30720] + b"\xff" * 30720
    other = World(count=9000, binding=binding(1), secret=small.key, rekey_every=9)
    for frame, line, error in (
        (small.uploads["site0"], "site0", UnexpectedFrame),
        (good, "site3", PeerError),
        (good[:-1], "site2", MalformedFrame),
        (good + b"\0", "site2", MalformedFrame),
        (good[:-100] + bytes(100), "site2", BadSignature),
        (small.resigned(good, body=body[:-1]), "site2", MalformedFrame),
        (small.resigned(good, body=b"k" * 32 + body[32:]), "site2", Inconsistent),
        (small.resigned(good, body=body[:32] + b"p" * 32 + body[64:]), "site2", Inconsistent),
        (small.resigned(good, body=high), "site2", BadCiphertext),
        (small.resigned(good, sequence=1), "site2", WrongBinding),
        (other.uploads["site2"], "site2", WrongBinding),
    ):
        with pytest.raises(error):
            combiner.receive(frame, line=line)
    assert combiner.expected == ("site2", "site3")
    for name in ("site2", "site3"):
        combiner.receive(small.uploads[name], line=name)
    combiner.close()
    for name in small.names:
        combiner.receive(small.sessions[name].agree(combiner.requests[name]), line=name)
    combiner.close()
    assert small.open("site0", combiner.sum_frame()).total.tolist() == small.total


def test_stages_end_as_the_table_says(small: World) -> None:
    combiner = ready(small, "site0", "site1")
    with pytest.raises(LocalError):
        combiner.sum_frame()
    with pytest.raises(TooFewSites, match=r"2 sites are left .* 'encrypted'"):
        combiner.close()
    assert combiner.state is CombinerState.FAILED
    for call in (combiner.close, combiner.sum_frame):
        with pytest.raises(LocalError):
            call()
    again = ready(small, *small.names)
    again.close()
    again.receive(small.sessions["site0"].agree(again.requests["site0"]), line="site0")
    with pytest.raises(TooFewSites, match="'agreement'"):
        again.close()


def test_a_signature_on_something_else(small: World) -> None:
    """CK-4.4"""
    combiner = ready(small, *small.names)
    combiner.close()
    wrong = small.sessions["site0"].agree(small.announcement(small.names, b"x" * 32))
    with pytest.raises(Inconsistent, match="another aggregate"):
        combiner.receive(wrong)
    assert "site0" in combiner.expected


def test_the_combiner_has_no_key(small: World) -> None:
    combiner = ready(small, *small.names)
    held = [combiner, *vars(combiner).values()]
    kinds = {type(each).__name__ for each in held}
    assert not kinds & {"Encryptor", "Decryptor", "Products", "GroupSecret", "SiteKeys"}


def test_its_memory_does_not_grow_with_the_sites() -> None:
    """CK-3.9: it holds one sum and one upload, whoever has sent."""
    world = World(sites=8, count=40 * 8188 - 8)
    uploads = list(world.uploads.values())
    peaks = []
    for count in (3, 8):
        combiner = world.combiner()
        tracemalloc.start()
        for upload in uploads[:count]:
            combiner.receive(upload)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert world.setting.chunks == 40
    assert peaks[1] - peaks[0] < len(uploads[0]) / 10
    assert peaks[1] < 3 * len(uploads[0])


# The end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("at", [4, 20004])
def test_one_wrong_chunk_and_nothing_is_used(small: World, chunk: int, at: int) -> None:
    """CK-5.7, GK-6.2"""
    aggregate = [bytearray(each) for each in small.honest()]
    aggregate[chunk][at] ^= 1
    keys, true = small.keys("site0"), small.run()
    with pytest.raises(PeerError):
        small.open("site0", small.forged([bytes(each) for each in aggregate]))
    ring = keys.ring
    assert (ring.current, ring.burned, ring.refusals) == (None, True, 1)
    assert ring.given_up == (small.key.key_id,)
    with pytest.raises(Refused, match="does not have the key"):
        small.open("site0", true)


def test_the_key_is_given_up_before_anything_is_said(small: World) -> None:
    """GK-6.2: a site that dies there has given it up."""
    small.uploads  # noqa: B018
    aggregate = small.honest()[::-1]
    keeper = small.keepers["site0"]
    written = []
    keeper.write = lambda ring: (written.append(ring), type(keeper).write(keeper, ring))[0]  # type: ignore[method-assign]
    with pytest.raises(PeerError):
        small.open("site0", small.forged(aggregate))
    assert [(ring.refusals, ring.burned) for ring in written] == [(0, False), (1, True)]
    assert written[0].opened == (0, 1)


def test_after_three_refusals_a_person_must_look() -> None:
    """GK-6.3"""
    keepers: dict[str, object] = {}
    for attempt in range(MAX_REFUSALS):
        world = World(
            count=10,
            binding=binding(0, attempt),
            keepers=keepers,  # type: ignore[arg-type]
            secret=replace(World().key, epoch=attempt + 1, secret=bytes([attempt]) * 32),
        )
        for name in world.names:
            keys = world.keys(name)
            keys.keep(keys.ring.taking(world.key) if attempt else keys.ring)
        world.uploads  # noqa: B018
        twice = world.added(world.chunks("site0"), world.chunks("site0"), world.chunks("site1"))
        with pytest.raises(PeerError):
            world.open("site0", world.forged(twice, world.names[:3]))
    ring = world.keys("site0").ring
    assert ring.refusals == MAX_REFUSALS
    assert KeyRing.decode(ring.encode()) == ring
    for call in (
        lambda: world.keys("site0").ready(replace(binding(1), phase=0)),
        lambda: world.keys("site0").usable(0),
        lambda: ring.uploading(binding(1)),
        lambda: ring.opening(binding(1), bytes(32)),
    ):
        with pytest.raises(Refused, match="until a person has looked"):
            call()
    world.keys("site0").keep(ring.approved())
    world.keys("site0").ready(replace(binding(1), phase=0))


def test_what_the_site_signed_is_what_it_reads(small: World) -> None:
    """CK-5.1"""
    frame = small.run()
    with pytest.raises(Inconsistent, match="not the one that this site signed for"):
        small.open("site0", frame, {0: b"x" * 32})
    assert small.keys("site0").ring.opened == (0, 0)
    body = bytearray(decode(frame, ANY).body)
    body[-1] ^= 1
    with pytest.raises(Inconsistent, match="not the one that the sites agreed on"):
        small.open("site0", small.signed(Kind.SUM, 1, bytes(body)))
    assert small.keys("site0").ring.refusals == 0
    assert small.open("site0", frame).total.tolist() == small.total


def test_one_aggregate_an_attempt(small: World) -> None:
    """GK-6.1: the same again says the same again, another one is not read."""
    frame = small.run()
    first = small.open("site0", frame)
    assert np.array_equal(small.open("site0", frame).total, first.total)
    other = small.forged(small.honest(small.names[:3]), small.names[:3])
    with pytest.raises(Refused, match="reads one for each attempt"):
        small.open("site0", other)
    assert small.keys("site0").ring.survivors == frozenset(range(4))
    assert small.keys("site0").ring.refusals == 0


def test_a_sum_after_the_site_went_on(small: World) -> None:
    frame = small.run()
    later = World(count=9000, binding=binding(0, 2), keepers=small.keepers, secret=small.key)
    later.open("site0", later.run())
    with pytest.raises(Refused, match="reads one for each attempt"):
        small.open("site0", frame)


def test_without_the_key(small: World) -> None:
    frame = small.run()
    small.keepers["site0"].write(KeyRing(small.keys("site1").ring.study_digest, 4))
    with pytest.raises(Refused, match="does not have the key"):
        small.open("site0", frame)


def test_secrets_are_in_no_frame_and_no_repr(small: World) -> None:
    frames = [*small.uploads.values(), small.run()]
    assert not any(SECRET in frame for frame in frames)
    session = small.sessions["site0"]
    for thing in (session, small.key, small.keys("site0"), small.combiner()):
        assert SECRET.hex() not in repr(thing)
        assert repr(SECRET) not in repr(thing)
    with pytest.raises(TypeError):
        pickle.dumps(small.key)


def test_tags_are_over_fields_and_filling_too() -> None:
    """CK-2.4: a site whose zeros are none is refused, however small its vector."""
    world = World(count=10)
    changed = plus(world.honest()[0], message(world.setting.params, {5000: 1}))
    with pytest.raises(BadTag):
        world.open("site0", world.forged([changed]))
