"""Frames that a peer or the network could send instead of the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_protocols import ring
from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import (
    BadKey,
    BadKeyList,
    BadSignature,
    LocalError,
    MalformedFrame,
    PeerError,
    ProtocolError,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.messages import KeyList, MaskedInput, VectorShape
from fedbcs_protocols.secagg.states import CombinerState, SiteState
from fedbcs_protocols.wire import Frame, Kind, decode, seal

Make = Callable[..., Any]
ANY = dict.fromkeys(Kind, 10**6)


class Stage:
    """A sum after *advertise*: sessions, their frames, and a forger of the combiner's list."""

    def __init__(self, cast: Any) -> None:
        self.cast = cast
        self.sites = cast.all_sites()
        self.combiner = cast.combine()
        self.adverts = {name: site.advertise() for name, site in self.sites.items()}
        for frame in self.adverts.values():
            self.combiner.receive_advertise(frame)
        self.key_list = self.combiner.key_list()
        self.vector = np.zeros(cast.count, np.uint32)

    def forged(self, *frames: bytes, **changes: Any) -> bytes:
        """A key list with these frames under the combiner's true signature."""
        fields = {
            "kind": Kind.KEY_LIST,
            "binding": self.cast.binding,
            "sender": COMBINER,
            "sequence": 0,
            "body": KeyList(frames).encode(),
        }
        return seal(Frame(**{**fields, **changes}), self.cast.combiner)

    def refused(self, key_list: bytes, error: type[PeerError], sender: str | None = None) -> None:
        """site0 refuses the combiner's list, gives up its secrets and does not come back."""
        site = self.sites["site0"]
        with pytest.raises(error) as caught:
            site.masked_input(key_list, self.vector)
        assert type(caught.value) is error
        if sender is not None:
            assert caught.value.sender == sender
        assert site.state is SiteState.FAILED
        assert site._ephemeral is None
        with pytest.raises(LocalError, match="FAILED"):
            site.masked_input(self.key_list, self.vector)

    def ignored(self, key_list: bytes, error: type[PeerError], sender: str | None = None) -> None:
        """site0 refuses bytes that anybody can send, and takes the true list afterwards."""
        site = self.sites["site0"]
        with pytest.raises(error) as caught:
            site.masked_input(key_list, self.vector)
        assert type(caught.value) is error
        if sender is not None:
            assert caught.value.sender == sender
        assert site.state is SiteState.ADVERTISED
        assert site.masked_input(self.key_list, self.vector)

    def masked(self, name: str, **changes: Any) -> bytes:
        """A frame in the place of a masked input, under the site's true signature."""
        shape = VectorShape(self.cast.count, self.cast.bits, len(self.cast.sites))
        packed = ring.pack(self.vector, self.cast.bits)
        fields = {
            "kind": Kind.MASKED_INPUT,
            "binding": self.cast.binding,
            "sender": name,
            "sequence": 1,
            "body": MaskedInput(shape, packed).encode(),
        }
        return seal(Frame(**{**fields, **changes}), self.cast.sites[name])


@pytest.fixture
def stage(make_cast: Make) -> Stage:
    return Stage(make_cast(4))


def test_the_forger_can_tell_the_truth(stage: Stage) -> None:
    """So that every refusal below is for its own reason."""
    assert stage.forged(*stage.adverts.values()) == stage.key_list
    assert stage.sites["site0"].masked_input(stage.key_list, stage.vector)
    stage.combiner.receive_masked(stage.masked("site1"))


def test_swapped_frames(stage: Stage) -> None:
    a, b, c, d = stage.adverts.values()
    stage.refused(stage.forged(a, c, b, d), BadKeyList, COMBINER)


def test_repeated_site(stage: Stage) -> None:
    a, b, c, _ = stage.adverts.values()
    stage.refused(stage.forged(a, b, c, c), BadKeyList)


def test_own_place_given_to_another(stage: Stage) -> None:
    _, b, c, d = stage.adverts.values()
    stage.refused(stage.forged(b, b, c, d), BadKeyList)


@pytest.mark.parametrize("keep", [0, 3])
def test_missing_site(stage: Stage, keep: int) -> None:
    frames = list(stage.adverts.values())[: keep or 1]
    stage.refused(stage.forged(*frames), MalformedFrame, COMBINER)


def test_one_site_too_many(stage: Stage) -> None:
    frames = list(stage.adverts.values())
    stage.ignored(stage.forged(*frames, frames[3]), MalformedFrame)


def test_own_frame_replaced_by_another_of_ones_own(stage: Stage) -> None:
    """A frame of an earlier process of the same site, with the same binding."""
    earlier = stage.cast.site("site0").advertise()
    _, *others = stage.adverts.values()
    stage.refused(stage.forged(earlier, *others), BadKeyList, COMBINER)


def test_key_in_anothers_name(stage: Stage) -> None:
    """The combiner signs a key of its own in a site's name."""
    a, _, c, d = stage.adverts.values()
    fake = seal(decode(stage.adverts["site1"], ANY), stage.cast.combiner)
    stage.refused(stage.forged(a, fake, c, d), BadSignature, "site1")


def test_key_of_a_stranger(stage: Stage) -> None:
    a, b, c, _ = stage.adverts.values()
    frame = replace(decode(stage.adverts["site3"], ANY), sender="site9")
    stage.refused(
        stage.forged(a, b, c, seal(frame, stage.cast.sites["site3"])), UnknownSender, "site9"
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"study_digest": bytes(32)}, "study digest"),
        ({"round": 2}, "round"),
        ({"attempt": 1}, "attempt"),
        ({"phase": 0}, "phase"),
        ({"state_digest": bytes(32)}, "state digest"),
    ],
)
class TestFramesOfAnotherSum:
    def test_key_list(self, stage: Stage, change: dict[str, Any], field: str) -> None:
        other = Stage(stage.cast.changed(**change))
        with pytest.raises(WrongBinding) as caught:
            stage.sites["site0"].masked_input(other.key_list, stage.vector)
        assert (caught.value.sender, caught.value.field) == (COMBINER, field)

    def test_key_in_the_list(self, stage: Stage, change: dict[str, Any], field: str) -> None:
        other = Stage(stage.cast.changed(**change))
        a, b, c, _ = stage.adverts.values()
        with pytest.raises(WrongBinding) as caught:
            stage.sites["site0"].masked_input(
                stage.forged(a, b, c, other.adverts["site3"]), stage.vector
            )
        assert (caught.value.sender, caught.value.field) == ("site3", field)

    def test_key(self, stage: Stage, change: dict[str, Any], field: str) -> None:
        other = stage.cast.changed(**change).site("site2")
        combiner = stage.cast.combine()
        with pytest.raises(WrongBinding) as caught:
            combiner.receive_advertise(other.advertise())
        assert (caught.value.sender, caught.value.field) == ("site2", field)

    def test_masked_input(self, stage: Stage, change: dict[str, Any], field: str) -> None:
        binding = stage.cast.changed(**change).binding
        with pytest.raises(WrongBinding) as caught:
            stage.combiner.receive_masked(stage.masked("site2", binding=binding))
        assert (caught.value.sender, caught.value.field) == ("site2", field)

    def test_sum(self, stage: Stage, change: dict[str, Any], field: str) -> None:
        site = stage.sites["site0"]
        site.masked_input(stage.key_list, stage.vector)
        binding = stage.cast.changed(**change).binding
        with pytest.raises(WrongBinding) as caught:
            site.receive_sum(_sum_frame(stage, binding=binding))
        assert caught.value.field == field
        assert site.state is SiteState.MASKED
        assert site.receive_sum(_sum_frame(stage)).shape == (stage.cast.count,)


def _sum_frame(stage: Stage, **changes: Any) -> bytes:
    body = decode(stage.masked("site0"), ANY).body
    fields = {
        "kind": Kind.SUM,
        "binding": stage.cast.binding,
        "sender": COMBINER,
        "sequence": 1,
        "body": body,
    }
    return seal(Frame(**{**fields, **changes}), stage.cast.combiner)


def test_key_list_under_another_signature(stage: Stage) -> None:
    frame = decode(stage.key_list, ANY)
    stage.ignored(seal(frame, stage.cast.sites["site1"]), BadSignature, COMBINER)


def test_key_list_from_a_site(stage: Stage) -> None:
    frame = replace(decode(stage.key_list, ANY), sender="site1")
    stage.ignored(seal(frame, stage.cast.sites["site1"]), UnknownSender, "site1")


def test_key_list_with_another_sequence(stage: Stage) -> None:
    stage.ignored(stage.forged(*stage.adverts.values(), sequence=1), WrongBinding, COMBINER)


def test_another_frame_instead_of_the_key_list(stage: Stage) -> None:
    stage.ignored(stage.adverts["site1"], UnexpectedFrame, "site1")


def test_key_list_cut_or_too_long(make_cast: Make) -> None:
    for end, more in ((-1, b""), (None, b"\0"), (50, b""), (None, bytes(10_000))):
        stage = Stage(make_cast(4))
        stage.ignored(stage.key_list[:end] + more, MalformedFrame)


def _advert(stage: Stage, name: str, key: bytes, sequence: int = 0) -> bytes:
    frame = replace(decode(stage.adverts[name], ANY), body=key, sequence=sequence)
    return seal(frame, stage.cast.sites[name])


def test_a_site_that_sends_a_key_of_low_order(stage: Stage) -> None:
    a, b, c, _ = stage.adverts.values()
    stage.refused(stage.forged(a, b, c, _advert(stage, "site3", bytes(32))), BadKey, "site3")


def test_a_site_that_copies_anothers_key(stage: Stage) -> None:
    a, b, c, _ = stage.adverts.values()
    key = bytes(decode(b, ANY).body)
    stage.refused(stage.forged(a, b, c, _advert(stage, "site3", key)), BadKey, "site3")


def test_a_site_that_numbers_its_frame_wrongly(stage: Stage) -> None:
    a, b, c, _ = stage.adverts.values()
    frame = _advert(stage, "site3", b"\7" * 32, sequence=1)
    stage.refused(stage.forged(a, b, c, frame), WrongBinding, "site3")
    with pytest.raises(WrongBinding):
        stage.cast.combine().receive_advertise(frame)


def test_the_combiner_refuses_copied_and_repeated_keys(stage: Stage) -> None:
    combiner = stage.cast.combine()
    combiner.receive_advertise(stage.adverts["site1"])
    with pytest.raises(UnexpectedFrame):
        combiner.receive_advertise(stage.adverts["site1"])
    with pytest.raises(UnexpectedFrame):
        combiner.receive_advertise(_advert(stage, "site1", b"\7" * 32))
    key = bytes(decode(stage.adverts["site1"], ANY).body)
    with pytest.raises(BadKey) as caught:
        combiner.receive_advertise(_advert(stage, "site3", key))
    assert caught.value.sender == "site3"
    assert combiner.waiting_for == ("site0", "site2", "site3")


def test_a_late_key(stage: Stage) -> None:
    with pytest.raises(UnexpectedFrame):
        stage.combiner.receive_advertise(stage.adverts["site1"])


def _bad_inputs(stage: Stage) -> Iterator[tuple[bytes, type[PeerError]]]:
    good = stage.masked("site1")
    body = bytes(decode(good, ANY).body)
    yield good[:-1], MalformedFrame
    yield good + b"\0", MalformedFrame
    yield b"", MalformedFrame
    yield stage.masked("site1", body=body + b"\0"), MalformedFrame
    yield stage.masked("site1", body=body[:-4]), MalformedFrame
    yield stage.masked("site1", body=body[:-1] + b"\x80"), MalformedFrame
    yield stage.masked("site1", body=b"\1" + body[1:]), MalformedFrame
    yield stage.masked("site1", sequence=0), WrongBinding
    yield stage.masked("site1", kind=Kind.SUM), UnexpectedFrame
    yield stage.masked("site1", sender="site2"), BadSignature
    yield stage.masked("site1", sender="site9"), UnknownSender
    yield stage.adverts["site1"], UnexpectedFrame
    yield stage.key_list, MalformedFrame


def test_a_bad_input_changes_nothing(stage: Stage) -> None:
    for frame, error in _bad_inputs(stage):
        with pytest.raises(error) as caught:
            stage.combiner.receive_masked(frame)
        assert type(caught.value) is error
    assert stage.combiner.waiting_for == tuple(stage.cast.sites)
    for name, site in stage.sites.items():
        stage.combiner.receive_masked(site.masked_input(stage.key_list, stage.vector))
        with pytest.raises(UnexpectedFrame) as again:
            stage.combiner.receive_masked(stage.masked(name))
        assert again.value.sender == name
    assert stage.combiner.state is CombinerState.COMPLETE
    assert not stage.combiner.sum().any()


def test_an_early_input(stage: Stage) -> None:
    with pytest.raises(UnexpectedFrame):
        stage.cast.combine().receive_masked(stage.masked("site1"))


@pytest.mark.parametrize(
    ("change", "error", "after"),
    [
        ({"sequence": 0}, WrongBinding, SiteState.MASKED),
        ({"kind": Kind.KEY_LIST}, UnexpectedFrame, SiteState.MASKED),
        ({"sender": "site1"}, UnknownSender, SiteState.MASKED),
        ({"body": b""}, MalformedFrame, SiteState.FAILED),
    ],
)
def test_bad_sums(
    stage: Stage, change: dict[str, Any], error: type[PeerError], after: SiteState
) -> None:
    site = stage.sites["site0"]
    site.masked_input(stage.key_list, stage.vector)
    with pytest.raises(error):
        site.receive_sum(_sum_frame(stage, **change))
    assert site.state is after


@given(st.data())
def test_mutated_frames_raise_protocol_errors_only(make_cast: Make, data: st.DataObject) -> None:
    stage = Stage(make_cast(3))
    which = data.draw(st.sampled_from(["advertise", "key list", "input", "sum"]))
    frame = {
        "advertise": stage.adverts["site1"],
        "key list": stage.key_list,
        "input": stage.masked("site1"),
        "sum": _sum_frame(stage),
    }[which]
    mutated = bytearray(frame)
    position = data.draw(st.integers(0, len(frame) - 1))
    if data.draw(st.booleans()):
        mutated[position] ^= data.draw(st.integers(1, 255))
    else:
        mutated[position : position + data.draw(st.integers(1, 9))] = data.draw(
            st.binary(max_size=8)
        )
    if mutated == frame:
        return
    site = stage.sites["site0"]
    if which == "sum":
        site.masked_input(stage.key_list, stage.vector)
    receive: dict[str, Callable[[bytes], object]] = {
        "advertise": stage.cast.combine().receive_advertise,
        "key list": lambda frame: site.masked_input(frame, stage.vector),
        "input": stage.combiner.receive_masked,
        "sum": site.receive_sum,
    }
    with pytest.raises(ProtocolError):
        receive[which](bytes(mutated))


@given(st.data())
def test_mutated_bodies_raise_protocol_errors_only(make_cast: Make, data: st.DataObject) -> None:
    """The combiner signs nonsense: what is inside the signature is checked as well."""
    stage = Stage(make_cast(3))
    body = bytearray(KeyList(tuple(stage.adverts.values())).encode())
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerError):
        stage.sites["site0"].masked_input(stage.forged(b"", body=bytes(body)), stage.vector)
    assert stage.sites["site0"].state is SiteState.FAILED
