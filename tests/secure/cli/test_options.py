"""Flags over study file over defaults."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fedbcs_secure import study
from fedbcs_secure.cli import options
from fedbcs_secure.cli.init import TEMPLATE
from fedbcs_secure.cli.options import FLAGS, study_and_settings
from fedbcs_secure.errors import StudyError
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.learning import device
from fedbcs_secure.study import Study, build


def write(path: Path, text: str) -> Path:
    file = path / "study.toml"
    file.write_text(text)
    return file


def test_no_file_no_flags_is_the_default() -> None:
    assert study_and_settings(None, {}) == (Study(), SimulationSettings())


def test_the_template_holds_the_defaults_it_claims(tmp_path: Path) -> None:
    plain = study_and_settings(write(tmp_path, TEMPLATE), {})[0]
    assert plain == Study(name="my study")
    settled = TEMPLATE
    by_roster = ("sites =", "out =", "threshold =", "colluders =")
    for line in TEMPLATE.splitlines():
        # Switch on every commented setting that shows a default of its own.
        if line.startswith("# ") and " = " in line and not any(key in line for key in by_roster):
            settled = settled.replace(line, line.removeprefix("# "))
    shown = study_and_settings(write(tmp_path, settled), {})[0]
    assert shown.resolved().model_copy(update={"name": "x"}) == Study().resolved().model_copy(
        update={"name": "x"}
    )


def test_the_templates_terms_are_those_of_four_sites() -> None:
    roster = [{"name": s, "weight": 1.0, "steps": 1, "classes": [0, 1]} for s in "ABCD"]
    assert build({"roster": roster}).terms == (3, 1)
    assert "# threshold = 3 " in TEMPLATE
    assert "# colluders = 1 " in TEMPLATE


def test_drops_and_terms_are_flags(tmp_path: Path) -> None:
    file = write(tmp_path, 'drop = ["A@share:1"]\nthreshold = 4\n')
    study, settings = study_and_settings(file, {"colluders": 2})
    assert (study.threshold, study.colluders, settings.drop) == (4, 2, ("A@share:1",))


def test_how_sums_are_checked_is_in_the_file_and_a_flag(tmp_path: Path) -> None:
    file = write(tmp_path, 'protection = "ckks"\nverified_sum = false\nrekey_every = 5\n')
    study = study_and_settings(file, {})[0]
    assert (study.protection, study.verified_sum, study.rekey_every) == ("ckks", False, 5)
    flags = {"verified_sum": True, "rekey_every": 2, "protection": "secagg"}
    study = study_and_settings(file, flags)[0]
    assert (study.protection, study.verified_sum, study.rekey_every) == ("secagg", True, 2)
    assert study_and_settings(file, {"verified_sum": None})[0].verified_sum is False


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'rounds = 3\nmethod = "fedavg"\n[model]\nwidth = 8\nnorm = "group"\n')
    study, settings = study_and_settings(file, {"width": 12, "data": "x.csv", "seed": None})
    assert (study.rounds, study.method, study.model.width) == (3, "fedavg", 12)
    assert study.model.norm == "group"
    assert settings.data == "x.csv"


def test_every_flag_may_stand_at_the_top_of_a_file_under_its_own_name(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'data = "nuclei.csv"\nout = "r"\nwidth = 16\nsize = 64\nlr = 0.01\nrounds = 2\nbits = 12\n'
        'sites = ["A", "B", "C"]\nalignment = "off"\n',
    )
    study, settings = study_and_settings(file, {})
    assert (study.model.width, study.data.size_px, study.training.lr) == (16, 64, 0.01)
    assert (study.codec.bits, study.alignment.form) == (12, "off")
    assert settings == SimulationSettings(data="nuclei.csv", out="r", sites=("A", "B", "C"))


def test_every_flag_reaches_a_field() -> None:
    for name, path in FLAGS.items():
        if path[0] == "simulate":
            assert path[1] in SimulationSettings.model_fields, name
        else:
            model: type = Study
            for part in path:
                field = model.model_fields[part]
                model = field.annotation  # type: ignore[assignment]


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1\n",
        "[simulate]\nunknown = 1\n",
        "model = 3\nwidth = 4\n",
        "[simulate]\npatients = 0\n",
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(StudyError):
        study_and_settings(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("enum", "literal"),
    [
        (options.Method, study.Method),
        (options.Protection, study.Protection),
        (options.Alignment, study.Alignment),
        (options.Device, device.DeviceChoice),
        (options.Precision, device.Precision),
    ],
)
def test_flags_offer_exactly_what_the_study_knows(enum: type, literal: object) -> None:
    assert {str(item.value) for item in enum} == set(get_args(literal))
