"""What frames show of a ledger's head: its number, and a value only the site can make (DP-5.6).

An entry's hash is no secret: entries about policies and refusals can be guessed, and one ledger
serves several studies. The value is keyed, and is another one in each study.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from fedbcs_protocols.binding import encode_fields
from fedbcs_secure.privacy.chain import Head
from fedbcs_secure.privacy.releases import purpose_key

_LABEL = "fedbcs-secure shown head v1"


@dataclass(frozen=True)
class ShownHead:
    """The number of a ledger's last entry, and 32 bytes that stand for its hash in one study."""

    sequence: int
    value: bytes


@dataclass(frozen=True)
class HeadKey:
    """The key of what one site shows of its ledger's heads."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, storage_key: bytes) -> HeadKey:
        """Raises :class:`LedgerError` for a storage key of another length."""
        return cls(purpose_key(storage_key, "shown heads"))

    def shown(self, study: bytes, head: Head) -> ShownHead:
        """``study``: the digest that the study's frames are bound to (RO-1.1)."""
        # RO-7.1
        message = encode_fields(_LABEL, study, head.sequence, head.hash)
        return ShownHead(head.sequence, hmac.digest(self.key, message, "sha256"))
