"""A site's session on a frame of the combiner's that is wrong but signed with its true key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness import GENEROUS, require, unfailing
from worlds import STAGES, World, answer, forged, fork_site

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import (
    MalformedFrame,
    PeerError,
    Refused,
    UnexpectedFrame,
    WrongBinding,
)
from fedbcs_protocols.secagg import SiteSession
from fedbcs_protocols.secagg.messages import Certificate, KeyList
from fedbcs_protocols.secagg.shamir import check_share
from fedbcs_protocols.secagg.states import SiteState
from fedbcs_protocols.secagg.transcript import transcript
from fedbcs_protocols.wire import decode, open_frame


def signed_for(world: World, body: bytes) -> bytes:
    """The transcript of a certificate that was taken, which t sites must have signed."""
    setting = world.setting
    shown, _ = Certificate.decode_from(body, sender=COMBINER, sites=setting.terms.sites)
    require(len(shown.signatures) >= setting.terms.threshold, "too few signatures were enough")
    named = replace(setting, key_id=shown.key_id)
    return transcript(named, shown.key_list, shown.sharers, shown.survivors)


def in_their_places(world: World, body: bytes) -> None:
    """Require that each frame of a key list that was taken is signed by its place's site.

    A site may name a key that is another's, as long as it stands in the list once.
    """
    terms = world.setting.terms
    listed = KeyList.decode(body, sender=COMBINER, graph=terms.graph, sites=terms.sites)
    for name, inner in zip(world.names, listed.frames, strict=True):
        if inner is not None:
            frame = decode(inner, GENEROUS)
            require(frame.sender == name, "one site's frame in another's place")
            world.setting.roster[name].verify(frame.signature, frame.signed_message())


def sound(world: World, site: SiteSession) -> None:
    """What a site has taken is what SA-2.1 to SA-5.1 let it take."""
    table, terms = site._the_table(), world.setting.terms
    keys = [key for a in table.adverts.values() for key in (a.mask_key, a.share_key)]
    require(len(keys) == len(set(keys)), "one key in two places")
    larger = table.present
    reached = {SiteState.SHARED: 1, SiteState.MASKED: 2}.get(site.state, 3)
    for places in (table.present, site._sharers, site._survivors)[:reached]:
        require(places <= larger, "a site that was not in the stage before")
        require(0 in places and len(places) >= terms.threshold, "too few, or without this site")
        mine = len(table.holders(0) & places)
        require(mine >= terms.graph.threshold, "too few of its own holders")
        larger = places
    for pair in site._held.values():
        check_share(pair.mask_key)
        check_share(pair.seed)


def site_target(world: World) -> Callable[[bytes], None]:
    """The first site's session, fed one forged frame of the combiner's and then genuine ones."""

    def run(data: bytes) -> None:
        stages = STAGES[1:]
        number = (data[0] if data else 0) % len(stages)
        stage, me = stages[number], world.names[0]
        genuine = decode(world.requests[stage][me], GENEROUS)
        frame = forged(genuine, world, stage, data[1:], world.boss)
        site = fork_site(world.before[stage])
        state, held, marks = site.state, dict(site._held), site._marks.read()
        try:
            reply = answer(site, stage, frame, world.vector)
        except (PeerError, Refused) as error:
            if site.state is SiteState.LEFT:
                require(site._ephemeral is None and not site._held, "secrets outlive the attempt")
            else:
                require(site.state is state and site._held == held, "a refused frame left a trace")
                form = (MalformedFrame, WrongBinding, UnexpectedFrame)
                require(isinstance(error, form), "the site stays after a wrong frame")
            require(site._marks.read() == marks, "a refusal changed the marks")
            raise
        with unfailing("what was taken is not sound"):
            sound(world, site)
            body = bytes(decode(frame, GENEROUS).body)
            if stage == "share":
                in_their_places(world, body)
            if stage == "unmask":
                require(signed_for(world, body) == world.signed, "answered another transcript")
                require(not site._held, "shares outlive the answer")
        with unfailing("the reply does not open"):
            opened = open_frame(
                reply, roster=world.setting.roster, expect=world.setting.binding, limits=GENEROUS
            )
            require(opened.sender == me, "a reply in another's name")
        for later in stages[number + 1 :]:
            answer(site, later, world.requests[later][me], world.vector)

    return run
