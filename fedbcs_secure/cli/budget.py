"""``budget``: what a site's ledger says it has spent, and what is left."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedbcs_secure.errors import LedgerError, StudyError

if TYPE_CHECKING:
    from fedbcs_secure.privacy.entries import Entry
    from fedbcs_secure.privacy.ledger import Ledger

LEDGER, HEAD, POLICY, SIMULATED = "ledger.sqlite", "ledger.head", "site.toml", "simulated.key"

EPILOG = """
[bold]Examples[/]

fedbcs-secure budget --site-dir site

fedbcs-secure budget --site-dir site --study next.toml   # what another study would lead to

fedbcs-secure budget --site-dir runs/fedbcs-…/ledgers/A --json   # a simulated site
"""


def budget(
    site_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="The site's folder, with ledger.sqlite in it.")
    ] = Path("site"),
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The ledger's head. [dim](DIR/ledger.head)[/]"),
    ] = None,
    study: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What would this study lead to?")
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Passphrase of the site's key, see `keygen`."),
    ] = None,
    trust_ledger: Annotated[
        bool,
        typer.Option("--trust-ledger", help="The head is lost, and this is the latest ledger."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show a site's privacy budget: spent, left, and every entry of its ledger.

    Checks the whole ledger first: hashes, signatures, and that nothing was above the cap. The
    figures are those of the patient worst off, or of the image, if that is what the site's policy
    asks to hide. Not while the site's client runs.
    """
    with _opened(site_dir, head, passphrase_file, trust_ledger) as ledger:
        ledger.verify()
        said = ledger.statement()
        rows = [_row(number, entry) for number, entry in ledger.history()]
        state: dict[str, Any] = {
            "epsilon": said.epsilon,
            "delta": said.delta,
            "unit": said.unit,
            "cap": said.cap,
            "remaining": said.remaining,
            "local_epsilon": said.local_epsilon,
            "local_cap": said.local_cap,
            "releases": said.releases,
            "refusals": said.refusals,
            "studies": [
                {
                    "study": s.study.hex(),
                    "rounds": s.rounds,
                    "epsilon": s.epsilon,
                    "unit": s.unit,
                }
                for s in said.studies
            ],
            "head": {"sequence": said.head.sequence, "hash": said.head.hash.hex()},
            "history": rows,
        }
        if study is not None:
            state["next"] = _next(ledger, study)
    if as_json:
        sys.stdout.write(json.dumps(_finite(state), allow_nan=False) + "\n")
    else:
        _show(state, Console(highlight=False))


@contextmanager
def _opened(
    site_dir: Path, head: Path | None, passphrase_file: Path | None, trust_ledger: bool
) -> Iterator[Ledger]:
    from fedbcs_protocols.identity import Identity
    from fedbcs_secure.privacy.ledger import Ledger
    from fedbcs_secure.privacy.policy import load_policy

    if not (site_dir / LEDGER).exists():
        raise LedgerError(
            f"{site_dir / LEDGER} does not exist: this site has spent nothing yet, or the ledger "
            "is in another folder (--site-dir)"
        )
    simulated, policy = site_dir / SIMULATED, None
    if simulated.exists():
        data = simulated.read_bytes()[:65]
        if len(data) != 64:
            raise LedgerError(f"{simulated} is no simulated site's key")
        identity, storage_key = Identity.from_secret_bytes(data[:32]), data[32:]
        policy = _last_policy(site_dir / LEDGER)
    else:
        from fedbcs_secure.cli.keygen import unlocking
        from fedbcs_secure.federation.keyfile import load

        secrets = load(site_dir, unlocking(site_dir, passphrase_file))
        identity, storage_key = secrets.identity, secrets.storage_key
        if not (site_dir / POLICY).exists():
            policy = _last_policy(site_dir / LEDGER)
    ledger = Ledger.open(
        site_dir / LEDGER,
        head=head or site_dir / HEAD,
        identity=identity,
        storage_key=storage_key,
        policy=policy or load_policy(site_dir / POLICY),
        trust_ledger=trust_ledger,
    )
    with ledger:
        yield ledger


def _last_policy(path: Path) -> Any:
    """Without a site.toml the policy is the one that the ledger knows: looking changes nothing."""
    from fedbcs_secure.privacy.entries import Entry, PolicyChange
    from fedbcs_secure.privacy.policy import build_policy
    from fedbcs_secure.privacy.store import Store

    found = None
    store = Store.open(path)
    try:
        for row in store.rows():
            body = Entry.decode(row.content).body
            if isinstance(body, PolicyChange):
                found = build_policy(json.loads(body.text))
    finally:
        store.close()
    return found


def _row(number: int, entry: Entry) -> dict[str, Any]:
    from fedbcs_secure.privacy.entries import Refusal, Release
    from fedbcs_secure.privacy.histories import PATIENT_BYTES

    row: dict[str, Any] = {"sequence": number, "time": entry.time, "kind": entry.body.KIND}
    match entry.body:
        case Release() as body:
            row |= {
                "study": body.study.hex(),
                "round": body.round + 1,
                "patients": len(body.patients) // PATIENT_BYTES,
                "unit": body.unit,
                "events": [
                    {"noise_multiplier": e.noise_multiplier, "rate": e.sampling_rate, "times": n}
                    for e, n in body.events.parts
                ],
            }
        case Refusal() as body:
            row |= {
                "study": body.study.hex(),
                "round": body.round + 1,
                "reason": body.reason.value,
                "epsilon": body.cost,
            }
    return row


def _next(ledger: Ledger, path: Path) -> dict[str, Any]:
    from fedbcs_secure.cli import options
    from fedbcs_secure.privacy.schedule import study_events

    document, _ = options.study_and_settings(path, {})
    document = document.resolved()
    if document.privacy is None:
        raise StudyError(f"{path} has no [privacy]: a site with a budget takes no part in it")
    if document.privacy.noise == "shared" and not document.roster:
        raise StudyError(f"{path}: whose noise is shared, only its roster says; it has none")
    unit = document.privacy.unit
    after = ledger.next_cost(study_events(document).joint, unit)
    return {
        "study": str(path),
        "epsilon": after,
        "unit": unit,
        "within_cap": after <= ledger.policy.epsilon,
    }


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(state: dict[str, Any], console: Console) -> None:
    from fedbcs_secure.privacy.accountant import shown

    spent, local = shown(state["epsilon"]), shown(state["local_epsilon"])
    cap = shown(state["cap"])
    whose = "patient" if state["unit"] == "patient" else "image"
    console.print(
        f"spent  epsilon {spent} of {cap} at delta {state['delta']:g}, by the {whose} worst off",
        soft_wrap=True,
    )
    if state["unit"] == "patient" and any(s["unit"] == "slice" for s in state["studies"]):
        console.print(
            "       infinite because a release hid single images only, which bounds nothing about "
            "a patient with several; marked below",
            soft_wrap=True,
        )
    if state["local_cap"] is not None:
        console.print(
            f"       {local} of {shown(state['local_cap'])} if no other site adds its noise",
            soft_wrap=True,
        )
    left = math.floor(state["remaining"] * 1000) / 1000
    console.print(f"left   {left:.3f}; epsilons of studies do not simply add up")
    if "next" in state:
        after = state["next"]
        verdict = "allowed" if after["within_cap"] else "[bold red]above the cap[/]"
        name = escape(after["study"])
        console.print(
            f"next   {name} would lead to {shown(after['epsilon'])}: {verdict}", soft_wrap=True
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("entry", "time", "what", "study", "round"):
        table.add_column(title, justify="right" if title in ("entry", "round") else "left")
    for row in state["history"]:
        what = row["kind"]
        if what == "release":
            what = f"release, {row['patients']} patients"
            what += ", hides single images" if row["unit"] == "slice" else ""
        elif what == "refusal":
            what = f"refused: {row['reason']}"
        study, number = row.get("study", "")[:8], str(row.get("round", ""))
        table.add_row(str(row["sequence"]), row["time"][:19], what, study, number)
    console.print()
    console.print(table)
    head = state["head"]
    console.print(f"\nchecked: {head['sequence']} entries, head {head['hash'][:16]}…")
