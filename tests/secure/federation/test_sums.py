"""What makes a site take a sum: who signed for it, and what they signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from federation_fixtures import (
    ANYTHING,
    Lines,
    Stepwise,
    give_keys,
    gone_from,
    known_identity,
)

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import (
    BadSignature,
    BadSiteList,
    BadTag,
    Inconsistent,
    PeerError,
    ProtocolError,
    Refused,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.secagg import CombinerSession, MemoryMarks, SiteSession
from fedbcs_protocols.secagg.messages import Certificate
from fedbcs_protocols.secagg.transcript import consistency_frame, transcript
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.federation import plain
from fedbcs_secure.federation.rounds import SUM

Make = Callable[..., Stepwise]


def _sum_parts(step: Stepwise, session: CombinerSession) -> tuple[Frame, Certificate, bytes]:
    frame = decode(session.sum_frame(), ANYTHING)
    sites = len(step.sites)
    certificate, end = Certificate.decode_from(frame.body, sender=COMBINER, sites=sites)
    return frame, certificate, bytes(frame.body[end:])


def _sealed(step: Stepwise, frame: Frame, certificate: Certificate, tail: bytes) -> bytes:
    body = certificate.encode(len(step.sites)) + tail
    return seal(replace(frame, body=body), step.cast.server)


def _refuses(step: Stepwise, frame: bytes, error: type[ProtocolError], names: str = "ABCD") -> None:
    for name in names:
        with pytest.raises(error):
            step.sites[name].handle(frame)
        assert step.sites[name].state is step.state


def test_a_sum_needs_the_signatures_of_t_sites(stepwise: Make) -> None:
    step = stepwise()
    frame, certificate, tail = _sum_parts(step, step.run(Kind.SUM))
    few = replace(certificate, signatures=dict(list(certificate.signatures.items())[:2]))
    _refuses(step, _sealed(step, frame, few, tail), BadSiteList)
    none = replace(certificate, signatures={})
    _refuses(step, _sealed(step, frame, none, tail), BadSiteList)
    # any three of the four will do
    three = replace(certificate, signatures=dict(list(certificate.signatures.items())[1:]))
    step.sites["A"].handle(_sealed(step, frame, three, tail))
    assert step.sites["A"].state.round == 1


def test_a_sum_over_another_transcript_is_refused(stepwise: Make) -> None:
    step = stepwise()
    frame, certificate, tail = _sum_parts(step, step.run(Kind.SUM))
    for changed in (
        replace(certificate, key_list=bytes(32)),
        replace(certificate, sharers=frozenset({0, 1, 2}), survivors=frozenset({0, 1, 2}),
                signatures={p: s for p, s in certificate.signatures.items() if p < 3}),
        replace(certificate, survivors=frozenset({0, 1, 2}),
                signatures={p: s for p, s in certificate.signatures.items() if p < 3}),
        replace(certificate, signatures=certificate.signatures | {0: bytes(64)}),
        replace(certificate, signatures=certificate.signatures | {0: certificate.signatures[1]}),
    ):  # fmt: skip
        _refuses(step, _sealed(step, frame, changed, tail), Inconsistent)


def test_a_sum_in_the_name_of_another_attempt_is_refused(stepwise: Make) -> None:
    """The attempt is in what the sites signed."""
    step = stepwise()
    frame, certificate, tail = _sum_parts(step, step.run(Kind.SUM, attempt=2))
    for attempt in (0, 1, 3):
        renamed = replace(frame, binding=replace(frame.binding, attempt=attempt))
        _refuses(step, _sealed(step, renamed, certificate, tail), Inconsistent)
    for name in "ABCD":
        step.sites[name].handle(_sealed(step, frame, certificate, tail))
    assert {site.state.round for site in step.sites.values()} == {1}


def _forged(step: Stepwise, session: CombinerSession) -> bytes:
    """A sum for which B, C and D, who collude, signed a second transcript without A in it."""
    setting = step.cast.parties.setting(step.state, 0, step.key_id)
    frame, certificate, tail = _sum_parts(step, session)
    other = replace(certificate, survivors=frozenset({1, 2, 3}))
    digest = transcript(setting, other.key_list, other.sharers, other.survivors)
    signatures = {}
    for place, name in ((1, "B"), (2, "C"), (3, "D")):
        signed = seal(consistency_frame(setting, name, digest), known_identity(name))
        signatures[place] = decode(signed, ANYTHING).signature
    return _sealed(step, frame, replace(other, signatures=signatures), tail)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("verified", [False, True])
def test_a_sum_over_sites_that_this_one_did_not_sign_for(
    stepwise: Make, restarted: bool, verified: bool
) -> None:
    """SA-7.3: in the attempt in which it signed, only with the transcript that it signed."""
    step = stepwise(verified_sum=verified)
    forged = _forged(step, step.run(Kind.SUM))
    site = step.cast.site("A", step.state) if restarted else step.sites["A"]
    with pytest.raises(Inconsistent, match="not over the sites that this site signed for"):
        site.handle(forged)
    assert site.state is step.state
    # a site that signed nothing cannot tell, and believes three signatures
    step.cast.marks["A"] = MemoryMarks()
    newcomer = step.cast.site("A", step.state)
    if verified:
        # VS-3.2: unless the numbers are checked, and those are still the sum with A in it
        with pytest.raises(BadTag):
            newcomer.handle(forged)
        return
    newcomer.handle(forged)
    assert newcomer.state.round == 1


def test_a_site_that_signed_but_was_not_asked_to_answer_can_tell_too(stepwise: Make) -> None:
    step = stepwise()
    session = step.run(Kind.CERTIFICATE)
    for name in "BCD":
        session.receive(step.sites[name].handle(session.requests[name]))
    session.close()
    forged = _forged(step, session)
    marks = step.cast.marks["A"].read()
    assert marks is not None
    assert marks.answers == ()
    _refuses(step, forged, Inconsistent, "A")
    step.sites["A"].handle(session.sum_frame())
    assert step.sites["A"].state.round == 1


@pytest.mark.parametrize("stage", ["ready", "keys", "advertise", "share", "masked_input"])
@pytest.mark.parametrize("verified", [False, True])
def test_a_site_that_was_dropped_takes_the_sum(stepwise: Make, stage: str, verified: bool) -> None:
    step = stepwise(verified_sum=verified)
    lines = Lines(step.sites, gone_from(stage, "B"))
    result = step.cast.combiner().run(lines, step.state)
    assert result.survivors == ("A", "C", "D")
    assert step.sites["B"].state is step.state
    told = lines.down["A"][-1]
    assert decode(told, ANYTHING).kind is Kind.SUM
    if verified and stage in ("ready", "keys"):
        # It was not there when the key was dealt that the tags are checked with (GK-4).
        _refuses(step, told, Refused, "B")
        give_keys(step, "B", "C", step.control(), result.state)
    step.sites["B"].handle(told)
    # and so does one that was started anew and knows nothing of the round
    newcomer = step.cast.site("B", step.state)
    newcomer.handle(told)
    assert newcomer.state.digest == step.sites["B"].state.digest == result.state.digest


def test_a_sum_that_the_site_has_taken_before_is_accepted_again(stepwise: Make) -> None:
    """The site was started anew from its new state, so it no longer knows what it replied; the

    combiner, anew as well, tells it the sum once more and must not take it for absent.
    """
    step = stepwise()
    session = step.run(Kind.SUM)
    first = step.sites["A"].handle(session.sum_frame())
    again = step.cast.site("A", step.sites["A"].state)
    assert again.handle(session.sum_frame()) == first
    assert again.state is step.sites["A"].state
    stranger = replace(decode(session.sum_frame(), ANYTHING), body=b"")
    with pytest.raises(BadSignature):
        step.cast.site("A", again.state).handle(seal(stranger, known_identity("stranger")))
    other = replace(stranger, binding=replace(stranger.binding, study_digest=bytes(32)))
    with pytest.raises(WrongBinding, match="study"):
        step.cast.site("A", again.state).handle(seal(other, step.cast.server))


def test_a_sum_of_a_round_to_come_is_refused(stepwise: Make) -> None:
    step = stepwise()
    frame, certificate, tail = _sum_parts(step, step.run(Kind.SUM))
    later = replace(frame, binding=replace(frame.binding, round=1))
    _refuses(step, _sealed(step, later, certificate, tail), PeerError)
    elsewhere = replace(frame, binding=replace(frame.binding, state_digest=bytes(32)))
    _refuses(step, _sealed(step, elsewhere, certificate, tail), PeerError)


@pytest.mark.parametrize("verified", [False, True])
def test_one_sites_false_values_do_not_end_the_study(
    stepwise: Make, monkeypatch: pytest.MonkeyPatch, verified: bool
) -> None:
    """RO-4.5: a sum that no honest sites can have made counts as the largest that they could.

    Its tags are right: they are about what the liar sent.
    """
    monkeypatch.setattr(SiteSession, "_check_vector", lambda self, vector: None)
    step = stepwise("ABCDE", verified_sum=verified)
    liar = step.sites["B"]
    liar.handle(step.start)
    assert liar._vector is not None
    liar._vector = np.full_like(liar._vector, 5 << 16)
    session = step.run(Kind.SUM)
    assert session.total()[: step.cast.plan.length].min() > 5 * (2**16 - 2)
    closing = session.sum_frame()
    for site in step.sites.values():
        site.handle(closing)
        assert site.state.round == 1
        assert np.isfinite(site.state.weights).all()
    assert len({site.state.digest for site in step.sites.values()}) == 1


def test_without_protection_there_is_no_certificate(stepwise: Make) -> None:
    """The combiner's word alone says who is in the sum and what it is."""
    step = stepwise(protection="none")
    shape, parties = step.cast.parties.shape, step.cast.parties
    total = np.full(shape.count, 3 * (2**15 - 1) + 9, np.uint32)
    body = plain.encode_sum(parties, "ABC", total)
    binding = parties.binding(step.state, SUM)
    step.sites["D"].handle(step.cast.frame(Kind.SUM, binding, 1, body))
    assert step.sites["D"].state.round == 1
    _refuses(
        step,
        step.cast.frame(Kind.SUM, binding, 1, plain.encode_sum(parties, "AB", total)),
        BadSiteList,
        "ABC",
    )
    _refuses(step, step.cast.frame(Kind.SUM, binding, 0, body), WrongBinding, "ABC")


def test_with_protection_a_plain_sum_is_none(stepwise: Make) -> None:
    step = stepwise()
    shape, parties = step.cast.parties.shape, step.cast.parties
    total = np.full(shape.count, 4 * (2**15 - 1) + 9, np.uint32)
    body = plain.encode_sum(parties, "ABCD", total)
    for sequence in (1, 4):
        frame = step.cast.frame(Kind.SUM, parties.binding(step.state, SUM), sequence, body)
        _refuses(step, frame, PeerError)


# FINCH -------------------------------------------------------------------------------------------


def _finch(stepwise: Make) -> tuple[Stepwise, Callable[[str], bytes], Callable[[str], bytes]]:
    step = stepwise(protection="none", alignment={"form": "faithful", "prototypes": "finch"})
    parties = step.cast.parties
    binding, plan = parties.binding(step.state, SUM), step.cast.plan
    width = len(plan.slots) * plan.fused_channels
    zero = np.uint32(2**15 - 1)

    def prototypes(names: str) -> bytes:
        rows = [np.full(width, zero + 5 * i, np.uint32) for i in range(len(names))]
        body = plain.encode_prototypes(parties, names, rows)
        return step.cast.frame(Kind.PLAIN_PROTOTYPES, binding, 0, body)

    def total(names: str) -> bytes:
        values = np.full(parties.shape.count, zero * len(names), np.uint32)
        return step.cast.frame(Kind.SUM, binding, 1, plain.encode_sum(parties, names, values))

    return step, prototypes, total


def test_finch_needs_the_prototypes_first(stepwise: Make) -> None:
    step, prototypes, total = _finch(stepwise)
    _refuses(step, total("ABC"), UnexpectedFrame)
    step.sites["A"].handle(prototypes("ABC"))
    step.sites["A"].handle(total("ABC"))
    assert step.sites["A"].state.round == 1


@pytest.mark.parametrize(("shown", "summed"), [("ABC", "ABCD"), ("ABCD", "ABC"), ("ABC", "ABD")])
def test_finch_prototypes_of_other_sites_than_the_sums_are_refused(
    stepwise: Make, shown: str, summed: str
) -> None:
    step, prototypes, total = _finch(stepwise)
    step.sites["A"].handle(prototypes(shown))
    _refuses(step, total(summed), Inconsistent, "A")
    # the combiner may put it right
    step.sites["A"].handle(prototypes(summed))
    step.sites["A"].handle(total(summed))
    assert step.sites["A"].state.round == 1
