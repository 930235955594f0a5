"""What a release hides, patients or single images, and what the two come to together (DP-5.10)."""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_support import IDENTITY, STATE, cheap, claim, open_ledger, study

from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.audit import audit
from fedbcs_secure.privacy.chain import START, Row, seal
from fedbcs_secure.privacy.entries import Body, Entry, Opened, PolicyChange, Release
from fedbcs_secure.privacy.events import UNITS, Events, Gaussian, Unit
from fedbcs_secure.privacy.histories import Histories, History, Prices, all_hide, spend
from fedbcs_secure.privacy.ledger import Ledger
from fedbcs_secure.privacy.policy import PolicyRefused, Reason, SitePolicy

IMAGES = SitePolicy(epsilon=3.0, unit="slice")
PATIENTS = SitePolicy(epsilon=3.0)
ONE = Gaussian(4.0).times(1)
ANN, BOB = frozenset({"ann"}), frozenset({"bob"})


def never() -> bytes:
    raise AssertionError("new noise was drawn")


def release(ledger: Ledger, name: str, unit: Unit, people: frozenset[str] = ANN) -> bytes:
    return ledger.release(claim(name, 0, people, 4.0, unit=unit), lambda: os.urandom(50))


def test_images_are_not_enough_where_patients_are_asked_for(tmp_path: Path) -> None:
    with open_ledger(tmp_path, PATIENTS) as ledger:
        with pytest.raises(PolicyRefused, match="study protects each slice; the site asks") as it:
            ledger.release(claim(sigma=4.0, unit="slice"), never)
        assert (it.value.reason, it.value.cost) == (Reason.UNIT, math.inf)
        assert ledger.spent() == 0
        assert ledger.verify().refusals == ledger.statement().refusals == 1


@pytest.mark.parametrize("order", [("patient", "slice"), ("slice", "patient")])
def test_both_kinds_compose_where_images_are_asked_for(
    tmp_path: Path, order: tuple[Unit, Unit]
) -> None:
    with open_ledger(tmp_path, IMAGES) as ledger:
        for name, unit in zip("AB", order, strict=True):
            release(ledger, name, unit)
        assert ledger.spent() == cheap(ONE.times(2), 1e-5)
        for unit in UNITS:
            assert ledger.would_cost(ONE, ANN, unit) == cheap(ONE.times(3), 1e-5)
            assert ledger.next_cost(ONE, unit) == cheap(ONE.times(3), 1e-5)
        said = ledger.statement()
        assert (said.unit, said.epsilon, said.remaining) == (
            "slice",
            ledger.spent(),
            3 - ledger.spent(),
        )
        assert {s.study: s.unit for s in said.studies} == {
            study(name): unit for name, unit in zip("AB", order, strict=True)
        }
        ledger.verify()


@pytest.mark.parametrize("first", ["patient", "slice"])
def test_an_image_that_was_hidden_says_nothing_about_its_patient(
    tmp_path: Path, first: Unit
) -> None:
    """Booked under an earlier policy, before or after a release that hid the patient."""
    with open_ledger(tmp_path, IMAGES) as ledger:
        release(ledger, "A", first)
        release(ledger, "B", "patient" if first == "slice" else "slice")
        release(ledger, "C", "patient", BOB)
    with open_ledger(tmp_path, PATIENTS) as ledger:
        ledger.verify()  # what the policy of then allowed is no fault
        assert ledger.spent() == math.inf
        assert ledger.remaining == 0
        with pytest.raises(PolicyRefused) as caught:
            ledger.release(claim("D", 0, ANN | BOB, 400.0), never)
        assert (caught.value.reason, caught.value.cost) == (Reason.UNIT, math.inf)
        assert str(caught.value) == (
            "an earlier release about a patient of this study hid single images only (the policy "
            'had unit = "slice" then). It bounds nothing about a patient with several images, so '
            "their privacy spend is infinite. Leave out the patients of that release; or, if it is "
            'enough to hide single images, let staff set unit = "slice" in the policy of the site. '
            "The site takes no further part in this study"
        )
        said = ledger.statement()
        assert (said.epsilon, said.local_epsilon, said.unit) == (math.inf, math.inf, "patient")
        of = {s.study: (s.unit, s.epsilon) for s in said.studies}
        assert of[study("C")] == ("patient", cheap(ONE, 1e-5))
        assert sorted(of[study(name)] for name in "AB") == [
            ("patient", cheap(ONE, 1e-5)),
            ("slice", math.inf),
        ]
        # others have nothing to do with it
        assert ledger.would_cost(ONE, BOB, "patient") == cheap(ONE.times(2), 1e-5)
        assert ledger.would_cost(ONE, BOB, "slice") == math.inf
        assert (
            ledger.would_cost(ONE, ANN, "patient") == ledger.next_cost(ONE, "patient") == math.inf
        )
        release(ledger, "E", "patient", BOB)
        assert ledger.verify().releases == 4
    with open_ledger(tmp_path, IMAGES) as ledger:
        assert ledger.spent() == cheap(ONE.times(2), 1e-5)
        release(ledger, "F", "patient")


def test_noise_alone_is_infinite_too(tmp_path: Path) -> None:
    shared = SitePolicy(epsilon=3.0, local_epsilon=9.0, unit="slice")
    alone = Gaussian(2.0).times(1)
    with open_ledger(tmp_path, shared) as ledger:
        ledger.release(claim(sigma=4.0, alone=alone, unit="slice"), lambda: b"one")
        assert ledger.statement().local_epsilon == cheap(alone, 1e-5)
    with open_ledger(tmp_path, SitePolicy(epsilon=3.0, local_epsilon=9.0)) as ledger:
        assert ledger.statement().local_epsilon == math.inf


def test_a_booked_release_is_repeated_under_any_policy(tmp_path: Path) -> None:
    """DP-5.4: its bytes are out already; new noise is what costs."""
    with open_ledger(tmp_path, IMAGES) as ledger:
        sent = release(ledger, "A", "slice")
    with open_ledger(tmp_path, PATIENTS) as ledger:
        assert ledger.release(claim("A", 0, ANN, 4.0, unit="slice"), never) == sent


@pytest.mark.parametrize("unit", ["", "image", b"slice", None])
def test_a_claim_says_which(tmp_path: Path, unit: Any) -> None:
    with (
        open_ledger(tmp_path, IMAGES) as ledger,
        pytest.raises(LedgerError, match="hides patients or single images, and says which"),
    ):
        ledger.release(claim(unit=unit), never)


def test_a_ledger_whose_entries_do_not_say_it_is_named_and_left_alone(tmp_path: Path) -> None:
    with open_ledger(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    before = (tmp_path / "ledger.sqlite").read_bytes()
    with pytest.raises(LedgerError, match=r"of version 1, made by an older program.*start a new"):
        open_ledger(tmp_path)
    assert (tmp_path / "ledger.sqlite").read_bytes() == before


# the audit


def chain(*bodies: Body) -> list[Row]:
    rows, head = [], START
    for body in (Opened(IDENTITY.public.raw, b"k" * 32), *bodies):
        rows.append(seal(Entry("noon", body), head, IDENTITY))
        head = rows[-1].head
    return rows


def booked(name: str, unit: Unit, person: str = "ann") -> Release:
    key = hashlib.sha256(person.encode()).digest()[:16]
    return Release(study(name), 0, STATE, unit, ONE, ONE, b"d" * 32, key)


def change(policy: SitePolicy) -> PolicyChange:
    return PolicyChange(policy.digest, policy.text)


IMAGE, PATIENT = booked("A", "slice"), booked("B", "patient")
FINE = [
    [change(IMAGES), IMAGE, PATIENT],
    [change(IMAGES), PATIENT, IMAGE],
    [change(PATIENTS), PATIENT, change(IMAGES), IMAGE],
    [change(IMAGES), IMAGE, change(PATIENTS), booked("B", "patient", "bob")],
    [change(IMAGES), IMAGE, change(PATIENTS), change(IMAGES), PATIENT],
]
WRONG = [
    ([change(PATIENTS), IMAGE], 3, "asked for patients to be hidden"),
    ([change(IMAGES), IMAGE, change(PATIENTS), PATIENT], 5, "epsilon inf of a patient"),
    ([change(IMAGES), PATIENT, change(PATIENTS), IMAGE], 5, "asked for patients to be hidden"),
]


@pytest.mark.parametrize("bodies", FINE)
def test_mixtures_that_the_policy_of_then_allowed_are_right(bodies: list[Body]) -> None:
    assert audit(lambda: chain(*bodies), IDENTITY.public, cheap).releases > 0


@pytest.mark.parametrize(("bodies", "bad", "what"), WRONG)
def test_mixtures_that_it_did_not_allow_are_named(bodies: list[Body], bad: int, what: str) -> None:
    with pytest.raises(LedgerError, match=f"entry {bad} .*{what}"):
        audit(lambda: chain(*bodies), IDENTITY.public, cheap)


# properties

EVENT = st.builds(Gaussian, st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0.1, 1.0]))
PEOPLE = st.sets(st.sampled_from("abcd"), min_size=1)


def hashes(people: set[str]) -> bytes:
    return b"".join(sorted(hashlib.sha256(p.encode()).digest()[:16] for p in people))


@given(st.lists(st.tuples(PEOPLE, EVENT, st.sampled_from(UNITS)), max_size=10), PEOPLE)
def test_a_patients_spend_is_infinite_if_and_only_if_an_image_of_theirs_was_hidden(
    made: list[tuple[set[str], Gaussian, Unit]], asked: set[str]
) -> None:
    """Whatever came first; and the finite figures do not depend on what was hidden."""
    histories, prices = Histories(), Prices(cheap, 1e-5)
    of = dict.fromkeys("abcd", Events())
    for people, event, unit in made:
        once = event.times(1)
        histories.add(hashes(people), History(once, once, unit))
        of |= {person: of[person] + once for person in people}
    for people in (asked, set("abcd")):
        after = histories.after(hashes(people), History())
        sliced = any(unit == "slice" and who & people for who, _, unit in made)
        assert all_hide(after) == ("slice" if sliced else "patient")
        assert (spend(after, "patient", prices) == math.inf) == sliced
        costs = [prices(of[person]) if of[person] else 0.0 for person in people]
        assert spend(after, "slice", prices) == pytest.approx(max(costs))
    assert (histories.spend("patient", prices) == math.inf) == (histories.unit == "slice")


STEPS = st.lists(st.tuples(st.sampled_from(UNITS), PEOPLE, st.sampled_from(UNITS)), max_size=14)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_under_any_policies_in_any_order_a_ledger_allows_what_the_clause_allows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Unit, set[str], Unit]]
) -> None:
    folder = tmp_path_factory.mktemp("units")
    sliced: set[str] = set()
    released = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for number, (asked, people, unit) in enumerate(steps):
            with open_ledger(folder, SitePolicy(unit=asked)) as ledger:
                allowed = asked == "slice" or (unit == "patient" and not sliced & people)
                wanted = claim("A", number, frozenset(people), 40.0, unit=unit)
                if allowed:
                    ledger.release(wanted, lambda: b"noise")
                    released += 1
                    sliced |= people if unit == "slice" else set()
                else:
                    with pytest.raises(PolicyRefused) as caught:
                        ledger.release(wanted, never)
                    assert caught.value.reason is Reason.UNIT
                assert (ledger.spent() == math.inf) == (asked == "patient" and bool(sliced))
                assert ledger.verify().releases == released
