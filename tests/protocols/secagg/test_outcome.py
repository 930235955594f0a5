from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from protected_sum import Cast, make_cast, run_sum

from fedbcs_protocols import ring
from fedbcs_protocols.errors import (
    BadSignature,
    BadSiteList,
    Inconsistent,
    MalformedFrame,
    PeerError,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import SumBroadcast, VectorShape
from fedbcs_protocols.secagg import CombinerSession, open_sum
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.secagg.outcome import sum_limit
from fedbcs_protocols.wire import Frame, Kind, decode, seal

CAST = make_cast(5)
VECTORS = CAST.vectors()
DROPS = {"masked_input": ["site2"]}


def _finished(cast: Cast = CAST) -> CombinerSession:
    return run_sum(replace(cast, marks={}), VECTORS, DROPS)


DONE = _finished()
FRAME = DONE.sum_frame()
OPENED = decode(FRAME, {Kind.SUM: sum_limit(CAST.setting)})
CERTIFICATE, END = Certificate.decode_from(OPENED.body, sender="c", sites=5)


def _sum(
    *,
    certificate: Certificate = CERTIFICATE,
    tail: bytes = bytes(OPENED.body[END:]),
    signer: Identity = CAST.combiner,
    **changes: Any,
) -> bytes:
    body = certificate.encode(5) + tail
    return seal(replace(OPENED, **{"body": body, **changes}), signer)


def test_the_sum_and_who_is_in_it() -> None:
    outcome = open_sum(FRAME, CAST.setting, {})
    assert outcome.survivors == ("site0", "site1", "site3", "site4") == DONE.survivors
    columns = zip(*(VECTORS[name].tolist() for name in outcome.survivors), strict=True)
    assert outcome.total.tolist() == [sum(column) for column in columns]
    assert outcome.total.dtype == np.uint32
    assert outcome.attempt == 0
    assert _sum() == FRAME


def test_a_site_that_signed_sees_its_own_transcript() -> None:
    sites = replace(CAST, marks={}).all_sites()
    done = run_sum(CAST, VECTORS, DROPS, sites=sites)
    outcome = open_sum(done.sum_frame(), CAST.setting, {})
    assert {s.transcript for s in sites.values()} == {outcome.transcript, None}
    assert open_sum(done.sum_frame(), CAST.setting, {0: outcome.transcript}).attempt == 0
    with pytest.raises(Inconsistent, match="not over the sites") as caught:
        open_sum(done.sum_frame(), CAST.setting, {0: bytes(32)})
    assert caught.value.sender == "@combiner"


def test_it_names_the_key_of_its_tags() -> None:
    """Also to a site that does not have the key, or works under another (SA-6.1)."""
    assert open_sum(FRAME, CAST.setting, {}).key_id == bytes(32)
    tagged = replace(CAST, key_id=b"k" * 32, marks={})
    frame = run_sum(tagged, VECTORS, DROPS).sum_frame()
    assert len(frame) == len(FRAME)
    for key_id in (b"k" * 32, bytes(32), b"l" * 32):
        outcome = open_sum(frame, replace(CAST, key_id=key_id).setting, {})
        assert outcome.key_id == b"k" * 32


def test_of_any_attempt() -> None:
    """A site that was started anew does not know which attempt succeeded."""
    frame = _finished(CAST.changed(attempt=3)).sum_frame()
    for attempt in (0, 3, 9):
        assert open_sum(frame, CAST.changed(attempt=attempt).setting, {}).attempt == 3
    assert open_sum(frame, CAST.setting, {0: bytes(32)}).attempt == 3
    with pytest.raises(Inconsistent):
        open_sum(frame, CAST.setting, {3: bytes(32)})


@pytest.mark.parametrize("change", [{"round": 4}, {"phase": 2}, {"state_digest": bytes(32)}])
def test_of_another_state(change: dict[str, Any]) -> None:
    with pytest.raises(WrongBinding):
        open_sum(FRAME, CAST.changed(**change).setting, {})
    # Neither does the combiner's signature help without the sites'.
    there = CAST.changed(**change)
    with pytest.raises(Inconsistent):
        open_sum(_sum(binding=there.binding), there.setting, {})


def test_another_attempt_than_the_sites_signed() -> None:
    with pytest.raises(Inconsistent):
        open_sum(_sum(binding=CAST.changed(attempt=1).binding), CAST.setting, {})


def _signatures(*places: int) -> dict[int, bytes]:
    return {place: CERTIFICATE.signatures[place] for place in places}


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (_sum(signer=CAST.sites["site0"]), BadSignature),
        (_sum(sender="site0", signer=CAST.sites["site0"]), UnknownSender),
        (_sum(sequence=3), WrongBinding),
        (_sum(kind=Kind.SURVIVORS), UnexpectedFrame),
        (FRAME[:-1], MalformedFrame),
        (FRAME + b"\0", MalformedFrame),
        (b"", MalformedFrame),
        (_sum(tail=b""), MalformedFrame),
        (_sum(tail=bytes(OPENED.body[END:]) + b"\0"), MalformedFrame),
        (_sum(body=b""), MalformedFrame),
        (_sum(certificate=replace(CERTIFICATE, signatures=_signatures(0, 1, 3))), BadSiteList),
        (_sum(certificate=replace(CERTIFICATE, sharers=frozenset({0, 1, 2, 3}))), BadSiteList),
        (_sum(certificate=replace(CERTIFICATE, survivors=frozenset(range(5)))), Inconsistent),
        (_sum(certificate=replace(CERTIFICATE, key_list=bytes(32))), Inconsistent),
        (_sum(certificate=replace(CERTIFICATE, key_id=b"k" * 32)), Inconsistent),
        (
            _sum(tail=SumBroadcast(VectorShape(70, 21, 5), ring.pack(DONE.total(), 21)).encode()),
            MalformedFrame,
        ),
        (
            _sum(tail=SumBroadcast(VectorShape(70, 20, 4), ring.pack(DONE.total(), 20)).encode()),
            MalformedFrame,
        ),
    ],
)
def test_what_is_no_sum(frame: bytes, error: type[PeerError]) -> None:
    with pytest.raises(error) as caught:
        open_sum(frame, CAST.setting, {})
    assert type(caught.value) is error


def test_the_numbers_are_the_combiners_word() -> None:
    """SA-7.3 says so; who is in the sum is all that the certificate proves."""
    other = ring.pack(np.zeros(70, np.uint32), 20)
    frame = _sum(tail=SumBroadcast(CAST.setting.shape, other).encode())
    assert not open_sum(frame, CAST.setting, {}).total.any()


def test_the_limit_is_the_longest_sum() -> None:
    everybody = run_sum(replace(CAST, marks={}), VECTORS).sum_frame()
    body = decode(everybody, {Kind.SUM: sum_limit(CAST.setting)}).body
    assert len(body) == sum_limit(CAST.setting)
    assert len(OPENED.body) < sum_limit(CAST.setting)


def test_no_sum_before_the_end() -> None:
    early = Frame(Kind.SUM, CAST.binding, "@combiner", 4, bytes(OPENED.body[END:]))
    with pytest.raises(PeerError):
        open_sum(seal(early, CAST.combiner), CAST.setting, {})
