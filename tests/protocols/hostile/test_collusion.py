"""What colluding sites and the combiner get together, as real computations.

With the guard's bound (SA-0.5) no choice of the combiner's opens a vector; with one colluder more,
and the guard lifted, the same script reads it to the last bit. So the bound is what protects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from colluder import ANY
from hostile_combiner import Host, HostileCombiner, OpenHost, Refusal, Vector, attempt
from hostile_host import only_ours
from protected_sum import make_cast
from thief import Thief, private_key

from fedbcs_protocols.ring import modulus_mask
from fedbcs_protocols.secagg import Guard
from fedbcs_protocols.secagg.masking import pair_mask
from fedbcs_protocols.secagg.setting import is_safe
from fedbcs_protocols.wire import decode

VICTIM = "site0"


LIFTED = only_ours("this repository's guard is lifted")


def _lift_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "admit", lambda *arguments: None)


def _subsets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    pool = tuple(names)
    for size in range(len(pool) + 1):
        yield from combinations(pool, size)


def _names(cast_size: int, colluders: int) -> tuple[list[str], list[str]]:
    """Honest sites, the victim first, and colluding ones, last in the roster."""
    names = [f"site{i}" for i in range(cast_size)]
    return names[: cast_size - colluders], names[cast_size - colluders :]


SAFE = [
    (n, t, c) for n in (4, 5, 6) for t in range(3, n + 1) for c in range(1, n) if is_safe(n, t, c)
]


# Two lists ---------------------------------------------------------------------------------------


def _two_lists(script: HostileCombiner, with_victim: tuple[str, ...]) -> Thief:
    """Show ``with_victim`` a list with the victim and the other honest sites one without it.

    The colluders sign both. Each half gets the certificate of its list, with whatever signatures
    there are, and what is answered is taken.
    """
    everybody = tuple(script.cast.sites)
    without = tuple(name for name in everybody if name != VICTIM)
    lists = {True: everybody, False: without}
    script.play("consistency")
    signatures: dict[bool, dict[str, bytes]] = {True: {}, False: {}}
    for name in everybody:
        if name in script.colluders:
            continue
        half = name in with_victim
        frame = script.survivors(lists[half])
        signed = attempt(lambda name=name, frame=frame: script.site(name).consistency(frame))
        if isinstance(signed, Refusal):
            # A list that is too short for t.
            assert signed.kind == "BadSiteList"
            continue
        signatures[half][name] = decode(signed, ANY).signature
    for half, listed in lists.items():
        for name, colluder in script.colluders.items():
            signed = colluder.signed(script.transcript(listed))
            signatures[half][name] = decode(signed, ANY).signature
    thief = Thief(script)
    for half, listed in lists.items():
        certificate = script.certificate(survivors=listed, signatures=signatures[half])
        for name in signatures[half]:
            if name in script.colluders:
                continue
            answer = attempt(lambda n=name, c=certificate: script.site(n).unmask(c))
            if isinstance(answer, Refusal):
                assert answer.kind == "BadSiteList"
                assert len(signatures[half]) < script.setting.terms.threshold
                continue
            thief.take(name, answer, listed)
    return thief


@pytest.mark.parametrize(("sites", "threshold", "colluders"), SAFE)
def test_no_split_gives_both_secrets(
    open_host: OpenHost, sites: int, threshold: int, colluders: int
) -> None:
    """For every way to split the honest sites, over two lists or three (some see none)."""
    honest, helpers = _names(sites, colluders)
    opened = 0
    for half in _subsets(honest[1:]):
        script = HostileCombiner(
            make_cast(sites, threshold, colluders), open_host, colluders=helpers
        )
        thief = _two_lists(script, (VICTIM, *half))
        secrets = [thief.seed(VICTIM), thief.key(VICTIM)]
        assert None in secrets
        opened += secrets != [None, None]
    # The script is not idle: some splits give one of the secrets, as in an honest sum.
    assert opened


@LIFTED
@pytest.mark.parametrize(
    ("sites", "threshold", "colluders"), [(4, 3, 2), (5, 4, 3), (6, 4, 2), (6, 5, 4)]
)
def test_two_lists_with_one_colluder_too_many_read_the_victim(
    open_host: OpenHost,
    sites: int,
    threshold: int,
    colluders: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2t = n + c: half of the honest sites and the colluders are t, and so are the others."""
    assert 2 * threshold == sites + colluders
    assert not is_safe(sites, threshold, colluders)
    _lift_the_guard(monkeypatch)
    honest, helpers = _names(sites, colluders)
    script = HostileCombiner(make_cast(sites, threshold, colluders), open_host, colluders=helpers)
    thief = _two_lists(script, tuple(honest[: len(honest) // 2]))
    seed, key = thief.seed(VICTIM), thief.key(VICTIM)
    assert seed is not None
    assert key is not None
    read = thief.without_self(VICTIM, thief.without_pairs(VICTIM, key), seed)
    assert read.tolist() == script.vectors[VICTIM].tolist()


# Two deliveries ----------------------------------------------------------------------------------


def _two_deliveries(
    script: HostileCombiner, kept_from: tuple[str, ...], dropped: tuple[str, ...]
) -> Vector | None:
    """Keep ``kept_from`` out of the victim's delivery, and ``dropped`` out of the others' sum.

    The victim, a survivor in the others' list, has no masks with the first; the others give the
    mask keys of the second. What is left of its vector when all known masks are off, or None if
    the sites refuse the lists.
    """
    everybody = tuple(script.cast.sites)
    shown = [name for name in everybody if name not in kept_from]
    script.instead["masked_input", VICTIM] = lambda s: s.delivery(VICTIM, shown)
    stayed = tuple(name for name in everybody if name not in dropped)
    try:
        script.play("consistency")
        script.gone["consistency"] |= {VICTIM, *dropped}
        for name in stayed:
            script.instead["consistency", name] = lambda s: s.survivors(stayed)
        script.play("unmask", start="consistency")
        thief = Thief(script)
        certificate = script.certificate(survivors=stayed)
        for name in script.came["consistency"]:
            if name not in script.colluders:
                thief.take(name, script.site(name).unmask(certificate), stayed)
    except Refusal as refusal:
        if refusal.kind != "BadSiteList":
            raise
        return None
    seed = thief.seed(VICTIM)
    assert seed is not None
    left = thief.without_self(VICTIM, thief.masked(VICTIM), seed)
    table, me = script.table(VICTIM), script.place(VICTIM)
    known: list[Any] = []
    for name in shown:
        if name in script.colluders:
            private = script.colluders[name].ephemeral.mask_key
        elif (key := thief.key(name)) is not None:
            private = private_key(key)
        else:
            continue
        # What the other one adds is what the victim subtracted.
        known.append(pair_mask(private, script.setting, table, script.place(name), me))
    return thief.less(left, known)


@pytest.mark.parametrize(("sites", "threshold", "colluders"), SAFE)
def test_no_two_deliveries_leave_the_victim_without_masks(
    open_host: OpenHost, sites: int, threshold: int, colluders: int
) -> None:
    """For every set of dropped sites; honest sites are alike, so those kept away are the first."""
    honest, helpers = _names(sites, colluders)
    tried = 0
    for away in range(sites - threshold + 2):
        for dropped in _subsets(honest[1:]):
            if len(dropped) > sites - threshold:
                continue
            script = HostileCombiner(
                make_cast(sites, threshold, colluders), open_host, colluders=helpers
            )
            left = _two_deliveries(script, tuple(honest[1 : 1 + away]), dropped)
            if left is not None:
                tried += 1
                assert left.tolist() != script.vectors[VICTIM].tolist()
                assert int(left.max()) > int(script.vectors[VICTIM].max())
    # With t = n nobody can be missing, and the victim, who is not asked to sign, would be.
    assert bool(tried) == (threshold < sites)


@LIFTED
@pytest.mark.parametrize(
    ("sites", "threshold", "colluders"), [(4, 3, 2), (5, 4, 3), (6, 4, 2), (6, 5, 4)]
)
def test_two_deliveries_with_one_colluder_too_many_read_the_victim(
    open_host: OpenHost,
    sites: int,
    threshold: int,
    colluders: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """n - t honest neighbours kept away and n - t - 1 dropped are all that there are."""
    assert 2 * threshold == sites + colluders
    _lift_the_guard(monkeypatch)
    honest, helpers = _names(sites, colluders)
    away, rest = honest[1 : 1 + sites - threshold], honest[1 + sites - threshold :]
    script = HostileCombiner(make_cast(sites, threshold, colluders), open_host, colluders=helpers)
    left = _two_deliveries(script, tuple(away), tuple(rest))
    assert left is not None
    assert left.tolist() == script.vectors[VICTIM].tolist()


# A failure that is none --------------------------------------------------------------------------


def _answers(script: HostileCombiner, asked: Iterable[str]) -> Thief:
    """Get the certificate to ``asked`` only, and take their answers and the colluders'."""
    thief = Thief(script)
    certificate = script.certificate()
    for name in asked:
        if name not in script.colluders:
            thief.take(name, script.site(name).unmask(certificate), script.came["masked_input"])
    return thief


def _feigned_failure(
    open_host: OpenHost, numbers: tuple[int, int, int], first: tuple[str, ...]
) -> tuple[Vector | None, Vector | None, HostileCombiner]:
    """The sums of attempt 0, answered by ``first``, and of attempt 1 without the victim.

    None for one that cannot be opened.
    """
    honest, helpers = _names(numbers[0], numbers[2])
    cast = make_cast(*numbers)
    hosts: dict[str, Host] = {}
    script = HostileCombiner(cast, open_host, colluders=helpers, hosts=hosts).play("unmask")
    everything = _answers(script, first).total(cast.sites)
    for host in hosts.values():
        host.restart()
    second = HostileCombiner(
        cast.changed(attempt=1), open_host, victim=honest[-1], colluders=helpers, hosts=hosts
    )
    second.gone["advertise"].add(VICTIM)
    for name in honest[1:]:
        if name in first:
            with pytest.raises(Refusal) as caught:
                second.site(name).advertise()
            assert caught.value.kind == "Refused"
            second.gone["advertise"].add(name)
    second.play("share")
    back = [name for name in honest[1:] if name not in first]
    if len(second.came["advertise"]) < cast.terms.threshold:
        for name in back:
            with pytest.raises(Refusal) as caught:
                second.site(name).share(second.key_list())
            assert caught.value.kind == "BadKeyList"
        return everything, None, script
    second.victim = back[0]
    second.play("unmask", start="share")
    return everything, _answers(second, back).total(second.came["masked_input"]), script


@pytest.mark.parametrize(("sites", "threshold", "colluders"), SAFE)
def test_no_feigned_failure_opens_two_sums(
    open_host: OpenHost, sites: int, threshold: int, colluders: int
) -> None:
    """Whoever is asked to answer in the first attempt."""
    honest, _ = _names(sites, colluders)
    outcomes = set()
    # Honest sites other than the victim are alike, so of six sites only how many matters.
    alike = [
        (*honest[:start], *honest[1 : 1 + count])
        for start in (0, 1)
        for count in range(len(honest))
    ]
    for first in _subsets(honest) if sites < 6 else alike:
        one, two, _ = _feigned_failure(open_host, (sites, threshold, colluders), first)
        assert one is None or two is None
        outcomes.add((one is not None, two is not None))
    # Each of the two can be had, but not both.
    assert (True, False) in outcomes
    assert ((False, True) in outcomes) == (threshold < sites)


@LIFTED
@pytest.mark.parametrize(
    ("sites", "threshold", "colluders"), [(4, 3, 2), (5, 4, 3), (6, 4, 2), (6, 5, 4)]
)
def test_a_feigned_failure_with_one_colluder_too_many_is_two_sums(
    open_host: OpenHost,
    sites: int,
    threshold: int,
    colluders: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attempt 0 of all, answered by t - c; attempt 1 of the others; subtract.

    The difference is the sum of the few who answered first: with t - c = 1 the victim's vector.
    """
    assert 2 * threshold == sites + colluders
    _lift_the_guard(monkeypatch)
    honest, _ = _names(sites, colluders)
    first = tuple(honest[: threshold - colluders])
    one, two, script = _feigned_failure(open_host, (sites, threshold, colluders), first)
    assert one is not None
    assert two is not None
    read = (one - two) & modulus_mask(script.setting.bits)
    assert read.tolist() == sum(script.vectors[name] for name in first).tolist()
    assert (first == (VICTIM,)) == (threshold - colluders == 1)


@pytest.mark.parametrize("reuses", [0, 1])
def test_a_reuse_that_the_study_allows_is_a_subtraction(open_host: OpenHost, reuses: int) -> None:
    """What ``max_reused_states = 1`` costs: no colluder, no lifted guard, one vector.

    A site that forbids single changes of the survivors takes no part in it.
    """
    cast = make_cast(6)
    cast = replace(cast, terms=replace(cast.terms, max_reused_states=reuses))
    hosts: dict[str, Host] = {}
    careful = replace(cast.guard, forbid_single_changes=True)
    hosts["site5"] = open_host(cast.sites["site5"], "site5", careful)
    first = HostileCombiner(cast, open_host, hosts=hosts).play("unmask")
    everything = _answers(first, cast.sites).total(cast.sites)
    second = HostileCombiner(cast.changed(attempt=1), open_host, victim="site1", hosts=hosts)
    second.gone["masked_input"].add(VICTIM)
    if reuses == 0:
        with pytest.raises(Refusal) as caught:
            second.play("consistency")
        assert caught.value.kind == "Refused"
        return
    second.play("consistency")
    with pytest.raises(Refusal) as caught:
        second.site("site5").consistency(second.survivors())
    assert caught.value.kind == "Refused"
    second.gone["consistency"].add("site5")
    second.play("unmask", start="consistency")
    without = _answers(second, second.came["consistency"]).total(second.came["masked_input"])
    assert everything is not None
    assert without is not None
    read = (everything - without) & modulus_mask(first.setting.bits)
    assert read.tolist() == first.vectors[VICTIM].tolist()


# Two honest sites at least -----------------------------------------------------------------------


def test_no_part_in_a_sum_over_one_honest_site(open_host: OpenHost) -> None:
    """n = t = 3, c = 2: 2t > n + c holds, t - c >= 2 does not, and colluders know their inputs."""
    cast = make_cast(3, 3, 2)
    host = open_host(cast.sites[VICTIM], VICTIM, cast.guard)
    with pytest.raises(Refusal) as caught:
        host.open(cast.setting)
    assert caught.value.kind == "Refused"


@LIFTED
def test_a_sum_over_one_honest_site_is_its_vector(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = make_cast(3, 3, 2)
    _, helpers = _names(3, 2)
    _lift_the_guard(monkeypatch)
    script = HostileCombiner(cast, open_host, colluders=helpers).play("unmask")
    total = _answers(script, [VICTIM]).total(cast.sites)
    assert total is not None
    for name in helpers:
        total -= script.vectors[name]
    assert total.tolist() == script.vectors[VICTIM].tolist()


@pytest.mark.parametrize(("sites", "threshold", "colluders"), SAFE)
def test_a_sum_within_the_bound_hides_the_victim_among_honest_sites(
    open_host: OpenHost, sites: int, threshold: int, colluders: int
) -> None:
    """The same script: what is left after subtraction is a sum over t - c honest sites or more."""
    honest, helpers = _names(sites, colluders)
    script = HostileCombiner(make_cast(sites, threshold, colluders), open_host, colluders=helpers)
    stayed = honest[: threshold - colluders]
    for name in honest[len(stayed) :]:
        script.gone["masked_input"].add(name)
    total = _answers(script.play("unmask"), stayed).total((*stayed, *helpers))
    assert total is not None
    for name in helpers:
        total -= script.vectors[name]
    assert total.tolist() == sum(script.vectors[name] for name in stayed).tolist()
    assert len(stayed) >= 2
