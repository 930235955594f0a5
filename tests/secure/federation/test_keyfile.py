"""A site's secrets on its disk: they open with the right key, or a named error says why not."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from crashes import Crash

from fedbcs_protocols.group import KeyRing
from fedbcs_protocols.group.secret import GroupSecret
from fedbcs_secure import files
from fedbcs_secure.errors import KeyFileError, RunFolderError
from fedbcs_secure.federation import keyfile
from fedbcs_secure.federation.filekeys import FileKeys
from fedbcs_secure.federation.keyfile import (
    Keyring,
    Method,
    Passphrase,
    SiteSecrets,
    change,
    create,
    load,
    method_of,
    passphrase_in,
)

WORDS = Passphrase("rowan kettle birch 19")
OTHER = Passphrase("salt meadow lantern 7")
LENGTH = 4 + 1 + 1 + 3 + 16 + 12 + 64 + 16
STORAGE = bytes(range(32))
RING = KeyRing(b"s" * 32, 4).taking(GroupSecret(3, 7, frozenset({0, 1, 2}), b"g" * 32))
LATER = replace(RING, uploaded=(8, 1))


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrypt at the least cost that is read; one test has the true one."""
    monkeypatch.setattr(keyfile, "_LOG_N", 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def made(folder: Path) -> SiteSecrets:
    return create(folder, WORDS)


class NoWork:
    """An :class:`Unlock` that must not be asked."""

    method = Method.PASSPHRASE

    def key(self, salt: bytes, cost: tuple[int, int, int]) -> bytes:
        raise AssertionError("work was done")


# The key file ------------------------------------------------------------------------------------


def test_what_was_made_is_what_is_read(folder: Path, made: SiteSecrets) -> None:
    again = load(folder, WORDS)
    assert again.identity.secret_bytes() == made.identity.secret_bytes()
    assert again.storage_key == made.storage_key
    assert (folder / "site.key").stat().st_size == LENGTH
    assert method_of(folder) is Method.PASSPHRASE
    first, comment = (folder / "site.pub").read_text().splitlines()
    assert bytes.fromhex(first) == made.identity.public.raw
    assert made.identity.public.fingerprint in comment
    assert sorted(path.name for path in folder.iterdir()) == [
        "site.key",
        "site.key.lock",
        "site.pub",
    ]


def test_the_head_says_how_it_is_encrypted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its true cost: a guess takes 128 MiB."""
    monkeypatch.undo()
    held = create(folder, WORDS)
    magic, version, method, *cost = struct.unpack_from(
        ">4sBBBBB", (folder / "site.key").read_bytes()
    )
    assert (magic, version, method, cost) == (b"FBSK", 1, 1, [17, 8, 1])
    assert load(folder, WORDS).identity == held.identity


def test_two_files_have_nothing_in_common(folder: Path, made: SiteSecrets) -> None:
    """Fresh salt and nonce each time, the same secrets under the same passphrase included."""
    first = (folder / "site.key").read_bytes()
    change(folder, WORDS, WORDS)
    second = (folder / "site.key").read_bytes()
    assert first[:9] == second[:9]
    same = sum(a == b for a, b in zip(first[9:], second[9:], strict=True))
    assert same < 20


@pytest.mark.parametrize("wrong", ["rowan kettle birch 18", "Rowan kettle birch 19", " " * 21])
def test_a_wrong_passphrase(folder: Path, made: SiteSecrets, wrong: str) -> None:
    with pytest.raises(KeyFileError, match="wrong passphrase, or a damaged file") as caught:
        load(folder, Passphrase(wrong))
    assert wrong not in str(caught.value)


def test_every_flipped_byte_is_noticed(folder: Path, made: SiteSecrets) -> None:
    path = folder / "site.key"
    data = path.read_bytes()
    for at in range(len(data)):
        for flip in (0x01, 0x80):
            damaged = bytearray(data)
            damaged[at] ^= flip
            # A cost of 2^11 is read but is not what was encrypted; more takes too long here.
            if at == 6 and 11 < damaged[at] <= 20:
                continue
            path.write_bytes(damaged)
            with pytest.raises(KeyFileError):
                load(folder, WORDS)
    path.write_bytes(data)
    assert load(folder, WORDS).identity == made.identity


def test_every_other_length_is_refused_before_work_is_done(folder: Path, made: SiteSecrets) -> None:
    path = folder / "site.key"
    data = path.read_bytes()
    for other in [
        *(data[:length] for length in range(LENGTH)),
        data + b"\0",
        data + bytes(1 << 20),
    ]:
        path.write_bytes(other)
        with pytest.raises(KeyFileError, match="no key file"):
            load(folder, NoWork())
        with pytest.raises(KeyFileError, match="no key file"):
            method_of(folder)


@pytest.mark.parametrize(
    "cost",
    [(9, 8, 1), (21, 8, 1), (255, 8, 1), (10, 0, 1), (10, 17, 1), (10, 8, 0), (10, 8, 5)],
)
def test_absurd_costs_are_refused_before_work_is_done(
    folder: Path, made: SiteSecrets, cost: tuple[int, int, int]
) -> None:
    path = folder / "site.key"
    data = bytearray(path.read_bytes())
    data[6:9] = bytes(cost)
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match="impossible amount of work"):
        load(folder, NoWork())


@pytest.mark.parametrize(("at", "value"), [(0, 0x47), (4, 2), (5, 0), (5, 3)])
def test_another_version_or_method_is_none_of_ours(
    folder: Path, made: SiteSecrets, at: int, value: int
) -> None:
    path = folder / "site.key"
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match="no version 1 key file"):
        load(folder, NoWork())


@pytest.mark.parametrize("text", ["", "short", "elevenchars"])
def test_short_passphrases_are_refused(text: str) -> None:
    with pytest.raises(KeyFileError, match="at least 12 characters") as caught:
        Passphrase(text)
    assert not text or text not in str(caught.value)


def test_twelve_characters_will_do() -> None:
    assert Passphrase("twelve chars").text == "twelve chars"


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_the_file(folder: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        create(folder, WORDS)
        change(folder, WORDS, OTHER)
        FileKeys(folder / "ring", STORAGE).write(RING)
    finally:
        os.umask(before)
    for name in ("site.key", "ring"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(
    folder: Path, made: SiteSecrets
) -> None:
    (folder / "site.key").chmod(0o644)
    change(folder, WORDS, OTHER)
    assert stat.S_IMODE((folder / "site.key").stat().st_mode) == 0o600


def test_another_identity_is_not_made_over_one_that_is_there(
    folder: Path, made: SiteSecrets
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for unlock in (WORDS, OTHER):
        with pytest.raises(KeyFileError, match=r"site\.key exists"):
            create(folder, unlock)
    # A damaged one may still be saved by a person.
    (folder / "site.key").write_bytes(b"")
    with pytest.raises(KeyFileError, match=r"site\.key exists"):
        create(folder, WORDS)
    assert (folder / "site.pub").read_bytes() == before["site.pub"]


def test_the_passphrase_changes_and_the_secrets_stay(folder: Path, made: SiteSecrets) -> None:
    changed = change(folder, WORDS, OTHER)
    for held in (changed, load(folder, OTHER)):
        assert held.identity.secret_bytes() == made.identity.secret_bytes()
        assert held.storage_key == made.storage_key
    with pytest.raises(KeyFileError, match="does not open"):
        load(folder, WORDS)


def test_who_cannot_open_it_cannot_change_it(folder: Path, made: SiteSecrets) -> None:
    before = (folder / "site.key").read_bytes()
    with pytest.raises(KeyFileError, match="does not open"):
        change(folder, OTHER, OTHER)
    assert (folder / "site.key").read_bytes() == before


def test_a_public_half_that_was_lost_comes_back_with_a_change(
    folder: Path, made: SiteSecrets
) -> None:
    before = (folder / "site.pub").read_bytes()
    (folder / "site.pub").unlink()
    change(folder, WORDS, OTHER)
    assert (folder / "site.pub").read_bytes() == before


def test_no_key_file(folder: Path) -> None:
    for use in (lambda: load(folder, NoWork()), lambda: method_of(folder)):
        with pytest.raises(KeyFileError, match="keygen makes a site's key"):
            use()
    (folder / "site.key").mkdir(parents=True)
    with pytest.raises(KeyFileError, match="cannot read"):
        load(folder, NoWork())


def test_no_secret_is_in_clear_on_the_disk(folder: Path, made: SiteSecrets) -> None:
    FileKeys(folder / "ring", made.storage_key).write(RING)
    change(folder, WORDS, OTHER)
    secret = [made.identity.secret_bytes(), made.storage_key, b"g" * 32, RING.encode()[:64]]
    secret += [WORDS.text.encode(), OTHER.text.encode()]
    forms = [form for s in secret for form in (s, s.hex().encode(), s[:12], s[-12:])]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        data = path.read_bytes()
        assert not [form for form in forms if form in data], path.name


def test_no_secret_is_shown_or_pickled(folder: Path, made: SiteSecrets) -> None:
    keys = FileKeys(folder / "ring", made.storage_key)
    text = " ".join(repr(each) + str(each) for each in (made, WORDS, keys, Keyring()))
    for secret in (made.identity.secret_bytes(), made.storage_key, WORDS.text.encode()):
        for form in (secret.hex(), repr(secret)[2:-1], str(secret)):
            assert form not in text
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(made, protocol)


# A passphrase in a file --------------------------------------------------------------------------


def private_file(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nsecond line\n"])
def test_the_first_line_of_a_file(tmp_path: Path, end: bytes) -> None:
    path = private_file(tmp_path / "words", " mehr als zwölf ".encode() + end)
    assert passphrase_in(path) == Passphrase(" mehr als zwölf ")


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o444, 0o777])
def test_a_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    path = private_file(tmp_path / "words", b"rowan kettle birch", mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        passphrase_in(path)
    # One in a folder that keeps others out may have any mode (systemd's credentials do).
    assert passphrase_in(path, guarded=True).text == "rowan kettle birch"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "at least 12"),
        (b"\n rowan kettle birch", "at least 12"),
        (b"rowan kettle \xff\xfe", "no text in UTF-8"),
    ],
)
def test_files_with_no_passphrase(tmp_path: Path, data: bytes, match: str) -> None:
    path = private_file(tmp_path / "words", data)
    with pytest.raises(KeyFileError, match=match) as caught:
        passphrase_in(path)
    assert "0xff" not in str(caught.value)
    assert "rowan" not in str(caught.value)


def test_no_passphrase_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        passphrase_in(tmp_path / "absent")
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(KeyFileError, match="cannot read the passphrase"):
        passphrase_in(tmp_path / "folder")


# The system's keyring ----------------------------------------------------------------------------


class KeyringError(Exception):
    pass


class FakeKeyring(ModuleType):
    """The package ``keyring`` with a backend in memory; ``locked`` refuses everything."""

    def __init__(self, priority: float = 5.0) -> None:
        super().__init__("keyring")
        self.priority = priority
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False
        self.errors = ModuleType("keyring.errors")
        self.errors.KeyringError = KeyringError  # type: ignore[attr-defined]

    def get_keyring(self) -> FakeKeyring:
        return self

    def get_password(self, service: str, user: str) -> str | None:
        if self.locked:
            raise KeyringError("locked")
        return self.kept.get((service, user))

    def set_password(self, service: str, user: str, password: str) -> None:
        if self.locked:
            raise KeyringError("locked")
        self.kept[service, user] = password


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeKeyring:
    fake = FakeKeyring()
    monkeypatch.setitem(sys.modules, "keyring", fake)
    monkeypatch.setitem(sys.modules, "keyring.errors", fake.errors)
    return fake


def test_a_key_in_the_keyring(folder: Path, library: FakeKeyring) -> None:
    held = create(folder, Keyring())
    assert method_of(folder) is Method.KEYRING
    assert load(folder, Keyring()).identity == held.identity
    ((service, user),) = library.kept
    assert (service, user) == ("fedbcs-secure", (folder / "site.key").read_bytes()[9:25].hex())
    assert (folder / "site.key").stat().st_size == LENGTH
    key = bytes.fromhex(library.kept[service, user])
    assert len(key) == 32
    for path in folder.iterdir():
        assert key not in path.read_bytes()


def test_from_a_passphrase_to_the_keyring_and_back(
    folder: Path, made: SiteSecrets, library: FakeKeyring
) -> None:
    change(folder, WORDS, Keyring())
    with pytest.raises(KeyFileError, match="under a keyring, not a passphrase"):
        load(folder, WORDS)
    assert change(folder, Keyring(), OTHER).identity == made.identity
    with pytest.raises(KeyFileError, match="under a passphrase, not a keyring"):
        load(folder, Keyring())
    assert load(folder, OTHER).storage_key == made.storage_key


@pytest.mark.parametrize("stored", [None, "", "00" * 31, "00" * 33, "é" * 64, "zz" * 32, "00" * 32])
def test_a_keyring_without_the_right_key(
    folder: Path, library: FakeKeyring, stored: str | None
) -> None:
    create(folder, Keyring())
    (place,) = library.kept
    if stored is None:
        library.kept.clear()
    else:
        library.kept[place] = stored
    with pytest.raises(KeyFileError) as caught:
        load(folder, Keyring())
    assert not stored or stored not in str(caught.value)


def test_a_keyring_that_stays_locked(folder: Path, library: FakeKeyring) -> None:
    library.locked = True
    with pytest.raises(KeyFileError, match="did not take a key"):
        create(folder, Keyring())
    assert not (folder / "site.key").exists()
    library.locked = False
    held = create(folder, Keyring())
    library.locked = True
    with pytest.raises(KeyFileError, match="did not give the key"):
        load(folder, Keyring())
    library.locked = False
    assert load(folder, Keyring()).identity == held.identity


@pytest.mark.parametrize("priority", [-1, 0, 0.5, 0.99])
def test_keyrings_that_cannot_be_trusted(
    folder: Path, library: FakeKeyring, priority: float
) -> None:
    """Those of the package that keep nothing, fail, or write in clear have these priorities."""
    library.priority = priority
    with pytest.raises(KeyFileError, match="no keyring that can be trusted"):
        create(folder, Keyring())
    assert library.kept == {}
    assert not (folder / "site.key").exists()


def test_no_keyring_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(KeyFileError, match=r"pip install .fedbcs-secure\[keyring\]"):
        create(folder, Keyring())


# The key ring of a study -------------------------------------------------------------------------


def test_nothing_written_nothing_read(tmp_path: Path) -> None:
    assert FileKeys(tmp_path / "ring", STORAGE).read() is None


def test_the_last_of_two_rings_counts(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "ring", STORAGE)
    keys.write(RING)
    assert keys.read() == RING
    keys.write(LATER)
    assert keys.read() == FileKeys(tmp_path / "ring", STORAGE).read() == LATER
    assert {path.name for path in tmp_path.iterdir()} == {"ring", "ring.lock"}


def test_the_same_ring_is_never_the_same_file(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "ring", STORAGE)
    keys.write(RING)
    first = (tmp_path / "ring").read_bytes()
    keys.write(RING)
    assert (tmp_path / "ring").read_bytes()[:12] != first[:12]


FOR_A_PERSON = "take no part until that is clear"


def test_another_sites_and_another_studys_ring(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "ring", STORAGE)
    keys.write(RING)
    with pytest.raises(KeyFileError, match=FOR_A_PERSON):
        FileKeys(tmp_path / "ring", bytes(32)).read()
    # The name of the file is part of it.
    (tmp_path / "other").write_bytes((tmp_path / "ring").read_bytes())
    with pytest.raises(KeyFileError, match=FOR_A_PERSON):
        FileKeys(tmp_path / "other", STORAGE).read()


def test_every_truncation_of_a_ring_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    FileKeys(path, STORAGE).write(RING)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(KeyFileError, match=FOR_A_PERSON):
            FileKeys(path, STORAGE).read()
        assert path.read_bytes() == data[:length]


def test_every_flipped_byte_of_a_ring_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    FileKeys(path, STORAGE).write(RING)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(KeyFileError, match=FOR_A_PERSON):
            FileKeys(path, STORAGE).read()


@pytest.mark.parametrize("extra", [1, 1 << 14, 1 << 20])
def test_a_ring_that_is_too_long(tmp_path: Path, extra: int) -> None:
    path = tmp_path / "ring"
    FileKeys(path, STORAGE).write(RING)
    path.write_bytes(path.read_bytes() + bytes(extra))
    with pytest.raises(KeyFileError, match=FOR_A_PERSON):
        FileKeys(path, STORAGE).read()


def test_the_longest_ring_there_is_can_be_read(tmp_path: Path) -> None:
    """18 secrets (GK-5.1) of 1024 sites, the most that a study has."""
    ring = KeyRing(b"s" * 32, 1024)
    for epoch in range(1, 25):
        ring = ring.taking(GroupSecret(epoch, epoch, frozenset(range(1024)), b"g" * 32))
    keys = FileKeys(tmp_path / "ring", STORAGE)
    keys.write(ring)
    assert keys.read() == ring
    assert len(ring.secrets) == 18


def test_a_ring_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "ring").mkdir()
    with pytest.raises(KeyFileError, match="cannot read keys"):
        FileKeys(tmp_path / "ring", STORAGE).read()


def test_a_passphrase_typed_on_another_keyboard(tmp_path: Path) -> None:
    """An accented letter is one character, or a letter and its accent."""
    made = create(tmp_path / "site", Passphrase("zw\u00f6lf Boxk\u00e4mpfer"))
    assert load(tmp_path / "site", Passphrase("zwo\u0308lf Boxka\u0308mpfer")) == made
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        load(tmp_path / "site", Passphrase("zwolf Boxkampfer"))


CREATING = """
import sys
from pathlib import Path
from fedbcs_secure.federation import keyfile
generate = keyfile.SiteSecrets.generate
def slowly():
    print("begun", flush=True)
    sys.stdin.read()
    return generate()
keyfile.SiteSecrets.generate = slowly
keyfile.create(Path(sys.argv[1]), keyfile.Passphrase("rowan kettle birch 19"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_two_that_make_a_key_at_once(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CREATING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(RunFolderError, match="wait until it has made its key"):
            create(tmp_path, OTHER)
        other.communicate("")
        assert other.returncode == 0
    assert load(tmp_path, WORDS)
    with pytest.raises(KeyFileError, match="exists"):
        create(tmp_path, OTHER)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "absent" / "ring", STORAGE)
    for use in (keys.read, lambda: keys.write(RING)):
        with pytest.raises(RunFolderError, match="cannot lock keys"):
            use()


HOLDER = """
import sys
from pathlib import Path
from fedbcs_secure.federation.filekeys import FileKeys
FileKeys(Path(sys.argv[1]), bytes(range(32))).read()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_two_processes_of_a_site_do_not_share_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        keys = FileKeys(path, STORAGE)
        for use in (keys.read, lambda: keys.write(RING)):
            with pytest.raises(RunFolderError, match="two could decrypt under one key"):
                use()
        other.kill()
    # However the other ended, its lock is gone.
    keys.write(RING)
    assert keys.read() == RING


# Crashes and full disks --------------------------------------------------------------------------

Write = Callable[[Path], object]


def make_key(folder: Path) -> object:
    return create(folder, WORDS)


def change_key(folder: Path) -> object:
    return change(folder, WORDS, OTHER)


def write_ring(folder: Path) -> object:
    FileKeys(folder / "ring", STORAGE).write(LATER)
    return None


@pytest.fixture
def no_space(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], pytest.MonkeyPatch]]:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def make(broken: str) -> pytest.MonkeyPatch:
        monkeypatch.setattr(os, broken, fails)
        return monkeypatch

    yield make
    monkeypatch.undo()


@pytest.mark.parametrize("broken", ["open", "fsync", "replace"])
@pytest.mark.parametrize("write", [change_key, write_ring])
def test_a_full_disk_leaves_what_was_there(
    folder: Path,
    made: SiteSecrets,
    broken: str,
    write: Write,
    no_space: Callable[[str], pytest.MonkeyPatch],
) -> None:
    FileKeys(folder / "ring", STORAGE).write(RING)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    patch = no_space(broken)
    with pytest.raises(KeyFileError, match="No space"):
        write(folder)
    patch.undo()
    after = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".tmp"}
    assert after == before
    patch.setattr(keyfile, "_LOG_N", 10)
    write(folder)
    assert FileKeys(folder / "ring", STORAGE).read() in (RING, LATER)


@pytest.mark.parametrize("broken", ["open", "fsync", "replace"])
def test_a_full_disk_when_a_key_is_made(
    folder: Path, broken: str, no_space: Callable[[str], pytest.MonkeyPatch]
) -> None:
    """Nothing of a key remains, so the next attempt makes one."""
    patch = no_space(broken)
    with pytest.raises(KeyFileError, match=r"cannot write to .*No space"):
        create(folder, WORDS)
    patch.undo()
    assert not (folder / "site.key").exists()
    patch.setattr(keyfile, "_LOG_N", 10)
    held = create(folder, WORDS)
    assert load(folder, WORDS).identity == held.identity


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(KeyFileError, match="cannot write to"):
        create(tmp_path / "file" / "site", WORDS)
    with pytest.raises(KeyFileError, match="cannot write to"):
        create(tmp_path / "file", WORDS)


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="the superuser writes everywhere"
)
def test_a_folder_that_is_read_only(folder: Path) -> None:
    folder.mkdir(mode=0o500)
    with pytest.raises(KeyFileError, match="cannot write to"):
        create(folder, WORDS)


CALLS = ("os.open", "os.fsync", "os.replace", "files.sync_folder")


def crash_before(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Dies before call number ``at`` of those that make a file durable; returns the calls."""
    calls: list[str] = []

    def dying(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if len(calls) == at:
                raise Crash
            calls.append(name)
            return real(*arguments, **named)

        return call

    for name in CALLS:
        module, function = (os, name[3:]) if name.startswith("os.") else (files, name[6:])
        monkeypatch.setattr(module, function, dying(name, getattr(module, function)))
    return calls


def crashes_of(
    write: Write, folder: Path, prepare: Callable[[], object], check: Callable[[bool], None]
) -> int:
    """Let ``write`` die before each of its calls in turn; ``check`` is told whether it ended."""
    for at in range(100):
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            crash_before(patch, at)
            try:
                write(folder)
                done = True
            except Crash:
                done = False
        check(done)
        if done:
            return at
    raise AssertionError("it never ends")


def clear(folder: Path) -> None:
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()


def test_a_crash_while_a_key_is_made(folder: Path) -> None:
    """There is none, and the next attempt makes one; or it is whole and so is the public half."""

    def check(done: bool) -> None:
        if not (folder / "site.key").exists():
            assert not done
            create(folder, WORDS)
        held = load(folder, WORDS)
        first = (folder / "site.pub").read_text().splitlines()[0]
        assert bytes.fromhex(first) == held.identity.public.raw

    assert crashes_of(make_key, folder, lambda: clear(folder), check) >= 8


def test_a_crash_while_a_passphrase_changes(folder: Path) -> None:
    """One of the two passphrases opens it, always to the same secrets."""
    held: list[SiteSecrets] = []

    def prepare() -> None:
        clear(folder)
        held.append(create(folder, WORDS))

    def check(done: bool) -> None:
        opened = []
        for unlock in (WORDS, OTHER):
            try:
                opened.append(load(folder, unlock))
            except KeyFileError:
                continue
        assert [(o.identity, o.storage_key) for o in opened] == [
            (held[-1].identity, held[-1].storage_key)
        ]
        if done:
            load(folder, OTHER)

    assert crashes_of(change_key, folder, prepare, check) >= 8


def test_a_crash_while_a_ring_is_written(folder: Path) -> None:
    """The ring before or the ring after, never none, and no half one that stays in the way."""
    folder.mkdir()
    keys = FileKeys(folder / "ring", STORAGE)

    def check(done: bool) -> None:
        assert keys.read() in ((LATER,) if done else (RING, LATER))
        keys.write(RING)
        assert keys.read() == RING

    assert crashes_of(write_ring, folder, lambda: keys.write(RING), check) >= 4


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from fedbcs_secure.federation.filekeys import FileKeys
keys = FileKeys(Path(sys.argv[1]), bytes(range(32)))
ring = replace(keys.read(), uploaded=(8, 1))
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
keys.write(ring)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_process_that_is_killed_between_write_and_rename(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    # The other process writes, so this one must not hold the file yet.
    path.write_bytes(ring_bytes(tmp_path / "elsewhere" / "ring"))
    code = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode
    assert code == -signal.SIGKILL
    assert (tmp_path / "ring.tmp").exists()
    keys = FileKeys(path, STORAGE)
    assert keys.read() == RING
    keys.write(LATER)
    assert keys.read() == LATER
    assert not (tmp_path / "ring.tmp").exists()


def ring_bytes(path: Path) -> bytes:
    path.parent.mkdir()
    FileKeys(path, STORAGE).write(RING)
    return path.read_bytes()
