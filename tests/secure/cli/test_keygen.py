"""``keygen`` as a person, a script and a service see it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from command_line import CODE, ENVIRONMENT, Result, run

from fedbcs_protocols.identity import PublicIdentity
from fedbcs_secure.federation import keyfile
from fedbcs_secure.federation.keyfile import Method, Passphrase, load, method_of

OLD, NEW = "rowan kettle birch 19", "salt meadow lantern 7"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cheap scrypt, an empty folder, and nothing of this machine's own settings."""
    monkeypatch.setattr(keyfile, "_LOG_N", 10)
    monkeypatch.delenv("FEDBCS_PASSPHRASE_FILE", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


def words(name: str = "words", text: str = OLD, mode: int = 0o600) -> str:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    path.chmod(mode)
    return name


def keygen(*arguments: str) -> Result:
    return run("keygen", *arguments)


def made(*arguments: str) -> dict[str, str]:
    """What ``--json`` says."""
    result = keygen(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    row = json.loads(result.stdout)
    assert isinstance(row, dict)
    return row


class Typist:
    """Types one answer after another, at a terminal."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bool]] = []

    def prompt(self, asking: str, *, hide_input: bool, confirmation_prompt: bool, err: bool) -> str:
        assert hide_input
        assert err
        self.asked.append((asking, confirmation_prompt))
        return self.answers.pop(0)

    def sit_down(self, monkeypatch: pytest.MonkeyPatch) -> Typist:
        monkeypatch.setattr(typer, "prompt", self.prompt)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        return self


HELP = """
Make the identity of this site: an Ed25519 key that never leaves it.
Prints the public key for the study's roster, and its fingerprint. The other sites compare the
fingerprint with you over the telephone or in person, not by the way the key came.
--site-dir DIR The site's folder; keep it out of shared drives. [default: site]
--passphrase-file FILE Passphrase in the first line, for machines without a person.
--keyring Encrypt under a key in the system's keyring.
--show Show the public key; makes and changes nothing.
--change Encrypt the same key under something else.
--json For scripts.
Examples
fedbcs-secure keygen --site-dir site # asks for a passphrase
A machine that starts without a person
"""


def test_help() -> None:
    result = keygen("--help")
    assert result.returncode == 0
    shown = [
        " ".join(line.strip("│ ").replace("<bool>", "").split())
        for line in result.stdout.splitlines()
    ]
    assert [line for line in HELP.strip().splitlines() if line not in shown] == []


TRANSCRIPT = r"""public key   [0-9a-f]{64}
fingerprint  [0-9a-f]{4}( [0-9a-f]{4}){15}
secret half: site/site\.key, encrypted\. Back it up; without it the site needs a new place in every study\.
"""  # noqa: E501


def test_what_is_printed() -> None:
    result = keygen("--passphrase-file", words())
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(TRANSCRIPT, result.stdout)
    shown = keygen("--show")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, result.stdout, "")


def test_for_scripts() -> None:
    row = made("--site-dir", "north", "--passphrase-file", words())
    assert set(row) == {"public_key", "fingerprint", "site_dir"}
    assert row["site_dir"] == "north"
    identity = PublicIdentity(bytes.fromhex(row["public_key"]))
    assert identity.fingerprint == row["fingerprint"]
    assert load(Path("north"), Passphrase(OLD)).identity.public == identity
    assert made("--site-dir", "north", "--show") == row


def test_no_passphrase_and_no_secret_is_printed() -> None:
    results = [keygen("--passphrase-file", words()), keygen("--show"), keygen()]
    held = load(Path("site"), Passphrase(OLD))
    for result in results:
        text = result.stdout + result.stderr
        for secret in (OLD, held.identity.secret_bytes().hex(), held.storage_key.hex()):
            assert secret not in text


def test_a_folder_whose_name_looks_like_markup() -> None:
    folder = "[/] [bold]site"
    Path(folder.split("/", maxsplit=1)[0]).mkdir()
    result = keygen("--site-dir", folder, "--passphrase-file", words())
    assert result.returncode == 0
    assert f"secret half: {folder}/site.key" in result.stdout


# Where the passphrase comes from -----------------------------------------------------------------


def test_it_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    typist = Typist(OLD).sit_down(monkeypatch)
    assert keygen().returncode == 0
    assert typist.asked == [("New passphrase", True)]
    load(Path("site"), Passphrase(OLD))


def test_a_short_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Typist("too short").sit_down(monkeypatch)
    result = keygen()
    assert result.returncode == 1
    assert result.stderr == ("error: a passphrase has at least 12 characters: a few random words\n")
    assert not Path("site").exists()


def test_nobody_to_ask() -> None:
    result = keygen()
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: there is nobody to ask for the passphrase: use --passphrase-file, "
        "FEDBCS_PASSPHRASE_FILE, or --keyring\n"
    )
    assert not Path("site").exists()


def test_the_variable_names_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBCS_PASSPHRASE_FILE", words("from-variable"))
    assert keygen().returncode == 0
    load(Path("site"), Passphrase(OLD))


def test_systemds_credential_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd lets the service's user in by an access list, which shows as mode 0440."""
    words("credentials/fedbcs-secure-passphrase", mode=0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    assert keygen().returncode == 0
    load(Path("site"), Passphrase(OLD))


def test_a_service_with_other_credentials_only(monkeypatch: pytest.MonkeyPatch) -> None:
    words("credentials/another")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    assert "nobody to ask" in keygen().stderr


def test_the_flag_goes_before_the_variable_and_that_before_the_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words("credentials/fedbcs-secure-passphrase", "credential credential")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    monkeypatch.setenv("FEDBCS_PASSPHRASE_FILE", words("variable", "variable variable"))
    assert keygen("--site-dir", "a", "--passphrase-file", words()).returncode == 0
    load(Path("a"), Passphrase(OLD))
    assert keygen("--site-dir", "b").returncode == 0
    load(Path("b"), Passphrase("variable variable"))


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
def test_a_file_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = words(mode=0o644)
    monkeypatch.setenv("FEDBCS_PASSPHRASE_FILE", name)
    for result in (keygen("--passphrase-file", name), keygen()):
        assert result.returncode == 1
        assert result.stderr == (f"error: {name} can be read by others: chmod 600 {name}\n")


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """The package ``keyring``, with a trusted backend in memory; returns what it keeps."""
    kept: dict[tuple[str, str], str] = {}

    class Backend:
        priority = 5

    errors, library = ModuleType("keyring.errors"), ModuleType("keyring")
    vars(errors)["KeyringError"] = type("KeyringError", (Exception,), {})
    vars(library).update(
        errors=errors,
        get_keyring=Backend,
        get_password=lambda service, user: kept.get((service, user)),
        set_password=lambda service, user, text: kept.update({(service, user): text}),
    )
    monkeypatch.setitem(sys.modules, "keyring", library)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    return kept


def test_in_the_keyring_nobody_is_asked(keyring: dict[tuple[str, str], str]) -> None:
    row = made("--keyring")
    assert len(keyring) == 1
    assert method_of(Path("site")) is Method.KEYRING
    # Opened again without a question, to go under a passphrase.
    assert made("--change", "--passphrase-file", words())["public_key"] == row["public_key"]
    load(Path("site"), Passphrase(OLD))


def test_a_keyring_is_taken_only_where_it_is_asked_for(
    keyring: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBCS_PASSPHRASE_FILE", words())
    made("--site-dir", "a")
    assert (method_of(Path("a")), keyring) == (Method.PASSPHRASE, {})
    made("--site-dir", "b", "--keyring")
    assert method_of(Path("b")) is Method.KEYRING


def test_no_keyring_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    result = keygen("--keyring")
    assert result.returncode == 1
    assert 'pip install "fedbcs-secure[keyring]"' in result.stderr


# Changing, and making twice ----------------------------------------------------------------------


def test_change_asks_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    row = made("--passphrase-file", words())
    typist = Typist(OLD, NEW).sit_down(monkeypatch)
    assert made("--change") == row
    assert typist.asked == [("Passphrase", False), ("New passphrase", True)]
    load(Path("site"), Passphrase(NEW))


def test_change_on_a_machine_without_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable has the old passphrase, the flag the new one."""
    monkeypatch.setenv("FEDBCS_PASSPHRASE_FILE", words("old"))
    row = made()
    # The variable alone must not be taken for the new one as well.
    assert "nobody to ask" in keygen("--change").stderr
    load(Path("site"), Passphrase(OLD))
    assert made("--change", "--passphrase-file", words("new", NEW)) == row
    load(Path("site"), Passphrase(NEW))


def test_change_under_the_wrong_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    made("--passphrase-file", words())
    Typist(NEW, NEW).sit_down(monkeypatch)
    result = keygen("--change")
    assert result.returncode == 1
    assert result.stderr == (
        "error: site/site.key does not open: a wrong passphrase, or a damaged file\n"
    )
    load(Path("site"), Passphrase(OLD))


def test_change_and_show_need_a_key() -> None:
    for result in (keygen("--change", "--passphrase-file", words()), keygen("--show")):
        assert result.returncode == 1
        assert "fedbcs-secure keygen makes" in result.stderr
    assert not Path("site").exists()


@pytest.mark.parametrize("text", ["", "\n", "zz\n", "00" * 31 + "\n", "00" * 32 + "\n"])
def test_a_damaged_public_half(text: str) -> None:
    row = made("--passphrase-file", words())
    Path("site/site.pub").write_text(text)
    result = keygen("--show")
    assert result.returncode == 1
    assert "cannot read the public key in site/site.pub" in result.stderr
    assert "--change" in result.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDBCS_PASSPHRASE_FILE", "words")
        made("--change", "--passphrase-file", "words")
    assert made("--show") == row


def test_show_needs_no_passphrase_and_writes_nothing() -> None:
    made("--passphrase-file", words())
    before = {path: path.read_bytes() for path in Path("site").iterdir()}
    keygen("--show")
    # Nor with a flag beside it that would.
    both = keygen("--show", "--change")
    assert both.returncode == 2
    assert "exclude each other" in both.stderr
    assert {path: path.read_bytes() for path in Path("site").iterdir()} == before


def test_a_second_identity_is_not_made() -> None:
    row = made("--passphrase-file", words())
    result = keygen("--passphrase-file", "words")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: site/site.key exists; with another identity")
    # Before anything is asked for.
    assert keygen().stderr == result.stderr
    assert made("--show") == row


def test_usage_errors_exit_with_2() -> None:
    both = keygen("--keyring", "--passphrase-file", words())
    assert both.returncode == 2
    assert "exclude each other" in both.stderr
    assert keygen("--no-such-flag").returncode == 2
    assert keygen("--site-dir").returncode == 2
    assert not Path("site").exists()


# The true program, at a terminal -----------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_at_a_terminal_nothing_typed_is_shown() -> None:
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "keygen", "--json"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        os.close(slave)
        seen = b""
        for prompts in (1, 2):
            while seen.count(b": ") < prompts:
                seen += os.read(master, 1024)
            os.write(master, OLD.encode() + b"\n")
        assert process.stdout is not None
        row = json.loads(process.stdout.read())
    os.close(master)
    assert process.returncode == 0
    assert OLD.encode() not in seen
    held = load(Path("site"), Passphrase(OLD))
    assert held.identity.public.raw.hex() == row["public_key"]
