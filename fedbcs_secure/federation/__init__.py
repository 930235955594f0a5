"""Rounds between sites and a combiner that sees sums only.

May import ``learning``, ``data``, ``study`` and ``fedbcs_protocols``; torch only through
``learning``. Prints nothing: what happens is told to an observer (``events``).
"""
