"""Known mistakes in studies and site policies, each with its reason and what to do (DP-6.4).

What cannot be right is refused where documents are read; here is what is allowed, and wrong or
weak all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fedbcs_secure.privacy.accountant import shown
from fedbcs_secure.privacy.cost import cost
from fedbcs_secure.privacy.planner import USEFUL_COSINE, Plan, cosine
from fedbcs_secure.privacy.policy import PolicyRefused, SitePolicy, refuse_study
from fedbcs_secure.privacy.schedule import study_events
from fedbcs_secure.sections import Privacy
from fedbcs_secure.study import Study

WEAK_EPSILON = 10.0
LONG_CLIP = 1.0
SAFE_PART = 100
"""Delta is to be at most one part in so many of 1 / patients."""


class Grade(StrEnum):
    """Whether the promise is false or not to be kept, or merely less than people will think."""

    WRONG = "wrong"
    WEAK = "weak"


@dataclass(frozen=True)
class Finding:
    """One mistake: ``where`` in the document, ``why`` it is one, and what to do (``fix``)."""

    grade: Grade
    where: str
    why: str
    fix: str


def lint_study(study: Study, policy: SitePolicy | None = None) -> tuple[Finding, ...]:
    """What is wrong or weak in a study, and what a site with ``policy`` would decline."""
    study = study.resolved()
    if study.privacy is None:
        return (
            Finding(
                Grade.WEAK,
                "privacy",
                "there is no [privacy]: the model can memorise patients, whatever protects sums",
                "add it; fedbcs-secure plan says what it costs",
            ),
        )
    found = [*_terms(study, study.privacy), *_prototypes(study, study.privacy)]
    if policy is not None:
        found += _declined(study, study.privacy, policy)
    return tuple(found)


def lint_policy(policy: SitePolicy) -> tuple[Finding, ...]:
    """What is weak in a site's policy."""
    found = []
    if policy.epsilon > WEAK_EPSILON:
        factor = f"{math.exp(min(policy.epsilon, 50)):,.0f}"
        found.append(
            Finding(
                Grade.WEAK,
                "policy.epsilon",
                f"{policy.epsilon:g} lets chances of conclusions differ by a factor of {factor}",
                f"{WEAK_EPSILON:g} or less; 1 to 8 is usual",
            )
        )
    if policy.delta > 1e-3:
        found.append(
            Finding(
                Grade.WEAK,
                "policy.delta",
                f"at {policy.delta:g}, one patient in {1 / policy.delta:,.0f} may be shown whole",
                f"at most 1 / ({SAFE_PART} times the patients of this site)",
            )
        )
    if "none" in policy.protections:
        found.append(
            Finding(
                Grade.WEAK,
                "policy.protections",
                "with none, the server sees this site's own update, not a sum",
                'leave only "secagg" and "ckks"',
            )
        )
    if policy.unit == "slice":
        found.append(_slice("policy.unit"))
    if policy.studies is None:
        found.append(
            Finding(
                Grade.WEAK,
                "policy.studies",
                "any study that the rest allows can spend this site's budget",
                "list the digests that staff approved",
            )
        )
    return tuple(found)


def _terms(study: Study, privacy: Privacy) -> Iterator[Finding]:
    patients = [entry.patients for entry in study.roster if entry.patients is not None]
    if patients and privacy.delta > 1 / (SAFE_PART * min(patients)):
        least = 1 / (SAFE_PART * min(patients))
        yield Finding(
            Grade.WRONG,
            "privacy.delta",
            f"{privacy.delta:g} is above 1 / ({SAFE_PART} · {min(patients)} patients): publishing "
            "a patient at random now and then would pass",
            f"{least:.1g} or less",
        )
    spent = cost(study_events(study).joint, privacy.delta)
    if spent > WEAK_EPSILON:
        yield Finding(
            Grade.WEAK,
            "privacy.noise_multiplier",
            f"the study costs epsilon {shown(spent)} at delta {privacy.delta:g}: that is not much",
            "more noise, fewer rounds or steps, or a smaller sampling_rate",
        )
    if privacy.unit == "slice":
        yield _slice("privacy.unit")
    if study.model.initial is not None:
        yield Finding(
            Grade.WEAK,
            "model.initial",
            "nobody can tell from the digest whose images the first weights were trained on, and "
            "what they show of them is in no ledger; frozen parts show it as it is",
            "leave it where it is a public start (--init synthetic); else take weights that were "
            "trained with [privacy] and are booked",
        )
    if patients and privacy.sampling_rate * min(patients) < 1:
        yield Finding(
            Grade.WEAK,
            "privacy.sampling_rate",
            f"a step takes {privacy.sampling_rate * min(patients):.2g} patients on average, so "
            "most are noise alone, and each is paid for",
            "a higher rate and fewer steps",
        )
    if privacy.clip > LONG_CLIP:
        yield Finding(
            Grade.WEAK,
            "privacy.clip",
            f"noise grows with the clip, and few gradients are {privacy.clip:g} long",
            "near the median length, about 0.1 to 0.3 for this network",
        )
    if study.protection == "none":
        yield Finding(
            Grade.WEAK,
            "protection",
            "with none, the server sees each site's own noised update",
            "secagg or ckks: then noise protects from those who see the sum",
        )


def _prototypes(study: Study, privacy: Privacy) -> Iterator[Finding]:
    patients = [entry.patients for entry in study.roster if entry.patients is not None]
    if privacy.prototype_noise is None or not patients or study.alignment.form == "off":
        return
    threshold, colluders = study.terms
    plan = Plan(
        patients=sum(patients) // len(patients),
        prototype_noise=privacy.prototype_noise,
        fused_width=study.model.fused_width or 1,
        classes=study.data.classes,
        presence=privacy.presence,
        sites=len(patients),
        noise=privacy.noise,
        threshold=threshold,
        colluders=colluders,
    )
    expected = cosine(plan, len(patients))
    if expected < USEFUL_COSINE:
        yield Finding(
            Grade.WEAK,
            "privacy.prototype_noise",
            f"prototypes would point {expected:.2f} (cosine) in their true direction: noise, and "
            "each release is paid for",
            'fewer fused channels (model.fused_width), noise = "shared", or no prototypes',
        )


def _declined(study: Study, privacy: Privacy, policy: SitePolicy) -> Iterator[Finding]:
    noises = [privacy.noise_multiplier, privacy.prototype_noise or math.inf]
    clips = [privacy.clip] + [privacy.prototype_clip] * (privacy.prototype_noise is not None)
    try:
        refuse_study(
            policy,
            study=study.digest,
            noise_multiplier=min(noises),
            clip=max(clips),
            sites=study.terms[0] if study.roster else policy.min_sites,
            protection=study.protection,
            unit=privacy.unit,
            delta=privacy.delta,
            shared=privacy.noise == "shared",
        )
    except PolicyRefused as refusal:
        yield Finding(Grade.WRONG, "policy", str(refusal), "change the study, or agree otherwise")
    spent = cost(study_events(study).joint, policy.delta)
    if spent > policy.epsilon:
        yield Finding(
            Grade.WRONG,
            "policy.epsilon",
            f"the study costs epsilon {shown(spent)} at delta {policy.delta:g}, and this site "
            f"spends {policy.epsilon:g} on a patient in all: it would drop out",
            "more noise or fewer rounds; fedbcs-secure plan finds the noise",
        )


def _slice(where: str) -> Finding:
    return Finding(
        Grade.WEAK,
        where,
        "single slices are hidden; of a patient with ten, ten times epsilon may be told",
        'unit = "patient"',
    )
