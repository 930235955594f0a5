"""A ledger, its head and its releases that were restored together are seen (RO-7, DP-5.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from federation_fixtures import ANYTHING, gone_from, make_study
from federation_world import GROUPED, PROTECTIONS, world
from private_world import Make, Private, private_study

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import Inconsistent, MalformedFrame, PeerError
from fedbcs_protocols.group import Standing
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.errors import RoundError, RunFolderError
from fedbcs_secure.federation.heads import (
    HEAD_BYTES,
    HeadWentBack,
    OlderLedger,
    SeenHeads,
    decode_head,
    encode_head,
)
from fedbcs_secure.federation.readies import KeptReadies, ReadyFile, check_own
from fedbcs_secure.federation.rounds import CONTROL
from fedbcs_secure.privacy.policy import Reason, SitePolicy
from fedbcs_secure.privacy.shown import ShownHead

ALLOWED = SitePolicy(min_noise_multiplier=0.1, protections=("secagg", "ckks", "none"))
BLIND = "fedbcs_secure.federation.site.check_own"
"""What a site sees of its own old frames; taken out, others must see it."""


def federation(private: Make, protection: str = "unverified", **values: object) -> Private:
    study = private_study(**(PROTECTIONS[protection] | values))
    return private(study, **dict.fromkeys("ABCD", ALLOWED))


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BLIND, lambda *_: None)


def shown(w: Private, name: str) -> ShownHead:
    """What the site's last *ready* says of its ledger."""
    body = bytes(w.lines.sent(Kind.READY)[name][-1].body)
    return decode_head(body[-HEAD_BYTES:], sender=name)


def started(w: Private, name: str) -> bytes:
    """The body of the last *start* that the site was sent."""
    frames = (decode(data, ANYTHING) for data in reversed(w.lines.down[name]))
    return next(bytes(frame.body) for frame in frames if frame.kind is Kind.START)


def why(w: Private, name: str) -> Exception:
    """The first error at a site since this was looked at last."""
    found = next(error for site, error in w.lines.errors if site == name)
    w.lines.errors.clear()
    return found


# What travels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protection", list(PROTECTIONS))
def test_a_ready_frame_says_how_far_the_ledger_is(private: Make, protection: str) -> None:
    """RO-7.1: after this round's release; RO-7.4: the next *start* brings it back."""
    w = federation(private, protection)
    standing = Standing.length(4) if protection in GROUPED else 0
    for number in (1, 2):
        w.round()
        for name in "ABCD":
            (*_, frame) = w.lines.sent(Kind.READY)[name]
            assert len(frame.body) == w.cast.parties.ready_bytes == standing + HEAD_BYTES
            # opened, policy, and a release a round
            assert shown(w, name) == w.ledger(name).show_head(w.cast.parties.digest)
            assert shown(w, name).value != w.ledger(name).head.hash
            assert shown(w, name).sequence == 2 + number
            before = [f.encode() for f in w.lines.sent(Kind.READY)[name]][:-1]
            assert started(w, name) == (before[-1] if before else b"")


@pytest.mark.parametrize("protection", list(PROTECTIONS))
def test_without_privacy_nothing_is_added(protection: str) -> None:
    w = world(**PROTECTIONS[protection])
    w.round()
    w.round()
    length = Standing.length(4) if protection in GROUPED else 0
    for name in "ABCD":
        assert {len(f.body) for f in w.lines.sent(Kind.READY)[name]} == {length}
        starts = [decode(data, ANYTHING) for data in w.lines.down[name]]
        assert {len(f.body) for f in starts if f.kind is Kind.START} == {0}
    assert w.parties.start_limit == 0


# The site ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protection", list(PROTECTIONS))
def test_a_site_sees_by_its_own_frame_that_its_ledger_is_older(
    private: Make, protection: str
) -> None:
    """RO-7.4: nothing is trained or booked, the others go on, and the latest ledger mends it."""
    w = federation(private, protection)
    w.round()
    old = w.backup("B")
    w.round()
    latest = w.backup("B")
    w.put_back("B", old)
    head = w.ledger("B").head
    w.trained.clear()
    w.lines.errors.clear()
    assert w.round().survivors == ("A", "C", "D")
    assert "B" not in {name for name, _ in w.trained}
    assert w.ledger("B").head == head
    refusal = why(w, "B")
    assert isinstance(refusal, OlderLedger)
    for part in ("signed entry 4", "ends at entry 3", "Put back the latest", "takes no part"):
        assert part in str(refusal)
    w.put_back("B", latest)
    assert w.round().survivors == ("A", "B", "C", "D")


def test_a_site_whose_older_ledger_went_on_by_itself(private: Make, blind: None) -> None:
    """The number alone shows nothing then; the value that was signed with it does."""
    w = federation(private)
    old = w.backup("B")
    w.round()
    signed = w.lines.up["B"][0]
    w.put_back("B", old)
    for number in range(4):
        w.ledger("B").refuse(bytes(32), number, Reason.NOISE)
    assert w.round().faults == {}
    with pytest.raises(OlderLedger, match=r"signed entry 3, .* which ends at entry 7"):
        _check(w, signed)


def _check(w: Private, frame: bytes) -> None:
    check_own(frame, "B", w.cast.parties, w.ledger("B"))


@pytest.mark.parametrize("protection", list(GROUPED))
def test_a_whole_disk_that_was_restored(private: Make, protection: str) -> None:
    """RO-6, then RO-7.4: the site comes to the current state, and no further."""
    w = federation(private, protection)
    w.round()
    old, state = w.backup("B"), w.lines.sites["B"].state
    w.round()
    w.put_back("B", old)
    w.lines.sites["B"] = w.site("B", state)
    assert w.round().survivors == ("A", "C", "D")
    assert w.lines.sites["B"].state.digest == w.state.digest
    w.lines.errors.clear()
    assert w.round().survivors == ("A", "C", "D")
    assert isinstance(why(w, "B"), OlderLedger)


def test_older_frames_of_its_own_are_harmless(private: Make) -> None:
    """A combiner may bring back any of them: they are in the ledger."""
    w = federation(private, "none")
    for _ in range(3):
        w.round()
    frames = [frame.encode() for frame in w.lines.sent(Kind.READY)["B"]]
    assert len(frames) == 3
    for frame in frames:
        w.lines.sites["B"].handle(_start(w, frame))
    assert w.trained.count(("B", 3)) == 1


def _start(w: Private, body: bytes) -> bytes:
    return w.cast.frame(Kind.START, w.cast.parties.binding(w.state, CONTROL), 0, body)


def _forged(w: Private) -> Iterator[tuple[str, bytes]]:
    """Bodies of *start* that are no *ready* frame of site B in this study."""
    ready = w.lines.sent(Kind.READY)["B"][-1]
    good, key = ready.encode(), w.cast.identities["B"]
    yield "one byte", b"\0"
    yield "a head alone", encode_head(shown(w, "B"))
    yield "cut short", good[:-1]
    yield "a trailing byte", good + b"\0"
    yield "another site's", w.lines.sent(Kind.READY)["C"][-1].encode()
    yield "the combiner's", seal(replace(ready, sender=COMBINER), w.cast.server)
    yield "signed by the combiner", seal(ready, w.cast.server)
    yield "no signature", good[:-64] + bytes(64)
    yield "another head", good[:-65] + bytes([good[-65] ^ 1]) + good[-64:]
    yield "another kind", w.lines.sent(Kind.ACCEPTED)["B"][-1].encode()
    # What follows the site never signs.
    yield "a head too short", seal(replace(ready, body=bytes(ready.body)[:-1]), key)
    yield "no head", seal(replace(ready, body=b""), key)
    yield "another sequence", seal(replace(ready, sequence=1), key)
    for field, value in (("study_digest", bytes(32)), ("attempt", 1), ("phase", 1)):
        binding = replace(ready.binding, **{field: value})
        yield f"another {field}", seal(replace(ready, binding=binding), key)


@pytest.mark.parametrize("protection", ["none", "verified"])
def test_what_is_no_frame_of_its_own_is_the_combiners_fault(private: Make, protection: str) -> None:
    """RO-7.4: named so, and nothing follows from it; no refusal for the ledger's sake."""
    w = federation(private, protection)
    w.round()
    site = w.lines.sites["B"]
    w.trained.clear()
    for what, body in _forged(w):
        with pytest.raises(Inconsistent, match="no ready frame of it") as error:
            site.handle(_start(w, body))
        assert error.value.sender == COMBINER, what
    with pytest.raises(MalformedFrame):
        site.handle(_start(w, bytes(w.cast.parties.start_limit + 1)))
    assert w.trained == []
    assert w.ledger("B").show_head(w.cast.parties.digest) == shown(w, "B")
    assert w.round().survivors == ("A", "B", "C", "D")


@pytest.mark.parametrize("protection", list(PROTECTIONS))
def test_a_site_that_is_ready_shows_the_same_however_often_it_is_asked(
    private: Make, protection: str
) -> None:
    """RO-2.1, RO-7.1: what the ledger books of other studies meanwhile is not to be polled."""
    w = federation(private, protection)
    w.round()
    kept = w.lines.sent(Kind.READY)["B"][-1].encode()
    site, length = w.lines.sites["B"], w.cast.parties.ready_bytes
    first = site.handle(_start(w, b""))
    trained = list(w.trained)
    for number, body in enumerate((kept, b"", first)):
        w.ledger("B").refuse(bytes(32), number, Reason.NOISE)
        again = site.handle(_start(w, body))
        heads = [bytes(decode(f, ANYTHING).body)[length - HEAD_BYTES :] for f in (first, again)]
        assert heads[0] == heads[1]
        # GK-2.1: in a standing there is a fresh key each time.
        assert (first == again) == (protection not in GROUPED)
    with pytest.raises(Inconsistent):
        site.handle(_start(w, b"no frame"))
    assert w.trained == trained
    assert w.round().survivors == ("A", "B", "C", "D")
    assert w.round().faults == {}
    # The next round shows what was booked: a release a round, and three refusals.
    assert shown(w, "B").sequence == 2 + 3 + 3


def test_two_studies_do_not_see_that_it_is_one_ledger(private: Make) -> None:
    """RO-7.1: by the number at most; and no study's frames are another's proof."""
    w, other = federation(private, "none"), federation(private, "none", rounds=7)
    w.round()
    ledger, digests = w.ledger("B"), [each.cast.parties.digest for each in (w, other)]
    one, two = (ledger.show_head(digest) for digest in digests)
    assert one == shown(w, "B")
    assert (one.sequence, one.value) != (two.sequence, two.value)
    ready = w.lines.sent(Kind.READY)["B"][-1]
    with pytest.raises(OlderLedger):
        _check(w, seal(replace(ready, body=encode_head(two)), w.cast.identities["B"]))


# The combiner ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protection", list(PROTECTIONS))
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_combiner_leaves_a_site_out_whose_ledger_went_back(
    private: Make, blind: None, protection: str, rounds: int
) -> None:
    """RO-7.2: one entry behind, it comes to the same number with another value; else to a smaller.

    It is out until its ledger is beyond what was seen.
    """
    w = federation(private, protection)
    w.round()
    old = w.backup("B")
    for _ in range(rounds):
        w.round()
    w.put_back("B", old)
    result = w.round()
    assert result.survivors == ("A", "C", "D")
    fault = result.faults["B"]
    assert isinstance(fault, HeadWentBack)
    assert ("another value" if rounds == 1 else f"entry 4, after entry {3 + rounds}") in str(fault)
    assert w.lines.sites["B"].state.digest == w.state.digest


def test_too_few_are_left(private: Make) -> None:
    w = federation(private)
    old = {name: w.backup(name) for name in "BC"}
    w.round()
    for name, copy in old.items():
        w.put_back(name, copy)
    with pytest.raises(RoundError, match="2 of 4 sites are ready"):
        w.round()
    assert [type(error) for _, error in w.lines.errors] == [OlderLedger, OlderLedger]


@pytest.mark.parametrize("protection", ["none", "unverified"])
def test_a_combiner_that_is_started_anew_still_knows(private: Make, protection: str) -> None:
    """RO-7.2: it kept the frames before anything followed from them."""
    w = federation(private, protection)
    old = w.backup("B")
    w.round()
    w.restart_combiner()
    w.put_back("B", old)
    assert w.round().survivors == ("A", "C", "D")
    assert isinstance(why(w, "B"), OlderLedger)
    # One that has lost the file does not.
    w.readies.path.unlink()
    w.restart_combiner()
    assert w.round().survivors == ("A", "B", "C", "D")


@pytest.mark.parametrize("protection", list(PROTECTIONS))
def test_a_combiner_that_dies_in_the_middle_of_a_round(private: Make, protection: str) -> None:
    """It brings back a frame of this very round then, which the ledger has as well."""
    w = federation(private, protection)
    w.round()
    with pytest.raises(RoundError):
        w.round(gone_from("advertise", "ABCD"))
    kept = {name: w.lines.sent(Kind.READY)[name][-1].encode() for name in "ABCD"}
    w.restart_combiner()
    result = w.round()
    assert (result.survivors, result.faults) == (("A", "B", "C", "D"), {})
    assert {name: started(w, name) for name in "ABCD"} == kept
    assert w.trained.count(("B", 1)) == 1


def test_what_a_restarted_combiner_kept_it_compares_with(private: Make, blind: None) -> None:
    w = federation(private)
    old = w.backup("B")
    w.round()
    w.restart_combiner()
    w.put_back("B", old)
    assert isinstance(w.round().faults["B"], HeadWentBack)


def test_a_file_that_is_damaged_or_anothers(private: Make) -> None:
    w, other = federation(private), federation(private, rounds=7)
    for each in (w, other):
        each.round()
    good = w.readies.path.read_bytes()
    bad = [good[:-1], good + b"\0", b"", other.readies.path.read_bytes(), bytes(1 << 16)]
    for data in [*bad, good[:40] + bytes([good[40] ^ 1]) + good[41:]]:
        w.readies.path.write_bytes(data)
        with pytest.raises(RunFolderError, match="damaged or of another study"):
            w.restart_combiner()
    w.readies.path.write_bytes(good)
    w.restart_combiner()
    assert w.round().survivors == ("A", "B", "C", "D")


def test_a_file_that_cannot_be_written(private: Make) -> None:
    w = federation(private)
    w.readies.path.parent.write_bytes(b"")
    with pytest.raises(RunFolderError, match="cannot write"):
        w.round()


def test_without_privacy_no_file_is_written_or_read(private: Make) -> None:
    w = federation(private)
    parties = replace(w.cast.parties, study=make_study())
    file = ReadyFile(w.folder / "missing" / "readies")
    kept = KeptReadies(parties, file)
    kept.take("A", b"frame", b"")
    kept.keep()
    assert kept.last("A") == b""
    assert not file.path.parent.exists()


# Other sites -------------------------------------------------------------------------------------


def test_sites_refuse_a_list_with_a_site_whose_ledger_went_back(
    private: Make, blind: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RO-7.3: by what they saw before, whatever the combiner says."""
    w = federation(private, "verified", rekey_every=1)
    old = w.backup("B")
    w.round()
    w.put_back("B", old)
    monkeypatch.setattr(KeptReadies, "take", lambda *_: None)
    with pytest.raises(RoundError, match=r"have the group's key.* A, C, D declined the sites"):
        w.round()
    first, error = w.lines.errors[0]
    assert (first, type(error)) == ("A", HeadWentBack)
    assert isinstance(error, PeerError)
    assert error.sender == "B"
    # The dealers in turn: B deals as well, and C and D do not take it.
    assert {site for site, each in w.lines.errors if isinstance(each, HeadWentBack)} >= {"A"}
    assert {each.sender for _, each in w.lines.errors if isinstance(each, HeadWentBack)} == {"B"}


# Heads -------------------------------------------------------------------------------------------


def test_the_form_of_a_head() -> None:
    head = ShownHead(2**63 + 5, bytes(range(32)))
    assert encode_head(head) == (2**63 + 5).to_bytes(8, "big") + bytes(range(32))
    assert decode_head(encode_head(head), sender="A") == head
    for length in (0, 39, 41):
        with pytest.raises(MalformedFrame, match=f"head of {length} bytes"):
            decode_head(bytes(length), sender="A")


def test_heads_only_grow() -> None:
    def shows(number: int, letter: bytes = b"a") -> bytes:
        return encode_head(ShownHead(number, letter * 32))

    seen = SeenHeads()
    seen.take({"A": shows(5), "B": shows(9)})
    seen.take({"A": shows(5)})
    for worse in (shows(4), shows(0), shows(5, b"b")):
        with pytest.raises(HeadWentBack) as error:
            seen.take({"B": shows(10), "A": worse})
        assert error.value.sender == "A"
    # All or none: B's was not taken.
    seen.take({"B": shows(9), "A": shows(6, b"b")})
    with pytest.raises(HeadWentBack, match="entry 5, after entry 6"):
        seen.take({"A": shows(5)})


def test_a_frame_of_another_round_opens(private: Make) -> None:
    """What was signed stays signed: round and state are not asked about."""
    w = federation(private, "none")
    w.round()
    frame: Frame = w.lines.sent(Kind.READY)["B"][-1]
    later = replace(frame, binding=replace(frame.binding, round=2**32 - 1))
    _check(w, seal(later, w.cast.identities["B"]))
