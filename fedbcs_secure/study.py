"""The study document: every choice that all sites must share, as one frozen, digested value.

TOML on disk, unknown keys refused, safe defaults. ``Study.digest`` binds protocol messages and key
derivations, so neither server nor organiser can change a parameter afterwards. Two things are *not*
in it: where a site keeps its data, and any secret.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from fedbcs_protocols.secagg.setting import default_terms, is_safe
from fedbcs_secure.errors import StudyError
from fedbcs_secure.sections import (
    AlignmentConfig,
    Codec,
    DataContract,
    Method,
    ModelConfig,
    Privacy,
    Protection,
    Section,
    SiteEntry,
    Training,
)

_MAX_STUDY_BYTES = 1_000_000
MAX_SHARE = 0.9


class Study(Section):
    """The whole document. Build one with :func:`load`, :meth:`resolved` and keyword arguments."""

    name: str = Field("study", pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")
    protocol_version: Literal[1] = 1
    method: Method = "fedbcs"
    protection: Protection = "secagg"
    rounds: int = Field(20, ge=1, le=100_000)
    seed: int = Field(0, ge=0, lt=2**63)
    """Public. Seeds initial weights, the rounding stream and (without DP) the local training."""
    server_momentum: float = Field(0.0, ge=0, lt=1)
    min_sites: int = Field(3, ge=1)
    """A class with fewer holders is not aligned; a round with fewer sites does not happen.
    At least 3 with protection: from a sum of two, either site can read the other."""
    threshold: int | None = Field(None, ge=1, le=1024)
    """Sites that must stay to a round's end; None: the smallest safe number (:meth:`terms`)."""
    colluders: int | None = Field(None, ge=1, le=1023)
    """Sites that may work with the server; None: a fifth of the roster, at least one."""
    max_reused_states: int = Field(0, ge=0, le=8)
    """How often a site may answer again for a state it has answered for; each can give a site away
    by subtraction."""
    verified_sum: bool = True
    """Whether sites check the numbers of a ``secagg`` sum, with a key that the server does not
    have. Without it the server may announce any numbers. ``ckks`` always checks."""
    rekey_every: int = Field(1, ge=1, le=1000)
    """Rounds that the sites' common key serves; a site that comes or goes ends it earlier."""
    data: DataContract = DataContract()
    model: ModelConfig = ModelConfig()
    training: Training = Training()
    alignment: AlignmentConfig = AlignmentConfig()
    codec: Codec = Codec()
    privacy: Privacy | None = None
    roster: tuple[SiteEntry, ...] = Field((), max_length=1024)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.alignment.prototypes == "finch" and self.protection != "none":
            raise ValueError(
                'prototypes = "finch" needs each site\'s own prototypes in the clear, so it works '
                'only with protection = "none" (research on data that may be shown); use "mean"'
            )
        if self.alignment.prototypes == "finch" and self.alignment.prototype_momentum:
            raise ValueError("prototype_momentum: clusters have no counterpart in the last round")
        if self.protection != "none" and self.min_sites < 3:
            raise ValueError(
                f'protection = "{self.protection}" needs min_sites of 3 or more: '
                "from a sum of two, either site can read the other"
            )
        names = [entry.name for entry in self.roster]
        if len(set(names)) != len(names):
            raise ValueError("the roster names a site twice")
        for entry in self.roster:
            if any(c < 0 or c >= self.data.classes for c in entry.classes):
                raise ValueError(
                    f"site {entry.name} lists a class outside 0..{self.data.classes - 1}"
                )
            if len(set(entry.classes)) != len(entry.classes):
                raise ValueError(f"site {entry.name} lists a class twice")
        if self.federated and self.roster and len(self.roster) < self.min_sites:
            raise ValueError(
                f"{len(self.roster)} site(s) in the roster, min_sites = {self.min_sites}: "
                "a sum over so few sites would show their updates"
            )
        if self.federated and self.roster:
            self._check_sum()
        if self.privacy is not None:
            self._check_privacy(self.privacy)
        return self

    def _check_privacy(self, privacy: Privacy) -> None:
        """Raise ValueError for what would make a promise of differential privacy false (DP-3)."""
        if not self.federated:
            raise ValueError(
                f"privacy is about what sites send, and method {self.method} sends nothing"
            )
        if self.model.norm == "batch":
            raise ValueError(
                'privacy: norm = "batch" mixes patients, so no gradient is one patient\'s; use '
                '"instance" or "group"'
            )
        if self.alignment.prototypes == "finch":
            raise ValueError('privacy: prototypes = "finch" shows them; use "mean"')
        if privacy.noise == "shared" and self.protection != "secagg":
            raise ValueError(
                'privacy.noise = "shared" relies on nobody seeing less than the sum: it needs '
                'protection = "secagg"'
            )
        if privacy.noise == "shared" and self.max_reused_states:
            raise ValueError(
                'privacy.noise = "shared": two sums over one state differ by a single site, with '
                "its own noise alone; max_reused_states must be 0"
            )
        if self.data.split == "counts":
            raise ValueError(
                'privacy: data.split = "counts" lets one patient more move others in and out of '
                'training; use "independent"'
            )
        if privacy.unit == "slice" and (
            self.data.volume == "stack3" or self.data.scaling != "fixed"
        ):
            raise ValueError(
                'privacy.unit = "slice" needs slices that do not depend on each other: '
                'data.volume = "slices" and data.scaling = "fixed"'
            )
        missing = [entry.name for entry in self.roster if entry.patients is None]
        if missing:
            raise ValueError(
                f"privacy: the roster says no nominal number of patients for {', '.join(missing)}"
            )

    def _check_sum(self) -> None:
        """Raise ValueError when the ring cannot hold the sum, or the sum could give a site away."""
        sites, bits = len(self.roster), self.codec.bits
        needed = bits + (sites - 1).bit_length()
        if needed > 32:
            raise ValueError(
                f"{bits} bits and {sites} sites need a ring of {needed} bits, at most 32: "
                "lower codec.bits"
            )
        if self.protection == "ckks":
            self._check_parameters(sites, bits)
        threshold, colluders = self.terms
        if not self.min_sites <= threshold <= sites:
            raise ValueError(
                f"threshold = {threshold} must be from min_sites = {self.min_sites} to the "
                f"{sites} sites of the roster"
            )
        if self.protection == "none":
            return
        if not is_safe(sites, threshold, colluders):
            least = max((sites + colluders) // 2 + 1, colluders + 2)
            advice = f"raise threshold to {least} or more"
            if least > sites:
                advice = "lower colluders, or have more sites"
            raise ValueError(
                f"threshold = {threshold} of {sites} sites is not safe against {colluders} "
                f"colluding site(s): {advice}"
            )
        share = self.largest_share([entry.weight for entry in self.roster])
        if share > MAX_SHARE:
            largest = max(self.roster, key=lambda entry: entry.weight)
            raise ValueError(
                f"site {largest.name} can have {share:.0%} of the weight in a round with "
                f"{threshold} sites, {colluders} of them working with the server, so the average "
                f"would show its update; at most {MAX_SHARE:.0%}: lower its nominal weight"
            )

    def _check_parameters(self, sites: int, bits: int) -> None:
        """Raise ValueError when a ciphertext cannot hold the sum."""
        from fedbcs_protocols.ckks.params import parameter_set
        from fedbcs_protocols.errors import LocalError

        try:
            parameter_set(sites, bits)
        except LocalError as error:
            raise ValueError(f"{error}: lower codec.bits, or choose secagg") from None

    def largest_share(self, weights: Sequence[float]) -> float:
        """The most that one of ``weights`` can be of a sum, when its worst comes to the worst:

        the heaviest others have dropped out (as many as may) or collude with the server.
        """
        threshold, colluders = self.terms
        largest, *others = sorted(weights, reverse=True)
        rest = others[len(self.roster) - threshold + colluders :]
        return largest / math.fsum([largest, *rest])

    @property
    def terms(self) -> tuple[int, int]:
        """(threshold, colluders) of a study with a roster, defaults filled in."""
        sites = len(self.roster)
        threshold, colluders = default_terms(sites, self.colluders)
        if self.threshold is not None:
            return self.threshold, colluders
        return min(max(threshold, self.min_sites), sites), colluders

    @property
    def fewest_holders(self) -> int:
        """Holders that a class needs to be aligned: enough are left whoever drops out."""
        threshold, colluders = self.terms
        if len(self.roster) < 3:  # no protected sum, so nothing to hide in it
            return self.min_sites
        return max(self.min_sites, colluders + 2) + len(self.roster) - threshold

    @property
    def group_key(self) -> bool:
        """Whether the sites share a key that the server does not have."""
        return self.protection == "ckks" or (self.protection == "secagg" and self.verified_sum)

    @property
    def prototype_rounds(self) -> frozenset[int]:
        """The rounds, from 0, in which prototypes are released under differential privacy.

        The first is the one before they are used, and none is the last, which would be in vain.
        """
        if self.privacy is None or self.privacy.prototype_noise is None:
            return frozenset()
        start = max(settled(self.alignment.warmup_rounds) - 1, 0)
        return frozenset(range(int(start), self.rounds - 1, self.privacy.prototype_every))

    @property
    def noise_shares(self) -> int:
        """h: sites that are sure to add noise to the sum of prototypes (DP-4.5); 1: each alone."""
        if self.privacy is None or self.privacy.noise == "site":
            return 1
        threshold, colluders = self.terms
        return threshold - colluders

    @property
    def federated(self) -> bool:
        """Whether the method exchanges anything (``local`` and ``pooled`` do not)."""
        return self.method in ("fedbcs", "fedavg", "fedprox")

    def resolved(self) -> Study:
        """The study with every None replaced by what the method calls for."""
        aligned = self.method == "fedbcs" and self.alignment.form != "off"
        if self.privacy is not None and self.privacy.prototype_noise is None:
            aligned = False
        gentle, mean = self.alignment.form == "gentle", self.alignment.prototypes == "mean"
        a = self.alignment

        def pick(value: Any, default: Any) -> Any:
            return default if value is None else value

        alignment = a.model_copy(
            update={
                "form": a.form if aligned else "off",
                "weight": pick(a.weight, 0.1 if gentle else 1.0),
                "temperature": pick(a.temperature, 0.3 if gentle else 0.005),
                "warmup_rounds": pick(a.warmup_rounds, 4 if gentle else 1),
                "prototype_momentum": pick(a.prototype_momentum, 0.5 if gentle and mean else 0.0),
            }
        )
        model = self.model.model_copy(
            update={
                "fsr": pick(self.model.fsr, "published" if self.method == "fedbcs" else "off"),
                "fused_width": pick(self.model.fused_width, 16 if gentle else 8 * self.model.width),
            }
        )
        split = "counts" if self.privacy is None else "independent"
        data = self.data.model_copy(update={"split": pick(self.data.split, split)})
        update: dict[str, Any] = {"alignment": alignment, "model": model, "data": data}
        if self.federated and self.roster:
            update["threshold"], update["colluders"] = self.terms
        return self.model_copy(update=update)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON of the document (sorted keys, shortest floats)."""
        canonical = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(b"fedbcs-secure study v1\x00" + canonical.encode()).digest()


def settled(value: float | None) -> float:
    """The value of a field that :meth:`Study.resolved` fills in.

    Raises :class:`StudyError` when the study was not resolved.
    """
    if value is None:
        raise StudyError("the study still has open defaults; use Study.resolved() first")
    return value


def sentences(error: ValidationError, model: type[BaseModel]) -> str:
    """A line for each mistake that pydantic found in the document of ``model``."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "study"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _keys(model), 1)
            lines.append(f"{where}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
        else:
            lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _keys(model: type[BaseModel]) -> list[str]:
    """The names of all fields, those of the tables included."""
    names = list(model.model_fields)
    for field in model.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                names += _keys(inner)
    return names


def build(values: dict[str, Any]) -> Study:
    """Validate ``values`` as a study. Raises :class:`StudyError` with a line for each mistake."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(sentences(error, Study)) from None


def load(path: Path) -> dict[str, Any]:
    """The raw tables of a study file, for :func:`build` after flags were laid over them.

    Raises :class:`StudyError` when the file is missing, over 1 MB or not TOML.
    """
    try:
        if path.stat().st_size > _MAX_STUDY_BYTES:
            raise StudyError(f"{path} is over 1 MB, which is no study document")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"cannot read study file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StudyError(f"{path} is not valid TOML: {error}") from None
