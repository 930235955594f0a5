"""Rounds of a study under ckks: what the combiner sees, forges, and cannot have (CK)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from crashes import Crash, DyingChannel, DyingKeys, Moments
from federation_fixtures import ANYTHING, Cast, fake_training, make_study
from federation_world import GROUPED, World, away, world

from fedbcs_protocols.ckks import CkksCombiner
from fedbcs_protocols.ckks.cipher import Encryptor
from fedbcs_protocols.ckks.messages import Encrypted
from fedbcs_protocols.ckks.params import DEGREE, NOISE_BOUND, PRIME, ParameterSet
from fedbcs_protocols.errors import (
    BadNoise,
    Inconsistent,
    PeerError,
    Refused,
    SumOutOfRange,
    UnexpectedFrame,
)
from fedbcs_protocols.group import MAX_REFUSALS, Status
from fedbcs_protocols.secagg import Guard
from fedbcs_protocols.secagg.marks import MAX_ATTEMPTS
from fedbcs_protocols.wire import Frame, Kind, decode, seal
from fedbcs_secure.errors import RoundError
from fedbcs_secure.federation.journal import FileJournals
from fedbcs_secure.federation.layout import Layout
from fedbcs_secure.federation.missed import SumShelf
from fedbcs_secure.federation.protect import encode
from fedbcs_secure.federation.release import form_update
from fedbcs_secure.federation.rounds import StateName
from fedbcs_secure.federation.site import SiteRunner
from fedbcs_secure.federation.state import GlobalState
from fedbcs_secure.study import Study

Start = Callable[[Study], tuple[Layout, GlobalState]]
Replies = Iterator[tuple[str, bytes]]


def encrypted(**values: object) -> World:
    return world(protection="ckks", **values)


def undisturbed(rounds: int = 1) -> bytes:
    """The digest of the state after so many rounds with everybody."""
    w = encrypted()
    for _ in range(rounds):
        w.round()
    return w.state.digest


# What the combiner sees --------------------------------------------------------------------------


def test_the_combiner_knows_a_state_by_its_name_only() -> None:
    """RO-2.11: the digest that the sites name, from round to round."""
    w = encrypted()
    for number in range(1, 4):
        result = w.round()
        assert type(result.state) is StateName
        assert result.state == StateName(number, w.at("A").digest)
        assert (result.survivors, result.attempts, result.faults) == (tuple("ABCD"), 1, {})
        assert w.behind() == ""


class Secrets:
    """What is known of each upload while it is made: its secret, and the key of its noise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secrets: list[np.ndarray] = []
        self.noise_keys: list[bytes] = []
        true = Encryptor.__init__

        def begun(cipher: Encryptor, params, binding, secret, noise_key, scratch) -> None:  # type: ignore[no-untyped-def]
            self.secrets.append(secret)
            self.noise_keys.append(noise_key)
            true(cipher, params, binding, secret, noise_key, scratch)

        monkeypatch.setattr(Encryptor, "__init__", begun)


def test_neither_a_state_nor_a_vector_nor_a_key_is_in_any_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over three rounds, in one of which a site lost its disk and was given a state (RO-6)."""
    w, made = encrypted(), Secrets(monkeypatch)
    states = [w.beginning]
    w.round()
    w.wipe("C")
    for _ in range(2):
        states.append(w.at("A"))
        w.round()
    states.append(w.at("A"))
    assert w.asked(Kind.RESTORE) == "C"
    assert w.behind() == ""
    seen = w.seen()
    for state in states:
        assert state.digest in seen
        for array in (state.weights, state.velocity, *(p.rows for p in state.prototypes)):
            plain = array.tobytes()
            pieces = [plain[at : at + 16] for at in range(0, len(plain) - 15, 16)]
            assert not [piece for piece in pieces if any(piece) and piece in seen]
    for state in states[:-1]:
        for name in "ABCD":
            update = form_update(fake_training(name, state), state, w.parties.plan, name)
            codes = encode(update, state, w.parties.plan, w.study, name).codes
            # In memory, packed, and as coefficients of a plaintext (CK-2.1).
            scaled = codes.astype("<u8") * np.uint64(256)
            for words in (codes.astype("<u4"), codes.astype("<u2"), scaled):
                plain = words.tobytes()
                assert not [at for at in range(0, len(plain), 16) if plain[at : at + 16] in seen]
    secrets = {s.secret for name in "ABCD" for s in w.ring(name).secrets}
    assert len(secrets) == 3
    assert not [secret for secret in secrets if secret in seen]
    # One of each for each upload (CK-3.3, CK-3.4); C has none while it is given a state.
    assert len(made.noise_keys) == len(set(made.noise_keys)) == 11
    assert not [key for key in made.noise_keys if key in seen]
    assert len({secret.tobytes() for secret in made.secrets}) == 11
    for secret in made.secrets:
        residues = np.where(secret < 0, secret + PRIME, secret).astype("<u8")
        for array, width in ((secret.astype(np.int8), 32), (residues, 64)):
            plain = array.tobytes()
            pieces = [plain[at : at + width] for at in range(0, len(plain), width)]
            assert not [piece for piece in pieces if any(piece) and piece in seen]


def test_what_a_site_sends_says_nothing_else() -> None:
    """CK-5.8: only ciphertexts, signatures, standings, names of keys and of a state."""
    lengths = []
    for scale in (1e-3, 1e-6):
        w = encrypted(rekey_every=5)
        for site in w.lines.sites.values():
            site._train = lambda name, state, scale=scale: fake_training(name, state, scale=scale)
        w.round()
        w.round()
        for replies in w.lines.up.values():
            frames = [decode(reply, ANYTHING) for reply in replies]
            lengths.append(tuple((frame.kind, len(frame.body)) for frame in frames[2:]))
    assert len(set(lengths)) == 1
    kinds = [kind for kind, _ in lengths[0]]
    one = [Kind.ENCRYPTED, Kind.CONSISTENCY, Kind.ACCEPTED]
    assert kinds == [*one, Kind.READY, *one]
    assert dict(lengths[0])[Kind.ACCEPTED] == 32


# Forged aggregates -------------------------------------------------------------------------------


Add = Callable[[CkksCombiner, Encrypted, str], None]
_add: Add = CkksCombiner._add
_announce = CkksCombiner._announce


def without_one(self: CkksCombiner, message: Encrypted, sender: str) -> None:
    """B is a member, but nothing of it is in the sum."""
    if sender != "B":
        _add(self, message, sender)


def one_twice(self: CkksCombiner, message: Encrypted, sender: str) -> None:
    """Of B there is twice as much, of C nothing."""
    for _ in range({"B": 2, "C": 0}.get(sender, 1)):
        _add(self, message, sender)


def one_alone(self: CkksCombiner, message: Encrypted, sender: str) -> None:
    """What a sum of four would show if it were A's ciphertext."""
    if sender == "A":
        _add(self, message, sender)


def one_four_times(self: CkksCombiner, message: Encrypted, sender: str) -> None:
    """As many as there are members, so that noise and digits would be in their range."""
    for _ in range(4 * (sender == "A")):
        _add(self, message, sender)


FORGERIES = [without_one, one_twice, one_alone, one_four_times]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_site_takes_an_aggregate_of_other_ciphertexts(
    forgery: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CK-6.3. All sign it, since nobody sees what is in it; then nobody uses it (CK-5.7)."""
    w = encrypted()
    w.round()
    before = {name: w.at(name) for name in "ABCD"}
    keys = {name: w.ring(name).epoch for name in "ABCD"}
    monkeypatch.setattr(CkksCombiner, "_add", forgery)
    with pytest.raises(RoundError, match="every site declined the sum"):
        w.round()
    monkeypatch.undo()
    refused = w.lines.errors
    assert [name for name, _ in refused] == [*"ABCD"]
    assert all(isinstance(error, PeerError) for _, error in refused)
    assert not any(isinstance(error, Refused) for _, error in refused)
    # CK-3.5: they open to nothing like a sum, to no site.
    assert {type(error) for _, error in refused} <= {SumOutOfRange, BadNoise}
    for name in "ABCD":
        ring = w.ring(name)
        assert w.at(name) is before[name]
        assert (ring.current, ring.refusals, ring.epoch) == (None, 1, keys[name] + 1)
        assert ring.standing(bytes(32), 1).status is Status.BURNED
        assert w.lines.sites[name].refusals == 1
    # The same round, under a new key, to where it would have come anyway.
    result = w.round()
    assert (result.survivors, result.faults, w.behind()) == (tuple("ABCD"), {}, "")
    assert result.state.digest == undisturbed(2)
    assert {w.ring(name).epoch for name in "ABCD"} == {3}
    uploads = w.lines.sent(Kind.ENCRYPTED)["A"]
    assert [(f.binding.round, f.binding.attempt) for f in uploads] == [(0, 0), (1, 0), (1, 1)]


def test_an_upload_of_another_attempt_is_in_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-3.3, CK-6.3: B's values of the last attempt, where it sent the same ones again."""
    w = encrypted()
    kept: list[bytes] = []

    def keeping(self: CkksCombiner, message: Encrypted, sender: str) -> None:
        if sender == "B":
            kept.append(bytes(message.body))
            message = replace(message, body=kept[0])
        _add(self, message, sender)

    monkeypatch.setattr(CkksCombiner, "_add", keeping)
    with pytest.raises(RoundError, match="came to no sum"):
        w.round(away("CD", Kind.AGGREGATE))
    assert len(kept) > 1
    w.lines.errors.clear()
    with pytest.raises(RoundError, match="every site declined the sum"):
        w.round()
    assert {type(error) for _, error in w.lines.errors} <= {SumOutOfRange, BadNoise}
    assert [name for name, _ in w.lines.errors] == [*"ABCD"]
    assert {w.at(name) for name in "ABCD"} == {w.beginning}


def test_another_salt_is_not_signed_for_by_its_site_and_opens_nothing_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CK-4.3: B leaves. Three sign, as they must; what they then decrypt is no sum (CK-6.3)."""
    w = encrypted()

    def announced(self: CkksCombiner, salts: Mapping[int, bytes]) -> None:
        _announce(self, {**salts, 1: salts[0]})

    monkeypatch.setattr(CkksCombiner, "_announce", announced)
    with pytest.raises(RoundError, match="every site declined the sum"):
        w.round()
    (first, *others) = w.lines.errors
    assert (first[0], type(first[1])) == ("B", Inconsistent)
    assert [name for name, _ in others] == [*"ABCD"]
    assert {type(error) for _, error in others} <= {SumOutOfRange, BadNoise}
    assert {w.at(name) for name in "ABCD"} == {w.beginning}
    monkeypatch.undo()
    assert w.round().survivors == tuple("ABCD")
    assert (w.state.digest, w.behind()) == (undisturbed(), "")


PARAMS = ParameterSet(4, 16, 2)
"""What :func:`encrypted` sends."""
STEP = PARAMS.scale
CHANGES = {
    "one more in a digit": STEP,
    "one less": PRIME - STEP,
    "one more in the digit above": STEP << PARAMS.digit_bits,
    "no digits of any sum": STEP << 2 * PARAMS.digit_bits,
    # The noise is then too large, unless it was below -36, with a chance of 2e-8.
    "less than half a step": 4 * NOISE_BOUND + 36,
}


@pytest.mark.parametrize("at", [0, 100, DEGREE - 1])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_numbers_added_by_the_combiner_are_noticed(
    change: int, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CK-6.1: a plain value on top of the true sum, in a field, a value or a limb of a tag."""
    w = encrypted()
    assert w.parties.encrypted(w.state, 0, bytes(32)).params == PARAMS
    monkeypatch.setattr(CkksCombiner, "_announce", adding(change, at))
    with pytest.raises(RoundError, match="every site declined the sum"):
        w.round()
    assert {w.at(name) for name in "ABCD"} == {w.beginning}
    assert {w.ring(name).refusals for name in "ABCD"} == {1}


def test_what_is_rounded_off_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-6.1: so small an addition is no other sum, and says next to nothing."""
    w, expected = encrypted(), undisturbed()
    monkeypatch.setattr(CkksCombiner, "_announce", adding(1, 0))
    assert w.round().state.digest == expected


def adding(change: int, at: int) -> Callable[[CkksCombiner, Mapping[int, bytes]], None]:
    """This much more in a coefficient of the first ciphertext of an aggregate."""

    def announced(self: CkksCombiner, salts: Mapping[int, bytes]) -> None:
        assert self._total is not None
        self._total[0, at] = (int(self._total[0, at]) + change) % PRIME
        _announce(self, salts)

    return announced


def test_another_aggregate_than_was_agreed_on_is_not_decrypted() -> None:
    """CK-5.1: nothing was decrypted, so the key goes on, and the true one is taken."""
    w = encrypted()
    true: list[bytes] = []

    class Swapping:
        def exchange(self, requests: Mapping[str, bytes]) -> Replies:
            for name, request in requests.items():
                frame = decode(request, ANYTHING)
                if frame.kind is Kind.SUM:
                    true.append(request)
                    body = bytearray(frame.body)
                    body[-1] ^= 1
                    request = seal(replace(frame, body=bytes(body)), w.server)
                yield from w.lines.exchange({name: request})

    with pytest.raises(RoundError, match="every site declined the sum"):
        w.combiner.run(Swapping(), w.state)
    assert [type(error) for _, error in w.lines.errors] == [Inconsistent] * 4
    assert {w.ring(name).refusals for name in "ABCD"} == {0}
    for name in "ABCD":
        w.lines.sites[name].handle(true[0])
        assert w.at(name).digest == undisturbed()


def test_after_three_refusals_nothing_goes_on_until_a_person_has_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GK-6.3: each under a key of its own, in the same round."""
    w = encrypted(rekey_every=100)
    monkeypatch.setattr(CkksCombiner, "_add", one_alone)
    for times in range(1, MAX_REFUSALS + 1):
        with pytest.raises(RoundError, match="every site declined the sum"):
            w.round()
        assert {w.ring(name).refusals for name in "ABCD"} == {times}
        assert {w.ring(name).epoch for name in "ABCD"} == {times}
    monkeypatch.undo()
    w.lines.errors.clear()
    with pytest.raises(RoundError, match="0 of 4 sites are ready"):
        w.round()
    assert all(isinstance(error, Refused) for _, error in w.lines.errors)
    assert "until a person has looked" in str(w.lines.errors[-1][1])
    # One person is not enough for four sites; three are, and the fourth stays out.
    w.keys["A"].write(w.ring("A").approved())
    with pytest.raises(RoundError, match="1 of 4 sites are ready"):
        w.round()
    for name in "BC":
        w.keys[name].write(w.ring(name).approved())
    result = w.round()
    assert result.survivors == ("A", "B", "C")
    assert w.behind() == "D"


def test_one_site_that_refuses_does_not_hold_the_others_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At least a threshold name the same state; D has burned its key and comes back (RO-6)."""
    w = encrypted()
    w.round()

    class Spoilt:
        def exchange(self, requests: Mapping[str, bytes]) -> Replies:
            for name, request in requests.items():
                if name == "D" and decode(request, ANYTHING).kind is Kind.SUM:
                    w.lines.sites["D"]._keys.burn(w.ring("D").secrets[-1].key_id)  # type: ignore[union-attr]
                yield from w.lines.exchange({name: request})

    w.state = w.combiner.run(Spoilt(), w.state).state
    assert w.behind() == "D"
    assert w.round().survivors == ("A", "B", "C")
    assert w.behind() == ""
    assert w.round().survivors == ("A", "B", "C", "D")


# Crashes -----------------------------------------------------------------------------------------


MOMENTS = {"verified": 32, "ckks": 20}
"""Replies of a round of four sites, each with a key of its own."""


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks are not waited for: only what is in the files matters."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def crashed(w: World, at: int) -> str:
    """The combiner dies with this reply in its hands; what kind of frame it was, or nothing."""
    moments = Moments(at)
    try:
        w.combiner.run(DyingChannel(w.lines, moments), w.state)
    except Crash:
        name = moments.names[-1].removeprefix("reply of ")
        w.restart_combiner()
        return decode(w.lines.up[name][-1], ANYTHING).kind.name
    return ""


@pytest.mark.usefixtures("fast_disk")
@pytest.mark.parametrize("protection", GROUPED)
def test_a_combiner_that_crashes_with_any_reply_finishes_the_round(
    protection: str, tmp_path: Path
) -> None:
    """With its journals and its shelf. The sites live on; no crash costs a site its place."""
    values, expected = GROUPED[protection], undisturbed(2)
    for at in count():
        folder = tmp_path / str(at)
        w = world(
            shelf=SumShelf(folder / "sums"), journals=FileJournals(folder / "journals"), **values
        )
        w.round()
        kind = crashed(w, at)
        if not kind:
            break
        result = w.round()
        assert result.state.digest == expected, (at, kind)
        assert (result.survivors, result.faults, w.behind()) == (tuple("ABCD"), {}, ""), (at, kind)
        assert w.round().survivors == tuple("ABCD")
    assert at == MOMENTS[protection]


@pytest.mark.usefixtures("fast_disk")
@pytest.mark.parametrize("protection", GROUPED)
def test_all_parties_die_around_anything_that_a_site_writes_of_its_keys(
    protection: str, tmp_path: Path
) -> None:
    """GK-5.3: what was written is enough to go on with, and nothing was sent that was not."""
    calm = world("ABC", **GROUPED[protection])
    calm.round()
    calm.round()
    for at in count():
        moments = Moments(at)
        folder = tmp_path / str(at)
        w = world(
            "ABC",
            shelf=SumShelf(folder / "sums"),
            journals=FileJournals(folder / "journals"),
            **GROUPED[protection],
        )
        w.round()
        w.keys |= {name: DyingKeys(keys, moments) for name, keys in w.keys.items()}
        w.restart(*"ABC")
        try:
            w.round()
        except Crash:
            moments.at = None
            w.restart(*"ABC")
            w.restart_combiner()
            result = w.round()
            assert result.survivors == tuple("ABC"), at
        else:
            break
        assert (w.state.digest, w.behind()) == (calm.state.digest, ""), at
        for frames in w.lines.sent(Kind.ENCRYPTED).values():
            sent = [(frame.binding.round, frame.binding.attempt) for frame in frames]
            assert len(set(sent)) == len(sent)
        assert {w.ring(name).refusals for name in "ABC"} == {0}
    # the dealer's and the others' secrets; under ckks uploads, survivors, openings, survivors too
    assert at == (6 if protection == "verified" else 30)


@pytest.mark.usefixtures("fast_disk")
def test_a_combiner_that_crashes_again_and_again_finishes_too(tmp_path: Path) -> None:
    """Also after it was told by everybody, and before that was kept anywhere."""
    expected, random = undisturbed(2), np.random.default_rng(3)
    for number in range(8):
        w = encrypted(shelf=SumShelf(tmp_path / str(number)))
        w.round()
        w.combiner.finished(w.beginning)
        crashes = sum(bool(crashed(w, int(random.integers(24)))) for _ in range(4))
        result = w.round()
        assert (result.state.digest, w.behind()) == (expected, ""), crashes
        assert result.survivors == tuple("ABCD")


@pytest.mark.usefixtures("fast_disk")
def test_a_round_that_was_over_and_not_kept_is_asked_for_again(tmp_path: Path) -> None:
    """RO-2.11: the sites can say where they are for as long as the combiner's state is not kept."""
    w = encrypted(shelf=SumShelf(tmp_path))
    first = w.combiner.run(w.lines, w.state)
    for _ in range(2):
        w.restart_combiner()
        again = w.combiner.run(w.lines, w.state)
        assert again.state == first.state
        assert (again.survivors, again.attempts) == (first.survivors, 1)
    w.combiner.finished(w.state)
    assert SumShelf(tmp_path).kept() == []
    w.state = again.state
    assert w.round().state.digest == undisturbed(2)


@pytest.mark.usefixtures("fast_disk")
def test_a_sum_that_too_few_have_heard_is_told_again(tmp_path: Path) -> None:
    """Two sites of four are cut off while the sum is told: the round is not lost for ever."""
    w = encrypted(shelf=SumShelf(tmp_path))
    with pytest.raises(RoundError, match="2 sites came to the same state"):
        w.round(away("CD", Kind.SUM))
    assert w.round().state.digest == undisturbed()
    assert w.behind() == ""


@pytest.mark.usefixtures("fast_disk")
def test_a_sum_whose_acceptance_nobody_hears_is_told_again(tmp_path: Path) -> None:
    """All sites are at the next state, and the combiner heard of none."""
    w = encrypted(shelf=SumShelf(tmp_path))

    class Deaf:
        def exchange(self, requests: Mapping[str, bytes]) -> Replies:
            for name, reply in w.lines.exchange(requests):
                if decode(reply, ANYTHING).kind is not Kind.ACCEPTED:
                    yield name, reply

    with pytest.raises(RoundError):
        w.combiner.run(Deaf(), w.state)
    assert w.round().state.digest == undisturbed()
    assert w.behind() == ""


@pytest.mark.parametrize("rekey_every", [1, 100])
def test_attempts_rise_from_process_to_process(rekey_every: int) -> None:
    """GK-5.2, GK-2.6: no site encrypts twice for one attempt, and none is alone far ahead."""
    w = encrypted(rekey_every=rekey_every)
    for _ in range(MAX_ATTEMPTS):
        moments = Moments(None)

        class LosesUploads:
            def exchange(self, requests: Mapping[str, bytes]) -> Replies:
                for name, reply in w.lines.exchange(requests):
                    if decode(reply, ANYTHING).kind is Kind.ENCRYPTED:
                        raise Crash
                    yield name, reply

        with pytest.raises(Crash):
            w.combiner.run(LosesUploads(), w.state)
        assert moments.names == []
        w.restart_combiner()
    sent = w.lines.sent(Kind.ENCRYPTED)
    attempts = {name: [f.binding.attempt for f in sent[name]] for name in "ABCD"}
    for numbers in attempts.values():
        assert numbers == sorted(set(numbers))
    # CK-3.3: nor under the same secret, whatever the attempt is called.
    salts = [bytes(f.body[64:96]) for frames in sent.values() for f in frames]
    assert len(set(salts)) == len(salts)
    # What A alone has used up beyond the next, it is not followed into: B's turn comes.
    assert sum(map(len, attempts.values())) == MAX_ATTEMPTS
    assert attempts["A"][-1] <= attempts["B"][-1] + 1 < MAX_ATTEMPTS
    assert not attempts["C"] + attempts["D"]
    result = w.round()
    assert len(result.survivors) >= 3
    assert w.behind() == ""
    assert w.round().survivors == tuple("ABCD")


@pytest.mark.parametrize("protection", GROUPED)
def test_a_site_that_is_killed_before_any_request_is_missed_for_a_round_at_most(
    protection: str,
) -> None:
    """It starts anew with its state, marks and keys; what it had in memory is gone."""
    short = {
        "verified": [Kind.OPEN, Kind.KEY_LIST, Kind.DELIVERY, Kind.SURVIVORS, Kind.CERTIFICATE],
        "ckks": [Kind.OPEN, Kind.AGGREGATE],
    }
    kinds = [Kind.START, Kind.DEALT, *short[protection], Kind.SUM]
    sent = Kind.SURVIVORS if protection == "verified" else Kind.AGGREGATE
    for kind in kinds:
        w = world(**GROUPED[protection])
        w.round()
        killed: list[Kind] = []

        def kill(name: str, frame: Frame, w: World = w, kind: Kind = kind) -> bool:
            if name == "B" and frame.kind is kind:
                killed.append(kind)  # noqa: B023
                w.restart("B")
            return False

        result = w.round(kill)
        assert killed == [kind]
        present = kind is Kind.START or kinds.index(kind) >= kinds.index(sent)
        assert ("B" in result.survivors) == present, kind
        assert {"A", "C", "D"} <= set(result.survivors)
        assert w.behind() == "", kind
        if present:
            assert result.state.digest == undisturbed(2)
        assert all(isinstance(error, UnexpectedFrame | PeerError) for _, error in w.lines.errors)
        assert w.round().survivors == tuple("ABCD")
        assert w.behind() == ""


# The site's own demands --------------------------------------------------------------------------


def test_every_other_site_must_be_verified(start: Start) -> None:
    """CK-0.3: each gets the key. Under secagg as many as may collude can be strangers."""
    for protection in ("ckks", "secagg"):
        study = make_study("ABCDE", protection=protection)
        plan, state = start(study)
        cast = Cast(study, plan)
        known = {name: one.fingerprint for name, one in cast.parties.roster.items()}
        for stranger in "BE":
            guard = Guard(frozenset(f for name, f in known.items() if name != stranger))
            if protection == "ckks":
                with pytest.raises(Refused, match=r"1 site\(s\) of the roster are not verified"):
                    cast.site("A", state, guard=guard)
            else:
                assert isinstance(cast.site("A", state, guard=guard), SiteRunner)
