"""Whether a release may be made: policy and past spend decide, never the data (DP-5.3)."""

from __future__ import annotations

from collections.abc import Callable

from fedbcs_secure.privacy.entries import Release
from fedbcs_secure.privacy.events import Events
from fedbcs_secure.privacy.histories import Histories, History, all_hide, spend
from fedbcs_secure.privacy.policy import SitePolicy, refuse_spend, refuse_terms, refuse_unit


def refuse_release(
    policy: SitePolicy, draft: Release, histories: Histories, price: Callable[[Events], float]
) -> None:
    """Return when the policy allows ``draft`` after ``histories``.

    ``price``: the epsilon of events at the policy's delta. Raises :class:`PolicyRefused`.
    """
    # DP-6.3
    refuse_terms(
        policy,
        study=draft.study,
        noise_multiplier=min(event.noise_multiplier for event, _ in draft.events.parts),
        shared=draft.alone != draft.events,
    )
    before = histories.after(draft.patients, History())
    after = histories.after(draft.patients, draft.history)
    # DP-5.10
    refuse_unit(policy, draft.unit, all_hide(before))
    # DP-5.3
    for local in (False, True) if policy.local_epsilon is not None else (False,):
        spent, leads_to = (spend(hs, policy.unit, price, alone=local) for hs in (before, after))
        refuse_spend(policy, spent, leads_to, local=local)
