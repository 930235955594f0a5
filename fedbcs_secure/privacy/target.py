"""From an epsilon that a study may cost to the noise that its document then says (DP-1.7)."""

from __future__ import annotations

from typing import Any

from fedbcs_secure.errors import PrivacyError, StudyError
from fedbcs_secure.privacy.calibration import noise_multiplier, rounded_up
from fedbcs_secure.privacy.cost import cost
from fedbcs_secure.privacy.events import Events, Gaussian, total
from fedbcs_secure.study import build


def with_noise(tables: dict[str, Any]) -> dict[str, Any]:
    """A study's tables with ``privacy.epsilon`` in exchange for the least ``noise_multiplier``.

    Raises :class:`StudyError` if both are given, and :class:`PrivacyError` for a target that the
    other releases alone go beyond.
    """
    privacy = dict(tables["privacy"])
    target = privacy.pop("epsilon")
    if "noise_multiplier" in privacy:
        raise StudyError("privacy: give epsilon or noise_multiplier; one follows from the other")
    if isinstance(target, bool) or not isinstance(target, int | float) or not target > 0:
        raise StudyError(f"privacy.epsilon: a number above 0, not {target!r}")
    draft = build(tables | {"privacy": privacy | {"noise_multiplier": 1.0}}).resolved()
    if draft.privacy is None:
        raise PrivacyError("a study without [privacy] has no noise")
    terms, releases = draft.privacy, len(draft.prototype_rounds)
    fixed = {}
    if terms.prototype_noise is not None and releases:
        fixed["prototype releases"] = Gaussian(terms.prototype_noise).times(releases)

    def made(noise: float) -> Events:
        return Gaussian(noise, terms.sampling_rate).times(terms.steps * draft.rounds)

    found = noise_multiplier(float(target), terms.delta, made, fixed)
    # What a person reads is what is used.
    rounded = rounded_up(found)
    while cost(made(rounded) + total(fixed.values()), terms.delta) > target:
        rounded = rounded_up(rounded * (1 + 1e-4))
    return tables | {"privacy": privacy | {"noise_multiplier": rounded}}
