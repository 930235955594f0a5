"""What SEAL saved is read strictly: no endless loop, no half of it, no index error."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ckks_world import SECRET, scratch
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols.ckks import parameter_set
from fedbcs_protocols.ckks.cipher import (
    POLYNOMIAL_BYTES,
    SecretContext,
    _content,
    pack_words,
    unpack_words,
)
from fedbcs_protocols.ckks.params import DEGREE, PRIME
from fedbcs_protocols.errors import BadCiphertext, LocalError

RAW, RUN, COMPRESSED = 0, 1, 2
FRAME = struct.pack("<IBQ", 0xFD2FB528, 0x20 | 3 << 6, 0)


def saved(piece: bytes, mode: int = 2, **changes: int) -> bytes:
    header = {"magic": 0xA15E, "header": 16, "size": 16 + len(piece), **changes}
    start = struct.pack("<HB", header["magic"], header["header"])
    return start + struct.pack("<BBBHQ", 4, 3, mode, 0, header["size"]) + piece


def block(data: bytes, last: bool = True, kind: int = RAW, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    return (length << 3 | kind << 1 | last).to_bytes(3, "little") + data


GOOD = saved(FRAME + block(b"one ", last=False) + block(b"two"))


def test_blocks_that_are_stored_as_they_are() -> None:
    assert bytes(_content(GOOD)) == b"one two"
    assert bytes(_content(saved(FRAME + block(b"one")))) == b"one"
    assert bytes(_content(saved(b"as it is", mode=0))) == b"as it is"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:3],
        GOOD[:16],
        saved(b""),
        saved(FRAME[:4]),
        saved(FRAME),
        saved(FRAME + block(b"one", last=False)),
        saved(FRAME + block(b"one", size=4)),
        saved(FRAME + block(b"one", size=2**20)),
        saved(FRAME + block(b"o", kind=RUN)),
        saved(FRAME + block(b"one", last=False) + block(b"one", kind=COMPRESSED)),
        saved(FRAME + block(b"one"), mode=1),
        saved(FRAME + block(b"one"), mode=3),
        saved(FRAME + block(b"one"), magic=0xA15F),
        saved(FRAME + block(b"one"), header=17),
        saved(FRAME + block(b"one"), size=0),
        saved(FRAME + block(b"one"), size=36),
        saved(b"\x29" + FRAME[1:] + block(b"one")),
        # A checksum, a dictionary, a window: other frame headers.
        saved(FRAME[:4] + b"\xe4" + FRAME[5:] + block(b"one")),
        saved(FRAME[:4] + b"\xe1" + FRAME[5:] + block(b"one")),
        saved(FRAME[:4] + b"\xc0" + FRAME[5:] + block(b"one")),
    ],
    ids=range(21),
)
def test_another_form(data: bytes) -> None:
    with pytest.raises(LocalError):
        _content(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_damage_of_any_kind(place: int, value: int, end: int) -> None:
    """It ends, with something or with the one error."""
    damaged = bytearray(GOOD[:end])
    if place < end:
        damaged[place] = value
    try:
        _content(bytes(damaged))
    except LocalError:
        return


# Words in both directions ------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, DEGREE - 1), st.integers(PRIME, 2**60 - 1))
def test_one_form_for_each_polynomial(seed: int, place: int, word: int) -> None:
    """CK-3.2, CK-3.3: all bytes of the right length are a polynomial's only form, or no residue."""
    data = np.random.default_rng(seed).bytes(POLYNOMIAL_BYTES)
    words = unpack_words(data, "x")
    assert pack_words(words) == data
    words[place] = word
    with pytest.raises(BadCiphertext):
        unpack_words(pack_words(words), "x")
    words[place] = PRIME - 1
    assert unpack_words(pack_words(words), "x").tolist() == words.tolist()


def test_every_byte_counts() -> None:
    """No two byte strings stand for one ciphertext, nor one for what another site sent."""
    params = parameter_set(4, 16)
    cipher = SecretContext(params, scratch(), SECRET, bytes(32), 1)
    data = cipher.encrypt(np.zeros(DEGREE // 2, np.complex128))
    seen = {cipher.sum_bytes(cipher.fresh(data, "x"))}
    for place in (0, 1, 31, 63, 64, 71, 15423, 15424, 30783):
        changed = bytearray(data)
        changed[place] ^= 1
        seen.add(cipher.sum_bytes(cipher.fresh(changed, "x")))
    assert len(seen) == 10
