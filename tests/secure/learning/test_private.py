"""A private round: steps, units and prototypes as the study says, and no way past the noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_data, tiny_study

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.learning import private as module
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.learning.private import PrivateRound, units_of
from fedbcs_secure.learning.private_prototypes import PrototypeMechanism
from fedbcs_secure.privacy.events import Gaussian
from fedbcs_secure.privacy.randomness import SecretStream
from fedbcs_secure.sections import Privacy
from fedbcs_secure.study import Study

DATA = tiny_data(tiny_study().resolved())
PATIENTS = DATA.cohorts["B"].train


def private_study(**changes: object) -> Study:
    values = {
        "noise_multiplier": 1.0, "clip": 0.2, "sampling_rate": 0.5, "steps": 3,
        "prototype_noise": 4.0,
    }  # fmt: skip
    others = {k: changes.pop(k) for k in ("method", "training") if k in changes}
    return tiny_study(privacy=values | changes, **others).resolved()


def train(
    study: Study | None = None,
    patients: tuple[Patient, ...] = PATIENTS,
    *,
    seed: int | None = 7,
    release: PrototypeMechanism | None = None,
    **changes: Any,
) -> LocalResult:
    learner = Learner(private_study() if study is None else study, "cpu")
    stream = SecretStream.fresh() if seed is None else SecretStream.for_tests(seed)
    private = PrivateRound(4, release, stream, repeatable=seed is not None)
    given: dict[str, Any] = {"site": "B", "round_index": 2, "private": private}
    return learner.train(learner.initial_weights(), patients, **(given | changes))


def mechanism(**changes: Any) -> PrototypeMechanism:
    values: dict[str, Any] = {
        "slots": ((0, 0), (0, 1), (1, 0), (1, 1)), "width": 48, "clip": 1.0, "presence": 0.5,
        "noise_multiplier": 4.0,
    }  # fmt: skip
    return PrototypeMechanism(**(values | changes))


def test_it_costs_what_the_study_says() -> None:
    """DP-3.1"""
    result = train(release=mechanism())
    assert result.steps == 3
    assert result.events == Gaussian(1.0, 0.5).times(3) + Gaussian(4.0).times(1)
    assert train().events == Gaussian(1.0, 0.5).times(3)
    assert result.delta.dtype == np.float32
    assert np.isfinite(result.delta).all()


def test_noise_is_secret_unless_a_test_says_otherwise() -> None:
    assert np.array_equal(train().delta, train().delta)
    assert not np.array_equal(train(seed=None).delta, train(seed=None).delta)
    assert PrivateRound(3).stream.private


def test_a_study_with_privacy_is_trained_with_noise_or_not_at_all() -> None:
    learner = Learner(private_study(), "cpu")
    with pytest.raises(PrivacyError, match="not trained without noise"):
        learner.train(learner.initial_weights(), PATIENTS, site="B", round_index=0)


def test_nobody_sampled_and_nobody_there_are_releases_too() -> None:
    """DP-3.1: a site without patients today sends noise like any other."""
    empty = train(patients=(), release=mechanism())
    assert empty.events == train(release=mechanism()).events
    assert np.abs(empty.delta).max() > 0
    rare = train(private_study(sampling_rate=1e-9))
    assert np.abs(rare.delta).max() > 0


def test_an_image_that_is_broken_ends_in_a_valid_release() -> None:
    """DP-3.4, DP-4.3: what a patient's data are must not decide whether there is one."""
    broken = tuple(
        replace(p, images=np.full_like(p.images, np.nan)) if index == 0 else p
        for index, p in enumerate(PATIENTS)
    )
    study = private_study(sampling_rate=1.0)
    result = train(study, broken, release=mechanism())
    assert result.dropped == 3
    assert np.isfinite(result.delta).all()
    assert all(np.isfinite(values).all() for values in result.prototype_sums.values())
    assert result.events == train(study, release=mechanism()).events


def test_a_patient_has_at_most_so_many_slices_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    gradient = module._gradient

    def counting(network: Any, images: Any, *rest: Any) -> float:
        seen.append(len(images))
        return gradient(network, images, *rest)

    monkeypatch.setattr(module, "_gradient", counting)
    train(private_study(sampling_rate=1.0, slices=1))
    assert seen == [1] * 3 * len(PATIENTS)
    seen.clear()
    train(private_study(sampling_rate=1.0, slices=1, copies=3))
    assert seen == [3] * 3 * len(PATIENTS)
    seen.clear()
    train(private_study(sampling_rate=1.0, slices=9))
    assert seen == [p.slices for p in PATIENTS] * 3


def test_units() -> None:
    privacy = private_study().privacy
    assert privacy is not None
    assert [u.slices for u in units_of(PATIENTS, privacy)] == [(0, 1)] * len(PATIENTS)
    weaker = privacy.model_copy(update={"unit": "slice"})
    assert len(units_of(PATIENTS, weaker)) == sum(p.slices for p in PATIENTS)
    assert {u.slices for u in units_of(PATIENTS, weaker)} == {(0,), (1,)}


def test_the_running_mean_of_the_steps_is_sent_instead() -> None:
    """It is computed from what was noised already."""
    plain = {"lr": 3e-3, "augment": False}
    study = private_study(average=0.5, training=plain)
    mean, last = train(study).delta, train(private_study(training=plain)).delta
    assert not np.allclose(mean, last)
    # Three steps, weights 1, 2, 4 of 7.
    parts = [train(private_study(steps=steps, training=plain)).delta for steps in (1, 2, 3)]
    expected = (parts[0] + 2 * parts[1] + 4 * parts[2]) / 7
    assert np.allclose(mean, expected, atol=1e-6)


def test_the_proximal_term_has_no_patient_in_it() -> None:
    study = private_study(
        method="fedprox", training={"lr": 0.1, "prox_mu": 1.0, "optimizer": "sgd"}
    )
    off = private_study(method="fedprox", training={"lr": 0.1, "prox_mu": 0.0, "optimizer": "sgd"})
    pulled, free = train(study).delta, train(off).delta
    assert np.linalg.norm(pulled) < np.linalg.norm(free)


def test_prototypes_are_those_of_the_weights_that_are_sent() -> None:
    release = mechanism(noise_multiplier=1e-4)
    result = train(release=release)
    assert set(result.prototype_sums) == set(release.slots)
    learner = Learner(private_study(), "cpu")
    learner.predict(learner.initial_weights() + result.delta, PATIENTS[0].images)
    privacy = private_study().privacy
    assert privacy is not None
    total = module._prototypes(
        learner._network, units_of(PATIENTS, privacy), learner.study, release, learner.runtime
    )
    for slot, values in zip(release.slots, release.values(total), strict=True):
        assert np.allclose(result.prototype_sums[slot], values, atol=0.02)


@pytest.mark.parametrize("index", range(len(PATIENTS)))
def test_removing_a_patient_moves_the_prototypes_by_no_more_than_the_bound(index: int) -> None:
    """DP-4.2, through the network and on real feature maps."""
    study, release = private_study(), mechanism(clip=1e-3)
    learner = Learner(study, "cpu")
    learner.predict(learner.initial_weights(), PATIENTS[0].images)
    assert study.privacy is not None
    units = units_of(PATIENTS, study.privacy)

    def total(chosen: Any) -> Any:
        return module._prototypes(learner._network, chosen, study, release, learner.runtime)

    difference = total(units) - total(units[:index] + units[index + 1 :])
    square = sum(int(value) ** 2 for value in difference)
    assert 0.9 * release.sensitivity_squared < square <= release.sensitivity_squared


def test_privacy_is_a_value_of_the_study() -> None:
    assert Privacy(noise_multiplier=1.0) == Privacy(noise_multiplier=1.0)
    assert private_study().digest != private_study(clip=0.3).digest


def test_a_stream_that_can_be_repeated_is_for_tests_only() -> None:
    learner = Learner(private_study(), "cpu")
    public = PrivateRound(4, None, SecretStream.for_tests(1))
    with pytest.raises(PrivacyError, match="it is for tests"):
        learner.train(learner.initial_weights(), PATIENTS, site="B", round_index=0, private=public)


@pytest.mark.parametrize("what", ["label", "nothing", "memory"])
def test_a_patient_that_breaks_the_computation_is_left_out(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """DP-3.4: a label out of range, no slice at all, no memory; one bit of silence otherwise."""
    bad = PATIENTS[0]
    if what == "label":
        bad = replace(bad, masks=np.full_like(bad.masks, 9))
    elif what == "nothing":
        bad = replace(bad, images=bad.images[:0], masks=bad.masks[:0])
    else:
        gradient = module._gradient

        def greedy(network: Any, images: Any, *rest: Any) -> float:
            if np.array_equal(images[0].numpy(), PATIENTS[0].images[0]):
                raise RuntimeError("not enough memory")
            return gradient(network, images, *rest)

        monkeypatch.setattr(module, "_gradient", greedy)
    plain = {"lr": 3e-3, "augment": False}
    study = private_study(sampling_rate=1.0, training=plain, slices=9)
    result = train(study, (bad, *PATIENTS[1:]), release=mechanism())
    without = train(study, PATIENTS[1:])
    assert result.dropped == 3
    assert np.isfinite(result.delta).all()
    if what != "nothing":
        assert result.events == train(study, release=mechanism()).events
    assert len(without.delta) == len(result.delta)


def test_what_a_broken_run_left_behind_is_not_added_to_anybody() -> None:
    """Its gradient in the network would be a second patient's."""
    study = private_study(sampling_rate=1.0)
    learner = Learner(study, "cpu")
    weights = learner.initial_weights()

    def delta() -> np.ndarray:
        private = PrivateRound(4, None, SecretStream.for_tests(3), repeatable=True)
        return learner.train(weights, PATIENTS, site="B", round_index=0, private=private).delta

    clean = delta()
    for parameter in learner._network.parameters():
        parameter.grad = torch.full_like(parameter, 50.0)
    assert np.array_equal(delta(), clean)


def test_a_slice_is_drawn_alike_whatever_the_others_are() -> None:
    """unit = "slice": without the first slice the others are augmented as they were."""
    study = tiny_study(
        privacy={"noise_multiplier": 1.0, "unit": "slice"}, data={
            "size_px": 32, "channels": 1, "scaling": "fixed",
        },
    ).resolved()  # fmt: skip
    privacy = study.privacy
    assert privacy is not None
    whole = PATIENTS[0]
    shorter = replace(whole, images=whole.images[1:], masks=whole.masks[1:])
    stream = SecretStream.for_tests(1)
    views = [
        module._batch(unit, study, privacy, "B", 4, stream)[0]
        for unit in (units_of([whole], privacy)[1], units_of([shorter], privacy)[0])
    ]
    assert torch.equal(*views)


def test_weights_of_round_0_do_not_change_with_training() -> None:
    learner = Learner(private_study(), "cpu")
    before = learner.initial_weights()
    private = PrivateRound(4)
    learner.train(before, PATIENTS, site="B", round_index=0, private=private)
    assert np.array_equal(learner.initial_weights(), before)
