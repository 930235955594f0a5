from __future__ import annotations

import math

import pytest
from federation_fixtures import FUSED, TENSORS, make_study
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_secure.federation.layout import (
    ceil_log2,
    initial_exponents,
    layout,
    prototype_share,
    share,
)


def test_weights_then_prototypes_by_view_and_class() -> None:
    study = make_study()
    plan = layout(study, TENSORS, FUSED)
    assert [(s.view, s.label) for s in plan.slots] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert plan.parameters == 108 + 8 + 2
    assert plan.length == plan.parameters + 4 * FUSED == sum(plan.sizes)


def test_a_class_with_too_few_holders_is_left_out() -> None:
    roster = [
        {"name": s, "weight": 1.0, "steps": 1, "classes": [0, 1] if s in "AB" else [0]}
        for s in "ABCD"
    ]
    plan = layout(make_study(roster=roster), TENSORS, FUSED)
    assert [(s.view, s.label) for s in plan.slots] == [(0, 0), (1, 0)]


def _held_by(count: int, sites: int, **values: object) -> list[int]:
    """The classes that are aligned when ``count`` of ``sites`` hold class 1, and all class 0."""
    roster = [
        {"name": f"s{i}", "weight": 1.0, "steps": 1, "classes": [0, 1] if i < count else [0]}
        for i in range(sites)
    ]
    plan = layout(make_study(roster=roster, **values), TENSORS, FUSED)
    return [slot.label for slot in plan.slots if slot.view == 0]


@pytest.mark.parametrize(
    ("sites", "fewest", "values"),
    [
        (3, 3, {}),
        (4, 4, {}),  # one may drop out, and three must be left
        (5, 4, {}),
        (7, 5, {}),
        (9, 6, {}),
        (10, 7, {}),  # two colluders, three may drop out: four must be left
        (7, 3, {"threshold": 7}),
        (7, 4, {"threshold": 6}),
        (7, 7, {"min_sites": 5}),
        (7, 6, {"min_sites": 5, "threshold": 6}),
        (9, 6, {"colluders": 3, "threshold": 8}),
        (7, 5, {"protection": "none"}),
    ],
)
def test_a_class_needs_enough_holders_for_those_that_may_drop_out(
    sites: int, fewest: int, values: dict[str, object]
) -> None:
    assert _held_by(fewest, sites, **values) == [0, 1]
    assert _held_by(fewest - 1, sites, **values) == [0]


@given(st.integers(3, 40), st.data())
def test_of_an_aligned_class_enough_holders_are_left_whoever_drops_out(
    sites: int, data: st.DataObject
) -> None:
    roster = [{"name": f"s{i}", "weight": 1.0, "steps": 1, "classes": [0, 1]} for i in range(sites)]
    study = make_study(roster=roster)
    threshold, colluders = study.terms
    holders = data.draw(st.sets(st.integers(0, sites - 1), min_size=study.fewest_holders))
    survivors = data.draw(st.sets(st.integers(0, sites - 1), min_size=threshold))
    # a sum over at least two that do not collude, and never fewer than the study wants
    assert len(holders & survivors) >= max(colluders + 2, study.min_sites)


def test_no_alignment_no_prototypes() -> None:
    assert layout(make_study(method="fedavg"), TENSORS, 0).slots == ()


def test_shares_add_up_to_one() -> None:
    study = make_study()
    assert math.isclose(sum(share(study, s) for s in "ABCD"), 1)
    assert share(study, "D") == 25 / 70
    slot = layout(study, TENSORS, FUSED).slots[0]
    assert [prototype_share(study, slot, s) for s in "ABCD"] == [0.25] * 4
    faithful = make_study(alignment={"form": "faithful"})
    assert prototype_share(faithful, slot, "D") == 25 / 70
    assert prototype_share(study, slot, "Z") == 0
    with pytest.raises(KeyError):
        share(study, "Z")


def test_initial_ranges_come_from_the_study() -> None:
    study = make_study()
    plan = layout(study, TENSORS, FUSED)
    exponents = initial_exponents(study, plan)
    # adam: 2 * lr * steps * largest share = 2e-3 * 3 * 25/70 = 2.14e-3, in ±2^-8
    assert exponents == (-8, -8, -8, 1, 1, 1, 1)
    fixed = make_study(codec={"initial_update_range": 0.25})
    assert initial_exponents(fixed, plan)[0] == -2


@given(st.floats(2.0**-60, 2.0**60))
def test_ceil_log2_is_the_smallest_exponent(value: float) -> None:
    e = ceil_log2(value)
    assert 2.0**e >= value > 2.0 ** (e - 1)


def test_a_class_of_which_one_site_could_be_nearly_all_is_left_out() -> None:
    """Under faithful alignment the holders' nominal weights count (RO-3.4)."""
    weights = dict.fromkeys("AEFG", 1000.0) | dict.fromkeys("BCD", 10.0)
    roster = [
        {"name": s, "weight": w, "steps": 1, "classes": [0, 1] if s in "ABCD" else [0]}
        for s, w in weights.items()
    ]
    fixed = {"roster": roster, "threshold": 6, "colluders": 1}
    faithful = layout(make_study(alignment={"form": "faithful"}, **fixed), TENSORS, FUSED)
    assert {slot.label for slot in faithful.slots} == {0}
    gentle = layout(make_study(**fixed), TENSORS, FUSED)
    assert {slot.label for slot in gentle.slots} == {0, 1}
