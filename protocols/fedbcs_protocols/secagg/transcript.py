"""What the sites of a sum sign to each other, so that none can be shown something else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from fedbcs_protocols.binding import COMBINER, encode_fields
from fedbcs_protocols.derive import PROTOCOL_VERSION
from fedbcs_protocols.errors import BadSignature, BadSiteList, Inconsistent
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.sitesets import encode_set
from fedbcs_protocols.wire import Frame, Kind

CONSISTENCY_SEQUENCE = 3


def transcript(
    setting: Setting, key_list: bytes, sharers: frozenset[int], survivors: frozenset[int]
) -> bytes:
    """The digest over keys, draws, sharers, survivors and tag key of one attempt (SA-5.3)."""
    sites = setting.terms.sites
    return hashlib.sha256(
        encode_fields(
            "secagg transcript",
            PROTOCOL_VERSION,
            setting.binding.encode(),
            key_list,
            encode_set(sharers, sites),
            encode_set(survivors, sites),
            setting.key_id,
        )
    ).digest()


def consistency_frame(setting: Setting, name: str, digest: bytes) -> Frame:
    """The frame that site ``name`` signs; everybody can form it, so only signatures travel."""
    return Frame(Kind.CONSISTENCY, setting.binding, name, CONSISTENCY_SEQUENCE, digest)


def check_certificate(certificate: Certificate, setting: Setting) -> bytes:
    """The transcript that at least t survivors signed (SA-6.2), whatever key it names.

    Raises :class:`BadSiteList` for sets that do not fit and :class:`Inconsistent` naming a signer
    whose signature is not on this transcript.
    """
    threshold, signatures = setting.terms.threshold, certificate.signatures
    survivors = certificate.survivors
    if not signatures.keys() <= survivors <= certificate.sharers or len(signatures) < threshold:
        raise BadSiteList(
            COMBINER,
            f"a certificate of {len(signatures)} signers for {len(survivors)} survivors, "
            f"the threshold is {threshold}",
        )
    setting = replace(setting, key_id=certificate.key_id)
    digest = transcript(setting, certificate.key_list, certificate.sharers, survivors)
    check_signatures(signatures, setting, digest)
    return digest


def check_signatures(signatures: Mapping[int, bytes], setting: Setting, digest: bytes) -> None:
    """Return when each place's site signed ``digest``; :class:`Inconsistent` names who did not."""
    for place, signature in signatures.items():
        name = setting.names[place]
        message = consistency_frame(setting, name, digest).signed_message()
        try:
            setting.roster[name].verify(signature, message, signer=name)
        except BadSignature:
            raise Inconsistent(name, "its signature is not on what this site saw") from None
