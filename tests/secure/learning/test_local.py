"""Local training: repeatable, independent of order, and doing what its options say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_data, tiny_study

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import FedBCSError
from fedbcs_secure.learning import local
from fedbcs_secure.learning.augment import Augmentation, image_seed
from fedbcs_secure.learning.learner import Learner
from fedbcs_secure.learning.local import batches, learning_rate, steps_per_round
from fedbcs_secure.learning.private import PrivateRound
from fedbcs_secure.learning.unet import NetworkConfig, UNet
from fedbcs_secure.learning.weights import load_flat, split

STUDY = tiny_study().resolved()
PATIENTS = tiny_data(STUDY).cohorts["B"].train


def rows(seed: int = 0) -> list[dict[int, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{c: rng.standard_normal((1, 48)).astype(np.float32) for c in (0, 1)} for _ in range(2)]


def train(study=STUDY, *, patients=PATIENTS, site="B", round_index=2, prototypes=None):
    learner = Learner(study, "cpu")
    return learner.train(
        learner.initial_weights(),
        patients,
        site=site,
        round_index=round_index,
        prototypes=prototypes,
    )


def changed(**values: object):
    return tiny_study(**values).resolved()


def test_training_repeats_to_the_bit() -> None:
    one, two = train(), train()
    assert np.array_equal(one.delta, two.delta)
    assert one.loss == two.loss
    for (means, present), (again, there) in zip(one.prototypes, two.prototypes, strict=True):
        assert np.array_equal(means, again)
        assert np.array_equal(present, there)


def test_round_site_and_seed_choose_other_orders_and_views() -> None:
    base = train().delta
    for other in (
        train(round_index=3),
        train(site="C"),
        train(changed(seed=9)),
    ):
        assert not np.array_equal(base, other.delta)


def test_a_learner_keeps_nothing_between_calls() -> None:
    learner = Learner(STUDY, "cpu")
    weights = learner.initial_weights()
    first = learner.train(weights, PATIENTS, site="B", round_index=0)
    learner.train(weights + 1, PATIENTS, site="A", round_index=5)
    learner.evaluate(weights, PATIENTS)
    again = learner.train(weights, PATIENTS, site="B", round_index=0)
    assert np.array_equal(first.delta, again.delta)


def test_delta_is_new_weights_minus_old() -> None:
    learner = Learner(STUDY, "cpu")
    weights = learner.initial_weights()
    result = learner.train(weights, PATIENTS, site="B", round_index=0)
    # Adam without momentum from other rounds: no weight moves further than lr a step, by much
    assert result.steps == steps_per_round(sum(p.slices for p in PATIENTS), STUDY)
    assert 0 < np.abs(result.delta).max() < 1.5 * STUDY.training.lr * result.steps


def test_alignment_waits_for_its_warm_up() -> None:
    # warm-up of one round: in round 0 prototypes change nothing, in round 1 they do
    assert np.array_equal(train(round_index=0).delta, train(round_index=0, prototypes=rows()).delta)
    assert not np.array_equal(
        train(round_index=1).delta, train(round_index=1, prototypes=rows()).delta
    )


def test_weight_zero_is_no_alignment() -> None:
    # without weight decay, which Adam would apply to layers that get a gradient of zeros
    training = {"lr": 3e-3, "batch_size": 3, "weight_decay": 0.0}
    off = changed(alignment={"weight": 0.0, "warmup_rounds": 0}, training=training)
    assert np.allclose(train(off, prototypes=rows()).delta, train(off).delta, atol=1e-7)


@pytest.mark.parametrize("form", ["gentle", "faithful"])
def test_alignment_reaches_the_fusion_layers(form: str) -> None:
    study = changed(alignment={"form": form, "warmup_rounds": 0, "weight": 1.0, "temperature": 0.5},
                    model={"width": 4, "fused_width": 16},
                    training={"lr": 3e-3, "weight_decay": 0.0})  # fmt: skip
    learner = Learner(study, "cpu")
    start = 0
    moved = {}
    delta = train(study, prototypes=rows()).delta
    for spec in learner.tensors:
        moved[spec.name] = np.abs(delta[start : start + spec.size]).max()
        start += spec.size
    fusion = [value for name, value in moved.items() if name.startswith("fusion")]
    assert fusion
    assert min(fusion) > 0
    still = train(study).delta
    assert not np.array_equal(still, delta)


def test_prototypes_name_absent_classes() -> None:
    empty = tuple(replace(p, masks=np.zeros_like(p.masks)) for p in PATIENTS)
    for means, present in train(patients=empty).prototypes:
        assert present.tolist() == [True, False]
        assert not means[1].any()
        assert means[0].any()


def still(**values: object):
    """A study in which nothing moves, so that what is measured can be computed by hand."""
    training = {"lr": 1e-12, "batch_size": 3, "augment": False, **values.pop("training", {})}
    return changed(training=training, **values)


def dense_means(study, per: str) -> list[np.ndarray]:
    """Class means of the dense fused maps at the initial weights, by hand."""
    learner = Learner(study, "cpu")
    network = UNet(NetworkConfig.of(study))
    load_flat(network, learner.initial_weights())
    groups = []
    if per == "image":
        groups = [(p.images[i : i + 1], p.masks[i : i + 1]) for p in PATIENTS for i in range(2)]
    else:
        for images, labels in batches(PATIENTS, study, site="B", epoch=2):
            groups.append((images.numpy(), labels.numpy()))
    views = []
    for view in (0, 1):
        sums = [[], []]
        for images, masks in groups:
            with torch.no_grad():
                features = network(torch.from_numpy(images))
                fused = network.fusion.fused(features, view).numpy()
            step = masks.shape[1] // fused.shape[2]
            labels = masks[:, ::step, ::step]
            for c in (0, 1):
                pixels = np.moveaxis(fused, 1, -1)[labels == c]
                if len(pixels):
                    sums[c].append(pixels.mean(axis=0))
        views.append(np.stack([np.mean(rows, axis=0) for rows in sums]))
    return views


@pytest.mark.parametrize(("form", "per"), [("gentle", "image"), ("faithful", "batch")])
def test_prototypes_are_means_over_images_or_batches(form: str, per: str) -> None:
    study = still(alignment={"form": form}, model={"width": 4, "fused_width": 5})
    expected = dense_means(study, per)
    other = dense_means(study, "batch" if per == "image" else "image")
    for (means, _), by_hand, wrong in zip(train(study).prototypes, expected, other, strict=True):
        assert np.allclose(means, by_hand, atol=2e-5)
        assert not np.allclose(means, wrong, atol=2e-5)


def test_prototypes_come_from_the_last_epoch() -> None:
    """Two epochs in one round give the prototypes of an epoch from where the first one ended."""
    two = changed(training={"lr": 3e-3, "batch_size": 3, "local_epochs": 2, "augment": False})
    from_first = train(changed(training={"lr": 3e-3, "batch_size": 3, "augment": False}))
    result = train(two)
    means = result.prototypes[0][0]
    assert not np.allclose(means, from_first.prototypes[0][0], atol=1e-4)
    # at a learning rate of nothing, the second epoch is like the first
    frozen = train(still(training={"local_epochs": 2})).prototypes[0][0]
    assert np.allclose(frozen, train(still()).prototypes[0][0], atol=1e-5)


@pytest.mark.parametrize("form", ["gentle", "faithful"])
def test_each_form_runs_its_own_loss(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for name in ("gentle", "faithful"):
        monkeypatch.setattr(
            local,
            f"{name}_alignment",
            lambda features, *_, name=name: called.append(name) or features.logits.sum() * 0,
        )
    study = changed(
        alignment={"form": form, "warmup_rounds": 0}, model={"width": 4, "fused_width": 16}
    )
    train(study, prototypes=rows())
    assert set(called) == {form}


def test_batches_are_shuffled_anew_each_epoch_and_hold_every_slice_once() -> None:
    study = changed(training={"batch_size": 3, "augment": False})
    raw = np.concatenate([p.images for p in PATIENTS])
    epochs = []
    for epoch in (0, 1):
        images = np.concatenate(
            [x.numpy() for x, _ in batches(PATIENTS, study, site="B", epoch=epoch)]
        )
        assert images.shape == raw.shape
        epochs.append([int(np.argmin(np.abs(raw - x).sum(axis=(1, 2, 3)))) for x in images])
        assert all(np.array_equal(raw[i], x) for i, x in zip(epochs[-1], images, strict=True))
        assert sorted(epochs[-1]) == list(range(len(raw)))
    assert epochs[0] != epochs[1]
    augmented = changed(training={"batch_size": 3})
    views = np.concatenate([x.numpy() for x, _ in batches(PATIENTS, augmented, site="B", epoch=0)])
    assert not np.array_equal(np.sort(views.ravel()), np.sort(raw.ravel()))


@pytest.mark.parametrize(
    "training",
    [
        {"weight_decay": 0.5},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.9},
        {"lr": 1e-3},
        {"lr_end": 0.5},
        {"foreground_weight": 5.0},
    ],
)
def test_training_options_matter(training: dict[str, object]) -> None:
    base = {"lr": 3e-3, "batch_size": 2}
    plain = {"optimizer": "sgd"} if "momentum" in training else {}
    assert not np.allclose(
        train(changed(training=base | training)).delta,
        train(changed(training=base | plain)).delta,
        atol=1e-7,
    )


def test_the_learning_rate_falls_evenly_to_its_end() -> None:
    study = changed(rounds=5, training={"lr": 0.4, "lr_end": 0.25})
    rates = [learning_rate(study, index) for index in range(5)]
    assert rates == pytest.approx([0.4, 0.325, 0.25, 0.175, 0.1])
    # One round has one rate; a round too many does not pass zero.
    assert learning_rate(changed(rounds=1, training={"lr": 0.4, "lr_end": 0.25}), 0) == 0.4
    assert learning_rate(study, 9) == pytest.approx(0.1)


@pytest.mark.parametrize("private", [False, True])
def test_frozen_parts_stay_as_they_start(private: bool) -> None:
    parts = ("enc3", "mid", "fsr", "fusion")
    values: dict[str, object] = {"model": {"width": 4, "frozen": parts}}
    if private:
        values["privacy"] = {"noise_multiplier": 1.0, "sampling_rate": 0.9, "steps": 1}
    study = changed(**values)
    learner = Learner(study, "cpu")
    secret = PrivateRound(4) if private else None
    result = learner.train(
        learner.initial_weights(), PATIENTS, site="B", round_index=2, private=secret
    )
    moved = {
        name: bool(np.any(part)) for name, part in split(result.delta, learner.tensors).items()
    }
    still = {name for name in moved if name.split(".")[0] in parts}
    assert len(still) > 8
    assert not any(moved[name] for name in still)
    assert sum(moved.values()) > 0.9 * len(moved.keys() - still)


def test_no_alignment_no_prototypes() -> None:
    assert train(changed(method="fedavg")).prototypes == ()


def test_local_epochs_multiply_the_steps() -> None:
    study = changed(training={"batch_size": 3, "local_epochs": 2})
    assert train(study).steps == 2 * train().steps


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_both_optimizers_learn(optimizer: str) -> None:
    lr = 3e-3 if optimizer == "adam" else 0.05
    study = changed(
        training={"optimizer": optimizer, "lr": lr, "momentum": 0.9, "local_epochs": 8,
                  "batch_size": 3, "augment": False}
    )  # fmt: skip
    short = changed(training={"optimizer": optimizer, "lr": 1e-9, "batch_size": 3})
    assert train(study).loss < train(short).loss


@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
@pytest.mark.parametrize("fsr", ["off", "published", "all"])
def test_every_norm_and_placement_trains(norm: str, fsr: str) -> None:
    study = changed(model={"width": 4, "norm": norm, "fsr": fsr})
    assert np.isfinite(train(study, prototypes=rows()).delta).all()


def test_bfloat16_trains_close_to_float32() -> None:
    learner = Learner(STUDY, "cpu", "bfloat16")
    result = learner.train(learner.initial_weights(), PATIENTS, site="B", round_index=0)
    assert np.isfinite(result.delta).all()
    assert abs(result.loss - train(round_index=0).loss) < 0.05


def test_a_loss_that_is_not_finite_stops_with_advice() -> None:
    broken = Patient("B", "p", PATIENTS[0].images * np.float32("nan"), PATIENTS[0].masks)
    with pytest.raises(FedBCSError, match="learning rate"):
        train(patients=(broken,))


def test_more_than_two_classes() -> None:
    study = changed(
        data={"size_px": 32, "channels": 1, "classes": 4, "labels": [0, 10, 20, 30]},
        alignment={"warmup_rounds": 0},
    )
    rng = np.random.default_rng(0)
    patients = tuple(
        replace(p, masks=rng.integers(0, 3, p.masks.shape).astype(np.uint8)) for p in PATIENTS
    )
    prototypes = [
        {c: rng.standard_normal((1, 48)).astype(np.float32) for c in range(4)} for _ in range(2)
    ]
    result = train(study, patients=patients, prototypes=prototypes)
    assert [present.tolist() for _, present in result.prototypes] == [[True, True, True, False]] * 2
    assert np.isfinite(result.delta).all()


def test_image_seeds_are_apart_and_stable() -> None:
    seeds = {
        image_seed(seed, site=site, patient=patient, index=index, epoch=epoch)
        for seed in (0, 1)
        for site in ("A", "B")
        for patient in ("x", "xy")
        for index in (0, 1)
        for epoch in (0, 1)
    }
    assert len(seeds) == 32
    # lengths are part of the hash: "A" + "Bx" is not "AB" + "x"
    assert image_seed(0, site="A", patient="Bx", index=0, epoch=0) != image_seed(
        0, site="AB", patient="x", index=0, epoch=0
    )


def test_augmentation_moves_image_and_label_together() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 16:40] = 1
    image = mask[None].astype(np.float32)
    augmentation = Augmentation()
    different = 0
    for seed in range(30):
        view, label = augmentation(image, mask, seed)
        assert view.shape == image.shape
        assert set(np.unique(label)) <= {0, 1}
        inside = (view[0] > 0.5) == (label > 0)
        assert inside.mean() > 0.97
        different += int(not np.array_equal(label, mask))
        again = augmentation(image, mask, seed)
        assert np.array_equal(view, again[0])
    assert different > 15
