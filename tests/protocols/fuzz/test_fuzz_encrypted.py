"""Genuine ciphertexts changed all over; ``test_fuzz_corpus.py`` has the targets' own corpus."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import encrypted
import harness
import pytest
from encrypted import AGGREGATE, CIPHERTEXTS, ENCRYPTED, FRESH, WORLD
from harness import Target
from targets import TARGETS

from fedbcs_protocols.ckks.cipher import POLYNOMIAL_BYTES, unpack_words
from fedbcs_protocols.ckks.messages import Agreement, Announced, Encrypted, decode_sum
from fedbcs_protocols.errors import BadCiphertext, PeerError

CIPHERTEXT_INPUTS = 600
SLACK_BYTES = 64 << 10


def scripts(most: int) -> Iterator[bytes]:
    """Inputs without a plan, the same in every run."""
    choose = random.Random(1)
    for _ in range(most):
        yield bytes([choose.randrange(4)]) + choose.randbytes(choose.randrange(64))


@pytest.mark.parametrize("target", CIPHERTEXTS, ids=lambda target: target.name)
def test_ciphertexts(target: Target) -> None:
    """Whatever comes, SEAL reads it without a crash, and nothing but the named errors comes out."""
    taken = sum(harness.check(target, data) for data in target.seeds)
    assert 2 <= taken < len(target.seeds)
    for data in scripts(CIPHERTEXT_INPUTS):
        harness.check(target, data)


def test_genuine_input_is_taken() -> None:
    """Else the tests above would say nothing."""
    for target in ENCRYPTED:
        assert harness.check(target, target.seeds[0])
    for target in CIPHERTEXTS:
        assert harness.check(target, b"\0")


@pytest.mark.parametrize("step", [37, 61])
def test_every_part_of_a_ciphertext(step: int) -> None:
    """A bit flipped here and there: it is loaded as another ciphertext, or refused."""
    context = WORLD.context
    for genuine, load in ((FRESH, context.fresh), (AGGREGATE, context.both)):
        before = context.sum_bytes(load(genuine, "x"))
        for position in range(step, len(genuine), 61 * step):
            data = bytearray(genuine)
            data[position] ^= 1 << position % 8
            try:
                assert context.sum_bytes(load(data, "x")) != before
            except BadCiphertext:
                with pytest.raises(BadCiphertext):
                    _words_of(bytes(data))


def _words_of(data: bytes) -> None:
    for end in range(len(data), POLYNOMIAL_BYTES - 1, -POLYNOMIAL_BYTES):
        unpack_words(data[end - POLYNOMIAL_BYTES : end], "x")


@pytest.mark.parametrize("genuine", [FRESH, AGGREGATE], ids=["fresh", "sum"])
def test_every_length(genuine: bytes) -> None:
    load = WORLD.context.fresh if genuine is FRESH else WORLD.context.both
    for size in (*range(130), *range(130, len(genuine), 977), len(genuine) - 1):
        with pytest.raises(BadCiphertext):
            load(genuine[:size], "x")
    for more in (1, 8, 64, len(genuine)):
        with pytest.raises(BadCiphertext):
            load(genuine + bytes(more), "x")


def test_no_body_makes_a_decoder_allocate_much() -> None:
    """At most four times the body and 64 KiB, whatever it claims."""
    setting = WORLD.setting
    head = WORLD.upload[:64]
    readers = (
        (lambda b: Encrypted.decode(b, sender="x", setting=setting), head + b"\xff" * 4),
        (lambda b: Encrypted.decode(b, sender="x", setting=setting), WORLD.upload),
        (lambda b: Announced.decode(b, sender="x", sites=12), b"\xff" * 34),
        (lambda b: Agreement.decode_from(b, sender="x", sites=12), b"\xff" * 836),
        (lambda b: decode_sum(b, sender="x", setting=setting), WORLD.told),
        (lambda b: decode_sum(b, sender="x", setting=setting), WORLD.told[:400]),
        (lambda b: unpack_words(b, "x"), AGGREGATE[:POLYNOMIAL_BYTES]),
        (lambda b: unpack_words(b, "x"), b"\xff" * POLYNOMIAL_BYTES),
    )
    for read, body in readers:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            with suppress(PeerError):
                read(body)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before <= 4 * len(body) + SLACK_BYTES


def test_the_targets_can_fail() -> None:
    def forgiving(data: bytes) -> None:
        body = encrypted._words(data)
        harness.same(bytes(len(body)), body)

    target = harness.Target("forgiving", forgiving, (BadCiphertext,), ())
    with pytest.raises(harness.Finding):
        harness.check(target, b"\0")


def test_targets_are_registered() -> None:
    """So that ``fuzz.py`` runs them, and ``test_fuzz_corpus.py`` damages their seeds."""
    every = {target.name for target in (*ENCRYPTED, *CIPHERTEXTS)}
    assert every <= {target.name for target in TARGETS}
    assert {target.instead for target in CIPHERTEXTS} <= {target.name for target in ENCRYPTED}
