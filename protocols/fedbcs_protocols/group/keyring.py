"""What a site keeps of its group's keys, and never forgets about their use (GK-5)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import Protocol

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import LocalError, MalformedFrame, Refused
from fedbcs_protocols.group.secret import KEY_ID_BYTES, NO_KEY, SECRET_BYTES, GroupSecret
from fedbcs_protocols.group.standing import Standing, Status
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes

MAX_HELD = 18
"""Secrets that a site keeps: the current one, and those that a site that was away may need."""
MAX_REFUSALS = 3
"""After so many refused sums a person must look before the site goes on (GK-6.3)."""

_MAGIC = b"FBKR"
_VERSION = 1
_HEAD = struct.Struct(">4sB32sHIBBIHIH32sBB")
_SECRET = struct.Struct(f">II{SECRET_BYTES}s")
_DIGEST_BYTES = 32
_NEVER = (0, 0)


@dataclass(frozen=True)
class KeyRing:
    """A site's keys in one study, and what it did with them.

    ``epoch`` is the last that the site knows of, ``burned`` whether that one is given up;
    ``secrets`` ascend by epoch. ``uploaded`` and ``opened`` are (round, attempt + 1) of the last
    encrypted upload and of the last aggregate that was decrypted, whose transcript is ``read``.
    ``refusals`` counts refused sums since a person last looked; ``given_up`` are the names of the
    last keys that ended so, ``survivors`` the places of the sites in the last sum under ``ckks``.
    """

    study_digest: bytes
    sites: int
    epoch: int = 0
    burned: bool = False
    secrets: tuple[GroupSecret, ...] = ()
    uploaded: tuple[int, int] = _NEVER
    opened: tuple[int, int] = _NEVER
    read: bytes = bytes(_DIGEST_BYTES)
    refusals: int = 0
    given_up: tuple[bytes, ...] = ()
    survivors: frozenset[int] = frozenset()

    @property
    def current(self) -> GroupSecret | None:
        """The secret of the last epoch; None if the site does not have it."""
        held = bool(self.secrets) and self.secrets[-1].epoch == self.epoch
        return self.secrets[-1] if held and not self.burned else None

    def find(self, key_id: bytes) -> GroupSecret | None:
        """The secret with this name, if the site has it."""
        return next((s for s in self.secrets if s.key_id == key_id), None)

    def standing(self, exchange: bytes, round: int) -> Standing:
        """The site's word on its keys in this round (GK-2)."""
        current = self.current
        if current and current.began > round:
            # A helper's lie; said as it is, the site would be shut out.
            current = None
        status = Status.HOLDS if current else Status.BURNED if self.burned else Status.NONE
        if status is Status.NONE and self.epoch:
            # It knows of an epoch whose key it lost: nobody should go on with that one.
            status = Status.BURNED
        last = max(self.uploaded, self.opened)
        attempt = last[1] if last[0] == round else 0
        return Standing(
            status=status,
            epoch=self.epoch,
            began=current.began if current else 0,
            attempt=attempt,
            key_id=current.key_id if current else NO_KEY,
            members=current.members if current else frozenset(),
            exchange=exchange,
        )

    def taking(self, secret: GroupSecret) -> KeyRing:
        """The ring with a secret that was dealt. Epochs only rise (GK-3.6).

        Raises :class:`Refused` for an earlier epoch, another secret of the same, or a burned one.
        """
        current = self.current
        if secret.epoch < self.epoch or (secret.epoch == self.epoch and self.burned):
            raise Refused(
                f"epoch {secret.epoch} of the group's key is over here; this site is at "
                f"{self.epoch}"
            )
        if current and secret.epoch == current.epoch and secret.secret != current.secret:
            raise Refused(f"epoch {secret.epoch} has another key here")
        if secret.key_id in self.given_up:
            raise Refused("this site has given that key up")
        kept = tuple(s for s in self.secrets if s.epoch < secret.epoch)
        secrets = (*kept, secret)[-MAX_HELD:]
        return replace(self, epoch=secret.epoch, burned=False, secrets=secrets)

    def joining(self, secrets: tuple[GroupSecret, ...], epoch: int) -> KeyRing:
        """The ring of a site that was away, with what another one gave it (GK-4)."""
        if epoch < self.epoch:
            raise Refused(f"the keys given are of epoch {epoch}, this site is at {self.epoch}")
        if len({s.epoch for s in secrets}) < len(secrets):
            raise Refused("two keys of one epoch were given")
        mine = {s.epoch: s for s in self.secrets}
        for secret in secrets:
            # GK-4.4
            if secret.key_id in self.given_up:
                continue
            # A key that this site dealt and nobody took gives way to the one that the others have.
            mine[secret.epoch] = secret
        burned = self.burned and epoch == self.epoch
        ordered = tuple(mine[e] for e in sorted(mine))[-MAX_HELD:]
        return replace(self, epoch=epoch, burned=burned, secrets=ordered)

    def uploading(self, binding: Binding) -> KeyRing:
        """The ring to write before an upload is encrypted (GK-5.2). Raises :class:`Refused`."""
        step = self._step(binding)
        if step <= max(self.uploaded, self.opened):
            raise Refused(
                f"round {binding.round}, attempt {binding.attempt} is not after what this site "
                "has sent or read already"
            )
        return replace(self, uploaded=step)

    def opening(self, binding: Binding, transcript: bytes) -> KeyRing:
        """The ring to write before an aggregate is decrypted (GK-6.1). Raises :class:`Refused`.

        The same aggregate may be read again, since it says the same again.
        """
        step = self._step(binding)
        if step < self.opened or (step == self.opened and transcript != self.read):
            raise Refused(
                f"this site has read an aggregate of round {self.opened[0]}, attempt "
                f"{self.opened[1] - 1}, and reads one for each attempt"
            )
        return replace(self, opened=step, read=transcript)

    def refusing(self, key_id: bytes) -> KeyRing:
        """The ring after a sum was refused: its key is burned, the refusal counted (GK-6.2)."""
        gone = self.find(key_id)
        kept = tuple(s for s in self.secrets if s.key_id != key_id)
        burned = self.burned or (gone is not None and gone.epoch == self.epoch)
        return replace(
            self,
            secrets=kept,
            burned=burned,
            refusals=min(self.refusals + 1, 255),
            given_up=(*self.given_up, key_id)[-MAX_HELD:],
        )

    def approved(self) -> KeyRing:
        """The ring after a person looked into the refusals and lets the site go on (GK-6.3)."""
        return replace(self, refusals=0)

    def check_refusals(self) -> None:
        """Raise :class:`Refused` when a person has to look first (GK-6.3)."""
        if self.refusals >= MAX_REFUSALS:
            raise Refused(
                f"this site has refused {self.refusals} sums: the server or a site sends what no "
                "honest one does. The study stops here until a person has looked into it"
            )

    def _step(self, binding: Binding) -> tuple[int, int]:
        self.check_refusals()
        if binding.attempt >= MAX_ATTEMPTS:
            raise Refused(f"more than {MAX_ATTEMPTS} attempts at round {binding.round}")
        return binding.round, binding.attempt + 1

    def encode(self) -> bytes:
        """The canonical bytes. They hold the secrets: for an encrypted file and nothing else."""
        head = _HEAD.pack(
            _MAGIC, _VERSION, self.study_digest, self.sites, self.epoch, self.burned,
            len(self.secrets), *self.uploaded, *self.opened, self.read, self.refusals,
            len(self.given_up),
        )  # fmt: skip
        parts = [head, encode_set(self.survivors, self.sites), *self.given_up]
        for s in self.secrets:
            members = encode_set(s.members, self.sites)
            parts.append(_SECRET.pack(s.epoch, s.began, s.secret) + members)
        data = b"".join(parts)
        return data + hashlib.sha256(data).digest()

    @classmethod
    def decode(cls, data: bytes) -> KeyRing:
        """The inverse of :meth:`encode`. Raises :class:`LocalError` for any other bytes."""
        data, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if len(data) < _HEAD.size or hashlib.sha256(data).digest() != digest:
            raise LocalError("this is no key ring, or a damaged one")
        magic, version, study, sites, epoch, burned, count, *rest, gone = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != _VERSION or burned > 1 or max(count, gone) > MAX_HELD:
            raise LocalError(f"this is no version {_VERSION} key ring")
        width, names = _SECRET.size + set_bytes(sites), _HEAD.size + set_bytes(sites)
        start = names + gone * KEY_ID_BYTES
        if len(data) != start + count * width:
            raise LocalError("this is no key ring: of another length than it says")
        given_up = tuple(data[at : at + KEY_ID_BYTES] for at in range(names, start, KEY_ID_BYTES))
        secrets = []
        try:
            survivors = decode_set(data[_HEAD.size : names], sites, sender="key ring")
            for at in range(start, len(data), width):
                number, began, secret = _SECRET.unpack_from(data, at)
                members = decode_set(data[at + _SECRET.size : at + width], sites, sender="key ring")
                secrets.append(GroupSecret(number, began, members, secret))
        except MalformedFrame as error:
            raise LocalError(f"this is no key ring: {error.what}") from None
        numbers = [s.epoch for s in secrets]
        if numbers != sorted(set(numbers)) or any(n > epoch for n in numbers):
            raise LocalError("this is no key ring: its epochs do not rise")
        up_round, up_attempt, open_round, open_attempt, read, refusals = rest
        return cls(
            study, sites, epoch, bool(burned), tuple(secrets),
            (up_round, up_attempt), (open_round, open_attempt), read, refusals,
            given_up, survivors,
        )  # fmt: skip


class KeyKeeper(Protocol):
    """Where a site keeps the keys of one study."""

    def read(self) -> KeyRing | None:
        """What was written last; None if nothing ever was."""
        ...

    def write(self, ring: KeyRing) -> None:
        """Replace it; on durable storage, encrypted, when this returns."""
        ...


class MemoryKeys:
    """Forgets when the process ends: for tests and for simulations, which play all sites."""

    def __init__(self) -> None:
        self._ring: KeyRing | None = None

    def read(self) -> KeyRing | None:
        return self._ring

    def write(self, ring: KeyRing) -> None:
        self._ring = ring
