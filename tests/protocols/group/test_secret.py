from __future__ import annotations

import copy
import hashlib
import json
import pickle
import secrets
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from second_tags import key_name, use_key

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.derive import purpose_key
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.group import NO_KEY, GroupSecret
from fedbcs_protocols.group.secret import key_id

RAW = hashlib.sha256(b"a group's secret").digest()
SECRET = GroupSecret(5, 3, frozenset({0, 2}), RAW)


def test_it_comes_from_the_systems_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """GK-1.1"""
    asked: list[int] = []

    def token_bytes(size: int) -> bytes:
        asked.append(size)
        return RAW

    monkeypatch.setattr(secrets, "token_bytes", token_bytes)
    assert GroupSecret.generate(5, 3, frozenset({0, 2})) == SECRET
    assert asked == [32]


def test_no_two_are_the_same() -> None:
    assert len({GroupSecret.generate(1, 0, frozenset({0})).secret for _ in range(50)}) == 50


@given(st.binary(min_size=32, max_size=32))
def test_its_name(raw: bytes) -> None:
    """GK-1.2"""
    assert key_id(raw) == key_name(raw) == replace(SECRET, secret=raw).key_id
    assert key_id(raw) not in (raw, NO_KEY)


def test_each_use_has_a_key_of_its_own() -> None:
    """GK-1.3, against HMAC written out."""
    binding = Binding(bytes(range(32)), 7, 1, 2, bytes(32))
    told = {
        "study_digest": binding.study_digest.hex(),
        "round": 7,
        "attempt": 1,
        "phase": 2,
        "state_digest": binding.state_digest.hex(),
    }
    for label, more in (("one", ()), ("two", (5,)), ("two", (5, "bern")), ("two", (b"5",))):
        assert purpose_key(RAW, label, binding, *more) == use_key(RAW, label, told, *more)
    keys = {
        purpose_key(RAW, label, replace(binding, **change), *more)
        for label in ("one", "two")
        for more in ((), (5,), (5, "bern"), (5, "berm"))
        for change in (
            {},
            {"round": 8},
            {"attempt": 2},
            {"phase": 1},
            {"state_digest": bytes(range(32))},
            {"study_digest": bytes(32)},
        )
    }
    assert len(keys) == 2 * 4 * 6


@pytest.mark.parametrize(
    ("epoch", "began", "raw"),
    [
        (0, 0, RAW),
        (-1, 0, RAW),
        (2**32, 0, RAW),
        (1, -1, RAW),
        (1, 2**32, RAW),
        (1, 0, RAW[:-1]),
        (1, 0, RAW + b"\0"),
        (1, 0, b""),
    ],
)
def test_misuse(epoch: int, began: int, raw: bytes) -> None:
    with pytest.raises(LocalError) as caught:
        GroupSecret(epoch, began, frozenset({0}), raw)
    assert RAW[:-1].hex() not in str(caught.value)


def test_it_is_not_shown_and_not_pickled() -> None:
    for text in (repr(SECRET), str(SECRET), f"{SECRET}", repr([SECRET]), repr({1: SECRET})):
        assert RAW.hex() not in text
        assert repr(RAW)[2:-1] not in text
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(SECRET, protocol)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(SECRET)
    with pytest.raises(TypeError):
        json.dumps(SECRET)
