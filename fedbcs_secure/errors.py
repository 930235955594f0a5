"""Errors of the toolkit. Each message says what happened, what was expected and what to do."""

from __future__ import annotations


class FedBCSError(Exception):
    """Base of every error that the toolkit raises on purpose; the command line exits with 1."""


class StudyError(FedBCSError):
    """The study document is wrong: unknown key, impossible combination, missing roster."""


class DataError(FedBCSError):
    """A data set is unusable.

    ``problems`` holds one sentence for each finding; each names the file, the patient and what
    was expected. These texts stay at the site: they never travel.
    """

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class ModelError(FedBCSError):
    """A model file is unreadable or does not fit the data."""


class RunFolderError(FedBCSError):
    """A run folder is missing, damaged, in use, finished or of another study."""


class RoundError(FedBCSError):
    """A round came to no sum: too few sites are left. The last completed round is kept."""


class KeyFileError(FedBCSError):
    """A site's key file, or its passphrase, is missing, damaged, wrong or open to others."""


class PrivacyError(FedBCSError):
    """A privacy parameter is out of range, or a plan cannot be carried out."""


class LedgerError(FedBCSError):
    """A site's privacy ledger is missing, damaged, in use or old; nothing is released."""
