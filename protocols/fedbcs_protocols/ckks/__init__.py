"""The encrypted sum (specs/ckks.md): sites encrypt, the combiner adds what it cannot read.

``params`` proves that a sum comes out exact; ``packing`` puts integers into coefficients;
``samples`` draws what a ciphertext is made of, ``products`` multiplies by SEAL, ``cipher`` puts
them together, ``words`` is the form on the wire; ``tagging`` lays out a vector; ``site`` and
``combiner`` are the two sessions, ``outcome`` reads the end.
"""

from fedbcs_protocols.ckks.combiner import CkksCombiner
from fedbcs_protocols.ckks.outcome import Outcome, open_sum
from fedbcs_protocols.ckks.params import ParameterSet, parameter_set
from fedbcs_protocols.ckks.products import Scratch, check_build
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.ckks.site import CkksSession, admit
from fedbcs_protocols.ckks.states import CombinerState, SiteState

__all__ = [
    "CkksCombiner",
    "CkksSession",
    "CkksSetting",
    "CombinerState",
    "Outcome",
    "ParameterSet",
    "Scratch",
    "SiteState",
    "admit",
    "check_build",
    "open_sum",
    "parameter_set",
]
