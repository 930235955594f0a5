"""A study's privacy before any data is touched: noise, epsilon and what it leaves of prototypes.

Expected quality of prototypes (DP-1.6). A patient's class means, in K slots (views times classes)
of D = 3 · width features, are clipped together to length C, so each is about C/√K long where all
point alike. The sum over n patients is then n C/√K long, and the noise on each coordinate has the
standard deviation τ = σ_p C √(1 + λ²), λ being the presence block. So the cosine between noisy and
true prototype is about

    n/√K / √(n²/K + D τ²/C²) = 1 / √(1 + D K (1 + λ²) (σ_p/n)²).

Measured on one site with D of 768, 64 and 16, σ_p = 4: 0.12, 0.44, 0.67 for n = 30 and 0.77, 0.97,
0.99 for n = 300. The formula with K = 4, λ = 0 says 0.13, 0.42, 0.68 and 0.80, 0.98, 0.99, within
0.04 of it; with λ = 0.5, 0.12, 0.39, 0.64 and 0.77, 0.97, 0.99. Patients who differ, or lack a
class, make it worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedbcs_protocols.secagg.setting import default_terms, is_safe
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.accountant import MIN_DELTA, Figures, epsilon, figures, shown
from fedbcs_secure.privacy.calibration import MAX_NOISE, noise_multiplier
from fedbcs_secure.privacy.events import Events, Gaussian

VIEWS = 2
FEATURES_PER_WIDTH = 3
"""A fused feature is three levels of ``fused_width`` channels."""
USEFUL_COSINE = 0.5
"""Alignment was seen to keep its effect with anchors this close to the truth."""
WEAK_EPSILON = 10.0

PROTOTYPES = "prototype releases"


@dataclass(frozen=True)
class Plan:
    """What a study would do at each site. Raises :class:`PrivacyError` for impossible numbers.

    ``patients`` is n of the smallest site: the same noise hides fewer patients less usefully, but
    not less. Defaults are for small studies: q = 0.2, so that a step of 30 patients has 6;
    ``steps_per_round`` of about 1/q, in which each patient is looked at once on average; ``delta``
    of 1/(100 n), rounded down to one digit, far below the 1/n at which publishing one patient at
    random would pass. No prototypes (``prototype_noise`` None): at n = 30 they are mostly noise, or
    they cost more than training; with many patients or sites they are worth their epsilon.
    """

    patients: int
    rounds: int = 20
    sampling_rate: float = 0.2
    steps_per_round: int | None = None
    delta: float | None = None
    prototype_noise: float | None = None
    prototypes_every: int = 5
    first_release: int = 3
    """Round, from 0, of the first prototypes: the one before alignment starts."""
    presence: float = 0.0
    """λ: length of the block that says which classes a patient has, over the clip."""
    fused_width: int = 16
    classes: int = 2
    sites: int = 3
    noise: Literal["site", "shared"] = "site"
    colluders: int | None = None
    threshold: int | None = None
    """Sites that a sum needs. None of the two: as in a study document."""

    def __post_init__(self) -> None:
        _within("patients", self.patients, 1, 10**7)
        _within("rounds", self.rounds, 1, 10**5)
        _within("prototypes every so many rounds", self.prototypes_every, 1, 10**5)
        _within("the first round with prototypes", self.first_release, 0, 10**5)
        _within("presence", self.presence, 0, 10)
        _within("fused width", self.fused_width, 1, 1024)
        _within("classes", self.classes, 2, 64)
        _within("sites", self.sites, 1, 1024)
        if self.prototype_noise is not None:
            _within("prototype noise", self.prototype_noise, 1e-3, MAX_NOISE)
        _within("sampling rate", self.sampling_rate, 1e-5, 1)
        _within("steps a round", self.steps, 1, 10**5)
        if not MIN_DELTA <= self.stated_delta < 0.5:
            raise PrivacyError(f"delta is from {MIN_DELTA:g} to 0.5, not {self.stated_delta}")
        if self.noise == "shared":
            self._check_sharing()

    def _check_sharing(self) -> None:
        # DP-1.6: a share that the attacker knows hides nothing.
        threshold, colluders = self.terms
        _within("assumed colluders", colluders, 1, self.sites)
        if threshold > self.sites or not is_safe(self.sites, threshold, colluders):
            raise PrivacyError(
                f"shared noise needs a protected sum, and with {self.sites} sites, {colluders} of "
                f"them colluding, none is safe at a threshold of {threshold}: more sites, or fewer "
                "colluders"
            )

    @property
    def steps(self) -> int:
        if self.steps_per_round is not None:
            return self.steps_per_round
        return max(1, round(1 / self.sampling_rate))

    @property
    def stated_delta(self) -> float:
        return default_delta(self.patients) if self.delta is None else self.delta

    @property
    def terms(self) -> tuple[int, int]:
        """(threshold, colluders), defaults filled in."""
        threshold, colluders = default_terms(self.sites, self.colluders)
        return (threshold if self.threshold is None else self.threshold), colluders

    @property
    def shares(self) -> int:
        """h = t - c: sites that are sure to add noise to the sum; 1 where each site's suffices."""
        threshold, colluders = self.terms
        return threshold - colluders if self.noise == "shared" else 1

    @property
    def releases(self) -> int:
        """Prototype releases; none in the last round, which would be in vain."""
        if self.prototype_noise is None:
            return 0
        return len(range(self.first_release, self.rounds - 1, self.prototypes_every))

    def training(self, noise: float) -> Events:
        return Gaussian(noise, self.sampling_rate).times(self.steps * self.rounds)

    def prototypes(self, shares: int = 1) -> Events:
        """Of which the attacker does not know 1/``shares`` of the noise's variance."""
        if self.prototype_noise is None:
            return Events()
        return Gaussian(self.prototype_noise / math.sqrt(shares)).times(self.releases)


@dataclass(frozen=True)
class Planned:
    """A plan with its noise and what it costs each patient, at one site."""

    plan: Plan
    noise_multiplier: float
    events: Events
    figures: Figures
    epsilon_training: float
    """Of training alone, as if nothing else were released."""
    epsilon_prototypes: float
    epsilon_own_noise: float | None
    """With ``noise`` "shared": where all other sites collude, so that only the own share hides."""
    cosine_site: float | None
    cosine_sum: float | None
    """Expected cosine between noisy and true prototypes: of one site, and of the sum over all."""
    warnings: tuple[str, ...]


def with_target(plan: Plan, target_epsilon: float) -> Planned:
    """The least noise that keeps ``target_epsilon``, all releases together.

    Raises :class:`PrivacyError` with the reason if the plan cannot keep it.
    """
    fixed = {PROTOTYPES: plan.prototypes()} if plan.releases else {}
    noise = noise_multiplier(target_epsilon, plan.stated_delta, plan.training, fixed)
    return with_noise(plan, noise)


def with_noise(plan: Plan, noise: float) -> Planned:
    """What the plan costs with this noise multiplier in training."""
    _within("noise multiplier", noise, 0, MAX_NOISE)
    delta = plan.stated_delta
    training, prototypes = plan.training(noise), plan.prototypes()
    own = None
    if plan.releases and plan.noise == "shared":
        own = epsilon(training + plan.prototypes(plan.shares), delta)
    site, everyone = (cosine(plan, 1), cosine(plan, plan.sites)) if plan.releases else (None, None)
    events = training + prototypes
    found = figures(events, delta)
    return Planned(
        plan=plan,
        noise_multiplier=noise,
        events=events,
        figures=found,
        epsilon_training=epsilon(training, delta),
        epsilon_prototypes=epsilon(prototypes, delta),
        epsilon_own_noise=own,
        cosine_site=site,
        cosine_sum=everyone,
        warnings=tuple(_warnings(plan, found, everyone, own)),
    )


def cosine(plan: Plan, sites: int) -> float:
    """Expected cosine of the noisy with the true prototype, of the sum over ``sites`` (DP-1.6)."""
    if plan.prototype_noise is None:
        raise PrivacyError("a plan without prototype noise has no prototypes")
    # σ_p of the sum relative to all patients: each site adds σ_p²/h to the variance.
    noise = plan.prototype_noise * math.sqrt(sites / plan.shares) / (sites * plan.patients)
    slots, features = VIEWS * plan.classes, FEATURES_PER_WIDTH * plan.fused_width
    return 1 / math.sqrt(1 + features * slots * (1 + plan.presence**2) * noise**2)


def default_delta(patients: int) -> float:
    """1/(100 n), rounded down to one digit, at least 1e-10: 1e-4 for 60 patients."""
    if patients < 1:
        raise PrivacyError(f"a site has 1 patient or more, not {patients}")
    # In integers: 10^k / (100 n) for the first k at which that is 1 or more.
    exponent = 0
    while (digit := 10**exponent // (100 * patients)) < 1:
        exponent += 1
    return max(float(f"{digit}e-{exponent}"), MIN_DELTA)


def _warnings(plan: Plan, found: Figures, everyone: float | None, own: float | None) -> list[str]:
    texts = []
    n, delta = plan.patients, plan.stated_delta
    if delta > 1 / n:
        texts.append(
            f"delta {delta:g} is above 1/patients: publishing one patient at random would pass. "
            f"Use {default_delta(n):g}"
        )
    elif delta > 1 / (100 * n):
        texts.append(f"delta {delta:g} is above 1/(100 patients). Use {default_delta(n):g}")
    if plan.sampling_rate * n < 1:
        texts.append(
            f"a step has {plan.sampling_rate * n:.2g} patients on average: most are noise alone. "
            "Raise the sampling rate"
        )
    if math.isinf(found.epsilon_pld):
        texts.append("there is next to no noise, so nothing is promised to anybody")
    elif found.epsilon_pld > WEAK_EPSILON:
        texts.append(
            f"epsilon {shown(found.epsilon_pld)} promises little: above {WEAK_EPSILON:g}, whether "
            "a patient took part may well be told"
        )
    if plan.prototype_noise is not None and not plan.releases:
        texts.append("there are too few rounds for a release of prototypes")
    if everyone is not None and everyone < USEFUL_COSINE:
        texts.append(
            f"prototypes would be mostly noise (cosine {everyone:.2f} to the true ones): use a "
            "smaller fused width, more sites, or none"
        )
    if own is not None:
        texts.append(
            f"if all other sites collude, only the own share of the noise counts: epsilon "
            f"{shown(own)}"
        )
    if found.epsilon_prv is None:
        texts.append("the PRV accountant cannot check this plan; PLD and RDP stand alone")
    elif not found.agree:
        texts.append(f"the accountants disagree: PLD {found.epsilon_pld}, PRV {found.epsilon_prv}")
    return texts


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise PrivacyError(f"{name}: from {least:g} to {most:g}, not {value:g}")
