"""A state that the combiner keeps for a site that lost its own: sealed, and proven (RO-6).

A site seals its state under the group's key; the combiner can neither read nor change it. The
*ready* frames of at least a threshold of sites, bound to the state's digest, prove that this is the
state that the others are at.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedbcs_protocols.binding import COMBINER, Binding, encode_fields
from fedbcs_protocols.derive import PROTOCOL_VERSION, study_key
from fedbcs_protocols.errors import BadKeyList, Inconsistent, MalformedFrame, Refused
from fedbcs_protocols.group import Group, KeyRing
from fedbcs_protocols.group.messages import present_limit
from fedbcs_protocols.group.secret import KEY_ID_BYTES
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import MAX_OVERHEAD_BYTES, Frame, Kind, expect_sequence, open_frame
from fedbcs_secure.federation.state import GlobalState

CHECKPOINT_SEQUENCE, SEALED_SEQUENCE, RESTORE_SEQUENCE = 3, 3, 4

_LABEL = "sealed state"
_SALT_BYTES, _TAG_BYTES = 32, 16
_NONCE = bytes(12)
"""A key encrypts one message, so the nonce need not change."""
_HEAD_BYTES = KEY_ID_BYTES + _SALT_BYTES
_LENGTH = struct.Struct(">I")


def sealed_limit(state: GlobalState) -> int:
    """The longest body of a *sealed state*: one of this study may have prototypes or not yet.

    Twice what a state of the study's tensors takes, and a megabyte for the rest.
    """
    return _HEAD_BYTES + _TAG_BYTES + 2 * state.weights.nbytes + 2 * state.velocity.nbytes + 2**20


def seal_state(state: GlobalState, ring: KeyRing, control: Binding, name: str) -> bytes:
    """The body of site ``name``'s *sealed state* frame (RO-6.2). Raises :class:`Refused`."""
    # GK-6.3
    ring.check_refusals()
    current = ring.current
    if current is None:
        raise Refused("this site has no key of the group's to seal a state with")
    salt = secrets.token_bytes(_SALT_BYTES)
    key = study_key(current.secret, _LABEL, control.study_digest, current.epoch, name, salt)
    sealed = ChaCha20Poly1305(key).encrypt(_NONCE, state.encode(), _associated(control, name))
    return b"".join((current.key_id, salt, sealed))


def unseal_state(body: Buffer, ring: KeyRing, control: Binding, name: str) -> GlobalState:
    """The state in site ``name``'s frame, if it is the one that ``control`` names (RO-6.4).

    Raises :class:`Refused` without the key and :class:`Inconsistent` for anything but that state.
    """
    ring.check_refusals()
    view = memoryview(body)
    if len(view) < _HEAD_BYTES + _TAG_BYTES:
        raise MalformedFrame(name, f"a sealed state of {len(view)} bytes")
    secret = ring.find(bytes(view[:KEY_ID_BYTES]))
    if secret is None:
        raise Refused("this site does not have the key that the state is sealed under")
    salt = bytes(view[KEY_ID_BYTES:_HEAD_BYTES])
    key = study_key(secret.secret, _LABEL, control.study_digest, secret.epoch, name, salt)
    try:
        plain = ChaCha20Poly1305(key).decrypt(
            _NONCE, view[_HEAD_BYTES:], _associated(control, name)
        )
        return GlobalState.decode(plain, digest=control.state_digest)
    except (InvalidTag, ValueError):
        raise Inconsistent(name, "what it sealed is not the state that the sites are at") from None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The list of *ready* frames of one state (GK-3.1), and a site's signed *sealed state*."""

    present: bytes
    sealed: bytes

    def encode(self) -> bytes:
        return b"".join((_LENGTH.pack(len(self.present)), self.present, self.sealed))

    @staticmethod
    def limit(sites: int, state: GlobalState, annex_bytes: int = 0) -> int:
        """The longest body, in bytes."""
        longest = MAX_OVERHEAD_BYTES + sealed_limit(state)
        return _LENGTH.size + present_limit(sites, annex_bytes) + longest

    @classmethod
    def decode(cls, body: Buffer, *, sites: int, annex_bytes: int = 0) -> Checkpoint:
        """The inverse; raises :class:`MalformedFrame`."""
        view = memoryview(body)
        if len(view) < _LENGTH.size:
            raise MalformedFrame(COMBINER, f"a checkpoint of {len(view)} bytes")
        (length,) = _LENGTH.unpack_from(view)
        if length > present_limit(sites, annex_bytes) or _LENGTH.size + length > len(view):
            raise MalformedFrame(COMBINER, "a checkpoint whose list has an impossible length")
        end = _LENGTH.size + length
        return cls(bytes(view[_LENGTH.size : end]), bytes(view[end:]))

    def open(
        self, group: Group, ring: KeyRing, control: Binding, state: GlobalState
    ) -> GlobalState:
        """The state in it, checked against the site's own ``state`` (RO-6.4).

        Raises a :class:`PeerError`, or :class:`Refused` for one that is not later than its own.
        """
        if control.round <= state.round:
            raise Refused(
                f"a checkpoint of round {control.round}, and this site is at {state.round}"
            )
        # RO-6.3: at least a threshold of sites have signed that they are at this state.
        listed = group.read_present(self.present, control)
        frame = self._sealed_frame(group, control, state)
        if group.names.index(frame.sender) not in listed:
            raise BadKeyList(COMBINER, "the state was sealed by a site that is not at it")
        return unseal_state(frame.body, ring, control, frame.sender)

    def _sealed_frame(self, group: Group, control: Binding, state: GlobalState) -> Frame:
        frame = open_frame(
            self.sealed,
            roster=group.roster,
            expect=control,
            limits={Kind.SEALED_STATE: sealed_limit(state)},
        )
        expect_sequence(frame, SEALED_SEQUENCE)
        return frame


def _associated(control: Binding, name: str) -> bytes:
    return encode_fields(_LABEL, PROTOCOL_VERSION, control.encode(), name)
