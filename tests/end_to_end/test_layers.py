"""The house: packages are imported by their names, and folders are no packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["protocols", "audits"])
def test_nobody_imports_a_package_by_its_folder(folder: str) -> None:
    """``protocols.fedbcs_protocols`` would load every module a second time."""
    assert not (ROOT / folder / "__init__.py").exists()
    for path in [*ROOT.glob("fedbcs_secure/**/*.py"), *ROOT.glob("protocols/**/*.py"),
                 *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:  # fmt: skip
        text = path.read_text(encoding="utf-8")
        assert f"import {folder}." not in text, path
        assert f"from {folder}." not in text, path


def test_packages_are_found_once() -> None:
    for name in ("fedbcs_secure", "fedbcs_protocols"):
        assert importlib.util.find_spec(name) is not None


def test_protocols_need_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys, fedbcs_protocols.secagg, fedbcs_protocols.codec\n"
        "print(sorted({'torch', 'monai', 'pydantic', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT / "protocols")},
    )
    assert result.stdout.strip() == "[]"
