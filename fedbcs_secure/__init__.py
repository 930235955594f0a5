"""fedbcs-secure: federated medical image segmentation whose server sees only sums.

One way down (import-linter enforces it):
``cli > federation > learning > data > study > errors > fedbcs_protocols``.
"""

import os

__version__ = "0.1.0"

# Here, because it must happen before PyTorch loads GNU OpenMP. Its idle threads otherwise spin so
# long that training on a busy machine becomes tens of times slower (two other processes on two
# cores: over 15 s a round instead of 2.3 s; on idle cores 1.0 s became 1.1 s).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
