from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.binding import COMBINER, Binding, encode_fields, is_name
from fedbcs_protocols.errors import LocalError

digests = st.binary(min_size=32, max_size=32)
bindings = st.builds(
    Binding,
    study_digest=digests,
    round=st.integers(0, 2**32 - 1),
    attempt=st.integers(0, 2**16 - 1),
    phase=st.integers(0, 255),
    state_digest=digests,
)
fields = st.lists(st.one_of(st.text(max_size=4), st.binary(max_size=4), st.integers(0, 2**64 - 1)))


@given(bindings)
def test_encode_decode(binding: Binding) -> None:
    assert len(binding.encode()) == Binding.ENCODED_BYTES == 71
    assert Binding.decode(binding.encode()) == binding


@pytest.mark.parametrize(
    "change",
    [
        {"study_digest": bytes(31)},
        {"state_digest": bytes(33)},
        {"round": -1},
        {"round": 2**32},
        {"attempt": 2**16},
        {"phase": 256},
    ],
)
def test_fields_without_encoding_are_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "study_digest": bytes(32),
        "round": 0,
        "attempt": 0,
        "phase": 0,
        "state_digest": bytes(32),
    }
    Binding(**good)
    with pytest.raises(LocalError):
        Binding(**{**good, **change})


def test_decode_takes_exactly_its_length() -> None:
    with pytest.raises(LocalError, match="71"):
        Binding.decode(bytes(72))


@given(fields, fields)
def test_two_lists_never_share_an_encoding(
    one: list[bytes | str | int], two: list[bytes | str | int]
) -> None:
    same = one == two and [type(x) for x in one] == [type(x) for x in two]
    assert (encode_fields(*one) == encode_fields(*two)) == same


def test_neighbouring_lists_differ() -> None:
    lists: list[list[bytes | str | int]] = [[], [""], ["", ""], ["a", "bc"], ["ab", "c"], ["abc"]]
    lists += [[b"abc"], [7], [bytes(7) + b"\x07"]]
    for one, two in pairwise(lists):
        assert encode_fields(*one) != encode_fields(*two)


def test_numbers_are_bounded() -> None:
    for number in (-1, 2**64):
        with pytest.raises(LocalError):
            encode_fields(number)


def test_names() -> None:
    for name in ("a", "A.b-c_9", "x" * 32, COMBINER):
        assert is_name(name)
    for name in ("", "-a", "@other", "x" * 33, "a b", "a\n", "ä", "@combiner "):
        assert not is_name(name)
