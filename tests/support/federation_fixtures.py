"""A small federation without images: training is a function of site and state."""

from __future__ import annotations

import hashlib

import numpy as np

from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.learning.weights import TensorSpec
from fedbcs_secure.study import Study, build

TENSORS = (
    TensorSpec("enc0.conv0.weight", (4, 3, 3, 3)),
    TensorSpec("head.weight", (2, 4, 1, 1)),
    TensorSpec("head.bias", (2,)),
)
FUSED = 12


def make_study(sites: str = "ABCD", **values: object) -> Study:
    roster = [
        {"name": s, "weight": float(10 + 5 * i), "steps": 3, "classes": [0, 1]}
        for i, s in enumerate(sites)
    ]
    return build({"roster": roster, **values}).resolved()


def fake_training(
    site: str, state: GlobalState, *, scale: float = 1e-3, lacking: tuple[str, ...] = ()
) -> LocalResult:
    """A reproducible stand-in for local training: seeded by site, round and weights."""
    seed = hashlib.sha256(site.encode() + state.digest).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
    delta = (scale * rng.standard_normal(state.weights.size)).astype(np.float32)
    views = []
    for _ in range(2):
        present = np.array([True, site not in lacking])
        means = rng.standard_normal((2, FUSED)).astype(np.float32)
        means[~present] = 0
        views.append((means, present))
    return LocalResult(delta, tuple(views), 0.5, 3, 0.0)
