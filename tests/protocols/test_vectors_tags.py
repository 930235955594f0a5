"""Known answers of verified sums, by the package and by the second implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from known_answers import as_binding, load
from second_tags import Tags

from fedbcs_protocols.errors import BadTag
from fedbcs_protocols.tags import Tagger

FILE = load("tags.json")
SECRET, EPOCH = bytes.fromhex(FILE["secret"]), FILE["epoch"]
CASES = pytest.mark.parametrize("case", FILE["cases"], ids=lambda case: case["what"])


def _tagger(case: dict[str, Any]) -> Tagger:
    return Tagger(SECRET, EPOCH, as_binding(FILE["binding"]), case["bits"], case["chunk"])


def _words(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint32)


@CASES
def test_tags_of_sites(case: dict[str, Any]) -> None:
    ours, second = _tagger(case), Tags(SECRET, EPOCH, FILE["binding"], case["bits"], case["chunk"])
    # VS-2.1
    assert second.weights == ours._weights.tolist() == case["weights"]
    for site in case["sites"]:
        name, pads = site["name"], site["pads"]
        # VS-2.2
        assert second.pads(name, len(pads)) == ours.pads(name, len(pads)).tolist() == pads
        # VS-2.3
        assert second.limbs(site["values"], name) == site["limbs"]
        tagged = ours.tagged(_words(site["values"]), name).tolist()
        assert tagged == site["values"] + site["limbs"]


@CASES
def test_sums(case: dict[str, Any]) -> None:
    """VS-3.2, and each way to lie that VS-4.2 names."""
    ours, second = _tagger(case), Tags(SECRET, EPOCH, FILE["binding"], case["bits"], case["chunk"])
    for told in case["sums"]:
        values, limbs, over = told["values"], told["limbs"], told["over"]
        assert second.outcome(values, limbs, over) == told["expect"], told["what"]
        outcome = "ok"
        try:
            ours.check(_words(values), _words(limbs), over)
        except BadTag as error:
            outcome = type(error).__name__
        assert outcome == told["expect"], told["what"]


def test_there_are_lies_of_every_kind() -> None:
    for case in FILE["cases"]:
        expected = [told["expect"] for told in case["sums"]]
        assert expected.count("ok") >= 4
        assert expected.count("BadTag") >= 19
