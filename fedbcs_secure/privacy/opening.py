"""What a ledger must be before it is used: this site's own, and no older copy (DP-5.6)."""

from __future__ import annotations

import hmac
from pathlib import Path

from fedbcs_protocols.identity import PublicIdentity
from fedbcs_secure.errors import LedgerError
from fedbcs_secure.privacy.chain import Book, Head, Row, bad_entry
from fedbcs_secure.privacy.patients import PatientKey
from fedbcs_secure.privacy.store import Store


def read(store: Store) -> tuple[Book, Row | None]:
    """All entries of a ledger, and the last of them.

    Raises :class:`LedgerError` that names the first bad one.
    """
    book, last = Book(), None
    for row in store.rows():
        book.take(row)
        last = row
    return book, last


def check_new(path: Path, known: Head | None, released: bool) -> None:
    """Return if a ledger without entries is a new one. ``released``: there are release files.

    DP-5.6. Raises :class:`LedgerError`.
    """
    if known is not None or released:
        raise LedgerError(
            f"the ledger {path} is missing or empty, though there was one: its head or its "
            "releases are there. Put back the latest ledger; without it the site cannot know what "
            "it has spent, and takes no part"
        )


def check_owner(path: Path, book: Book, site: PublicIdentity, patients: PatientKey) -> None:
    """Return if the ledger is this site's, under this storage key. Raises :class:`LedgerError`."""
    opened = book.opened
    if opened is None or opened.site != site.raw:
        raise LedgerError(
            f"{path} is the ledger of another site, or of another key of this one; find the ledger "
            "that belongs to this key"
        )
    if not hmac.compare_digest(opened.key_check, patients.check()):
        raise LedgerError(
            f"{path} was kept under another storage key, so its patients would not be known again; "
            "use the key file that the ledger was opened with"
        )


def check_head(
    path: Path, book: Book, head_path: Path, known: Head | None, trust_ledger: bool
) -> None:
    """Return unless the ledger is older than ``known``, which the file at ``head_path`` says.

    DP-5.6. Raises :class:`LedgerError`.
    """
    if known is None:
        if book.releases and not trust_ledger:
            raise LedgerError(
                f"the head {head_path} is missing, so nobody can say whether {path} is the latest "
                "ledger. Put the head back. If it is lost, and nobody can have restored an older "
                "ledger, open the ledger with trust_ledger"
            )
    elif known.sequence > book.head.sequence:
        raise LedgerError(
            f"{path} ends at entry {book.head.sequence}, but had {known.sequence} before: an "
            "older copy was restored, or the end was lost. Put back the latest ledger with its "
            "-wal file; without it the site cannot know what it has spent, and takes no part"
        )
    elif not book.contains(known):
        raise LedgerError(
            f"{path} has another entry {known.sequence} than before: an older copy was restored "
            f"and went on from there. Put back the ledger that the head {head_path} belongs to; "
            "until then the site takes no part"
        )


def check_signature(last: Row, site: PublicIdentity) -> None:
    """Return if the last signature is right. Raises :class:`LedgerError`."""
    # DP-5.2: by the chain, it is over all entries.
    try:
        last.check_signature(site)
    except LedgerError as error:
        raise bad_entry(last.sequence, error) from None
