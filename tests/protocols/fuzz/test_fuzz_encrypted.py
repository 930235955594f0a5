"""Genuine ciphertexts changed all over; ``test_fuzz_corpus.py`` has the targets' own corpus."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import encrypted
import harness
import numpy as np
import pytest
from encrypted import AGGREGATE, CIPHERTEXTS, ENCRYPTED, WORLD
from encrypted_world import EncryptedWorld
from harness import Target
from targets import TARGETS

from fedbcs_protocols.ckks.messages import Agreement, Announced, Encrypted, decode_sum
from fedbcs_protocols.ckks.params import DEGREE
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, unpack_words
from fedbcs_protocols.errors import BadCiphertext, PeerError

CIPHERTEXT_INPUTS = 600
SLACK_BYTES = 64 << 10


def scripts(most: int) -> Iterator[bytes]:
    """Inputs without a plan, the same in every run."""
    choose = random.Random(1)
    for _ in range(most):
        yield bytes([choose.randrange(256)]) + choose.randbytes(choose.randrange(64))


@pytest.mark.parametrize("target", CIPHERTEXTS, ids=lambda target: target.name)
def test_ciphertexts(target: Target) -> None:
    """Whatever comes, nothing but the named errors comes out."""
    taken = sum(harness.check(target, data) for data in target.seeds)
    assert 2 <= taken < len(target.seeds)
    for data in scripts(CIPHERTEXT_INPUTS // (2 if target.every > 4 else 1)):
        harness.check(target, data)


def ended(target: Target, data: bytes) -> str:
    try:
        target.run(data)
    except target.allowed as error:
        return type(error).__name__
    return "taken"


@pytest.mark.parametrize("target", [*ENCRYPTED, *CIPHERTEXTS], ids=lambda target: target.name)
def test_every_allowed_error_is_reached_by_a_seed(target: Target) -> None:
    """Else it need not be allowed; but for what only a party with the key can bring about."""
    found = {ended(target, seed) for seed in target.seeds}
    if target.bounded:
        # Its seeds are bodies, and all are good.
        found |= {ended(target, seed[:-1]) for seed in target.seeds}
    allowed = {error.__name__ for error in target.allowed}
    assert found - {"taken"} <= allowed
    assert allowed - found <= {"BadMembers"}


def test_genuine_input_is_taken() -> None:
    """Else the tests above would say nothing."""
    for target in ENCRYPTED:
        assert harness.check(target, target.seeds[0])
    for target in CIPHERTEXTS:
        assert harness.check(target, b"\0")


def test_the_world_is_the_same_in_every_process() -> None:
    """So that the input of a finding can be run again."""
    again = EncryptedWorld()
    assert (again.upload, again.announced, again.told) == (
        WORLD.upload, WORLD.announced, WORLD.told,
    )  # fmt: skip


@pytest.mark.parametrize("step", [37, 61])
def test_every_part_of_a_ciphertext(step: int) -> None:
    """CK-3.6, CK-3.7: a bit flipped here and there is one other number, or no residue."""
    before, refused = unpack_words(AGGREGATE, "x"), 0
    for position in range(step, len(AGGREGATE), step):
        data = bytearray(AGGREGATE)
        data[position] ^= 1 << position % 8
        try:
            after = unpack_words(bytes(data), "x")
        except BadCiphertext:
            refused += 1
        else:
            assert np.count_nonzero(after != before) == 1
    # A number so near 2^60 is rare.
    assert refused <= 2


def test_every_length() -> None:
    for size in (*range(130), *range(130, POLYNOMIAL_BYTES, 977), POLYNOMIAL_BYTES - 1):
        with pytest.raises(BadCiphertext):
            unpack_words(AGGREGATE[:size], "x")
    for more in (1, 8, 64, POLYNOMIAL_BYTES):
        with pytest.raises(BadCiphertext):
            unpack_words(AGGREGATE + bytes(more), "x")


def test_no_body_makes_a_decoder_allocate_much() -> None:
    """At most four times the body and 64 KiB, whatever it claims."""
    setting = WORLD.setting
    head = WORLD.upload[:96]
    readers = (
        (lambda b: Encrypted.decode(b, sender="x", setting=setting), head + b"\xff" * 4),
        (lambda b: Encrypted.decode(b, sender="x", setting=setting), WORLD.upload),
        (lambda b: Announced.decode(b, sender="x", sites=12), b"\xff" * 418),
        (lambda b: Announced.decode(b, sender="x", sites=12), b"\xff\x0f" + b"\xff" * 416),
        (lambda b: Announced.decode(b, sender="x", sites=512), b"\xff" * 128),
        (lambda b: Agreement.decode_from(b, sender="x", sites=12), b"\xff" * 1220),
        (lambda b: Agreement.decode_from(b, sender="x", sites=12), b"\xff\x0f" * 610),
        (lambda b: decode_sum(b, sender="x", setting=setting), WORLD.told),
        (lambda b: decode_sum(b, sender="x", setting=setting), WORLD.told[:400]),
        (lambda b: unpack_words(b, "x"), AGGREGATE),
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


def test_the_targets_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgiving(data: bytes) -> None:
        body = encrypted._words(data)
        harness.same(bytes(len(body)), body)

    target = harness.Target("forgiving", forgiving, (BadCiphertext,), ())
    with pytest.raises(harness.Finding):
        harness.check(target, b"\0")
    by_name = {target.name: target for target in (*ENCRYPTED, *CIPHERTEXTS)}
    wrong = np.zeros((1, DEGREE), np.uint64)
    monkeypatch.setattr(WORLD, "first_three", lambda: wrong)
    monkeypatch.setattr(WORLD, "total", WORLD.total + np.uint32(1))
    monkeypatch.setattr(WORLD, "salts", {**WORLD.salts, 0: bytes(32)})
    monkeypatch.setattr(encrypted, "check_noise", lambda noise, added: None)
    for name, data in (
        ("ckks_received", b"\0"),
        ("ckks_agree", b""),
        # A coefficient of the first digit's one and little else.
        ("ckks_plain", b"\2\0\0" + (100).to_bytes(8, "little")),
    ):
        with pytest.raises(harness.Finding):
            harness.check(by_name[name], data)


def test_a_site_that_takes_another_total_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = (target for target in CIPHERTEXTS if target.name == "ckks_opened")
    for wrong in (WORLD.total + np.uint32(1), WORLD.total[:-1]):
        monkeypatch.setattr(WORLD, "total", wrong)
        with pytest.raises(harness.Finding):
            harness.check(target, b"\0")


def test_targets_are_registered() -> None:
    """So that ``fuzz.py`` runs them, and ``test_fuzz_corpus.py`` damages their seeds."""
    every = {target.name for target in (*ENCRYPTED, *CIPHERTEXTS)}
    assert every <= {target.name for target in TARGETS}
    assert {target.instead for target in CIPHERTEXTS} <= {target.name for target in ENCRYPTED}
