"""Every attack of the table on one site, and the same script with honest values."""

from __future__ import annotations

import re
from pathlib import Path

import hostile_bytes
import hostile_keys
import hostile_lists
import pytest
from hostile_attack import COLLUDER, KINDS, VICTIM, Attack, Fate, table
from hostile_combiner import HostileCombiner, OpenHost, Refusal
from protected_sum import STAGES, make_cast

ATTACKS = (*hostile_bytes.attacks(), *hostile_keys.attacks(), *hostile_lists.attacks())
FINAL = [attack for attack in ATTACKS if attack.fate is Fate.LEAVES or attack.at == "finished"]
"""Those after which the same site cannot be given the honest frame."""


def _script(open_host: OpenHost) -> HostileCombiner:
    return HostileCombiner(make_cast(6), open_host, victim=VICTIM, colluders=[COLLUDER])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label)
def test_the_attack_meets_its_refusal(open_host: OpenHost, attack: Attack) -> None:
    script = _script(open_host)
    for prepare in (attack.prepare, attack.poison):
        if prepare is not None:
            prepare(script)
    site = script.play(attack.at).site(VICTIM)
    if attack.at in KINDS:
        # Else that nothing is left afterwards would say little.
        assert site.holds_secrets() is not False
    with pytest.raises(Refusal) as caught:
        script.ask(VICTIM, attack.call or attack.at, attack.forge(script))
    refusal = caught.value
    assert (refusal.kind, refusal.sender, refusal.field) == (
        attack.refusal,
        attack.sender,
        attack.field,
    )
    if attack.at == "finished":
        assert not site.holds_secrets()
        return
    honest = script.honest(attack.at, VICTIM)
    if attack.fate is Fate.STAYS:
        assert script.ask(VICTIM, attack.at, honest)
        return
    assert not site.holds_secrets()
    with pytest.raises(Refusal) as afterwards:
        script.ask(VICTIM, attack.at, honest)
    assert afterwards.value.kind == "UnexpectedFrame"


@pytest.mark.parametrize("attack", FINAL, ids=lambda attack: attack.label)
def test_the_same_script_with_honest_values_goes_through(
    open_host: OpenHost, attack: Attack
) -> None:
    script = _script(open_host)
    if attack.prepare is not None:
        attack.prepare(script)
    script.play(attack.at)
    # The frame is made but not sent: what it took to make it is not what the site refuses.
    made = attack.forge(script)
    if attack.at == "finished":
        assert VICTIM in script.came["unmask"]
        return
    honest = script.honest(attack.at, VICTIM)
    assert attack.poison is not None or made != honest
    assert script.ask(VICTIM, attack.at, honest)


def test_the_honest_script_is_an_honest_combiner(open_host: OpenHost) -> None:
    """Frame for frame what this repository's combiner sends, and the sum is right."""
    script = _script(open_host)
    script.gone["share"].add("site4")
    script.gone["consistency"].add("site3")
    script.play("finished")
    combiner = script.cast.combine()
    for stage in STAGES:
        for name, frame in script.came[stage].items():
            if stage != "advertise":
                assert combiner.requests[name] == script.honest(stage, name)
            combiner.receive(frame)
        combiner.close()
    stayed = ("site0", "site1", "site2", "site3", "site5")
    assert combiner.survivors == stayed
    assert combiner.total().tolist() == sum(script.vectors[name] for name in stayed).tolist()


PAGE = (Path(__file__).parent / "README.md").read_text("utf-8")
SPECS = Path(__file__).parents[3] / "protocols" / "specs"
CLAUSE = r"(?:CO|RO|SA|WI)-\d+(?:\.\d+)?"


def test_the_page_lists_every_attack() -> None:
    assert table(ATTACKS) in PAGE


def test_every_clause_that_the_page_names_exists() -> None:
    defined = {
        clause
        for spec in SPECS.glob("*.md")
        for clause in re.findall(
            rf"^(?:\*\*|## )({CLAUSE})\b", spec.read_text("utf-8"), re.MULTILINE
        )
    }
    named = set(re.findall(rf"\b{CLAUSE}", PAGE)) | {attack.clause for attack in ATTACKS}
    assert {"SA-6.2", "SA-11", "WI-1.3"} <= named
    assert named <= defined


ANSWERED_ONCE = {"masked_input": "SA-4.7", "consistency": "SA-5.3", "unmask": "SA-6.4"}
"""Where it says that a stage is answered once."""
INSIDE = {"share": "2", "masked_input": "4", "consistency": "5", "unmask": "6"}
"""The section of SA about the frame that the site gets in each stage."""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label)
def test_a_clause_is_about_what_the_attack_is(attack: Attack) -> None:
    """A frame that costs the site nothing fell by WI, or by coming at the wrong time."""
    if attack.fate is Fate.STAYS:
        stage = attack.call or attack.at
        assert attack.clause[:3] == "WI-" or attack.clause in {"SA-11", ANSWERED_ONCE.get(stage)}
        assert (attack.clause[:5] == "WI-1.") == (
            attack.refusal == "MalformedFrame" or (attack.clause == "WI-1.5")
        )
        return
    # How keys, sets and ciphertexts are written is said where they are made.
    written = {"SA-1.4", "SA-1.5", "SA-3.3"}
    assert attack.clause in written or attack.clause.startswith(f"SA-{INSIDE[attack.at]}.")
