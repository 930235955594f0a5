"""Secret random words: what all noise and all sampling of patients is made of (DP-2.1).

A ChaCha20 keystream under a key of the operating system. It is used up in order and never handed
out twice: not after a fork, not in a copy, not after the cipher's counter has run round.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from typing import Any, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from numpy.typing import NDArray

from fedbcs_secure.errors import PrivacyError

KEY_BYTES = 32

# The 32-bit block counter that every ChaCha20 agrees on runs round after 2^38 bytes. A segment is
# half of that; the next one has the next nonce under the same key.
_SEGMENT_BYTES = 1 << 37
_SEGMENTS = 1 << 16

_ZEROS = bytes(1 << 18)


class _Process:
    """Counts the forks that led here, since process numbers are used again."""

    forks = 0


def _after_fork_in_child() -> None:
    _Process.forks += 1


os.register_at_fork(after_in_child=_after_fork_in_child)


class SecretStream:
    """Random words from ChaCha20 (RFC 8439) under a secret key, each handed out once.

    Make one with :meth:`fresh`. Calls continue the stream: 3 words and then 5 are the same as 8.
    Threads may share it. A forked child may not: every method raises there, rather than starting
    anew unseen, since a child that should make noise can ask for its own. It cannot be copied or
    pickled. Memory is not wiped, and a snapshot of a whole machine runs it twice: see DP-2.1.

    All methods raise :class:`PrivacyError` for numbers out of range, in a forked child, and after
    2^53 bytes.
    """

    __slots__ = ("_context", "_key", "_left", "_lock", "_owner", "_private", "_segment")

    def __init__(self, key: bytes, *, private: bool = True) -> None:
        if len(key) != KEY_BYTES:
            raise PrivacyError(f"the key of a secret stream is {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._private = private
        self._owner = _here()
        self._lock = threading.Lock()
        self._segment = -1
        self._left = 0
        self._context: CipherContext

    @classmethod
    def fresh(cls) -> SecretStream:
        """A stream under a new key from the operating system's generator."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def for_tests(cls, seed: int) -> SecretStream:
        """NOT PRIVATE: the same stream for the same seed, which anybody can compute."""
        label = f"fedbcs-secure, not private, {seed}"
        return cls(hashlib.sha256(label.encode()).digest(), private=False)

    @property
    def private(self) -> bool:
        """Whether the key was secret: False for streams made for tests."""
        return self._private

    def words64(self, count: int) -> NDArray[np.uint64]:
        """The next ``count`` uniform words, shape (count,)."""
        words = bytearray(8 * _checked(count))
        self._fill(memoryview(words))
        return np.frombuffer(words, "<u8").astype(np.uint64, copy=False)

    def uniform53(self, count: int) -> NDArray[np.float64]:
        """``count`` multiples of 2^-53 in [0, 1), all equally likely, shape (count,)."""
        return (self.words64(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """``count`` integers from 0 to ``bound`` - 1, all exactly equally likely, shape (count,).

        ``bound`` is from 1 to 2^63. Words that would favour small remainders are drawn again.
        """
        if not 1 <= bound <= 1 << 63:
            raise PrivacyError(f"a bound of random integers is from 1 to 2^63, not {bound}")
        words = self.words64(count)
        fair = (1 << 64) - (1 << 64) % bound
        if fair < 1 << 64:
            while len(again := np.flatnonzero(words >= np.uint64(fair))):
                words[again] = self.words64(len(again))
        return (words % np.uint64(bound)).astype(np.int64)

    def bernoulli(self, rate: float, count: int) -> NDArray[np.bool_]:
        """``count`` independent events of probability ``rate`` in [0, 1], shape (count,) bool.

        Exact for every float, however small (DP-2.2): a float is a binary fraction n/2^k, and a
        uniform real is below it when its first differing 64-bit digit is. Further digits are drawn
        only while all were equal. NaN and numbers outside [0, 1] raise :class:`PrivacyError`.
        """
        if not 0 <= rate <= 1:
            raise PrivacyError(f"a probability is from 0 to 1, not {rate}")
        result = np.zeros(_checked(count), np.bool_)
        if rate == 1:
            self.words64(0)  # a forked child is refused all the same
            return ~result
        rest, scale = float(rate).as_integer_ratio()
        open_at = np.arange(count)
        while True:
            digit, rest = divmod(rest << 64, scale)
            words = self.words64(len(open_at))
            result[open_at[words < np.uint64(digit)]] = True
            open_at = open_at[words == np.uint64(digit)]
            if rest == 0 or not len(open_at):
                return result

    def chance(self, rate: float) -> bool:
        """One event of probability ``rate``, as exact as :meth:`bernoulli`."""
        return bool(self.bernoulli(rate, 1)[0])

    def _fill(self, out: memoryview) -> None:
        # DP-2.1: a fork shares the key, so a child would repeat its parent's noise.
        if self._owner != _here():
            raise PrivacyError(
                "this secret stream belongs to the process that made it, and would repeat that"
                " process's noise here; a forked process makes its own with SecretStream.fresh()"
            )
        with self._lock:
            at = 0
            while at < len(out):
                if self._left == 0:
                    self._next_segment()
                step = min(len(out) - at, self._left, len(_ZEROS))
                self._context.update_into(_ZEROS[:step], out[at : at + step])
                self._left -= step
                at += step

    def _next_segment(self) -> None:
        # DP-2.1: never the same nonce and counter twice.
        if self._segment + 1 >= _SEGMENTS:
            raise PrivacyError(
                "this secret stream is used up: make a new one with SecretStream.fresh()"
            )
        self._segment += 1
        nonce = bytes(8) + self._segment.to_bytes(8, "little")
        self._context = Cipher(algorithms.ChaCha20(self._key, nonce), mode=None).encryptor()
        self._left = _SEGMENT_BYTES

    def __repr__(self) -> str:
        return "<SecretStream>" if self._private else "<SecretStream for tests, not private>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        # Copies and pickles would repeat the noise.
        raise PrivacyError(
            "a secret stream is not copied or stored, since the copy would repeat its noise;"
            " make another with SecretStream.fresh()"
        )


def _checked(count: int) -> int:
    if count < 0:
        raise PrivacyError(f"a number of random values is 0 or more, not {count}")
    return count


def _here() -> tuple[int, int]:
    """This process: the second number tells a child from a parent whose number it got."""
    return os.getpid(), _Process.forks
