"""Whole sums of honest parties, with sites that vanish at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from protected_sum import STAGES, Cast, answer, make_cast, run_sum

from fedbcs_protocols import codec
from fedbcs_protocols.errors import Refused, TooFewSites, WrongBinding
from fedbcs_protocols.ring import ring_bits
from fedbcs_protocols.secagg import CombinerSession, SiteSession, open_sum
from fedbcs_protocols.secagg.setting import is_safe
from fedbcs_protocols.secagg.states import CombinerState, SiteState

Vectors = Mapping[str, NDArray[np.uint32]]
Drops = dict[str, set[str]]

SAFE = [
    (n, t, c)
    for n in range(3, 10)
    for t in range(2, n + 1)
    for c in range(1, n)
    if is_safe(n, t, c)
]


def _plain(vectors: Vectors, names: Sequence[str]) -> list[int]:
    """The sum by Python's integers, which do not wrap."""
    return [sum(column) for column in zip(*(vectors[n].tolist() for n in names), strict=True)]


def _run(
    cast: Cast, vectors: Vectors, drops: Drops, order: Any
) -> tuple[CombinerSession, dict[str, SiteSession], list[int], TooFewSites | None]:
    """As :func:`run_sum`, frames in any order; how many answered each stage; how it failed."""
    combiner, sessions = cast.combine(), cast.all_sites()
    gone: set[str] = set()
    answered: list[int] = []
    for stage in STAGES:
        gone |= drops.get(stage, set())
        names = [name for name in combiner.expected if name not in gone]
        order.shuffle(names)
        for name in names:
            request = combiner.requests.get(name, b"")
            combiner.receive(answer(sessions[name], stage, request, vectors[name]))
        answered.append(len(names))
        try:
            combiner.close()
        except TooFewSites as error:
            return combiner, sessions, answered, error
    return combiner, sessions, answered, None


@st.composite
def _dropping(draw: Any, names: Sequence[str], most: int) -> Drops:
    """A stage for each of at most ``most`` sites, before whose frame it vanishes."""
    gone = draw(st.lists(st.sampled_from(names), unique=True, max_size=most))
    drops: Drops = {stage: set() for stage in STAGES}
    for name in gone:
        drops[draw(st.sampled_from(STAGES))].add(name)
    return drops


def _check(cast: Cast, combiner: CombinerSession, vectors: Vectors, drops: Drops) -> None:
    before = set().union(*(drops.get(stage, set()) for stage in STAGES[:3]))
    survivors = tuple(name for name in cast.sites if name not in before)
    assert combiner.state is CombinerState.COMPLETE
    assert combiner.survivors == survivors
    expected = _plain(vectors, survivors)
    assert combiner.total().tolist() == expected
    # Every site can read it, also one that has left.
    outcome = open_sum(combiner.sum_frame(), cast.setting, {})
    assert (outcome.survivors, outcome.total.tolist()) == (survivors, expected)


@given(
    st.sampled_from(SAFE),
    st.integers(8, 16),
    st.integers(1, 80),
    st.data(),
    st.randoms(use_true_random=False),
)
@settings(max_examples=120)
def test_the_sum_is_exact_under_any_drop_outs(
    setting: tuple[int, int, int], bits: int, count: int, data: st.DataObject, random: Any
) -> None:
    """At least t sites stay: the exact sum. Fewer: no sum, and a new attempt if that is safe."""
    sites, threshold, colluders = setting
    cast = make_cast(sites, threshold, colluders, bits=ring_bits(bits, sites), count=count)
    vectors = {
        name: np.array([random.randint(0, 2**bits - 1) for _ in range(count)], np.uint32)
        for name in cast.sites
    }
    drops = data.draw(_dropping(tuple(cast.sites), sites))
    combiner, sessions, answered, error = _run(cast, vectors, drops, random)
    if min(answered) >= threshold:
        assert error is None
        _check(cast, combiner, vectors, drops)
        return

    # The attempt ends at the first stage with too few, with that error and no other.
    assert error is not None
    assert combiner.state is CombinerState.FAILED
    assert all(number >= threshold for number in answered[:-1])
    assert answered[-1] < threshold
    asked = {name for name, session in sessions.items() if session.state is SiteState.ANSWERED}
    again = cast.changed(attempt=1)
    if len(answered) < len(STAGES):
        assert not asked
        written = [marks.read() for marks in cast.marks.values()]
        assert not any(marks.answers for marks in written if marks is not None)
        combiner, _, _, error = _run(again, vectors, {}, random)
        assert error is None
        _check(again, combiner, vectors, {})
        return
    # Some were asked and answered: those do not begin another attempt on this state.
    for name in cast.sites:
        if name in asked:
            with pytest.raises(Refused, match="has answered"):
                again.site(name).advertise()
        else:
            again.site(name).advertise()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("count", [1, 2])
def test_drop_outs_in_one_stage(stage: str, count: int) -> None:
    """Every stage for certain, whatever Hypothesis chose above."""
    cast = make_cast(7, 5, 1)
    drops = {stage: {f"site{2 * i + 1}" for i in range(count)}}
    vectors = cast.vectors()
    _check(cast, run_sum(cast, vectors, drops), vectors, drops)


def test_one_drop_out_in_every_stage() -> None:
    cast = make_cast(9, 6, 2)
    drops = {"share": {"site0"}, "masked_input": {"site4"}, "unmask": {"site8"}}
    vectors = cast.vectors()
    _check(cast, run_sum(cast, vectors, drops), vectors, drops)


@given(st.data(), st.randoms(use_true_random=False))
@settings(max_examples=4)
def test_the_sum_is_exact_in_a_sparse_graph(data: st.DataObject, random: Any) -> None:
    cast = make_cast(40, 37, 3, bits=24, count=5)
    assert not cast.terms.graph.complete
    vectors = {
        name: np.array([random.randint(0, 2**24 // 40 - 1) for _ in range(5)], np.uint32)
        for name in cast.sites
    }
    drops = data.draw(_dropping(tuple(cast.sites), 3))
    combiner, _, answered, error = _run(cast, vectors, drops, random)
    assert error is None, answered
    _check(cast, combiner, vectors, drops)


def test_a_sparse_graph_with_drop_outs_in_every_stage() -> None:
    """With k = 11 and t_k = 8 three holders may be missing, so no draw can make this fail."""
    cast = make_cast(40, 37, 3, bits=24, count=5)
    graph = cast.terms.graph
    assert graph.size - graph.threshold >= 3
    drops = {"share": {"site3"}, "masked_input": {"site39"}, "unmask": {"site17"}}
    vectors = cast.vectors()
    _check(cast, run_sum(cast, vectors, drops), vectors, drops)


@pytest.mark.parametrize(
    ("sites", "bits"), [(3, 8), (3, 32), (5, 31), (7, 17), (9, 32), (32, 32), (33, 32)]
)
def test_the_largest_values_do_not_wrap(sites: int, bits: int) -> None:
    # Above 32 sites as few neighbours as can be, for the time it takes.
    terms = (sites, sites - 1, 1) if sites > 9 else (sites,)
    cast = make_cast(*terms, bits=bits, count=40)
    largest = ((1 << bits) - 1) // sites
    vectors = {name: np.full(40, largest, np.uint32) for name in cast.sites}
    total = run_sum(cast, vectors).total().tolist()
    assert total == [sites * largest] * 40
    assert total[0] < 1 << bits


def test_floats_through_the_whole_line() -> None:
    cast = make_cast(4, bits=18, count=70)
    random = np.random.default_rng(0)
    segments = [codec.Segment("a", 0, 30), codec.Segment("b", 30, 40)]
    exponents = [2, 0]
    updates = {name: random.standard_normal(70).astype(np.float32) * 0.1 for name in cast.sites}
    words = random.integers(0, 2**16, 70, dtype=np.uint16)
    codes = {
        name: codec.quantise(update, segments, exponents, 16, words).codes
        for name, update in updates.items()
    }
    total = codec.dequantise_sum(run_sum(cast, codes).total(), 4, segments, exponents, 16)
    in_the_clear = sum(codec.dequantise_sum(c, 1, segments, exponents, 16) for c in codes.values())
    assert np.array_equal(total, in_the_clear)
    assert np.abs(total - sum(u.astype(np.float64) for u in updates.values())).max() < 4 * 2**-13


def test_a_vector_is_left_as_it_is() -> None:
    cast = make_cast()
    vectors = cast.vectors()
    kept = {name: vector.copy() for name, vector in vectors.items()}
    run_sum(cast, vectors)
    assert all(np.array_equal(vectors[name], kept[name]) for name in kept)


def test_a_site_in_another_state_is_told_so_at_once() -> None:
    """Its frames are for another binding; the others finish without it."""
    cast = make_cast(5)
    vectors = cast.vectors()
    sites = cast.all_sites()
    sites["site2"] = cast.changed(state_digest=bytes(32)).site("site2")
    with pytest.raises(WrongBinding, match="state digest is not the one"):
        run_sum(cast, vectors, sites=sites)
    drops = {"advertise": {"site2"}}
    cast = make_cast(5)
    _check(cast, run_sum(cast, vectors, drops), vectors, drops)


def test_rounds_one_after_another() -> None:
    cast = make_cast(5)
    for number in range(3, 6):
        here = cast.changed(round=number, state_digest=bytes([number]) * 32)
        for phase in (1, 2):
            there = here.changed(phase=phase)
            vectors = there.vectors(seed=number)
            drops = {"masked_input": {f"site{number - 3}"}}
            _check(there, run_sum(there, vectors, drops), vectors, drops)
