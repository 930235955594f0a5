"""Reading a finished sum: one decryption, all checks, one bit if it fails (CK-5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.messages import (
    SUM_SEQUENCE,
    Agreement,
    aggregate_digest,
    ciphertexts_of,
    decode_sum,
    sum_limit,
)
from fedbcs_protocols.ckks.packing import check_noise, unpack
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.products import BATCH, Scratch
from fedbcs_protocols.ckks.samples import upload_secret
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.ckks.tagging import Gathered, tagger_of
from fedbcs_protocols.ckks.words import unpack_words
from fedbcs_protocols.errors import Inconsistent, PeerError, Refused
from fedbcs_protocols.group import GroupSecret, SiteKeys
from fedbcs_protocols.ring import Buffer, Words
from fedbcs_protocols.wire import Kind, decode, expect_sequence, open_frame


@dataclass(frozen=True, eq=False)
class Outcome:
    """The (count,) uint32 ``total`` over ``survivors``, names in the order of the roster."""

    survivors: tuple[str, ...]
    total: Words = field(repr=False)
    attempt: int
    transcript: bytes
    key_id: bytes


def open_sum(
    data: Buffer,
    setting: CkksSetting,
    *,
    seen: Mapping[int, bytes],
    keys: SiteKeys,
    scratch: Scratch,
) -> Outcome:
    """The outcome in the combiner's *sum* frame, for any attempt and key of ``setting``'s binding.

    ``seen`` maps the attempts of this round in which this site signed to the transcript that it
    signed. Raises a :class:`PeerError` for a frame that is not what at least t sites agreed on; the
    site has then decrypted nothing. Raises :class:`Refused` without the key, or after another
    aggregate of this attempt (GK-6.1). Otherwise it decrypts; if the sum is not right in every
    respect, the key is burned, durably, and the :class:`PeerError` names what was wrong, for this
    side only.
    """
    limits = {Kind.SUM: sum_limit(setting)}
    attempt = decode(data, limits).binding.attempt
    setting = replace(setting, binding=replace(setting.binding, attempt=attempt))
    frame = open_frame(
        data, roster={COMBINER: setting.combiner}, expect=setting.binding, limits=limits
    )
    expect_sequence(frame, SUM_SEQUENCE)
    agreement, ciphertexts = decode_sum(frame.body, sender=COMBINER, setting=setting)
    setting = replace(setting, key_id=agreement.key_id)
    # CK-5.1: what is decrypted is what at least t sites have signed to each other.
    digest = agreement.check(setting)
    if seen.get(attempt, digest) != digest:
        raise Inconsistent(COMBINER, "the sum is not the one that this site signed for")
    if aggregate_digest(ciphertexts) != agreement.announced.digest:
        raise Inconsistent(COMBINER, "the aggregate is not the one that the sites agreed on")
    ring = keys.ring
    secret = ring.find(agreement.key_id)
    if secret is None:
        raise Refused("this site does not have the key of this sum, or has given it up")
    # GK-6.1
    keys.keep(ring.opening(setting.binding, digest))
    try:
        total = _decrypted(ciphertexts, agreement, setting, secret, scratch)
    except PeerError:
        # GK-6.2
        keys.burn(agreement.key_id)
        raise
    finally:
        scratch.write(b"")
    members = sorted(agreement.announced.members)
    # A site that did not sign compares the next set with this one too.
    keys.keep(replace(keys.ring, survivors=agreement.announced.members))
    return Outcome(
        survivors=tuple(setting.names[place] for place in members),
        total=total,
        attempt=attempt,
        transcript=digest,
        key_id=agreement.key_id,
    )


def _decrypted(
    ciphertexts: memoryview,
    agreement: Agreement,
    setting: CkksSetting,
    secret: GroupSecret,
    scratch: Scratch,
) -> Words:
    """The sum. Every chunk is decrypted whatever the others hold: a refusal at the first wrong one

    would say, by its time, which one that was (CK-5.7).
    """
    announced = agreement.announced
    members, binding = announced.members, setting.binding
    # CK-3.5: no other ciphertexts than these members' open under the sum of these secrets.
    secrets = (
        upload_secret(secret.secret, secret.epoch, binding, setting.names[place], salt)
        for place, salt in announced.salts.items()
    )
    cipher = Decryptor(binding, secrets, scratch)
    gathered, pieces = Gathered(setting), list(ciphertexts_of(ciphertexts))
    faults: list[PeerError] = []
    # Stands for what cannot be kept, so that keeping and checking takes as long for it.
    largest = len(members) * ((1 << setting.params.bits) - 1)
    other = np.full((BATCH, setting.params.capacity), largest, np.uint32)
    batch = np.empty((BATCH, DEGREE), np.uint64)
    for start in range(0, setting.chunks, BATCH):
        some = pieces[start : start + BATCH]
        values = other[: len(some)]
        for piece, words in zip(some, batch, strict=False):
            try:
                unpack_words(piece, COMBINER, words)
            except PeerError as error:
                faults.append(error)
                words.fill(0)
        try:
            plain = cipher.decrypt(batch[: len(some)])
            values, noise = unpack(plain, setting.params, len(members))
            check_noise(noise, len(members))
        except PeerError as error:
            faults.append(error)
        gathered.put(start, values)
    try:
        total = gathered.check(tagger_of(setting, secret.secret, secret.epoch), members)
    except PeerError as error:
        faults.append(error)
    if faults:
        raise faults[0]
    return total
