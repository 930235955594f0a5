"""Rounds over the channel: equal under every protection, and nothing readable on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from federation_fixtures import fake_training, make_study
from scipy import stats

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.errors import (
    BadSignature,
    PeerError,
    ProtocolError,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast
from fedbcs_protocols.ring import pack, unpack
from fedbcs_protocols.secagg import CombinerSession
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.combiner import RoundCombiner
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.memory import MemoryChannel, MemoryFederation
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import CONTROL, SUM, Parties
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
ANYTHING = dict.fromkeys(Kind, 1 << 30)


class Tap:
    """A channel that keeps copies of what passes, as a curious server would."""

    def __init__(self, inner: MemoryChannel) -> None:
        self.inner = inner
        self.down: list[bytes] = []
        self.up: dict[str, list[bytes]] = {}

    def broadcast(self, frame: bytes) -> Iterator[tuple[str, bytes]]:
        self.down.append(frame)
        for site, reply in self.inner.broadcast(frame):
            self.up.setdefault(site, []).append(reply)
            yield site, reply


def assemble(study: Study, plan: Layout, state: GlobalState) -> tuple[RoundCombiner, Tap, dict]:
    identities = {s.name: Identity.generate() for s in study.roster}
    server = Identity.generate()
    parties = Parties(
        study,
        plan,
        {name: identity.public for name, identity in identities.items()},
        server.public,
    )
    sites = {
        name: SiteRunner(name, identity, parties, state, fake_training)
        for name, identity in identities.items()
    }
    return RoundCombiner(server, parties), Tap(MemoryChannel(sites)), sites


@pytest.mark.parametrize("method", ["fedbcs", "fedavg"])
@pytest.mark.parametrize("names", ["ABC", "ABCD", "ABCDEFGHI"])
def test_secagg_and_none_give_the_same_state_bit_for_bit(
    start: Start, method: str, names: str
) -> None:
    digests = []
    for protection in ("secagg", "none"):
        study = make_study(names, method=method, protection=protection, server_momentum=0.5)
        plan, state = start(study)
        federation = MemoryFederation(study, plan, fake_training)
        for _ in range(3):
            state = federation.run_round(state).state
        digests.append(state.digest)
    assert digests[0] == digests[1]


def test_every_site_reaches_the_combiners_state(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    combiner, tap, sites = assemble(study, plan, state)
    following = combiner.run(tap, state)
    assert {site.state.digest for site in sites.values()} == {following.digest}
    assert following.round == 1


def test_the_server_sees_no_sites_vector(start: Start) -> None:
    """The masked vector is not the site's, and its values are uniform in the ring."""
    study = make_study(codec={"bits": 8})
    plan, state = start(study)
    combiner, tap, _ = assemble(study, plan, state)
    combiner.run(tap, state)
    seen = []
    for site in "ABCD":
        (frame,) = [
            f for f in (decode(r, ANYTHING) for r in tap.up[site]) if f.kind is Kind.MASKED_INPUT
        ]
        shape = combiner._parties.shape
        packed = MaskedInput.decode(frame.body, sender=site, shape=shape).packed
        masked = unpack(packed, shape.count, shape.bits)
        own = encode(
            form_update(fake_training(site, state), state, plan, site), state, plan, study, site
        ).codes
        assert np.mean(masked == own) < 0.05
        seen.append(masked)
    high_bits = np.concatenate(seen) >> 6  # 10-bit ring: 16 bins
    counts = np.bincount(high_bits, minlength=16)
    # fresh keys each time, so a false alarm once in a million runs
    assert stats.chisquare(counts).pvalue > 1e-6


def test_what_a_site_sends_besides_does_not_depend_on_its_data(start: Start) -> None:
    """All frames but the masked vector have constant length and no body but a fresh key."""
    study = make_study()
    plan, state = start(study)
    combiner, tap, _ = assemble(study, plan, state)
    combiner.run(tap, state)
    for replies in tap.up.values():
        frames = [decode(r, ANYTHING) for r in replies]
        assert [f.kind for f in frames] == [
            Kind.READY,
            Kind.ADVERTISE,
            Kind.MASKED_INPUT,
            Kind.ACCEPTED,
        ]
        assert [len(f.body) for f in frames] == [
            0,
            32,
            combiner._parties.shape.body_bytes,
            0,
        ]


def test_mask_keys_are_fresh_in_every_round(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    combiner, tap, _ = assemble(study, plan, state)
    for _ in range(3):
        state = combiner.run(tap, state)
    keys = [
        bytes(f.body)
        for replies in tap.up.values()
        for f in (decode(r, ANYTHING) for r in replies)
        if f.kind is Kind.ADVERTISE
    ]
    assert len(set(keys)) == len(keys) == 12


def test_upload_is_m_bits_a_value(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    outcome = MemoryFederation(study, plan, fake_training).run_round(state)
    packed = -(-plan.length // 32) * 4 * 18
    assert packed < outcome.bytes_up < packed + 1500


def sites_reply(start: Start) -> tuple[RoundCombiner, Tap, dict, GlobalState]:
    study = make_study()
    plan, state = start(study)
    return (*assemble(study, plan, state), state)


def test_a_replayed_start_is_refused(start: Start) -> None:
    combiner, tap, sites, state = sites_reply(start)
    combiner.run(tap, state)
    with pytest.raises(WrongBinding, match="round"):
        sites["A"].handle(tap.down[0])


def taken_apart(start: Start, **values: object) -> tuple[Identity, Parties, dict, GlobalState]:
    """Sites, and the server's identity to sign frames with as one pleases."""
    study = make_study(**values)
    plan, state = start(study)
    identities = {s.name: Identity.generate() for s in study.roster}
    server = Identity.generate()
    parties = Parties(study, plan, {n: i.public for n, i in identities.items()}, server.public)
    sites = {n: SiteRunner(n, i, parties, state, fake_training) for n, i in identities.items()}
    return server, parties, sites, state


def frame(
    server: Identity, binding: Binding, kind: Kind, sequence: int, body: bytes = b""
) -> bytes:
    return seal(Frame(kind, binding, COMBINER, sequence, body), server)


def forged_sum(server: Identity, parties: Parties, state: GlobalState) -> bytes:
    total = np.full(parties.shape.count, 4 * (2**15 - 1) + 9, np.uint32)
    body = SumBroadcast(parties.shape, pack(total, parties.shape.bits)).encode()
    return frame(server, parties.binding(state, SUM), Kind.SUM, 1, body)


def test_a_second_start_or_open_in_a_round_is_refused(start: Start) -> None:
    server, parties, sites, state = taken_apart(start)
    control = parties.binding(state, CONTROL)
    starting = frame(server, control, Kind.START, 0)
    opening = frame(server, control, Kind.OPEN, 1)
    with pytest.raises(UnexpectedFrame, match="has not been started"):
        sites["A"].handle(opening)
    sites["A"].handle(starting)
    with pytest.raises(UnexpectedFrame, match="started already"):
        sites["A"].handle(starting)
    sites["A"].handle(opening)
    with pytest.raises(UnexpectedFrame, match="opened already"):
        sites["A"].handle(opening)


@pytest.mark.parametrize("protection", ["secagg", "none"])
def test_a_sum_without_this_sites_part_is_refused(start: Start, protection: str) -> None:
    server, parties, sites, state = taken_apart(start, protection=protection)
    forged = forged_sum(server, parties, state)
    with pytest.raises(UnexpectedFrame, match="not been started"):
        sites["A"].handle(forged)
    sites["A"].handle(frame(server, parties.binding(state, CONTROL), Kind.START, 0))
    with pytest.raises(UnexpectedFrame, match="no part in"):
        sites["A"].handle(forged)
    assert sites["A"].state.digest == state.digest


def test_a_sum_before_the_masked_input_is_refused(start: Start) -> None:
    server, parties, sites, state = taken_apart(start)
    control = parties.binding(state, CONTROL)
    sites["A"].handle(frame(server, control, Kind.START, 0))
    sites["A"].handle(frame(server, control, Kind.OPEN, 1))
    with pytest.raises(ProtocolError):
        sites["A"].handle(forged_sum(server, parties, state))
    assert sites["A"].state.digest == state.digest


@pytest.mark.parametrize(
    ("phase", "sequence", "field"), [(SUM, 0, "phase"), (CONTROL, 1, "sequence")]
)
def test_phase_and_sequence_are_checked(
    start: Start, phase: int, sequence: int, field: str
) -> None:
    server, parties, sites, state = taken_apart(start)
    wrong = frame(server, parties.binding(state, phase), Kind.START, sequence)
    with pytest.raises(WrongBinding, match=field):
        sites["A"].handle(wrong)


def test_the_combiner_checks_sequences_too(start: Start) -> None:
    combiner, _, sites, state = sites_reply(start)

    class Renumbered:
        def broadcast(self, data: bytes) -> Iterator[tuple[str, bytes]]:
            for name, site in sites.items():
                reply = decode(site.handle(data), ANYTHING)
                changed = Frame(reply.kind, reply.binding, name, reply.sequence + 1, reply.body)
                yield name, seal(changed, site._identity)

    with pytest.raises(WrongBinding, match="sequence"):
        combiner.run(Renumbered(), state)


def test_no_training_after_the_studys_last_round(start: Start) -> None:
    study = make_study(rounds=1)
    plan, state = start(study)
    combiner, tap, _ = assemble(study, plan, state)
    state = combiner.run(tap, state)
    with pytest.raises(UnexpectedFrame, match="rounds are over"):
        combiner.run(tap, state)


def test_bytes_of_a_stranger_do_not_end_a_sites_part(start: Start) -> None:
    server, parties, sites, state = taken_apart(start)
    control = parties.binding(state, CONTROL)
    replies = {}
    for name, site in sites.items():
        site.handle(frame(server, control, Kind.START, 0))
        replies[name] = site.handle(frame(server, control, Kind.OPEN, 1))
    session = CombinerSession(
        identity=server,
        roster=parties.roster,
        binding=parties.binding(state, SUM),
        bits=parties.shape.bits,
        count=parties.shape.count,
    )
    for reply in replies.values():
        session.receive_advertise(reply)
    key_list = session.key_list()
    stranger = Identity.generate()
    fake = decode(key_list, ANYTHING)
    with pytest.raises(BadSignature):
        sites["A"].handle(seal(Frame(fake.kind, fake.binding, COMBINER, 0, fake.body), stranger))
    for site in sites.values():
        session.receive_masked(site.handle(key_list))
    closing = session.sum_frame()
    for site in sites.values():
        site.handle(closing)
    assert len({site.state.digest for site in sites.values()}) == 1


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


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_reply_must_come_on_its_own_line(start: Start, stage: int) -> None:
    combiner, _, sites, state = sites_reply(start)

    class Crossed:
        calls = 0

        def broadcast(self, data: bytes) -> Iterator[tuple[str, bytes]]:
            replies = {name: site.handle(data) for name, site in sites.items()}
            if self.calls == stage:
                replies["A"], replies["B"] = replies["B"], replies["A"]
            self.calls += 1
            yield from replies.items()

    with pytest.raises(UnexpectedFrame, match="line of"):
        combiner.run(Crossed(), state)


def test_the_same_site_twice_is_not_two_sites(start: Start) -> None:
    study = make_study(protection="none")
    plan, state = start(study)
    combiner, _, sites = assemble(study, plan, state)

    class Doubled:
        calls = 0

        def broadcast(self, data: bytes) -> Iterator[tuple[str, bytes]]:
            self.calls += 1
            replies = {name: site.handle(data) for name, site in sites.items()}
            if self.calls == 2:
                yield "A", replies["A"]
                yield "A", replies["A"]
                replies.pop("B")
            yield from replies.items()

    with pytest.raises(ProtocolError, match="twice"):
        combiner.run(Doubled(), state)


def test_stages_of_another_federation_are_refused(start: Start) -> None:
    combiner, tap, _, state = sites_reply(start)
    combiner.run(tap, state)
    _, _, fresh, _ = sites_reply(start)
    for late in tap.down[1:]:
        with pytest.raises(PeerError):
            fresh["B"].handle(late)


def test_a_silent_site_ends_the_round_by_name(start: Start) -> None:
    combiner, _, sites, state = sites_reply(start)

    class Silent:
        def broadcast(self, frame: bytes) -> Iterator[tuple[str, bytes]]:
            for name, site in sites.items():
                if name != "C":
                    yield name, site.handle(frame)

    with pytest.raises(ProtocolError, match="C"):
        combiner.run(Silent(), state)


def test_different_states_leave_masks_that_do_not_cancel(start: Start) -> None:
    """A site led astray refuses the very first frame: the state's digest binds it."""
    combiner, tap, sites, state = sites_reply(start)
    weights = state.weights.copy()
    weights[0] += 1
    sites["A"].state = GlobalState(0, weights, state.velocity, (), state.exponents)
    with pytest.raises(WrongBinding, match="state"):
        combiner.run(tap, state)


def test_finch_shows_prototypes_and_only_then(start: Start) -> None:
    study = make_study(protection="none", alignment={"form": "faithful", "prototypes": "finch"})
    plan, state = start(study)
    combiner, tap, sites = assemble(study, plan, state)
    following = combiner.run(tap, state)
    assert {s.state.digest for s in sites.values()} == {following.digest}
    assert all(1 <= len(p.rows) <= 4 for p in following.prototypes)
    kinds = [decode(f, ANYTHING).kind for f in tap.down]
    assert kinds == [Kind.START, Kind.OPEN, Kind.PLAIN_PROTOTYPES, Kind.SUM]


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
