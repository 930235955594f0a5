"""Keys for a site that was away (GK-4), and who lies about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hostile_group import ANY, GroupCast, Stage, make_group

from fedbcs_protocols.errors import (
    BadKey,
    BadShare,
    BadSignature,
    Inconsistent,
    MalformedFrame,
    PeerError,
    Refused,
    UnexpectedFrame,
    UnknownSender,
    WrongBinding,
)
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.group import NO_KEY, Admission, SiteKeys
from fedbcs_protocols.group.messages import Taken, encode_gift
from fedbcs_protocols.group.standing import Status
from fedbcs_protocols.group.wrapping import GIFT_LABEL, Envelope
from fedbcs_protocols.wire import Frame, Kind, decode, seal

BOSS, AWAY = "@combiner", "site4"
REST = ["site0", "site1", "site2", "site3"]


class Return:
    """site4 took part in round 7, was away in 8 to 10, and comes back in 11."""

    def __init__(self) -> None:
        cast = make_group(5, threshold=3, rekey_every=1)
        Stage(cast).run()
        for round in (8, 9, 10):
            Stage(cast.at(round), REST).run()
        # It is in the state of round 8, the others in that of 11.
        self.there, self.here = cast.at(8), cast.at(11)
        self.away = self.there.site(AWAY)
        self.helper = self.here.site("site2")
        self.admission = Admission(
            cast.group,
            identity=cast.boss,
            site=AWAY,
            away=self.there.control,
            control=self.here.control,
        )
        self.frames: list[bytes] = []

    def _sent(self, frame: bytes) -> bytes:
        self.frames.append(frame)
        return frame

    def join(self) -> Return:
        self.joining = self._sent(self.away.join(self._sent(self.admission.join_frame())))
        return self

    def help(self) -> Return:
        request = self._sent(self.admission.help_frame(self.joining))
        self.helped = self._sent(self.helper.help(request, self.here.control))
        return self

    def admit(self) -> Return:
        frame = self._sent(self.admission.admitted_frame("site2", self.helped))
        self.taken = self._sent(self.away.admit(frame))
        self.admission.admitted(self.taken)
        return self

    def admitted_with(self, inner: bytes) -> bytes:
        """*admitted* with another answer, signed by the combiner."""
        return self.there.forge(Kind.ADMITTED, 4, inner)


def refused(
    call: Callable[[], object], error: type[PeerError], sender: str, match: str = ""
) -> None:
    with pytest.raises(error, match=match or None) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.sender == sender


def test_it_has_what_it_missed() -> None:
    """GK-4.1 to GK-4.4"""
    back = Return().join().help().admit()
    mine, theirs = back.away.ring, back.helper.ring
    assert [s.epoch for s in mine.secrets] == [1, 2, 3, 4]
    assert mine.secrets[1:] == theirs.secrets[1:]
    assert (mine.epoch, mine.current) == (theirs.epoch, theirs.current)
    taken = Taken.decode(decode(back.taken, ANY).body, sender="a")
    assert theirs.current is not None
    assert (taken.epoch, taken.key_id) == (4, theirs.current.key_id)
    # It is no member yet, so a new key is made, although this one may still serve.
    assert 4 not in theirs.current.members
    Stage(back.here).run()
    assert back.here.ring(AWAY).current == back.here.ring("site0").current
    assert back.here.ring(AWAY).epoch == 5


def test_a_site_that_is_new_to_all() -> None:
    """Its disk is gone: it gets all that a site keeps, and no more (GK-5.1)."""
    cast = make_group(4, threshold=2, rekey_every=1)
    rest = ["site0", "site1"]
    for round in range(7, 30):
        Stage(cast.at(round), rest).run()
    now = cast.at(30)
    admission = Admission(
        cast.group, identity=cast.boss, site="site3", away=now.control, control=now.control
    )
    away = now.site("site3")
    joining = away.join(admission.join_frame())
    helped = now.site("site1").help(admission.help_frame(joining), now.control)
    away.admit(admission.admitted_frame("site1", helped))
    assert away.ring.secrets == now.ring("site1").secrets
    assert len(away.ring.secrets) == 18


def test_the_answer_has_always_the_same_length() -> None:
    """GK-4.3: how long a site was away, nobody learns from it."""
    back = Return().join().help()
    poor = make_group(5, threshold=3)
    Stage(poor, REST).run()
    rich = back.here.site("site1").ring
    assert len(rich.secrets) == 4
    assert len(poor.ring("site1").secrets) == 1
    back.here.site("site2").keep(poor.ring("site1"))
    first, back_again = len(back.helped), back.help()
    assert len(back_again.helped) == first


def test_the_exchange_keys_are_fresh() -> None:
    back = Return().join().help()
    joining, helped = back.joining, back.helped
    back.join().help()
    assert back.joining != joining
    assert decode(back.helped, ANY).body[:32] != decode(helped, ANY).body[:32]
    # And an answer to the last question is none to this one.
    refused(lambda: back.away.admit(back.admitted_with(helped)), BadShare, "site2")
    back.admit()
    refused(
        lambda: back.away.admit(back.admitted_with(back.helped)),
        UnexpectedFrame,
        BOSS,
        "did not ask for any",
    )


# Who may be helped (GK-4.2) ----------------------------------------------------------------------


def _asked(back: Return, **changes: object) -> bytes:
    """*help* with a *joining* frame that is changed and signed by its site."""
    frame = decode(back.joining, ANY)
    inner = back.there.signed(AWAY, frame, **changes)
    return back.here.forge(Kind.HELP, 3, inner)


def test_who_is_not_helped() -> None:
    back = Return().join()
    here, frame = back.here, decode(back.joining, ANY)

    def helping(data: bytes) -> Callable[[], bytes]:
        return lambda: back.helper.help(data, here.control)

    invented = seal(replace(frame, sender="site9"), here.boss)
    own = here.signed("site2", replace(frame, sender="site2"))
    for inner, error, sender in (
        (seal(frame, here.boss), BadSignature, AWAY),
        (here.signed("site1", frame), BadSignature, AWAY),
        (invented, UnknownSender, "site9"),
        (own, UnknownSender, "site2"),
        (seal(replace(frame, sender=BOSS), here.boss), UnknownSender, BOSS),
        (b"", MalformedFrame, "unread frame"),
        (back.joining[:-1], MalformedFrame, "unread frame"),
        (here.signed(AWAY, frame, kind=Kind.READY), UnexpectedFrame, AWAY),
        (here.signed(AWAY, frame, sequence=0), WrongBinding, AWAY),
    ):
        refused(helping(here.forge(Kind.HELP, 3, inner)), error, sender)
    for change, field in (({"study_digest": bytes(32)}, "study digest"), ({"phase": 1}, "phase")):
        other = _asked(back, binding=replace(frame.binding, **change))
        refused(helping(other), WrongBinding, AWAY, field)
    # It may be behind, but not ahead: then it is this site that was away.
    same = _asked(back, binding=replace(frame.binding, round=11))
    assert back.helper.help(same, here.control)
    ahead = _asked(back, binding=replace(frame.binding, round=12))
    refused(helping(ahead), Inconsistent, AWAY, "ahead of this site")
    dull = bytes(frame.body)
    dull = dull[:43] + bytes(32) + dull[75:]
    refused(helping(_asked(back, body=dull)), BadKey, AWAY)


def test_who_does_not_help() -> None:
    back = Return().join()
    request = back.admission.help_frame(back.joining)
    current = back.helper.ring.current
    assert current is not None
    back.helper.burn(current.key_id)
    with pytest.raises(Refused, match="no key of the group's to pass on"):
        back.helper.help(request, back.here.control)
    back.helper.burn(bytes(32))
    back.helper.burn(bytes(32))
    with pytest.raises(Refused, match="until a person has looked"):
        back.helper.help(request, back.here.control)


def test_frames_of_the_wrong_kind_or_time() -> None:
    back = Return().join().help()
    there = back.there
    joins = back.admission.join_frame()
    # The state is the combiner's word (GK-4.1); study and phase are not.
    for change in ({"study_digest": bytes(32)}, {"phase": 1}, {"attempt": 1}):
        other = there.forge(Kind.JOIN, 2, b"", binding=replace(there.binding, **change))
        refused(lambda data=other: back.away.join(data), WrongBinding, BOSS)
    refused(
        lambda: back.away.join(there.forge(Kind.JOIN, 2, b"\0")),
        MalformedFrame,
        BOSS,
    )
    refused(
        lambda: back.away.join(there.signed("site1", decode(joins, ANY))),
        BadSignature,
        BOSS,
    )
    for number in (0, 3):
        refused(
            lambda n=number: back.away.join(there.forge(Kind.JOIN, n, b"")),
            WrongBinding,
            BOSS,
        )
    fresh = there.site(AWAY)
    refused(
        lambda: fresh.admit(back.admitted_with(back.helped)),
        UnexpectedFrame,
        BOSS,
        "did not ask for any",
    )


def test_whatever_state_the_combiner_names() -> None:
    """GK-4.1: nothing but a fresh key follows; a site that is asked anew answers anew."""
    back = Return().join()
    before = back.away.ring
    for round in (0, 8, 11, 2**32 - 1):
        named = replace(back.there.binding, round=round, state_digest=bytes([round % 256]) * 32)
        answer = decode(back.away.join(back.there.forge(Kind.JOIN, 2, b"", binding=named)), ANY)
        assert (answer.kind, answer.binding, answer.sequence) == (Kind.JOINING, named, 2)
    assert back.away.ring == before
    # What was meant for the first question opens no more.
    back.help()
    refused(admitting(back, back.helped), WrongBinding, BOSS)


# What it is given (GK-4.3, GK-4.4) ---------------------------------------------------------------


def gift(back: Return, name: str, plain: bytes, **changes: object) -> bytes:
    """An answer of a site that lies: any plain text, encrypted and signed as it should be."""
    asking = decode(back.joining, ANY)
    private = X25519PrivateKey.generate()
    keys = (public_bytes(private), bytes(asking.body[43:75]))
    fields = {"label": GIFT_LABEL, "binding": asking.binding, "names": (name, AWAY)}
    envelope = Envelope(**{**fields, "keys": keys, "about": (), **changes})  # type: ignore[arg-type]
    body = keys[0] + envelope.seal(private, plain)
    frame = Frame(Kind.HELPED, back.here.binding, name, 3, body)
    return back.here.signed(name, frame)


def admitting(back: Return, inner: bytes) -> Callable[[], bytes]:
    return lambda: back.away.admit(back.admitted_with(inner))


def test_a_helper_that_lies() -> None:
    back = Return().join().help()
    before, helper = back.away.ring, back.helper.ring
    held = helper.secrets
    other = replace(before.secrets[0], secret=bytes(32))
    good = encode_gift(4, held, 5)
    for plain, match in (
        (encode_gift(0, (), 5), "of epoch 0, this site is at 1"),
        (encode_gift(4, (other, *held), 5), "two keys of one epoch"),
    ):
        with pytest.raises(Refused, match=match):
            admitting(back, gift(back, "site2", plain))()
    for plain in (encode_gift(2, held, 5), good[:-1] + b"\1", b"\0\0\0\4\xff" + good[5:]):
        refused(admitting(back, gift(back, "site2", plain)), MalformedFrame, "site2")
    nobody = replace(held[-1], members=frozenset())
    plain = encode_gift(4, (*held[:-1], nobody), 5)
    refused(admitting(back, gift(back, "site2", plain)), MalformedFrame, "site2", "of nobody")
    # One ready site may make the others go one further than its highest number.
    late = encode_gift(4, (*held[:-1], replace(held[-1], began=12)), 5)
    far = encode_gift(13 * 1024 + 1, held, 5)
    for plain in (late, far):
        refused(admitting(back, gift(back, "site2", plain)), Inconsistent, "site2", "cannot be yet")
    for plain in (b"", good[:-1], good + b"\0"):
        with pytest.raises((BadKey, MalformedFrame)):
            admitting(back, gift(back, "site2", plain))()
    for change in (
        {"label": "group deal"},
        {"names": (AWAY, "site2")},
        {"names": ("site1", AWAY)},
        {"binding": back.here.binding},
        {"about": (4,)},
    ):
        refused(admitting(back, gift(back, "site2", good, **change)), BadShare, "site2")
    assert back.away.ring == before
    # A true answer, by any other site of the roster.
    assert admitting(back, gift(back, "site1", good))()
    assert back.away.ring.current == helper.current


def test_a_gift_while_a_ready_site_lies_about_the_epoch() -> None:
    """GK-2.5, GK-4.4: it drives the epoch up as far as it can; the gift is taken all the same."""
    back = Return().join()
    here = back.here
    liar = here.site("site1")
    liar.keep(replace(liar.ring, epoch=12 * 1024, burned=True))
    Stage(here, REST).run()
    assert here.ring("site2").epoch == 12 * 1024 + 1
    back.help().admit()
    assert here.ring(AWAY).epoch == 12 * 1024 + 1
    assert here.ring(AWAY).current == here.ring("site2").current


def test_a_helper_that_gives_the_highest_epoch_there_can_be() -> None:
    """GK-4.4, GK-2.5: the others then believe the site, so the next key is one that it takes."""
    back = Return().join().help()
    held = back.helper.ring.secrets
    assert admitting(back, gift(back, "site2", encode_gift(12 * 1024, held, 5)))()
    assert back.here.ring(AWAY).epoch == 12 * 1024
    Stage(back.here).run()
    assert back.here.ring(AWAY).epoch == 12 * 1024 + 1
    assert back.here.ring(AWAY).current == back.here.ring("site0").current


def test_a_key_that_began_in_a_round_that_is_not_yet() -> None:
    """GK-4.4: a site that has one says that it has none, and is dealt the next."""
    back = Return().join().help().admit()
    site = back.here.site(AWAY)
    (*before, last) = site.ring.secrets
    site.keep(replace(site.ring, secrets=(*before, replace(last, began=20))))
    standing = site.ring.standing(bytes(32), 11)
    assert (standing.status, standing.epoch, standing.key_id) == (Status.BURNED, 4, NO_KEY)
    with pytest.raises(Refused, match="has served"):
        site.usable(11)
    Stage(back.here).run()
    assert back.here.ring(AWAY).current == back.here.ring("site0").current
    assert back.here.site(AWAY).usable(11).began == 11


def test_a_combiner_that_passes_something_else_on() -> None:
    back = Return().join().help()
    there, frame = back.there, decode(back.helped, ANY)
    before = back.away.ring
    for inner, error, sender in (
        (seal(frame, there.boss), BadSignature, "site2"),
        (there.signed("site1", frame), BadSignature, "site2"),
        (there.signed("site1", frame, sender="site1"), BadShare, "site1"),
        (there.signed(AWAY, frame, sender=AWAY), UnknownSender, AWAY),
        (seal(replace(frame, sender=BOSS), there.boss), UnknownSender, BOSS),
        (there.signed("site2", frame, kind=Kind.JOINING), UnexpectedFrame, "site2"),
        (there.signed("site2", frame, sequence=2), WrongBinding, "site2"),
        (b"", MalformedFrame, "unread frame"),
    ):
        refused(admitting(back, inner), error, sender)
    for change in ({"study_digest": bytes(32)}, {"phase": 1}):
        inner = there.signed("site2", frame, binding=replace(frame.binding, **change))
        refused(admitting(back, inner), WrongBinding, "site2")
    changed = bytearray(frame.body)
    changed[40] ^= 1
    refused(admitting(back, there.signed("site2", frame, body=bytes(changed))), BadShare, "site2")
    assert back.away.ring == before
    back.admit()


def test_what_it_gave_up_stays_given_up() -> None:
    """GK-4.4"""
    cast = make_group(4, threshold=2)
    Stage(cast).run()
    away, helper = cast.site("site3"), cast.site("site1")
    key = helper.usable(7)
    away.burn(key.key_id)
    admission = Admission(
        cast.group, identity=cast.boss, site="site3", away=cast.control, control=cast.control
    )
    joining = away.join(admission.join_frame())
    helped = helper.help(admission.help_frame(joining), cast.control)
    taken = away.admit(admission.admitted_frame("site1", helped))
    assert away.ring.find(key.key_id) is None
    assert Taken.decode(decode(taken, ANY).body, sender="a") == Taken(1, bytes(32))
    with pytest.raises(Refused):
        away.usable(7)


# The combiner's own checks -----------------------------------------------------------------------


def test_the_combiner_takes_true_answers_only() -> None:
    back = Return().join().help().admit()
    admission, there = back.admission, back.there
    joining, helped = decode(back.joining, ANY), decode(back.helped, ANY)
    taken = decode(back.taken, ANY)
    for call, error in (
        (lambda: admission.help_frame(there.signed("site1", joining)), BadSignature),
        (lambda: admission.help_frame(back.taken), UnexpectedFrame),
        (lambda: admission.help_frame(there.signed(AWAY, joining, sequence=1)), WrongBinding),
        (lambda: admission.admitted_frame("site1", back.helped), UnknownSender),
        (lambda: admission.admitted_frame("site2", there.signed("site1", helped)), BadSignature),
        (lambda: admission.admitted(there.signed(AWAY, taken, sequence=1)), WrongBinding),
        (lambda: admission.admitted(there.signed("site1", taken)), BadSignature),
        (lambda: admission.admitted(there.signed(AWAY, taken, kind=Kind.SUM)), UnexpectedFrame),
    ):
        with pytest.raises(error):
            call()


def test_a_combiner_cannot_answer_itself() -> None:
    """GK-7.1: nobody outside the roster is helped, so the combiner would need a site of its own."""
    back = Return()
    other: GroupCast = back.here
    liar = SiteKeys(
        other.group,
        identity=other.boss,
        name=AWAY,
        study_digest=other.control.study_digest,
        keeper=other.keepers["site1"],
    )
    joining = liar.join(other.forge(Kind.JOIN, 2, b""))
    request = other.forge(Kind.HELP, 3, joining)
    refused(lambda: back.helper.help(request, other.control), BadSignature, AWAY)
