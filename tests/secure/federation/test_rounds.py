"""Rounds over the channel: equal under every protection, and nothing readable on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from federation_fixtures import fake_training, make_study
from scipy import stats

from fedbcs_protocols.errors import (
    BadSignature,
    PeerError,
    ProtocolError,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.messages import MaskedInput
from fedbcs_protocols.ring import unpack
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.memory import MemoryChannel, MemoryFederation
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import Parties, RoundCombiner, SiteRunner
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


def test_a_second_start_in_the_round_is_refused(start: Start) -> None:
    combiner, tap, sites, state = sites_reply(start)
    combiner.run(tap, state)
    following = combiner.run  # the next round's frames, taken apart below
    state = sites["A"].state
    frame = None

    class Once:
        def broadcast(self, data: bytes) -> Iterator[tuple[str, bytes]]:
            nonlocal frame
            frame = data
            yield "A", sites["A"].handle(data)

    with pytest.raises(ProtocolError):
        following(Once(), state)
    assert frame is not None
    with pytest.raises(UnexpectedFrame, match="started already"):
        sites["A"].handle(frame)


def test_stages_out_of_order_are_refused(start: Start) -> None:
    combiner, tap, _, state = sites_reply(start)
    combiner.run(tap, state)
    _, opening, key_list, closing = tap.down
    fresh_combiner, _, fresh, state = sites_reply(start)
    # The frames are another federation's: first the signature, so use this one's own identity.
    del fresh_combiner
    with pytest.raises(BadSignature):
        fresh["A"].handle(opening)
    for late in (opening, key_list, closing):
        with pytest.raises(PeerError):
            fresh["B"].handle(late)


def test_a_frame_of_another_sites_line_is_refused(start: Start) -> None:
    combiner, _, sites, state = sites_reply(start)

    class Crossed:
        def broadcast(self, frame: bytes) -> Iterator[tuple[str, bytes]]:
            replies = {name: site.handle(frame) for name, site in sites.items()}
            replies["A"], replies["B"] = replies["B"], replies["A"]
            yield from replies.items()

    with pytest.raises(UnexpectedFrame, match="line of"):
        combiner.run(Crossed(), state)


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
