"""Key lists, deliveries, survivors and certificates that a site must not believe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from protected_sum import make_cast, run_sum

from fedbcs_protocols.errors import (
    BadKeyList,
    BadShare,
    BadSiteList,
    Inconsistent,
    MalformedFrame,
    ProtocolError,
)
from fedbcs_protocols.secagg.ephemeral import Ephemeral
from fedbcs_protocols.secagg.messages import Certificate, Delivery, KeyList
from fedbcs_protocols.secagg.states import SiteState
from fedbcs_protocols.secagg.transcript import consistency_frame, transcript
from fedbcs_protocols.sitesets import encode_set

SITES = 5
Start = Callable[..., Any]


def test_key_lists(site_play: Start) -> None:
    for change, error in (
        (lambda f: (f[0], None, *f[2:]), BadKeyList),
        (lambda f: (f[1], f[0], *f[2:]), BadKeyList),
        (lambda f: (None, f[1], f[2], f[3], None), BadKeyList),
        (lambda f: f[:4], MalformedFrame),
    ):
        play = site_play("share")
        frames = KeyList.decode(
            play.opened.body, sender="c", graph=play.cast.terms.graph, sites=SITES
        ).frames
        play.refuses(play.forged(body=KeyList(change(frames)).encode()), error)


@pytest.mark.parametrize("enough", [True, False])
def test_a_key_list_with_too_few_of_the_sites_own_holders(enough: bool) -> None:
    """Long enough for the study, too short for this site: of those it drew, 18 of 41 are gone."""
    cast = make_cast(100, 82, 3, bits=24, count=5)
    graph = cast.terms.graph
    gone = graph.size - graph.threshold + (0 if enough else 1)
    assert gone <= cast.terms.sites - cast.terms.threshold
    site = cast.site("site0")
    site._seed_for_tests(Ephemeral.generate(), tuple(range(1, graph.size + 1)))
    combiner = cast.combine()
    combiner.receive(site.advertise())
    for place in range(1 + gone, cast.terms.sites):
        combiner.receive(cast.site(f"site{place}").advertise())
    combiner.close()
    key_list = combiner.requests["site0"]
    if enough:
        assert site.share(key_list)
        return
    with pytest.raises(BadKeyList, match="too few of the sites that this site drew") as caught:
        site.share(key_list)
    assert caught.value.sender == "@combiner"
    assert site.state is SiteState.LEFT
    assert site._ephemeral is None


def _delivery(play: Any) -> Delivery:
    return Delivery.decode(play.opened.body, sender="c", sites=SITES)


def test_deliveries(site_play: Start) -> None:
    def without(place: int) -> Callable[[Delivery], Delivery]:
        at = [p for p in range(SITES) if p != 1].index(place)
        return lambda d: Delivery(d.sharers - {place}, d.sealed[:at] + d.sealed[at + 1 :])

    play = site_play("masked_input")
    assert play.answer(play.forged(body=without(4)(_delivery(play)).encode(SITES)))

    changed: list[tuple[Callable[[Delivery], Delivery], type[ProtocolError], str]] = [
        (lambda d: replace(d, sharers=d.sharers - {1}), BadSiteList, "leave this site out"),
        (lambda d: without(4)(without(3)(d)), BadSiteList, "3 sharers, the threshold is 4"),
        (lambda d: replace(d, sealed=d.sealed[1:]), MalformedFrame, "3 shares of 4"),
        (lambda d: replace(d, sealed=(*d.sealed, d.sealed[0])), MalformedFrame, "5 shares of 4"),
        (lambda d: replace(d, sharers=d.sharers - {0}), MalformedFrame, "4 shares of 3"),
        (lambda d: replace(d, sealed=d.sealed[::-1]), BadShare, "site0"),
        (lambda d: replace(d, sealed=(*d.sealed[:3], bytes(82))), BadShare, "site4"),
    ]
    for change, error, match in changed:
        play = site_play("masked_input")
        body = change(_delivery(play)).encode(SITES)
        play.refuses(play.forged(body=body), error, match)


def test_a_delivery_holds_nobody_beyond_the_key_list(site_play: Start) -> None:
    play = site_play("masked_input", advertise={"site4"})
    here = _delivery(play)
    body = Delivery(here.sharers | {4}, (*here.sealed, bytes(82))).encode(SITES)
    play.refuses(play.forged(body=body), BadSiteList, "not in the stage before")


def test_survivors(site_play: Start) -> None:
    for places, match in (
        ({0, 1, 2}, "3 survivors, the threshold is 4"),
        ({0, 2, 3, 4}, "leave this site out"),
        (set(), "leave this site out"),
    ):
        play = site_play("consistency")
        request = play.forged(body=encode_set(places, SITES))
        play.refuses(request, BadSiteList, match)
    play = site_play("consistency", share={"site4"})
    request = play.forged(body=encode_set(range(SITES), SITES))
    play.refuses(request, BadSiteList, "not in the stage before")
    play = site_play("consistency")
    play.refuses(play.forged(body=b"\xff"), MalformedFrame)


def _certificate(play: Any) -> Certificate:
    return Certificate.decode(play.opened.body, sender="c", sites=SITES)


def test_certificates(site_play: Start) -> None:
    def fewer(certificate: Certificate) -> Certificate:
        left = {p: s for p, s in certificate.signatures.items() if p < 3}
        return replace(certificate, signatures=left)

    for change, error in (
        (fewer, BadSiteList),
        (lambda c: replace(c, key_list=bytes(32)), Inconsistent),
        (lambda c: replace(c, key_id=b"k" * 32), Inconsistent),
        (lambda c: replace(c, survivors=c.survivors - {4}), BadSiteList),
        (lambda c: replace(c, sharers=c.sharers - {4}), BadSiteList),
        (lambda c: replace(c, signatures={**c.signatures, 2: bytes(64)}), Inconsistent),
    ):
        play = site_play("unmask")
        play.refuses(play.forged(body=change(_certificate(play)).encode(SITES)), error)


def test_a_genuine_certificate_over_what_this_site_did_not_see(site_play: Start) -> None:
    """All others collude and sign other survivors: who saw something else gives no share."""
    for survivors in (frozenset({0, 2, 3, 4}), frozenset({0, 1, 2, 3})):
        play = site_play("unmask")
        shown = _certificate(play)
        digest = transcript(play.cast.setting, shown.key_list, shown.sharers, survivors)
        signatures = {
            place: play.cast.sites[f"site{place}"].sign(
                consistency_frame(play.cast.setting, f"site{place}", digest).signed_message()
            )
            for place in survivors
        }
        body = replace(shown, survivors=survivors, signatures=signatures).encode(SITES)
        play.refuses(play.forged(body=body), Inconsistent, "not over what this site signed")
        marks = play.cast.marks["site1"].read()
        assert marks is not None
        assert marks.answers == ()


def test_a_genuine_certificate_of_sites_under_another_key(site_play: Start) -> None:
    """GK-7.3: all others tagged under another key than this site; it gives no share."""
    play = site_play("unmask")
    shown = replace(_certificate(play), key_id=b"k" * 32)
    setting = replace(play.cast.setting, key_id=shown.key_id)
    digest = transcript(setting, shown.key_list, shown.sharers, shown.survivors)
    signatures = {
        place: play.cast.sites[f"site{place}"].sign(
            consistency_frame(setting, f"site{place}", digest).signed_message()
        )
        for place in sorted(shown.survivors)
        if place != 1
    }
    body = replace(shown, signatures=signatures).encode(SITES)
    play.refuses(play.forged(body=body), Inconsistent, "not over what this site signed")


def test_sites_under_two_keys_form_no_sum() -> None:
    """GK-7.3: what they sign differs, so the combiner tells before anybody unmasks."""
    cast = make_cast(SITES)
    sites = cast.all_sites()
    sites["site3"] = replace(cast, key_id=b"k" * 32).site("site3")
    with pytest.raises(Inconsistent) as caught:
        run_sum(cast, cast.vectors(), sites=sites)
    assert caught.value.sender == "site3"
