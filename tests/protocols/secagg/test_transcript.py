from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protected_sum import Cast, make_cast

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.errors import BadSiteList, Inconsistent
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.secagg.transcript import (
    check_certificate,
    check_signatures,
    consistency_frame,
    transcript,
)
from fedbcs_protocols.wire import Kind

CAST = make_cast(6)
KEY_ID = bytes(range(32, 64))
TAGGED = replace(CAST.setting, key_id=KEY_ID)
"""As for a vector with tags under that key."""
KEYS = bytes(range(32))
SHARERS = frozenset({0, 1, 2, 3, 5})
SURVIVORS = frozenset({0, 1, 3, 5})


def _sign(cast: Cast, places: frozenset[int], digest: bytes) -> dict[int, bytes]:
    return {
        place: cast.sites[f"site{place}"].sign(
            consistency_frame(cast.setting, f"site{place}", digest).signed_message()
        )
        for place in sorted(places)
    }


def _certificate(
    cast: Cast = CAST,
    *,
    sharers: frozenset[int] = SHARERS,
    survivors: frozenset[int] = SURVIVORS,
    signers: frozenset[int] = SURVIVORS,
) -> Certificate:
    digest = transcript(cast.setting, KEYS, sharers, survivors)
    return Certificate(KEYS, bytes(32), sharers, survivors, _sign(cast, signers, digest))


def test_the_transcript_is_what_sa_5_3_says() -> None:
    fields = ("secagg transcript", 1, CAST.binding.encode(), KEYS, b"\x2f", b"\x2b")
    for setting, key_id in ((CAST.setting, bytes(32)), (TAGGED, KEY_ID)):
        expected = hashlib.sha256(encode_fields(*fields, key_id)).digest()
        assert transcript(setting, KEYS, SHARERS, SURVIVORS) == expected


def test_it_depends_on_everything() -> None:
    casts = [
        CAST,
        CAST.changed(attempt=1),
        CAST.changed(round=4),
        CAST.changed(phase=2),
        CAST.changed(state_digest=bytes(32)),
        CAST.changed(study_digest=bytes(32)),
    ]
    digests = [transcript(cast.setting, KEYS, SHARERS, SURVIVORS) for cast in casts]
    digests += [
        transcript(TAGGED, KEYS, SHARERS, SURVIVORS),
        transcript(CAST.setting, bytes(32), SHARERS, SURVIVORS),
        transcript(CAST.setting, KEYS, SHARERS | {4}, SURVIVORS),
        transcript(CAST.setting, KEYS, SHARERS, SURVIVORS - {3}),
        transcript(CAST.setting, KEYS, SURVIVORS, SHARERS),
    ]
    assert len(set(digests)) == len(digests)


def test_the_signed_frame() -> None:
    frame = consistency_frame(CAST.setting, "site2", bytes(32))
    assert (frame.kind, frame.sequence, frame.sender) == (Kind.CONSISTENCY, 3, "site2")
    assert frame.binding == CAST.binding
    assert bytes(frame.body) == bytes(32)


@given(st.frozensets(st.sampled_from(sorted(SURVIVORS))))
def test_a_certificate_needs_a_threshold_of_signers(signers: frozenset[int]) -> None:
    certificate = _certificate(signers=signers)
    assert CAST.terms.threshold == 4
    if len(signers) >= 4:
        expected = transcript(CAST.setting, KEYS, SHARERS, SURVIVORS)
        assert check_certificate(certificate, CAST.setting) == expected
        return
    with pytest.raises(BadSiteList, match=f"{len(signers)} signers") as caught:
        check_certificate(certificate, CAST.setting)
    assert caught.value.sender == "@combiner"


@given(*[st.frozensets(st.integers(0, 5), min_size=3)] * 3)
def test_sets_that_fit(
    sharers: frozenset[int], survivors: frozenset[int], signers: frozenset[int]
) -> None:
    certificate = _certificate(sharers=sharers, survivors=survivors, signers=signers)
    if len(signers) >= 4 and signers <= survivors and survivors <= sharers:
        check_certificate(certificate, CAST.setting)
        return
    with pytest.raises(BadSiteList):
        check_certificate(certificate, CAST.setting)


def _blamed(certificate: Certificate) -> str:
    with pytest.raises(Inconsistent) as caught:
        check_certificate(certificate, CAST.setting)
    return caught.value.sender


def test_a_wrong_signature_names_its_signer() -> None:
    good = _certificate()
    for place in sorted(SURVIVORS):
        changed = bytes([good.signatures[place][0] ^ 1]) + good.signatures[place][1:]
        forged: Mapping[int, bytes] = {**good.signatures, place: changed}
        assert _blamed(replace(good, signatures=forged)) == f"site{place}"


def test_a_signature_of_another_site_or_sum() -> None:
    good = _certificate()
    swapped = {**good.signatures, 3: good.signatures[5]}
    assert _blamed(replace(good, signatures=swapped)) == "site3"
    for cast in (CAST.changed(attempt=1), CAST.changed(round=4), CAST.changed(phase=0)):
        # The same digest, signed in another sum.
        elsewhere = _sign(cast, SURVIVORS, transcript(CAST.setting, KEYS, SHARERS, SURVIVORS))
        assert _blamed(replace(good, signatures=elsewhere)) == "site0"


def test_what_was_signed_is_what_is_shown() -> None:
    good = _certificate()
    for changed in (
        replace(good, key_list=bytes(32)),
        replace(good, key_id=KEY_ID),
        replace(good, sharers=SHARERS | {4}),
        replace(good, survivors=SHARERS),
    ):
        assert _blamed(changed) == "site0"


def test_the_key_is_the_one_that_the_signers_name() -> None:
    """A reader who has no key yet learns which one the sum is under; it cannot be another."""
    digest = transcript(TAGGED, KEYS, SHARERS, SURVIVORS)
    good = Certificate(KEYS, KEY_ID, SHARERS, SURVIVORS, _sign(CAST, SURVIVORS, digest))
    for setting in (TAGGED, CAST.setting, replace(CAST.setting, key_id=KEYS)):
        assert check_certificate(good, setting) == digest
    for key_id in (bytes(32), KEYS):
        assert _blamed(replace(good, key_id=key_id)) == "site0"


def test_check_signatures_of_nobody_says_nothing() -> None:
    check_signatures({}, CAST.setting, bytes(32))
    with pytest.raises(Inconsistent, match="not on what this site saw"):
        check_signatures({0: bytes(64)}, CAST.setting, bytes(32))
