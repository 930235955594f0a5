"""Each site's last *ready* frame, kept by the combiner: a site's own word on its ledger (RO-7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.errors import Inconsistent, PeerError
from fedbcs_protocols.framelist import decode_frames, encode_frames, frames_limit
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.wire import Kind, decode, expect_sequence, open_frame
from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.heads import OlderLedger, SeenHeads, decode_head
from fedbcs_secure.federation.rounds import CONTROL, Parties
from fedbcs_secure.files import write_durably
from fedbcs_secure.privacy.ledger import Ledger


@dataclass(frozen=True)
class ReadyFile:
    """Where the frames are kept, in the roster's order; on the disk when written."""

    path: Path

    def read(self, parties: Parties) -> dict[str, bytes]:
        """The frames by site, each one checked. Raises :class:`RunFolderError`."""
        sites, longest = len(parties.roster), parties.start_limit
        try:
            with self.path.open("rb") as stream:
                data = stream.read(frames_limit(sites, longest) + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunFolderError(f"cannot read {self.path}: {error.strerror}") from None
        try:
            listed = decode_frames(
                data, sender=COMBINER, sites=sites, longest=longest, what="file of ready frames"
            )
            frames = {n: f for n, f in zip(parties.roster, listed, strict=True) if f is not None}
            for site, frame in frames.items():
                signed_head(frame, site, parties)
        except PeerError as error:
            raise RunFolderError(
                f"{self.path} is damaged or of another study: {error}. It says how far the sites' "
                "ledgers were; put it back, or delete it if nobody can have restored an older "
                "ledger"
            ) from None
        return frames

    def write(self, frames: dict[str, bytes], parties: Parties) -> None:
        """Replace what was kept."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            data = encode_frames([frames.get(site) for site in parties.roster])
            write_durably(self.path, data, mode=0o600)
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path}: {error.strerror}") from None


class KeptReadies:
    """The last *ready* frame of each site whose ledger did not go back.

    With a ``file`` a new process knows them too. In a study without ``[privacy]`` nothing is kept.
    """

    def __init__(self, parties: Parties, file: ReadyFile | None = None) -> None:
        self._parties = parties
        self._file = file if parties.head_bytes else None
        self._seen = SeenHeads()
        self._frames: dict[str, bytes] = {}
        self._changed = False
        if self._file is not None:
            self._frames = self._file.read(parties)
            shown = {site: signed_head(f, site, parties) for site, f in self._frames.items()}
            self._seen.take(shown)

    def take(self, site: str, frame: bytes, head: Buffer) -> None:
        """A *ready* frame that was found to be the site's, and the head in it.

        Raises :class:`HeadWentBack` (RO-7.2) or :class:`MalformedFrame`; nothing is changed then.
        """
        if not self._parties.head_bytes:
            return
        self._seen.take({site: head})
        self._changed |= self._frames.get(site) != frame
        self._frames[site] = frame

    def keep(self) -> None:
        """RO-7.2: on the disk before anything follows from the frames."""
        if self._file is not None and self._changed:
            self._file.write(self._frames, self._parties)
        self._changed = False

    def last(self, site: str) -> bytes:
        """The body of a site's *start*: its own last frame, or nothing (RO-7.4)."""
        return self._frames.get(site, b"")


def check_own(frame: Buffer, site: str, parties: Parties, ledger: Ledger) -> None:
    """Return if this site's ledger has the head that the site signed in ``frame`` (RO-7.4).

    Raises :class:`Inconsistent` for anything but the site's own frame of this study: the combiner
    made it up. Raises :class:`OlderLedger` if the entry is not there.
    """
    try:
        head = decode_head(signed_head(frame, site, parties), sender=site)
    except PeerError as error:
        raise Inconsistent(
            COMBINER, f"what it says that this site signed is no ready frame of it: {error.what}"
        ) from None
    if not ledger.has_shown(parties.digest, head):
        raise OlderLedger(
            "this site's ledger is older than what the site has signed: an older copy was "
            f"restored. The site signed entry {head.sequence}, and the ledger, which ends at entry "
            f"{ledger.head.sequence}, does not have it. Put back the latest ledger with its -wal "
            "file, its head and its releases; without them the site cannot know what it has spent, "
            "and takes no part"
        )


def signed_head(frame: Buffer, site: str, parties: Parties) -> bytes:
    """The head (RO-7.1) in a *ready* frame that ``site`` signed in this study, in whatever round.

    Raises a :class:`PeerError`.
    """
    limits = {Kind.READY: parties.ready_bytes}
    expect = replace(
        decode(frame, limits).binding, study_digest=parties.digest, attempt=0, phase=CONTROL
    )
    opened = open_frame(frame, roster={site: parties.roster[site]}, expect=expect, limits=limits)
    expect_sequence(opened, 0)
    # Behind the standing, if there is one; of a wrong length if the body is.
    head = bytes(opened.body[parties.ready_bytes - parties.head_bytes :])
    decode_head(head, sender=site)
    return head
