"""Attacks by who is said to have shared, stayed and signed, and by the shares themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from colluder import ANY, NO_NUMBER
from hostile_attack import COLLUDER, VICTIM, Attack, Forge, Prepare
from hostile_combiner import HostileCombiner

from fedbcs_protocols.secagg.messages import SEALED_SHARES_BYTES
from fedbcs_protocols.secagg.shamir import SHARE_BYTES
from fedbcs_protocols.secagg.sharing import SharePair
from fedbcs_protocols.wire import Frame, Kind, decode, seal


def attacks() -> Iterator[Attack]:
    """Those of this module."""
    yield from _deliveries()
    yield from _survivors()
    yield from _certificates()


def _deliveries() -> Iterator[Attack]:
    def shown(sharers: str | None = None, **sealed: Callable[[HostileCombiner], bytes]) -> Forge:
        def forge(s: HostileCombiner) -> bytes:
            names = None if sharers is None else [f"site{i}" for i in sharers]
            return s.delivery(VICTIM, names, {name: make(s) for name, make in sealed.items()})

        return forge

    def without(stage: str) -> Prepare:
        return lambda s: s.gone[stage].add("site4")

    def bits_beyond(s: HostileCombiner) -> bytes:
        body = bytearray(decode(s.honest("masked_input", VICTIM), ANY).body)
        body[0] |= 0x40
        return s.forge(Kind.DELIVERY, 1, bytes(body))

    def absent_site(s: HostileCombiner) -> bytes:
        body = bytearray(decode(s.honest("masked_input", VICTIM), ANY).body)
        body[0] |= 1 << 4
        return s.forge(Kind.DELIVERY, 1, bytes(body) + bytes(SEALED_SHARES_BYTES))

    def fewer_pieces(s: HostileCombiner) -> bytes:
        body = bytes(decode(s.honest("masked_input", VICTIM), ANY).body)
        return s.forge(Kind.DELIVERY, 1, body[:-SEALED_SHARES_BYTES])

    def flipped(at: int) -> Callable[[HostileCombiner], bytes]:
        def make(s: HostileCombiner) -> bytes:
            piece = bytearray(s.sealed("site1", VICTIM))
            piece[at] ^= 1
            return bytes(piece)

        return make

    def piece(owner: str, to: str) -> Callable[[HostileCombiner], bytes]:
        return lambda s: s.sealed(owner, to)

    def elsewhere(**binding: Any) -> Callable[[HostileCombiner], bytes]:
        return lambda s: s.elsewhere("masked_input", **binding).sealed("site1", VICTIM)

    yield Attack(
        "a sharer who is not in the key list",
        "SA-4.1",
        "masked_input",
        absent_site,
        "BadSiteList",
        prepare=without("advertise"),
    )
    yield Attack(
        "a set with a bit beyond n", "SA-1.5", "masked_input", bits_beyond, "MalformedFrame"
    )
    yield Attack(
        "the victim not among the sharers", "SA-4.1", "masked_input", shown("1235"), "BadSiteList"
    )
    yield Attack("fewer than t sharers", "SA-4.1", "masked_input", shown("015"), "BadSiteList")
    yield Attack("a lone sharer", "SA-4.1", "masked_input", shown("0"), "BadSiteList")
    yield Attack(
        "a ciphertext fewer than sharers", "SA-4.1", "masked_input", fewer_pieces, "MalformedFrame"
    )
    for name, make in {
        "a ciphertext with a flipped bit": flipped(0),
        "a ciphertext with a flipped bit in its tag": flipped(-1),
        "a ciphertext for another site": piece("site1", "site2"),
        "a ciphertext from another site": piece("site2", VICTIM),
        "the victim's own ciphertext": piece(VICTIM, "site1"),
        "a ciphertext of another round": elsewhere(round=2),
        "a ciphertext of another attempt": elsewhere(attempt=1),
        "a ciphertext of another state": elsewhere(state_digest=bytes(32)),
    }.items():
        yield Attack(name, "SA-4.2", "masked_input", shown(site1=make), "BadShare", "site1")
    yield Attack(
        "two ciphertexts swapped",
        "SA-4.2",
        "masked_input",
        shown(site1=piece("site2", VICTIM), site2=piece("site1", VICTIM)),
        "BadShare",
        "site1",
    )
    yield Attack(
        "a ciphertext cut short",
        "SA-4.1",
        "masked_input",
        shown(site1=lambda s: s.sealed("site1", VICTIM)[:-1]),
        "MalformedFrame",
    )
    yield Attack(
        "a ciphertext made under another key list",
        "SA-3.3",
        "masked_input",
        lambda s: s.honest("masked_input", VICTIM),
        "BadShare",
        "site1",
        poison=_another_list_for_site1,
    )
    good = bytes(SHARE_BYTES)
    for name, pair in {
        "a colluder's ciphertext without a share of its mask key": SharePair(NO_NUMBER, good),
        "a colluder's ciphertext without a share of its seed": SharePair(good, NO_NUMBER),
    }.items():
        yield Attack(
            name,
            "SA-4.2",
            "masked_input",
            lambda s: s.honest("masked_input", VICTIM),
            "BadShare",
            COLLUDER,
            poison=_lying(pair),
        )


def _lying(pair: SharePair) -> Prepare:
    def poison(s: HostileCombiner) -> None:
        s.colluders[COLLUDER].lies = {s.place(VICTIM): pair}

    return poison


def _another_list_for_site1(s: HostileCombiner) -> None:
    def without_site4(s: HostileCombiner) -> bytes:
        return s.key_list({"site4": None})

    # site4 itself never hears of it.
    s.instead["share", "site1"] = without_site4


def _survivors() -> Iterator[Attack]:
    def listed(sites: str) -> Forge:
        return lambda s: s.survivors([f"site{i}" for i in sites])

    yield Attack(
        "a survivor who is no sharer",
        "SA-5.1",
        "consistency",
        listed("012345"),
        "BadSiteList",
        prepare=lambda s: s.gone["share"].add("site4"),
    )
    yield Attack(
        "a survivor who is not in the key list",
        "SA-5.1",
        "consistency",
        listed("012345"),
        "BadSiteList",
        prepare=lambda s: s.gone["advertise"].add("site4"),
    )
    for name, sites in {
        "the victim not among the survivors": "1235",
        "fewer than t survivors": "015",
        "the victim and the colluder": "05",
        "a lone survivor": "0",
    }.items():
        yield Attack(name, "SA-5.1", "consistency", listed(sites), "BadSiteList")
    yield Attack("no survivors", "SA-5.1", "consistency", listed(""), "BadSiteList")
    yield Attack(
        "a set with a bit beyond n",
        "SA-1.5",
        "consistency",
        lambda s: s.forge(Kind.SURVIVORS, 2, b"\x7f"),
        "MalformedFrame",
    )


def _certificates() -> Iterator[Attack]:
    def signed(change: Callable[[HostileCombiner, dict[str, bytes]], None], **sets: Any) -> Forge:
        def forge(s: HostileCombiner) -> bytes:
            signatures = s.signatures()
            change(s, signatures)
            return s.certificate(signatures=signatures, **sets)

        return forge

    def keep(count: int) -> Callable[[HostileCombiner, dict[str, bytes]], None]:
        def change(s: HostileCombiner, signatures: dict[str, bytes]) -> None:
            for name in list(signatures)[count:]:
                del signatures[name]

        return change

    def put(
        name: str, make: Callable[[HostileCombiner], bytes]
    ) -> Callable[[HostileCombiner, dict[str, bytes]], None]:
        def change(s: HostileCombiner, signatures: dict[str, bytes]) -> None:
            signatures[name] = make(s)

        return change

    def by_the_colluder(s: HostileCombiner) -> bytes:
        digest = s.transcript(s.came["masked_input"])
        frame = Frame(Kind.CONSISTENCY, s.setting.binding, "site1", 3, digest)
        return decode(seal(frame, s.cast.sites[COLLUDER]), ANY).signature

    def on_another_frame(s: HostileCombiner) -> bytes:
        return decode(s.came["masked_input"]["site1"], ANY).signature

    def of_another_sum(**binding: Any) -> Callable[[HostileCombiner], bytes]:
        return lambda s: s.elsewhere("unmask", **binding).signatures()["site1"]

    def more_bits(s: HostileCombiner) -> bytes:
        body = bytearray(decode(s.certificate(), ANY).body)
        body[66] |= 0x40
        return s.forge(Kind.CERTIFICATE, 3, bytes(body))

    def bytes_after_the_end(s: HostileCombiner) -> bytes:
        fewer = dict(list(s.signatures().items())[:4])
        body = bytes(decode(s.certificate(signatures=fewer), ANY).body)
        return s.forge(Kind.CERTIFICATE, 3, body + b"\0")

    def a_signature_short(s: HostileCombiner) -> bytes:
        body = bytes(decode(s.certificate(), ANY).body)
        return s.forge(Kind.CERTIFICATE, 3, body[:-64])

    at = "unmask"
    yield Attack("fewer than t signatures", "SA-6.2", at, signed(keep(3)), "BadSiteList")
    yield Attack("no signature", "SA-6.2", at, signed(keep(0)), "BadSiteList")
    yield Attack(
        "a signer who is no survivor",
        "SA-6.2",
        at,
        signed(lambda s, signatures: None, survivors=[f"site{i}" for i in "01235"]),
        "BadSiteList",
    )
    yield Attack(
        "a colluder who left and signs all the same",
        "SA-6.2",
        at,
        signed(
            put(
                COLLUDER,
                lambda s: (
                    decode(
                        s.colluders[COLLUDER].signed(s.transcript(s.came["masked_input"])), ANY
                    ).signature
                ),
            )
        ),
        "BadSiteList",
        prepare=lambda s: s.gone["masked_input"].add(COLLUDER),
    )
    yield Attack(
        "survivors who are no sharers",
        "SA-6.2",
        at,
        signed(lambda s, signatures: None, sharers=[f"site{i}" for i in "01235"]),
        "BadSiteList",
    )
    yield Attack("a set with a bit beyond n", "SA-1.5", at, more_bits, "MalformedFrame")
    yield Attack(
        "a signature fewer than signers", "SA-6.1", at, a_signature_short, "MalformedFrame"
    )
    yield Attack(
        "a byte after the last signature", "SA-6.1", at, bytes_after_the_end, "MalformedFrame"
    )
    for name, make in {
        "a signature of random bytes": lambda s: bytes(range(64)),
        "a signature of zeros": lambda s: bytes(64),
        "one site's signature twice": lambda s: s.signatures()["site2"],
        "a colluder's signature in a site's place": by_the_colluder,
        "a site's signature on another frame": on_another_frame,
        "a site's signature of another round": of_another_sum(round=2),
        "a site's signature of another attempt": of_another_sum(attempt=1),
        "a site's signature of another state": of_another_sum(state_digest=bytes(32)),
    }.items():
        yield Attack(name, "SA-6.2", at, signed(put("site1", make)), "Inconsistent", "site1")
    yield Attack(
        "another key list's digest",
        "SA-6.2",
        at,
        lambda s: s.certificate(key_list=bytes(32)),
        "Inconsistent",
        VICTIM,
    )
    yield Attack(
        "another key's name",
        "SA-6.2",
        at,
        lambda s: s.certificate(key_id=b"k" * 32),
        "Inconsistent",
        VICTIM,
    )
    # Four sites are shown a list without site4; the victim and site4 one with all.
    shorter = [f"site{i}" for i in "01235"]

    def two_lists(s: HostileCombiner) -> None:
        for name in ("site1", "site2", "site3", COLLUDER):
            s.instead["consistency", name] = lambda s: s.survivors(shorter)

    yield Attack(
        "the certificate of another list, all signatures right",
        "SA-6.2",
        at,
        lambda s: s.certificate(
            survivors=shorter,
            signatures={n: v for n, v in s.signatures().items() if n in shorter and n != VICTIM},
        ),
        "Inconsistent",
        poison=two_lists,
    )
    yield Attack(
        "signatures on another list under the victim's",
        "SA-6.2",
        at,
        lambda s: s.certificate(),
        "Inconsistent",
        "site1",
        poison=two_lists,
    )

    def two_deliveries(s: HostileCombiner) -> None:
        for name in ("site1", "site2", "site3", COLLUDER):
            s.instead["masked_input", name] = _delivery_to(name, shorter)
            s.instead["consistency", name] = lambda s: s.survivors(shorter)
        s.instead["consistency", VICTIM] = lambda s: s.survivors(shorter)

    yield Attack(
        "the same survivors, but other sharers",
        "SA-6.2",
        at,
        lambda s: s.certificate(
            sharers=shorter,
            survivors=shorter,
            signatures={n: v for n, v in s.signatures().items() if n not in (VICTIM, "site4")},
        ),
        "Inconsistent",
        poison=two_deliveries,
    )


def _delivery_to(name: str, sharers: list[str]) -> Forge:
    return lambda s: s.delivery(name, sharers)
