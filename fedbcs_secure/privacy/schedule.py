"""What a study releases about a site's patients, round by round, from its document alone (DP-1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.events import Events, Gaussian

if TYPE_CHECKING:
    from fedbcs_secure.sections import Privacy
    from fedbcs_secure.study import Study


@dataclass(frozen=True)
class Guarantee:
    """Against whom the noise of a release counts."""

    own: Events
    """Only this site's own noise: whoever else colludes."""
    joint: Events
    """At most c sites collude with the server, and the others add their shares (DP-4.5)."""
    steps: Events
    """Training alone."""


def round_events(study: Study, round_index: int) -> Guarantee:
    """What a site's release in this round costs.

    ``study`` is resolved, with a roster. Raises :class:`PrivacyError` without ``[privacy]``.
    """
    return _guarantee(study, 1, int(round_index in study.prototype_rounds))


def study_events(study: Study) -> Guarantee:
    """What all rounds of a study cost."""
    return _guarantee(study, study.rounds, len(study.prototype_rounds))


def _guarantee(study: Study, rounds: int, releases: int) -> Guarantee:
    privacy = _privacy(study)
    steps = Gaussian(privacy.noise_multiplier, privacy.sampling_rate).times(privacy.steps * rounds)
    if not releases or privacy.prototype_noise is None:
        return Guarantee(steps, steps, steps)
    noise, shares = privacy.prototype_noise, study.noise_shares
    return Guarantee(
        own=steps + Gaussian(noise / math.sqrt(shares)).times(releases),
        joint=steps + Gaussian(noise).times(releases),
        steps=steps,
    )


def _privacy(study: Study) -> Privacy:
    if study.privacy is None:
        raise PrivacyError("this study has no [privacy]: it promises nothing to patients")
    return study.privacy
