"""The study document: what it accepts, what it refuses, what its digest covers."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.ckks.params import parameter_set
from fedbcs_protocols.errors import LocalError
from fedbcs_secure.errors import StudyError
from fedbcs_secure.study import Study, build, load

ROSTER = [{"name": name, "weight": 10.0, "steps": 3, "classes": [0, 1]} for name in ("A", "B", "C")]


def many(count: int) -> list[dict[str, object]]:
    return [{**ROSTER[0], "name": f"s{i}"} for i in range(count)]


def test_toml_round_trip_keeps_the_digest() -> None:
    study = build({"method": "fedavg", "roster": ROSTER}).resolved()
    again = build(tomllib.loads(tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))))
    assert again == study
    assert again.digest == study.digest


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 21},
        {"seed": 1},
        {"protection": "none"},
        {"protection": "ckks"},
        {"verified_sum": False},
        {"rekey_every": 2},
        {"model": {"width": 16}},
        {"data": {"size_px": 64}},
        {"codec": {"bits": 12}},
        {"roster": ROSTER},
    ],
)
def test_digest_covers_every_table(change: dict[str, object]) -> None:
    assert build(change).digest != Study().digest


def test_digest_is_sha256_of_canonical_json() -> None:
    text = json.dumps(Study().model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(b"fedbcs-secure study v1\x00" + text.encode()).digest()
    assert Study().digest == expected


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"model": {"depth": 3}}, "model.depth"),
        ({"data": {"size_px": 100}}, "multiple of 16"),
        ({"data": {"classes": 3}}, "list the label values"),
        ({"data": {"classes": 3, "labels": [0, 1]}}, "2 values for 3 classes"),
        ({"data": {"classes": 2, "labels": [0, 0]}}, "twice"),
        ({"data": {"volume": "stack3", "channels": 1}}, "channels = 3"),
        ({"alignment": {"prototypes": "finch"}}, 'protection = "none"'),
        ({"min_sites": 2}, "min_sites of 3"),
        ({"protection": "ckks", "min_sites": 2}, 'protection = "ckks" needs min_sites of 3'),
        ({"protection": "ckks", "alignment": {"prototypes": "finch"}}, 'protection = "none"'),
        ({"protection": "ckks", "roster": ROSTER[:2]}, "2 site(s)"),
        ({"protection": "ckks", "roster": many(300), "codec": {"bits": 24}}, "33 bits"),
        ({"protection": "ckks", "roster": many(4), "threshold": 2}, "from min_sites = 3"),
        (
            {"protection": "ckks", "roster": many(4), "threshold": 3, "colluders": 2},
            "raise threshold to 4",
        ),
        ({"protection": "paillier"}, "protection"),
        ({"verified_sum": "perhaps"}, "verified_sum"),
        ({"verified_sums": True}, "did you mean verified_sum?"),
        ({"rekey_every": 0}, "rekey_every"),
        ({"rekey_every": 1001}, "rekey_every"),
        ({"roster": ROSTER[:2]}, "2 site(s)"),
        ({"roster": [*ROSTER, ROSTER[0]]}, "twice"),
        ({"roster": [*ROSTER, {"name": "D", "weight": 1, "steps": 1, "classes": [2]}]}, "site D"),
        ({"roster": [{"name": "../x", "weight": 1, "steps": 1, "classes": []}]}, "roster.0.name"),
        ({"roster": [*ROSTER[:2], {**ROSTER[2], "weight": 1e6}]}, "100% of the weight"),
        ({"roster": many(300), "codec": {"bits": 24}}, "33 bits"),
        ({"alignment": {"weight": float("inf")}}, "alignment.weight"),
        ({"training": {"prox_mu": float("nan")}}, "training.prox_mu"),
        (
            {
                "protection": "none",
                "alignment": {"prototypes": "finch", "prototype_momentum": 0.5},
            },
            "prototype_momentum",
        ),
        ({"rounds": 0}, "rounds"),
        ({"training": {"lr": -1}}, "training.lr"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(StudyError, match=re.escape(sentence)):
        build(values)


@pytest.mark.parametrize(
    ("values", "shared"),
    [
        ({}, True),
        ({"verified_sum": False}, False),
        ({"protection": "ckks"}, True),
        ({"protection": "ckks", "verified_sum": False}, True),
        ({"protection": "none"}, False),
    ],
)
def test_which_studies_have_a_key_that_the_server_does_not_have(
    values: dict[str, object], shared: bool
) -> None:
    """Sums under ckks are always checked: without tags a refusal would tell too much."""
    assert build(values).group_key is shared


def test_ciphertexts_hold_what_a_ring_holds() -> None:
    """So a study can change from secagg to ckks and back, whatever its roster and bits."""
    for sites in (3, 4, 8, 9, 33, 64, 65, 256, 257, 1024):
        for bits in range(8, 33 - (sites - 1).bit_length()):
            if bits <= 24:
                assert parameter_set(sites, bits).sites == sites


def test_parameters_that_do_not_fit_are_a_mistake_of_the_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_fits(sites: int, bits: int) -> object:
        raise LocalError(f"no parameters for sums of {bits} bits from {sites} sites")

    monkeypatch.setattr("fedbcs_protocols.ckks.params.parameter_set", none_fits)
    with pytest.raises(StudyError) as caught:
        build({"protection": "ckks", "roster": many(4), "codec": {"bits": 20}})
    assert str(caught.value) == (
        "study: no parameters for sums of 20 bits from 4 sites: lower codec.bits, or choose secagg"
    )
    # Nobody else is asked for any.
    assert build({"roster": many(4)}).terms == (3, 1)


def test_the_defaults_are_the_smallest_safe_threshold() -> None:
    for sites in range(3, 33):
        threshold, colluders = build({"roster": many(sites)}).terms
        assert colluders == max(1, sites // 5)
        safe = [t for t in range(sites + 1) if 2 * t > sites + colluders and t >= colluders + 2]
        assert threshold == min(safe)
    # above, a tenth may drop out
    assert build({"roster": many(40), "codec": {"bits": 12}}).terms == (36, 8)


@pytest.mark.parametrize(
    ("sites", "values", "terms"),
    [
        (3, {}, (3, 1)),
        (4, {}, (3, 1)),
        (5, {}, (4, 1)),
        (10, {}, (7, 2)),
        (7, {"colluders": 2}, (5, 2)),
        (7, {"colluders": 4}, (6, 4)),
        (7, {"threshold": 7}, (7, 1)),
        (7, {"threshold": 6, "colluders": 4}, (6, 4)),
        (7, {"min_sites": 6}, (6, 1)),
        (7, {"min_sites": 4}, (5, 1)),
        (4, {"protection": "none", "threshold": 1, "min_sites": 1}, (1, 1)),
        (2, {"protection": "none", "min_sites": 1}, (2, 1)),
        (1, {"protection": "none", "min_sites": 1}, (1, 1)),
    ],
)
def test_terms(sites: int, values: dict[str, object], terms: tuple[int, int]) -> None:
    study = build({"roster": many(sites), **values})
    assert study.terms == terms
    resolved = study.resolved()
    assert (resolved.threshold, resolved.colluders) == resolved.terms == terms
    assert resolved.resolved() == resolved


@pytest.mark.parametrize(
    ("sites", "values", "sentence"),
    [
        (4, {"threshold": 2}, "threshold = 2 must be from min_sites = 3 to the 4 sites"),
        (4, {"threshold": 5}, "threshold = 5 must be from min_sites = 3 to the 4 sites"),
        (7, {"threshold": 4, "min_sites": 5}, "from min_sites = 5"),
        (
            7,
            {"threshold": 4},
            "threshold = 4 of 7 sites is not safe against 1 colluding site(s): "
            "raise threshold to 5 or more",
        ),
        (8, {"threshold": 5, "colluders": 2}, "raise threshold to 6 or more"),
        (6, {"colluders": 5}, "lower colluders, or have more sites"),
        (4, {"colluders": 3}, "is not safe against 3 colluding"),
        (3, {"colluders": 2}, "is not safe against 2 colluding"),
        (5, {"threshold": 2, "protection": "none"}, "from min_sites = 3"),
        (4, {"threshold": 0}, "threshold"),
        (4, {"colluders": 0}, "colluders"),
        (4, {"max_reused_states": -1}, "max_reused_states"),
        (4, {"max_reused_states": 17}, "max_reused_states"),
    ],
)
def test_terms_that_are_not_safe_are_refused(
    sites: int, values: dict[str, object], sentence: str
) -> None:
    with pytest.raises(StudyError, match=re.escape(sentence)):
        build({"roster": many(sites), **values})


def test_without_a_sum_there_are_no_terms_to_check() -> None:
    for values in ({"method": "local"}, {"method": "pooled"}):
        study = build({"roster": many(4), "threshold": 1, **values}).resolved()
        assert (study.threshold, study.colluders) == (1, None)
    # nor before the roster is known
    open_study = build({"threshold": 4}).resolved()
    assert (open_study.threshold, open_study.colluders) == (4, None)


@pytest.mark.parametrize(
    "change", [{"threshold": 5}, {"threshold": 5, "colluders": 2}, {"max_reused_states": 1}]
)
def test_the_digest_covers_the_terms(change: dict[str, object]) -> None:
    roster = many(6)
    plain = build({"roster": roster}).resolved()
    assert build({"roster": roster, **change}).resolved().digest != plain.digest


def test_spelling_out_the_default_terms_changes_nothing() -> None:
    plain = build({"roster": many(6)}).resolved()
    spelt = build({"roster": many(6), "threshold": 4, "colluders": 1}).resolved()
    assert spelt.digest == plain.digest


@given(st.lists(st.integers(1, 400), min_size=3, max_size=7), st.data())
def test_no_round_that_can_happen_shows_a_heavy_site(
    weights: list[int], data: st.DataObject
) -> None:
    """Over all that may be left beside one that colludes, nobody has over 90% of the weight."""
    roster = [
        {"name": f"s{i}", "weight": float(w), "steps": 1, "classes": [0]}
        for i, w in enumerate(weights)
    ]
    smallest = build({"roster": many(len(weights))}).terms[0]
    threshold = data.draw(st.integers(smallest, len(weights)))
    # Of the sites that are left, one may collude: it knows its own part.
    left = (
        names
        for size in range(threshold - 1, len(weights))
        for names in combinations(weights, size)
    )
    worst = max(Fraction(max(names), sum(names)) for names in left)
    if abs(worst - Fraction(9, 10)) < Fraction(1, 10**9):
        return  # decided in floating point
    if worst < Fraction(9, 10):
        assert build({"roster": roster, "threshold": threshold})
    else:
        with pytest.raises(StudyError, match="of the weight in a round with"):
            build({"roster": roster, "threshold": threshold})


def test_a_site_that_is_heavy_only_when_others_are_gone() -> None:
    weights = [60.0, 30.0, 30.0, 5.0, 5.0]
    roster = [{**ROSTER[0], "name": f"s{i}", "weight": w} for i, w in enumerate(weights)]
    assert build({"roster": roster, "threshold": 4})
    heavy = [{**row, "weight": 300.0} if row["name"] == "s0" else row for row in roster]
    assert build({"roster": heavy, "threshold": 5})
    with pytest.raises(StudyError, match=re.escape("s0 can have 97% of the weight")):
        build({"roster": heavy, "threshold": 4})
    # without protection everybody's update is in the open anyway
    assert build({"roster": heavy, "threshold": 4, "protection": "none"})


def test_defaults_follow_the_method() -> None:
    fedbcs = build({"method": "fedbcs"}).resolved()
    assert (fedbcs.model.fsr, fedbcs.alignment.form, fedbcs.model.fused_width) == (
        "published",
        "gentle",
        16,
    )
    fedavg = build({"method": "fedavg"}).resolved()
    assert (fedavg.model.fsr, fedavg.alignment.form) == ("off", "off")
    faithful = build({"alignment": {"form": "faithful"}}).resolved()
    assert faithful.alignment.temperature == 0.005
    assert faithful.model.fused_width == 8 * faithful.model.width
    assert faithful.resolved() == faithful


def test_what_is_set_wins_over_defaults() -> None:
    study = build(
        {"alignment": {"weight": 0.7, "warmup_rounds": 0}, "model": {"fsr": "off"}}
    ).resolved()
    assert (study.alignment.weight, study.alignment.warmup_rounds, study.model.fsr) == (
        0.7,
        0,
        "off",
    )


def test_two_sites_may_sum_without_protection() -> None:
    study = build({"protection": "none", "min_sites": 2, "roster": ROSTER[:2]})
    assert len(study.roster) == 2


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot read"):
        load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = = 3")
    with pytest.raises(StudyError, match="not valid TOML"):
        load(broken)
    huge = tmp_path / "huge.toml"
    huge.write_text("#" * 1_100_000)
    with pytest.raises(StudyError, match="1 MB"):
        load(huge)
    deep = tmp_path / "deep.toml"
    deep.write_text("a = " + "[" * 20_000)
    with pytest.raises(StudyError, match="not valid TOML"):
        load(deep)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="not valid TOML"):
        load(binary)
