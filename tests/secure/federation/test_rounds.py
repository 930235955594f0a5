"""Rounds over the channel: equal under every protection, and nothing readable on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from federation_fixtures import (
    FUSED,
    TENSORS,
    Cast,
    Lines,
    fake_training,
    known_identity,
    make_study,
)
from scipy import stats

from fedbcs_protocols.errors import MalformedFrame, PeerError, UnexpectedFrame, WrongBinding
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import pack, unpack
from fedbcs_protocols.secagg.messages import Advertise, KeyList
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.errors import RoundError, StudyError
from fedbcs_secure.federation.combiner import RoundCombiner
from fedbcs_secure.federation.dropouts import Drop, DroppingChannel
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.memory import MemoryFederation
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import Parties
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
Replies = dict[str, bytes]

STAGE_KINDS = [
    Kind.READY,
    Kind.ADVERTISE,
    Kind.SHARES,
    Kind.MASKED_INPUT,
    Kind.CONSISTENCY,
    Kind.UNMASK,
    Kind.ACCEPTED,
]


def assemble(
    start: Start, names: str = "ABCD", **values: object
) -> tuple[RoundCombiner, Lines, Cast, GlobalState]:
    study = make_study(names, **values)
    plan, state = start(study)
    cast = Cast(study, plan)
    return cast.combiner(), Lines(cast.sites(state)), cast, state


class Meddled:
    """All sites answer; then ``change`` gets hold of the replies to the ``at``-th request.

    What one site alone is asked (for the group's key) does not count.
    """

    def __init__(
        self,
        sites: Mapping[str, SiteRunner],
        at: int,
        change: Callable[[Replies], list[tuple[str, bytes]]],
    ) -> None:
        self.lines, self.at, self.change, self.calls = Lines(sites), at, change, -1

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.calls += len(requests) > 1
        replies = dict(self.lines.exchange(requests))
        meddle = len(requests) > 1 and self.calls == self.at
        yield from self.change(replies) if meddle else replies.items()


PROTECTIONS: dict[str, tuple[dict[str, object], int, int]] = {
    "secagg": ({}, 8, 5),
    "unverified": ({"verified_sum": False}, 7, 4),
    "ckks": ({"protection": "ckks"}, 5, 3),
    "none": ({"protection": "none"}, 3, 2),
}
"""For each: its study, the requests of a round, and the first after a site's vector came."""
by_protection = pytest.mark.parametrize("protection", PROTECTIONS)


@pytest.mark.parametrize(
    ("method", "names"),
    [("fedbcs", "ABC"), ("fedbcs", "ABCD"), ("fedbcs", "ABCDEFGHI"), ("fedavg", "ABCD")],
)
def test_all_protections_give_the_same_state_bit_for_bit(
    start: Start, method: str, names: str
) -> None:
    """Over four rounds, with a key for one, two or all of them."""
    states = []
    for values, _, _ in PROTECTIONS.values():
        grouped = "none" not in values.values() and "verified_sum" not in values
        for rekey_every in (1, 2, 100) if grouped else (1,):
            more = {"method": method, "server_momentum": 0.5, "rekey_every": rekey_every}
            study = make_study(names, **(values | more))
            plan, state = start(study)
            federation = MemoryFederation(study, plan, fake_training)
            for _ in range(4):
                outcome = federation.run_round(state)
                assert (outcome.survivors, outcome.attempts) == (tuple(names), 1)
                state = outcome.state
            assert len(state.prototypes) == (4 if method == "fedbcs" else 0)
            states.append(state.encode())
    assert len(states) == 8
    assert len(set(states)) == 1


def test_above_32_sites_the_sparse_graph_gives_the_same_state_too(start: Start) -> None:
    roster = [
        {"name": f"s{i}", "weight": 1.0 + i, "steps": 3, "classes": [0, 1]} for i in range(40)
    ]
    digests = []
    for protection in ("secagg", "none"):
        combiner, lines, cast, state = assemble(
            start, roster=roster, protection=protection, colluders=2, codec={"bits": 12}
        )
        assert not cast.parties.terms.graph.complete
        drops = [Drop("s7", "masked_input", 0)]
        channel = DroppingChannel(lines, drops, 0, at_once=protection != "secagg")
        result = combiner.run(channel, state)
        assert len(result.survivors) == 39
        digests.append(result.state.digest)
    assert digests[0] == digests[1]


@by_protection
def test_every_site_reaches_the_combiners_state(start: Start, protection: str) -> None:
    combiner, lines, _, state = assemble(start, **PROTECTIONS[protection][0])
    result = combiner.run(lines, state)
    assert {site.state.digest for site in lines.sites.values()} == {result.state.digest}
    assert (result.state.round, result.attempts, result.faults) == (1, 1, {})
    assert result.survivors == ("A", "B", "C", "D")


def test_the_server_sees_no_sites_vector(start: Start) -> None:
    """The masked vector is not the site's, and its values are uniform in the ring."""
    combiner, lines, cast, state = assemble(start, codec={"bits": 8})
    combiner.run(lines, state)
    seen = []
    count = cast.parties.setting(state, 0).count
    shape = replace(cast.parties.shape, count=count)
    for site, (frame,) in lines.sent(Kind.MASKED_INPUT).items():
        packed = MaskedInput.decode(frame.body, sender=site, shape=shape).packed
        masked = unpack(packed, count, shape.bits)
        assert count == len(masked) > cast.plan.length
        update = form_update(fake_training(site, state), state, cast.plan, site)
        own = encode(update, state, cast.plan, cast.study, site).codes
        assert np.mean(masked[: cast.plan.length] == own) < 0.05
        seen.append(masked)
    high_bits = np.concatenate(seen) >> 6  # 10-bit ring: 16 bins
    counts = np.bincount(high_bits, minlength=16)
    # fresh keys each time, so a false alarm once in a million runs
    assert stats.chisquare(counts).pvalue > 1e-6


def test_what_a_site_sends_besides_does_not_depend_on_its_data(start: Start) -> None:
    """Two federations with other data: the same frames in the same order, as long as before."""
    seen = []
    for scale in (1e-3, 1e-6):
        combiner, lines, cast, state = assemble(start)
        train = partial(fake_training, scale=scale, lacking=("B",) if scale == 1e-6 else ())
        lines.sites = {name: cast.site(name, state, train) for name in lines.sites}
        combiner.run(lines, state)
        for replies in lines.up.values():
            frames = [decode(reply, dict.fromkeys(Kind, 1 << 30)) for reply in replies]
            kinds = [frame.kind for frame in frames]
            dealer = Kind.DEAL in kinds
            assert kinds == [Kind.READY, Kind.DEAL if dealer else Kind.TAKEN, *STAGE_KINDS[1:]]
            seen.append(tuple(len(frame.body) for frame in frames))
    # three others hold 82 encrypted bytes each; shares of 33 bytes for four sites
    count = cast.parties.setting(state, 0).count
    vector = replace(cast.parties.shape, count=count).body_bytes
    rest = (96, 3 * 82, vector, 32, 4 * 33, 32)
    # the standing; the key for three others, encrypted, or the name of the one that was taken
    standing, deal, taken = 11 + 64 + 1, 36 + 1 + 3 * 48, 36
    assert set(seen) == {(standing, deal, *rest), (standing, taken, *rest)}


def test_keys_and_commitments_are_fresh_in_every_round(start: Start) -> None:
    combiner, lines, cast, state = assemble(start)
    for _ in range(3):
        state = combiner.run(lines, state).state
    seen: list[bytes] = []
    graph = cast.parties.terms.graph
    for site, frames in lines.sent(Kind.ADVERTISE).items():
        for frame in frames:
            advert = Advertise.decode(frame.body, sender=site, graph=graph, sites=4)
            seen += [advert.mask_key, advert.share_key, advert.commitment]
    assert len(set(seen)) == len(seen) == 3 * 4 * 3


def test_upload_is_m_bits_a_value(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    outcome = MemoryFederation(study, plan, fake_training).run_round(state)
    packed = -(-plan.length // 32) * 4 * 18
    # one site deals, the others take; what is not the vector does not grow with it
    assert packed < outcome.bytes_up < packed + 2200


@by_protection
def test_the_combiner_numbers_its_stages_and_checks_the_sites_numbers(
    start: Start, protection: str
) -> None:
    def renumbered(replies: Replies) -> list[tuple[str, bytes]]:
        reply = decode(replies["B"], dict.fromkeys(Kind, 1 << 30))
        changed = Frame(reply.kind, reply.binding, "B", reply.sequence + 1, reply.body)
        return list((replies | {"B": seal(changed, known_identity("B"))}).items())

    values, requests, heard = PROTECTIONS[protection]
    for at in range(requests):
        combiner, lines, _, state = assemble(start, **values)
        result = combiner.run(Meddled(lines.sites, at, renumbered), state)
        assert isinstance(result.faults["B"], WrongBinding)
        assert result.faults["B"].field == "sequence"
        # who signed wrongly, or said so too late, is in the sum; before that it is not
        assert ("B" in result.survivors) == (at >= heard)


@by_protection
def test_every_reply_must_come_on_its_own_line(start: Start, protection: str) -> None:
    """RO-2.5: two sites speak for each other; neither is heard, and the others go on."""

    def crossed(replies: Replies) -> list[tuple[str, bytes]]:
        return [*(replies | {"F": replies["B"], "B": replies["F"]}).items()]

    values, requests, heard = PROTECTIONS[protection]
    for at in range(requests):
        combiner, lines, _, state = assemble(start, "ABCDEFG", **values)
        result = combiner.run(Meddled(lines.sites, at, crossed), state)
        assert set(result.faults) == {"B", "F"}
        assert result.survivors == tuple("ABCDEFG" if at >= heard else "ACDEG")


@by_protection
def test_the_same_site_twice_is_not_two_sites(start: Start, protection: str) -> None:
    expected = None
    values, requests, _ = PROTECTIONS[protection]
    for at in range(-1, requests):
        combiner, lines, _, state = assemble(start, **values)
        doubled = Meddled(lines.sites, at, lambda r: [("B", r["B"]), *r.items()])
        result = combiner.run(doubled, state)
        expected = expected or result.state.digest
        assert result.state.digest == expected
        assert result.survivors == ("A", "B", "C", "D")


@by_protection
def test_a_site_that_sends_nonsense_is_missed_by_name(start: Start, protection: str) -> None:
    """Whatever one site sends, and in whatever stage, the others finish the round."""
    values, requests, _ = PROTECTIONS[protection]
    for at in range(requests):
        for nonsense in (b"", b"FBCS" + bytes(300)):
            combiner, lines, _, state = assemble(start, **values)
            meddled = Meddled(lines.sites, at, lambda r, bad=nonsense: [*(r | {"D": bad}).items()])
            result = combiner.run(meddled, state)
            assert set(result.faults) == {"D"}
            assert result.state.round == 1


def test_a_plain_vector_of_another_form_is_a_fault_of_its_sender(start: Start) -> None:
    """A genuine frame whose body is no packed vector: bits beyond its last value are set."""
    _, _, cast, state = assemble(start, protection="none", method="fedavg")
    shape = cast.parties.shape
    body = bytearray(
        MaskedInput(shape, pack(np.zeros(shape.count, np.uint32), shape.bits)).encode()
    )
    for bad in (body[:-1] + b"\xff", b"\xff" * len(body)):

        def replaced(replies: Replies, body: bytes = bytes(bad)) -> list[tuple[str, bytes]]:
            frame = decode(replies["C"], dict.fromkeys(Kind, 1 << 30))
            changed = Frame(frame.kind, frame.binding, "C", frame.sequence, body)
            return list((replies | {"C": seal(changed, known_identity("C"))}).items())

        combiner = cast.combiner()
        result = combiner.run(Meddled(cast.sites(state), 1, replaced), state)
        assert isinstance(result.faults["C"], MalformedFrame)
        assert result.survivors == ("A", "B", "D")


@by_protection
def test_too_few_that_are_ready_end_the_round_before_any_key_is_made(
    start: Start, protection: str
) -> None:
    combiner, lines, _, state = assemble(start, **PROTECTIONS[protection][0])
    lines.silent = lambda name, frame: name in "AD"
    with pytest.raises(RoundError, match=r"2 (of 4 )?sites are ready, the threshold is 3"):
        combiner.run(lines, state)
    for kind in (Kind.DEAL, Kind.ADVERTISE, Kind.ENCRYPTED, Kind.PLAIN_INPUT):
        assert not any(lines.sent(kind).values())


def test_too_few_plain_vectors_end_the_round(start: Start) -> None:
    combiner, lines, _, state = assemble(start, protection="none")
    lines.silent = lambda name, frame: name in "AD" and frame.kind is Kind.OPEN
    with pytest.raises(RoundError, match="2 of 4 sites sent their update"):
        combiner.run(lines, state)


def test_a_site_from_another_state_takes_no_part(start: Start) -> None:
    """A site led astray refuses the very first frame: the state's digest binds it."""
    combiner, lines, _, state = assemble(start)
    weights = state.weights.copy()
    weights[0] += 1
    lines.sites["A"].state = GlobalState(0, weights, state.velocity, (), state.exponents)
    result = combiner.run(lines, state)
    assert result.survivors == ("B", "C", "D")
    assert {name for name, _ in lines.errors} == {"A"}
    assert isinstance(lines.errors[0][1], WrongBinding)


@by_protection
def test_a_site_that_has_not_taken_the_last_sum_is_not_asked_to_train(
    start: Start, protection: str
) -> None:
    combiner, lines, _, state = assemble(start, **PROTECTIONS[protection][0])
    lines.silent = lambda name, frame: (
        name == "B" and frame.kind in (Kind.SUM, Kind.JOIN) and frame.binding.round < 2
    )
    state = combiner.run(lines, state).state
    heard = len(lines.down["B"])
    assert combiner.run(lines, state).survivors == ("A", "C", "D")
    assert len(lines.down["B"]) == heard
    assert lines.errors == []


def test_frames_of_another_federation_are_refused(start: Start) -> None:
    combiner, lines, _, state = assemble(start)
    combiner.run(lines, state)
    _, other, _, _ = assemble(start, seed=1)
    for late in lines.down["B"]:
        with pytest.raises(PeerError):
            other.sites["B"].handle(late)


@by_protection
def test_no_training_after_the_studys_last_round(start: Start, protection: str) -> None:
    combiner, lines, _, state = assemble(start, rounds=1, **PROTECTIONS[protection][0])
    state = combiner.run(lines, state).state
    with pytest.raises(RoundError):
        combiner.run(lines, state)
    assert all(isinstance(error, UnexpectedFrame) for _, error in lines.errors)
    assert "rounds are over" in str(lines.errors[0][1])


def test_finch_shows_prototypes_and_only_then(start: Start) -> None:
    combiner, lines, _, state = assemble(
        start, protection="none", alignment={"form": "faithful", "prototypes": "finch"}
    )
    result = combiner.run(lines, state)
    assert {s.state.digest for s in lines.sites.values()} == {result.state.digest}
    assert all(1 <= len(p.rows) <= 4 for p in result.state.prototypes)
    kinds = [decode(f, dict.fromkeys(Kind, 1 << 30)).kind for f in lines.down["A"]]
    assert kinds == [Kind.START, Kind.OPEN, Kind.PLAIN_PROTOTYPES, Kind.SUM]


def test_key_lists_hold_the_sites_own_frames(start: Start) -> None:
    combiner, lines, cast, state = assemble(start)
    combiner.run(lines, state)
    frames = [decode(f, dict.fromkeys(Kind, 1 << 30)) for f in lines.down["A"]]
    (body,) = [f.body for f in frames if f.kind is Kind.KEY_LIST]
    listed = KeyList.decode(body, sender="c", graph=cast.parties.terms.graph, sites=4)
    # after *ready* and the group's key
    assert listed.frames == tuple(lines.up[name][2] for name in "ABCD")


def test_a_round_over_other_sites_than_the_studys_does_not_exist(start: Start) -> None:
    study = make_study("ABCDE", min_sites=5)
    plan, _ = start(study)
    keys = {name: Identity.generate().public for name in "ABCDE"}
    server = Identity.generate().public
    Parties(study, plan, keys, server)
    for wrong in ("ABC", "ABCDF", "BACDE", "ABCDEF"):
        others = {name: keys.get(name, keys["A"]) for name in wrong}
        with pytest.raises(StudyError, match="identities"):
            Parties(study, plan, others, server)
    with pytest.raises(StudyError, match="federated"):
        Parties(make_study(method="local"), plan, keys, server)


def test_terms_and_thresholds_are_the_studys(start: Start) -> None:
    study = make_study("ABCDEFG", colluders=2, max_reused_states=1)
    plan, state = start(study)
    parties = Cast(study, plan).parties
    terms = parties.terms
    assert (terms.sites, terms.threshold, terms.colluders, terms.max_reused_states) == (7, 5, 2, 1)
    assert parties.threshold == 5
    setting = parties.setting(state, 3)
    # one chunk of 16-bit values: a tag of four limbs (VS-2.3)
    assert (setting.binding.attempt, setting.binding.phase) == (3, 1)
    assert setting.count == plan.length + 4
    unverified = Cast(make_study("ABCDEFG", verified_sum=False), plan).parties
    assert unverified.setting(state, 3).count == plan.length
    assert setting.terms == terms


def test_identities_are_part_of_what_frames_are_bound_to(start: Start) -> None:
    study = make_study()
    plan, _ = start(study)
    keys = {s.name: Identity.generate().public for s in study.roster}
    server, other = Identity.generate().public, Identity.generate().public
    digests = {
        Parties(study, plan, keys, server).digest,
        Parties(study, plan, keys, other).digest,
        Parties(study, plan, keys | {"A": other}, server).digest,
        Parties(make_study(rounds=9), plan, keys, server).digest,
    }
    assert len(digests) == 4


def test_the_fixtures_vector_has_weights_and_prototypes(start: Start) -> None:
    plan, _ = start(make_study())
    assert plan.length == sum(t.size for t in TENSORS) + 4 * FUSED
