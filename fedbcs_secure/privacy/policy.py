"""What a site allows, whatever a study or a server asks for: its policy, from its own file (DP-6).

A policy is a floor that the site's staff set in ``site.toml``. Nothing in it comes from the server,
and no decision looks at the patients' images: only at what a study says and what was spent before.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from fedbcs_protocols.errors import Refused
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.events import Unit
from fedbcs_secure.sections import Protection, Section
from fedbcs_secure.study import sentences

_MAX_FILE_BYTES = 1_000_000
_TABLE = "policy"
_LABEL = b"fedbcs-secure site policy v1\x00"

NO_MORE = "The site takes no further part in this study"
_SHARING = (
    "the sites share the noise of a release, and the site does not allow that (its policy has no "
    "local_epsilon)"
)

_IMAGES_BEFORE = (
    "an earlier release about a patient of this study hid single images only (the policy had "
    'unit = "slice" then). It bounds nothing about a patient with several images, so their privacy '
    "spend is infinite. Leave out the patients of that release; or, if it is enough to hide single "
    'images, let staff set unit = "slice" in the policy of the site'
)

StudyDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Reason(StrEnum):
    """Why a site declined: all that there are, so an entry of the ledger cannot hold any other."""

    BUDGET = "budget"
    LOCAL_BUDGET = "local budget"
    SHARED_NOISE = "shared noise"
    NOISE = "noise"
    CLIP = "clip"
    SITES = "sites"
    PROTECTION = "protection"
    UNIT = "unit"
    DELTA = "delta"
    STUDY = "study"
    OTHER_STATE = "other state"
    LOST = "lost"


class PolicyRefused(Refused):
    """The site's policy, budget or ledger forbids it. ``reason`` and ``cost`` go into the ledger.

    ``cost``: the epsilon that a release would have led to; 0 where it was not asked for.
    """

    def __init__(self, reason: Reason, text: str, cost: float = 0.0) -> None:
        self.reason = reason
        self.cost = cost
        super().__init__(text)


class SitePolicy(Section):
    """The table ``[policy]`` of ``site.toml``. A site without one has these defaults (DP-6.2)."""

    epsilon: float = Field(8.0, gt=0, le=1000)
    """The most that may be spent on any patient, over all studies together, at ``delta``."""
    delta: float = Field(1e-5, ge=1e-9, lt=0.01)
    """Where epsilon is measured; a study may not state its own at a larger one."""
    local_epsilon: float | None = Field(None, gt=0, le=100_000)
    """The same cap for noise that several sites share, if no other site adds any. None: such
    noise is not allowed."""
    min_noise_multiplier: float = Field(0.5, gt=0, le=1e4)
    """Of every release, however small its epsilon."""
    max_clip: float = Field(10.0, gt=0, le=1e6)
    """Of a patient's gradient or class means. Privacy does not depend on it, but one patient's
    weight in the result does."""
    min_sites: int = Field(3, ge=1, le=1024)
    """Sites that must be left in a sum."""
    protections: tuple[Protection, ...] = Field(("secagg", "ckks"), min_length=1)
    unit: Unit = "patient"
    """What is hidden at ``epsilon``: ``slice`` allows studies that hide single images only."""
    studies: tuple[StudyDigest, ...] | None = Field(None, max_length=1000)
    """Digests of the studies that staff approved; None: any that the rest of the policy allows."""

    @model_validator(mode="after")
    def _consistent(self) -> SitePolicy:
        if self.local_epsilon is not None and self.local_epsilon < self.epsilon:
            raise ValueError(
                f"local_epsilon = {self.local_epsilon:g} is below epsilon = {self.epsilon:g}: a "
                "share of the noise never hides more than all of it"
            )
        return self

    @property
    def text(self) -> str:
        """Canonical JSON: sorted keys, shortest floats."""
        values = self.model_dump(mode="json")
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of :attr:`text` under a label of its own."""
        return digest_of(self.text)


def digest_of(text: str) -> bytes:
    """The digest of a policy's canonical text."""
    return hashlib.sha256(_LABEL + text.encode()).digest()


def load_policy(path: Path) -> SitePolicy:
    """The policy in a site's file; the defaults if there is no file, or no table in it (DP-6.1).

    Raises :class:`PrivacyError` with a line for each mistake.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return SitePolicy()
    except OSError as error:
        raise PrivacyError(f"cannot read the site's file {path}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise PrivacyError(f"{path} is over 1 MB, which is no site's file")
    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PrivacyError(f"{path} is not valid TOML: {error}") from None
    if _TABLE not in tables:
        # A table that is misspelt would leave the site with a policy that nobody chose.
        for near in difflib.get_close_matches(_TABLE, tables, 1):
            raise PrivacyError(f"{path}: unknown table [{near}]; did you mean [{_TABLE}]?")
        misplaced = sorted(set(SitePolicy.model_fields) & set(tables))
        if misplaced:
            raise PrivacyError(f"{path}: {misplaced[0]} belongs into the table [{_TABLE}]")
    return build_policy(tables.get(_TABLE, {}), str(path))


def build_policy(values: Any, where: str = "the site's policy") -> SitePolicy:
    """Validate the values of a table. Raises :class:`PrivacyError`, a line for each mistake."""
    try:
        return SitePolicy.model_validate(values)
    except ValidationError as error:
        raise PrivacyError(f"{where}:\n{sentences(error, SitePolicy)}") from None


def refuse_study(
    policy: SitePolicy,
    *,
    study: bytes,
    noise_multiplier: float,
    clip: float,
    sites: int,
    protection: str,
    unit: Unit,
    delta: float,
    shared: bool = False,
) -> None:
    """Return when the policy allows a study with these terms, before any data is touched (DP-6.3).

    ``study``: its digest. ``noise_multiplier``: the smallest of its releases; ``clip``: the largest
    of its clips; ``sites``: the fewest that a sum may be over; ``delta``: where it states its
    epsilon; ``shared``: whether sites share the noise of a release. Raises :class:`PolicyRefused`
    with a sentence for each thing that is not allowed, and the first one's reason.
    """
    found: list[tuple[Reason, str]] = []
    allowed = policy.studies
    if allowed is not None and study.hex() not in allowed:
        found.append((Reason.STUDY, _unapproved(study)))
    # Comparisons are this way round so that NaN is refused.
    if not noise_multiplier >= policy.min_noise_multiplier:
        found.append((Reason.NOISE, _too_little_noise(noise_multiplier, policy)))
    if not 0 < clip <= policy.max_clip:
        text = f"the study clips at {clip:g}; the site allows at most {policy.max_clip:g}"
        found.append((Reason.CLIP, text))
    if not sites >= policy.min_sites:
        text = f"a sum may be over {sites} site(s); the site asks for {policy.min_sites} or more"
        found.append((Reason.SITES, text))
    if protection not in policy.protections:
        names = " or ".join(policy.protections)
        text = f'the study has protection = "{protection}"; the site allows {names}'
        found.append((Reason.PROTECTION, text))
    if unit not in ("patient", policy.unit):
        found.append((Reason.UNIT, _wrong_unit(unit)))
    if not 0 < delta <= policy.delta:
        text = f"the study states epsilon at delta {delta:g}; the site allows {policy.delta:g}"
        found.append((Reason.DELTA, text))
    if shared and policy.local_epsilon is None:
        found.append((Reason.SHARED_NOISE, _SHARING))
    if found:
        lines = "; ".join(text for _, text in found)
        raise PolicyRefused(found[0][0], f"{lines}. The site takes no part in this study")


def refuse_terms(
    policy: SitePolicy, *, study: bytes, noise_multiplier: float, shared: bool
) -> None:
    """Return when the policy allows a release with these terms; asked at every one (DP-6.3).

    ``noise_multiplier``: the smallest of its parts; ``shared``: whether other sites add to it.
    Raises :class:`PolicyRefused`.
    """
    if policy.studies is not None and study.hex() not in policy.studies:
        raise PolicyRefused(Reason.STUDY, f"{_unapproved(study)}. {NO_MORE}")
    if not noise_multiplier >= policy.min_noise_multiplier:
        raise PolicyRefused(
            Reason.NOISE, f"{_too_little_noise(noise_multiplier, policy)}. {NO_MORE}"
        )
    if shared and policy.local_epsilon is None:
        raise PolicyRefused(Reason.SHARED_NOISE, f"{_SHARING}. {NO_MORE}")


def refuse_unit(policy: SitePolicy, unit: Unit, before: Unit) -> None:
    """Return when what the policy asks to hide is hidden by a release, and was before (DP-5.10).

    ``unit``: what the release hides; ``before``: what all earlier ones about its patients do.
    Raises :class:`PolicyRefused`.
    """
    if unit not in ("patient", policy.unit):
        raise PolicyRefused(Reason.UNIT, f"{_wrong_unit(unit)}. {NO_MORE}", math.inf)
    if before not in ("patient", policy.unit):
        raise PolicyRefused(Reason.UNIT, f"{_IMAGES_BEFORE}. {NO_MORE}", math.inf)


def refuse_spend(policy: SitePolicy, before: float, after: float, *, local: bool = False) -> None:
    """Return when a release may bring a patient's epsilon from ``before`` to ``after`` (DP-5.3).

    ``local``: these are the epsilons if no other site adds noise, which have a cap of their own.
    Raises :class:`PolicyRefused`.
    """
    cap = policy.local_epsilon if local else policy.epsilon
    if cap is None or after <= cap:
        return
    # As many digits as it takes to show that it is above the cap.
    shown = next((s for d in range(3, 18) if float(s := f"{after:.{d}g}") > cap), "inf")
    raise PolicyRefused(
        Reason.LOCAL_BUDGET if local else Reason.BUDGET,
        ("if no other site adds noise, " if local else "")
        + "this release would bring the privacy spend of a patient to "
        f"epsilon {shown} at delta {policy.delta:g}; the site's cap is {cap:g} (spent so far "
        f"{before:.3g}). {NO_MORE}",
        after,
    )


def _unapproved(study: bytes) -> str:
    return f"the staff of this site have not approved the study {study.hex()[:16]}"


def _wrong_unit(unit: Unit) -> str:
    return f"the study protects each {unit}; the site asks for protection of each patient"


def _too_little_noise(noise_multiplier: float, policy: SitePolicy) -> str:
    return (
        f"the noise multiplier is {noise_multiplier:g}; the site asks for at least "
        f"{policy.min_noise_multiplier:g}"
    )
