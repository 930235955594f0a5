"""Neighbourhoods: the bounds that they keep, and that nothing smaller keeps them."""

from __future__ import annotations

import ast
import inspect

import pytest
from graph_bounds import is_connected, log_two_attempts, thresholds
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import graph
from fedbcs_protocols.secagg.graph import COMPLETE_UP_TO, Neighbourhood, neighbourhood

TYPICAL = [(n, n - n // 10, n // 5) for n in (33, 64, 100, 200, 500, 1000)]
OTHERS = [(64, 44, 12), (64, 52, 12), (100, 80, 20), (1000, 900, 0), (64, 58, 0), (64, 64, 1)]
SLACK = 2.0
"""Bits by which the rounding may make a bound in G3 or G4 too large."""


@pytest.mark.parametrize("setting", TYPICAL + OTHERS)
def test_the_bounds_hold_and_nothing_smaller_keeps_them(setting: tuple[int, int, int]) -> None:
    n, t, c = setting
    found = neighbourhood(*setting)
    assert not found.complete
    least, greatest = thresholds(n, t, c, found.size)
    assert least <= found.threshold <= greatest
    assert log_two_attempts(*setting, found.size, found.threshold) <= -40
    assert is_connected(*setting, found.size)
    # The smallest t_k of this k.
    for local in range(least, found.threshold):
        assert log_two_attempts(*setting, found.size, local) > -40 - SLACK
    # The smallest k: for each below, G1 and G2 leave no room, or G3 or G4 fails.
    for k in range(1, found.size):
        least, greatest = thresholds(n, t, c, k)
        assert (
            least > greatest
            or log_two_attempts(*setting, k, greatest) > -40 - SLACK
            or not is_connected(*setting, k, slack=SLACK)
        )


@pytest.mark.parametrize(
    ("setting", "size", "threshold"),
    [
        ((33, 30, 6), 13, 10),
        ((64, 58, 12), 25, 19),
        ((100, 90, 20), 41, 31),
        ((200, 180, 40), 75, 56),
        ((500, 450, 100), 113, 84),
        ((1000, 900, 200), 138, 102),
        ((1024, 922, 204), 138, 102),
        ((64, 44, 12), 57, 37),
    ],
)
def test_known_neighbourhoods(setting: tuple[int, int, int], size: int, threshold: int) -> None:
    assert neighbourhood(*setting) == Neighbourhood(size, threshold, complete=False)


@given(st.integers(33, 150), st.data())
def test_every_setting_gives_a_safe_neighbourhood(sites: int, data: st.DataObject) -> None:
    colluders = data.draw(st.integers(0, sites - 2))
    threshold = data.draw(st.integers((sites + colluders) // 2 + 1, sites))
    found = neighbourhood(sites, threshold, colluders)
    if found.complete:
        assert (found.size, found.threshold) == (sites, threshold)
        return
    least, greatest = thresholds(sites, threshold, colluders, found.size)
    assert found.size < sites - 1
    assert least <= found.threshold <= greatest <= found.size
    assert log_two_attempts(sites, threshold, colluders, found.size, found.threshold) <= -40 + 1e-6
    assert is_connected(sites, threshold, colluders, found.size)


@given(st.integers(1, COMPLETE_UP_TO), st.data())
def test_few_sites_have_the_complete_graph(sites: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, sites))
    colluders = data.draw(st.integers(0, sites - 1))
    expected = Neighbourhood(sites, threshold, complete=True)
    assert neighbourhood(sites, threshold, colluders) == expected


@pytest.mark.parametrize(
    "setting",
    [(64, 39, 12), (40, 24, 4), (64, 38, 12), (100, 1, 0), (33, 33, 32), (1000, 600, 200)],
)
def test_where_nothing_smaller_is_safe_the_graph_is_complete(
    setting: tuple[int, int, int],
) -> None:
    assert neighbourhood(*setting) == Neighbourhood(setting[0], setting[1], complete=True)


def test_neighbourhoods_grow_less_than_the_study() -> None:
    sizes = [neighbourhood(*setting).size for setting in TYPICAL]
    shares = [size / setting[0] for size, setting in zip(sizes, TYPICAL, strict=True)]
    assert sizes == sorted(sizes)
    # From a hundred sites to a thousand.
    assert sizes[-1] < 4 * sizes[2]
    assert shares[2:] == sorted(shares[2:], reverse=True)


@pytest.mark.parametrize(
    "setting",
    [(0, 1, 0), (1025, 1000, 10), (50, 0, 5), (50, 51, 5), (50, 40, -1), (50, 40, 50)],
)
def test_numbers_out_of_range(setting: tuple[int, int, int]) -> None:
    with pytest.raises(LocalError, match="got"):
        neighbourhood(*setting)


def test_no_float_decides() -> None:
    for node in ast.walk(ast.parse(inspect.getsource(graph))):
        assert not isinstance(node, ast.Div)
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not (isinstance(node, ast.Name) and node.id == "float")
