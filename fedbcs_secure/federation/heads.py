"""How far each site's privacy ledger reaches, as its *ready* frames say (RO-7, DP-5.6)."""

from __future__ import annotations

from collections.abc import Mapping

from fedbcs_protocols.binding import DIGEST_BYTES
from fedbcs_protocols.errors import MalformedFrame, PeerError, Refused
from fedbcs_protocols.ring import Buffer
from fedbcs_secure.privacy.shown import ShownHead

_NUMBER_BYTES = 8
HEAD_BYTES = _NUMBER_BYTES + DIGEST_BYTES


class HeadWentBack(PeerError):
    """A site's ledger is behind what the site has shown before, or another one."""


class OlderLedger(Refused):
    """This site's ledger does not have an entry that the site has signed."""


def encode_head(head: ShownHead) -> bytes:
    """The number of a ledger's last entry (8 bytes, big-endian), and its value (32) (RO-7.1)."""
    return head.sequence.to_bytes(_NUMBER_BYTES, "big") + head.value


def decode_head(data: Buffer, *, sender: str) -> ShownHead:
    """The inverse. Raises :class:`MalformedFrame` naming the sender."""
    # RO-7.1
    if len(data) != HEAD_BYTES:
        raise MalformedFrame(sender, f"a ledger's head of {len(data)} bytes, not {HEAD_BYTES}")
    raw = bytes(data)
    return ShownHead(int.from_bytes(raw[:_NUMBER_BYTES], "big"), raw[_NUMBER_BYTES:])


class SeenHeads:
    """The highest head that was seen of each site."""

    def __init__(self) -> None:
        self._heads: dict[str, ShownHead] = {}

    def take(self, shown: Mapping[str, Buffer]) -> None:
        """Remember these heads by site: all of them, or none.

        Raises :class:`HeadWentBack`, or :class:`MalformedFrame`, naming the first site whose head
        cannot follow the last one.
        """
        heads = {site: decode_head(data, sender=site) for site, data in shown.items()}
        for site, head in heads.items():
            self._check(site, head)
        self._heads |= heads

    def _check(self, site: str, head: ShownHead) -> None:
        """RO-7.2: a number that falls, or that has two values."""
        before = self._heads.get(site)
        if before is None or head.sequence > before.sequence or head == before:
            return
        how = "another value than" if head.sequence == before.sequence else "after"
        raise HeadWentBack(
            site,
            f"its privacy ledger went back: it ends at entry {head.sequence}, {how} entry "
            f"{before.sequence} before. An older copy was restored; people at the site must put "
            "back the latest one",
        )
