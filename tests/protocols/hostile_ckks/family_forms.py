"""Bytes in the place of ciphertexts: what crashes TenSEAL, lies about lengths, or is bent.

Nothing of it gets to SEAL, which reads what a site made itself (CK-3.5). A network has no signing
key. A hostile site has its own, so it signs whatever it sends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import tenseal
from ckks_cast import Attack, Scene, read, willing
from ckks_world import ANY, World, binding, scratch
from tenseal import sealapi

from fedbcs_protocols.ckks.messages import Announced, Encrypted, aggregate_digest
from fedbcs_protocols.ckks.params import DEGREE, PRIME_BITS
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.federation.scratch import ScratchFile

HEAD = 100
"""Bytes of an upload's body before its first chunk: key, parameters, salt, number of chunks."""
SALT_AT, CHUNKS_AT = 64, 96
LENGTH_AT = 82
"""Where a frame says how long its body is."""
NAME_AT = 86
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


def saved_ciphertext() -> bytes:
    """What SEAL itself wrote, under keys of its own."""
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [PRIME_BITS]))
    context = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC192)
    key = sealapi.KeyGenerator(context).secret_key()
    cipher, plain = sealapi.Ciphertext(context), sealapi.Plaintext()
    sealapi.CKKSEncoder(context).encode([0j] * (DEGREE // 2), 2.0**40, plain)
    sealapi.Encryptor(context, key).encrypt_symmetric(plain, cipher)
    cipher.save(scratch().path)
    return scratch().read()


def with_size(saved: bytes, size: int) -> bytes:
    """Another length of the whole in SEAL's header."""
    assert struct.unpack_from("<Q", saved, 8) == (len(saved),)
    return saved[:8] + struct.pack("<Q", size) + saved[16:]


def foreign() -> dict[str, bytes]:
    saved = saved_ciphertext()
    return {
        "a vector without ciphertexts, sizes=[2048]": vector_without_ciphertexts(),
        "a vector with sizes=[20000]": vector_of_20000(),
        "TenSEAL's own vector": tenseal_vector(100),
        "SEAL's own file": saved,
        "SEAL's own file, size field 2^40": with_size(saved, 1 << 40),
        "SEAL's own file, size field 0": with_size(saved, 0),
    }


def unread(data: bytes, run: Callable[[], object], *, opened: bool = False) -> Callable[[], object]:
    """``run``, in which nothing of ``data`` may get into the file that SEAL reads.

    Nothing at all may, unless a site opens a sum.
    """
    piece = data[:12]

    def watched() -> object:
        written: list[bytes] = []
        true = ScratchFile.write

        def write(self: ScratchFile, content: bytes) -> None:
            written.append(bytes(content))
            true(self, content)

        ScratchFile.write = write  # type: ignore[method-assign]
        try:
            return run()
        finally:
            ScratchFile.write = true  # type: ignore[method-assign]
            assert bool(written) is opened
            assert not any(piece in each for each in written)

    return watched


def attacks() -> Iterator[Attack]:
    scene = Scene()
    yield from _uploads(scene)
    yield from _announced(scene)
    yield from _told(scene)


def _bent(data: bytes, place: int) -> bytes:
    """With one bit of one byte changed."""
    out = bytearray(data)
    out[place] ^= 1 << place % 8
    return bytes(out)


def _uploads(scene: Scene) -> Iterator[Attack]:
    world = scene.world
    true = world.uploads[LIAR]
    body = bytes(decode(true, ANY).body)
    head, (first, rest) = body[:HEAD], world.chunks(LIAR)

    def sent(data: bytes, line: str = LIAR) -> Callable[[], object]:
        return lambda: world.combiner().receive(data, line=line)

    def signed(body: bytes, **changes: object) -> Callable[[], object]:
        return sent(world.resigned(true, body=body, **changes))

    def carried(body: bytes) -> Callable[[], object]:
        """A whole sum with this upload in it, up to what another site makes of it."""
        return lambda: _whole_sum(scene, world.resigned(true, body=body))

    for name, data in foreign().items():
        yield Attack("CK-3.8", f"{name}, in place of the body", unread(data, signed(data)))
        yield Attack(
            "CK-3.7", f"{name}, in place of a chunk", unread(data, signed(head + data + rest))
        )
        filled = (data + bytes(POLYNOMIAL_BYTES))[:POLYNOMIAL_BYTES]
        yield Attack(
            "CK-5.3",
            f"{name}, cut or filled up to a chunk",
            unread(data, carried(head + filled + rest), opened=True),
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
        lie = body[:CHUNKS_AT] + struct.pack(">I", chunks) + body[HEAD:]
        yield Attack("CK-3.8", f"{chunks} chunks claimed, two sent", signed(lie))
    one, three = (body[:CHUNKS_AT] + struct.pack(">I", count) for count in (1, 3))
    yield Attack("CK-3.8", "a chunk less", signed(one + first))
    yield Attack("CK-3.8", "a chunk more", signed(three + first + rest + first))
    yield Attack("CK-3.8", "the body cut within a chunk", signed(body[:-1]))
    yield Attack("CK-3.8", "no salt", signed(body[:SALT_AT] + body[CHUNKS_AT:]))
    yield Attack("CK-3.8", "two salts", signed(body[:CHUNKS_AT] + body[SALT_AT:]))
    yield Attack("CK-3.8", "both polynomials of a chunk", signed(head + (first + rest) * 2))

    for word in range(3):
        high = bytearray(body)
        # The top four bits belong to row 15, which need not be beyond q; the word's own 60 are.
        high[HEAD + 8 * word : HEAD + 8 * word + 8] = b"\xff" * 8
        yield Attack("CK-3.7", f"word {word} from q on", signed(bytes(high)))
    row = bytearray(body)
    for at in range(15):
        row[HEAD + 2048 * at + 7] |= 0xF0
    yield Attack("CK-3.7", "the last row's first word from q on", signed(bytes(row)))
    yield Attack(
        "CK-3.7", "the last word of the last chunk from q on", signed(body[:-8] + b"\xff" * 8)
    )
    yield Attack("CK-3.7", "all words from q on", signed(head + b"\xff" * (len(body) - HEAD)))

    # The network: any single bit of the frame.
    at = NAME_AT + len(LIAR)
    marks = {
        "header": range(LENGTH_AT),
        "length": range(LENGTH_AT, NAME_AT),
        "name": range(NAME_AT, at),
        "name of the key": range(at, at + 32, 5),
        "name of the parameters": range(at + 32, at + SALT_AT, 5),
        "salt": range(at + SALT_AT, at + CHUNKS_AT),
        "number of chunks": range(at + CHUNKS_AT, at + HEAD),
        "words": range(at + HEAD, len(true) - 64, 2477),
        "signature": range(len(true) - 64, len(true), 3),
    }
    for where, places in marks.items():
        for place in places:
            yield Attack(
                "WI-2.1", f"{where}: bit {place % 8} of byte {place}", sent(_bent(true, place))
            )
    # The same bits by the site itself, which signs them.
    for where, places in (
        ("name of the key", range(0, 32, 9)),
        ("name of the parameters", range(32, SALT_AT, 9)),
        ("number of chunks", range(CHUNKS_AT, HEAD)),
    ):
        for place in places:
            name = f"{where}: byte {place} of the body, signed"
            yield Attack("CK-3.9", name, signed(_bent(body, place)))
    for place in range(SALT_AT, CHUNKS_AT, 5):
        name = f"salt: byte {place} of the body, signed"
        yield Attack("CK-3.3", name, carried(_bent(body, place)))
    # A bit of one number, in whichever direction it goes, is a power of two more or less.
    for bit in (0, 5, 8, 24, 40, 59):
        bent = bytearray(body)
        bent[HEAD + 8 * 1000 + bit // 8] ^= 1 << bit % 8
        yield Attack("CK-5.3", f"words: bit {bit} of a number, signed", carried(bytes(bent)))
    for row, name in ((0, "lowest"), (14, "highest")):
        bent = bytearray(body)
        bent[HEAD + 2048 * row + 7] ^= 1 << (4 if row == 0 else 7)
        name = f"words: the {name} bit of a number of the last row, signed"
        yield Attack("CK-5.3", name, carried(bytes(bent)))

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

    yield Attack("CK-3.9", "sent twice", twice)
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
        "CK-3.9",
        "an upload under another key",
        lambda: world.combiner().receive(foreign_world.uploads[LIAR], line=LIAR),
    )
    under_it = head[:SALT_AT] + bytes(decode(foreign_world.uploads[LIAR], ANY).body)[SALT_AT:]
    yield Attack("CK-3.5", "under another key, with this one's name", carried(under_it))
    yield Attack("CK-3.5", "its own chunks in another order", carried(head + rest + first))
    yield Attack("CK-3.5", "one of its chunks twice", carried(head + first + first))
    copied = bytes(decode(world.uploads["site2"], ANY).body)
    yield Attack("CK-3.5", "another site's upload under its own signature", carried(copied))
    salted = head[:SALT_AT] + copied[SALT_AT:CHUNKS_AT] + body[CHUNKS_AT:]
    yield Attack("CK-3.3", "another site's salt on its own upload", carried(salted))
    mixed = head + first + world.chunks("site2")[1]
    yield Attack("CK-3.5", "another site's chunk among its own", carried(mixed))
    past = World(count=world.count, rekey_every=9, secret=world.key, binding=binding(1))
    of_then = bytes(decode(past.uploads[LIAR], ANY).body)
    yield Attack("CK-3.5", "its own upload of another round, signed anew", carried(of_then))
    yield Attack(
        "CK-3.5",
        "its own chunk of another round",
        carried(head + first + past.chunks(LIAR)[1]),
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
    said = Announced.decode(asked, sender="x", sites=world.sites)
    data = bytes(combiner._aggregate)
    aggregate = [data[: len(data) // 2], data[len(data) // 2 :]]
    assert said.digest == aggregate_digest(data)
    # Sites sign a digest blindly, and a salt that is not theirs, so these are the signatures.
    salts = {world.names[place]: salt for place, salt in said.salts.items()}
    return read(world, "site0", world.forged(aggregate, salts=salts))


def _announced(scene: Scene) -> Iterator[Attack]:
    """The frame that names members, digest and salts, on its way to a site that has not signed."""
    world = scene.world
    frame = world.announcement(world.names, aggregate_digest(b"".join(scene.honest)))
    body = bytes(decode(frame, ANY).body)

    def shown(data: bytes) -> Callable[[], object]:
        def run() -> object:
            session = willing(scene.begin(), "site0")
            try:
                return session.agree(data)
            finally:
                assert session.transcript is None

        return run

    def signed(body: bytes) -> Callable[[], object]:
        return shown(world.signed(Kind.AGGREGATE, 0, body))

    at, end = NAME_AT + len("@combiner"), len(frame) - 64
    width = len(body) - 32 * (1 + world.sites)
    marks = {
        "header": range(0, LENGTH_AT, 5),
        "length": range(LENGTH_AT, NAME_AT),
        "name": range(NAME_AT, at),
        "members": range(at, at + width),
        "digest": range(at + width, at + width + 32, 5),
        "salts": range(at + width + 32, end, 5),
        "signature": range(end, len(frame), 9),
    }
    for where, places in marks.items():
        for place in places:
            name = f"announced: {where}: bit {place % 8} of byte {place}"
            yield Attack("WI-2.1", name, shown(_bent(frame, place)))
    yield Attack("WI-1.3", "announced: truncated", shown(frame[:-1]))
    yield Attack("CK-4.3", "announced: nothing", signed(b""))
    yield Attack("CK-4.3", "announced: a byte less", signed(body[:-1]))
    yield Attack("WI-1.2", "announced: a byte more", signed(body + b"\0"))
    yield Attack("CK-4.3", "announced: a salt less", signed(body[:-32]))
    yield Attack("CK-4.3", "announced: no salts", signed(body[: width + 32]))
    three = Announced(world.salts(world.names[:3]), bytes(32)).encode(world.sites)
    yield Attack("CK-4.3", "announced: a salt more", signed(three + body[-32:]))
    yield Attack("CK-4.3", "announced: a member more", signed(body[:width] + three[width:]))
    yield Attack("CK-4.3", "announced: a member that is none", signed(b"\xff" + body[width:]))
    for place in range(width + 32, width + 64, 5):
        name = f"announced: byte {place}, in this site's salt, signed"
        yield Attack("CK-4.3", name, signed(_bent(body, place)))


def _told(scene: Scene) -> Iterator[Attack]:
    """The frame with the sum, on its way to a site or from a combiner that cannot count."""
    world = scene.world
    frame = world.forged(scene.honest)
    body = bytes(decode(frame, ANY).body)
    start = len(body) - 4 - 2 * POLYNOMIAL_BYTES

    def told(data: bytes) -> Callable[[], object]:
        return lambda: read(scene.begin(), "site0", data)

    def signed(body: bytes) -> Callable[[], object]:
        return told(world.signed(Kind.SUM, 1, body))

    at, end = NAME_AT + len("@combiner"), len(frame) - 64
    width = (start - 64 - 32 * world.sites - 64 * world.sites) // 2
    salts, signers = 64 + width, 64 + width + 32 * world.sites
    marks = {
        "header": range(0, LENGTH_AT, 5),
        "length": range(LENGTH_AT, NAME_AT),
        "name": range(NAME_AT, at),
        "name of the key": range(at, at + 32, 5),
        "members": range(at + 32, at + 32 + width),
        "digest": range(at + 32 + width, at + salts, 5),
        "salts": range(at + salts, at + signers, 5),
        "signers": range(at + signers, at + signers + width),
        "signatures": range(at + signers + width, at + start, 9),
        "number of chunks": range(at + start, at + start + 4),
        "words": range(at + start + 4, end, 9973),
        "signature": range(end, len(frame), 9),
    }
    for where, places in marks.items():
        for place in places:
            name = f"sum: {where}: bit {place % 8} of byte {place}"
            yield Attack("WI-2.1", name, told(_bent(frame, place)))
    yield Attack(
        "WI-1.3",
        "sum: 4 GiB claimed",
        told(frame[:LENGTH_AT] + b"\xff" * 4 + frame[LENGTH_AT + 4 :]),
    )
    yield Attack("WI-1.3", "sum: truncated", told(frame[:-1]))
    for chunks in (0, 1, 3, 2**32 - 1):
        lie = body[:start] + struct.pack(">I", chunks) + body[start + 4 :]
        yield Attack("CK-4.5", f"sum: {chunks} chunks claimed, two sent", signed(lie))
    yield Attack("CK-4.5", "sum: a chunk less", signed(body[:-POLYNOMIAL_BYTES]))
    yield Attack("CK-4.5", "sum: a byte less", signed(body[:-1]))
    yield Attack("CK-4.5", "sum: the agreement alone", signed(body[:start]))
    yield Attack("CK-4.5", "sum: an empty body", signed(b""))
    yield Attack("CK-4.4", "sum: a salt less", signed(body[:salts] + body[salts + 32 :]))
    yield Attack("CK-4.4", "sum: cut within the salts", signed(body[: salts + 40]))
    for where, places in (
        ("the salts", range(salts, signers, 9)),
        ("the digest", range(32 + width, salts, 9)),
    ):
        for place in places:
            name = f"sum: byte {place}, in {where}, signed"
            yield Attack("CK-4.4", name, signed(_bent(body, place)))
    for place, where in ((start + 4, "first"), (len(body) - 1, "last")):
        name = f"sum: a bit of the {where} ciphertext, signed"
        yield Attack("CK-4.2", name, signed(_bent(body, place)))
    assert Encrypted.length(world.setting) == HEAD + 2 * POLYNOMIAL_BYTES
