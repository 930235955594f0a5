"""Entries, their chain and their audit: known answers, every tampered byte, and who spent most."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_support import IDENTITY, OTHER, STATE, cheap, fields_of, study

from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.audit import Verified, audit
from fedbcs_secure.privacy.chain import START, Book, Head, Row, seal
from fedbcs_secure.privacy.entries import (
    MAX_TIME_CHARACTERS,
    Body,
    Entry,
    Opened,
    PolicyChange,
    Refusal,
    Release,
)
from fedbcs_secure.privacy.events import UNITS, Events, Gaussian, Unit
from fedbcs_secure.privacy.histories import Histories, History, worst
from fedbcs_secure.privacy.policy import Reason, SitePolicy

ONE = Gaussian(4.0).times(1)


def hashes(*patients: str) -> bytes:
    return b"".join(sorted(hashlib.sha256(p.encode()).digest()[:16] for p in patients))


def release(
    name: str = "A",
    number: int = 0,
    events: Events = ONE,
    *patients: str,
    alone: Events | None = None,
    unit: Unit = "patient",
) -> Release:
    people = hashes(*(patients or ("p", "q")))
    return Release(study(name), number, STATE, unit, events, alone or events, b"d" * 32, people)


def policy(**changes: object) -> PolicyChange:
    made = SitePolicy.model_validate(changes)
    return PolicyChange(made.digest, made.text)


OPENED = Opened(IDENTITY.public.raw, b"k" * 32)


def chain(*bodies: Body) -> list[Row]:
    rows: list[Row] = []
    head = START
    for body in bodies:
        rows.append(seal(Entry("noon", body), head, IDENTITY))
        head = rows[-1].head
    return rows


def check(rows: list[Row]) -> Verified:
    return audit(lambda: rows, IDENTITY.public, cheap)


FINE = chain(
    OPENED,
    policy(),
    release("A", 0),
    Refusal(study("A"), 1, Reason.BUDGET, 9.5),
    release("A", 2, Gaussian(2.0, 0.25).times(7), "q", "r"),
    policy(epsilon=20),
    release("B", 0),
)

BODIES = st.one_of(
    st.builds(Opened, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)),
    st.builds(
        release,
        st.text(max_size=3),
        st.integers(0, 2**32 - 1),
        st.builds(
            lambda s, q, n: Gaussian(s, q).times(n),
            st.floats(0, 100),
            st.floats(0, 1, exclude_min=True),
            st.integers(1, 1000),
        ),
        st.text(max_size=4),
        unit=st.sampled_from(UNITS),
    ),
    st.builds(
        Refusal,
        st.binary(min_size=32, max_size=32),
        st.integers(0, 2**32 - 1),
        st.sampled_from(Reason),
        st.floats(0),
    ),
    st.builds(lambda e: policy(epsilon=e), st.floats(0.1, 100)),
)


@given(BODIES, st.text(max_size=MAX_TIME_CHARACTERS))
def test_every_entry_survives_its_encoding(body: Body, time: str) -> None:
    entry = Entry(time.encode(errors="ignore").decode(), body)
    assert Entry.decode(entry.encode()) == entry


def test_an_entry_is_hashed_and_signed_as_the_clause_says() -> None:
    """DP-5.2 by hand."""

    def encoded(*fields: bytes | str | int) -> bytes:
        out = b""
        for value in fields:
            tag = {bytes: b"b", str: b"s", int: b"i"}[type(value)]
            if isinstance(value, str):
                value = value.encode()
            elif isinstance(value, int):
                value = value.to_bytes(8, "big")
            out += tag + len(value).to_bytes(4, "big") + value
        return out

    previous = bytes(32)
    for sequence, row in enumerate(FINE, 1):
        label = "fedbcs-secure ledger entry v1"
        expected = hashlib.sha256(encoded(label, sequence, previous, row.content)).digest()
        assert row.hash == expected
        message = encoded("fedbcs-secure ledger signature v1", sequence, row.hash)
        IDENTITY.public.verify(row.signature, message)
        assert encoded(*fields_of(row.content)) == row.content
        previous = row.hash
    content = encoded("release", "noon", study("A"), 0, STATE, "patient")
    costs = encoded("[[4.0,1.0,1]]", "[[4.0,1.0,1]]")
    assert FINE[2].content == content + costs + encoded(b"d" * 32, hashes("p", "q"))
    assert FINE[3].content == encoded("refusal", "noon", study("A"), 1, "budget", "9.5")


def test_a_good_chain_is_counted() -> None:
    assert check(FINE) == Verified(7, 3, 1, 2, FINE[-1].head)
    assert check([]) == Verified(0, 0, 0, 0, START)


def test_any_changed_byte_of_any_entry_is_found_and_named() -> None:
    for at, row in enumerate(FINE):
        for name in ("content", "hash", "signature"):
            value = getattr(row, name)
            for index in range(len(value)):
                wrong = value[:index] + bytes([value[index] ^ 1 << index % 8]) + value[index + 1 :]
                rows = [*FINE[:at], replace(row, **{name: wrong}), *FINE[at + 1 :]]
                with pytest.raises(LedgerError, match=f"entry {at + 1} of the ledger"):
                    check(rows)
            with pytest.raises(LedgerError, match=f"entry {at + 1} of the ledger"):
                check([*FINE[:at], replace(row, **{name: value[:-1]}), *FINE[at + 1 :]])


def test_missing_swapped_and_repeated_entries_are_found() -> None:
    for at in range(len(FINE) - 1):
        with pytest.raises(LedgerError, match=f"entry {at + 1} of the ledger is missing"):
            check([*FINE[:at], *FINE[at + 1 :]])
        swapped = [*FINE[:at], FINE[at + 1], FINE[at], *FINE[at + 2 :]]
        with pytest.raises(LedgerError, match=f"entry {at + 1} of"):
            check(swapped)
        renumbered = [replace(row, sequence=i) for i, row in enumerate(swapped, 1)]
        with pytest.raises(LedgerError, match=f"entry {at + 1} of the ledger is wrong: its hash"):
            check(renumbered)
        with pytest.raises(LedgerError, match=f"entry {at + 2} of"):
            check([*FINE[: at + 1], *FINE[at:]])


def test_signatures_of_others_and_of_other_entries_are_found() -> None:
    for (at, row), after in zip(enumerate(FINE[:-1]), FINE[1:], strict=True):
        other = seal(Entry.decode(row.content), Head(at, FINE[at - 1].hash), OTHER)
        for signature in (after.signature, other.signature, bytes(64)):
            rows = [*FINE[:at], replace(row, signature=signature), *FINE[at + 1 :]]
            with pytest.raises(LedgerError, match=f"entry {at + 1} .* signature is not this site"):
                check(rows)


def test_the_ledger_of_another_site_is_found() -> None:
    """Signed by this site over another's first entry; or all of it another's."""
    with pytest.raises(LedgerError, match=r"entry 1 .*the ledger of another site"):
        check(chain(Opened(OTHER.public.raw, b"k" * 32), policy()))
    with pytest.raises(LedgerError, match=r"entry 1 .*signature"):
        audit(lambda: FINE, OTHER.public, cheap)


@pytest.mark.parametrize(
    ("bodies", "bad", "what"),
    [
        ([policy()], 1, "begins with"),
        ([OPENED, OPENED], 2, "only once"),
        ([OPENED, release()], 2, "before there was a policy"),
        ([OPENED, policy(), release(), release("B"), release()], 5, "second release of one round"),
        ([OPENED, policy(), release(events=Gaussian(0.4).times(1))], 3, "less noise"),
        ([OPENED, policy(), release(alone=Gaussian(2.0).times(1))], 3, "shared noise"),
        ([OPENED, policy(studies=[]), release()], 3, "not approved"),
        ([OPENED, policy(), release(unit="slice")], 3, "asked for patients to be hidden"),
    ],
)
def test_a_chain_that_breaks_the_rules_is_found_though_it_is_signed(
    bodies: list[Body], bad: int, what: str
) -> None:
    with pytest.raises(LedgerError, match=f"entry {bad} .*{what}"):
        check(chain(*bodies))


def test_a_policy_that_is_none_is_found() -> None:
    text = '{"epsilon":-1}'
    digest = hashlib.sha256(b"fedbcs-secure site policy v1\x00" + text.encode()).digest()
    with pytest.raises(LedgerError, match=r"entry 2 .*no site's policy"):
        check(chain(OPENED, PolicyChange(digest, text)))
    with pytest.raises(LedgerError, match="not that of its text"):
        PolicyChange(b"d" * 32, text)


def test_a_chain_that_overspent_is_found_and_the_first_entry_named() -> None:
    """One release costs 1.23, two 1.76, three 2.17, four 2.52."""
    releases = [release("A", number) for number in range(6)]
    assert [round(cheap(ONE.times(n), 1e-5), 2) for n in (1, 2, 3, 4)] == [1.23, 1.76, 2.17, 2.52]
    check(chain(OPENED, policy(epsilon=3), *releases[:4]))
    with pytest.raises(LedgerError, match=r"entry 5 .*epsilon 2.17 .* the cap of then, 2\."):
        check(chain(OPENED, policy(epsilon=2), *releases))
    # a cap that was raised in time, and one that came too late
    raised = policy(epsilon=4)
    check(chain(OPENED, policy(epsilon=2), *releases[:2], raised, *releases[2:]))
    with pytest.raises(LedgerError, match="entry 5 "):
        check(chain(OPENED, policy(epsilon=2), *releases[:3], raised, *releases[3:]))
    # a cap that was lowered: what was spent before is no fault, what comes after is
    lowered = policy(epsilon=1)
    check(chain(OPENED, policy(), *releases[:3], lowered))
    check(
        chain(OPENED, policy(), *releases[:3], lowered, release("A", 9, Gaussian(9).times(1), "z"))
    )
    with pytest.raises(LedgerError, match="entry 7 "):
        check(chain(OPENED, policy(), *releases[:3], lowered, releases[4]))


def test_the_cap_on_what_colluding_sites_see_is_audited() -> None:
    half = Gaussian(2.0).times(1)
    shared = [release("A", number, ONE, alone=half) for number in range(3)]
    check(chain(OPENED, policy(epsilon=3, local_epsilon=5), *shared))
    with pytest.raises(LedgerError, match=r"entry 5 .*local epsilon 4.53"):
        check(chain(OPENED, policy(epsilon=3, local_epsilon=4), *shared))


@pytest.mark.parametrize(
    "make",
    [
        lambda: release(number=-1),
        lambda: release(number=2**32),
        lambda: replace(release(), study=b"short"),
        lambda: replace(release(), state=b""),
        lambda: replace(release(), digest=b"d" * 33),
        lambda: replace(release(), patients=b""),
        lambda: replace(release(), patients=hashes("p") * 2),
        lambda: replace(release(), patients=hashes("p", "q")[::-1][:16] + bytes(16)),
        lambda: replace(release(), patients=hashes("p") + b"x"),
        lambda: replace(release(), events=Events()),
        lambda: replace(release(), unit="image"),
        lambda: replace(release(), unit=b"slice"),
        lambda: Refusal(study("A"), 0, Reason.BUDGET, -1.0),
        lambda: Refusal(study("A"), 0, Reason.BUDGET, math.nan),
        lambda: Opened(b"short", b"k" * 32),
    ],
)
def test_bodies_that_cannot_be(make: Callable[[], Body]) -> None:
    with pytest.raises(LedgerError):
        make()


def test_contents_that_are_not_canonical_are_no_entries() -> None:
    """Cut short anywhere, with more behind, of an unknown kind, or with numbers written otherwise.

    A flipped byte may give another entry, but never one with the same encoding.
    """
    for row in FINE:
        content = row.content
        entry = Entry.decode(content)
        wrong = [content[:end] for end in range(len(content))] + [content + b"\0", content * 2]
        for bad in wrong:
            with pytest.raises(LedgerError):
                Entry.decode(bad)
        for at in range(len(content)):
            flipped = content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
            try:
                other = Entry.decode(flipped)
            except LedgerError:
                continue
            assert other != entry
            assert other.encode() == flipped
    for old, new in ((b"9.5", b"9.4999999999999999"), (b"budget", b"BUDGET")):
        content = FINE[3].content.replace(
            b"s" + len(old).to_bytes(4, "big") + old, b"s" + len(new).to_bytes(4, "big") + new
        )
        with pytest.raises(LedgerError):
            Entry.decode(content)


def test_nothing_of_patients_is_shown() -> None:
    for shown in (repr(release()), repr(Entry("", release())), repr(FINE[2])):
        assert repr(hashes("p"))[2:-1] not in shown
        assert "patients" not in shown


def test_a_time_is_for_people_and_short() -> None:
    entry = Entry("x" * 100, OPENED)
    assert Entry.decode(entry.encode()).time == "x" * MAX_TIME_CHARACTERS


def test_the_head_is_on_the_chain_and_others_are_not() -> None:
    book = Book()
    assert book.contains(START)
    for row in FINE:
        assert not book.contains(row.head)
        book.take(row)
        assert book.head == row.head
        assert book.contains(row.head)
    assert not book.contains(Head(2, FINE[2].hash))
    assert not book.contains(Head(-1, FINE[-1].hash))
    assert not book.contains(Head(99, FINE[-1].hash))


EVENT = st.builds(Gaussian, st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0.1, 1.0]))


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abcdef"), min_size=1), EVENT), max_size=12),
    st.sets(st.sampled_from("abcdef"), min_size=1),
)
def test_the_spend_is_the_largest_of_any_patient(
    made: list[tuple[set[str], Gaussian]], asked: set[str]
) -> None:
    """Against a list of events for each patient."""
    histories = Histories()
    lists: dict[str, Events] = dict.fromkeys("abcdef", Events())
    for people, event in made:
        once = event.times(1)
        histories.add(hashes(*people), History(once, once))
        lists |= {p: lists[p] + once for p in people}
    costs = {p: cheap(events, 1e-5) if events else 0.0 for p, events in lists.items()}
    assert histories.spend("patient", lambda events: cheap(events, 1e-5)) == pytest.approx(
        max(costs.values())
    )
    after = histories.after(hashes(*asked), History(ONE, ONE))
    assert {h.events for h in after} == {lists[p] + ONE for p in asked}


def test_a_data_set_with_one_patient_more_does_not_start_afresh() -> None:
    histories = Histories()
    first = [f"p{number}" for number in range(30)]
    histories.add(hashes(*first), History(ONE.times(5), ONE.times(5)))
    histories.add(hashes(*first, "new"), History(ONE.times(5), ONE.times(5)))
    assert {h.events for h in histories.different()} == {ONE.times(5), ONE.times(10)}
    assert histories.spend("patient", lambda e: cheap(e, 1e-5)) == cheap(ONE.times(10), 1e-5)


def test_patients_with_the_same_history_are_counted_once() -> None:
    """In whatever order and study it came about."""
    histories = Histories()
    two = Gaussian(3.0).times(1)
    histories.add(hashes("a", "c"), History(ONE, ONE))
    histories.add(hashes("b", "c"), History(two, two))
    histories.add(hashes("a"), History(two, two))
    histories.add(hashes("b"), History(ONE, ONE))
    (only,) = histories.different()
    assert only.events == ONE + two


def test_only_histories_that_are_part_of_no_other_are_looked_up() -> None:
    asked: list[Events] = []

    def cost(events: Events) -> float:
        asked.append(events)
        return float(sum(n for _, n in events.parts))

    other = Gaussian(9.0).times(2)
    steps = [ONE.times(n) for n in range(1, 20)]
    assert worst([Events(), other, *steps, ONE + other, *steps], cost) == 19
    assert set(asked) == {steps[-1], ONE + other}
    assert worst([], cost) == worst([Events()], cost) == 0
    assert worst([ONE], lambda events: math.nan) == math.inf


def test_chains_part_where_they_differ() -> None:
    one, other = (chain(OPENED, policy(), release(n), release("C")) for n in "AB")
    assert [a.hash == b.hash for a, b in zip(one, other, strict=True)] == [True, True, False, False]
    assert all(a.hash != b.hash for a, b in pairwise(one))
