"""Write the known answers beside this file.

``PYTHONPATH=protocols python protocols/vectors/generate.py``
"""

from __future__ import annotations

import json
from pathlib import Path

import known_ckks
import known_frames
import known_group
import known_numbers
import known_sums
import known_tags

HERE = Path(__file__).resolve().parent

FILES = {
    "derive.json": known_numbers.derivations,
    "ring.json": known_numbers.packings,
    "codec.json": known_numbers.quantisations,
    "shamir.json": known_numbers.shamir,
    "secagg.json": known_sums.sums,
    "frames.json": known_frames.frames,
    "tags.json": known_tags.tags,
    "group.json": known_group.stages,
    "ckks.json": known_ckks.ckks,
}


def text(name: str) -> str:
    """The contents of one file."""
    return json.dumps(FILES[name](), indent=1) + "\n"


if __name__ == "__main__":
    for file_name in FILES:
        (HERE / file_name).write_text(text(file_name), encoding="ascii")
