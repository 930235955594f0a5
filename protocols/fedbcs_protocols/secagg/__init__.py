"""The protected sum: each site sends a masked vector, and the masks cancel in the sum of all.

``states`` the two machines, as data · ``masking`` pairwise masks · ``site`` and ``combiner`` the
two sessions. A session takes bytes and gives bytes; moving them is the caller's. Clause numbers
(SA-…) refer to ``protocols/specs/secagg.md``.
"""

from fedbcs_protocols.secagg.combiner import CombinerSession
from fedbcs_protocols.secagg.site import SiteSession

__all__ = ["CombinerSession", "SiteSession"]
