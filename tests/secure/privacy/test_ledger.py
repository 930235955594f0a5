"""The site's ledger: what is spent, what is refused, and each thing that can go wrong by name."""

from __future__ import annotations

import errno
import hashlib
import hmac
import math
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_support import (
    OTHER,
    PEOPLE,
    STATE,
    STORAGE_KEY,
    cheap,
    claim,
    fields_of,
    open_ledger,
    rows_of,
    study,
)
from scipy.optimize import brentq
from scipy.special import ndtr

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.errors import Refused
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy import store as module
from fedbcs_secure.privacy.chain import hash_of
from fedbcs_secure.privacy.cost import cost as cost_of
from fedbcs_secure.privacy.entries import Entry, Refusal
from fedbcs_secure.privacy.events import Events, Gaussian
from fedbcs_secure.privacy.ledger import Claim, Ledger
from fedbcs_secure.privacy.policy import PolicyRefused, Reason, SitePolicy
from fedbcs_secure.privacy.releases import purpose_key
from fedbcs_secure.privacy.shown import ShownHead

CAP = SitePolicy(epsilon=3.0)
"""One release about a patient at noise 4 costs 1.23, five cost 2.84, six 3.13."""


def never() -> bytes:
    raise AssertionError("new noise was drawn")


def release(ledger: Ledger, *arguments: Any, **changes: Any) -> bytes:
    return ledger.release(claim(*arguments, **{"sigma": 4.0, **changes}), lambda: os.urandom(50))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path, CAP) as opened:
        yield opened


def test_a_release_is_booked_stored_and_the_same_again(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        assert ledger.spent() == 0
        first = release(ledger)
        assert ledger.release(claim(sigma=4.0), never) == first
        assert ledger.spent() == cheap(Gaussian(4.0).times(1), 1e-5)
    with open_ledger(tmp_path) as ledger:
        assert ledger.release(claim(sigma=4.0), never) == first
    rows = [fields_of(content) for _, content, _, _ in rows_of(tmp_path)]
    assert [row[0] for row in rows] == ["opened", "policy", "release"]
    assert rows[2][1:6] == ["noon", study("A"), 0, STATE, "patient"]
    assert rows[2][6:8] == ["[[4.0,1.0,1]]", "[[4.0,1.0,1]]"]
    assert rows[2][8] == hashlib.sha256(first).digest()
    assert len(rows[2][9]) == 16 * len(PEOPLE)


def test_no_patient_and_no_release_is_readable_on_the_disk(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        secret = ledger.release(claim(patients=frozenset({"Doe, John"})), lambda: b"release " * 9)
        shown = repr(ledger) + repr(claim()) + repr(ledger.statement())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"Doe" not in path.read_bytes()
            assert secret[:8] not in path.read_bytes()
    assert "patient 7" not in shown


def test_the_budget_ends_at_the_right_round_with_a_sentence(ledger: Ledger) -> None:
    for number in range(5):
        release(ledger, "A", number)
    with pytest.raises(PolicyRefused) as caught:
        ledger.release(claim("A", 5, sigma=4.0), never)
    assert str(caught.value) == (
        "this release would bring the privacy spend of a patient to epsilon 3.13 at delta 1e-05; "
        "the site's cap is 3 (spent so far 2.84). The site takes no further part in this study"
    )
    assert isinstance(caught.value, Refused)
    assert caught.value.reason is Reason.BUDGET
    assert ledger.statement().releases == 5
    # another study is refused as well, a smaller release is not, nor are others' patients
    with pytest.raises(PolicyRefused):
        ledger.release(claim("B", 0, sigma=4.0), never)
    release(ledger, "B", 1, sigma=40.0)
    release(ledger, "B", 2, patients=frozenset({"somebody else"}))


@pytest.mark.parametrize(
    ("cost", "shown"), [(8.0000001, r"8\.0000001"), (math.inf, "inf"), (math.nan, "inf")]
)
def test_what_is_above_the_cap_is_never_shown_as_the_cap(
    tmp_path: Path, cost: float, shown: str
) -> None:
    with (
        open_ledger(tmp_path, cost=lambda events, delta: cost) as ledger,
        pytest.raises(PolicyRefused, match=f"to epsilon {shown} at"),
    ):
        release(ledger)


def test_what_is_at_the_cap_is_allowed(tmp_path: Path) -> None:
    with open_ledger(tmp_path, cost=lambda events, delta: 8.0) as ledger:
        release(ledger)
        assert ledger.remaining == 0


def test_refusals_are_entries_and_once_for_each_round_and_reason(tmp_path: Path) -> None:
    with open_ledger(tmp_path, CAP) as ledger:
        for _ in range(3):
            for number in range(2):
                with pytest.raises(PolicyRefused):
                    ledger.release(claim("A", number, sigma=1.0), never)
        ledger.refuse(study("A"), 0, Reason.UNIT)
        assert ledger.statement().refusals == 3
        assert ledger.spent() == 0
    rows = [fields_of(content) for _, content, _, _ in rows_of(tmp_path)]
    cost = repr(cheap(Gaussian(1.0).times(1), 1e-5))
    assert rows[2] == ["refusal", "noon", study("A"), 0, "budget", cost]
    assert rows[4] == ["refusal", "noon", study("A"), 0, "unit", "0.0"]
    with open_ledger(tmp_path, CAP) as ledger:
        assert ledger.statement().refusals == ledger.verify().refusals == 3


def test_another_state_or_lost_bytes_never_get_new_noise(ledger: Ledger, tmp_path: Path) -> None:
    release(ledger)
    with pytest.raises(PolicyRefused, match="for another state") as caught:
        ledger.release(claim(state=b"t" * 32), never)
    assert caught.value.reason is Reason.OTHER_STATE
    (path,) = (tmp_path / "releases").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(PolicyRefused, match="no longer has the bytes") as caught:
        ledger.release(claim(), never)
    assert caught.value.reason is Reason.LOST
    path.write_bytes(whole)
    assert ledger.release(claim(), never)
    # the right key, but other bytes than were booked
    ledger._files.write((study("A"), 0), STATE, ledger.head, b"other bytes")
    with pytest.raises(PolicyRefused, match="no longer has the bytes"):
        ledger.release(claim(), never)
    assert ledger.statement().releases == 1


def test_forgotten_rounds_stay_spent_and_cannot_be_repeated(ledger: Ledger, tmp_path: Path) -> None:
    kept = [release(ledger, "A", number) for number in range(3)]
    spent = ledger.spent()
    ledger.forget(study("A"), 2)
    ledger.forget(study("A"), 2)
    ledger.forget(study("B"), 9)
    assert len(list((tmp_path / "releases").iterdir())) == 1
    assert ledger.spent() == spent
    for number in range(2):
        with pytest.raises(PolicyRefused, match="no longer has the bytes"):
            ledger.release(claim("A", number), never)
    assert ledger.release(claim("A", 2), never) == kept[2]
    ledger.verify()


@pytest.mark.parametrize(
    ("policy", "changes", "reason"),
    [
        (SitePolicy(min_noise_multiplier=5), {}, Reason.NOISE),
        (SitePolicy(), {"events": Gaussian(0.0).times(1)}, Reason.NOISE),
        (
            SitePolicy(),
            {"events": Gaussian(9.0).times(8) + Gaussian(0.4, 1e-3).times(1)},
            Reason.NOISE,
        ),
        (SitePolicy(studies=(study("B").hex(),)), {}, Reason.STUDY),
        (SitePolicy(), {"alone": Gaussian(2.0).times(1)}, Reason.SHARED_NOISE),
        (SitePolicy(local_epsilon=8), {"alone": Gaussian(0.5).times(1)}, Reason.LOCAL_BUDGET),
    ],
)
def test_the_policy_is_a_floor_whatever_is_claimed(
    tmp_path: Path, policy: SitePolicy, changes: dict[str, Any], reason: Reason
) -> None:
    with open_ledger(tmp_path, policy) as ledger:
        with pytest.raises(PolicyRefused) as caught:
            ledger.release(claim(**{"sigma": 4.0, **changes}), never)
        assert caught.value.reason is reason
        assert ledger.statement().refusals == 1
        assert ledger.statement().releases == 0


def test_shared_noise_has_two_budgets(tmp_path: Path) -> None:
    policy = SitePolicy(epsilon=3, local_epsilon=4)
    with open_ledger(tmp_path, policy) as ledger:
        alone = Gaussian(2.0).times(1)
        release(ledger, "A", 0, alone=alone)
        release(ledger, "A", 1, alone=alone)
        with pytest.raises(PolicyRefused, match=r"no other site adds noise.* 4.53? at"):
            ledger.release(claim("A", 2, sigma=4.0, alone=alone), never)
        release(ledger, "A", 2)
        statement = ledger.statement()
        assert statement.local_cap == 4
        events = alone.times(2) + Gaussian(4.0).times(1)
        assert statement.local_epsilon == cheap(events, 1e-5)
        assert statement.epsilon == cheap(Gaussian(4.0).times(3), 1e-5)


def test_the_worst_patient_counts_over_overlapping_cohorts(ledger: Ledger) -> None:
    release(ledger, "A", 0, frozenset("abc"))
    release(ledger, "B", 0, frozenset("cde"))
    release(ledger, "C", 0, frozenset("efg"))
    one = Gaussian(4.0).times(1)
    assert ledger.spent() == cheap(one.times(2), 1e-5)
    for people, times in (("a", 2), ("c", 3), ("ag", 2), ("z", 1), ("ez", 3)):
        assert ledger.would_cost(one, people, "patient") == cheap(one.times(times), 1e-5)
    assert ledger.remaining == 3 - ledger.spent()
    assert ledger.statement().studies[0].epsilon == cheap(one, 1e-5)


def test_one_patient_more_is_no_new_data_set(ledger: Ledger) -> None:
    for number in range(5):
        release(ledger, "A", number)
    with pytest.raises(PolicyRefused):
        ledger.release(claim("B", 0, PEOPLE | {"one more"}, 4.0), never)


def test_a_patient_is_known_by_either_spelling_of_a_letter(ledger: Ledger) -> None:
    release(ledger, "A", 0, frozenset({"M\u00fcller"}))
    one = Gaussian(4.0).times(1)
    assert ledger.would_cost(one, {"Mu\u0308ller"}, "patient") == cheap(one.times(2), 1e-5)
    assert ledger.would_cost(one, {"Muller"}, "patient") == cheap(one, 1e-5)
    assert ledger.would_cost(one, {"\udcff of a file's name"}, "patient") == cheap(one, 1e-5)


def test_a_statement_says_it_all(ledger: Ledger) -> None:
    release(ledger, "A", 0)
    release(ledger, "A", 1)
    release(ledger, "B", 0, sigma=8.0)
    with pytest.raises(PolicyRefused):
        ledger.release(claim("B", 1, sigma=1.0), never)
    statement = ledger.statement()
    four, eight = Gaussian(4.0).times(2), Gaussian(8.0).times(1)
    assert statement.epsilon == ledger.spent() == cheap(four + eight, 1e-5)
    assert (statement.delta, statement.cap, statement.local_cap) == (1e-5, 3, None)
    assert statement.remaining == ledger.remaining == 3 - statement.epsilon
    assert (statement.releases, statement.refusals) == (3, 1)
    assert {s.study: (s.rounds, s.epsilon) for s in statement.studies} == {
        study("A"): (2, cheap(four, 1e-5)),
        study("B"): (1, cheap(eight, 1e-5)),
    }
    assert statement.head == ledger.head
    assert ledger.head.sequence == 6


def test_a_changed_policy_is_an_entry_and_decides_from_then_on(tmp_path: Path) -> None:
    with open_ledger(tmp_path, CAP) as ledger:
        release(ledger, "A", 0)
    with open_ledger(tmp_path, CAP) as ledger:
        assert ledger.head.sequence == 3
    with open_ledger(tmp_path, SitePolicy(epsilon=1)) as ledger:
        assert ledger.head.sequence == 4
        assert ledger.remaining == 0
        with pytest.raises(PolicyRefused, match="the site's cap is 1"):
            ledger.release(claim("A", 1, sigma=40.0), never)
        assert ledger.verify().policies == 2
    with open_ledger(tmp_path, SitePolicy(delta=1e-9)) as ledger:
        assert ledger.spent() == cheap(Gaussian(4.0).times(1), 1e-9)
        assert ledger.verify().policies == 3


def test_claims_that_cannot_be(ledger: Ledger) -> None:
    wrong: list[dict[str, Any]] = [
        {"patients": frozenset()},
        {"events": Events()},
        {"study": b"short"},
        {"state": b""},
        {"round": -1},
        {"round": 2**32},
    ]
    for changes in wrong:
        with pytest.raises(LedgerError):
            ledger.release(claim(**changes), never)
    assert ledger.verify().entries == 2


def test_a_release_within_a_release_is_one(ledger: Ledger) -> None:
    def make() -> bytes:
        return ledger.release(claim(), lambda: b"inner")

    with pytest.raises(LedgerError, match="released the same round"):
        ledger.release(claim(), make)
    assert ledger.release(claim(), never) == b"inner"
    assert ledger.verify().releases == 1


# what can go wrong, by name


def test_a_second_process_is_told(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom ledger_support import open_ledger\n"
        "from fedbcs_secure.errors import LedgerError\n"
        "try:\n    open_ledger(Path(sys.argv[1]))\n"
        "except LedgerError as error:\n    print(error)\n    raise SystemExit(7)\n"
    )
    order = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open_ledger(tmp_path) as ledger:
        release(ledger)
        other = subprocess.run(order, env=environment, capture_output=True, text=True, check=False)
        assert other.returncode == 7, other.stderr
        assert "another process of this site uses the ledger" in other.stdout
        # nor the same process a second time
        with pytest.raises(LedgerError, match="another process"):
            open_ledger(tmp_path)
        release(ledger, "A", 1)
    other = subprocess.run(order, env=environment, capture_output=True, text=True, check=False)
    assert other.returncode == 0, other.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_processes_that_want_one_round_at_once_get_one_release(tmp_path: Path) -> None:
    """Each tries until the ledger is free; whoever comes first draws, all others get the same."""
    script = """
import os, sys
from pathlib import Path
from ledger_support import claim, open_ledger
from fedbcs_secure.errors import LedgerError
folder, (ready, go), told = Path(sys.argv[1]), os.pipe(), 0
children = []
for number in range(5):
    children.append(os.fork())
    if children[-1] == 0:
        os.close(go)
        os.read(ready, 1)  # until all are there
        while True:
            try:
                with open_ledger(folder) as ledger:
                    data = ledger.release(claim(), lambda: os.urandom(40))
                break
            except LedgerError as error:
                assert "another process of this site uses the ledger" in str(error), error
                told += 1
        (folder / f"got{number}").write_bytes(data)
        os._exit(10 if told else 0)
os.close(go)
ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert set(ends) <= {0, 10} and 10 in ends, ends
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    order = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(order, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (data,) = {path.read_bytes() for path in tmp_path.glob("got*")}
    assert len(list(tmp_path.glob("got*"))) == 5
    with open_ledger(tmp_path) as ledger:
        assert ledger.release(claim(), never) == data
        assert ledger.verify().releases == 1


def test_where_there_is_no_lock_the_second_cannot_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DP-5.1, as on Windows: two that are open at once never spend twice for one round."""
    monkeypatch.setattr(module, "hold", lambda path: None)
    with open_ledger(tmp_path) as one, open_ledger(tmp_path) as two:
        release(one, "A", 0)
        with pytest.raises(LedgerError, match="another program wrote"):
            release(two, "A", 0)
        with pytest.raises(LedgerError, match="open it again"):
            release(two, "A", 1)
        assert one.verify().releases == 1
        # The second wrote over the file of the round: what is lost is the bytes, not a budget.
        with pytest.raises(PolicyRefused, match="no longer has the bytes"):
            one.release(claim("A", 0), never)
    with open_ledger(tmp_path) as ledger:
        assert ledger.verify().releases == 1
        assert ledger.spent() == cheap(Gaussian(4.0).times(1), 1e-5)


def test_a_forked_child_cannot_use_it_and_does_no_harm(tmp_path: Path) -> None:
    """Its end closes what it inherited; the parent's later entries must outlive that."""
    script = f"""
import os, sys
from pathlib import Path
from ledger_support import claim, open_ledger
from fedbcs_secure.errors import LedgerError
ledger = open_ledger(Path({str(tmp_path)!r}))
ledger.release(claim("A", 0), lambda: b"one")
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.close(go)
    try:
        ledger.release(claim("A", 1), lambda: b"child's")
    except LedgerError as error:
        assert "belongs to the process that opened it" in str(error)
        os.read(ready, 1)  # until the parent has written
        sys.exit(0)
    sys.exit(1)
ledger.release(claim("A", 1), lambda: b"two")
os.write(go, b"x")
assert os.waitpid(child, 0)[1] == 0
ledger.release(claim("A", 2), lambda: b"three")
assert ledger.verify().releases == 3
os._exit(5)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert run.returncode == 5
    with open_ledger(tmp_path) as ledger:
        assert [ledger.release(claim("A", n), never) for n in range(3)] == [
            b"one",
            b"two",
            b"three",
        ]


def test_an_older_copy_is_noticed(tmp_path: Path) -> None:
    """Of the ledger alone; of ledger and head, by the releases or by what peers have."""
    folder = tmp_path / "site"
    with open_ledger(folder) as ledger:
        release(ledger, "A", 0)
    shutil.copytree(folder, tmp_path / "backup")
    with open_ledger(folder) as ledger:
        release(ledger, "A", 1)
        release(ledger, "A", 2)
        seen = ledger.show_head(study("A"))
        assert ledger.has_shown(study("A"), seen)
    shutil.copy(tmp_path / "backup" / "ledger.sqlite", folder)
    with pytest.raises(LedgerError, match="ends at entry 3, but had 5 before: an older copy"):
        open_ledger(folder)
    shutil.copy(tmp_path / "backup" / "apart" / "head", folder / "apart")
    with pytest.raises(LedgerError, match="a release that the ledger does not know: an older copy"):
        open_ledger(folder)
    shutil.rmtree(folder / "releases")
    shutil.copytree(tmp_path / "backup" / "releases", folder / "releases")
    with open_ledger(folder) as ledger:
        assert not ledger.has_shown(study("A"), seen)
        release(ledger, "A", 1)
        release(ledger, "A", 2)
        assert not ledger.has_shown(study("A"), seen)


def test_what_is_shown_of_a_head_can_be_guessed_by_nobody(tmp_path: Path) -> None:
    """RO-7.1: an entry of a refusal has no secret in it, and one ledger serves many studies."""
    with open_ledger(tmp_path, clock=lambda: "2026-01-01T00:00:00+00:00") as ledger:
        before = ledger.head
        ledger.refuse(study("B"), 4, Reason.BUDGET, 8.5)
        # What a server of study A would try.
        guess = Entry("2026-01-01T00:00:00+00:00", Refusal(study("B"), 4, Reason.BUDGET, 8.5))
        guessed = hash_of(before.sequence + 1, before.hash, guess.encode())
        assert guessed == ledger.head.hash
        a, b = (ledger.show_head(study(name)) for name in "AB")
        assert a.sequence == b.sequence == ledger.head.sequence
        assert len({a.value, b.value, guessed}) == 3
        message = encode_fields("fedbcs-secure shown head v1", study("A"), a.sequence, guessed)
        assert a.value == hmac.digest(purpose_key(STORAGE_KEY, "shown heads"), message, "sha256")
        for other in (bytes(32), STORAGE_KEY, purpose_key(STORAGE_KEY, "patients")):
            assert a.value != hmac.digest(other, message, "sha256")
        # The site knows its own, of any time, and in no other study.
        release(ledger, "A")
        assert ledger.has_shown(study("A"), a)
        assert not ledger.has_shown(study("B"), a)
        assert not ledger.has_shown(study("A"), ShownHead(a.sequence, guessed))
        for number in (-1, a.sequence - 1, a.sequence + 1, a.sequence + 2, 2**64 - 1):
            assert not ledger.has_shown(study("A"), ShownHead(number, a.value))


@pytest.mark.parametrize("opened", [1, 3])
def test_an_older_ledger_costs_no_release_that_the_latest_had_booked(
    tmp_path: Path, opened: int
) -> None:
    """DP-5.5: the newest file looks like a crash's then; it is put aside, and found again."""
    folder, copy, latest = (tmp_path / name for name in ("site", "copy", "latest"))
    with open_ledger(folder) as ledger:
        first = release(ledger, "A", 0)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("releases"))
    with open_ledger(folder) as ledger:
        second = release(ledger, "A", 1)
    shutil.copytree(folder, latest, ignore=shutil.ignore_patterns("releases"))
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    for _ in range(opened):
        with open_ledger(folder) as ledger:
            assert ledger.head.sequence == 3
            (aside,) = (folder / "releases").glob("*.unbooked")
    shutil.copytree(latest, folder, dirs_exist_ok=True)
    with open_ledger(folder) as ledger:
        assert not aside.exists()
        assert ledger.release(claim("A", 1), never) == second
        assert ledger.release(claim("A", 0), never) == first


def test_what_was_put_aside_goes_when_the_ledger_goes_on(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        release(ledger, "A", 0)
        ledger._files.write((study("A"), 1), STATE, ledger.head, b"of a crash")
    with open_ledger(tmp_path) as ledger:
        (aside,) = (tmp_path / "releases").glob("*.unbooked")
        ledger.release(claim("A", 0), never)
        ledger.refuse(study("A"), 1, Reason.NOISE)
        assert aside.exists()
        release(ledger, "B", 0)
        assert not aside.exists()


def test_a_copy_that_went_on_from_an_older_one_is_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with open_ledger(tmp_path / name) as ledger:
            release(ledger, name)
            release(ledger, name, 1)
    shutil.copy(tmp_path / "two" / "ledger.sqlite", tmp_path / "one")
    with pytest.raises(LedgerError, match="has another entry 4 than before"):
        open_ledger(tmp_path / "one")


def test_a_head_that_is_behind_is_brought_up(tmp_path: Path) -> None:
    """A crash between the commit and the head; also of several entries."""
    head = tmp_path / "apart" / "head"
    with open_ledger(tmp_path) as ledger:
        release(ledger, "A", 0)
        old = head.read_bytes()
        release(ledger, "A", 1)
        release(ledger, "A", 2)
    new = head.read_bytes()
    head.write_bytes(old)
    with open_ledger(tmp_path) as ledger:
        assert ledger.head.sequence == 5
    assert head.read_bytes() == new


def test_a_missing_or_damaged_head_is_for_a_person(tmp_path: Path) -> None:
    head = tmp_path / "apart" / "head"
    with open_ledger(tmp_path) as ledger:
        pass
    head.unlink()
    with open_ledger(tmp_path) as ledger:  # nothing was released, so nothing can be lost
        release(ledger)
    whole = head.read_bytes()
    head.unlink()
    with pytest.raises(LedgerError, match=r"the head .* is missing.*trust_ledger"):
        open_ledger(tmp_path)
    with open_ledger(tmp_path, trust_ledger=True):
        assert head.read_bytes() == whole
    head.write_bytes(whole[:-1])
    for trust in (False, True):
        with pytest.raises(LedgerError, match="damaged, or another site's"):
            open_ledger(tmp_path, trust_ledger=trust)


@pytest.mark.parametrize("how", ["gone", "empty"])
@pytest.mark.parametrize("kept", ["head", "releases"])
def test_a_missing_ledger_is_no_fresh_start(tmp_path: Path, how: str, kept: str) -> None:
    with open_ledger(tmp_path) as ledger:
        release(ledger)
    path = tmp_path / "ledger.sqlite"
    path.unlink() if how == "gone" else path.write_bytes(b"")
    shutil.rmtree(tmp_path / ("releases" if kept == "head" else "apart"))
    for _ in range(2):
        with pytest.raises(LedgerError, match="missing or empty, though there was one"):
            open_ledger(tmp_path)


def test_another_sites_ledger_and_another_storage_key(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        release(ledger)
    with pytest.raises(LedgerError, match="another site"):
        open_ledger(tmp_path, identity=OTHER)
    with pytest.raises(LedgerError, match="ledger of another site"):
        open_ledger(tmp_path, identity=OTHER, head=tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="under another storage key"):
        open_ledger(tmp_path, storage_key=bytes(32))
    with pytest.raises(LedgerError, match="32 bytes"):
        open_ledger(tmp_path, storage_key=bytes(31))


@pytest.mark.parametrize("time", ["1970-01-01", "", "x" * 1000, "heute"])
def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, time: str) -> None:
    with open_ledger(tmp_path / "one", CAP, clock=lambda: "2030-01-01") as ledger:
        release(ledger, "A", 0)
    with open_ledger(tmp_path / "one", CAP, clock=lambda: time) as ledger:
        for number in range(1, 5):
            release(ledger, "A", number)
        with pytest.raises(PolicyRefused, match=r"3\.13"):
            ledger.release(claim("A", 5, sigma=4.0), never)
        ledger.verify()
    with open_ledger(tmp_path / "one", CAP, clock=lambda: "2030-01-01") as ledger:
        assert ledger.verify().releases == 5


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes there")
def test_only_the_owner_can_read_the_ledger(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        release(ledger)
        for path in (p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    (tmp_path / "ledger.sqlite").chmod(0o644)
    with open_ledger(tmp_path):
        assert stat.S_IMODE((tmp_path / "ledger.sqlite").stat().st_mode) == 0o600


def fill(ledger: Ledger) -> None:
    for number in range(1, 40):
        release(ledger, "A", number)


def test_a_full_disk_while_booking_releases_nothing(tmp_path: Path) -> None:
    """SQLite's own error for it, from a limit on the file's pages."""
    with open_ledger(tmp_path) as ledger:
        first = release(ledger)
        ledger._store._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(LedgerError, match=r"the disk is full. Nothing was released"):
            fill(ledger)
        head = ledger.head
        # what is on the disk only a new start can tell
        for use in (ledger.spent, ledger.verify, ledger.statement, lambda: release(ledger, "B")):
            with pytest.raises(LedgerError, match="open it again"):
                use()
    with open_ledger(tmp_path) as ledger:
        assert ledger.head == head
        assert len(list((tmp_path / "releases").glob("*.release"))) == ledger.verify().releases
        assert len(list((tmp_path / "releases").glob("*.unbooked"))) == 1
        assert ledger.release(claim(), never) == first
        release(ledger, "A", ledger.verify().releases)
        assert len(list((tmp_path / "releases").iterdir())) == ledger.verify().releases


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")],
)
@pytest.mark.parametrize("step", ["store", "head"])
def test_a_full_or_read_only_disk_around_booking_releases_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, said: str
) -> None:
    """While the release is stored nothing is spent; while the head is, the bytes come next time."""
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if (Path(target).name == "head") == (step == "head"):
            raise OSError(number, said)
        replace(source, target)

    with open_ledger(tmp_path) as ledger, monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(LedgerError, match=f"{said}. Nothing was released"):
            ledger.release(claim(), lambda: b"first")
    with open_ledger(tmp_path) as ledger:
        assert ledger.verify().releases == (step == "head")
        expected = b"first" if step == "head" else b"second"
        assert ledger.release(claim(), lambda: b"second") == expected


def test_a_refusal_that_cannot_be_booked_is_no_release_either(tmp_path: Path) -> None:
    with open_ledger(tmp_path, CAP) as ledger:
        ledger._store._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(LedgerError, match=r"read-only. Nothing was released"):
            ledger.release(claim(sigma=1.0), never)
        with pytest.raises(LedgerError, match="open it again"):
            release(ledger, "A", 1)
    with open_ledger(tmp_path, CAP) as ledger:
        assert (ledger.verify().refusals, ledger.spent()) == (0, 0)


def test_a_read_only_ledger_releases_nothing(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger._store._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(LedgerError, match=r"read-only. Nothing was released"):
            release(ledger)
    with open_ledger(tmp_path) as ledger:
        assert ledger.spent() == 0
        release(ledger)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match="Permission denied"):
        open_ledger(tmp_path)
    tmp_path.chmod(0o700)


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests."""

    def denied(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        with pytest.raises(LedgerError, match="Read-only file system"):
            open_ledger(tmp_path)
    with pytest.raises(LedgerError, match="cannot"):
        open_ledger(Path("/proc/self/nowhere"))


def test_commits_are_synced(ledger: Ledger) -> None:
    """DP-5.1"""
    run = ledger._store._connection.execute
    assert run("PRAGMA journal_mode").fetchone() == ("wal",)
    assert run("PRAGMA synchronous").fetchone() == (2,)


def test_a_ledger_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    with open_ledger(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(LedgerError, match="of version 3, made by a newer program"):
        open_ledger(tmp_path)


def test_another_program_that_writes_is_noticed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        release(ledger)
        with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
            other.execute("DELETE FROM entries WHERE sequence = 3")
        other.close()
        with pytest.raises(LedgerError, match="changed by another program"):
            ledger.verify()
        with pytest.raises(LedgerError, match="another program wrote to the ledger"):
            release(ledger, "A", 1)


def test_a_program_that_keeps_the_file_busy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "connect", lambda p: sqlite3.connect(p, 0, isolation_level=None))
    with open_ledger(tmp_path) as ledger:
        other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another program uses it"):
            release(ledger)
        other.close()


TAMPERING = [
    "UPDATE entries SET content = x'00' WHERE sequence = 3",
    "UPDATE entries SET content = 'text' WHERE sequence = 3",
    "UPDATE entries SET content = zeroblob(40000000) WHERE sequence = 3",
    "UPDATE entries SET signature = x'00' WHERE sequence = 4",
    "UPDATE entries SET hash = zeroblob(32) WHERE sequence = 2",
    "UPDATE entries SET sequence = 9 WHERE sequence = 3",
    "DELETE FROM entries WHERE sequence = 3",
    "DELETE FROM entries WHERE sequence > 3",
    "DELETE FROM entries",
    "DROP TABLE entries",
    "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
    "CREATE TABLE more (x)",
    "PRAGMA user_version = 0",
]


@pytest.mark.parametrize("sql", TAMPERING)
def test_a_changed_ledger_does_not_open(tmp_path: Path, sql: str) -> None:
    with open_ledger(tmp_path) as ledger:
        release(ledger, "A", 0)
        release(ledger, "A", 1)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute(sql)
    connection.close()
    with pytest.raises(LedgerError):
        open_ledger(tmp_path)


def test_a_signature_in_the_middle_is_found_by_verify(tmp_path: Path) -> None:
    """The start checks the last one, which stands for all contents; the full walk checks each."""
    with open_ledger(tmp_path) as ledger:
        release(ledger, "A", 0)
        release(ledger, "A", 1)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE entries SET signature = zeroblob(64) WHERE sequence = 3")
    connection.close()
    with open_ledger(tmp_path) as ledger, pytest.raises(LedgerError, match=r"entry 3 .*signature"):
        ledger.verify()


def test_a_damaged_file_is_found_or_says_the_same(tmp_path: Path) -> None:
    """Bytes anywhere in the file, also cut off: a named error, or all entries as they were."""
    base = tmp_path / "base"
    with open_ledger(base) as ledger:
        for number in range(12):
            release(ledger, "A", number, sigma=40.0)
        expected, spent = ledger.verify(), ledger.spent()
    whole = (base / "ledger.sqlite").read_bytes()
    generator = random.Random(4)
    found = 0
    for trial in range(120):
        data = bytearray(whole)
        at = generator.randrange(len(data))
        if trial % 4 == 0:
            del data[at:]
        else:
            for index in range(at, min(at + generator.choice([1, 40, 4096]), len(data))):
                data[index] ^= generator.randrange(1, 256)
        for path in base.glob("ledger.sqlite-*"):
            path.unlink()
        (base / "ledger.sqlite").write_bytes(data)
        try:
            with open_ledger(base) as ledger:
                assert ledger.verify() == expected
                assert ledger.spent() == spent
        except LedgerError:
            found += 1
    assert found > 80


def test_a_file_of_something_else_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(LedgerError, match="damaged"):
        open_ledger(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(LedgerError, match="Is a directory"):
        open_ledger(tmp_path)


def test_a_closed_ledger_is_closed(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.spent()
    with open_ledger(tmp_path):
        pass


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Of one Gaussian mechanism, by its closed form (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        a, b = 1 / (2 * sigma), epsilon * sigma
        return float(ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b)) - delta

    return float(brentq(excess, 0, 10))


def test_the_accountant_is_asked_at_the_policys_delta(tmp_path: Path) -> None:
    policy = SitePolicy(epsilon=1.0, delta=1e-6)
    with open_ledger(tmp_path, policy, cost=None) as ledger:
        release(ledger, sigma=20.0)
        assert ledger.spent() == pytest.approx(gaussian_epsilon(20.0, 1e-6), rel=1e-3)
        with pytest.raises(PolicyRefused):
            ledger.release(claim("A", 1, sigma=4.0), never)
        ledger.verify()


def test_the_accountant_composes_what_studies_and_cohorts_share(tmp_path: Path) -> None:
    sampled, prototypes = Gaussian(2.0, 0.2).times(5), Gaussian(16.0).times(1)
    with open_ledger(tmp_path, cost=None) as ledger:
        for number in range(4):
            release(ledger, "A", number, frozenset("abc"), events=sampled)
        release(ledger, "B", 0, frozenset("cd"), events=prototypes)
        assert ledger.spent() == cost_of(sampled.times(4) + prototypes, 1e-5)
        alone = {s.study: s.epsilon for s in ledger.statement().studies}
        assert alone[study("A")] == cost_of(sampled.times(4), 1e-5)
        assert alone[study("B")] == cost_of(prototypes, 1e-5)
        assert max(alone.values()) < ledger.spent() < sum(alone.values())
        ledger.verify()


# many operations, against a recomputation


def independent(rows: list[tuple[int, bytes, bytes, bytes]], delta: float) -> float:
    """The worst patient's cost from the rows alone, patient by patient, event by event."""
    rho: dict[bytes, float] = defaultdict(float)
    for _, content, _, _ in rows:
        kind, _, *fields = fields_of(content)
        if kind != "release":
            continue
        cost = 0.0
        for part in fields[4].strip("[]").split("],["):
            sigma, rate, count = part.split(",")
            cost += int(count) * float(rate) ** 2 / (2 * float(sigma) ** 2)
        for at in range(0, len(fields[7]), 16):
            rho[fields[7][at : at + 16]] += cost
    worst = max(rho.values(), default=0.0)
    return worst + 2 * math.sqrt(worst * math.log(1 / delta))


def test_after_a_thousand_operations_the_spend_is_that_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases, repetitions, refusals, old rounds, restarts, new policies; a model beside it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    generator = random.Random(8)
    everyone = [f"p{number}" for number in range(25)]
    sent: dict[tuple[str, int], bytes] = {}
    forgotten: set[tuple[str, int]] = set()
    rho: dict[str, float] = defaultdict(float)
    policy = SitePolicy(epsilon=6.0)
    happened: dict[str, int] = defaultdict(int)

    def epsilon(value: float) -> float:
        return value + 2 * math.sqrt(value * math.log(1 / policy.delta))

    def one_release(ledger: Ledger) -> None:
        name, number = generator.choice("ABCD"), generator.randrange(400)
        people = generator.sample(everyone, generator.randint(1, 12))
        events = Gaussian(generator.choice([5.0, 20.0, 80.0]), generator.choice([0.3, 1.0]))
        wanted: Claim = claim(
            name, number, frozenset(people), events=events.times(generator.randint(1, 3))
        )
        more = sum(
            n * (e.sampling_rate / e.noise_multiplier) ** 2 / 2 for e, n in wanted.events.parts
        )
        data = generator.randbytes(40)
        if (name, number) in sent:
            happened["again"] += 1
            if (name, number) in forgotten:
                with pytest.raises(PolicyRefused):
                    ledger.release(wanted, never)
            else:
                assert ledger.release(wanted, never) == sent[name, number]
        elif epsilon(max(rho[p] for p in people) + more) > policy.epsilon:
            happened["refused"] += 1
            with pytest.raises(PolicyRefused, match="would bring the privacy spend"):
                ledger.release(wanted, never)
        else:
            happened["released"] += 1
            assert ledger.release(wanted, lambda: data) == data
            sent[name, number] = data
            for person in people:
                rho[person] += more

    def open_without_waiting() -> Ledger:
        opened = open_ledger(tmp_path, policy)
        opened._store._connection.execute("PRAGMA synchronous = OFF")
        return opened

    ledger = open_without_waiting()
    for _ in range(1000):
        what = generator.random()
        if what < 0.92:
            one_release(ledger)
        elif what < 0.94:
            ledger.close()
            if generator.random() < 0.3:
                policy = SitePolicy(epsilon=generator.choice([4.0, 6.0, 7.0]))
            ledger = open_without_waiting()
        elif what < 0.96:
            name, before = generator.choice("ABCD"), generator.randrange(100)
            ledger.forget(study(name), before)
            forgotten |= {slot for slot in sent if slot[0] == name and slot[1] < before}
        else:
            assert ledger.spent() == pytest.approx(epsilon(max(rho.values(), default=0.0)))
    verified, spent = ledger.verify(), ledger.spent()
    ledger.close()
    assert min(happened[what] for what in ("again", "refused", "released")) > 50, happened
    assert verified.releases == len(sent)
    assert spent == pytest.approx(independent(rows_of(tmp_path), policy.delta), rel=1e-12)
