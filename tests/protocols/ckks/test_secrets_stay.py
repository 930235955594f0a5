"""No secret is in a frame, a file, a text or a pickle, and nothing decrypts but the end."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ckks_world import ANY, SECRET, World, scratch

import fedbcs_protocols.ckks as public
from fedbcs_protocols import ckks
from fedbcs_protocols.ckks import CkksSession, Outcome, open_sum
from fedbcs_protocols.ckks.cipher import Decryptor, Encryptor
from fedbcs_protocols.ckks.messages import ciphertexts_of, decode_sum
from fedbcs_protocols.ckks.params import PRIME
from fedbcs_protocols.ckks.products import Products
from fedbcs_protocols.ckks.samples import upload_secret
from fedbcs_protocols.ckks.words import unpack_words
from fedbcs_protocols.derive import purpose_key
from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.identity import SIGNATURE_BYTES
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import decode


class Watched:
    """A scratch file that remembers everything that was ever in it."""

    def __init__(self, folder: Path) -> None:
        self.file = Path(tempfile.mkstemp(dir=folder)[1])
        self.path = str(self.file)
        self.held: list[bytes] = []

    def write(self, data: Buffer) -> None:
        self.held.append(bytes(data))
        self.file.write_bytes(data)

    def read(self) -> bytes:
        self.held.append(self.file.read_bytes())
        return self.held[-1]


class Watching(World):
    """A world whose every scratch file is watched."""

    folder: Path

    def files(self) -> list[Watched]:
        return self.__dict__.setdefault("made", [])

    def scratch(self) -> Watched:
        self.files().append(Watched(self.folder))
        return self.files()[-1]

    def session(self, name: str, guard: object = None) -> CkksSession:
        session = super().session(name)
        session._scratch = self.scratch()
        return session

    def open(self, name: str, frame: bytes, seen: object = None) -> Outcome:
        return open_sum(frame, self.setting, seen={}, keys=self.keys(name), scratch=self.scratch())


@pytest.fixture
def watched(tmp_path: Path) -> Watching:
    world = Watching(count=9000)
    world.folder = tmp_path
    return world


def pieces(secret: bytes) -> Iterator[bytes]:
    """What would give it away: eight bytes in a row from anywhere."""
    return (secret[at : at + 8] for at in range(len(secret) - 7))


def secrets_of(world: World) -> list[bytes]:
    """The group's secret, the keys of uploads' secrets, and these in every form: small numbers of

    one byte to eight, and residues.
    """
    found = [SECRET]
    for name in world.names:
        salt, bound = world.salt(name), world.setting.binding
        found.append(purpose_key(SECRET, "ckks upload secret", bound, 1, name, salt))
        small = upload_secret(SECRET, 1, bound, name, salt)
        residues = np.where(small < 0, small + PRIME, small)
        forms = [small.astype("<i1"), small.astype("<i4"), small.astype("<i8"), residues]
        found += [form[at : at + 64].tobytes() for form in forms for at in (0, 2048, 4032)]
    return found


def test_no_frame_holds_a_secret(watched: Watching) -> None:
    """GK-7.1, CK-4.1: the key is never sent, nor what is made of it."""
    total = watched.run()
    assert watched.open("site1", total).total.tolist() == watched.total
    frames = [*watched.uploads.values(), total]
    for secret in secrets_of(watched):
        # Small numbers repeat; 64 of them in a row do not.
        for piece in pieces(secret) if len(secret) == 32 else [secret]:
            assert not any(piece in data for data in frames)


def test_no_file_holds_the_groups_secret(watched: Watching) -> None:
    """CK-4.1: SEAL gets an upload's secret, in memory, and nothing that it comes from."""
    watched.open("site1", watched.run())
    files = [held for file in watched.files() for held in file.held]
    # Four sites and the reading; and all of it was seen, and all was emptied.
    assert len(watched.files()) == 5
    assert len(files) > 25
    assert all(file.held[-1] == b"" for file in watched.files())
    keys = [secret for secret in secrets_of(watched) if len(secret) == 32]
    assert len(keys) == 5
    for key in keys:
        for piece in pieces(key):
            assert not any(piece in data for data in files)


def test_no_file_holds_what_a_peer_sent(watched: Watching) -> None:
    """CK-3.5: whatever it is, SEAL does not read it."""
    total = watched.run()
    watched.open("site1", total)
    _, told = decode_sum(decode(total, ANY).body, sender="x", setting=watched.setting)
    files = [held for file in watched.files() for held in file.held]
    sent = [bytes(c) for name in watched.names for c in watched.chunks(name)]
    for ciphertext in (*map(bytes, ciphertexts_of(told)), *sent):
        words = unpack_words(ciphertext, "x").astype("<u8").tobytes()
        for data in (ciphertext, words):
            for at in (0, 8192, len(data) - 16):
                assert not any(data[at : at + 16] in held for held in files)


def test_no_file_holds_what_was_decrypted(watched: Watching) -> None:
    """CK-5.8: neither the total nor a site's vector, as words or as float64."""
    total = watched.run()
    outcome = watched.open("site1", total)
    data = [*watched.uploads.values(), total]
    data += [held for file in watched.files() for held in file.held]
    for values in (outcome.total, *watched.vectors.values()):
        for kind in ("<u4", "<u8", "<f8", "<u2"):
            piece = values[100:108].astype(kind).tobytes()
            assert not any(piece in each for each in data)


def test_what_a_site_sends_does_not_depend_on_its_values_but_for_ciphertexts() -> None:
    """Same lengths, same heads: nobody can tell zeros from anything else."""
    world, zeros = World(count=9000), World(count=9000)
    zeros.__dict__["vectors"] = {n: np.zeros(9000, np.uint32) for n in zeros.names}
    one, other = world.uploads["site0"], zeros.uploads["site0"]
    assert len(one) == len(other)
    head = len(one) - len(decode(one, ANY).body) - SIGNATURE_BYTES + 100
    # All but the salt and the number of chunks.
    assert one[: head - 36] == other[: head - 36]
    assert one[head - 4 : head] == other[head - 4 : head]
    # A coin's entropy a bit: a chi-square over the bytes of each, false alarm below 10^-9.
    for frame in (one, other):
        counts = np.bincount(np.frombuffer(frame[head:-64], np.uint8), minlength=256)
        expected = counts.sum() / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 7 * np.sqrt(2 * 255)


def ciphers(world: World) -> tuple[object, ...]:
    params, bound = world.setting.params, world.setting.binding
    secret = upload_secret(SECRET, 1, bound, "site0", bytes(32))
    return (
        Encryptor(params, bound, secret, bytes(32), scratch()),
        Decryptor(bound, [secret], scratch()),
        Products(secret, scratch()),
    )


def test_representations_and_texts(small: World) -> None:
    session, combiner, frame = small.session("site0"), small.combiner(), small.run()
    outcome = small.open("site1", frame)
    context = ciphers(small)[0]
    texts = [repr(x) for x in (session, combiner, outcome.survivors, context, small.key)]
    texts += [repr(small.keys("site0")), str(context), f"{session}"]
    for call in (
        lambda: session.encrypt(small.vectors["site0"][:-1]),
        lambda: session.agree(frame),
        lambda: small.open("site0", frame[:-1]),
        lambda: small.open("site0", small.forged(small.honest()[::-1])),
        lambda: small.open("site0", frame),
    ):
        with pytest.raises(ProtocolError) as caught:
            call()
        texts.append(f"{caught.value} {caught.value!r} {caught.value.args}")
    shown = " ".join(texts)
    for piece in pieces(SECRET):
        assert piece.hex() not in shown
        assert repr(piece)[2:-1] not in shown
    assert "redacted" in repr(context)
    # Nor is a value of a vector or of the sum in a text.
    for values in (small.vectors["site0"], small.vectors["site1"], outcome.total):
        assert not any(f"{value}" in shown for value in values[:200].tolist() if value > 9999)


def test_nothing_is_pickled(small: World) -> None:
    small.uploads  # noqa: B018
    things = (
        *ciphers(small),
        small.sessions["site0"],
        small.combiner(),
        small.key,
        small.keys("site0"),
    )
    for thing in things:
        with pytest.raises((TypeError, ProtocolError)):
            pickle.dumps(thing)


def test_the_package_opens_nothing_but_whole_sums() -> None:
    """CK-5.2, CK-5.8: what it offers decrypts only through open_sum, which checks all first."""
    assert set(public.__all__) == {
        "CkksCombiner",
        "CkksSession",
        "CkksSetting",
        "CombinerState",
        "Outcome",
        "ParameterSet",
        "Scratch",
        "SiteState",
        "admit",
        "check_build",
        "open_sum",
        "parameter_set",
    }
    for name in public.__all__:
        offered = {each for each in dir(getattr(ckks, name)) if not each.startswith("_")}
        assert not offered & {"decrypt", "decode", "unpack", "encoder", "decryptor", "evaluator"}
    assert set(vars(Outcome)["__dataclass_fields__"]) == {
        "survivors",
        "total",
        "attempt",
        "transcript",
        "key_id",
    }


def test_a_total_is_whole_numbers(small: World) -> None:
    """CK-5.2: no noise comes out."""
    total = small.open("site0", small.run()).total
    assert total.dtype == np.uint32
