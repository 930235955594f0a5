from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import LocalError, Refused
from fedbcs_protocols.group import MAX_REFUSALS, NO_KEY, GroupSecret, KeyRing, MemoryKeys, Status
from fedbcs_protocols.group.keyring import MAX_HELD

STUDY = hashlib.sha256(b"study").digest()
SITES = 11
ALL = frozenset(range(SITES))
EMPTY = KeyRing(STUDY, SITES)


def secret(epoch: int, label: str = "", began: int = 0) -> GroupSecret:
    raw = hashlib.sha256(f"secret {epoch} {label}".encode()).digest()
    return GroupSecret(epoch, began, ALL, raw)


def at(round: int, attempt: int = 0) -> Binding:
    return Binding(STUDY, round, attempt, 1, bytes(32))


def with_epochs(*epochs: int) -> KeyRing:
    ring = EMPTY
    for epoch in epochs:
        ring = ring.taking(secret(epoch))
    return ring


def refused(call: Callable[[], Any], match: str) -> None:
    with pytest.raises(Refused, match=match):
        call()


# Taking (GK-3.6) ---------------------------------------------------------------------------------


def test_taking() -> None:
    ring = with_epochs(1, 2, 7)
    assert (ring.epoch, ring.burned) == (7, False)
    assert ring.current == secret(7)
    assert ring.secrets == (secret(1), secret(2), secret(7))
    assert ring.taking(secret(7)) == ring
    for s in ring.secrets:
        assert ring.find(s.key_id) == s
    assert ring.find(NO_KEY) is None
    assert EMPTY.current is None
    assert EMPTY.find(secret(1).key_id) is None


def test_epochs_only_rise() -> None:
    """GK-3.6"""
    ring = with_epochs(3)
    refused(lambda: ring.taking(secret(2)), "epoch 2 of the group's key is over here")
    refused(lambda: ring.taking(secret(3, "another")), "another key here")
    gone = ring.refusing(secret(3).key_id)
    refused(lambda: gone.taking(secret(3)), "is over here")
    refused(lambda: gone.taking(secret(3, "another")), "is over here")
    assert gone.taking(secret(4)).current == secret(4)


def test_only_the_last_are_kept() -> None:
    """GK-5.1"""
    ring = with_epochs(*range(1, 31))
    assert [s.epoch for s in ring.secrets] == list(range(13, 31))
    assert len(ring.secrets) == MAX_HELD == 18


# Uploads and aggregates (GK-5.2, GK-6.1) ---------------------------------------------------------


def test_uploads_follow_each_other() -> None:
    """GK-5.2: for no (round, attempt) twice, nor for an earlier one."""
    ring = EMPTY.uploading(at(0))
    assert ring.uploaded == (0, 1)
    refused(lambda: ring.uploading(at(0)), "not after")
    ring = ring.uploading(at(0, 5)).uploading(at(2, 3))
    for earlier in (at(2, 3), at(2, 2), at(2), at(1, 9), at(0, 6)):
        refused(lambda binding=earlier: ring.uploading(binding), "not after")
    assert ring.uploading(at(2, 4)).uploaded == (2, 5)
    assert ring.uploading(at(3)).uploaded == (3, 1)


def test_sixteen_attempts() -> None:
    """GK-5.2"""
    ring = EMPTY
    for attempt in range(16):
        ring = ring.uploading(at(4, attempt))
    for attempt in (16, 17, 65535):
        refused(lambda a=attempt: ring.uploading(at(4, a)), "more than 16 attempts")
        refused(lambda a=attempt: EMPTY.uploading(at(9, a)), "more than 16 attempts")
    assert KeyRing.decode(ring.encode()) == ring


A, B = b"a" * 32, b"b" * 32


def test_one_aggregate_an_attempt() -> None:
    """GK-6.1"""
    ring = EMPTY.opening(at(4, 2), A)
    assert (ring.opened, ring.read) == ((4, 3), A)
    assert ring.opening(at(4, 2), A) == ring
    refused(lambda: ring.opening(at(4, 2), B), "reads one for each attempt")
    for earlier in (at(4, 1), at(4), at(3, 9), at(0)):
        refused(lambda binding=earlier: ring.opening(binding, A), "round 4, attempt 2")
    later = ring.opening(at(4, 3), B)
    refused(lambda: later.opening(at(4, 2), A), "reads one")
    assert later.opening(at(5), A).opened == (5, 1)


def test_no_upload_for_what_was_read() -> None:
    """GK-6.1: else a sum that was seen would be followed by another over the same state."""
    ring = EMPTY.uploading(at(4)).opening(at(4, 1), A)
    for binding in (at(4), at(4, 1)):
        refused(lambda b=binding: ring.uploading(b), "has sent or read already")
    assert ring.uploading(at(4, 2)).uploaded == (4, 3)


# Refusals (GK-6) ---------------------------------------------------------------------------------


def test_a_refused_sum_burns_its_key() -> None:
    """GK-6.2"""
    ring = with_epochs(1, 2, 3)
    gone = ring.refusing(secret(3).key_id)
    assert (gone.burned, gone.current, gone.refusals, gone.epoch) == (True, None, 1, 3)
    assert gone.find(secret(3).key_id) is None
    assert gone.secrets == (secret(1), secret(2))
    # Of an older key only that one is gone.
    older = ring.refusing(secret(1).key_id)
    assert (older.burned, older.current, older.refusals) == (False, secret(3), 1)
    assert older.secrets == (secret(2), secret(3))
    # A key that the site does not have: the refusal counts.
    assert replace(ring.refusing(B), refusals=0, given_up=()) == ring
    assert ring.refusing(B).refusals == 1
    twice = gone.refusing(secret(3).key_id)
    assert (twice.burned, twice.refusals) == (True, 2)


def test_three_refusals() -> None:
    """GK-6.3: nothing is sent and nothing is read, until a person has looked."""
    ring = with_epochs(1)
    assert MAX_REFUSALS == 3
    for count in range(3):
        ring.check_refusals()
        assert ring.uploading(at(1)).opening(at(1), A).refusals == count
        ring = ring.refusing(B)
    for call in (
        ring.check_refusals,
        lambda: ring.uploading(at(1)),
        lambda: ring.opening(at(1), A),
        lambda: ring.taking(secret(2)).check_refusals(),
        lambda: KeyRing.decode(ring.encode()).check_refusals(),
    ):
        refused(call, "refused 3 sums.*until a person has looked")
    approved = ring.approved()
    approved.check_refusals()
    assert approved == replace(ring, refusals=0)


def test_the_count_does_not_wrap() -> None:
    ring = EMPTY
    for _ in range(300):
        ring = ring.refusing(B)
    assert ring.refusals == 255
    assert KeyRing.decode(ring.encode()) == ring


# What a site that was away is given (GK-4.4) -----------------------------------------------------


def test_joining() -> None:
    ring = with_epochs(1, 2).joining((secret(2), secret(3), secret(5)), 5)
    assert (ring.epoch, ring.burned, ring.current) == (5, False, secret(5))
    assert [s.epoch for s in ring.secrets] == [1, 2, 3, 5]
    assert EMPTY.joining((), 0) == EMPTY
    # It knows of an epoch whose key it was not given.
    behind = EMPTY.joining((secret(3),), 4)
    assert (behind.epoch, behind.current) == (4, None)
    refused(lambda: behind.taking(secret(3)), "is over here")
    assert len(EMPTY.joining(tuple(secret(e) for e in range(1, 30)), 29).secrets) == MAX_HELD


def test_joining_takes_nothing_back() -> None:
    """GK-4.4: epochs only rise, what was given up stays so; what is given takes a key's place."""
    ring = with_epochs(1, 4)
    refused(lambda: ring.joining((secret(3),), 3), "of epoch 3, this site is at 4")
    # As when this site dealt a key that nobody took.
    other = secret(4, "another")
    assert ring.joining((other,), 4).current == other
    assert ring.joining((secret(1, "another"), secret(5)), 5).find(secret(1).key_id) is None
    refused(lambda: EMPTY.joining((secret(1), secret(1, "b")), 1), "two keys of one epoch")
    gone = ring.refusing(secret(4).key_id)
    again = gone.joining((secret(4),), 4)
    assert (again.burned, again.current, again.find(secret(4).key_id)) == (True, None, None)
    assert again.refusals == 1
    on = gone.joining((secret(5),), 5)
    assert (on.burned, on.current) == (False, secret(5))


# Standing (GK-2) ---------------------------------------------------------------------------------


def test_standing() -> None:
    exchange = b"\x09" + bytes(31)
    nothing = EMPTY.standing(exchange, 4)
    assert (nothing.status, nothing.epoch, nothing.key_id) == (Status.NONE, 0, NO_KEY)
    held = EMPTY.taking(secret(3, began=2)).standing(exchange, 4)
    assert (held.status, held.epoch, held.began) == (Status.HOLDS, 3, 2)
    assert (held.key_id, held.members) == (secret(3).key_id, ALL)
    assert (held.exchange, held.attempt) == (exchange, 0)
    gone = EMPTY.taking(secret(3, began=2)).refusing(secret(3).key_id).standing(exchange, 4)
    assert (gone.status, gone.epoch, gone.key_id) == (Status.BURNED, 3, NO_KEY)
    assert gone.members == frozenset()
    # A key that was lost is one that nobody should go on with.
    lost = EMPTY.joining((secret(3),), 4).standing(exchange, 4)
    assert (lost.status, lost.epoch, lost.key_id) == (Status.BURNED, 4, NO_KEY)
    ring = EMPTY.uploading(at(4, 6))
    assert [ring.standing(exchange, r).attempt for r in (3, 4, 5)] == [0, 7, 0]


# Bytes -------------------------------------------------------------------------------------------

digests = st.binary(min_size=32, max_size=32)
steps = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))


@st.composite
def rings(draw: st.DrawFn) -> KeyRing:
    epochs = draw(st.lists(st.integers(1, 2**32 - 1), unique=True, max_size=MAX_HELD).map(sorted))
    held = tuple(
        GroupSecret(
            epoch,
            draw(st.integers(0, 2**32 - 1)),
            draw(st.frozensets(st.integers(0, SITES - 1))),
            draw(digests),
        )
        for epoch in epochs
    )
    return KeyRing(
        draw(digests),
        SITES,
        draw(st.integers(max(epochs, default=0), 2**32 - 1)),
        draw(st.booleans()),
        held,
        draw(steps),
        draw(steps),
        draw(digests),
        draw(st.integers(0, 255)),
    )


@given(rings())
def test_there_and_back(ring: KeyRing) -> None:
    data = ring.encode()
    assert KeyRing.decode(data) == ring
    assert KeyRing.decode(data).encode() == data
    assert data.endswith(hashlib.sha256(data[:-32]).digest())


FULL = replace(
    with_epochs(*range(1, 19)), uploaded=(3, 2), opened=(3, 1), read=A, refusals=2
).encode()


@given(st.integers(0, len(FULL) - 1), st.integers(1, 255))
def test_a_damaged_byte(position: int, flip: int) -> None:
    damaged = bytearray(FULL)
    damaged[position] ^= flip
    with pytest.raises(LocalError, match="no key ring, or a damaged one"):
        KeyRing.decode(bytes(damaged))


def test_other_lengths() -> None:
    for end in range(len(FULL)):
        with pytest.raises(LocalError):
            KeyRing.decode(FULL[:end])
    with pytest.raises(LocalError):
        KeyRing.decode(FULL + b"\0")


def with_digest(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_what_no_version_writes() -> None:
    """A file whose digest is right, but that this version did not write."""
    body = FULL[:-32]
    head = len(EMPTY.encode()) - 32
    width = (len(body) - head) // 18
    first, second = body[head : head + width], body[head + width : head + 2 * width]
    swapped = body[:head] + second + first + body[head + 2 * width :]
    twice = body[:head] + first + first + body[head + 2 * width :]
    for other in (
        b"FBKX" + body[4:],
        body[:4] + b"\2" + body[5:],
        body[:43] + b"\2" + body[44:],
        body[:44] + b"\x13" + body[45:] + first,
        body[:44] + b"\x11" + body[45:],
        body + b"\0",
        body[:-1],
        body[:39] + b"\0\0\0\x11" + body[43:],
        swapped,
        twice,
    ):
        with pytest.raises(LocalError):
            KeyRing.decode(with_digest(other))
    assert KeyRing.decode(with_digest(body)).encode() == FULL


def test_the_ring_is_not_shown() -> None:
    ring = with_epochs(1, 2)
    for text in (repr(ring), str(ring)):
        for s in ring.secrets:
            assert s.secret.hex() not in text
            assert repr(s.secret)[2:-1] not in text


def test_memory_keys() -> None:
    keeper = MemoryKeys()
    assert keeper.read() is None
    keeper.write(EMPTY)
    keeper.write(with_epochs(1))
    assert keeper.read() == with_epochs(1)
    assert secret(1).secret.hex() not in repr(keeper)


# Whatever comes ----------------------------------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """Frames in any order: epochs and steps only rise, and a burned key is never used again."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = EMPTY
        self.burned: set[bytes] = set()
        self.uploads: list[tuple[int, int]] = []
        self.read: dict[tuple[int, int], bytes] = {}

    def _moved(self, move: Callable[[], KeyRing]) -> bool:
        before = self.ring
        try:
            self.ring = move()
        except Refused:
            return False
        assert self.ring.epoch >= before.epoch
        assert self.ring.uploaded >= before.uploaded
        assert self.ring.opened >= before.opened
        return True

    @rule(epoch=st.integers(1, 6), label=st.sampled_from(["", "x"]))
    def take(self, epoch: int, label: str) -> None:
        self._moved(lambda: self.ring.taking(secret(epoch, label)))

    @rule(epochs=st.sets(st.integers(1, 6)), above=st.integers(0, 2))
    def join(self, epochs: set[int], above: int) -> None:
        given_ = tuple(secret(epoch) for epoch in sorted(epochs))
        self._moved(lambda: self.ring.joining(given_, max(epochs, default=0) + above))

    @rule(round=st.integers(0, 3), attempt=st.integers(0, 17))
    def upload(self, round: int, attempt: int) -> None:
        if self._moved(lambda: self.ring.uploading(at(round, attempt))):
            assert (round, attempt) > max(self.uploads, default=(-1, 0))
            self.uploads.append((round, attempt))

    @rule(round=st.integers(0, 3), attempt=st.integers(0, 17), seen=st.sampled_from([A, B]))
    def open(self, round: int, attempt: int, seen: bytes) -> None:
        if self._moved(lambda: self.ring.opening(at(round, attempt), seen)):
            assert self.read.setdefault((round, attempt), seen) == seen

    @rule(epoch=st.integers(1, 6))
    def refuse(self, epoch: int) -> None:
        name = secret(epoch).key_id
        current = self.ring.current
        self._moved(lambda: self.ring.refusing(name))
        if current and current.key_id == name:
            self.burned.add(name)

    @rule()
    def approve(self) -> None:
        self.ring = self.ring.approved()

    @invariant()
    def a_burned_key_is_not_used(self) -> None:
        current = self.ring.current
        assert current is None or current.key_id not in self.burned
        assert len(self.ring.secrets) <= MAX_HELD
        assert KeyRing.decode(self.ring.encode()) == self.ring
        standing = self.ring.standing(b"\x09" + bytes(31), 2)
        assert (standing.status is Status.HOLDS) == (current is not None)


TestAnyHistory = AnyHistory.TestCase
