"""Every attack ends in a named refusal, in a process that would be missed if it crashed.

What each is, and which clause stops it, is in README.md beside this file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
ROOT = HERE.parents[3]
SCRIPT = ROOT / "tests" / "support" / "ckks_attacks.py"

REFUSALS = {
    "crafted": {"BadTag", "SumOutOfRange", "BadCiphertext"},
    "arithmetic": {"BadTag", "SumOutOfRange", "BadNoise"},
    "replays": {"BadTag", "WrongBinding", "Refused", "Inconsistent", "BadSiteList"},
    "keys": {"Inconsistent", "Refused", "SumOutOfRange", "BadTag"},
    "malformed": {
        "MalformedFrame", "BadSignature", "UnknownSender", "UnexpectedFrame", "WrongBinding",
        "Inconsistent", "BadTag", "BadCiphertext", "SumOutOfRange",
    },
}  # fmt: skip
NAMED = {
    "(0, 2^40) added": "SumOutOfRange",
    "c1 = 0": "BadCiphertext",
    "words from q on": "BadCiphertext",
    "one site's ciphertext alone": "BadTag",
    "A four times less B": "SumOutOfRange",
    "another set in the second chunk": "BadTag",
    "chunks in another order": "BadTag",
    "a value added": "BadTag",
    "noise that changes no value": "BadNoise",
    "of an earlier attempt": "BadTag",
    "of an earlier round": "BadTag",
    "an upload of an earlier round": "WrongBinding",
    "a second aggregate of the attempt": "Refused",
    "a second aggregate after a restart": "Refused",
    "the true sum after a refusal": "Refused",
    "another aggregate than this site signed": "Inconsistent",
    "an aggregate that two sites signed": "BadSiteList",
    "an upload under another key": "Inconsistent",
    "an upload under another key that names this one": "SumOutOfRange",
    "a sum under a key that this site does not have": "Refused",
    "SEAL's own blob in place of a chunk": "MalformedFrame",
    "a vector without ciphertexts, 2048 values": "MalformedFrame",
    "a vector of 20000 values": "MalformedFrame",
    "4 GiB claimed": "MalformedFrame",
}


def outcomes(family: str) -> dict[str, str]:
    folders = [ROOT / "protocols", ROOT, ROOT / "tests" / "support"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(SCRIPT), family],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, f"died after: {ran.stdout[-300:]}\n{ran.stderr[-2000:]}"
    found = dict(re.findall(r"^(.*): (\w+)$", ran.stdout, re.MULTILINE))
    assert len(found) == len(ran.stdout.splitlines())
    return found


@pytest.mark.parametrize("family", REFUSALS)
def test_attacks(family: str) -> None:
    found = outcomes(family)
    wrong = {name: end for name, end in found.items() if end not in REFUSALS[family]}
    assert not wrong
    for name, end in found.items():
        assert NAMED.get(name, end) == end, name
    assert len(found) >= {"crafted": 15, "arithmetic": 18, "replays": 9, "keys": 5}.get(family, 200)


def test_what_is_no_attack_is_taken() -> None:
    """The same tools with nothing false: and the key recovery is real for who sees decryptions."""
    assert set(outcomes("control").values()) == {"taken"}


def test_every_named_attack_is_there() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert [name for name in NAMED if f'"{name}"' not in text and "(0, " not in name] == []
