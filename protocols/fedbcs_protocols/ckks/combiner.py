"""The combiner's session in one encrypted sum. It has no key, and learns no value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.ckks.messages import (
    AGGREGATE_SEQUENCE,
    AGREE_SEQUENCE,
    DIGEST_BYTES,
    SUM_SEQUENCE,
    UPLOAD_SEQUENCE,
    Agreement,
    Announced,
    Encrypted,
    aggregate_digest,
    encode_sum,
    transcript,
)
from fedbcs_protocols.ckks.packing import Polynomials
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.ckks.states import CombinerEvent, CombinerState, next_combiner_state
from fedbcs_protocols.ckks.words import add_residues, pack_words, unpack_words
from fedbcs_protocols.errors import Inconsistent, LocalError, TooFewSites, UnexpectedFrame
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import Frame, Kind, expect_sequence, open_frame, seal


class CkksCombiner:
    """The combiner's part in one sum: the frames of a stage in, the stage closed, frames out.

    :meth:`receive` takes the frames of the current stage in any order; :meth:`close` ends it with
    those that came, and ``requests`` are the frames to send then. After two stages
    :meth:`sum_frame` tells the sum. Ciphertexts are added as they come, chunk by chunk, so memory
    does not grow with the number of sites.

    A frame that does not fit raises a :class:`PeerError` naming its sender and changes nothing. Too
    few sites at the end of a stage raise :class:`TooFewSites` and end the attempt.
    """

    def __init__(self, setting: CkksSetting, *, identity: Identity) -> None:
        if identity.public != setting.combiner:
            raise LocalError("the identity is not the combiner's of this setting")
        self.state = CombinerState.ENCRYPTED
        self.requests: Mapping[str, bytes] = {}
        self._setting = setting
        self._identity = identity
        self._expected = frozenset(range(setting.sites))
        self._came: dict[int, bytes] = {}
        self._total: Polynomials | None = None
        self._announced = Announced({}, bytes(DIGEST_BYTES))
        self._transcript = b""
        self._aggregate = b""
        self._signatures: Mapping[int, bytes] = {}

    @property
    def binding(self) -> Binding:
        """What the session is for."""
        return self._setting.binding

    @property
    def expected(self) -> tuple[str, ...]:
        """The sites whose frame of this stage has not come, in the order of the roster."""
        return tuple(self._setting.names[p] for p in sorted(self._expected - self._came.keys()))

    @property
    def survivors(self) -> tuple[str, ...]:
        """The sites in the sum, once the ciphertexts are complete."""
        return tuple(self._setting.names[place] for place in sorted(self._announced.members))

    def receive(self, data: Buffer, *, line: str | None = None) -> None:
        """Take one site's frame of this stage, on that site's ``line`` only (RO-2.5)."""
        next_combiner_state(self.state, CombinerEvent.FRAME)
        setting = self._setting
        uploading = self.state is CombinerState.ENCRYPTED
        kind = Kind.ENCRYPTED if uploading else Kind.CONSISTENCY
        limit = Encrypted.length(setting) if uploading else DIGEST_BYTES
        roster = setting.roster if line is None else {line: setting.roster[line]}
        frame = open_frame(data, roster=roster, expect=setting.binding, limits={kind: limit})
        expect_sequence(frame, UPLOAD_SEQUENCE if uploading else AGREE_SEQUENCE)
        place = setting.names.index(frame.sender)
        if place not in self._expected:
            raise UnexpectedFrame(frame.sender, "it has dropped out of this attempt")
        if place in self._came:
            raise UnexpectedFrame(frame.sender, "its frame of this stage comes twice")
        if uploading:
            message = Encrypted.decode(frame.body, sender=frame.sender, setting=setting)
            self._add(message, frame.sender)
            self._came[place] = message.salt
        else:
            # CK-4.4
            if bytes(frame.body) != self._transcript:
                raise Inconsistent(frame.sender, "it signed another aggregate")
            self._came[place] = frame.signature

    def close(self) -> None:
        """End the stage. Raises :class:`TooFewSites`; after the end, :class:`LocalError`."""
        following = next_combiner_state(self.state, CombinerEvent.CLOSE)
        came, threshold = frozenset(self._came), self._setting.terms.threshold
        if len(came) < threshold:
            stage = self.state.name.lower()
            self.state = next_combiner_state(self.state, CombinerEvent.TOO_FEW)
            self.requests, self._expected, self._total = {}, frozenset(), None
            raise TooFewSites(
                f"{len(came)} sites are left at the end of stage {stage!r}, the threshold is "
                f"{threshold}"
            )
        if self.state is CombinerState.ENCRYPTED:
            self._announce(dict(self._came))
        else:
            self._signatures, self.requests, self._expected = dict(self._came), {}, frozenset()
        self._came = {}
        self.state = following

    def sum_frame(self) -> bytes:
        """The signed frame that tells all sites the encrypted sum (CK-4.5)."""
        if self.state is not CombinerState.COMPLETE:
            raise LocalError("the sum is not complete")
        agreement = Agreement(self._setting.key_id, self._announced, self._signatures)
        body = encode_sum(agreement, self._aggregate, self._setting)
        return self._seal(Kind.SUM, SUM_SEQUENCE, body)

    def _add(self, message: Encrypted, sender: str) -> None:
        one = np.empty(DEGREE, np.uint64)
        # All of it is checked before any of it is added.
        for ciphertext in message.ciphertexts():
            unpack_words(ciphertext, sender, one)
        if self._total is None:
            self._total = np.zeros((self._setting.chunks, DEGREE), np.uint64)
        for total, ciphertext in zip(self._total, message.ciphertexts(), strict=True):
            add_residues(total, unpack_words(ciphertext, sender, one))

    def _announce(self, salts: Mapping[int, bytes]) -> None:
        setting = self._setting
        if self._total is None:
            raise LocalError("nothing was added")
        self._aggregate = b"".join(map(pack_words, self._total))
        self._total = None
        self._announced = Announced(salts, aggregate_digest(self._aggregate))
        self._transcript = transcript(setting, self._announced)
        request = self._seal(
            Kind.AGGREGATE, AGGREGATE_SEQUENCE, self._announced.encode(setting.sites)
        )
        self._expected = frozenset(salts)
        self.requests = {setting.names[place]: request for place in sorted(salts)}

    def _seal(self, kind: Kind, sequence: int, body: bytes) -> bytes:
        return seal(Frame(kind, self._setting.binding, COMBINER, sequence, body), self._identity)

    def __repr__(self) -> str:
        return f"CkksCombiner(round {self._setting.binding.round}, {self.state.name})"
