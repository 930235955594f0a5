"""Splits by patient: covering, disjoint, deterministic, and calm when a patient joins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_secure.data.records import SPLITS, Split
from fedbcs_secure.data.splits import assign_splits, split_patients
from fedbcs_secure.errors import DataError

IDS = st.sets(st.text("abcdefgh0123456789", min_size=1, max_size=6), min_size=3, max_size=60)
VALIDATION = st.floats(0.01, 0.49)
TEST = st.floats(0.01, 0.5)


def split(
    ids: set[str] | list[str], validation: float, test: float, seed: int = 0
) -> dict[str, Split]:
    return split_patients(ids, "A", validation_fraction=validation, test_fraction=test, seed=seed)


@given(ids=IDS, validation=VALIDATION, test=TEST, seed=st.integers(0, 2**40))
def test_every_patient_has_one_split_and_every_split_a_patient(
    ids: set[str], validation: float, test: float, seed: int
) -> None:
    splits = split(ids, validation, test, seed)
    assert set(splits) == ids
    assert set(splits.values()) == {"train", "validation", "test"}


@given(ids=IDS, validation=VALIDATION, test=TEST)
def test_order_of_the_list_does_not_matter(ids: set[str], validation: float, test: float) -> None:
    assert split(sorted(ids), validation, test) == split(
        sorted(ids, reverse=True), validation, test
    )


@given(ids=IDS, validation=VALIDATION, test=TEST, new=st.text("xyz", min_size=1, max_size=5))
def test_a_new_patient_moves_at_most_two_and_none_from_validation_to_test(
    ids: set[str], validation: float, test: float, new: str
) -> None:
    before = split(ids, validation, test)
    after = split({*ids, new}, validation, test)
    moved = {name: (before[name], after[name]) for name in ids if before[name] != after[name]}
    assert len(moved) <= 2
    assert all("train" in change for change in moved.values())


def test_counts_follow_the_fractions() -> None:
    splits = split([f"P{i}" for i in range(200)], 0.1, 0.2)
    counts = [list(splits.values()).count(name) for name in ("train", "validation", "test")]
    assert counts == [140, 20, 40]


def test_seed_and_site_change_the_split() -> None:
    ids = [f"P{i}" for i in range(100)]
    assert split(ids, 0.1, 0.2, seed=0) != split(ids, 0.1, 0.2, seed=1)
    other = split_patients(ids, "B", validation_fraction=0.1, test_fraction=0.2, seed=0)
    assert split(ids, 0.1, 0.2, seed=0) != other


def test_known_answer() -> None:
    """The order is part of what a study can rely on: it must not change between versions."""
    splits = split([f"P{i}" for i in range(10)], 0.1, 0.2)
    assert {name: s for name, s in splits.items() if s != "train"} == KNOWN


KNOWN: dict[str, Split] = {"P0": "test", "P2": "validation", "P4": "test"}


def test_a_fraction_of_zero_means_no_such_split() -> None:
    assert set(split(["a", "b"], 0, 0.2).values()) == {"train", "test"}
    assert set(split(["a"], 0, 0).values()) == {"train"}


@pytest.mark.parametrize(
    ("ids", "validation", "test", "words"),
    [
        (["a", "b"], 0.1, 0.2, r"2 patient\(s\) for 3 splits.*set data.validation_fraction"),
        ([], 0, 0, r"0 patient\(s\) for 1 splits"),
        (["a", "a", "b"], 0.1, 0.2, "a patient id is listed twice"),
        (["a", "b", "c"], 0.4, 0.6, "expected a sum below 1"),
    ],
)
def test_impossible_splits_say_what_to_do(
    ids: list[str], validation: float, test: float, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        split(ids, validation, test)


def independent(
    stated: dict[str, Split | None], validation: float, test: float, seed: int = 0
) -> dict[str, Split]:
    return assign_splits(
        stated,
        "A",
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
        independent=True,
    )


STATED = st.sampled_from([None, "train", "validation", "test"])


@given(
    stated=st.dictionaries(st.text("abcd0123", min_size=1, max_size=4), STATED, min_size=1),
    validation=VALIDATION,
    test=TEST,
    new=st.text("xyz", min_size=1, max_size=5),
    split=STATED,
)
def test_independent_splits_never_move_anybody_else(
    stated: dict[str, Split | None], validation: float, test: float, new: str, split: Split | None
) -> None:
    if None in stated.values():
        stated, split = dict.fromkeys(stated), None
    elif split is None:
        split = "validation"
    before = independent(stated, validation, test)
    after = independent({**stated, new: split}, validation, test)
    assert {name: after[name] for name in stated} == before
    assert all(before[name] == said for name, said in stated.items() if said is not None)


def test_independent_splits_follow_the_fractions_on_average() -> None:
    splits = independent({f"P{i}": None for i in range(4000)}, 0.1, 0.2)
    counts = {name: list(splits.values()).count(name) / 4000 for name in SPLITS}
    assert counts == {
        "train": pytest.approx(0.7, abs=0.03),
        "validation": pytest.approx(0.1, abs=0.02),
        "test": pytest.approx(0.2, abs=0.03),
    }
    assert set(independent({"a": None, "b": None}, 0, 0).values()) == {"train"}


class TestStated:
    def assign(self, stated: dict[str, Split | None], validation: float = 0.1) -> dict[str, Split]:
        return assign_splits(stated, "A", validation_fraction=validation, test_fraction=0.2, seed=0)

    def test_validation_is_carved_from_train_only(self) -> None:
        stated: dict[str, Split | None] = {f"P{i}": "train" for i in range(30)}
        stated |= {f"T{i}": "test" for i in range(10)}
        splits = self.assign(stated)
        assert [name for name, s in splits.items() if s == "test"] == [f"T{i}" for i in range(10)]
        assert sum(s == "validation" for s in splits.values()) == 3

    def test_what_is_complete_stays(self) -> None:
        stated: dict[str, Split | None] = {"a": "train", "b": "validation", "c": "test"}
        assert self.assign(stated) == stated

    def test_a_single_split_stays_itself(self) -> None:
        assert self.assign({"a": "test", "b": "test"}) == {"a": "test", "b": "test"}
        assert self.assign({"a": "train"}) == {"a": "train"}
        assert set(self.assign({"a": "train", "b": "train"}, 0).values()) == {"train"}

    def test_nothing_stated_is_split_by_hash(self) -> None:
        ids = [f"P{i}" for i in range(20)]
        assert self.assign(dict.fromkeys(ids)) == split(ids, 0.1, 0.2)

    def test_half_stated_is_refused_by_name(self) -> None:
        with pytest.raises(
            DataError, match=r"no split for patient\(s\) b, c: expected one for all"
        ):
            self.assign({"a": "train", "b": None, "c": None})
