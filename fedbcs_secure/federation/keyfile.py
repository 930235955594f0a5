"""A site's secrets on its disk, encrypted: its identity, and the keys of its groups.

``site.key`` holds the Ed25519 identity and a storage key, encrypted under a passphrase (scrypt) or
under a random key that the operating system's keyring keeps. The storage key encrypts everything
else, such as the key ring of each study (``filekeys.FileKeys``). All of a fixed length::

    "FBSK"  version 1  method 1  log2(N) 1  r 1  p 1  salt 16  nonce 12  ciphertext 80
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import struct
import unicodedata
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedbcs_protocols.identity import Identity
from fedbcs_secure.errors import KeyFileError
from fedbcs_secure.federation.locks import hold
from fedbcs_secure.files import write_durably

KEY_NAME, PUBLIC_NAME = "site.key", "site.pub"
MIN_PASSPHRASE = 12
"""Characters. A guess costs 128 MiB and about half a second."""

_MAGIC, _VERSION = b"FBSK", 1
_HEAD = struct.Struct(">4sBBBBB16s12s")
_SECRET_BYTES = 64
_FILE_BYTES = _HEAD.size + _SECRET_BYTES + 16
_LOG_N, _R, _P = 17, 8, 1
_MAX_LOG_N = 20
_NONCE_BYTES = 12


class Method(IntEnum):
    """What a key file is encrypted under."""

    PASSPHRASE = 1
    KEYRING = 2


class Unlock(Protocol):
    """Where the key that opens a key file comes from."""

    method: Method

    def key(self, salt: bytes, cost: tuple[int, int, int]) -> bytes:
        """32 bytes; ``cost`` is log2(N), r, p of scrypt. Raises :class:`KeyFileError`."""
        ...


@dataclass(frozen=True)
class Passphrase:
    """A person's, or that of a file for a machine that starts without one."""

    text: str = field(repr=False)
    method = Method.PASSPHRASE

    def __post_init__(self) -> None:
        if len(self.text) < MIN_PASSPHRASE:
            raise KeyFileError(
                f"a passphrase has at least {MIN_PASSPHRASE} characters: a few random words"
            )

    def key(self, salt: bytes, cost: tuple[int, int, int]) -> bytes:
        log_n, r, p = cost
        # RFC 8265: keyboards write an accented letter as one character or as two.
        text = unicodedata.normalize("NFC", self.text)
        return Scrypt(salt, 32, 1 << log_n, r, p).derive(text.encode())


@dataclass(frozen=True)
class Keyring:
    """The operating system's keyring (package ``keyring``): unlocked with the user's session."""

    method = Method.KEYRING
    service = "fedbcs-secure"

    def key(self, salt: bytes, cost: tuple[int, int, int]) -> bytes:
        library = self._library()
        try:
            stored = library.get_password(self.service, salt.hex())
        except library.errors.KeyringError:
            raise KeyFileError("the system's keyring did not give the key: is it locked?") from None
        if stored is None:
            raise KeyFileError(
                "the system's keyring has no key for this file: it belongs to another user or "
                "machine, or the keyring was cleared"
            )
        if re.fullmatch("[0-9a-f]{64}", stored) is None:
            raise KeyFileError("what the system's keyring has for this file is no key")
        return bytes.fromhex(stored)

    def create(self, salt: bytes) -> None:
        """Put a new random key for the file with this salt into the keyring."""
        library = self._library()
        try:
            library.set_password(self.service, salt.hex(), secrets.token_hex(32))
        except library.errors.KeyringError:
            raise KeyFileError("the system's keyring did not take a key: is it locked?") from None

    @staticmethod
    def _library() -> Any:
        try:
            import keyring
            import keyring.errors
        except ImportError:
            raise KeyFileError(
                'this needs the package keyring: pip install "fedbcs-secure[keyring]"'
            ) from None
        if keyring.get_keyring().priority < 1:
            raise KeyFileError(
                "this machine has no keyring that can be trusted (a server often has none): use a "
                "passphrase, or a passphrase file"
            )
        return keyring


@dataclass(frozen=True)
class SiteSecrets:
    """What a site's key file holds. The representation shows the public half only."""

    identity: Identity
    storage_key: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SiteSecrets:
        """New ones from the operating system's generator."""
        return cls(Identity.generate(), secrets.token_bytes(32))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a site's secrets are not pickled")


def create(folder: Path, unlock: Unlock) -> SiteSecrets:
    """New secrets in ``folder``; only this user can read the files.

    Raises :class:`KeyFileError` if there are any already: a site that changes its identity drops
    out of every study.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Of two that begin at once, one finds the other's.
        hold(folder / KEY_NAME, "the key", "wait until it has made its key")
        refuse_another(folder)
        made = SiteSecrets.generate()
        _write(folder, made, unlock)
    except OSError as error:
        raise KeyFileError(f"cannot write to {folder}: {error.strerror}") from None
    return made


def refuse_another(folder: Path) -> None:
    """Raises :class:`KeyFileError` if there is a key file in ``folder``."""
    path = folder / KEY_NAME
    if path.exists():
        raise KeyFileError(
            f"{path} exists; with another identity the site could not go on with its studies. "
            "Choose another folder, or move the file away if it is no longer needed"
        )


def load(folder: Path, unlock: Unlock) -> SiteSecrets:
    """The secrets in ``folder``. Raises :class:`KeyFileError`."""
    path = folder / KEY_NAME
    data = _read(path)
    magic, version, method, log_n, r, p, salt, nonce = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or method not in (1, 2):
        raise KeyFileError(f"{path} is no version {_VERSION} key file")
    if method != unlock.method:
        kind = Method(method).name.lower()
        raise KeyFileError(
            f"{path} is encrypted under a {kind}, not a {unlock.method.name.lower()}"
        )
    if not (10 <= log_n <= _MAX_LOG_N and 1 <= r <= 16 and 1 <= p <= 4):
        raise KeyFileError(f"{path} asks for an impossible amount of work; it is damaged")
    key = unlock.key(salt, (log_n, r, p))
    try:
        plain = ChaCha20Poly1305(key).decrypt(nonce, data[_HEAD.size :], data[: _HEAD.size])
    except InvalidTag:
        raise KeyFileError(f"{path} does not open: a wrong passphrase, or a damaged file") from None
    return SiteSecrets(Identity.from_secret_bytes(plain[:32]), plain[32:])


def method_of(folder: Path) -> Method:
    """What the key file in ``folder`` is encrypted under. Raises :class:`KeyFileError`."""
    method = _read(folder / KEY_NAME)[5]
    if method not in (1, 2):
        raise KeyFileError(f"{folder / KEY_NAME} is no version {_VERSION} key file")
    return Method(method)


def change(folder: Path, old: Unlock, new: Unlock) -> SiteSecrets:
    """Encrypt the same secrets under something else, and write the public half again.

    Raises :class:`KeyFileError`.
    """
    hold(folder / KEY_NAME, "the key", "wait until it is done")
    held = load(folder, old)
    try:
        _write(folder, held, new)
    except OSError as error:
        raise KeyFileError(f"cannot write to {folder}: {error.strerror}") from None
    return held


def passphrase_in(path: Path, *, guarded: bool = False) -> Passphrase:
    """The first line of a file that only its owner can read. Raises :class:`KeyFileError`.

    ``guarded``: the folder keeps others out, whatever the file's own mode.
    """
    try:
        mode = path.stat().st_mode
        if os.name != "nt" and not guarded and stat.S_IMODE(mode) & 0o077:
            raise KeyFileError(f"{path} can be read by others: chmod 600 {path}")
        with path.open(encoding="utf-8") as stream:
            line = stream.readline(4096)
    except OSError as error:
        raise KeyFileError(f"cannot read the passphrase in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"the passphrase in {path} is no text in UTF-8") from None
    return Passphrase(line.rstrip("\r\n"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyFileError(
            f"{path} does not exist; fedbcs-secure keygen makes a site's key"
        ) from None
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from None
    if len(data) != _FILE_BYTES:
        raise KeyFileError(f"{path} is no key file: {len(data)} bytes, not {_FILE_BYTES}")
    return data


def _write(folder: Path, held: SiteSecrets, unlock: Unlock) -> None:
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(_NONCE_BYTES)
    if isinstance(unlock, Keyring):
        unlock.create(salt)
    cost = (_LOG_N, _R, _P)
    head = _HEAD.pack(_MAGIC, _VERSION, unlock.method, *cost, salt, nonce)
    plain = held.identity.secret_bytes() + held.storage_key
    sealed = ChaCha20Poly1305(unlock.key(salt, cost)).encrypt(nonce, plain, head)
    public = held.identity.public
    text = f"{public.raw.hex()}\n# fingerprint, to be read aloud: {public.fingerprint}\n"
    # The secret half last: where it is, the other is too, whenever a crash comes.
    write_durably(folder / PUBLIC_NAME, text.encode())
    write_durably(folder / KEY_NAME, head + sealed, mode=0o600)
