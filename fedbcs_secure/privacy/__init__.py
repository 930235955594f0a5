"""Differential privacy: what a release costs, noise that is exact, and the site's own ledger.

No torch, no terminal, no network; clauses (DP-…) are those of ``docs/privacy.md``. ``events`` are
values, ``schedule`` those of a study; ``accountant`` turns them into epsilon, ``calibration``,
``target`` and ``planner`` go the other way. ``randomness``, ``discrete_gaussian`` and
``wide_gaussian`` make noise. ``policy`` is what a site allows; ``ledger`` what it has spent, on
``store`` and ``releases`` (its files), ``chain``, ``histories`` and ``audit`` (what they say).
"""
