"""The parts of ckks.py. Imported before numpy, which then computes on one thread."""

import os

# The threads of BLAS wait in loops, which counts as CPU time; and numpy reads this only once.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
