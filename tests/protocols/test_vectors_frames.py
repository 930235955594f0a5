"""Good and hostile frames, against the package and against a second implementation.

The second implementation (``protocols/vectors/second_frames.py``) shares no code with the package;
Ed25519 and X25519 come from ``cryptography``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import second_frames as second
from known_answers import as_binding, load

from fedbcs_protocols import errors
from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.messages import Announced
from fedbcs_protocols.framelist import decode_frames
from fedbcs_protocols.group import Standing
from fedbcs_protocols.group.messages import Deal, Dealt, Taken, ready_limit
from fedbcs_protocols.identity import PublicIdentity
from fedbcs_protocols.messages import MaskedInput, SumBroadcast, VectorShape
from fedbcs_protocols.secagg.graph import Neighbourhood
from fedbcs_protocols.secagg.messages import Advertise, Certificate, Delivery, KeyList, cut
from fedbcs_protocols.sitesets import decode_set
from fedbcs_protocols.wire import Frame, Kind, open_frame

FRAMES = load("frames.json")
READER = FRAMES["reader"]
ROSTER = {name: PublicIdentity(bytes.fromhex(key)) for name, key in FRAMES["roster"].items()}


def outcome_of(read: Callable[[], object]) -> str:
    """``ok``, or the name of the error that the package raises."""
    try:
        read()
    except errors.PeerError as error:
        return type(error).__name__
    return "ok"


def opened(data: bytes, roster: Mapping[str, PublicIdentity], kind: Kind, limit: int) -> Frame:
    expect = as_binding(FRAMES["binding"])
    return open_frame(data, roster=roster, expect=expect, limits={kind: limit})


def read_body(kind: Kind, body: Any, sender: str) -> None:
    sites = READER["sites"]
    sparse = Neighbourhood(READER["drawn"], 2, complete=False)
    shape = VectorShape(READER["count"], READER["bits"], sites)
    match kind:
        case Kind.ADVERTISE:
            Advertise.decode(body, sender=sender, graph=sparse, sites=sites)
        case Kind.KEY_LIST:
            KeyList.decode(body, sender=sender, graph=sparse, sites=sites)
        case Kind.MASKED_INPUT:
            MaskedInput.decode(body, sender=sender, shape=shape)
        case Kind.SUM:
            _, end = Certificate.decode_from(body, sender=sender, sites=sites)
            SumBroadcast.decode(body[end:], sender=sender, shape=shape)
        case Kind.SHARES | Kind.UNMASK:
            size = 82 if kind is Kind.SHARES else 33
            cut(body, READER["pieces"], size, sender=sender, what="shares")
        case Kind.PRESENT:
            longest = ready_limit(sites)
            decode_frames(body, sender=sender, sites=sites, longest=longest, what="list")
        case Kind.DEAL:
            Deal.decode(body, sender=sender, sites=sites)
        case Kind.DEALT:
            Dealt.decode(body, sender=sender, sites=sites)
        case Kind.TAKEN:
            Taken.decode(body, sender=sender)
        case Kind.AGGREGATE:
            Announced.decode(body, sender=sender, sites=sites)
        case Kind.JOINING:
            Standing.decode(body, sender=sender, sites=sites, round=READER["round"])
        case Kind.DELIVERY:
            Delivery.decode(body, sender=sender, sites=sites)
        case Kind.SURVIVORS:
            decode_set(body, sites, sender=sender)
        case Kind.CONSISTENCY:
            if bytes(body) != bytes.fromhex(READER["transcript"]):
                raise errors.Inconsistent(sender, "it signed another transcript")
        case Kind.CERTIFICATE:
            Certificate.decode(body, sender=sender, sites=sites)


@pytest.mark.parametrize("case", FRAMES["cases"], ids=lambda case: case["what"])
def test_headers(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["frame"])
    own = second.open_frame(data, FRAMES["binding"], FRAMES["roster"], 1, 32)
    assert own == case["expect"]
    assert outcome_of(lambda: opened(data, ROSTER, Kind.ADVERTISE, 32)) == case["expect"]


KINDS = [(kind, case) for kind in FRAMES["kinds"] for case in kind["cases"]]
KIND_IDS = [f"{kind['name']}: {case['what']}" for kind, case in KINDS]


@pytest.mark.parametrize(("kind", "case"), KINDS, ids=KIND_IDS)
def test_kinds(kind: dict[str, Any], case: dict[str, str]) -> None:
    data, number, limit = bytes.fromhex(case["frame"]), kind["kind"], kind["limit"]
    keys = {**FRAMES["roster"], COMBINER: FRAMES["combiner"]}
    own = second.open_frame(data, FRAMES["binding"], keys, number, limit)
    if own == "ok":
        own = second.body_outcome(kind["name"], second.body_of(data), READER)
    assert own == case["expect"]
    roster = {**ROSTER, COMBINER: PublicIdentity(bytes.fromhex(FRAMES["combiner"]))}

    def read() -> None:
        frame = opened(data, roster, Kind(number), limit)
        read_body(frame.kind, frame.body, frame.sender)

    assert outcome_of(read) == case["expect"]


def test_every_kind_has_its_frames() -> None:
    assert {kind["kind"]: kind["name"] for kind in FRAMES["kinds"]} == {
        int(kind): kind.name for kind in Kind
    }
    assert sorted(kind["kind"] for kind in FRAMES["kinds"]) == list(range(1, 31))
