"""A site's release of a round under differential privacy: booked in its ledger, then formed (DP-5).

What is stored and repeated is the very vector that is masked or encrypted, so a restarted site, or
another attempt, sends the same integers, and no noise is drawn twice for one round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fedbcs_protocols.ring import Words
from fedbcs_secure.errors import LedgerError, PrivacyError
from fedbcs_secure.federation.layout import Layout, entry
from fedbcs_secure.federation.rounds import Parties
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.learning.local import LocalResult
from fedbcs_secure.learning.private import PrivateRound
from fedbcs_secure.learning.private_prototypes import PrototypeMechanism
from fedbcs_secure.privacy.ledger import Claim, Ledger
from fedbcs_secure.privacy.policy import PolicyRefused, Reason, refuse_study
from fedbcs_secure.privacy.schedule import round_events
from fedbcs_secure.study import Study


@dataclass(frozen=True)
class Books:
    """A site's ledger, and the identifiers of all patients that it trains on in this study."""

    ledger: Ledger = field(repr=False)
    patients: frozenset[str] = field(repr=False)

    def admit(self, study: Study) -> None:
        """Return if the site's policy allows the study's terms. Raises :class:`PolicyRefused`."""
        privacy = study.privacy
        if privacy is None:
            # DP-6.3: what is not noised cannot be booked, and a ledger that leaves it out is false.
            self.ledger.refuse(study.digest, 0, Reason.NOISE, math.inf)
            raise PolicyRefused(
                Reason.NOISE,
                "this site keeps a privacy ledger, and the study has no [privacy]: it would show "
                "patients without noise. The site takes no part in this study",
            )
        noises, clips = [privacy.noise_multiplier], [privacy.clip]
        if privacy.prototype_noise is not None:
            noises.append(privacy.prototype_noise)
            clips.append(privacy.prototype_clip)
        try:
            refuse_study(
                self.ledger.policy,
                study=study.digest,
                noise_multiplier=min(noises),
                clip=max(clips),
                sites=study.terms[0],
                protection=study.protection,
                unit=privacy.unit,
                delta=privacy.delta,
                shared=privacy.noise == "shared",
            )
        except PolicyRefused as refusal:
            self.ledger.refuse(study.digest, 0, refusal.reason)
            raise

    def release(self, parties: Parties, state: GlobalState, make: Callable[[], Words]) -> Words:
        """This round's vector (N,) uint32: new, or the same as before.

        Raises :class:`PolicyRefused` when the budget or the policy forbids it, and
        :class:`LedgerError` when something is wrong with the ledger.
        """
        study = parties.study
        if study.privacy is None:
            raise PrivacyError("this study has no [privacy]: it promises nothing to patients")
        cost = round_events(study, state.round)
        claim = Claim(
            # The document that staff approved; whoever plays its parties.
            study=study.digest,
            round=state.round,
            state=state.digest,
            unit=study.privacy.unit,
            events=cost.joint,
            alone=cost.own,
            patients=self.patients,
        )
        data = self.ledger.release(claim, lambda: make().astype("<u4").tobytes())
        vector = np.frombuffer(data, "<u4").astype(np.uint32)
        if vector.size != parties.plan.length:
            raise LedgerError("what was booked for this round is of another length than its vector")
        return vector

    def finished(self, study: Study, before_round: int) -> None:
        """The bytes of rounds before the last need not be kept; what they cost stays.

        Those of the last must be: the state that follows it may not be on the disk yet.
        """
        self.ledger.forget(study.digest, max(before_round - 1, 0))


def private_round(study: Study, plan: Layout, site: str, round_index: int) -> PrivateRound | None:
    """What a site's training in this round needs beside the state; None without ``[privacy]``."""
    privacy = study.privacy
    if privacy is None:
        return None
    nominal = entry(study, site).patients
    if nominal is None:
        raise PrivacyError(f"the roster says no nominal number of patients for {site}")
    slots = tuple((s.view, s.label) for s in plan.slots if site in s.holders)
    release = None
    if round_index in study.prototype_rounds and privacy.prototype_noise is not None and slots:
        release = PrototypeMechanism(
            slots=slots,
            width=plan.fused_channels,
            clip=privacy.prototype_clip,
            presence=privacy.presence,
            noise_multiplier=privacy.prototype_noise,
            parts=study.noise_shares,
        )
    return PrivateRound(nominal, release)


def check_events(study: Study, round_index: int, result: LocalResult) -> None:
    """Raise :class:`PrivacyError` unless training did what was booked, or released less of it.

    A site that holds no aligned class has no prototypes to release.
    """
    booked = round_events(study, round_index)
    if result.events not in (booked.own, booked.steps):
        raise PrivacyError(
            "this round's training released something else than the study says; nothing is sent"
        )
