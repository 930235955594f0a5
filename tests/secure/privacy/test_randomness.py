"""Secret streams: never the same words twice, and events of exactly their probability."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy import randomness
from fedbcs_secure.privacy.randomness import KEY_BYTES, SecretStream


class Scripted(SecretStream):
    """Hands out the words it is given."""

    def __init__(self, words: list[int]) -> None:
        super().__init__(bytes(KEY_BYTES), private=False)
        self.words = list(words)

    def words64(self, count: int) -> NDArray[np.uint64]:
        head, self.words = self.words[:count], self.words[count:]
        return np.array(head, np.uint64)


def test_words_are_chacha20s() -> None:
    key = bytes(range(32))
    cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    expected = np.frombuffer(cipher.update(bytes(8 * 1000)), "<u8")
    assert np.array_equal(SecretStream(key).words64(1000), expected)


def test_first_block_is_the_published_one() -> None:
    """RFC 8439, appendix A.1, test vector 1: key, counter and nonce of zeros."""
    first = SecretStream(bytes(32)).words64(8).astype("<u8").tobytes().hex()
    assert first == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )


@given(st.lists(st.integers(0, 50_000), max_size=5))
def test_calls_continue_the_stream(counts: list[int]) -> None:
    stream = SecretStream.for_tests(1)
    parts = np.concatenate([np.empty(0, np.uint64), *map(stream.words64, counts)])
    assert np.array_equal(parts, SecretStream.for_tests(1).words64(sum(counts)))


def test_streams_differ() -> None:
    words = [SecretStream.fresh().words64(4), SecretStream.fresh().words64(4)]
    words += [SecretStream.for_tests(seed).words64(4) for seed in (0, 1)]
    assert len(np.unique(np.concatenate(words))) == 16
    assert SecretStream.fresh().private
    assert not SecretStream.for_tests(0).private


def test_segments_do_not_repeat_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "_SEGMENT_BYTES", 64)
    monkeypatch.setattr(randomness, "_SEGMENTS", 4)
    stream = SecretStream.for_tests(1)
    words = np.concatenate([stream.words64(3), stream.words64(29)])
    assert len(np.unique(words)) == 32
    assert np.array_equal(words[:8], SecretStream.for_tests(1).words64(8))
    for _ in range(2):
        with pytest.raises(PrivacyError, match="used up"):
            stream.words64(1)


def test_segments_end_before_the_counter_runs_round() -> None:
    assert randomness._SEGMENT_BYTES // 64 < 2**32


def test_threads_share_without_repeating() -> None:
    stream = SecretStream.for_tests(1)
    found: list[NDArray[np.uint64]] = []
    threads = [
        threading.Thread(target=lambda: found.append(stream.words64(100_003))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(np.unique(np.concatenate(found))) == 4 * 100_003


_FORK = """
import os, sys
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.privacy.randomness import SecretStream

stream = SecretStream.{maker}
stream.words64(1)
child = os.fork()
if child == 0:
    for use in (stream.words64, stream.uniform53, lambda n: stream.bernoulli(0.5, n)):
        try:
            use(1)
        except PrivacyError as error:
            assert "process that made it" in str(error)
        else:
            os._exit(1)
    SecretStream.fresh().words64(1)
    # Even with the parent's process number, which is free once the parent is gone.
    os.getpid = lambda: {parent}
    try:
        stream.words64(1)
    except PrivacyError:
        os._exit(0)
    os._exit(2)
stream.words64(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("maker", ["fresh()", "for_tests(1)"])
def test_a_forked_child_is_refused(maker: str) -> None:
    source = _FORK.format(maker=maker, parent="stream._owner[0]")
    result = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_copies_and_nothing_shown() -> None:
    key = b"0123456789abcdef0123456789abcdef"
    stream = SecretStream(key)
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(PrivacyError, match="not copied or stored") as caught:
            act(stream)
        assert "0123" not in str(caught.value)
    assert repr(stream) == str(stream) == "<SecretStream>"
    assert "not private" in repr(SecretStream.for_tests(1))
    assert not hasattr(stream, "__dict__")


def test_uniform53_is_the_top_of_a_word() -> None:
    values = Scripted([0, 2**64 - 1, 2**63, 2**11 - 1]).uniform53(4)
    assert values.tolist() == [0.0, 1 - 2.0**-53, 0.5, 0.0]


@given(
    st.sampled_from([1, 2, 3, 10, 2**32 + 1, 2**62 + 1, 2**63 - 1, 2**63]),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(2**64 - 3, 2**64 - 1), min_size=1),
)
def test_below_is_fair(bound: int, words: list[int]) -> None:
    """Words are kept up to the last whole multiple of the bound, so remainders are alike."""
    last = 2**64 // bound * bound
    kept = [word for word in words if word < last]
    # Refused words are replaced in their places by those that come next.
    script = [*words, *([7] * len(words))]
    found = Scripted(script).below(bound, len(words)).tolist()
    refused = len(words) - len(kept)
    assert sorted(found) == sorted([word % bound for word in kept] + [7 % bound] * refused)


def test_below_covers_its_range() -> None:
    counts = np.bincount(SecretStream.for_tests(3).below(7, 70_000), minlength=7)
    assert len(counts) == 7
    assert np.all(np.abs(counts - 10_000) < 5 * (10_000 * 6 / 7) ** 0.5)
    for bound in (0, -1, 2**63 + 1):
        with pytest.raises(PrivacyError, match="from 1 to"):
            SecretStream.for_tests(3).below(bound, 1)


@given(
    st.floats(0, 1, exclude_max=True),
    st.lists(st.integers(0, 2**64 - 1), min_size=20, max_size=20),
    st.integers(0, 18),
    st.integers(-1, 1),
)
def test_bernoulli_compares_exactly(rate: float, noise: list[int], same: int, step: int) -> None:
    """Against the comparison of rationals, with words that agree with the rate for a while."""
    numerator, denominator = rate.as_integer_ratio()
    digits = [(numerator << 64 * (i + 1)) // denominator % 2**64 for i in range(20)]
    words = [*digits[:same], (digits[same] + step) % 2**64, *noise[same + 1 :]]
    uniform = sum(Fraction(word, 2 ** (64 * (i + 1))) for i, word in enumerate(words))
    assert Scripted(words).chance(rate) is bool(uniform < Fraction(rate))


@pytest.mark.parametrize("rate", [0.0, 5e-324, 2.0**-64, 0.2, 0.5, 1 - 2.0**-53, 1.0])
def test_bernoulli_rates(rate: float) -> None:
    count = 200_000
    found = int(SecretStream.for_tests(2).bernoulli(rate, count).sum())
    # Bernstein at six standard deviations; the stream is fixed.
    assert abs(found - rate * count) <= 6 * (rate * (1 - rate) * count) ** 0.5
    assert len(SecretStream.for_tests(2).bernoulli(rate, 0)) == 0


@pytest.mark.parametrize("rate", [-1e-300, 1.0000001, float("nan"), float("inf")])
def test_bernoulli_refuses(rate: float) -> None:
    with pytest.raises(PrivacyError, match="from 0 to 1"):
        SecretStream.for_tests(1).bernoulli(rate, 1)


def test_lengths_are_checked() -> None:
    stream = SecretStream.for_tests(1)
    for use in (stream.words64, stream.uniform53, lambda n: stream.bernoulli(0.5, n)):
        with pytest.raises(PrivacyError, match="0 or more"):
            use(-1)
    with pytest.raises(PrivacyError, match="32 bytes"):
        SecretStream(b"short")
