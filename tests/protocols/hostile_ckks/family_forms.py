"""Bytes in the place of ciphertexts: what crashes SEAL or TenSEAL, lies about lengths, or is bent.

A network has no signing key. A hostile site has its own, so it signs whatever it sends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import tenseal
from ckks_cast import Attack, Scene, read, whole, with_key, words
from ckks_world import ANY, World, binding, scratch
from tenseal import sealapi

from fedbcs_protocols.ckks.cipher import FRESH_BYTES, SEED_BYTES
from fedbcs_protocols.ckks.messages import Encrypted
from fedbcs_protocols.wire import Kind, decode

HEAD = 68
"""Bytes of an upload's body before its first chunk."""
LENGTH_AT = 82
"""Where a frame says how long its body is."""
LIAR = "site1"


def vector_without_ciphertexts() -> bytes:
    """A CKKSVectorProto: ``sizes=[2048]``, a scale, nothing else. TenSEAL dies when it adds it."""
    return b"\x0a\x02\x80\x10\x19" + struct.pack("<d", 2.0**40)


def vector_of_20000() -> bytes:
    """A true vector that says that it has 20000 values. TenSEAL shows what is behind it."""
    true = tenseal_vector(2048)
    assert true[:4] == b"\x0a\x02\x80\x10"
    return b"\x0a\x03\xa0\x9c\x01" + true[4:]


def tenseal_vector(count: int) -> bytes:
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        8192,
        coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.global_scale = 2**40
    return bytes(tenseal.ckks_vector(context, [1.0] * count).serialize())


def attacks() -> Iterator[Attack]:
    scene = Scene()
    yield from _uploads(scene)
    yield from _told(scene)


def _uploads(scene: Scene) -> Iterator[Attack]:
    world = scene.world
    true = world.uploads[LIAR]
    body = bytes(decode(true, ANY).body)
    head, first, rest = body[:HEAD], body[HEAD : HEAD + FRESH_BYTES], body[HEAD + FRESH_BYTES :]

    def sent(data: bytes, line: str = LIAR) -> Callable[[], object]:
        return lambda: world.combiner().receive(data, line=line)

    def signed(body: bytes, **changes: object) -> Callable[[], object]:
        return sent(world.resigned(true, body=body, **changes))

    def carried(body: bytes) -> Callable[[], object]:
        """A whole sum with this upload in it, up to what another site makes of it."""
        return lambda: _whole_sum(scene, world.resigned(true, body=body))

    context = with_key(world)
    cipher = sealapi.Ciphertext(context.seal)
    plain = sealapi.Plaintext()
    context.encoder.encode([0j] * 2048, context.params.scale, plain)
    context._encryptor.encrypt_symmetric(plain, cipher)
    cipher.save(scratch().path)
    blob = scratch().read()
    header = bytearray(bytes(context.saved(cipher)))
    struct.pack_into("<Q", header, 48, 1 << 40)
    foreign = {
        "a vector without ciphertexts, sizes=[2048]": vector_without_ciphertexts(),
        "a vector with sizes=[20000]": vector_of_20000(),
        "TenSEAL's own vector": tenseal_vector(100),
        "SEAL's own file": blob,
        "SEAL's own content, size field 2^40": bytes(header),
    }
    for name, data in foreign.items():
        yield Attack("CK-3.6", f"{name}, in place of the body", signed(data))
        yield Attack("CK-3.3", f"{name}, in place of a chunk", signed(head + data + rest))
        filled = (data + bytes(FRESH_BYTES))[:FRESH_BYTES]
        yield Attack(
            "CK-5.6", f"{name}, cut or filled up to a chunk", carried(head + filled + rest)
        )

    yield Attack("WI-1.3", "truncated by a byte", sent(true[:-1]))
    yield Attack("WI-1.3", "half of it", sent(true[: len(true) // 2]))
    yield Attack("WI-1.2", "nothing", sent(b""))
    yield Attack("WI-1.2", "a byte more", sent(true + b"\0"))
    yield Attack("WI-1.2", "twice as long", sent(true + true))
    for size, name in ((0xFFFFFFFF, "4 GiB"), (len(body) + 1, "a byte more"), (0, "no bytes")):
        lie = true[:LENGTH_AT] + struct.pack(">I", size) + true[LENGTH_AT + 4 :]
        yield Attack("WI-1.3", f"a body of {name} claimed", sent(lie))
    for chunks in (0, 1, 3, 2**31, 2**32 - 1):
        lie = body[:64] + struct.pack(">I", chunks) + body[68:]
        yield Attack("CK-3.6", f"{chunks} chunks claimed, two sent", signed(lie))
    one = struct.pack(">I", 1)
    yield Attack("CK-3.6", "a chunk less", signed(body[:64] + one + first))
    yield Attack(
        "CK-3.6", "a chunk more", signed(body[:64] + struct.pack(">I", 3) + body[68:] + first)
    )
    yield Attack("CK-3.6", "the body cut within a chunk", signed(body[:-1]))
    yield Attack("CK-3.6", "both polynomials of a chunk", signed(head + whole(words(1), words(1))))

    for at in range(64 + 8, 64 + 8 + 8 * 3, 8):
        high = bytearray(body)
        high[HEAD + at - 8 : HEAD + at] = b"\xff" * 8
        # The top four bits belong to row 15, which need not be beyond q; the word's own 60 are.
        yield Attack("CK-3.3", f"word {(at - 72) // 8} from q on", signed(bytes(high)))
    yield Attack(
        "CK-3.3", "the last word of the last chunk from q on", signed(body[:-8] + b"\xff" * 8)
    )
    yield Attack("CK-3.3", "all words from q on", signed(head + b"\xff" * (len(body) - HEAD)))

    # The network: any single bit of the frame.
    marks = {
        "header": range(LENGTH_AT),
        "name": range(86, 86 + len(LIAR)),
        "name of the key": range(91, 123, 5),
        "name of the parameters": range(123, 155, 5),
        "number of chunks": range(155, 159),
        "seed": range(159, 159 + SEED_BYTES, 7),
        "words": range(159 + SEED_BYTES, len(true) - 64, 2477),
        "signature": range(len(true) - 64, len(true), 3),
    }
    for where, places in marks.items():
        for place in places:
            bent = bytearray(true)
            bent[place] ^= 1 << place % 8
            yield Attack("WI-2.1", f"{where}: bit {place % 8} of byte {place}", sent(bytes(bent)))
    # The same bits by the site itself, which signs them.
    for where, places in (
        ("name of the key", range(0, 32, 9)),
        ("name of the parameters", range(32, 64, 9)),
        ("number of chunks", range(64, 68)),
    ):
        for place in places:
            bent = bytearray(body)
            bent[place] ^= 1
            yield Attack(
                "CK-3.7", f"{where}: byte {place} of the body, signed", signed(bytes(bent))
            )
    for where, places in (
        ("seed", range(HEAD, HEAD + SEED_BYTES, 13)),
        ("words", range(HEAD + SEED_BYTES, len(body), 9001)),
    ):
        for place in places:
            bent = bytearray(body)
            bent[place] ^= 1
            yield Attack(
                "CK-5.3", f"{where}: byte {place} of the body, signed", carried(bytes(bent))
            )

    # Whose frame, of what.
    frame = decode(true, ANY)
    yield Attack("RO-2.5", "on another site's line", sent(true, line="site2"))
    yield Attack("WI-2.2", "in the combiner's name", signed_by(world, frame, "@combiner"))
    yield Attack(
        "WI-2.1", "in another site's name", sent(_renamed(world, frame, LIAR, "site2"), "site2")
    )
    yield Attack("WI-2.4", "another sequence", signed(body, sequence=1))
    yield Attack("WI-1.5", "another kind", signed(body, kind=Kind.MASKED_INPUT))

    def twice() -> None:
        combiner = world.combiner()
        combiner.receive(true, line=LIAR)
        combiner.receive(true, line=LIAR)

    yield Attack("CK-3.7", "sent twice", twice)
    for change in ({"round": 1}, {"attempt": 1}):
        old = World(count=world.count, rekey_every=9, secret=world.key, keepers={})
        later = World(
            count=world.count,
            rekey_every=9,
            secret=world.key,
            keepers=old.keepers,
            binding=binding(**change),
        )
        (name,) = change
        yield Attack(
            "WI-2.3",
            f"an upload of the {name} before",
            lambda o=old, n=later: n.combiner().receive(o.uploads[LIAR], line=LIAR),  # type: ignore[misc]
        )
    state = replace(world.binding, state_digest=bytes(32))
    yield Attack("WI-2.3", "an upload for another state", signed(body, binding=state))
    study = replace(world.binding, study_digest=bytes(32))
    yield Attack("WI-2.3", "an upload of another study", signed(body, binding=study))
    other = replace(world.key, secret=bytes(32))
    foreign_world = World(count=world.count, secret=other)
    yield Attack(
        "CK-3.7",
        "an upload under another key",
        lambda: world.combiner().receive(foreign_world.uploads[LIAR], line=LIAR),
    )
    relabelled = head + bytes(decode(foreign_world.uploads[LIAR], ANY).body)[HEAD:]
    yield Attack("CK-5.3", "under another key, with this one's name", carried(relabelled))
    yield Attack("CK-5.6", "its own chunks in another order", carried(head + rest + first))
    yield Attack("CK-5.6", "one of its chunks twice", carried(head + first + first))
    copied = bytes(decode(world.uploads["site2"], ANY).body)
    yield Attack("CK-5.6", "another site's upload under its own signature", carried(copied))
    mixed = head + first + copied[HEAD + FRESH_BYTES :]
    yield Attack("CK-5.6", "another site's chunk among its own", carried(mixed))
    past = World(count=world.count, rekey_every=9, secret=world.key, binding=binding(1))
    of_then = bytes(decode(past.uploads[LIAR], ANY).body)
    yield Attack(
        "CK-5.6",
        "its own chunk of another round",
        carried(head + first + of_then[HEAD + FRESH_BYTES :]),
    )


def _renamed(world: World, frame: object, signer: str, sender: str) -> bytes:
    held = replace(frame, sender=sender, body=bytes(frame.body))  # type: ignore[attr-defined,type-var]
    return replace(held, signature=world.identities[signer].sign(held.signed_message())).encode()


def signed_by(world: World, frame: object, sender: str) -> Callable[[], object]:
    return lambda: world.combiner().receive(_renamed(world, frame, sender, sender))


def _whole_sum(scene: Scene, upload: bytes) -> object:
    world = scene.begin()
    combiner = world.combiner()
    for name in world.names:
        combiner.receive(upload if name == LIAR else world.uploads[name], line=name)
    combiner.close()
    asked = decode(combiner.requests["site0"], ANY).body
    # Sites sign a digest blindly, so these are the signatures that come.
    frame = world.forged(_aggregate(combiner))
    assert bytes(asked)[-32:] in bytes(decode(frame, ANY).body)
    return read(world, "site0", frame)


def _aggregate(combiner: object) -> list[bytes]:
    data = bytes(combiner._aggregate)  # type: ignore[attr-defined]
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def _told(scene: Scene) -> Iterator[Attack]:
    """The frame with the sum, on its way to a site or from a combiner that cannot count."""
    world = scene.world
    frame = world.forged(scene.honest)
    body = bytes(decode(frame, ANY).body)
    start = len(body) - 4 - 2 * len(scene.honest[0])

    def told(data: bytes) -> Callable[[], object]:
        return lambda: read(scene.begin(), "site0", data)

    def signed(body: bytes) -> Callable[[], object]:
        return told(world.signed(Kind.SUM, 1, body))

    end = len(frame)
    for place in [*range(0, 91, 5), *range(91, end, 9973), *range(end - 64, end, 9)]:
        bent = bytearray(frame)
        bent[place] ^= 1 << place % 8
        yield Attack("WI-2.1", f"sum: bit {place % 8} of byte {place}", told(bytes(bent)))
    yield Attack(
        "WI-1.3",
        "sum: 4 GiB claimed",
        told(frame[:LENGTH_AT] + b"\xff" * 4 + frame[LENGTH_AT + 4 :]),
    )
    yield Attack("WI-1.3", "sum: truncated", told(frame[:-1]))
    for chunks in (0, 1, 3, 2**32 - 1):
        lie = body[:start] + struct.pack(">I", chunks) + body[start + 4 :]
        yield Attack("CK-4.5", f"sum: {chunks} chunks claimed, two sent", signed(lie))
    yield Attack("CK-4.5", "sum: a chunk less", signed(body[: -len(scene.honest[0])]))
    yield Attack("CK-4.5", "sum: a byte less", signed(body[:-1]))
    yield Attack("CK-4.5", "sum: the agreement alone", signed(body[:start]))
    yield Attack("CK-4.5", "sum: an empty body", signed(b""))
    for place, where in ((start + 4, "first"), (len(body) - 1, "last")):
        bent = bytearray(body)
        bent[place] ^= 1
        yield Attack("CK-4.2", f"sum: a bit of the {where} ciphertext, signed", signed(bytes(bent)))
    assert Encrypted.length(world.setting) == HEAD + 2 * FRESH_BYTES
