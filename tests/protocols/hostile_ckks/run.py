"""``python run.py FAMILY``: the attacks of one family, a line each."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(p) for p in (ROOT / "tests" / "support", ROOT / "protocols", ROOT, HERE)]

if __name__ == "__main__":
    perform = import_module("ckks_cast").perform
    perform(import_module(f"family_{sys.argv[1]}").attacks())
