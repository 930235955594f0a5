"""Each benchmark runs alone and ends with one JSON object. What it measures is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
QUICK = {
    "fsr.py": ("--repeats", "1"),
    "alignment.py": ("--repeats", "1", "--size", "32", "--memory-runs", "1"),
    "secagg.py": ("--repeats", "1", "--values", "3000", "--data", "synthetic-mri", "--width", "4",
                  "--size", "32", "--patients", "4", "--growth", "4,33"),
    "ckks.py": ("--quick",),
    "noise.py": ("--quick",),
    "dpsgd.py": ("--repeats", "1", "--width", "4", "--size", "32"),
    "methods.py": ("--rounds", "1", "--width", "4", "--size", "32", "--patients", "5", "--slices",
                   "1"),
    "private.py": ("--rounds", "1", "--plain-rounds", "1", "--width", "4", "--size", "32",
                   "--patients", "5"),
}  # fmt: skip
KEYS = {
    "fsr.py": {"fsr_speedup"},
    "alignment.py": {"l_mp_step_ratio", "l_mp_memory_ratio"},
    "secagg.py": {"mask_pack_ms_n4", "bytes_per_parameter_n8", "bytes_per_parameter_n64",
                  "mask_pack_speedup_n4", "mask_pack_speedup_n16", "mask_pack_speedup_n64",
                  "quantise_speedup", "flower_mask_serialise_ms_n4", "flower_quantise_ms",
                  "flower_bytes_per_parameter", "server_unmask_s_n64_drop20",
                  "stages_share_of_round", "growth_masks", "growth_down_bytes"},
    "ckks.py": {"upload_bytes_per_parameter", "download_bytes_per_parameter", "encrypt_speedup",
                "add_speedup", "decrypt_speedup", "peak_site_mb", "peak_combiner_mb", "tag_ms",
                "noise_ratio", "nvflare_encrypt_speedup", "key_stage_ms_n4", "part_common_ns",
                "part_products_ns", "part_noise_ns", "part_packing_ns", "part_tags_ns",
                "part_signature_ns"},
    "dpsgd.py": {"dp_time_ratio", "private_s", "plain_s"},
    "noise.py": {"wide_ns", "float_ns", "wide_over_float", "opendp_s_1e5",
                 "discrete_gaussian_s_1e5_sigma_4", "discrete_gaussian_s_1e5_sigma_64"},
    "methods.py": {"mean_dice", "worst_dice"},
    "private.py": {"dice", "share", "noise_multiplier", "delta"},
}  # fmt: skip


def test_every_benchmark_is_known_here() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(QUICK)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_last_line_is_json(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(FOLDER / name), "--json", *QUICK[name]],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert set(json.loads(result.stdout.splitlines()[-1])) >= KEYS[name]


@pytest.mark.parametrize("name", sorted(QUICK))
def test_help_explains_the_keys(name: str) -> None:
    result = subprocess.run(
        [sys.executable, str(FOLDER / name), "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for key in KEYS[name]:
        assert key.rstrip("0123456789") in result.stdout or key.startswith("growth_")
