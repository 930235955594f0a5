"""What a finished sum tells a site: who is in it, proven, and the numbers, as the combiner says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import Inconsistent
from fedbcs_protocols.messages import SumBroadcast
from fedbcs_protocols.ring import Buffer, Words, unpack
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.secagg.transcript import check_certificate
from fedbcs_protocols.wire import Kind, decode, expect_sequence, open_frame

SUM_SEQUENCE = 4


@dataclass(frozen=True, eq=False)
class Outcome:
    """The (count,) uint32 ``total`` over ``survivors``, names in the order of the roster.

    ``key_id`` names the key with which its tags are checked (``tags``), zeros if it has none.
    """

    survivors: tuple[str, ...]
    total: Words = field(repr=False)
    attempt: int
    transcript: bytes
    key_id: bytes


def sum_limit(setting: Setting) -> int:
    """The longest body of a *sum* frame, in bytes."""
    return Certificate.limit(setting.terms.sites) + setting.shape.body_bytes


def open_sum(data: Buffer, setting: Setting, seen: Mapping[int, bytes]) -> Outcome:
    """The outcome in the combiner's *sum* frame (SA-7.3), for any attempt of ``setting``'s binding.

    ``seen`` maps the attempts of this round in which this site signed to the transcript that it
    signed: ``{0: session.transcript}``, or ``{}`` if it signed nothing. Raises a
    :class:`PeerError` for anything but a sum with a right certificate over it.
    """
    limits = {Kind.SUM: sum_limit(setting)}
    # The attempt is the combiner's word, which the signatures in the certificate confirm.
    attempt = decode(data, limits).binding.attempt
    setting = replace(setting, binding=replace(setting.binding, attempt=attempt))
    frame = open_frame(
        data, roster={COMBINER: setting.combiner}, expect=setting.binding, limits=limits
    )
    expect_sequence(frame, SUM_SEQUENCE)
    certificate, end = Certificate.decode_from(
        frame.body, sender=COMBINER, sites=setting.terms.sites
    )
    digest = check_certificate(certificate, setting)
    if seen.get(attempt, digest) != digest:
        raise Inconsistent(COMBINER, "the sum is not over the sites that this site signed for")
    message = SumBroadcast.decode(
        memoryview(frame.body)[end:], sender=COMBINER, shape=setting.shape
    )
    return Outcome(
        survivors=tuple(setting.names[place] for place in sorted(certificate.survivors)),
        total=unpack(message.packed, setting.count, setting.bits),
        attempt=attempt,
        transcript=digest,
        key_id=certificate.key_id,
    )
