"""Flags over study file over defaults."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from fedbcs_secure import sections
from fedbcs_secure.cli import options
from fedbcs_secure.cli.init import _PRIVATE, TEMPLATE, private_template
from fedbcs_secure.cli.options import FLAGS, study_and_settings
from fedbcs_secure.errors import PrivacyError, StudyError
from fedbcs_secure.federation.settings import SimulationSettings
from fedbcs_secure.learning import device
from fedbcs_secure.privacy.accountant import epsilon
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.linter import Grade, lint_study
from fedbcs_secure.privacy.policy import SitePolicy
from fedbcs_secure.sections import Privacy
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
                if path == ("privacy", "epsilon"):
                    continue  # in exchange for a noise multiplier
                field = model.model_fields[part]
                # [privacy] may be left out.
                model = next(iter(get_args(field.annotation)), field.annotation)


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


def literal(model: type[BaseModel], name: str) -> object:
    return model.model_fields[name].annotation


@pytest.mark.parametrize(
    ("enum", "literal"),
    [
        (options.Method, sections.Method),
        (options.Protection, sections.Protection),
        (options.Alignment, sections.Alignment),
        (options.Unit, literal(sections.Privacy, "unit")),
        (options.Noise, literal(sections.Privacy, "noise")),
        (options.Device, device.DeviceChoice),
        (options.Precision, device.Precision),
    ],
)
def test_flags_offer_exactly_what_the_study_knows(enum: type, literal: object) -> None:
    assert {str(item.value) for item in enum} == set(get_args(literal))


# Differential privacy ----------------------------------------------------------------------------


def test_an_epsilon_becomes_the_least_noise_that_keeps_it(tmp_path: Path) -> None:
    """DP-1.5; the document says noise, since that is what sites check."""
    flags = {"epsilon": 4.0, "delta": 1e-4, "rounds": 10, "private_steps": 3, "sampling_rate": 0.5}
    found = study_and_settings(None, flags)[0]
    assert found.privacy is not None
    assert (found.privacy.steps, found.privacy.delta) == (3, 1e-4)
    noise = found.privacy.noise_multiplier
    assert epsilon(Gaussian(noise, 0.5).times(30), 1e-4) <= 4.0
    assert epsilon(Gaussian(noise * 0.998, 0.5).times(30), 1e-4) > 4.0
    assert noise == float(f"{noise:.4g}")
    file = write(tmp_path, "rounds = 10\n[privacy]\nepsilon = 4\ndelta = 1e-4\n")
    again = study_and_settings(file, {"private_steps": 3, "sampling_rate": 0.5})[0]
    assert again == found


def test_prototypes_are_paid_from_the_same_epsilon() -> None:
    base = {"epsilon": 8.0, "delta": 1e-4, "rounds": 12}
    dear = study_and_settings(None, base | {"prototype_noise": 6.0})[0].privacy
    cheap = study_and_settings(None, base)[0].privacy
    assert dear is not None
    assert cheap is not None
    assert dear.noise_multiplier > cheap.noise_multiplier
    with pytest.raises(PrivacyError, match="prototype releases"):
        study_and_settings(None, base | {"prototype_noise": 0.5, "prototype_every": 1})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"epsilon": 8.0, "noise_multiplier": 1.0}, "one follows from the other"),
        ({"epsilon": -1.0}, "a number above 0"),
        ({"epsilon": 8.0, "norm": "batch"}, "mixes patients"),
        ({"epsilon": 8.0, "method": "pooled"}, "sends nothing"),
        ({"clip": 0.1}, "noise_multiplier: Field required"),
    ],
)
def test_private_studies_that_cannot_be(flags: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        study_and_settings(None, flags)


def test_the_template_shows_how_to_ask_for_privacy(tmp_path: Path) -> None:
    text = TEMPLATE.replace("## ", "")
    found = study_and_settings(write(tmp_path, text), {})[0].privacy
    assert found is not None
    shown = found.model_copy(update={"noise_multiplier": 1.0, "prototype_noise": None})
    assert shown == Privacy(noise_multiplier=1.0)
    assert found.prototype_noise == 16.0


def test_the_private_template_is_a_private_study(tmp_path: Path) -> None:
    text = private_template()
    assert all(usual in TEMPLATE and private in text for usual, private in _PRIVATE)
    study, settings = study_and_settings(write(tmp_path, text), {})
    privacy = study.privacy
    assert privacy is not None
    assert privacy.slices == 2
    assert (privacy.steps, privacy.sampling_rate, privacy.prototype_noise) == (1, 0.2, None)
    assert (study.training.optimizer, study.training.foreground_weight) == ("sgd", 10.0)
    assert study.model.frozen == ("enc3", "mid", "up3", "dec3")
    assert study.resolved().data.split == "independent"
    assert settings.patients == 300
    assert not [f for f in lint_study(study, SitePolicy()) if f.grade is Grade.WRONG]
