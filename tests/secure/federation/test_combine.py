"""The step from state to state: exact, the same for every order, faithful to FedAvg."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from federation_fixtures import FUSED, fake_training, make_study

from fedbcs_protocols.errors import ProtocolError
from fedbcs_secure.errors import FedBCSError, StudyError
from fedbcs_secure.federation.combine import (
    MAX_FALL,
    MAX_GROWTH,
    MAX_RISE,
    MAX_SHRINK,
    initial_state,
    next_state,
)
from fedbcs_secure.federation.layout import Layout, layout, share
from fedbcs_secure.federation.protect import encode, modulus_bits, weighted
from fedbcs_secure.federation.release import Update, form_update
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.finch import aggregate
from fedbcs_secure.learning.weights import TensorSpec
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
DEFAULT_GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN = Path(os.environ.get("FEDBCS_GOLDEN", DEFAULT_GOLDEN))


def total_of(
    study: Study, plan: Layout, state: GlobalState, scale: float = 1e-3, names: str = ""
) -> np.ndarray:
    """The sum over sites ``names``, by default over all."""
    total = np.zeros(plan.length, np.uint32)
    for name in names or [entry.name for entry in study.roster]:
        update = form_update(fake_training(name, state, scale=scale), state, plan, name)
        total += encode(update, state, plan, study, name).codes
    return total & np.uint32((1 << modulus_bits(study)) - 1)


def true_average(study: Study, plan: Layout, state: GlobalState, scale: float = 1e-3) -> np.ndarray:
    return sum(
        share(study, s.name) * fake_training(s.name, state, scale=scale).delta.astype(np.float64)
        for s in study.roster
    )


def test_the_average_is_the_weighted_average_up_to_the_codec(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    after = next_state(state, total_of(study, plan, state), plan, study)
    moved = after.weights.astype(np.float64) - state.weights
    step = 2.0 ** (state.exponents[0] - study.codec.bits + 1)
    expected = true_average(study, plan, state)
    # four stochastic roundings, and float32 addition to weights of size ~3
    assert np.abs(moved - expected).max() < 4 * step + 3e-7
    assert after.round == 1


def test_rounding_is_unbiased_over_rounds_of_the_public_stream(start: Start) -> None:
    study = make_study(codec={"bits": 8})
    plan, state = start(study)
    update = form_update(fake_training("A", state), state, plan, "A")
    codes = []
    for index in range(400):
        later = GlobalState(index, state.weights, state.velocity, (), state.exponents)
        codes.append(encode(update, later, plan, study, "A").codes[: plan.parameters])
    step = 2.0 ** (state.exponents[0] - 7)
    mean = (np.mean(codes, axis=0) - 127) * step
    # standard error of a rounded value is at most step/2/sqrt(400); 6 sigma for 118 values
    error = np.abs(mean - weighted(update, plan, study, "A")[: plan.parameters])
    assert error.max() < 6 * step / 2 / 20


def test_vectors_do_not_depend_on_the_protection(start: Start) -> None:
    vectors = []
    for protection in ("secagg", "none"):
        study = make_study(protection=protection)
        plan, state = start(study)
        update = form_update(fake_training("B", state), state, plan, "B")
        vectors.append(encode(update, state, plan, study, "B").codes)
    assert np.array_equal(*vectors)


def test_server_momentum_is_fedavgm(start: Start) -> None:
    study = make_study(method="fedavg", server_momentum=0.5)
    plan, state = start(study)
    assert state.velocity.shape == state.weights.shape
    one = next_state(state, total_of(study, plan, state), plan, study)
    two = next_state(one, total_of(study, plan, one), plan, study)
    plain = next_state(
        GlobalState(1, one.weights, np.zeros(0, np.float32), (), one.exponents),
        total_of(study, plan, one),
        plan,
        make_study(method="fedavg"),
    )
    # w2 = w1 + 0.5 v1 + average
    expected = plain.weights + np.float32(0.5) * (one.velocity)
    assert np.allclose(two.weights, expected, atol=1e-6)
    assert not np.allclose(two.weights, plain.weights, atol=1e-6)


def test_prototypes_are_means_then_moving_means(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    one = next_state(state, total_of(study, plan, state), plan, study)
    own = {s: fake_training(s, state).prototypes for s in "ABCD"}
    for item in one.prototypes:
        expected = np.mean([own[s][item.view][0][item.label] for s in "ABCD"], axis=0)
        assert np.abs(item.rows[0] - expected).max() < 1e-3
    two = next_state(one, total_of(study, plan, one), plan, study)
    later = {s: fake_training(s, one).prototypes for s in "ABCD"}
    for before, item in zip(one.prototypes, two.prototypes, strict=True):
        new = np.mean([later[s][item.view][0][item.label] for s in "ABCD"], axis=0)
        assert np.abs(item.rows[0] - (before.rows[0] + new) / 2).max() < 1e-3


def test_a_class_without_pixels_today_changes_nothing_visible(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    one = next_state(state, total_of(study, plan, state), plan, study)
    update = form_update(fake_training("C", one, lacking=("C",)), one, plan, "C")
    current = next(p.rows[0] for p in one.prototypes if (p.view, p.label) == (0, 1))
    assert np.array_equal(update.prototypes[0, 1], current)


def test_finch_clusters_each_holders_prototypes(start: Start) -> None:
    study = make_study(protection="none", alignment={"form": "faithful", "prototypes": "finch"})
    plan, state = start(study)
    total, own = np.zeros(plan.length, np.uint32), []
    towards = {"A": 1.0, "B": 1.0, "C": -1.0, "D": -1.0}
    base = np.random.default_rng(3).standard_normal(FUSED).astype(np.float32)
    for entry in study.roster:
        result = fake_training(entry.name, state)
        noise = np.random.default_rng(ord(entry.name)).standard_normal((2, FUSED)) * 0.01
        means = (towards[entry.name] * base + noise).astype(np.float32)
        views = tuple((means, np.array([True, True])) for _ in range(2))
        result = type(result)(result.delta, views, 0.5, 3, 0.0)
        codes = encode(
            form_update(result, state, plan, entry.name), state, plan, study, entry.name
        ).codes
        total += codes
        own.append(codes[plan.parameters :])
    after = next_state(state, total, plan, study, individual=own)
    for item in after.prototypes:
        assert item.rows.shape == (2, FUSED)
        found = sorted(float(row @ base) for row in item.rows)
        assert found[0] < 0 < found[1]
        assert np.abs(np.abs(item.rows) - np.abs(base)).max() < 0.05


@pytest.mark.parametrize("form", ["gentle", "faithful"])
@pytest.mark.parametrize("names", ["BCDEF", "ABCDE", "ACEFG", "ABCDEFG"])
def test_the_average_of_survivors_is_that_of_a_study_of_their_own(
    start: Start, names: str, form: str
) -> None:
    """RO-4.1: a round without some sites moves as if the study had been without them."""
    whole = make_study("ABCDEFG", alignment={"form": form})
    plan, state = start(whole)
    after = next_state(state, total_of(whole, plan, state, names=names), plan, whole, names)
    weights = {s.name: s.weight for s in whole.roster}
    parts = np.array([weights[name] for name in names]) / sum(weights[name] for name in names)
    results = [fake_training(name, state) for name in names]
    moved = after.weights.astype(np.float64) - state.weights
    expected = sum(p * r.delta.astype(np.float64) for p, r in zip(parts, results, strict=True))
    present = sum(share(whole, name) for name in names)
    step = 2.0 ** (state.exponents[0] - whole.codec.bits + 1)
    # a stochastic rounding a site, over the shares that are in; float32 addition to weights of 3
    assert np.abs(moved - expected).max() < len(names) * step / present + 3e-7
    if form == "gentle":
        parts = np.full(len(names), 1 / len(names))
    for slot, item in zip(plan.slots, after.prototypes, strict=True):
        means = [r.prototypes[slot.view][0][slot.label] for r in results]
        wanted = sum(p * m.astype(np.float64) for p, m in zip(parts, means, strict=True))
        assert np.abs(item.rows[0] - wanted).max() < 1e-3


def test_without_a_word_on_survivors_all_are_meant(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    total = total_of(study, plan, state)
    digests = {
        next_state(state, total, plan, study).digest,
        next_state(state, total, plan, study, "ABCD").digest,
        next_state(state, total, plan, study, ["A", "B", "C", "D"]).digest,
    }
    assert len(digests) == 1


def test_who_is_in_the_sum_changes_what_it_means(start: Start) -> None:
    """The same integers over other sites are another state: three zeros lie elsewhere than four."""
    study = make_study()
    plan, state = start(study)
    total = total_of(study, plan, state, names="ABC")
    states = [next_state(state, total, plan, study, names) for names in ("ABC", "ABD", "BCD")]
    assert len({after.digest for after in states}) == 3


def test_momentum_takes_the_survivors_average(start: Start) -> None:
    study = make_study(method="fedavg", server_momentum=0.5)
    plan, state = start(study)
    one = next_state(state, total_of(study, plan, state, names="ABD"), plan, study, "ABD")
    plain = next_state(
        GlobalState(0, state.weights, np.zeros(0, np.float32), (), state.exponents),
        total_of(study, plan, state, names="ABD"),
        plan,
        make_study(method="fedavg"),
        "ABD",
    )
    assert np.array_equal(one.weights, plain.weights)
    two = next_state(one, total_of(study, plan, one, names="BCD"), plan, study, "BCD")
    moved = two.weights.astype(np.float64) - one.weights
    assert np.allclose(two.velocity, moved, atol=3e-7)
    assert not np.allclose(two.velocity - 0.5 * one.velocity, 0, atol=1e-5)


def test_a_value_that_no_sites_can_have_made_counts_as_the_largest(start: Start) -> None:
    """RO-4.5: otherwise one site could end the study with one false value."""
    study = make_study()
    plan, state = start(study)
    total = total_of(study, plan, state, names="ABC")
    total[5] = 3 * (2**16 - 2)
    largest = next_state(state, total.copy(), plan, study, "ABC")
    for false in (total[5] + 1, 2**18 - 1):
        total[5] = false
        kept = total.copy()
        assert next_state(state, total, plan, study, "ABC").digest == largest.digest
        assert np.array_equal(total, kept)
    assert next_state(state, total, plan, study, "ABCD").digest != largest.digest


def test_finch_clusters_the_survivors_alone(start: Start) -> None:
    """Whoever holds the class and is in the sum; shares are undone for each by its own."""
    roster = [
        {"name": s, "weight": float(10 + 5 * i), "steps": 3, "classes": [0, 1] if s != "C" else [0]}
        for i, s in enumerate("ABCDEFG")
    ]
    finch = {"form": "faithful", "prototypes": "finch"}
    study = make_study(protection="none", alignment=finch, roster=roster)
    plan, state = start(study)
    names = "ACDEF"
    own = []
    for name in names:
        update = form_update(fake_training(name, state), state, plan, name)
        own.append(encode(update, state, plan, study, name).codes[plan.parameters :])
    total = total_of(study, plan, state, names=names)
    after = next_state(state, total, plan, study, names, own)
    for slot, item in zip(plan.slots, after.prototypes, strict=True):
        holders = [name for name in names if name in slot.holders]
        assert holders == list("ADEF" if slot.label == 1 else "ACDEF")
        means = [fake_training(n, state).prototypes[slot.view][0][slot.label] for n in holders]
        wanted = aggregate(np.stack(means))
        assert item.rows.shape == wanted.shape
        assert np.abs(item.rows - wanted).max() < 2e-3
    assert np.array_equal(
        after.weights, next_state(state, total, plan, study, names, own[::-1]).weights
    )


def test_ranges_follow_the_sum_but_fall_slowly(start: Start) -> None:
    study = make_study(method="fedavg")
    plan, state = start(study)
    small = next_state(state, total_of(study, plan, state, scale=1e-9), plan, study)
    assert small.exponents == tuple(e - MAX_SHRINK for e in state.exponents)
    resting = small
    for _ in range(12):
        resting = next_state(resting, total_of(study, plan, resting, scale=0), plan, study)
    assert resting.exponents == tuple(e - MAX_FALL for e in state.exponents)
    large = next_state(state, total_of(study, plan, state, scale=1e-2), plan, study)
    assert all(new > old for new, old in zip(large.exponents[:2], state.exponents, strict=False))


def test_made_up_sums_cannot_widen_the_ranges_without_end(start: Start) -> None:
    study = make_study(method="fedavg")
    plan, first = start(study)
    largest = np.full(plan.length, len(study.roster) * (2**16 - 2), np.uint32)
    state, seen = first, []
    for _ in range(6):
        state = next_state(state, largest, plan, study)
        seen.append(state.exponents[0] - first.exponents[0])
    assert seen == [4, 8, 10, 10, 10, 10]
    assert (MAX_GROWTH, MAX_RISE, MAX_SHRINK, MAX_FALL) == (4, 10, 2, 16)


def test_ranges_stay_inside_the_codec(start: Start) -> None:
    study = make_study(method="fedavg", codec={"initial_update_range": 2.0**-70})
    plan, state = start(study)
    zeros = np.full(plan.length, len(study.roster) * (2**15 - 1), np.uint32)
    for _ in range(8):
        state = next_state(state, zeros, plan, study)
    assert set(state.exponents) == {-80}
    with pytest.raises(StudyError, match="initial range"):
        start(make_study(method="fedavg", codec={"initial_update_range": 1e-30}))


def test_subnormal_numbers_become_zero(start: Start) -> None:
    study = make_study(method="fedavg", server_momentum=0.5)
    plan, state = start(study)
    tiny = np.full(plan.parameters, 1e-40, np.float32)
    state = GlobalState(0, state.weights, tiny, (), state.exponents)
    zeros = np.full(plan.length, len(study.roster) * (2**15 - 1), np.uint32)
    assert not next_state(state, zeros, plan, study).velocity.any()


def test_each_site_and_round_has_its_own_rounding(start: Start) -> None:
    study = make_study(method="fedavg")
    plan, state = start(study)
    update = Update(0, np.full(plan.parameters, 1e-5, np.float32), {})
    equal_shares = make_study(method="fedavg", roster=[
        {"name": s, "weight": 1.0, "steps": 3, "classes": [0, 1]} for s in "ABCD"
    ])  # fmt: skip
    later = GlobalState(1, state.weights, state.velocity, (), state.exponents)
    other_seed = equal_shares.model_copy(update={"seed": 1})
    codes = [
        encode(update, state, plan, equal_shares, "A").codes,
        encode(update, state, plan, equal_shares, "B").codes,
        encode(update, later, plan, equal_shares, "A").codes,
        encode(update, state, plan, other_seed, "A").codes,
    ]
    for i, one in enumerate(codes):
        for another in codes[:i]:
            assert not np.array_equal(one, another)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_not_formed(start: Start, bad: float) -> None:
    study = make_study(method="fedavg")
    plan, state = start(study)
    result = fake_training("A", state)
    result.delta[3] = bad
    with pytest.raises(FedBCSError, match="not finite"):
        form_update(result, state, plan, "A")


def test_a_wrong_length_is_refused(start: Start) -> None:
    study = make_study()
    plan, state = start(study)
    with pytest.raises(ProtocolError):
        next_state(state, total_of(study, plan, state)[:-1], plan, study)


golden_files = sorted(GOLDEN.glob("fedavg_*.npz"))
if GOLDEN == DEFAULT_GOLDEN and not golden_files:
    raise FileNotFoundError(f"no fedavg_*.npz in {GOLDEN}")


@pytest.mark.parametrize("path", golden_files, ids=lambda p: p.stem)
def test_golden_fedavg(path: Path) -> None:
    """The sum of the sites' weighted terms is the published FedAvg; quantised, within the codec."""
    data = np.load(path, allow_pickle=False)
    names = [k.removeprefix("global_") for k in data.files if k.startswith("global_")]
    tensors = tuple(TensorSpec(n, data[f"global_{n}"].shape) for n in names)
    roster = [
        {"name": f"s{j}", "weight": float(size), "steps": 1, "classes": [0, 1]}
        for j, size in enumerate(data["sizes"])
    ]
    study = make_study(
        method="fedavg",
        roster=roster,
        protection="none",
        min_sites=1,
        codec={"bits": 24, "initial_update_range": 8.0},
    )
    plan = layout(study, tensors, 0)
    state = initial_state(study, plan, np.zeros(plan.parameters, np.float32))
    exact, total = np.zeros(plan.parameters, np.float64), np.zeros(plan.length, np.uint32)
    for j, entry in enumerate(study.roster):
        flat = np.concatenate([data[f"client{j}_{n}"].reshape(-1) for n in names])
        update = Update(0, flat.astype(np.float32), {})
        exact += weighted(update, plan, study, entry.name)
        total += encode(update, state, plan, study, entry.name).codes
    expected = np.concatenate([data[f"global_{n}"].reshape(-1) for n in names])
    assert np.abs(exact - expected).max() <= 1e-6
    after = next_state(state, total, plan, study)
    assert np.abs(after.weights - expected).max() <= 1e-6 + len(roster) * 8.0 * 2.0**-23
