"""Secrets are shown nowhere, kept no longer than needed, and never pickled."""

from __future__ import annotations

import copy
import gc
import pickle
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from protected_sum import STAGES, Cast, answer, make_cast

from fedbcs_protocols.errors import LocalError, ProtocolError
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.secagg import CombinerSession, SiteSession
from fedbcs_protocols.secagg.ephemeral import Ephemeral
from fedbcs_protocols.secagg.masking import Mask, Masker, pair_mask, self_mask
from fedbcs_protocols.secagg.sharing import ShareBox, SharePair, deal
from fedbcs_protocols.secagg.states import SiteState
from fedbcs_protocols.secagg.unmasking import recover
from fedbcs_protocols.wire import MAX_BODY_BYTES, Kind, decode, seal

Open = Callable[..., Any]
CAST = make_cast(5)


def _spellings(secret: bytes) -> list[str]:
    number = [str(int.from_bytes(secret, order)) for order in ("big", "little")]
    # Without its quotes a bytes' repr is found inside a longer one's too.
    return [secret.hex(), secret.hex().upper(), repr(secret)[2:-1], repr(list(secret)), *number]


def _check_text(text: str, secrets: Iterable[bytes]) -> None:
    for secret in secrets:
        for spelling in _spellings(secret):
            assert spelling not in text


def _of(ephemeral: Ephemeral) -> list[bytes]:
    private = (ephemeral.mask_key, ephemeral.share_key)
    return [*(key.private_bytes_raw() for key in private), ephemeral.seed]


def _texts(value: object) -> Iterable[str]:
    return repr(value), str(value), f"{value}", repr([value]), repr({"a": value})


# Values -----------------------------------------------------------------------------------------


def test_values_show_no_secret(backstage: Open) -> None:
    stage = backstage(CAST)
    secret: Ephemeral = stage.ephemerals[0]
    dealt = deal(secret, range(5), 3)
    pair = dealt[1]
    mask = pair_mask(secret.mask_key, stage.setting, stage.table, 0, 1)
    own = self_mask(secret.seed, CAST.binding, "site0", stage.table.adverts[0].mask_key)
    box = ShareBox(secret.share_key, stage.setting, stage.table, 0)
    hidden = [*_of(secret), pair.mask_key, pair.seed, mask.key, own.key]
    for value in (secret, pair, dealt, mask, own, own.removed, Masker([mask, own], 20), box):
        for text in _texts(value):
            _check_text(text, hidden)
    assert "redacted" in repr(box)
    assert repr(own) == "Mask(adds=True)"
    assert repr(secret) == "Ephemeral()"


def test_the_check_above_can_fail() -> None:
    secret = bytes(range(100, 132))
    for leak in (
        repr(secret),
        repr({"seed": b"x" + secret}),
        secret.hex(),
        f"{int.from_bytes(secret, 'big')}",
    ):
        with pytest.raises(AssertionError):
            _check_text(leak, [secret])


# Sessions ---------------------------------------------------------------------------------------


def _reachable(session: SiteSession) -> list[object]:
    """Everything that hangs on the session, itself included, without modules and classes.

    Identity and marks are the caller's and stay out: the one is to last, the other is no secret.
    """
    seen: dict[int, object] = {}
    waiting: list[object] = [
        value for name, value in vars(session).items() if name not in ("_identity", "_marks")
    ]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, type | type(gc)) or callable(value):
            continue
        seen[id(value)] = value
        waiting += gc.get_referents(value)
    return list(seen.values())


def _kept(session: SiteSession) -> set[str]:
    """The kinds of secret that the session still holds."""
    kinds = (Ephemeral, SharePair, X25519PrivateKey, Mask, ShareBox, Masker)
    return {type(value).__name__ for value in _reachable(session) if isinstance(value, kinds)}


def _bytes_of(session: SiteSession) -> list[bytes]:
    return [value for value in _reachable(session) if isinstance(value, bytes)]


class Play:
    """A sum in which site0's secrets are written down by the test as they come to be."""

    def __init__(self, cast: Cast | None = None) -> None:
        self.cast = cast or make_cast(5)
        self.combiner: CombinerSession = self.cast.combine()
        self.sites = self.cast.all_sites()
        self.vectors = self.cast.vectors()
        self.site = self.sites["site0"]
        self.secrets: list[bytes] = []

    def stage(self, stage: str) -> None:
        for name in self.combiner.expected:
            request = self.combiner.requests.get(name, b"")
            self.combiner.receive(answer(self.sites[name], stage, request, self.vectors[name]))
        self.remember()
        self.combiner.close()

    def until(self, stage: str) -> Play:
        for earlier in STAGES[: STAGES.index(stage)]:
            self.stage(earlier)
        return self

    def remember(self) -> None:
        if self.site._ephemeral is not None:
            self.secrets += _of(self.site._ephemeral)
        for pair in self.site._held.values():
            self.secrets += [pair.mask_key, pair.seed]


def test_sessions_show_no_secret() -> None:
    play = Play()
    for stage in STAGES:
        play.stage(stage)
        assert len(play.secrets) >= 3
        for value in (play.site, play.combiner):
            for text in _texts(value):
                _check_text(text, play.secrets)
    assert repr(play.site) == "SiteSession(site0, round 3, ANSWERED)"
    assert repr(play.combiner) == "CombinerSession(round 3, COMPLETE)"
    assert len(set(play.secrets)) == 3 + 2 * 5


def test_secrets_are_dropped_after_each_stage() -> None:
    play = Play()
    keys = {"Ephemeral", "X25519PrivateKey"}
    assert _kept(play.site) == set()
    for stage, kept in (
        ("advertise", keys),
        ("share", {*keys, "SharePair"}),
        ("masked_input", {"SharePair"}),
        ("consistency", {"SharePair"}),
        ("unmask", set()),
    ):
        play.stage(stage)
        assert _kept(play.site) == kept, stage
    # Nor do their bytes stay anywhere, in whatever form.
    left = _bytes_of(play.site)
    for secret in play.secrets:
        assert not any(secret in data for data in left)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_secrets_are_dropped_when_a_site_leaves(stage: str) -> None:
    play = Play().until(stage)
    assert _kept(play.site) != set()
    opened = decode(play.combiner.requests["site0"], dict.fromkeys(Kind, MAX_BODY_BYTES))
    bad = seal(replace(opened, body=bytes(opened.body)[:-1]), play.cast.combiner)
    with pytest.raises(ProtocolError):
        answer(play.site, stage, bad, play.vectors["site0"])
    assert play.site.state is SiteState.LEFT
    assert _kept(play.site) == set()
    left = _bytes_of(play.site)
    for secret in play.secrets:
        assert not any(secret in data for data in left)


def test_a_site_keeps_no_share_that_it_sent_to_others() -> None:
    """After *share*, of its own secrets' shares only the one that it holds itself."""
    play = Play().until("masked_input")
    assert list(play.site._held) == [0]


# Errors -----------------------------------------------------------------------------------------


def _said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_errors_of_a_site_tell_no_secret(stage: str) -> None:
    """Each frame of the combiner cut, lengthened or with a byte changed, under its signature."""
    play = Play().until(stage)
    opened = decode(play.combiner.requests["site0"], dict.fromkeys(Kind, MAX_BODY_BYTES))
    body = bytes(opened.body)
    step = max(1, len(body) // 12)
    bodies = [body[:-1], body + b"\0", b"", body[::-1]]
    bodies += [
        body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] for at in range(0, len(body), step)
    ]
    kept, seen = dict(vars(play.site)), 0
    for bad in bodies:
        vars(play.site).update(kept)
        try:
            answer(
                play.site, stage, seal(replace(opened, body=bad), play.cast.combiner),
                play.vectors["site0"],
            )  # fmt: skip
        except ProtocolError as error:
            seen += 1
            _check_text(_said(error), play.secrets)
    assert seen >= 4


def test_errors_of_a_combiner_tell_no_share() -> None:
    play = Play().until("unmask")
    frames = {name: site.unmask(play.combiner.requests[name]) for name, site in play.sites.items()}
    shares: list[bytes] = []
    for name, frame in frames.items():
        opened = decode(frame, {Kind.UNMASK: MAX_BODY_BYTES})
        body = bytes(opened.body)
        shares += [body[at : at + 33] for at in range(0, len(body), 33)]
        for bad in (body[:-1], body + b"\0"):
            with pytest.raises(ProtocolError) as caught:
                play.combiner.receive(seal(replace(opened, body=bad), play.cast.sites[name]))
            _check_text(_said(caught.value), shares)
        false = body[:-1] + bytes([body[-1] ^ 1])
        play.combiner.receive(seal(replace(opened, body=false), play.cast.sites[name]))
    with pytest.raises(ProtocolError) as caught:
        play.combiner.close()
    _check_text(_said(caught.value), [*shares, *play.secrets])
    _check_text(repr(play.combiner), shares)


def test_errors_of_values_tell_no_secret(backstage: Open) -> None:
    stage = backstage(CAST)
    secret: Ephemeral = stage.ephemerals[0]
    pairs = deal(secret, range(5), 3)
    seeds = {place: pair.seed for place, pair in pairs.items()}
    hidden = [*_of(secret), *seeds.values()]
    for call in (
        lambda: recover(seeds, 4, "site0", lambda _: False),
        lambda: recover({0: seeds[0]}, 2, "site0", lambda _: False),
        lambda: deal(secret, range(2), 3),
        lambda: pair_mask(secret.mask_key, stage.setting, stage.table, 0, 0),
        lambda: ShareBox(secret.share_key, stage.setting, stage.table, 0).open_all(
            [1], [bytes(82)]
        ),
    ):
        with pytest.raises(ProtocolError) as caught:
            call()
        _check_text(_said(caught.value), hidden)


# Pickle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secrets_of_a_sum_are_not_copied_out(copies: Callable[[object], object]) -> None:
    pair, mask = SharePair(bytes(33), bytes(33)), Mask(bytes(32), adds=True)
    for value in (Ephemeral.generate(), pair, mask, mask.removed):
        for held in (value, [value], {0: value}):
            if copies is not copy.copy or held is value:
                with pytest.raises(TypeError, match="not pickled"):
                    copies(held)
    with pytest.raises(LocalError, match="not pickled"):
        copies(Identity.generate())


@pytest.mark.parametrize("stage", STAGES)
def test_a_session_is_not_pickled(stage: str) -> None:
    play = Play().until(stage)
    for value in (play.site, play.combiner):
        with pytest.raises((TypeError, LocalError)):
            pickle.dumps(value)


def test_helpers_that_hold_keys_are_not_pickled(backstage: Open) -> None:
    stage = backstage(CAST)
    key = stage.ephemerals[0].share_key
    box = ShareBox(key, stage.setting, stage.table, 0)
    for value in (box, Masker([Mask(bytes(32), True)], 20)):
        with pytest.raises(TypeError):
            pickle.dumps(value)
