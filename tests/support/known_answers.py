"""The files of known answers (``protocols/vectors``), and what the one of whole sums says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import second_frames
import second_implementation as second

from fedbcs_protocols.binding import Binding

VECTORS = Path(__file__).parents[2] / "protocols" / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text("ascii"))


def as_binding(fields: dict[str, Any]) -> Binding:
    return Binding(
        bytes.fromhex(fields["study_digest"]),
        fields["round"],
        fields["attempt"],
        fields["phase"],
        bytes.fromhex(fields["state_digest"]),
    )


# Whole sums --------------------------------------------------------------------------------------

SUMS = load("secagg.json")
NAMES = list(SUMS["identity_secrets"])
N, THRESHOLD = SUMS["terms"]["sites"], SUMS["terms"]["threshold"]
BITS, COUNT = SUMS["bits"], SUMS["count"]
STAGES = ("advertise", "shares", "masked_input", "consistency", "unmask")
RUNS = pytest.mark.parametrize("run", SUMS["runs"], ids=lambda run: run["what"])


def unhex(site: Mapping[str, Any], key: str) -> bytes:
    return bytes.fromhex(site[key])


class Told:
    """What a run's file says, and who sent a frame in each stage."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run, self.binding, self.sites = run, run["binding"], run["sites"]
        assert [site["name"] for site in self.sites] == NAMES
        self.sent = {
            stage: [p for p, site in enumerate(self.sites) if stage in site["frames"]]
            for stage in STAGES
        }

    def frame(self, place: int, stage: str) -> bytes:
        return bytes.fromhex(self.sites[place]["frames"][stage])

    def from_site(self, place: int, kind: int, sequence: int, body: bytes) -> bytes:
        name = NAMES[place]
        secret = SUMS["identity_secrets"][name]
        return second_frames.frame(secret, kind, self.binding, name, sequence, body)

    def from_combiner(self, kind: int, sequence: int, body: bytes) -> str:
        secret = SUMS["combiner_secret"]
        framed = second_frames.frame(secret, kind, self.binding, "@combiner", sequence, body)
        return framed.hex()

    def held(self, owner: int, holder: int) -> tuple[bytes, bytes]:
        """The holder's shares of the owner's mask key and of its seed."""
        site = self.sites[owner]
        (mask,), (seed,) = (
            second.split(
                unhex(site, secret), [int(a, 16) for a in site[coefficients]], [holder + 1]
            )
            for secret, coefficients in (
                ("mask_secret", "mask_coefficients"),
                ("seed", "seed_coefficients"),
            )
        )
        return mask, seed

    def pair_key(self, one: int, other: int, secret: bytes) -> bytes:
        """The key of the mask between two, from the mask secret of ``one``."""
        agreed = second.shared(secret, unhex(self.sites[other], "mask_key"))
        both = sorted((one, other))
        names, keys = (
            [NAMES[p] for p in both],
            [unhex(self.sites[p], "mask_key") for p in both],
        )
        return second.stream_key(agreed, "secagg pairwise mask", self.binding, names, keys)

    def self_key(self, place: int, seed: bytes) -> bytes:
        names, key = [NAMES[place]] * 2, unhex(self.sites[place], "mask_key")
        return second.stream_key(seed, "secagg self mask", self.binding, names, [key, key])
