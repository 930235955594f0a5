"""The key that the sites of a group share and the combiner does not have (specs/group.md).

Sites verify sums with it (``tags``) and derive from it what they encrypt under (``ckks``). One of
them makes it and deals it to the others, encrypted to each, past the combiner; it serves a few
rounds.
"""

from fedbcs_protocols.group.combiner import Admission, KeyStage
from fedbcs_protocols.group.keyring import MAX_REFUSALS, KeyKeeper, KeyRing, MemoryKeys
from fedbcs_protocols.group.secret import NO_KEY, GroupSecret
from fedbcs_protocols.group.setting import GROUP_PHASE, Group
from fedbcs_protocols.group.site import SiteKeys
from fedbcs_protocols.group.standing import Standing, Status

__all__ = [
    "GROUP_PHASE",
    "MAX_REFUSALS",
    "NO_KEY",
    "Admission",
    "Group",
    "GroupSecret",
    "KeyKeeper",
    "KeyRing",
    "KeyStage",
    "MemoryKeys",
    "SiteKeys",
    "Standing",
    "Status",
]
