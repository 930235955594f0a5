from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.errors import BadKey, LocalError, MalformedFrame
from fedbcs_protocols.group import NO_KEY, Standing, Status
from fedbcs_protocols.group.standing import MAX_EPOCH, Task, check_distinct, task_of

SITES, ROUND = 11, 7
LAST = 1024 * (ROUND + 1)
EXCHANGE = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()

exchanges = st.binary(min_size=32, max_size=32).map(
    lambda secret: X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
)
names = st.binary(min_size=32, max_size=32).filter(any)
epochs = st.integers(1, LAST)
attempts = st.integers(0, 2**16 - 1)
rounds = st.integers(0, ROUND)
members = st.frozensets(st.integers(0, SITES - 1), min_size=1)
holding = st.builds(
    Standing, st.just(Status.HOLDS), epochs, rounds, attempts, names, members, exchanges
)
burned = st.builds(
    Standing,
    st.just(Status.BURNED),
    epochs,
    rounds,
    attempts,
    st.just(NO_KEY),
    st.just(frozenset()),
    exchanges,
)
none = st.builds(
    Standing,
    st.just(Status.NONE),
    st.just(0),
    rounds,
    attempts,
    st.just(NO_KEY),
    st.just(frozenset()),
    exchanges,
)
standings = holding | burned | none


def _decode(body: bytes, sites: int = SITES, round: int = ROUND) -> Standing:
    return Standing.decode(body, sender="bern", sites=sites, round=round)


def _refused(body: bytes, error: type[Exception] = MalformedFrame) -> None:
    with pytest.raises(error) as caught:
        _decode(body)
    assert caught.value.sender == "bern"


@given(standings)
def test_there_and_back(standing: Standing) -> None:
    body = standing.encode(SITES)
    bits = sum(1 << place for place in standing.members).to_bytes(2, "little")
    # GK-2.1
    assert body == (
        struct.pack(">BIIH", standing.status, standing.epoch, standing.began, standing.attempt)
        + standing.key_id
        + standing.exchange
        + bits
    )
    assert len(body) == Standing.length(SITES)
    assert _decode(body) == standing
    assert isinstance(_decode(body).status, Status)
    for sites in (8, 17):
        with pytest.raises(MalformedFrame):
            _decode(body, sites)


@given(standings, st.data())
def test_what_is_accepted_is_what_is_written(standing: Standing, data: st.DataObject) -> None:
    body = bytearray(standing.encode(SITES))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[len(body) - data.draw(st.integers(0, 2)) :]
    try:
        decoded = _decode(bytes(body))
    except (MalformedFrame, BadKey):
        return
    assert decoded.encode(SITES) == body


GOOD = Standing(Status.HOLDS, 5, 6, 2, b"k" * 32, frozenset({0, 10}), EXCHANGE)
LOST = Standing(Status.BURNED, 5, 0, 2, NO_KEY, frozenset(), EXCHANGE)
NEW = Standing(Status.NONE, 0, 0, 0, NO_KEY, frozenset(), EXCHANGE)


def test_what_contradicts_itself() -> None:
    """GK-2.2: name and members exactly with the key, epoch 0 exactly without any."""
    for standing in (
        replace(GOOD, key_id=NO_KEY),
        replace(GOOD, members=frozenset()),
        replace(GOOD, epoch=0),
        replace(GOOD, status=Status.BURNED),
        replace(GOOD, status=Status.NONE),
        replace(LOST, key_id=b"k" * 32),
        replace(LOST, members=frozenset({1})),
        replace(LOST, epoch=0),
        replace(LOST, status=Status.HOLDS),
        replace(LOST, status=Status.NONE),
        replace(NEW, key_id=b"k" * 32),
        replace(NEW, members=frozenset({1})),
        replace(NEW, epoch=1),
        replace(NEW, status=Status.BURNED),
    ):
        _refused(standing.encode(SITES))


def test_no_site_uses_the_numbers_up() -> None:
    """GK-2.5: a single site's word counts up to 1024 a round, that of two sites always."""
    three = {place: replace(LOST, epoch=7) for place in range(3)}
    for epoch in (1025, 2**31, MAX_EPOCH):
        one = {**three, 3: replace(LOST, epoch=epoch)}
        assert task_of(one, 0, 1) == Task(8, 0)
        two = {**one, 4: replace(LOST, epoch=epoch)}
        assert task_of(two, 0, 1) == Task(epoch + 1, 0)
    assert task_of({**three, 3: replace(LOST, epoch=1024)}, 0, 1) == Task(1025, 0)
    # Sites that came to 1025 by that do not fall back.
    after = {place: replace(LOST, epoch=1025) for place in range(3)}
    assert task_of({**after, 3: replace(LOST, epoch=1024)}, 0, 1) == Task(1026, 0)
    # Nobody believed at all: the first epoch.
    assert task_of({0: replace(LOST, epoch=2000), 1: replace(LOST, epoch=3000)}, 0, 1) == Task(1, 0)


def test_the_last_epoch_there_is() -> None:
    """GK-2.2"""
    for standing in (GOOD, LOST):
        assert _decode(replace(standing, epoch=MAX_EPOCH).encode(SITES)).epoch == MAX_EPOCH
        for epoch in (MAX_EPOCH + 1, 2**32 - 1):
            _refused(replace(standing, epoch=epoch).encode(SITES))


def test_no_key_began_in_a_round_to_come() -> None:
    """GK-2.2: it would serve longer than the study says."""
    assert _decode(replace(GOOD, began=ROUND).encode(SITES)).began == ROUND
    for began in (ROUND + 1, 2**32 - 1):
        _refused(replace(GOOD, began=began).encode(SITES))


def test_exchange_keys() -> None:
    """GK-2.3"""
    prime = 2**255 - 19
    for number in (prime, prime + 9, 2**255, 2**256 - 1):
        _refused(replace(GOOD, exchange=number.to_bytes(32, "little")).encode(SITES))
    for number in (0, 1, prime - 1):
        _refused(replace(GOOD, exchange=number.to_bytes(32, "little")).encode(SITES), BadKey)


def test_other_bytes() -> None:
    body = GOOD.encode(SITES)
    for bad in (b"", body[:-1], body + b"\0", b"\3" + body[1:], body[:-1] + b"\x08"):
        _refused(bad)
    with pytest.raises(LocalError):
        replace(GOOD, members=frozenset({SITES})).encode(SITES)


# What follows from all of them -------------------------------------------------------------------


def _all(standing: Standing, places: range | frozenset[int]) -> dict[int, Standing]:
    return dict.fromkeys(places, standing)


MINE = frozenset({0, 3, 10})
HOLD = replace(GOOD, members=MINE, began=5)


def test_a_key_that_goes_on() -> None:
    """GK-2.4"""
    assert task_of(_all(HOLD, MINE), 7, rekey_every=3) is None
    # Attempts and exchange keys are each site's own.
    mixed = {p: replace(HOLD, attempt=p, exchange=bytes([p + 1]) * 32) for p in MINE}
    assert task_of(mixed, 7, rekey_every=3) is None


@pytest.mark.parametrize(
    ("began", "round", "every", "due"),
    [(5, 5, 1, False), (5, 6, 1, True), (5, 7, 3, False), (5, 8, 3, True), (5, 500, 3, True)],
)
def test_a_key_that_is_old(began: int, round: int, every: int, due: bool) -> None:
    """GK-2.4"""
    task = task_of(_all(replace(HOLD, began=began), MINE), round, every)
    assert task == (Task(6, 0) if due else None)


def test_a_new_one_is_due() -> None:
    """GK-2.4, GK-2.5: somebody came, is missing, gave it up, lost it, or has another one."""
    one = _all(HOLD, MINE)
    lost = replace(LOST, epoch=5)
    for standings, task in (
        ({**one, 4: NEW}, Task(6, 0)),
        ({**one, 4: HOLD}, Task(6, 0)),
        ({3: HOLD, 10: HOLD}, Task(6, 3)),
        ({10: HOLD}, Task(6, 10)),
        ({**one, 10: lost}, Task(6, 0)),
        ({**one, 0: NEW}, Task(6, 0)),
        ({**one, 3: replace(HOLD, key_id=b"l" * 32)}, Task(6, 0)),
        ({**one, 3: replace(HOLD, epoch=9)}, Task(10, 0)),
        ({**one, 3: replace(HOLD, began=4)}, Task(6, 0)),
        ({**one, 3: replace(HOLD, members=MINE | {4})}, Task(6, 0)),
        ({**one, 3: replace(LOST, epoch=12)}, Task(13, 0)),
        (_all(lost, MINE), Task(6, 0)),
        (_all(NEW, frozenset({4, 5})), Task(1, 4)),
    ):
        assert task_of(standings, 7, rekey_every=3) == task


@given(st.dictionaries(st.integers(0, SITES - 1), standings, min_size=1))
def test_an_epoch_is_never_used_twice(told: dict[int, Standing]) -> None:
    """GK-2.5; and a key that goes on is one that everybody has said that it holds."""
    task = task_of(told, ROUND, rekey_every=3)
    if task is None:
        assert {s.status for s in told.values()} == {Status.HOLDS}
        assert all(s.members == frozenset(told) for s in told.values())
        assert len({s.key_id for s in told.values()}) == 1
        return
    assert all(task.epoch > standing.epoch for standing in told.values())
    assert task.epoch - 1 in {standing.epoch for standing in told.values()}
    assert task.dealer == min(told)


def test_two_sites_with_one_exchange_key() -> None:
    """GK-2.3: the second one's fault."""
    other = replace(GOOD, exchange=b"\x09" + bytes(31))
    check_distinct({"a": GOOD, "b": other})
    check_distinct({})
    with pytest.raises(BadKey, match="another site's") as caught:
        check_distinct({"a": GOOD, "b": other, "c": replace(LOST, exchange=GOOD.exchange)})
    assert caught.value.sender == "c"
