"""The chunks of a vector: who sends them, the values, and the tag of each (CK-2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.products import BATCH
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.errors import BadMembers, LocalError
from fedbcs_protocols.ring import Words
from fedbcs_protocols.tags import Tagger, limbs_of


def tagger_of(setting: CkksSetting, secret: bytes, epoch: int) -> Tagger:
    """The tags of this sum: one a ciphertext."""
    params = setting.params
    return Tagger(secret, epoch, setting.binding, params.bits, params.payload)


def batches_of(vector: Words, setting: CkksSetting, tagger: Tagger, name: str) -> Iterator[Words]:
    """Site ``name``'s chunks, (k, f·N) uint32 with k = 4 but at the end; the array is reused.

    The payload is a field for each site, 1 for this one and 0 for others (CK-2.3), the vector, and
    zeros; the limbs of the chunk's tag follow it (CK-2.4).
    """
    params, sites = setting.params, setting.sites
    if vector.dtype != np.uint32 or vector.shape != (setting.count,):
        raise LocalError(f"the vector must be ({setting.count},) uint32")
    if int(vector.max()) >> params.bits:
        raise LocalError(f"a value has more than {params.bits} bits")
    payload = np.zeros(setting.chunks * params.payload, np.uint32)
    payload[setting.names.index(name)] = 1
    payload[sites : sites + vector.size] = vector
    limbs = tagger.sealed(payload, name).reshape(limbs_of(params.bits), setting.chunks).T
    rows = payload.reshape(setting.chunks, params.payload)
    batch = np.empty((BATCH, params.capacity), np.uint32)
    for start in range(0, setting.chunks, BATCH):
        some = slice(start, start + BATCH)
        out = batch[: len(rows[some])]
        out[:, : params.payload] = rows[some]
        out[:, params.payload :] = limbs[some]
        yield out


class Gathered:
    """The decrypted chunks of a sum, to be checked as a whole."""

    def __init__(self, setting: CkksSetting) -> None:
        params = setting.params
        self._setting = setting
        self._payload = np.zeros((setting.chunks, params.payload), np.uint32)
        self._limbs = np.zeros((limbs_of(params.bits), setting.chunks), np.uint32)

    def put(self, index: int, values: Words) -> None:
        """Keep the chunks from ``index`` on, (k, f·N) uint32."""
        payload, some = self._setting.params.payload, slice(index, index + len(values))
        self._payload[some] = values[:, :payload]
        self._limbs[:, some] = values[:, payload:].T

    def check(self, tagger: Tagger, members: Collection[int]) -> Words:
        """The (count,) sum over ``members``.

        Raises :class:`BadMembers` (CK-5.5) and :class:`fedbcs_protocols.errors.BadTag` (CK-5.6).
        """
        setting, values = self._setting, self._payload.reshape(-1)
        flags = values[: setting.sites]
        expected = np.zeros(setting.sites, np.uint32)
        expected[sorted(members)] = 1
        # CK-5.6 is worked out whether or not CK-5.5 holds, so that a refusal takes as long.
        fault: BadMembers | None = None
        if not np.array_equal(flags, expected):
            fault = BadMembers(COMBINER, "the sum is not over the sites that it is said to be over")
        tagger.check(values, self._limbs.reshape(-1), [setting.names[p] for p in sorted(members)])
        if fault is not None:
            raise fault
        return values[setting.sites : setting.sites + setting.count]
