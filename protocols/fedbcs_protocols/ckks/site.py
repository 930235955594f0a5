"""A site's session in one encrypted sum."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.ckks.cipher import Encryptor
from fedbcs_protocols.ckks.messages import (
    AGGREGATE_SEQUENCE,
    UPLOAD_SEQUENCE,
    Announced,
    Encrypted,
    agree_frame,
    transcript,
)
from fedbcs_protocols.ckks.products import Scratch
from fedbcs_protocols.ckks.samples import SALT_BYTES, upload_secret
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.ckks.states import SITE, SiteEvent, SiteState, next_site_state
from fedbcs_protocols.ckks.tagging import batches_of, tagger_of
from fedbcs_protocols.derive import STREAM_KEY_BYTES
from fedbcs_protocols.errors import (
    BadSiteList,
    Inconsistent,
    LocalError,
    ProtocolError,
    Refused,
    UnexpectedFrame,
)
from fedbcs_protocols.group import SiteKeys
from fedbcs_protocols.identity import Identity, PublicIdentity
from fedbcs_protocols.ring import Words
from fedbcs_protocols.secagg.setting import Guard, Terms
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal


class CkksSession:
    """One site's part in one sum, two frames out::

        encrypt(vector)          its ciphertexts
        agree(announcement)      its signature on which aggregate all will decrypt

    What the combiner says at the end is read by :func:`fedbcs_protocols.ckks.outcome.open_sum`,
    which needs no session. The session is for one binding and is used once. ``transcript`` is what
    the site signed in *agree*, None before.

    Raises :class:`Refused` where this site's guard or keys forbid to go on, :class:`LocalError` for
    arguments that do not fit, and another :class:`PeerError` for a frame that is not the combiner's
    for this sum, or says what it must not.
    """

    def __init__(
        self,
        setting: CkksSetting,
        *,
        identity: Identity,
        name: str,
        guard: Guard,
        keys: SiteKeys,
        scratch: Scratch,
    ) -> None:
        if setting.roster.get(name) != identity.public:
            raise LocalError(f"the roster does not list {name!r} with this identity")
        admit(guard, setting.terms, setting.roster, name)
        self.state = SiteState.FRESH
        self.transcript: bytes | None = None
        self._salt = b""
        self._setting = setting
        self._identity = identity
        self._name = name
        self._guard = guard
        self._keys = keys
        self._scratch = scratch

    @property
    def binding(self) -> Binding:
        """What the session is for."""
        return self._setting.binding

    def encrypt(self, vector: Words) -> bytes:
        """The signed frame with ``vector``, (count,) uint32, in ciphertexts (CK-3)."""
        following = next_site_state(self.state, SiteEvent.ENCRYPT)
        setting = self._setting
        secret = self._keys.usable(setting.binding.round)
        if secret.key_id != setting.key_id:
            raise Refused("the sum is under another key than this site's last")
        # GK-5.2
        self._keys.keep(self._keys.ring.uploading(setting.binding))
        salt, noise_key = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(STREAM_KEY_BYTES)
        upload = upload_secret(secret.secret, secret.epoch, setting.binding, self._name, salt)
        cipher = Encryptor(setting.params, setting.binding, upload, noise_key, self._scratch)
        tagger = tagger_of(setting, secret.secret, secret.epoch)
        body = bytearray(Encrypted.head(setting, salt))
        try:
            for batch in batches_of(vector, setting, tagger, self._name):
                body += cipher.encrypt(batch)
        finally:
            self._scratch.write(b"")
        self._salt = salt
        self.state = following
        return self._seal(Kind.ENCRYPTED, UPLOAD_SEQUENCE, body)

    def agree(self, data: bytes) -> bytes:
        """The signed frame on the aggregate that the combiner announces (CK-4.3)."""
        setting = self._setting
        frame = open_frame(
            data,
            roster={COMBINER: setting.combiner},
            expect=setting.binding,
            limits={Kind.AGGREGATE: Announced.limit(setting.sites)},
        )
        expect_sequence(frame, AGGREGATE_SEQUENCE)
        if (self.state, SiteEvent.AGREE) not in SITE:
            raise UnexpectedFrame(
                COMBINER, f"an aggregate in state {self.state.name}: too early, or again"
            )
        try:
            announced = Announced.decode(frame.body, sender=COMBINER, sites=setting.sites)
            self._check_members(announced.members)
            # CK-4.3: nothing that this site sent opens under another.
            if announced.salts[setting.names.index(self._name)] != self._salt:
                raise Inconsistent(COMBINER, "it announces another salt for this site's upload")
        except ProtocolError:
            self.state = next_site_state(self.state, SiteEvent.LEAVE)
            raise
        # What is signed can be told: the next set is compared with it, whether it was or not.
        self._keys.keep(replace(self._keys.ring, survivors=announced.members))
        self.transcript = transcript(setting, announced)
        self.state = next_site_state(self.state, SiteEvent.AGREE)
        return seal(agree_frame(setting, self._name, self.transcript), self._identity)

    def _check_members(self, members: frozenset[int]) -> None:
        setting = self._setting
        # CK-4.3
        if setting.names.index(self._name) not in members:
            raise BadSiteList(COMBINER, "the aggregate leaves this site out")
        if len(members) < setting.terms.threshold:
            raise BadSiteList(
                COMBINER,
                f"an aggregate of {len(members)} sites, the threshold is {setting.terms.threshold}",
            )
        # GK-6.2, GK-6.3: nothing under a key that was given up, or before a person has looked.
        self._keys.ring.check_refusals()
        if self._keys.ring.find(setting.key_id) is None:
            raise Refused("this site has given up the key of this sum")
        names = [setting.names[place] for place in members]
        last = self._keys.ring.survivors
        previous = frozenset(setting.names[place] for place in last) if last else None
        self._guard.allow(names, setting.roster, self._name, previous)

    def _seal(self, kind: Kind, sequence: int, body: bytes | bytearray) -> bytes:
        return seal(Frame(kind, self._setting.binding, self._name, sequence, body), self._identity)

    def __repr__(self) -> str:
        return f"CkksSession({self._name}, round {self._setting.binding.round}, {self.state.name})"


def admit(guard: Guard, terms: Terms, roster: Mapping[str, PublicIdentity], name: str) -> None:
    """Return when site ``name`` may take part in encrypted sums (CK-0.3). Raises :class:`Refused`.

    Beside what the guard demands of any sum, every site must be verified: each gets the key.
    """
    guard.admit(terms, roster, name)
    unknown = [other for other in roster if not guard.knows(roster, other, name)]
    if unknown:
        raise Refused(
            f"{len(unknown)} site(s) of the roster are not verified here, and each would get the "
            "key that opens this site's ciphertexts; verify their fingerprints, or choose secagg"
        )
