"""Differential privacy: what a release costs, noise that is exact, and the site's own ledger.

No torch, no terminal, no network; clauses (DP-…) are those of ``docs/privacy.md``. ``events`` are
values, ``schedule`` those of a study; ``accountant`` turns them into epsilon, ``calibration``,
``target`` and ``planner`` go the other way. ``randomness``, ``discrete_gaussian`` and
``wide_gaussian`` make noise. ``policy`` is what a site allows; ``ledger`` what it has spent, on
``store`` and ``releases`` (its files), ``entries``, ``chain``, ``patients`` and ``histories`` (what
they say), ``opening``, ``guard`` and ``audit`` (whether it can be used and believed), ``claim`` and
``spending`` (whether there may be another release) and ``statement`` (for people).
"""
