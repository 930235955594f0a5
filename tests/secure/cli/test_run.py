"""simulate, evaluate and predict as a user calls them."""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import TINY, run, start
from PIL import Image
from rich.console import Console

from fedbcs_secure.cli.options import study_and_settings
from fedbcs_secure.cli.session import sites_table


def summary(path: Path) -> dict[str, object]:
    return json.loads((path / "summary.json").read_text())


def test_the_run_folder_runs_again_to_the_same_model(finished: Path, tmp_path: Path) -> None:
    result = run(
        "simulate", "--study", str(finished / "study.toml"), "--out", str(tmp_path / "again")
    )
    assert result.returncode == 0, result.stderr
    assert summary(tmp_path / "again")["model_sha256"] == summary(finished)["model_sha256"]


@pytest.mark.parametrize(
    ("flags", "title", "verified"),
    [
        (("--protection", "ckks", "--rekey-every", "2"), "ckks, 3 of 4", True),
        (("--no-verified-sum",), "secagg, 3 of 4", False),
    ],
    ids=["ckks", "unverified"],
)
def test_every_protection_gives_the_same_model(
    finished: Path, tmp_path: Path, flags: tuple[str, ...], title: str, verified: bool
) -> None:
    out = tmp_path / "run"
    result = run("simulate", *TINY, "--rounds", "2", *flags, "--out", str(out))
    assert result.returncode == 0, result.stderr
    text = result.stdout + result.stderr
    assert title in text
    assert ("a server that works with one site reads every site" in text) == ("ckks" in flags)
    one, other = summary(out), summary(finished)
    assert one["model_sha256"] == other["model_sha256"]
    assert one["sites"] == other["sites"]
    assert (one["verified_sum"], other["verified_sum"]) == (verified, True)
    assert one["study_digest"] != other["study_digest"]
    # What was written down is the same study.
    assert study_and_settings(out / "study.toml", {})[0].digest.hex() == one["study_digest"]


def test_a_key_that_serves_no_round_is_a_usage_error() -> None:
    result = run("simulate", *TINY, "--rekey-every", "0")
    assert result.returncode == 2
    assert "rekey" in result.stderr


def test_a_second_run_into_the_folder_is_refused(finished: Path) -> None:
    result = run("simulate", *TINY, "--out", str(finished))
    assert result.returncode == 1
    assert "already holds a run" in result.stderr


def test_a_finished_run_is_not_resumed(finished: Path) -> None:
    result = run("simulate", "--resume", str(finished))
    assert result.returncode == 1
    assert "finished" in result.stderr


def test_resume_takes_no_other_flag(finished: Path) -> None:
    result = run("simulate", "--resume", str(finished), "--rounds", "9")
    assert result.returncode == 2
    assert "rounds" in result.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_then_resumed_equals_uninterrupted(
    tmp_path: Path, how: signal.Signals
) -> None:
    arguments = ("simulate", *TINY, "--rounds", "6")
    assert run(*arguments, "--out", str(tmp_path / "whole")).returncode == 0
    cut = tmp_path / "cut"
    with start(*arguments, "--out", str(cut)) as process:
        metrics, deadline = cut / "metrics.jsonl", time.monotonic() + 90
        while not (metrics.exists() and metrics.read_text().count("\n") >= 4):
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        output = process.communicate(timeout=60)[0]
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert f"--resume {cut}" in output
    assert not (cut / "summary.json").exists()
    result = run("simulate", "--resume", str(cut))
    assert result.returncode == 0, result.stderr
    assert summary(cut)["model_sha256"] == summary(tmp_path / "whole")["model_sha256"]
    assert summary(cut)["sites"] == summary(tmp_path / "whole")["sites"]


def test_resume_notices_other_data(tmp_path: Path, finished: Path) -> None:
    text = (finished / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace("severity = 0.5", "severity = 0.6"))
    result = run("simulate", "--resume", str(tmp_path))
    assert result.returncode == 1
    assert "not what the run started with" in result.stderr


def test_progress_has_a_line_a_round_without_a_terminal(tmp_path: Path) -> None:
    result = run("simulate", *TINY, "--rounds", "2", "--out", str(tmp_path / "r"))
    text = result.stdout + result.stderr
    assert "round 1/2" in text
    assert "round 2/2" in text
    assert "worst (" in text
    assert "mean" in text


def test_quiet_is_quiet(tmp_path: Path) -> None:
    result = run("simulate", *TINY, "--rounds", "1", "--out", str(tmp_path / "r"), "--quiet")
    assert (result.returncode, result.stdout) == (0, "")


def test_an_unknown_data_source_is_one_sentence(tmp_path: Path) -> None:
    result = run("simulate", "--data", str(tmp_path / "absent.csv"))
    assert result.returncode == 1
    assert "no such file or folder" in result.stderr
    assert "Traceback" not in result.stderr


def test_finch_under_secagg_is_a_usage_error() -> None:
    result = run("simulate", *TINY, "--prototypes", "finch")
    assert result.returncode == 2
    assert 'protection = "none"' in result.stderr


def test_finch_says_what_it_shows(tmp_path: Path) -> None:
    result = run(
        "simulate", *TINY, "--rounds", "2", "--prototypes", "finch", "--protection", "none",
        "--alignment", "faithful", "--out", str(tmp_path / "r"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "exclude commercial use" in result.stdout + result.stderr


def test_evaluate_repeats_the_summary(finished: Path) -> None:
    model = str(finished / "model.safetensors")
    result = run(
        "evaluate", "--model", model, "--data", "synthetic-mri", "--patients", "5",
        "--slices", "2", "--severity", "0.5", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found, expected = json.loads(result.stdout), summary(finished)
    assert found["mean_dice"] == pytest.approx(expected["mean_dice"])
    assert found["model_sha256"] == expected["model_sha256"]
    assert set(found["sites"]) == {"A", "B", "C", "D"}


def test_evaluate_on_a_site_that_took_no_part(finished: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["patient,image,label"]
    for index in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 10:24] = 255
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(
            tmp_path / f"{index}.png"
        )
        Image.fromarray(mask).save(tmp_path / f"{index}_label.png")
        rows.append(f"case{index},{index}.png,{index}_label.png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    result = run(
        "evaluate", "--model", str(finished / "model.safetensors"), "--data",
        str(tmp_path / "manifest.csv"), "--split", "all",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "mean" in result.stdout


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x10" + b"\x00" * 30])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    result = run("evaluate", "--model", str(path), "--data", "synthetic-mri")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "model" in result.stderr


def test_predict_keeps_the_geometry_of_png_and_nifti(finished: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "more").mkdir(parents=True)
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (50, 70), dtype=np.uint8)).save(scans / "a.png")
    affine = np.array([[0.7, 0, 0, 5], [0, -0.9, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1.0]])
    volume = nib.Nifti1Image(rng.random((40, 30, 3)).astype(np.float32), affine)
    nib.save(volume, scans / "more" / "b.nii.gz")
    out = tmp_path / "masks"
    result = run(
        "predict", "--model", str(finished / "model.safetensors"), "--input", str(scans),
        "--out", str(out), "--overlays",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2 of 2 masks" in result.stdout
    assert Image.open(out / "a_mask.png").size == (70, 50)
    mask = nib.load(out / "more" / "b_mask.nii.gz")
    assert mask.shape == (40, 30, 3)
    assert np.allclose(mask.affine, affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    assert (out / "a.png_overlay.png").exists()
    assert (out / "more" / "b.nii.gz_overlay.png").exists()
    again = run(
        "predict", "--model", str(finished / "model.safetensors"), "--input", str(scans),
        "--out", str(out),
    )  # fmt: skip
    assert again.returncode == 1
    assert "--force" in again.stderr


def test_predict_reports_a_bad_file_and_does_the_others(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    result = run(
        "predict", "--model", str(finished / "model.safetensors"), "--input",
        str(tmp_path / "in"), "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.returncode == 1
    assert "bad.png" in result.stderr
    assert (tmp_path / "out" / "good_mask.png").exists()


def test_a_model_a_site_is_asked_for_by_name(tmp_path: Path) -> None:
    out = tmp_path / "local"
    assert (
        run("simulate", *TINY, "--rounds", "1", "--method", "local", "--out", str(out)).returncode
        == 0
    )
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x.png")
    base = (
        "predict", "--model", str(out / "model.safetensors"), "--out", str(tmp_path / "m"),
        "--input", str(tmp_path / "x.png"),
    )  # fmt: skip
    unnamed = run(*base)
    assert unnamed.returncode == 1
    assert "A, B, C, D" in unnamed.stderr
    assert run(*base, "--as-site", "B").returncode == 0


def test_init_writes_a_study_that_runs(tmp_path: Path) -> None:
    assert run("init", cwd=tmp_path).returncode == 0
    assert run("init", cwd=tmp_path).returncode == 2
    assert run("init", "--force", cwd=tmp_path).returncode == 0
    result = run(
        "simulate", "--study", "study.toml", *TINY, "--rounds", "1", "--out", "r", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr


def test_doctor_lists_all_problems_and_draws_a_sheet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["site,patient,image,label,split"]
    for index in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(
            tmp_path / f"{index}.png"
        )
        size = 32 if index else 16
        Image.fromarray(np.full((size, size), 255, np.uint8)).save(tmp_path / f"{index}_l.png")
        split = "test" if index == 3 else "train"
        rows.append(f"A,case{index},{index}.png,{index}_l.png,{split}")
    rows.append("A,case9,missing.png,0_l.png,train")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    sheet = tmp_path / "sheet.png"
    result = run("doctor", "--data", str(tmp_path), "--sheet", str(sheet), "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert not report["ok"]
    text = " ".join(report["problems"])
    assert "case0" in text
    assert "case9" in text
    assert "missing.png" in text
    assert sheet.stat().st_size > 1000
    plain = run("doctor", "--data", str(tmp_path), "--sheet", str(sheet))
    assert "problem" in plain.stdout


def test_doctor_is_content_with_the_embedded_data(tmp_path: Path) -> None:
    result = run("doctor", "--data", "synthetic-mri", "--sheet", str(tmp_path / "s.png"))
    assert result.returncode == 0, result.stderr
    assert "no problems" in result.stdout


def test_entry_point_is_installed() -> None:
    script = Path(sys.executable).with_name("fedbcs-secure")
    assert script.exists(), "install the package (make install) to test its command"


def test_demo_runs(tmp_path: Path) -> None:
    result = run("demo", "--rounds", "1", "--out", str(tmp_path / "demo"))
    assert result.returncode == 0, result.stderr
    assert "Four hospitals" in result.stderr
    assert "worst (" in result.stdout
    assert summary(tmp_path / "demo")["protection"] == "secagg"


def test_a_run_is_resumed_from_another_folder(tmp_path: Path, finished: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["site,patient,image,label,split"]
    rng = np.random.default_rng(0)
    for site in "ABC":
        for index in range(4):
            name = f"{site}{index}"
            Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(
                data / f"{name}.png"
            )
            mask = np.zeros((32, 32), np.uint8)
            mask[4 : 20 + index, 9:25] = 255
            Image.fromarray(mask).save(data / f"{name}_l.png")
            rows.append(
                f"{site},{name},{name}.png,{name}_l.png,{'test' if index == 3 else 'train'}"
            )
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    flags = ("--size", "32", "--width", "4", "--rounds", "4", "--device", "cpu")
    with start(
        "simulate", "--data", "data/manifest.csv", *flags, "--out", "cut", cwd=tmp_path
    ) as process:
        metrics, deadline = tmp_path / "cut" / "metrics.jsonl", time.monotonic() + 90
        while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=60)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    label = data / "B1_l.png"
    before = label.read_bytes()
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(label)
    edited = run("simulate", "--resume", str(tmp_path / "cut"), cwd=elsewhere)
    assert edited.returncode == 1
    assert "not what the run started with" in edited.stderr
    label.write_bytes(before)
    result = run("simulate", "--resume", str(tmp_path / "cut"), cwd=elsewhere)
    assert result.returncode == 0, result.stderr


def test_tensorboard_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "r"
    assert (
        run("simulate", *TINY, "--rounds", "1", "--out", str(out), "--tensorboard").returncode == 0
    )
    assert list((out / "tensorboard").iterdir())


def test_threads_are_kept_for_resume(finished: Path) -> None:
    text = (finished / "study.toml").read_text()
    assert f"threads = {torch.get_num_threads()}" in text


def test_evaluate_all_takes_sites_too_small_to_split(finished: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "x_l.png")
    (tmp_path / "manifest.csv").write_text("patient,image,label\np1,x.png,x_l.png\n")
    base = ("evaluate", "--model", str(finished), "--data", str(tmp_path), "--json")
    result = run(*base, "--split", "all")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sites"]["A"]["patients"] == 1


def test_a_table_of_pixels_and_millimetres_has_no_mean_distance() -> None:
    row = {"patients": 1, "dice": 0.5, "hd95": 2.0, "assd": 1.0}
    sites = {"A": row | {"unit": "mm"}, "B": row | {"unit": "px"}}
    mixed = {"A": row | {"unit": "mixed", "hd95": None, "assd": None}}
    for rows, mean in ((sites, "-"), (mixed, "-"), ({"A": row | {"unit": "mm"}}, "2.00")):
        console = Console(record=True, width=100, file=io.StringIO())
        console.print(sites_table(rows, "t"))
        last = console.export_text().strip().splitlines()[-1]
        assert last.split("│")[3].strip() == mean


def test_doctor_and_predict_touch_no_network(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    sheet = tmp_path / "s.png"
    assert (
        run("doctor", "--data", "synthetic-he", "--size", "32", "--sheet", str(sheet)).returncode
        == 0
    )
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x.png")
    result = run(
        "predict", "--model", str(finished), "--input", str(tmp_path / "x.png"), "--out",
        str(tmp_path / "m"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_doctor_says_what_one_site_cannot_do(tmp_path: Path) -> None:
    rows = ["patient,image,label"]
    for index in range(4):
        Image.fromarray(np.full((32, 32), index * 40, np.uint8)).save(tmp_path / f"{index}.png")
        Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(tmp_path / f"{index}_l.png")
        rows.append(f"p{index},{index}.png,{index}_l.png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    result = run("doctor", "--data", str(tmp_path), "--sheet", str(tmp_path / "s.png"))
    assert "--method local or pooled" in result.stdout


@pytest.mark.parametrize("verb", ["doctor", "predict", "simulate"])
def test_places_that_cannot_be_written(finished: Path, tmp_path: Path, verb: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x.png")
    arguments = {
        "doctor": ("--data", "synthetic-mri", "--size", "32", "--sheet", str(blocked / "s.png")),
        "predict": ("--model", str(finished), "--input", str(tmp_path / "x.png"), "--out",
                    str(blocked)),
        "simulate": (*TINY, "--out", str(blocked / "r")),
    }[verb]  # fmt: skip
    result = run(verb, *arguments)
    assert result.returncode == 1
    assert str(blocked) in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_key_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("runds = 3\n[model]\nwidht = 4\n")
    result = run("simulate", "--study", str(tmp_path / "study.toml"))
    assert result.returncode == 2
    assert "did you mean rounds?" in result.stderr
    assert "did you mean width?" in result.stderr


def test_short_runs_are_told_that_nothing_aligns(tmp_path: Path) -> None:
    result = run("simulate", *TINY, "--rounds", "1", "--out", str(tmp_path / "r"))
    assert "alignment starts after 4 rounds" in result.stdout + result.stderr
