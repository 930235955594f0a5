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
