"""What a simulation needs beside the study: where data and results are, device, extras.

Table ``[simulate]`` of a study file. No part of the study's digest.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedbcs_secure.errors import StudyError
from fedbcs_secure.sections import SiteName
from fedbcs_secure.study import sentences


class SimulationSettings(BaseModel):
    """``patients``, ``slices`` and ``severity`` are for the synthetic sources only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "synthetic-mri"
    out: str | None = None
    sites: tuple[SiteName, ...] = ()
    """Only these sites take part; empty: all of the source."""
    fold: int | None = Field(None, ge=0)
    patients: int = Field(20, ge=3, le=100_000)
    slices: int = Field(4, ge=1, le=200)
    severity: float | None = Field(None, ge=0, le=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024)
    validate_every: int = Field(1, ge=0)
    """Rounds between validations; 0: never."""
    overlays: int = Field(3, ge=0, le=1000)
    """Test patients a site whose masks are drawn at the end."""
    tensorboard: bool = False
    drop: tuple[str, ...] = ()
    """Sites that vanish on purpose, ``SITE@STAGE:ROUND`` each (federation.dropouts)."""

    @field_validator("drop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    init: str | None = None
    """What to start from: ``synthetic`` (pre-trained on the public synthetic set), one of its
    names, or a model file; None: the study's seed."""
    cap: float | None = Field(None, gt=0, le=1000)
    """Each simulated site's own cap on epsilon; None: what the study costs."""
    data_digest: str | None = None
    """Written by a run and compared when it is resumed: SHA-256 over all images, labels, splits."""


def build_settings(values: dict[str, Any]) -> SimulationSettings:
    """Validate. Raises :class:`StudyError` with a line for each mistake."""
    try:
        return SimulationSettings.model_validate(values)
    except ValidationError as error:
        text = sentences(error, SimulationSettings)
        raise StudyError("\n".join(f"simulate.{line}" for line in text.splitlines())) from None
