"""What the documentation tells people to run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from command_line import run

ROOT = Path(__file__).parents[2]


SAID = {"own_training_loop.py": "round 3", "one_protected_sum.py": "[11 11 11], and 4 sites"}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert SAID[path.name] in capsys.readouterr().out


def test_readme_names_verbs_and_flags_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"fedbcs-secure ([a-z]+)", text))
    assert verbs >= {"doctor", "simulate", "evaluate", "predict", "init"}
    for verb in verbs:
        shown = run(verb, "--help")
        assert shown.returncode == 0, verb
        for line in re.findall(rf"fedbcs-secure {verb} ([^\n#]*)", text):
            for flag in re.findall(r"--[a-z-]+", line):
                assert flag in shown.stdout, (verb, flag)


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_documents_hold_no_gaps() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("protocols/**/*.md")]:
        text = page.read_text(encoding="utf-8")
        assert len(text) > 300, f"{page.name} is empty"
        gap = re.search(r"\b(TODO|TBD|FIXME|XXX)\b|\b[A-Z]+_(SHORT|STEP|MEMORY)\b", text)
        assert gap is None, f"{page.name}: {gap}"
