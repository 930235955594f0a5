"""What is told about an encrypted sum: to sites, and to the combiner, true or not.

Each of it is read by the package and by the second implementation, and must end as the file says.
"""

from __future__ import annotations

import copy
import hashlib
from functools import cache
from typing import Any
from unittest import mock

import known_ckks
import pytest
import second_ckks as second
from ckks_world import scratch
from known_ckks import BOSS, NAMES, SETTING, edited
from known_encrypted import (
    FILE,
    INSIDE,
    NOISE_KEYS,
    SALTS,
    SUM,
    TOLD,
    aggregate,
    ciphertexts,
    ended,
    from_combiner,
    from_site,
    keys_of,
    session_of,
    tail_of,
    vector,
)

from fedbcs_protocols.ckks import CkksCombiner, CkksSession, open_sum, site
from fedbcs_protocols.errors import UnexpectedFrame
from fedbcs_protocols.group import KeyRing
from fedbcs_protocols.wire import Kind

BEFORE_DECRYPTION = {"MalformedFrame", "BadSiteList", "Inconsistent", "Refused"}
AFTER = {"BadCiphertext", "SumOutOfRange", "BadNoise", "BadTag"}


def body_of(told: dict[str, Any], genuine: bytes) -> bytes:
    return bytes.fromhex(told["head"]) + edited(genuine, told["ops"]) + tail_of(told)


# Sums --------------------------------------------------------------------------------------------


def opened(body: bytes) -> tuple[str, list[int], KeyRing]:
    """How it ended, the total, and what the site keeps."""
    keys, totals = keys_of("bern"), []
    frame = from_combiner(Kind.SUM, 1, body)

    def read() -> None:
        totals.append(open_sum(frame, SETTING, seen={}, keys=keys, scratch=scratch()).total)

    end = ended(read)
    return end, totals[0].tolist() if totals else [], keys.ring


@pytest.mark.parametrize("told", FILE["lies"], ids=lambda told: told["what"])
def test_sums_told(told: dict[str, Any]) -> None:
    """CK-4.5, CK-5: and the key is given up exactly for a wrong sum (GK-6.2).

    Not for what was never decrypted, since anybody could send that (CK-5.1).
    """
    body, expect, theirs = body_of(told, aggregate()), told["expect"], []
    assert ended(lambda: theirs.append(second.read_sum(body, TOLD))) == expect
    end, total, ring = opened(body)
    assert end == expect
    wrong = expect in AFTER
    assert wrong or expect == "ok" or expect in BEFORE_DECRYPTION
    assert (ring.burned, ring.refusals, ring.current is None) == (wrong, int(wrong), wrong)
    assert ring.opened == ((7, 2) if wrong or expect == "ok" else (0, 0))
    if expect == "ok":
        inside = [name for place, name in enumerate(NAMES) if body[32] >> place & 1]
        assert theirs == [total]
        assert total == [sum(column) for column in zip(*map(vector, inside), strict=True)]
    else:
        # Nobody's last sum.
        assert ring.survivors == frozenset()


def test_there_are_lies_of_every_kind() -> None:
    found = {told["expect"] for told in FILE["lies"]}
    assert found == {"ok"} | BEFORE_DECRYPTION | AFTER


@pytest.mark.parametrize("told", FILE["liars"], ids=lambda told: told["what"])
def test_a_site_in_no_field_of_its_own(told: dict[str, Any]) -> None:
    """CK-5.5: it has the key, so its tags fit."""
    name, *others = INSIDE
    lying = TOLD.ciphertexts(vector(name), name, SALTS[name], NOISE_KEYS[name], told["flags"])
    assert hashlib.sha256(lying).hexdigest() == told["sha256"]
    assert lying != ciphertexts(name)
    body = bytes.fromhex(told["head"]) + second.added([lying, *map(ciphertexts, others)])
    assert ended(lambda: second.read_sum(body, TOLD)) == "BadMembers"
    end, _, ring = opened(body)
    assert end == "BadMembers"
    assert ring.burned


# Uploads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", FILE["uploads"], ids=lambda told: told["what"])
def test_uploads(told: dict[str, Any]) -> None:
    """CK-3.7 to CK-3.9: what is refused changes nothing, and the good one is still taken."""
    first, *others = INSIDE
    body = body_of(told, ciphertexts(first))
    assert ended(lambda: second.read_upload(body, TOLD)) == told["expect"]
    combiner = CkksCombiner(SETTING, identity=BOSS)
    frame = from_site(first, Kind.ENCRYPTED, 0, body)
    assert ended(lambda: combiner.receive(frame)) == told["expect"]
    if told["expect"] == "ok":
        assert first not in combiner.expected
        return
    for name in (first, *others):
        good = TOLD.upload(SALTS[name], ciphertexts(name))
        combiner.receive(from_site(name, Kind.ENCRYPTED, 0, good))
    combiner.close()
    assert combiner.requests[first].hex() == SUM["frames"]["aggregate"]


# Announcements -----------------------------------------------------------------------------------


@cache
def encrypted() -> CkksSession:
    """The second site's session, after its upload."""
    session = session_of("bern")
    drawn = mock.Mock(side_effect=[SALTS["bern"], NOISE_KEYS["bern"]])
    with mock.patch.object(site.secrets, "token_bytes", drawn):
        session.encrypt(known_ckks.vector("bern"))
    return session


@pytest.mark.parametrize("told", FILE["announcements"], ids=lambda told: told["what"])
def test_announcements(told: dict[str, Any]) -> None:
    """CK-4.3: what a site signs, and what not."""
    body, session = bytes.fromhex(told["body"]), copy.copy(encrypted())
    session._keys = keys_of("bern")
    frame, salt = from_combiner(Kind.AGGREGATE, 0, body), SALTS["bern"]
    read = second.read_announcement
    assert ended(lambda: read(body, TOLD, "bern", salt)) == told["expect"]
    if told["expect"] == "ok":
        transcript = read(body, TOLD, "bern", salt)
        assert session.agree(frame) == from_site("bern", Kind.CONSISTENCY, 1, transcript)
        assert session.transcript == transcript
        if told["what"] == "a good one":
            assert transcript.hex() == SUM["transcript"]
        return
    assert ended(lambda: session.agree(frame)) == told["expect"]
    assert session.transcript is None
    # It has left: the true one comes too late.
    with pytest.raises(UnexpectedFrame):
        session.agree(bytes.fromhex(SUM["frames"]["aggregate"]))
