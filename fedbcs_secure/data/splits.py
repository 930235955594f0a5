"""Train, validation and test by patient, in an order that only a hash decides.

The order of a site's patients is that of SHA-256(seed, site, id). Test is taken from its front,
validation from its back, train lies between. By ``counts`` the parts have the sizes that were asked
for, so a new patient moves at most one other into or out of test, one into or out of validation,
and none between the two. ``independent`` looks at each patient's hash alone: sizes are what they
happen to be, and no patient ever moves another (DP-1.8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from math import floor

from fedbcs_secure.data.records import Split
from fedbcs_secure.errors import DataError


def _digest(patient_id: str, site: str, seed: int) -> bytes:
    text = f"fedbcs-secure split v1\x00{seed}\x00{site}\x00{patient_id}"
    return hashlib.sha256(text.encode()).digest()


def _ordered(ids: Iterable[str], site: str, seed: int) -> list[str]:
    return sorted(ids, key=lambda patient_id: (_digest(patient_id, site, seed), patient_id))


def _place(patient_id: str, site: str, seed: int) -> float:
    """Where in [0, 1) the patient's hash lies."""
    return int.from_bytes(_digest(patient_id, site, seed)[:6], "big") / 2.0**48


def _count(n: int, fraction: float) -> int:
    """``fraction`` of ``n``, rounded half up, at least 1 unless the fraction is 0."""
    return max(1, floor(n * fraction + 0.5)) if fraction > 0 else 0


def split_patients(
    ids: Iterable[str], site: str, *, validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, Split]:
    """Give every patient of a site a split; each with a fraction above 0 gets at least one.

    Raises :class:`DataError` for a repeated id, fractions that leave nothing to train on, and
    fewer patients than splits.
    """
    order = _ordered(ids, site, seed)
    n = len(order)
    if len(set(order)) < n:
        raise DataError(f"site {site}: a patient id is listed twice: expected each once")
    if validation_fraction + test_fraction >= 1:
        raise DataError(
            f"data.validation_fraction {validation_fraction:g} + data.test_fraction "
            f"{test_fraction:g}: expected a sum below 1, so that patients remain to train on"
        )
    wanted = 1 + (validation_fraction > 0) + (test_fraction > 0)
    if n < wanted:
        raise DataError(
            f"site {site}: {n} patient(s) for {wanted} splits: expected at least one in each; add "
            "patients, set data.validation_fraction or data.test_fraction to 0, or name the "
            "splits in the manifest"
        )
    validation = min(_count(n, validation_fraction), n - 1 - (test_fraction > 0))
    test = min(_count(n, test_fraction), n - 1 - validation)
    splits: dict[str, Split] = dict.fromkeys(order, "train")
    splits.update(dict.fromkeys(order[:test], "test"))
    splits.update(dict.fromkeys(order[n - validation :], "validation"))
    return splits


def assign_splits(
    stated: Mapping[str, Split | None],
    site: str,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    independent: bool = False,
) -> dict[str, Split]:
    """Complete what a source states about one site's patients.

    Nothing stated: :func:`split_patients`. All stated: kept, and where no patient is in
    validation, ``validation_fraction`` of the train patients goes there (never the only one).
    ``independent``: each patient by itself, so a part may be empty, and what is stated stays.
    Raises :class:`DataError` when some patients have a split and others none.
    """
    named: dict[str, Split] = {name: split for name, split in stated.items() if split is not None}
    if not named and independent:
        # DP-1.8
        for name in stated:
            place = _place(name, site, seed)
            named[name] = "test" if place < test_fraction else "train"
            if place >= 1 - validation_fraction:
                named[name] = "validation"
        return named
    if not named:
        return split_patients(
            stated,
            site,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
    if len(named) < len(stated):
        unnamed = [name for name in stated if name not in named]
        raise DataError(
            f"site {site}: no split for patient(s) {', '.join(unnamed[:20])}"
            f"{' and others' if len(unnamed) > 20 else ''}: expected one for all patients or none"
        )
    # DP-1.8: whether to carve validation out of train would be a fact about all patients.
    if "validation" not in named.values() and not independent:
        train = _ordered((name for name, split in named.items() if split == "train"), site, seed)
        count = min(_count(len(train), validation_fraction), max(0, len(train) - 1))
        named.update(dict.fromkeys(train[len(train) - count :], "validation"))
    return named


def empty_split_problem(site: str, split: Split, *, independent: bool = False) -> str:
    """The sentence for a site that lacks a split it needs."""
    setting = {"train": "", "validation": "data.validation_fraction", "test": "data.test_fraction"}
    remedy = f", or set {setting[split]} above 0" if setting[split] else ""
    if independent:
        remedy = "; each patient's own hash decided here, so another seed may serve"
    return (
        f"site {site}: no {split} patient: expected at least one; "
        f"add patients, name the splits in the manifest{remedy}"
    )
