from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbcs_secure.learning.finch import aggregate, cluster_means, finch, published_partition


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a[:, None] == a[None], b[:, None] == b[None]))


def test_matches_the_published_code(finch_golden: Any) -> None:
    inputs = finch_golden.names("in_")
    assert inputs
    for name in inputs:
        key = name.removeprefix("in_")
        rows = finch_golden.arrays[name]
        partition = published_partition(rows)
        expected = finch_golden.arrays[f"partition_{key}"]
        assert _same_partition(partition, expected), key
        # compare in the file's order of clusters, which may be a renaming of ours
        order = [int(partition[expected == i][0]) for i in range(int(expected.max()) + 1)]
        out = torch.from_numpy(aggregate(rows)[order])
        assert finch_golden.abs_error(f"out_{key}", out) <= 2e-6, key


def _definition(rows: np.ndarray) -> np.ndarray:
    """First-neighbour clusters by the adjacency matrix of the definition, as a slow oracle."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    first = similarity.argmax(axis=1)
    n = len(rows)
    joined = np.eye(n, dtype=bool)
    for i in range(n):
        for j in range(n):
            joined[i, j] |= first[i] == j or first[j] == i or first[i] == first[j]
    reach = np.linalg.matrix_power(joined.astype(float), n) > 0
    return reach.argmax(axis=1)


@settings(deadline=None)
@given(st.integers(2, 14), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_finest_partition_is_the_definition(n: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, width))
    assert _same_partition(finch(rows)[0], _definition(rows))


@settings(deadline=None)
@given(st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_partitions_get_coarser_and_keep_two_clusters(n: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, 8))
    partitions = finch(rows)
    for finer, coarser in pairwise(partitions):
        assert 1 < coarser.max() + 1 < finer.max() + 1
        for cluster in range(int(finer.max()) + 1):
            assert len(set(coarser[finer == cluster].tolist())) == 1
    for partition in partitions:
        firsts = [int(np.flatnonzero(partition == i)[0]) for i in range(int(partition.max()) + 1)]
        assert firsts == sorted(firsts)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.permutations(range(12)))
def test_order_of_sites_and_scale_of_rows_do_not_matter(
    n: int, seed: int, permutation: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 6))
    order = np.array([i for i in permutation if i < n])
    assert _same_partition(finch(rows[order])[0], finch(rows)[0][order])
    assert _same_partition(finch(rows * rng.uniform(0.1, 9, (n, 1)))[0], finch(rows)[0])


def test_single_row_is_its_own_prototype() -> None:
    row = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert published_partition(row).tolist() == [0]
    np.testing.assert_array_equal(aggregate(row), row)


def test_two_groups_stay_apart_and_are_averaged_without_weights() -> None:
    rows = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [0, 2]], np.float32)
    assert published_partition(rows).tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(aggregate(rows), [[1, 0.05], [0.1 / 3, 4 / 3]], rtol=1e-6)


def test_a_zero_row_is_clustered_like_any_other() -> None:
    assert published_partition(np.array([[0.0, 0], [1, 0], [1, 0.1]])).max() == 0


def test_cluster_means_follow_the_ids() -> None:
    means = cluster_means(np.array([[1.0], [3.0], [5.0]]), np.array([1, 0, 1]))
    assert means.tolist() == [[3.0], [3.0]]


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan, 1.0]])])
def test_unusable_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite rows"):
        finch(rows)
