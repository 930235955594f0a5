"""Common polynomials and the secrets of uploads (CK-3.2, CK-3.3)."""

from __future__ import annotations

import hashlib
import pickle
import struct
from dataclasses import replace

import ckks_slowly as slowly
import numpy as np
import pytest
from ckks_world import SECRET, binding

from fedbcs_protocols import derive
from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks import samples
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.ckks.samples import (
    SALT_BYTES,
    CommonPolynomials,
    NoiseStream,
    Small,
    upload_secret,
)

SALT = hashlib.sha256(b"a salt").digest()
OTHERS = {
    "study": replace(binding(), study_digest=bytes(32)),
    "round": replace(binding(), round=1),
    "attempt": replace(binding(), attempt=1),
    "phase": replace(binding(), phase=0),
    "state": replace(binding(), state_digest=bytes(32)),
}
"""Bindings that differ in one field each."""

# Common polynomials ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [binding(), binding(7, 2), *OTHERS.values()])
def test_common_polynomials_are_those_of_the_page(place: Binding) -> None:
    """CK-3.2"""
    assert CommonPolynomials(place).next(3).tolist() == slowly.common_polynomials(place, 3)


@pytest.mark.parametrize("pieces", [(8, 1), (1,) * 9, (4, 4, 1), (3, 5, 1), (2, 7)])
def test_common_polynomials_in_other_pieces(pieces: tuple[int, ...]) -> None:
    """CK-3.2: it does not matter how many are asked for at once."""
    stream = CommonPolynomials(binding())
    got = np.concatenate([stream.next(count) for count in pieces])
    assert got.tolist() == slowly.common_polynomials(binding(), 9)


def test_each_sum_has_its_own() -> None:
    """CK-3.2: every field of the binding counts."""
    all_of_them = [CommonPolynomials(b).next(1) for b in (binding(), *OTHERS.values())]
    seen = {words.tobytes() for words in all_of_them}
    assert len(seen) == 6
    # Not even one number is the same.
    assert len(np.unique(all_of_them)) == 6 * DEGREE


def test_common_polynomials_are_uniform() -> None:
    """A chi-square over 64 equal parts of the numbers below q, false alarm 10^-6."""
    numbers = CommonPolynomials(binding()).next(8).reshape(-1)
    assert int(numbers.max()) < PRIME
    counts = np.bincount((numbers // np.uint64(PRIME // 64 + 1)).astype(int), minlength=64)
    expected = numbers.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 131


def test_both_engines_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites choose theirs by what is faster on their processors."""
    secret = upload_secret(SECRET, 1, binding(), "site0", SALT)
    common = CommonPolynomials(binding()).next(2)
    noise = NoiseStream(SALT).next(2)
    monkeypatch.setattr(derive._Chosen, "engine", derive.Engine.GCM)
    assert np.array_equal(upload_secret(SECRET, 1, binding(), "site0", SALT), secret)
    assert np.array_equal(CommonPolynomials(binding()).next(2), common)
    assert np.array_equal(NoiseStream(SALT).next(2), noise)


class Told:
    """A keystream of words that it is told."""

    words: tuple[int, ...] = ()

    def __init__(self, key: bytes) -> None:
        self._left = b"".join(struct.pack("<Q", word) for word in self.words)

    def next(self, size: int) -> memoryview:
        out, self._left = self._left[:size], self._left[size:]
        assert len(out) == size
        return memoryview(out)


@pytest.mark.parametrize("pieces", [(4,), (1, 1, 1, 1), (1, 3), (3, 1)])
def test_numbers_from_q_on_are_left_out(
    pieces: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CK-3.2: wherever they stand; the upper four bits of a word do not count."""
    random = np.random.default_rng(5)
    words = random.integers(0, 2**64, 8 * DEGREE, dtype=np.uint64).tolist()
    # At the start, at the end of a polynomial, two and many in turn, and what is just allowed.
    over = {0: PRIME, DEGREE - 1: 2**60 - 1, DEGREE: PRIME + 1, 2 * DEGREE: PRIME}
    over |= dict.fromkeys(range(2 * DEGREE + 100, 3 * DEGREE, 2), 2**60 - 1)
    for place, number in over.items():
        words[place] = number + (place % 16 << 60)
    words[1], words[2], words[3] = PRIME - 1, (15 << 60) + PRIME - 1, 15 << 60
    monkeypatch.setattr(Told, "words", tuple(words))
    monkeypatch.setattr(samples, "Keystream", Told)
    kept = [w % 2**60 for at, w in enumerate(words) if at not in over]
    assert max(kept) < PRIME
    assert kept[:3] == [PRIME - 1, PRIME - 1, 0]
    stream = CommonPolynomials(binding())
    got = np.concatenate([stream.next(count) for count in pieces])
    assert got.reshape(-1).tolist() == kept[: 4 * DEGREE]


# Secrets of uploads ------------------------------------------------------------------------------


def secret(
    group: bytes = SECRET,
    epoch: int = 1,
    place: Binding = binding(),  # noqa: B008
    name: str = "site0",
    salt: bytes = SALT,
) -> Small:
    return upload_secret(group, epoch, place, name, salt)


@pytest.mark.parametrize("epoch", [1, 2, 300])
@pytest.mark.parametrize("name", ["site0", "a-site-with-a-longer-name"])
def test_secrets_are_those_of_the_page(epoch: int, name: str) -> None:
    """CK-3.3"""
    for place in (binding(), binding(3, 1)):
        expected = slowly.upload_secret(SECRET, epoch, place, name, SALT)
        assert secret(epoch=epoch, place=place, name=name).tolist() == expected


def changes() -> dict[str, Small]:
    """Secrets that differ from the first in one input each."""
    out = {f"another {field}": secret(place=place) for field, place in OTHERS.items()}
    return out | {
        "another group": secret(group=bytes(32)),
        "another epoch": secret(epoch=2),
        "another name": secret(name="site1"),
        "another salt": secret(salt=bytes(SALT_BYTES)),
        "a bit of the salt": secret(salt=bytes([SALT[0] ^ 1]) + SALT[1:]),
        "the last bit of the salt": secret(salt=SALT[:-1] + bytes([SALT[-1] ^ 128])),
    }


def test_every_input_counts() -> None:
    """CK-3.3: with another one, a third of the coefficients are equal, as by chance."""
    all_of_them = {"the first": secret(), **changes()}
    assert len(all_of_them) == 12
    names = list(all_of_them)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            equal = int((all_of_them[one] == all_of_them[other]).sum())
            # Six standard deviations.
            assert abs(equal - DEGREE / 3) < 6 * (DEGREE * 2 / 9) ** 0.5, (one, other)


def test_the_same_inputs_give_the_same_secret() -> None:
    """CK-3.3: all sites derive it."""
    assert np.array_equal(secret(), secret())
    assert SALT_BYTES == 32


def test_secrets_are_ternary_and_even() -> None:
    """CK-1.1: a chi-square of 16 secrets' coefficients, and of each with its neighbour; 10^-6."""
    drawn = np.array([secret(epoch=epoch) for epoch in range(1, 17)])
    assert drawn.shape == (16, DEGREE)
    assert drawn.dtype == np.int64
    assert set(np.unique(drawn)) == {-1, 0, 1}
    counts = np.bincount(drawn.reshape(-1) + 1)
    assert ((counts - drawn.size / 3) ** 2 / (drawn.size / 3)).sum() < 27.6
    pairs = (drawn[:, ::2] + 1) * 3 + drawn[:, 1::2] + 1
    counts = np.bincount(pairs.reshape(-1), minlength=9)
    assert ((counts - pairs.size / 9) ** 2 / (pairs.size / 9)).sum() < 42.7


def test_a_secret_from_a_keystream_with_many_threes(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-3.3: it reads on as long as it needs."""
    rows = [0xFF] * 2048 + [0b11_10_01_00] * 1000 + [0b00_11_11_01] * 3000
    monkeypatch.setattr(Told, "words", slowly.words(bytes(rows)))
    monkeypatch.setattr(samples, "Keystream", Told)
    # From the lowest bits on: 0, 1, 2 less 1; then 1, -, -, 0 less 1.
    expected = [-1, 0, 1] * 1000 + [0, -1] * 3000
    assert secret().tolist() == expected[:DEGREE]


# Nothing leaks -----------------------------------------------------------------------------------


def test_a_noise_stream_says_nothing_of_itself() -> None:
    stream = NoiseStream(SALT)
    for text in (repr(stream), str(stream)):
        assert "redacted" in text
        assert SALT.hex()[:8] not in text
    with pytest.raises(TypeError):
        pickle.dumps(stream)
