"""``keygen``: a site's own identity, encrypted on its own disk."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedbcs_secure.errors import KeyFileError
from fedbcs_secure.federation import keyfile

PASSPHRASE_VARIABLE = "FEDBCS_PASSPHRASE_FILE"  # noqa: S105
CREDENTIAL = "fedbcs-secure-passphrase"

EPILOG = """
[bold]Examples[/]

fedbcs-secure keygen --site-dir site          # asks for a passphrase

fedbcs-secure keygen --site-dir site --keyring

fedbcs-secure keygen --site-dir site --show   # key and fingerprint for the roster

fedbcs-secure keygen --site-dir site --change

[bold]A machine that starts without a person[/]

Put the passphrase into a file that only the service's user can read (chmod 600) and name it with
--passphrase-file or in FEDBCS_PASSPHRASE_FILE; or, with systemd,
LoadCredentialEncrypted=fedbcs-secure-passphrase, which is found by itself. Who can read the file
can use the key: this protects backups and stolen disks, not a machine that was broken into.
"""


def keygen(
    site_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="The site's folder; keep it out of shared drives.")
    ] = Path("site"),
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Passphrase in the first line, for machines without a person."
        ),
    ] = None,
    keyring: Annotated[
        bool, typer.Option("--keyring", help="Encrypt under a key in the system's keyring.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show the public key; makes and changes nothing.")
    ] = False,
    change: Annotated[
        bool, typer.Option("--change", help="Encrypt the same key under something else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Make the identity of this site: an Ed25519 key that never leaves it.

    Prints the public key for the study's roster, and its fingerprint. The other sites compare the
    fingerprint with you over the telephone or in person, not by the way the key came.

    Sites cannot be connected yet; a simulation makes keys of its own. With --change, the passphrase
    in --passphrase-file is the new one.
    """
    if show and change:
        raise typer.BadParameter("--show and --change exclude each other")
    if show:
        _print(*_public(site_dir), site_dir, as_json)
        return
    if keyring and passphrase_file is not None:
        raise typer.BadParameter("--keyring and --passphrase-file exclude each other")
    if change:
        old = unlocking(site_dir, None)
        made = keyfile.change(site_dir, old, _new(keyring, passphrase_file))
    else:
        keyfile.refuse_another(site_dir)
        given = None if keyring else _unattended(passphrase_file)
        made = keyfile.create(site_dir, given or _new(keyring, None))
    public = made.identity.public
    _print(public.raw.hex(), public.fingerprint, site_dir, as_json)


def unlocking(site_dir: Path, passphrase_file: Path | None) -> keyfile.Unlock:
    """What opens the key file in ``site_dir``: the keyring if it was made with that; else the

    passphrase in the given file, in that named by FEDBCS_PASSPHRASE_FILE, in systemd's credential;
    else a person's. Raises :class:`KeyFileError` where there is none to ask.
    """
    if keyfile.method_of(site_dir) is keyfile.Method.KEYRING:
        return keyfile.Keyring()
    return _unattended(passphrase_file) or _typed("Passphrase", again=False)


def _new(keyring: bool, passphrase_file: Path | None) -> keyfile.Unlock:
    """What a key is encrypted under from now on: only what a flag asks for, or what is typed."""
    if keyring:
        return keyfile.Keyring()
    if passphrase_file is not None:
        return keyfile.passphrase_in(passphrase_file)
    return _typed("New passphrase", again=True)


def _unattended(passphrase_file: Path | None) -> keyfile.Passphrase | None:
    if passphrase_file is not None:
        return keyfile.passphrase_in(passphrase_file)
    if named := os.environ.get(PASSPHRASE_VARIABLE):
        return keyfile.passphrase_in(Path(named))
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / CREDENTIAL).exists():
        # systemd grants access by a list, which stat shows as mode 0440.
        return keyfile.passphrase_in(Path(folder) / CREDENTIAL, guarded=True)
    return None


def _typed(asking: str, *, again: bool) -> keyfile.Passphrase:
    if not sys.stdin.isatty():
        raise KeyFileError(
            "there is nobody to ask for the passphrase: use --passphrase-file, "
            f"{PASSPHRASE_VARIABLE}, or --keyring"
        )
    text = typer.prompt(asking, hide_input=True, confirmation_prompt=again, err=True)
    return keyfile.Passphrase(text)


def _public(site_dir: Path) -> tuple[str, str]:
    from fedbcs_protocols.errors import LocalError
    from fedbcs_protocols.identity import PublicIdentity

    path = site_dir / keyfile.PUBLIC_NAME
    try:
        raw = bytes.fromhex(path.read_text(encoding="utf-8").splitlines()[0])
        identity = PublicIdentity(raw)
    except (OSError, ValueError, IndexError, LocalError) as error:
        raise KeyFileError(
            f"cannot read the public key in {path}: {error}; fedbcs-secure keygen makes one, and "
            "with --change writes it again where the secret half is there"
        ) from None
    return raw.hex(), identity.fingerprint


def _print(key: str, fingerprint: str, site_dir: Path, as_json: bool) -> None:
    if as_json:
        row = {"public_key": key, "fingerprint": fingerprint, "site_dir": str(site_dir)}
        sys.stdout.write(json.dumps(row) + "\n")
        return
    console = Console(highlight=False)
    console.print(f"public key   {key}\nfingerprint  {fingerprint}", soft_wrap=True)
    secret_half = escape(str(site_dir / keyfile.KEY_NAME))
    console.print(
        f"[dim]secret half: {secret_half}, encrypted. Back it up; without it the site needs a new "
        "place in every study.[/]",
        soft_wrap=True,
    )
