"""The end of an encrypted sum: everything is looked at, one thing wrong is enough (CK-5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from ckks_cast import message, noise_of, plus
from ckks_world import ANY, SECRET, World, binding, scratch

from fedbcs_protocols.ckks.cipher import Decryptor, Encryptor
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.samples import upload_secret
from fedbcs_protocols.ckks.tagging import tagger_of
from fedbcs_protocols.ckks.words import pack_words, unpack_words
from fedbcs_protocols.errors import (
    BadCiphertext,
    BadMembers,
    BadNoise,
    BadTag,
    PeerError,
    ProtocolError,
    Refused,
    SumOutOfRange,
)
from fedbcs_protocols.group import GroupSecret, MemoryKeys
from fedbcs_protocols.wire import decode

Words = np.ndarray[Any, np.dtype[np.uint64]]
THREE = 3 * 8188 - 100
"""Values that fill three chunks."""
NINE = 9 * 8188 - 100
"""Nine chunks, which are decrypted in three batches."""


def doubled(aggregate: bytes) -> bytes:
    return pack_words(np.uint64(2) * unpack_words(aggregate, "x") % np.uint64(PRIME))


def plus_one(aggregate: bytes) -> bytes:
    return plus(aggregate, message(World().setting.params, {0: 1}))


def noisier(aggregate: bytes) -> bytes:
    """By two standard deviations, which changes no digit."""
    return plus(aggregate, np.full(DEGREE, 13, np.uint64))


def zeros(aggregate: bytes) -> bytes:
    return bytes(len(aggregate))


def no_residue(aggregate: bytes) -> bytes:
    return b"\xff" * 8 * 256 + aggregate[8 * 256 :]


def junk(aggregate: bytes) -> bytes:
    return np.random.default_rng(1).bytes(len(aggregate))


LIES = pytest.mark.parametrize(
    ("change", "error"),
    [
        (plus_one, BadTag),
        (doubled, SumOutOfRange),
        (zeros, SumOutOfRange),
        (no_residue, BadCiphertext),
        (junk, SumOutOfRange),
    ],
)


def refuses(world: World, frame: bytes, error: Any) -> None:
    """Over this frame; the key is given up, durably, and serves no more."""
    before = world.keys("site0").ring.refusals
    with pytest.raises(error) as caught:
        world.open("site0", frame)
    assert isinstance(caught.value, PeerError)
    ring = world.keys("site0").ring
    assert ring.current is None
    assert (ring.burned, ring.refusals) == (True, before + 1)
    assert ring.given_up[-1] == world.key.key_id
    later = World(count=world.count, binding=binding(0, 9), keepers=world.keepers, secret=world.key)
    with pytest.raises(Refused, match="no key of the group's that it may use"):
        later.session("site0").encrypt(later.vectors["site0"])


@LIES
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_one_chunk_that_is_wrong(
    chunk: int, change: Callable[[bytes], bytes], error: type[PeerError]
) -> None:
    """CK-5.7, GK-6.2: the first, the middle, the last."""
    world = World(count=THREE)
    aggregate = world.honest()
    aggregate[chunk] = change(aggregate[chunk])
    refuses(world, world.forged(aggregate), error)


@pytest.mark.parametrize("change", [plus_one, doubled, zeros, no_residue, junk])
def test_all_chunks_are_decrypted_and_checked_all_the_same(
    change: Callable[[bytes], bytes],
) -> None:
    """CK-5.7: neither the answer nor its time tells which one it was."""
    world = World(count=NINE)
    honest, decrypted = world.honest(), []

    def decrypt(self: Decryptor, ciphertexts: Any) -> object:
        decrypted.extend(ciphertexts)
        return original(self, ciphertexts)

    original = Decryptor.decrypt
    with (
        mock.patch.object(Decryptor, "decrypt", decrypt),
        mock.patch("fedbcs_protocols.tags.Tagger.check", autospec=True) as checked,
    ):
        wrong: list[set[int]] = [{0}, {5}, {8}, set(range(9))]
        for chunks in wrong:
            aggregate = [change(c) if at in chunks else c for at, c in enumerate(honest)]
            world.keepers["site0"] = MemoryKeys()
            with suppress(PeerError):
                world.open("site0", world.forged(aggregate))
    assert len(decrypted) == 9 * len(wrong)
    assert checked.call_count == len(wrong)


@pytest.mark.parametrize("change", [zeros, no_residue, junk])
@pytest.mark.parametrize("chunk", [1, 2])
def test_what_could_not_be_read_is_refused_whatever_tags_say(
    chunk: int, change: Callable[[bytes], bytes]
) -> None:
    """CK-5.7: what stands in for such a chunk is never taken for the sum."""
    world = World(count=THREE)
    aggregate = world.honest()
    aggregate[chunk] = change(aggregate[chunk])
    with (
        mock.patch("fedbcs_protocols.tags.Tagger.check"),
        mock.patch("fedbcs_protocols.ckks.outcome.check_noise"),
    ):
        refuses(world, world.forged(aggregate), (BadCiphertext, SumOutOfRange))


def test_chunks_that_change_places() -> None:
    world = World(count=THREE)
    first, second, third = world.honest()
    refuses(world, world.forged([first, third, second]), SumOutOfRange)


def test_more_noise_than_there_can_be() -> None:
    """CK-5.4: a change of no digit, which the tags cannot see."""
    world = World()
    refuses(world, world.forged([noisier(a) for a in world.honest()]), BadNoise)
    less = World()
    aggregate = less.honest()
    # Without any noise: what the key's holder could make, and nobody else.
    aggregate[0] = plus(aggregate[0], (-noise_of(less, aggregate)[0] % PRIME).astype(np.uint64))
    refuses(less, less.forged(aggregate), BadNoise)


@pytest.mark.parametrize("salt", [bytes(32), b"s" * 32])
def test_a_false_salt_of_another_site(salt: bytes) -> None:
    """CK-6.3: all sites sign it, and it opens to noise."""
    world = World()
    refuses(world, world.forged(world.honest(), salts={"site2": salt}), SumOutOfRange)


def test_salts_that_change_places() -> None:
    """CK-3.3, CK-6.3: a salt makes another secret under another name."""
    world = World()
    swapped = {"site1": world.salt("site2"), "site2": world.salt("site1")}
    refuses(world, world.forged(world.honest(), salts=swapped), SumOutOfRange)


def test_another_site_than_is_said() -> None:
    """CK-5.5: the fields of a site that lies, under tags that fit; only a site can make them."""
    world = World()
    setting = world.setting
    params, tagger = setting.params, tagger_of(setting, SECRET, 1)
    secret = upload_secret(SECRET, 1, setting.binding, "site0", world.salt("site0"))
    cipher = Encryptor(params, setting.binding, secret, bytes(32), scratch())
    payload = np.zeros(params.payload, np.uint32)
    payload[1] = 1
    payload[4 : 4 + world.count] = world.vectors["site0"]
    chunk = np.concatenate([payload, tagger.sealed(payload, "site0")])
    lie = [cipher.encrypt(chunk[None])]
    aggregate = world.added(lie, world.chunks("site1"), world.chunks("site2"))
    refuses(world, world.forged(aggregate, world.names[:3]), BadMembers)


@pytest.mark.parametrize("names", [(0, 1, 2), (1, 2, 3), (0, 0, 1, 2), (0, 1, 1, 3)])
def test_a_sum_over_others_than_signed(names: tuple[int, ...]) -> None:
    """CK-6.3: less one, one twice, one in another's place."""
    world = World()
    aggregate = world.added(*(world.chunks(world.names[place]) for place in names))
    refuses(world, world.forged(aggregate), (BadTag, SumOutOfRange, BadNoise))


def test_ciphertexts_of_an_older_key() -> None:
    """CK-3.5: they add up to noise."""
    old = World(secret=GroupSecret(1, 0, frozenset(range(4)), bytes(32)))
    world = World()
    mixed = world.added(*(w.chunks(n) for w, n in ((old, "site0"), (world, "site1"))), *(
        world.chunks(n) for n in ("site2", "site3")))  # fmt: skip
    refuses(world, world.forged(mixed), SumOutOfRange)


def test_a_new_epoch_goes_on() -> None:
    """GK-6.2: what ended is the key, not the site."""
    world = World()
    refuses(world, world.forged([plus_one(world.honest()[0])]), BadTag)
    fresh = GroupSecret(2, 0, frozenset(range(4)), b"n" * 32)
    after = World(binding=binding(0, 1), keepers=world.keepers, secret=fresh)
    for name in after.names:
        keys = after.keys(name)
        keys.keep(keys.ring.taking(fresh))
    assert after.open("site0", after.run()).total.tolist() == after.total
    assert after.keys("site0").ring.refusals == 1


def test_what_is_refused_before_decryption_costs_nothing() -> None:
    """CK-5.1: without t signatures on just this aggregate nothing is decrypted, nor given up."""
    world = World()
    frame, honest = world.run(), world.honest()
    ring = world.keys("site0").ring
    body = bytes(decode(frame, ANY).body)
    other = World(binding=binding(0, 1), secret=world.key)
    with mock.patch.object(Decryptor, "decrypt") as decrypt:
        for bad in (
            frame[:-1],
            frame[:-64] + bytes(64),
            world.forged(honest, signers=world.names[:2]),
            world.forged(honest, world.names[:3], signers=world.names),
            world.forged(honest, key_id=b"k" * 32),
            world.resigned(frame, body=body[:-1] + bytes([body[-1] ^ 1])),
            world.resigned(frame, body=body + b"\0"),
            world.resigned(frame, sequence=0),
            world.resigned(frame, binding=replace(world.binding, round=1)),
            world.resigned(frame, binding=replace(world.binding, attempt=1)),
            other.run()[:-64] + frame[-64:],
            world.uploads["site1"],
            b"",
        ):
            with pytest.raises(ProtocolError):
                world.open("site0", bad)
    decrypt.assert_not_called()
    assert world.keys("site0").ring == ring
    assert world.open("site0", frame).total.tolist() == world.total


def test_any_attempt_that_was_agreed_on() -> None:
    """CK-5.1: the setting's attempt is the site's; the sum may be of another that it knows."""
    world = World()
    later = World(binding=binding(0, 3), keepers=world.keepers, secret=world.key)
    outcome = world.open("site0", later.run())
    assert outcome.attempt == 3
    assert outcome.total.tolist() == later.total
    assert outcome.key_id == world.key.key_id
