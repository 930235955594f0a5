"""Attacks on encrypted sums, run one after another in a process of their own.

``python ckks_attacks.py FAMILY`` prints a line an attack: its name, and the error that it ended in.
A crash of the process is seen by the exit code, and by the line that is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import tenseal
from ckks_world import ANY, SECRET, World, binding, scratch
from tenseal import sealapi

from fedbcs_protocols.ckks import cipher
from fedbcs_protocols.ckks.cipher import (
    FRESH_BYTES,
    POLYNOMIAL_BYTES,
    SecretContext,
    pack_words,
)
from fedbcs_protocols.ckks.messages import Encrypted
from fedbcs_protocols.ckks.packing import pack
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.group import GroupSecret, KeyRing
from fedbcs_protocols.wire import decode

COUNT = 9000
Attack = tuple[str, Callable[[], object]]


def polynomial(value: int = 0, *, at: int | None = None, seed: int | None = None) -> bytes:
    """The same word in all places, in one place, or random words."""
    words = np.zeros(DEGREE, np.uint64)
    if seed is not None:
        words = np.random.default_rng(seed).integers(0, PRIME, DEGREE, dtype=np.uint64)
    elif at is None:
        words[:] = value
    else:
        words[at] = value
    return pack_words(words)


def reading(change: Callable[[World], list[bytes]], members: slice = slice(None)) -> Callable:
    """Site0 is told that the sites agreed on what ``change`` makes, and they did sign that."""

    def attack() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        world.open("site0", world.forged(change(world), world.names[members]))

    return attack


def plus(world: World, chunk: int, first: bytes, second: bytes) -> list[bytes]:
    """The true sum with a made-up ciphertext added to one chunk."""
    out = world.honest()
    extra = world.context.both(first + second, "x")
    out[chunk] = world.changed(
        out[chunk], lambda ct: world.context.evaluator.add_inplace(ct, extra)
    )
    return out


def plaintext(world: World, values: dict[int, int]) -> bytes:
    """Δ times a message, as a first polynomial: what needs no key."""
    params = world.setting.params
    message = np.full(params.capacity, 1 << (params.bits - 1), np.int64)
    for place, value in values.items():
        message[place] += value
    plain = sealapi.Plaintext()
    slots = pack(message.astype(np.uint32), params).tolist()
    world.context.encoder.encode(slots, params.scale, plain)
    return pack_words(np.array([plain.data(i) for i in range(DEGREE)], np.uint64))


def with_plaintext(world: World, chunk: int, values: dict[int, int]) -> list[bytes]:
    """A ciphertext must not have a second polynomial of zeros, so it is added to the true one."""
    out = world.honest()
    first = cipher.unpack_words(out[chunk][:POLYNOMIAL_BYTES], "x")
    added = cipher.unpack_words(plaintext(world, values), "x")
    total = (first + added) % np.uint64(PRIME)
    out[chunk] = pack_words(total) + out[chunk][POLYNOMIAL_BYTES:]
    return out


def crafted() -> Iterator[Attack]:
    """Ciphertexts that were never encrypted."""
    zero = polynomial()
    cases = {
        "(0, 2^40) in place of a chunk": polynomial(1 << 40),
        "(0, 1) in place of a chunk": polynomial(1),
        "(0, q - 1) in place of a chunk": polynomial(PRIME - 1),
        "(0, random) in place of a chunk": polynomial(seed=1),
    }
    for name, second in cases.items():
        for chunk in (0, 1):
            yield (
                f"{name} {chunk}",
                reading(
                    lambda w, s=second, c=chunk: [
                        zero + s if i == c else each for i, each in enumerate(w.honest())
                    ]
                ),
            )
    for name, second in (("2^40", polynomial(1 << 40)), ("2^20", polynomial(1 << 20))):
        yield f"(0, {name}) added", reading(lambda w, s=second: plus(w, 1, zero, s))
    yield "c1 = 0", reading(lambda w: [polynomial(seed=2) + zero, *w.honest()[1:]])
    yield "all zeros", reading(lambda w: [zero + zero, zero + zero])
    yield "random words", reading(lambda w: [polynomial(seed=s) * 2 for s in (3, 4)])
    high = b"\xff" * POLYNOMIAL_BYTES
    yield "words from q on", reading(lambda w: [w.honest()[0], high + high])
    yield "word q", reading(lambda w: [polynomial(PRIME, at=4095) + polynomial(seed=5)] * 2)


def arithmetic() -> Iterator[Attack]:
    """Sums of true ciphertexts, but not the sum."""

    def scaled(world: World, factor: int) -> list[bytes]:
        out = []
        for each in world.honest():
            halves = [each[:POLYNOMIAL_BYTES], each[POLYNOMIAL_BYTES:]]
            words = [
                cipher.unpack_words(half, "x").astype(object) * factor % PRIME for half in halves
            ]
            out.append(b"".join(pack_words(w.astype(np.uint64)) for w in words))
        return out

    def twice_less(world: World) -> list[bytes]:
        a, b = world.chunks("site0"), world.chunks("site1")
        out = world.added(a, a, a, a)
        for index, piece in enumerate(b):
            minus = world.context.fresh(piece, "x")
            out[index] = world.changed(
                out[index], lambda ct, m=minus: world.context.evaluator.sub_inplace(ct, m)
            )
        return out

    def faint(world: World) -> list[bytes]:
        plain, out = sealapi.Plaintext(), world.honest()
        slots = np.random.default_rng(1).uniform(-0.1, 0.1, (2048, 2)).view(np.complex128)
        scale = world.setting.params.scale
        world.context.encoder.encode(slots.ravel().tolist(), scale, plain)
        return [
            world.changed(each, lambda ct: world.context.evaluator.add_plain_inplace(ct, plain))
            for each in out
        ]

    yield "one site's ciphertext alone", reading(lambda w: w.added(w.chunks("site0")))
    yield (
        "one site's, said to be of three",
        reading(lambda w: w.added(w.chunks("site1")), slice(0, 3)),
    )
    yield "the same one four times", reading(lambda w: w.added(*[w.chunks("site0")] * 4))
    yield (
        "one twice in place of another",
        reading(lambda w: w.added(*(w.chunks(f"site{i}") for i in (0, 0, 1, 2)))),
    )
    yield "A four times less B", reading(twice_less)
    yield "a member left out", reading(lambda w: w.honest(w.names[:3]))
    yield "a member too many", reading(lambda w: w.honest(), slice(0, 3))
    yield (
        "another set in the second chunk",
        reading(
            lambda w: [w.honest()[0], w.added(*(w.chunks(f"site{i}") for i in (0, 0, 1, 2)))[1]]
        ),
    )
    yield "chunks in another order", reading(lambda w: w.honest()[::-1])
    yield "one chunk twice", reading(lambda w: [w.honest()[0]] * 2)
    yield "the sum twice", reading(lambda w: scaled(w, 2))
    yield "the sum negated", reading(lambda w: scaled(w, PRIME - 1))
    yield "a value added", reading(lambda w: with_plaintext(w, 1, {17: 1}))
    yield (
        "a value added, its tag guessed",
        reading(lambda w: with_plaintext(w, 1, {17: 1, 8188: 1})),
    )
    yield (
        "a value added that no sum has",
        reading(lambda w: with_plaintext(w, 1, {17: 32000, 18: -32000})),
    )
    yield "a member's field added", reading(lambda w: with_plaintext(w, 0, {3: 1}))
    yield "noise that changes no value", reading(faint)
    yield (
        "noise added",
        reading(lambda w: plus(w, 1, polynomial(seed=9), polynomial(at=0, value=1))),
    )


def replays() -> Iterator[Attack]:
    """True sums of another time, told again."""
    key = World().key

    def told_again(**changes: object) -> Callable[[], object]:
        def attack() -> None:
            before = World(count=COUNT, secret=key, rekey_every=9)
            before.uploads  # noqa: B018
            old = before.honest()
            after = World(
                count=COUNT, secret=key, rekey_every=9, keepers=before.keepers,
                binding=binding(**changes),  # type: ignore[arg-type]
            )  # fmt: skip
            after.open("site0", after.forged(old))

        return attack

    yield "of an earlier attempt", told_again(attempt=1)
    yield "of an earlier round", told_again(round=1)

    def upload_again(**changes: object) -> Callable[[], object]:
        def attack() -> None:
            before = World(count=COUNT, secret=key, rekey_every=9)
            after = World(
                count=COUNT, secret=key, rekey_every=9, keepers=before.keepers,
                binding=binding(**changes),  # type: ignore[arg-type]
            )  # fmt: skip
            after.combiner().receive(before.uploads["site1"])

        return attack

    yield "an upload of an earlier attempt", upload_again(attempt=1)
    yield "an upload of an earlier round", upload_again(round=1)

    def again(world: World, other: bytes) -> None:
        world.open("site0", world.forged(world.honest()))
        world.open("site0", other)

    def second_question() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        again(world, world.forged(world.honest(world.names[1:]), world.names[1:]))

    yield "a second aggregate of the attempt", second_question

    def after_a_refusal() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        try:
            world.open("site0", world.forged(world.honest()[::-1]))
        except ProtocolError:
            world.open("site0", world.forged(world.honest()))

    yield "the true sum after a refusal", after_a_refusal

    def after_a_restart() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        world.open("site0", world.forged(world.honest()))
        keeper = world.keepers["site0"]
        kept = keeper.read()
        assert kept is not None
        keeper.write(KeyRing.decode(kept.encode()))
        world.open("site0", world.forged(world.honest()[::-1]))

    yield "a second aggregate after a restart", after_a_restart

    def equivocation() -> None:
        world = World(count=COUNT)
        frame = world.run()
        seen = {0: world.sessions["site0"].transcript or b""}
        assert world.open("site0", frame, seen)
        other = World(count=COUNT)
        other.uploads  # noqa: B018
        other.open("site0", other.forged(other.honest()), seen)

    yield "another aggregate than this site signed", equivocation

    def too_few() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        world.open("site0", world.forged(world.honest(), signers=world.names[:2]))

    yield "an aggregate that two sites signed", too_few


def keys() -> Iterator[Attack]:
    """Ciphertexts and sums under other keys."""
    other = GroupSecret(2, 0, frozenset(range(4)), bytes(32))

    def upload() -> None:
        foreign = World(count=COUNT, secret=other)
        World(count=COUNT).combiner().receive(foreign.uploads["site1"])

    yield "an upload under another key", upload

    def relabelled() -> None:
        foreign, world = World(count=COUNT, secret=other), World(count=COUNT)
        world.uploads  # noqa: B018
        body = bytes(decode(foreign.uploads["site1"], ANY).body)
        lie = world.key.key_id + body[32:]
        combiner = world.combiner()
        for name in world.names:
            frame = world.uploads[name]
            if name == "site1":
                frame = world.resigned(frame, body=lie)
            combiner.receive(frame)
        combiner.close()
        for name in world.names:
            combiner.receive(world.sessions[name].agree(combiner.requests[name]))
        combiner.close()
        world.open("site0", combiner.sum_frame())

    yield "an upload under another key that names this one", relabelled

    def sum_of_another() -> None:
        foreign, world = World(count=COUNT, secret=other), World(count=COUNT)
        foreign.uploads  # noqa: B018
        world.open("site0", foreign.forged(foreign.honest()))

    yield "a sum under a key that this site does not have", sum_of_another

    def sum_relabelled() -> None:
        foreign, world = World(count=COUNT, secret=other), World(count=COUNT)
        foreign.uploads  # noqa: B018
        world.open("site0", world.forged(foreign.honest()))

    yield "a sum under another key that names this one", sum_relabelled

    def key_renamed() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        world.open("site0", world.forged(world.honest(), key_id=b"k" * 32))

    yield "a sum that names another key", key_renamed


def malformed() -> Iterator[Attack]:
    """Bytes that are no ciphertexts, some of which crash those who parse them."""
    world = World(count=COUNT)
    good = world.uploads["site1"]
    body = bytes(decode(good, ANY).body)
    head = Encrypted.head(world.setting)

    def upload(changed: bytes) -> Callable[[], object]:
        return lambda: world.combiner().receive(world.resigned(good, body=changed))

    def raw(data: bytes) -> Callable[[], object]:
        return lambda: world.combiner().receive(data)

    def whole_sum(changed: bytes) -> Callable[[], object]:
        """Words are words: if the combiner cannot tell, the sites do."""

        def attack() -> None:
            fresh = World(count=COUNT)
            combiner = fresh.combiner()
            for name in fresh.names:
                frame = fresh.uploads[name]
                combiner.receive(fresh.resigned(frame, body=changed) if name == "site1" else frame)
            combiner.close()
            for name in fresh.names:
                combiner.receive(fresh.sessions[name].agree(combiner.requests[name]))
            combiner.close()
            fresh.open("site0", combiner.sum_frame())

        return attack

    context = SecretContext(world.setting.params, scratch(), SECRET, bytes(32), 1)
    context.encoder.encode([0j] * 2048, 8192.0, context._plain)
    whole = sealapi.Ciphertext(context.seal)
    context._encryptor.encrypt_symmetric(context._plain, whole)
    whole.save(scratch().path)
    blob = scratch().read()
    full = context.saved(whole).tobytes()
    pads = {
        "SEAL's own blob in place of a chunk": blob,
        "SEAL's own content in place of a chunk": full,
        "a vector without ciphertexts, 2048 values": b"\x0a\x02\x80\x10\x11" + bytes(8),
        "a vector of 20000 values": b"\x0a\x03\xa0\x9c\x01\x12\x04" + b"abcd",
        "TenSEAL's own vector": tenseal_vector(),
    }
    for name, data in pads.items():
        yield name, upload(head + data)
        padded = (data + bytes(FRESH_BYTES))[:FRESH_BYTES]
        yield f"{name}, cut or filled up", whole_sum(head + padded + body[68 + FRESH_BYTES :])
    yield "truncated", raw(good[: len(good) // 2])
    yield "a byte more", raw(good + b"\0")
    yield "empty", raw(b"")
    yield "4 GiB claimed", raw(good[:82] + b"\xff\xff\xff\xff" + good[86:])
    yield "more chunks claimed", upload(body[:64] + (2**32 - 1).to_bytes(4, "big") + body[68:])
    yield "a chunk less", upload(body[:64] + (1).to_bytes(4, "big") + body[68 : 68 + FRESH_BYTES])
    yield (
        "a chunk more",
        upload(body[:64] + (3).to_bytes(4, "big") + body[68:] + bytes(FRESH_BYTES)),
    )
    frame = bytearray(good)
    for at in [*range(140), *range(140, len(frame), 4999), *range(len(frame) - 64, len(frame))]:
        flipped = bytearray(frame)
        flipped[at] ^= 1 << at % 8
        yield f"bit {at % 8} of byte {at} flipped", raw(bytes(flipped))

    def reordered() -> None:
        chunks = world.chunks("site1")
        mixed = world.resigned(good, body=head + b"".join(chunks[::-1]))
        combiner = world.combiner()
        for name in world.names:
            combiner.receive(mixed if name == "site1" else world.uploads[name])
        combiner.close()
        told = world.forged(
            world.added(
                *(
                    w[::-1] if n == "site1" else w
                    for n, w in ((n, world.chunks(n)) for n in world.names)
                )
            )
        )
        world.open("site2", told)

    yield "a site's own chunks in another order", reordered


def tenseal_vector() -> bytes:
    """A vector as a peer would send it."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )  # fmt: skip
    context.global_scale = 2**40
    return bytes(tenseal.ckks_vector(context, [1.0] * 100).serialize())


def control() -> Iterator[Attack]:
    """What is no attack, so that the others are refused for what they are."""

    def honest() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        outcome = world.open("site0", world.forged(world.honest()))
        assert outcome.total.tolist() == world.total

    yield "a forger that tells the truth", honest

    def empty_plaintext() -> None:
        world = World(count=COUNT)
        world.uploads  # noqa: B018
        told = world.forged(with_plaintext(world, 1, {}))
        assert world.open("site0", told).total.tolist() == world.total

    yield "nothing added", empty_plaintext

    def key_recovery() -> None:
        """The attack is real: who sees what (0, 2^40) decrypts to has the key."""
        world = World(count=COUNT)
        context = SecretContext(
            world.setting.params, scratch(), SECRET, world.binding.study_digest, 1
        )
        data = polynomial() + polynomial(1 << 40)
        shown = context.decrypt(context.both(data, "x")) * world.setting.params.scale / 2**40
        one = sealapi.Plaintext()
        context._decryptor.decrypt(context.both(polynomial() + polynomial(1), "x"), one)
        key_slots = np.array(context.encoder.decode_complex(one)) * world.setting.params.scale
        assert np.abs(shown - key_slots).max() < 1e-3
        assert 30 < np.abs(key_slots).mean() < 70  # of 4096 ternary coefficients

    yield "the key is what (0, 2^40) decrypts to", key_recovery


FAMILIES = {
    each.__name__: each for each in (control, crafted, arithmetic, replays, keys, malformed)
}


def main(family: str) -> None:
    for name, attack in FAMILIES[family]():
        sys.stdout.write(f"{name}: ")
        sys.stdout.flush()
        try:
            attack()
        except ProtocolError as error:
            ended = type(error).__name__
        else:
            ended = "taken"
        sys.stdout.write(ended + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
