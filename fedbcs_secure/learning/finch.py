"""FINCH, first-neighbour clustering (Sarfraz et al., CVPR 2019), and its use by FedBCS's server.

Rows are joined with their nearest row (cosine distance): i and j share a cluster when one is the
other's first neighbour or both have the same first neighbour. The clusters' means are clustered in
turn, until one is left or nothing merges any more. It has no parameter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.floating]
Partition = NDArray[np.int64]


def _first_neighbour_clusters(rows: NDArray[np.float64]) -> Partition:
    """Cluster ids (n,) in order of first occurrence.

    Two rows with the same first neighbour are both linked to it, so the links from each row to its
    first neighbour already connect all that the definition joins.
    """
    count = len(rows)
    if count == 1:
        return np.zeros(1, np.int64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, np.finfo(np.float64).tiny)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    neighbour = similarity.argmax(axis=1)
    links = coo_array((np.ones(count), (np.arange(count), neighbour)), shape=(count, count))
    return _by_occurrence(connected_components(links, directed=False)[1])


def _by_occurrence(labels: NDArray[np.integer]) -> Partition:
    """The same partition with ids numbered in order of first occurrence."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def cluster_means(rows: Floats, partition: Partition) -> NDArray[np.float64]:
    """Unweighted means (m, D) of the rows of each cluster, in order of cluster id."""
    totals = np.zeros((int(partition.max()) + 1, rows.shape[1]))
    np.add.at(totals, partition, rows.astype(np.float64))
    return totals / np.bincount(partition)[:, None]


def finch(rows: Floats) -> list[Partition]:
    """All partitions of ``rows`` (n, D), finest first; each holds a cluster id for every row.

    The first may have a single cluster, later ones have at least two. Raises ValueError without
    rows or for a row that is not finite.
    """
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"FINCH needs (n, D) finite rows, n >= 1, got {rows.shape}")
    data = rows.astype(np.float64)
    partitions = [_first_neighbour_clusters(data)]
    while True:
        current = partitions[-1]
        merged = _first_neighbour_clusters(cluster_means(data, current))[current]
        if merged.max() in (0, current.max()):
            return partitions
        partitions.append(merged)


def published_partition(rows: Floats) -> Partition:
    """FedBCS's choice: the last partition with more than one cluster, else the first."""
    return finch(rows)[-1]


def aggregate(rows: Floats) -> NDArray[np.float32]:
    """Global prototypes (m, D) of one view and class from the sites' ``rows`` (n, D)."""
    return cluster_means(rows, published_partition(rows)).astype(np.float32)
