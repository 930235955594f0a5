"""Whole runs on the kinds of data that people bring."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import run
from PIL import Image

QUICK = ("--rounds", "3", "--width", "4", "--device", "cpu", "--overlays", "1")
RNG = np.random.default_rng(0)


def save(path: Path, array: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path.name


def blob(size: int, value: int) -> np.ndarray:
    mask = np.zeros((size, size))
    top, left = RNG.integers(2, size // 2, 2)
    mask[top : top + size // 3, left : left + size // 3] = value
    return mask


def test_three_classes_of_which_one_is_rare(tmp_path: Path) -> None:
    """Class 2 has two holders, one fewer than a sum may have, so it is trained but not aligned."""
    rows = ["site,patient,image,label,split"]
    for site in "ABC":
        for index in range(5):
            name = f"{site}{index}"
            label = blob(32, 10)
            if site != "C":
                label[blob(32, 1) > 0] = 20
            image = label * 8 + RNG.integers(0, 40, (32, 32))
            save(tmp_path / f"{name}.png", image)
            save(tmp_path / f"{name}_l.png", label)
            rows.append(f"{site},{name},{name}.png,{name}_l.png,{'test' if index > 3 else 'train'}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    (tmp_path / "study.toml").write_text(
        "width = 4\nrounds = 3\n[data]\nsize_px = 32\nclasses = 3\nlabels = [0, 10, 20]\n"
        "[alignment]\nwarmup_rounds = 1\n"
    )
    out = tmp_path / "run"
    result = run(
        "simulate", "--study", str(tmp_path / "study.toml"), "--data", str(tmp_path),
        "--out", str(out),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    roster = (out / "study.toml").read_text()
    assert roster.count("classes = [\n    0,\n    1,\n    2,\n]") == 2
    summary = json.loads((out / "summary.json").read_text())
    assert 0 <= summary["worst_dice"] <= summary["mean_dice"] <= 1
    masks = run("predict", "--model", str(out), "--input", str(tmp_path / "A0.png"), "--out",
                str(tmp_path / "m"))  # fmt: skip
    assert masks.returncode == 0, masks.stderr
    values = set(np.unique(np.asarray(Image.open(tmp_path / "m" / "A0_mask.png"))))
    assert values <= {0, 10, 20}


def test_the_prostate_layout_is_taken_as_it_is(tmp_path: Path) -> None:
    for site in ("BIDMC", "HK", "UCL"):
        for case in range(4):
            label = np.zeros((32, 32, 5), np.uint8)
            label[8:20, 10:24, 1:4] = 1 + case % 2
            image = label * 50 + RNG.random(label.shape) * 30
            folder = tmp_path / site
            folder.mkdir(exist_ok=True)
            affine = np.diag([0.6, 0.6, 3.0, 1.0])
            nib.save(
                nib.Nifti1Image(image.astype(np.float32), affine), folder / f"Case{case:02d}.nii.gz"
            )
            nib.save(nib.Nifti1Image(label, affine), folder / f"Case{case:02d}_segmentation.nii.gz")
    out = tmp_path / "run"
    result = run("simulate", "--data", str(tmp_path), "--size", "32", *QUICK, "--out", str(out))
    assert result.returncode == 0, result.stderr
    study = (out / "study.toml").read_text()
    assert 'volume = "stack3"' in study
    assert 'scaling = "percentile99"' in study
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["sites"]) == {"BIDMC", "HK", "UCL"}
    assert {row["unit"] for row in summary["sites"].values()} == {"mm"}


def test_the_nuclei_layout_with_a_fold(tmp_path: Path) -> None:
    for site in ("TCIA", "CRC", "KIRC"):
        lines = []
        for index in range(6):
            save(tmp_path / site / f"{index}.png", RNG.integers(0, 255, (40, 40, 3)))
            save(tmp_path / site / f"{index}_m.png", blob(40, 255))
            lines.append(f"{site}/{index}.png {site}/{index}_m.png")
        (tmp_path / site / "train.txt").write_text("\n".join(lines[:4]))
        (tmp_path / site / "val.txt").write_text("\n".join(lines[4:]))
        folds = tmp_path / site / "5fold"
        folds.mkdir()
        (folds / f"{site}_fold2_train.txt").write_text("\n".join(lines[1:]))
        (folds / f"{site}_fold2_val.txt").write_text(lines[0])
    for extra, tested in ((), 2), (("--fold", "2"), 1):
        out = tmp_path / f"run{tested}"
        result = run(
            "simulate", "--data", str(tmp_path), "--size", "32", *QUICK, *extra, "--out", str(out)
        )
        assert result.returncode == 0, result.stderr
        summary = json.loads((out / "summary.json").read_text())
        assert {row["patients"] for row in summary["sites"].values()} == {tested}


def test_real_nuclei_are_learnt(tmp_path: Path) -> None:
    """Small and short on purpose; the full figures are in docs/results.md."""
    if "FEDBCS_REAL_DATA" not in os.environ:
        pytest.skip("FEDBCS_REAL_DATA is not set")
    out = tmp_path / "run"
    result = run(
        "simulate", "--data", os.environ["FEDBCS_REAL_DATA"], "--size", "64", "--width", "8",
        "--rounds", "10", "--lr", "3e-3", "--batch-size", "3", "--server-momentum", "0.5", "--seed",
        "1", "--overlays", "0", "--device", "cpu", "--out", str(out),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads((out / "summary.json").read_text())["mean_dice"] > 0.7


def test_real_nuclei_give_the_same_model_under_every_protection(tmp_path: Path) -> None:
    if "FEDBCS_REAL_DATA" not in os.environ:
        pytest.skip("FEDBCS_REAL_DATA is not set")
    models = set()
    for protection in ("secagg", "ckks", "none"):
        out = tmp_path / protection
        result = run(
            "simulate", "--data", os.environ["FEDBCS_REAL_DATA"], "--size", "32", "--width", "4",
            "--rounds", "2", "--sites", "A,B,C", "--batch-size", "24",
            "--protection", protection, "--server-momentum", "0.5", "--seed", "1",
            "--overlays", "0", "--device", "cpu", "--out", str(out),
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        models.add(json.loads((out / "summary.json").read_text())["model_sha256"])
    assert len(models) == 1
