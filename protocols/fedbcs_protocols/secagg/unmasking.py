"""Taking the masks off: secrets put together from shares, checked, and their streams removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbcs_protocols.errors import BadShare, InconsistentShares
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.ring import Words
from fedbcs_protocols.secagg.ephemeral import commitment
from fedbcs_protocols.secagg.keytable import KeyTable
from fedbcs_protocols.secagg.masking import Mask, Masker, pair_mask, self_mask
from fedbcs_protocols.secagg.setting import Setting
from fedbcs_protocols.secagg.shamir import combine

_BATCH = 16
"""Streams that are removed in one pass over the vector: bounds their memory."""


def recover(
    shares: Mapping[int, bytes], threshold: int, owner: str, fits: Callable[[bytes], bool]
) -> bytes:
    """The 32-byte secret that ``fits``, from shares by holder's place (SA-6.6).

    Raises :class:`BadShare` naming the owner when neither the lowest shares nor those without one
    of the holders give it.
    """
    by_x = {place + 1: share for place, share in sorted(shares.items())}
    attempts: Iterator[Mapping[int, bytes]] = iter(
        [by_x, *({x: s for x, s in by_x.items() if x != left_out} for left_out in by_x)]
    )
    for candidate in attempts:
        if len(candidate) < threshold:
            continue
        try:
            secret = combine(candidate, threshold)
        except InconsistentShares:
            continue
        if fits(secret):
            return secret
    raise BadShare(owner, "the shares of its secret do not give what it committed to")


def masks_left(
    setting: Setting,
    table: KeyTable,
    sharers: frozenset[int],
    survivors: frozenset[int],
    shares: Mapping[int, Mapping[int, bytes]],
) -> Iterator[Mask]:
    """The masks to add to the sum of the masked vectors so that the plain sum remains (SA-7.1).

    ``shares`` maps each sharer's place to its shares by holder: of its seed if it survived, of its
    mask key otherwise.
    """
    for place in sorted(sharers):
        name, advert = setting.names[place], table.adverts[place]

        if place in survivors:

            def fits_seed(seed: bytes, name: str = name, wanted: bytes = advert.commitment) -> bool:
                return commitment(seed, setting.binding, name) == wanted

            seed = recover(shares[place], table.graph.threshold, name, fits_seed)
            yield self_mask(seed, setting.binding, name, advert.mask_key).removed
            continue

        def fits_key(secret: bytes, wanted: bytes = advert.mask_key) -> bool:
            return public_bytes(X25519PrivateKey.from_private_bytes(secret)) == wanted

        secret = recover(shares[place], table.graph.threshold, name, fits_key)
        private = X25519PrivateKey.from_private_bytes(secret)
        # What the one that left would have added is what its neighbours' masks lack.
        for peer in sorted(table.neighbours(place) & survivors):
            yield pair_mask(private, setting, table, place, peer)


def apply_masks(total: Words, masks: Sequence[Mask], bits: int) -> None:
    """Add ``masks`` to ``total`` (count,) uint32 in place, modulo 2^bits."""
    for start in range(0, len(masks), _BATCH):
        Masker(masks[start : start + _BATCH], bits).apply(total)
