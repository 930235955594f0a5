"""What a cheating combiner makes of the shares that it has: secrets, vectors, sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from colluder import ANY
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hostile_combiner import HostileCombiner, Vector

from fedbcs_protocols.errors import PeerError
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.ring import modulus_mask, unpack
from fedbcs_protocols.secagg.ephemeral import commitment
from fedbcs_protocols.secagg.masking import Mask, Masker, pair_mask, self_mask
from fedbcs_protocols.secagg.shamir import SHARE_BYTES
from fedbcs_protocols.secagg.sharing import SharePair
from fedbcs_protocols.secagg.unmasking import recover
from fedbcs_protocols.wire import decode


class Thief:
    """What the combiner holds in one sum, and what it can make of it.

    At first the shares that the colluding sites hold; :meth:`take` adds what honest sites give.
    """

    def __init__(self, script: HostileCombiner) -> None:
        self.script = script
        self.setting = script.setting
        self.table = script.table(script.victim)
        self.sharers = script.places(script.came["share"])
        self.seeds: dict[int, dict[int, bytes]] = {}
        """Shares of seeds, by owner's place, then by holder's."""
        self.keys: dict[int, dict[int, bytes]] = {}
        for name, colluder in script.colluders.items():
            for owner, pair in colluder.held.items():
                self._keep(owner, script.place(name), pair)

    def _keep(self, owner: int, holder: int, pair: SharePair) -> None:
        self.seeds.setdefault(owner, {})[holder] = pair.seed
        self.keys.setdefault(owner, {})[holder] = pair.mask_key

    def take(self, name: str, answer: bytes, survivors: Iterable[str]) -> None:
        """The shares in an honest site's answer about this list."""
        stayed = self.script.places(survivors)
        body = bytes(decode(answer, ANY).body)
        owners = self.table.owners(self.script.place(name)) & self.sharers
        assert len(body) == len(owners) * SHARE_BYTES
        for index, owner in enumerate(sorted(owners)):
            kind = self.seeds if owner in stayed else self.keys
            share = body[index * SHARE_BYTES : (index + 1) * SHARE_BYTES]
            kind.setdefault(owner, {})[self.script.place(name)] = share

    def seed(self, name: str) -> bytes | None:
        """The self-mask seed of ``name``, if the shares give it."""
        place = self.script.place(name)
        wanted = self.table.adverts[place].commitment
        binding = self.setting.binding
        return self._recovered(
            self.seeds, name, lambda seed: commitment(seed, binding, name) == wanted
        )

    def key(self, name: str) -> bytes | None:
        """The secret mask key of ``name``, if the shares give it."""
        wanted = self.table.adverts[self.script.place(name)].mask_key
        return self._recovered(
            self.keys, name, lambda key: public_bytes(private_key(key)) == wanted
        )

    def _recovered(
        self,
        shares: Mapping[int, Mapping[int, bytes]],
        name: str,
        fits: Callable[[bytes], bool],
    ) -> bytes | None:
        try:
            place = self.script.place(name)
            return recover(shares.get(place, {}), self.setting.terms.graph.threshold, name, fits)
        except PeerError:
            return None

    def masked(self, name: str) -> Vector:
        """The values under the masks, as they came."""
        packed = memoryview(self.script.body("masked_input", name))[8:]
        return unpack(packed, self.setting.count, self.setting.bits)

    def without_pairs(self, name: str, key: bytes) -> Vector:
        """The masked vector less the masks with all other sharers."""
        me, private = self.script.place(name), private_key(key)
        masks = [
            pair_mask(private, self.setting, self.table, me, peer).removed
            for peer in sorted(self.table.neighbours(me) & self.sharers)
        ]
        return self.less(self.masked(name), masks)

    def without_self(self, name: str, values: Vector, seed: bytes) -> Vector:
        """Less the self mask."""
        advert = self.table.adverts[self.script.place(name)]
        mask = self_mask(seed, self.setting.binding, name, advert.mask_key)
        return self.less(values, [mask.removed])

    def total(self, survivors: Iterable[str]) -> Vector | None:
        """The plain sum over ``survivors``, if the shares give it."""
        names = tuple(survivors)
        total = np.zeros(self.setting.count, np.uint32)
        for name in names:
            seed = self.seed(name)
            if seed is None:
                return None
            total += self.without_self(name, self.masked(name), seed)
        stayed = self.script.places(names)
        for name in self.script.came["share"]:
            if name in names:
                continue
            key = self.key(name)
            if key is None:
                return None
            place = self.script.place(name)
            # What it would have added.
            masks = [
                pair_mask(private_key(key), self.setting, self.table, place, peer)
                for peer in sorted(self.table.neighbours(place) & stayed)
            ]
            total = self.less(total, masks)
        return total & modulus_mask(self.setting.bits)

    def less(self, values: Vector, masks: list[Mask]) -> Vector:
        out = values.copy()
        Masker(masks, self.setting.bits).apply(out)
        return out


def private_key(key: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(key)
