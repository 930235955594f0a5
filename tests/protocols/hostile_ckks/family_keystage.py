"""A combiner, and dealers, that cheat while the sites get their key (GK-2 to GK-4).

``tests/protocols/group/test_lies.py`` has more of these, with what the victim does afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ckks_cast import Attack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hostile_group import ANY, GroupCast, Stage, make_group

from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.group import Admission, GroupSecret, SiteKeys, Standing
from fedbcs_protocols.group.messages import Deal
from fedbcs_protocols.group.secret import key_id
from fedbcs_protocols.group.wrapping import GIFT_LABEL, Envelope
from fedbcs_protocols.wire import Kind, decode, seal

Act = Callable[[], object]
VICTIM = "site1"


def at_deal() -> Stage:
    """Five sites that have had a key, and a new one that is dealt but not taken."""
    cast = make_group(5, threshold=4)
    Stage(cast).run()
    return Stage(cast.at(10)).ready().ask().make()


def take(forge: Callable[[Stage], bytes]) -> Act:
    """The victim keeps what it had, whatever it is shown."""

    def run() -> None:
        stage = at_deal()
        site = stage.sites[VICTIM]
        before, frame = site.ring, forge(stage)
        try:
            site.take(frame, stage.cast.control)
        finally:
            # What an attack is not leaves a key, everything else nothing.
            assert (site.ring == before) == (frame is not stage.dealt)

    return run


def listed(stage: Stage, **frames: bytes | None) -> bytes:
    return stage.dealt_with(stage.cast.present({**stage.readies, **frames}))


def by_dealer(stage: Stage, change: Callable[[Deal], Deal], signer: str = "site0") -> bytes:
    frame = decode(stage.deal, ANY)
    deal = change(Deal.decode(frame.body, sender="a", sites=5))
    return stage.dealt_with(deal=stage.cast.signed(signer, frame, body=deal.encode(5)))


def mine() -> bytes:
    """An X25519 key whose private half the combiner has."""
    return public_bytes(X25519PrivateKey.generate())


def with_exchange(stage: Stage, name: str, key: bytes, signer: str | None) -> bytes:
    """A site's *ready* frame with another exchange key in it."""
    frame = decode(stage.readies[name], ANY)
    standing = Standing.decode(frame.body, sender="a", sites=5, round=10)
    body = replace(standing, exchange=key).encode(5)
    cast = stage.cast
    return seal(replace(frame, body=body), cast.sites[signer] if signer else cast.boss)


def rewrapped(stage: Stage, raw: bytes, name: bytes | None = None, epoch: int = 3) -> bytes:
    """A whole deal of another secret by the true dealer, under a new *ready* frame of its own.

    Its last deal was of epoch 2, so the list leads to 3.
    """
    cast = stage.cast
    dealer = cast.site("site0")
    ready = dealer.ready(cast.control)
    body = cast.present({**stage.readies, "site0": ready})
    said = cast.group.read_present(body, cast.control)
    standings = {place: ready.standing for place, ready in said.items()}
    named = name or key_id(raw)
    wrapped = tuple(
        dealer._envelope(epoch, named, body, cast.binding, standings, 0, to).seal(
            dealer._private(), raw
        )
        for to in range(1, 5)
    )
    deal = Deal(epoch, named, frozenset(range(5)), wrapped).encode(5)
    frame = replace(decode(stage.deal, ANY), body=deal)
    return stage.dealt_with(body, cast.signed("site0", frame))


def attacks() -> Iterator[Attack]:
    yield Attack("GK-3.5", "what no attack is: the true deal", take(lambda s: s.dealt))
    yield from _lists()
    yield from _deals()
    yield from _epochs()
    yield from _gifts()
    yield Attack("GK-7.1", "the secret is in no frame, in no form", _search)


def _lists() -> Iterator[Attack]:
    for signer, name in ((None, "signed by the combiner"), ("site2", "signed by another site")):
        yield Attack(
            "GK-3.1",
            f"the combiner's exchange key in a site's ready frame, {name}",
            take(lambda s, w=signer: listed(s, site3=with_exchange(s, "site3", mine(), w))),  # type: ignore[misc]
        )
    yield Attack(
        "GK-3.3",
        "the combiner's exchange key in the victim's own frame",
        take(lambda s: listed(s, site1=with_exchange(s, "site1", mine(), None))),
    )
    yield Attack(
        "GK-2.3",
        "a site that shows another's exchange key",
        take(lambda s: listed(s, site3=with_exchange(s, "site3", _shown(s, "site2"), "site3"))),
    )
    yield Attack(
        "GK-2.3",
        "a site that shows a key of low order",
        take(lambda s: listed(s, site3=with_exchange(s, "site3", bytes(32), "site3"))),
    )
    yield Attack(
        "GK-3.4",
        "a list with another of a site's own exchange keys",
        take(lambda s: listed(s, site3=with_exchange(s, "site3", mine(), "site3"))),
    )
    yield Attack(
        "GK-3.5", "a shorter list than the dealer's", take(lambda s: listed(s, site4=None))
    )
    yield Attack("GK-3.5", "another dealer by a shorter list", take(_other_turn))
    yield Attack("GK-3.2", "a list of too few", take(lambda s: listed(s, site3=None, site4=None)))
    yield Attack("GK-3.3", "a list without the victim", take(lambda s: listed(s, site1=None)))
    yield Attack(
        "GK-3.1",
        "a ready frame of an earlier round",
        take(lambda s: listed(s, site3=s.cast.at(9).site("site3").ready(s.cast.at(9).control))),
    )
    yield Attack(
        "GK-3.1",
        "one site's frame in another's place",
        take(lambda s: listed(s, site3=s.readies["site2"])),
    )
    yield Attack("GK-3.1", "a ready frame that the combiner made", take(_own_ready))


def _shown(stage: Stage, name: str) -> bytes:
    body = decode(stage.readies[name], ANY).body
    return Standing.decode(body, sender="a", sites=5, round=10).exchange


def _other_turn(stage: Stage) -> bytes:
    """Without site0 in the list it would be the victim's own turn; the deal is still site0's."""
    return listed(stage, site0=None)


def _own_ready(stage: Stage) -> bytes:
    frame = decode(stage.readies["site3"], ANY)
    return listed(stage, site3=seal(replace(frame, sender="@combiner"), stage.cast.boss))


def _deals() -> Iterator[Attack]:
    def combiner_deals(stage: Stage) -> bytes:
        body = bytes(decode(stage.deal, ANY).body)
        return stage.dealt_with(deal=stage.cast.forge(Kind.DEAL, 0, body))

    def other_deals(stage: Stage) -> bytes:
        frame = replace(decode(stage.deal, ANY), sender="site2")
        return stage.dealt_with(deal=stage.cast.signed("site2", frame))

    yield Attack("GK-3.5", "the combiner deals, in its own name", take(combiner_deals))
    yield Attack(
        "WI-2.1",
        "the combiner deals, in the dealer's name",
        take(lambda s: s.dealt_with(deal=seal(decode(s.deal, ANY), s.cast.boss))),
    )
    yield Attack("GK-3.5", "another site deals", take(other_deals))
    yield Attack(
        "WI-2.1",
        "another site deals in the dealer's name",
        take(lambda s: by_dealer(s, lambda d: d, "site2")),
    )

    def replayed(stage: Stage) -> bytes:
        old = Stage(make_group(5, threshold=4)).ready().ask().make()
        return stage.dealt_with(deal=old.deal)

    yield Attack("WI-2.3", "the deal of an earlier round", take(replayed))

    def twice() -> None:
        stage = at_deal()
        for _ in range(2):
            stage.sites[VICTIM].take(stage.dealt, stage.cast.control)

    yield Attack("GK-3.3", "the true deal twice", twice)

    def begun_again() -> None:
        stage = at_deal()
        stage.sites[VICTIM].ready(stage.cast.control)
        stage.sites[VICTIM].take(stage.dealt, stage.cast.control)

    yield Attack("GK-3.3", "the deal of a stage that was begun again", begun_again)

    def own_deal() -> None:
        stage = at_deal()
        dealer = stage.sites["site0"]
        dealer.take(stage.dealt, stage.cast.control)

    yield Attack("GK-3.5", "the dealer is dealt its own key", own_deal)

    def exchanged(deal: Deal) -> Deal:
        first, second, *rest = deal.wrapped
        return replace(deal, wrapped=(second, first, *rest))

    yield Attack(
        "GK-3.4", "ciphertexts in each other's places", take(lambda s: by_dealer(s, exchanged))
    )
    yield Attack(
        "GK-3.4",
        "another name on the true ciphertexts",
        take(lambda s: by_dealer(s, lambda d: replace(d, key_id=b"k" * 32))),
    )
    yield Attack(
        "GK-3.5",
        "a key that does not match its name",
        take(lambda s: rewrapped(s, bytes(32), b"k" * 32)),
    )
    yield Attack(
        "GK-3.5",
        "other members than the list has",
        take(
            lambda s: by_dealer(
                s, lambda d: replace(d, members=d.members - {4}, wrapped=d.wrapped[:3])
            )
        ),
    )


def _epochs() -> Iterator[Attack]:
    for epoch, name in (
        (1, "the epoch before"),
        (0, "no epoch"),
        (3, "a later epoch"),
        (2**32 - 1, "the last epoch there is"),
    ):
        yield Attack(
            "GK-3.5",
            f"the dealer deals {name}",
            take(lambda s, e=epoch: by_dealer(s, lambda d: replace(d, epoch=e))),  # type: ignore[misc]
        )

    def ring(change: Callable[[SiteKeys], None]) -> Act:
        def run() -> None:
            stage = at_deal()
            site = stage.sites[VICTIM]
            change(site)
            before = site.ring
            try:
                site.take(stage.dealt, stage.cast.control)
            finally:
                assert site.ring == before

        return run

    yield Attack(
        "GK-3.6",
        "a list that leads to an epoch before the site's",
        ring(lambda site: site.keep(replace(site.ring, epoch=9))),
    )
    yield Attack(
        "GK-3.6",
        "the epoch that the site gave up",
        ring(lambda site: site.keep(replace(site.ring, epoch=2, burned=True))),
    )
    yield Attack(
        "GK-3.6",
        "another key of the epoch that the site has",
        ring(
            lambda site: site.keep(
                site.ring.taking(GroupSecret(2, 10, frozenset(range(5)), bytes(32)))
            )
        ),
    )

    def not_due() -> None:
        cast = make_group(4)
        Stage(cast).run()
        stage = Stage(cast).ready()
        body = cast.present(stage.readies)
        stage.sites["site0"].deal(cast.forge(Kind.PRESENT, 0, body), cast.control)

    yield Attack("GK-2.4", "a site is asked to deal where all hold a key", not_due)

    def not_its_turn() -> None:
        stage = at_deal()
        again = Stage(stage.cast).ready().ask()
        again.sites[VICTIM].deal(again.present, again.cast.control)

    yield Attack("GK-2.5", "a site is asked to deal out of its turn", not_its_turn)


class Away:
    """site3 and site4 were away; site1 gives keys to site3."""

    def __init__(self) -> None:
        self.cast: GroupCast = make_group(5, threshold=3)
        Stage(self.cast).run()
        self.now = self.cast.at(12)
        Stage(self.now, self.cast.names[:3]).run()
        self.away, self.helper = self.cast.site("site3"), self.now.site("site1")
        self.steps = Admission(
            self.cast.group,
            identity=self.cast.boss,
            site="site3",
            away=self.cast.control,
            control=self.now.control,
        )
        self.joining = self.away.join(self.steps.join_frame())

    def helped(self) -> bytes:
        return self.helper.help(self.steps.help_frame(self.joining), self.now.control)

    def admitted(self, helped: bytes, **changes: object) -> bytes:
        binding = replace(self.cast.binding, **changes)
        return self.cast.forge(Kind.ADMITTED, 4, helped, binding=binding)


def _gifts() -> Iterator[Attack]:
    def gift(run: Callable[[Away], object]) -> Act:
        return lambda: run(Away())

    yield Attack(
        "GK-4.4",
        "what no attack is: a gift to a site that was away",
        gift(lambda a: a.away.admit(a.admitted(a.helped()))),
    )
    yield Attack(
        "GK-4.4",
        "a gift to a site that did not ask",
        gift(lambda a: a.cast.site("site3").admit(a.admitted(a.helped()))),
    )
    yield Attack(
        "GK-4.4",
        "a gift to a site that was not away",
        gift(lambda a: a.now.site("site2").admit(a.admitted(a.helped()))),
    )
    yield Attack("GK-4.3", "another site's gift", gift(_swapped_gift))
    yield Attack("GK-4.4", "a gift twice", gift(_twice))
    yield Attack("GK-4.4", "an old gift for a new question", gift(_old_gift))
    yield Attack(
        "GK-4.2",
        "the combiner asks in the site's name",
        gift(
            lambda a: a.helper.help(
                a.now.forge(Kind.HELP, 3, seal(decode(a.joining, ANY), a.cast.boss)), a.now.control
            )
        ),
    )
    yield Attack(
        "GK-4.2",
        "the combiner asks in its own name",
        gift(
            lambda a: a.helper.help(
                a.now.forge(
                    Kind.HELP,
                    3,
                    seal(replace(decode(a.joining, ANY), sender="@combiner"), a.cast.boss),
                ),
                a.now.control,
            )
        ),
    )
    yield Attack(
        "GK-4.2",
        "a site is asked to help itself",
        gift(lambda a: a.cast.site("site3").help(a.steps.help_frame(a.joining), a.now.control)),
    )
    yield Attack("GK-4.2", "the combiner's exchange key in the question", gift(_bent_question))
    yield Attack(
        "GK-4.4",
        "the combiner gives, in a helper's name",
        gift(lambda a: a.away.admit(a.admitted(_by_combiner(a)))),
    )
    yield Attack("GK-4.4", "a gift of lower epochs: the site stays at its own", gift(_lower))
    yield Attack("GK-4.4", "a gift of a key that it gave up: it stays so", gift(_given_up))
    yield Attack("GK-6.3", "help from a site that refused three sums", gift(_from_refuser))


def _swapped_gift(a: Away) -> object:
    """site0's answer, to another question, passed on."""
    other = a.cast.site("site4")
    steps = Admission(
        a.cast.group, identity=a.cast.boss, site="site4", away=a.cast.control, control=a.now.control
    )
    asked = steps.help_frame(other.join(steps.join_frame()))
    return a.away.admit(a.admitted(a.now.site("site0").help(asked, a.now.control)))


def _twice(a: Away) -> object:
    frame = a.admitted(a.helped())
    a.away.admit(frame)
    return a.away.admit(frame)


def _old_gift(a: Away) -> object:
    helped = a.helped()
    a.away.join(a.steps.join_frame())
    return a.away.admit(a.admitted(helped))


def _bent_question(a: Away) -> object:
    frame = decode(a.joining, ANY)
    standing = Standing.decode(frame.body, sender="a", sites=5, round=7)
    bent = seal(replace(frame, body=replace(standing, exchange=mine()).encode(5)), a.cast.boss)
    return a.helper.help(a.now.forge(Kind.HELP, 3, bent), a.now.control)


def _by_combiner(a: Away) -> bytes:
    """The combiner knows the question's public key, so it can seal to it, but not sign."""
    frame = decode(a.helped(), ANY)
    exchange = X25519PrivateKey.generate()
    asked = Standing.decode(decode(a.joining, ANY).body, sender="a", sites=5, round=7).exchange
    envelope = Envelope(
        GIFT_LABEL, a.cast.binding, ("site1", "site3"), (public_bytes(exchange), asked), ()
    )
    sealed = envelope.seal(exchange, bytes(len(frame.body) - 48))
    return seal(replace(frame, body=public_bytes(exchange) + sealed), a.cast.boss)


def _lower(a: Away) -> object:
    """From a helper that is behind the one that asks, which has given its last key up."""
    helped = a.helped()
    a.away.keep(replace(a.away.ring, epoch=50, burned=True))
    answer = a.away.admit(a.admitted(helped))
    after = a.away.ring
    # GK-4.4: it stays where it is.
    assert (after.epoch, after.burned, after.current) == (50, True, None)
    return answer


def _given_up(a: Away) -> object:
    """The key that this site gave up, from a helper that still has it."""
    key = a.helper.usable(12)
    a.away.keep(a.away.ring.taking(key).refusing(key.key_id))
    answer = a.away.admit(a.admitted(a.helped()))
    after = a.away.ring
    assert (after.current, after.find(key.key_id), after.refusals) == (None, None, 1)
    return answer


def _from_refuser(a: Away) -> object:
    keys = a.helper
    for _ in range(3):
        keys.keep(keys.ring.refusing(bytes(32)))
    return a.helped()


def _search() -> None:
    """Nothing that crosses the network has a piece of it: stage, gift, uploads and sum."""
    import numpy as np
    from ckks_cast import residues
    from ckks_cast import secret as upload_secret
    from ckks_world import World

    from fedbcs_protocols.ckks.words import pack_words
    from fedbcs_protocols.derive import purpose_key

    frames: list[bytes] = []
    cast = make_group(4)
    frames += Stage(cast).run().frames
    away = Away()
    frames += [away.joining, away.helped(), away.admitted(away.helped())]
    secrets = {s.secret for c in (cast, away.cast) for n in c.names for s in c.ring(n).secrets}
    key = cast.ring("site0").current
    assert key is not None
    world = World(count=9000, secret=replace(key, began=0))
    frames += [*world.uploads.values(), world.run()]
    small: list[bytes] = []
    for name in world.names:
        fields = key.epoch, name, world.salt(name)
        secrets.add(purpose_key(key.secret, "ckks upload secret", world.binding, *fields))
        upload = upload_secret(world, name)
        assert set(upload.tolist()) == {-1, 0, 1}
        # As bytes, as words, as residues, and two bits each.
        small += [upload.astype(kind).tobytes() for kind in ("i1", "<i4", "<i8")]
        small.append(residues(upload).astype("<u8").tobytes())
        small.append(pack_words(residues(upload)))
        crumbs = (upload + 1).astype(np.uint8).reshape(-1, 4)
        small.append(
            (crumbs << np.arange(0, 8, 2, dtype=np.uint8)).sum(1, dtype=np.uint8).tobytes()
        )
    sent = b"\n".join(frames)
    # The search finds what is there: a key's name, a salt, a ciphertext.
    assert key.key_id in sent
    assert world.salt("site0") in sent
    assert world.chunks("site0")[0][:64] in sent
    for form in small:
        # Forty coefficients at least: a few in a row can be zeros, as other bytes are.
        for at in range(0, len(form) - 320, 97):
            assert form[at : at + 320] not in sent
    for secret in secrets:
        for at in range(25):
            assert secret[at : at + 8] not in sent
        assert secret[::-1][:8] not in sent
        assert secret.hex()[:16].encode() not in sent
        assert np.frombuffer(secret, ">u8").astype("<u8").tobytes()[:8] not in sent
