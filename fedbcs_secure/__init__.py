"""fedbcs-secure: federated medical image segmentation whose server sees only sums.

One way down (import-linter enforces it):
``cli > federation > learning > data > study > errors > fedbcs_protocols``.
"""

__version__ = "0.1.0"
