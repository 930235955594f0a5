"""Faults that a first reading of the key stage found; each is mended, and stays so."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hostile_group import ANY, STUDY, Stage, make_group

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import LocalError, PeerError, Refused
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.group import GroupSecret, KeyRing
from fedbcs_protocols.group.messages import Taken, encode_gift
from fedbcs_protocols.group.wrapping import GIFT_LABEL, Envelope
from fedbcs_protocols.wire import Frame, Kind, decode


def at(round: int, attempt: int = 0) -> Binding:
    return Binding(STUDY, round, attempt, 1, bytes(32))


def test_the_dealer_is_shown_its_own_deal() -> None:
    """A combiner that cheats must not end the dealer's process."""
    stage = Stage(make_group(4)).ready().ask().make()
    with pytest.raises(PeerError):
        stage.sites["site0"].take(stage.dealt, stage.cast.control)


def test_an_aggregate_of_the_last_attempt_that_a_frame_can_name() -> None:
    """GK-6.1: refused, or at least written down."""
    try:
        ring = KeyRing(STUDY, 4).opening(at(1, 65535), bytes(32))
    except (Refused, PeerError):
        return
    assert KeyRing.decode(ring.encode()) == ring


def test_a_ring_with_a_member_beyond_the_roster() -> None:
    secret = GroupSecret(1, 0, frozenset({0}), bytes(32))
    body = bytearray(KeyRing(STUDY, 4, 1, False, (secret,)).encode()[:-32])
    body[-1] |= 0x80
    with pytest.raises(LocalError):
        KeyRing.decode(bytes(body) + hashlib.sha256(body).digest())


def test_a_site_that_claims_the_last_epoch_of_a_round() -> None:
    """GK-2.2: one site must not make all others' next *ready* of this round malformed."""
    cast = make_group(4)
    cast.site("site3").keep(KeyRing(STUDY, 4, epoch=1024 * 8, burned=True))
    Stage(cast).run()
    Stage(cast).run()


def test_a_key_that_was_given_up_comes_back_with_a_gift() -> None:
    """GK-3.6, GK-4.4"""
    old, new = (GroupSecret(epoch, 0, frozenset({0}), bytes([epoch]) * 32) for epoch in (3, 4))
    ring = KeyRing(STUDY, 4).taking(old).refusing(old.key_id).joining((old, new), 4)
    assert ring.find(old.key_id) is None
    assert ring.current == new


def test_a_site_that_was_not_ready_says_that_it_took_the_key() -> None:
    """Names of keys are public; only members may be holders (GK-3.7)."""
    stage = Stage(make_group(4), ["site0", "site1", "site2"]).run()
    body = Taken(1, stage.combiner.key_id).encode()
    frame = stage.cast.signed("site3", Frame(Kind.TAKEN, stage.cast.binding, "site3", 1, body))
    with pytest.raises(PeerError):
        stage.combiner.taken("site3", frame)
    assert stage.combiner.attempt == 0


def test_the_first_attempt_after_what_was_read() -> None:
    """GK-2.1, GK-5.2: a site that left attempt 2 and read its aggregate."""
    ring = KeyRing(STUDY, 4).uploading(at(1)).opening(at(1, 2), bytes(32))
    assert ring.uploading(at(1, ring.standing(bytes(32), 1).attempt))


def test_a_gift_of_an_epoch_that_cannot_be() -> None:
    """GK-2.2: a helper that lies once must not make a site unfit for good."""
    cast = make_group(4)
    Stage(cast).run()
    away = cast.site("site3")
    asking = decode(away.join(cast.forge(Kind.JOIN, 2, b"")), ANY)
    private = X25519PrivateKey.generate()
    keys = (public_bytes(private), bytes(asking.body[43:75]))
    envelope = Envelope(GIFT_LABEL, asking.binding, ("site1", "site3"), keys, ())
    body = keys[0] + envelope.seal(private, encode_gift(2**32 - 1, (), 4))
    gift = cast.signed("site1", Frame(Kind.HELPED, cast.binding, "site1", 3, body))
    with pytest.raises((PeerError, Refused)):
        away.admit(cast.forge(Kind.ADMITTED, 4, gift))
    assert away.ring.epoch == 1


def test_a_question_in_the_middle_of_a_stage() -> None:
    """The deal opens, or the combiner is named, not the dealer, who did nothing wrong."""
    cast = make_group(4)
    stage = Stage(cast).ready()
    stage.sites["site1"].join(cast.forge(Kind.JOIN, 2, b"", binding=replace(cast.binding, round=3)))
    stage.ask().make()
    blamed = "@combiner"
    try:
        stage.take()
    except PeerError as error:
        blamed = error.sender
    assert blamed == "@combiner"
