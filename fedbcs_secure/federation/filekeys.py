"""The keys of a study's group on a site's disk, encrypted under the site's storage key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.group import KeyRing
from fedbcs_secure.errors import KeyFileError
from fedbcs_secure.federation.locks import hold
from fedbcs_secure.files import write_durably

_NONCE_BYTES = 12
_LONGEST_RING_BYTES = 1 << 14


@dataclass(frozen=True)
class FileKeys:
    """A :class:`fedbcs_protocols.group.KeyKeeper`: one encrypted file a study.

    It is for one process at a time. A file that was restored from a backup forgets what came after:
    keep it where backups are not restored over it. Raises :class:`KeyFileError` for a file that
    does not open; then a person decides, since without it the site could decrypt twice.
    """

    path: Path
    storage_key: bytes = field(repr=False)

    def read(self) -> KeyRing | None:
        self._hold()
        try:
            with self.path.open("rb") as stream:
                data = stream.read(_LONGEST_RING_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyFileError(f"cannot read keys {self.path}: {error.strerror}") from None
        try:
            if not _NONCE_BYTES <= len(data) <= _LONGEST_RING_BYTES:
                raise LocalError("too short or too long")
            plain = ChaCha20Poly1305(self.storage_key).decrypt(
                data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._associated()
            )
            return KeyRing.decode(plain)
        except (InvalidTag, LocalError):
            raise KeyFileError(
                f"{self.path} does not open: another site's or study's, or damaged. It says what "
                "this site has decrypted; take no part until that is clear"
            ) from None

    def write(self, ring: KeyRing) -> None:
        self._hold()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = ChaCha20Poly1305(self.storage_key).encrypt(
            nonce, ring.encode(), self._associated()
        )
        try:
            write_durably(self.path, nonce + sealed, mode=0o600)
        except OSError as error:
            raise KeyFileError(
                f"cannot write keys {self.path}: {error.strerror}; without them the site takes no "
                "part"
            ) from None

    def _hold(self) -> None:
        hold(self.path, "keys", "two could decrypt under one key")

    def _associated(self) -> bytes:
        return b"fedbcs-secure key ring v1\x00" + self.path.name.encode()
