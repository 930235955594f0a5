"""The protected sum: each site sends a masked vector; what the sum needs to lose its masks is said
by at least t sites, about sites that all of them saw in the same place.

``setting`` who and under which terms, a site's guard · ``states`` the two machines, as data ·
``graph`` who masks with whom · ``ephemeral``, ``shamir``, ``sharing`` secrets and their shares ·
``masking``, ``unmasking`` masks on and off · ``keytable``, ``messages``, ``transcript``,
``outcome`` what frames say · ``marks``, ``journal`` what survives a crash · ``site`` and
``combiner`` the two sessions. A session takes bytes and gives bytes; moving and keeping them is
the caller's (``examples/one_protected_sum.py`` is a whole sum). Clause numbers (SA-…) refer to
``protocols/specs/secagg.md``.
"""

from fedbcs_protocols.secagg.combiner import CombinerSession
from fedbcs_protocols.secagg.journal import Journal, NoJournal
from fedbcs_protocols.secagg.marks import MarkKeeper, Marks, MemoryMarks
from fedbcs_protocols.secagg.outcome import Outcome, open_sum
from fedbcs_protocols.secagg.setting import Guard, Setting, Terms
from fedbcs_protocols.secagg.site import SiteSession

__all__ = [
    "CombinerSession",
    "Guard",
    "Journal",
    "MarkKeeper",
    "Marks",
    "MemoryMarks",
    "NoJournal",
    "Outcome",
    "Setting",
    "SiteSession",
    "Terms",
    "open_sum",
]
