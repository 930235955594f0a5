from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.derive import (
    Engine,
    Keystream,
    PublicStream,
    public_words,
    stream_key,
    use_engine,
)
from fedbcs_protocols.errors import LocalError

BINDING = Binding(bytes(32), 1, 2, 3, bytes(32))
GOOD: dict[str, Any] = {
    "shared_secret": bytes(32),
    "label": "mask",
    "binding": BINDING,
    "names": ("a", "b"),
    "public_keys": (bytes(32), bytes(31) + b"\1"),
}


@pytest.mark.parametrize(
    "change",
    [
        {"shared_secret": bytes(31) + b"\1"},
        {"label": "share"},
        {"binding": replace(BINDING, study_digest=b"\1" * 32)},
        {"binding": replace(BINDING, round=2)},
        {"binding": replace(BINDING, attempt=1)},
        {"binding": replace(BINDING, phase=1)},
        {"binding": replace(BINDING, state_digest=b"\1" * 32)},
        {"names": ("b", "a")},
        {"names": ("a", "c")},
        {"public_keys": (GOOD["public_keys"][1], GOOD["public_keys"][0])},
    ],
)
def test_a_key_depends_on_everything(change: dict[str, Any]) -> None:
    key = stream_key(**GOOD)
    assert len(key) == 32
    assert stream_key(**{**GOOD, **change}) != key


@given(st.lists(st.integers(0, 100_000), max_size=5))
def test_a_public_stream_may_be_read_in_pieces(sizes: list[int]) -> None:
    stream = PublicStream(5, "x")
    pieces = [stream.words32(size) for size in sizes]
    whole = public_words(5, "x", count=sum(sizes))
    assert np.array_equal(np.concatenate([np.empty(0, np.uint32), *pieces]), whole)


def test_half_words_are_the_same_keystream() -> None:
    half, whole = PublicStream(5).words16(100), PublicStream(5).words32(50)
    assert half.dtype == np.uint16
    assert np.array_equal(half[0::2] + (half[1::2].astype(np.uint32) << 16), whole)


def test_seed_and_labels_decide() -> None:
    seen = {
        public_words(seed, *labels, count=4).tobytes()
        for seed in (0, 1, b"", b"\0")
        for labels in ((), ("",), ("a", "b"), ("ab",), (0,), ("0",))
    }
    assert len(seen) == 24


def test_public_words_are_uniform() -> None:
    """Chi-square over the top byte; the seed is fixed, 1e-6 is how rare a bad seed would be."""
    counts = np.bincount(public_words(1, "uniform", count=2**18) >> np.uint32(24), minlength=256)
    statistic = float(((counts - 1024.0) ** 2 / 1024.0).sum())
    # The 1e-6 quantiles of chi-square with 255 degrees of freedom lie at 161.6 and 377.1.
    assert 161.6 < statistic < 377.1


def test_misuse() -> None:
    with pytest.raises(LocalError):
        Keystream(bytes(16))
    with pytest.raises(LocalError):
        Keystream(bytes(32)).next(2**18 + 1)
    with pytest.raises(LocalError):
        PublicStream(0).words32(-1)
    assert "redacted" in repr(Keystream(bytes(32)))
    assert public_words(0, count=0).size == 0


@pytest.fixture
def restored_engine() -> Iterator[None]:
    yield
    use_engine(Engine.CTR)


@pytest.mark.usefixtures("restored_engine")
@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(0, 5000), max_size=12))
def test_both_engines_give_the_same_keystream(key: bytes, sizes: list[int]) -> None:
    streams = []
    for engine in Engine:
        use_engine(engine)
        stream = Keystream(key)
        streams.append(b"".join(bytes(stream.next(size)) for size in sizes))
    plain = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    assert streams == [plain.update(bytes(sum(sizes)))] * len(Engine)


@pytest.mark.usefixtures("restored_engine")
def test_both_engines_agree_past_many_pieces() -> None:
    """Eight MB: the counter's bytes carry over."""
    digests = set()
    for engine in Engine:
        use_engine(engine)
        stream, digest = Keystream(bytes(range(32))), hashlib.sha256()
        for _ in range(32):
            digest.update(stream.next(1 << 18))
        digests.add(digest.hexdigest())
    assert len(digests) == 1
