"""What all parties agree on about one sum, and what a site demands before it takes part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import COMBINER, Binding, is_name
from fedbcs_protocols.errors import LocalError, Refused
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.messages import MAX_SITES, VectorShape
from fedbcs_protocols.secagg.graph import COMPLETE_UP_TO, Neighbourhood, neighbourhood
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS

MIN_SITES = 3
"""From a sum of two, either site can read the other's vector."""


@dataclass(frozen=True)
class Terms:
    """The study's numbers: n ``sites``, ``threshold`` t, ``colluders`` c, allowed reuses (SA-0.4).

    Only their ranges are checked here; whether they are safe is each site's own :class:`Guard`.
    """

    sites: int
    threshold: int
    colluders: int
    max_reused_states: int = 0

    def __post_init__(self) -> None:
        # SA-0.1
        if not MIN_SITES <= self.sites <= MAX_SITES:
            raise LocalError(
                f"a protected sum needs {MIN_SITES} to {MAX_SITES} sites, "
                f"the roster has {self.sites}"
            )
        if not 1 <= self.threshold <= self.sites:
            raise LocalError(f"a threshold of {self.threshold} over {self.sites} sites")
        if not 1 <= self.colluders < self.sites:
            raise LocalError(f"{self.colluders} colluders of {self.sites} sites, must be 1 or more")
        if not 0 <= self.max_reused_states < MAX_ATTEMPTS:
            raise LocalError(f"max_reused_states is in 0..{MAX_ATTEMPTS - 1}")

    @property
    def graph(self) -> Neighbourhood:
        """Who shares masks and shares with whom (SA-0.6)."""
        return neighbourhood(self.sites, self.threshold, self.colluders)


def is_safe(sites: int, threshold: int, colluders: int) -> bool:
    """Whether 2t > n + c and t - c >= 2 (SA-0.5).

    The first: no two answers of one site can be had, neither from two survivor lists nor from two
    attempts. The second: the sum over the sites that do not collude is over at least two.
    """
    return 2 * threshold > sites + colluders and threshold - colluders >= 2


def default_terms(sites: int, colluders: int | None = None) -> tuple[int, int]:
    """(threshold, colluders) of a study that states none, or only its colluders.

    A fifth of the sites may collude, one at least. Up to 32 sites the smallest safe threshold;
    above, a tenth may drop out, which keeps the sparse graph small.
    """
    colluders = max(1, sites // 5) if colluders is None else colluders
    threshold = max((sites + colluders) // 2 + 1, colluders + 2)
    if sites > COMPLETE_UP_TO:
        threshold = max(threshold, sites - sites // 10)
    return threshold, colluders


@dataclass(frozen=True)
class Guard:
    """A site's own demands; its staff sets them, no server and no study can lower them (SA-0.5).

    ``verified`` are the fingerprints (:attr:`PublicIdentity.fingerprint`, as it is printed) that
    staff compared out of band, its own site's not needed; sites not among them count as colluding.
    ``colluders`` and ``min_sites`` are this site's minima for c and for verified sites in a sum.
    With ``forbid_single_changes`` the survivors of consecutive sums that this site is in must
    differ by none or at least two sites. That protects others: a site that is left out is not
    asked, so it helps only if enough sites demand it.
    """

    verified: frozenset[str]
    colluders: int = 1
    min_sites: int = MIN_SITES
    forbid_single_changes: bool = False

    def admit(self, terms: Terms, roster: Mapping[str, PublicIdentity], me: str) -> None:
        """Return when site ``me`` may take part. Raises :class:`Refused`."""
        unknown = terms.sites - sum(self.knows(roster, name, me) for name in roster)
        colluders = max(terms.colluders, self.colluders) + unknown
        if not is_safe(terms.sites, terms.threshold, colluders):
            raise Refused(
                f"threshold {terms.threshold} of {terms.sites} sites is too low for {colluders} "
                f"colluding sites ({unknown} of them not verified here): it must be over "
                f"{(terms.sites + colluders) / 2:g} and at least {colluders + 2}; verify more "
                "fingerprints, or have the study raise its threshold"
            )
        # The sparse graph was sized for the study's colluders, not for more.
        if not terms.graph.complete and colluders > terms.colluders:
            raise Refused(
                f"above {COMPLETE_UP_TO} sites the study's graph holds against its "
                f"{terms.colluders} colluding sites, and this site counts {colluders} "
                f"({unknown} of them not verified here); verify their fingerprints"
            )
        if terms.threshold < self.min_sites:
            raise Refused(
                f"a sum could be over {terms.threshold} sites, this site's minimum is "
                f"{self.min_sites}"
            )

    def allow(
        self,
        survivors: Iterable[str],
        roster: Mapping[str, PublicIdentity],
        me: str,
        previous: frozenset[str] | None,
    ) -> None:
        """Return when a sum over ``survivors`` may be signed (SA-5.2). Raises :class:`Refused`."""
        names = frozenset(survivors)
        known = sum(self.knows(roster, name, me) for name in names)
        if known < self.min_sites:
            raise Refused(f"{known} verified sites in the sum, this site wants {self.min_sites}")
        if self.forbid_single_changes and previous is not None and len(names ^ previous) == 1:
            raise Refused("the sum is over one site more or less than the last one")

    def admit_part(
        self, holders: Iterable[str], terms: Terms, roster: Mapping[str, PublicIdentity], me: str
    ) -> None:
        """Return when a part of the vector that only ``holders`` fill may be summed (SA-0.7).

        Raises :class:`Refused`.
        """
        known = sum(self.knows(roster, name, me) for name in holders)
        left = known - (terms.sites - terms.threshold) - max(terms.colluders, self.colluders)
        if left < 2:
            raise Refused(
                f"a part of the sum could be over {max(left, 0)} sites that neither collude nor "
                f"are unknown here ({known} of its holders are verified); verify more "
                "fingerprints, or leave it out of the study"
            )

    def knows(self, roster: Mapping[str, PublicIdentity], name: str, me: str) -> bool:
        """Whether the site is this one, or its fingerprint was verified."""
        return name == me or roster[name].fingerprint in self.verified


@dataclass(frozen=True, eq=False)
class Setting:
    """One sum: who takes part, what it is bound to, and the vector: ``count`` values in 2^bits.

    ``bits`` is 8..32 (:func:`fedbcs_protocols.ring.ring_bits` has those that values of some bits
    need); each value is at most floor((2^bits - 1) / sites), so that the sum does not wrap.

    ``key_id`` names the group's key that the sites tag the vector with (``tags``), 32 zero bytes if
    they do not.

    ``roster`` maps the sites' names to their identities, in the order that all share; ``combiner``
    signs the combiner's frames. Raises :class:`LocalError` for what does not fit together.
    """

    roster: Mapping[str, PublicIdentity]
    combiner: PublicIdentity
    binding: Binding
    terms: Terms
    bits: int
    count: int
    key_id: bytes = bytes(32)

    def __post_init__(self) -> None:
        # SA-0.1
        if len(self.roster) != self.terms.sites:
            raise LocalError(
                f"terms for {self.terms.sites} sites, {len(self.roster)} in the roster"
            )
        for name in self.roster:
            if name == COMBINER or not is_name(name):
                raise LocalError(f"{name!r} is no site's name")
        # SA-0.2: one key in two places would make one party count as two.
        if len({*self.roster.values(), self.combiner}) != len(self.roster) + 1:
            raise LocalError("two parties have the same identity")
        VectorShape(self.count, self.bits, len(self.roster))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sites' names by place."""
        return tuple(self.roster)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """A site's place by its name."""
        return {name: place for place, name in enumerate(self.roster)}

    @property
    def shape(self) -> VectorShape:
        """Of the vector that each site contributes."""
        return VectorShape(self.count, self.bits, len(self.roster))
