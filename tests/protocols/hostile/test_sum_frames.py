"""The combiner's last word: a sum without the signatures of t sites is none (SA-7.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from colluder import ANY
from hostile_attack import COLLUDER, OTHER_SUMS
from hostile_combiner import HostileCombiner
from hostile_host import only_ours
from our_site import OurHost
from protected_sum import make_cast, refusal

from fedbcs_protocols.errors import (
    BadSignature,
    BadSiteList,
    Inconsistent,
    MalformedFrame,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.messages import SumBroadcast
from fedbcs_protocols.ring import pack
from fedbcs_protocols.secagg import open_sum
from fedbcs_protocols.wire import Kind, decode, seal

pytestmark = only_ours("a Host reads no sums")

LEFT_OUT = "site4"


@pytest.fixture(scope="module")
def script() -> HostileCombiner:
    """A whole sum over all but site4."""
    script = HostileCombiner(make_cast(6), OurHost, colluders=[COLLUDER])
    script.gone["masked_input"].add(LEFT_OUT)
    return script.play("finished")


def _message(script: HostileCombiner) -> bytes:
    total = sum(script.vectors[name] for name in script.came["masked_input"])
    return SumBroadcast(script.setting.shape, pack(total, script.setting.bits)).encode()


def _sum(script: HostileCombiner, certificate: bytes | None = None, **changes: Any) -> bytes:
    """The *sum* frame with the certificate in this frame, or the true one."""
    shown = decode(script.certificate() if certificate is None else certificate, ANY).body
    body = changes.pop("body", bytes(shown) + _message(script))
    return script.forge(changes.pop("kind", Kind.SUM), changes.pop("sequence", 4), body, **changes)


def test_the_true_sum(script: HostileCombiner) -> None:
    """For a site that signed, and for one that left or was started anew."""
    signed = script.transcript(script.came["masked_input"])
    for seen in ({0: signed}, {}):
        outcome = open_sum(_sum(script), script.setting, seen)
        assert LEFT_OUT not in outcome.survivors
        assert outcome.transcript == signed
        total = sum(script.vectors[name] for name in outcome.survivors)
        assert outcome.total.tolist() == total.tolist()


def test_the_sum_of_another_attempt_of_the_same_round() -> None:
    """A site that left attempt 0 takes the sum of attempt 1, with the signatures of attempt 1."""
    first = HostileCombiner(make_cast(6), OurHost)
    second = HostileCombiner(first.cast.changed(attempt=1), OurHost).play("finished")
    frame = _sum(second)
    assert open_sum(frame, first.setting, {}).attempt == 1
    moved = _sum(second, attempt=2)
    assert isinstance(refusal(lambda: open_sum(moved, first.setting, {})), Inconsistent)


def _without(count: int) -> Callable[[HostileCombiner], bytes]:
    def make(script: HostileCombiner) -> bytes:
        signatures = dict(list(script.signatures().items())[:count])
        return _sum(script, script.certificate(signatures=signatures))

    return make


def _other_survivors(script: HostileCombiner) -> bytes:
    return _sum(script, script.certificate(survivors=script.cast.sites))


def _fewer_survivors(script: HostileCombiner) -> bytes:
    fewer = ("site0", "site1", "site2", COLLUDER)
    signatures = {n: s for n, s in script.signatures().items() if n in fewer}
    return _sum(script, script.certificate(survivors=fewer, signatures=signatures))


def _a_forged_signature(script: HostileCombiner) -> bytes:
    return _sum(script, script.certificate(signatures={**script.signatures(), "site2": bytes(64)}))


def _short(script: HostileCombiner) -> bytes:
    return _sum(script, body=bytes(decode(_sum(script), ANY).body)[:-1])


def _long(script: HostileCombiner) -> bytes:
    return _sum(script, body=bytes(decode(_sum(script), ANY).body) + b"\0")


def _another_shape(script: HostileCombiner) -> bytes:
    body = bytearray(decode(_sum(script), ANY).body)
    body[-len(_message(script)) + 3] ^= 1
    return _sum(script, body=bytes(body))


def _certificate_only(script: HostileCombiner) -> bytes:
    return _sum(script, body=bytes(decode(script.certificate(), ANY).body))


@pytest.mark.parametrize(
    ("make", "error", "sender"),
    [
        (_without(3), BadSiteList, "@combiner"),
        (_without(0), BadSiteList, "@combiner"),
        (_other_survivors, Inconsistent, "site0"),
        (_fewer_survivors, Inconsistent, "site0"),
        (_a_forged_signature, Inconsistent, "site2"),
        (_short, MalformedFrame, "@combiner"),
        (_long, MalformedFrame, "@combiner"),
        (_another_shape, MalformedFrame, "@combiner"),
        (_certificate_only, MalformedFrame, "@combiner"),
        (lambda s: _sum(s, body=b""), MalformedFrame, "@combiner"),
        (lambda s: _sum(s)[:-1], MalformedFrame, "unread frame"),
        (lambda s: _sum(s, kind=Kind.CERTIFICATE), UnexpectedFrame, "@combiner"),
        (lambda s: _sum(s, sequence=3), WrongBinding, "@combiner"),
        (lambda s: _sum(s, signer=s.cast.sites[COLLUDER]), BadSignature, "@combiner"),
        (
            lambda s: _sum(s, signer=s.cast.sites[COLLUDER], sender=COLLUDER),
            UnknownSender,
            COLLUDER,
        ),
        (lambda s: _sum(s, attempt=1), Inconsistent, "site0"),
    ],
)
def test_a_sum_that_is_none(
    script: HostileCombiner,
    make: Callable[[HostileCombiner], bytes],
    error: type[Exception],
    sender: str,
) -> None:
    for seen in ({}, {0: script.transcript(script.came["masked_input"])}):
        raised = refusal(lambda seen=seen: open_sum(make(script), script.setting, seen))
        assert type(raised) is error
        assert raised.sender == sender


@pytest.mark.parametrize("field", [field for field in OTHER_SUMS if field != "attempt"])
def test_the_sum_of_another_state_or_round(script: HostileCombiner, field: str) -> None:
    frame = _sum(script, **{field: OTHER_SUMS[field]})
    raised = refusal(lambda: open_sum(frame, script.setting, {}))
    assert isinstance(raised, WrongBinding)
    assert raised.field == field.replace("_", " ")


def test_a_true_sum_that_is_not_the_one_that_was_signed(script: HostileCombiner) -> None:
    signed = script.transcript(script.cast.sites)
    raised = refusal(lambda: open_sum(_sum(script), script.setting, {0: signed}))
    assert (type(raised), raised.sender) == (Inconsistent, "@combiner")
    # What it signed in another attempt says nothing about this one.
    assert open_sum(_sum(script), script.setting, {1: signed}).attempt == 0


def test_the_frame_is_the_one_of_this_repositorys_combiner(script: HostileCombiner) -> None:
    combiner = script.cast.combine()
    for frames in script.came.values():
        for frame in frames.values():
            combiner.receive(frame)
        combiner.close()
    assert combiner.sum_frame() == _sum(script)
    # A sum frame with a site's own signature is no frame of the combiner's.
    frame = decode(combiner.sum_frame(), ANY)
    forged = seal(frame, script.cast.sites["site0"])
    assert isinstance(refusal(lambda: open_sum(forged, script.setting, {})), BadSignature)
