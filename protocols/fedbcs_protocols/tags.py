"""Tags that make a sum verifiable: what only sites can form, and every site can check (VS).

The vector is cut into chunks. For chunk k of site i's values x

    T_ik = Σ_j γ_j x_ikj + τ_ik  mod p,   p = 2^61 - 1

with weights γ and pads τ from a key that all sites share and the combiner does not have. Tags
travel in the vector as limbs of a few bits, so they are added up with it: the sum over sites S is
right if, chunk by chunk, Σ_S T_ik = Σ_j γ_j X_kj + Σ_S τ_ik. Whoever lacks the key passes a chunk
that is wrong with probability 2^-60 (Wegman and Carter 1981: a universal hash under a one-time
pad). With the key, which any site has, one can forge.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.binding import COMBINER, Binding
from fedbcs_protocols.derive import Keystream, purpose_key
from fedbcs_protocols.errors import BadTag, LocalError
from fedbcs_protocols.ring import Words

PRIME = (1 << 61) - 1
PRIME_BITS = 61
CHUNK = 8192
"""Values under one tag, where nothing else decides."""
MAX_CHUNK = 1 << 14

_WEIGHTS_LABEL = "verified sum weights"
_PADS_LABEL = "verified sum pads"
_EXACT_BITS = 53
_ROWS = 16
"""Few enough that BLAS does not start threads, whose waiting costs more than they do."""
_PIECE = 1 << 18

Tags = NDArray[np.uint64]


def limb_bits(bits: int) -> int:
    """Bits of a limb in a vector whose values have ``bits`` bits: at most 16 (VS-2.3)."""
    return min(16, bits)


def limbs_of(bits: int) -> int:
    """Limbs of one tag."""
    return -(-PRIME_BITS // limb_bits(bits))


def tags_of(count: int, chunk: int = CHUNK) -> int:
    """Tags of a vector of ``count`` values."""
    return -(-count // chunk)


def tagged_count(count: int, bits: int, chunk: int = CHUNK) -> int:
    """Length of a vector of ``count`` values with its tags behind it."""
    return count + tags_of(count, chunk) * limbs_of(bits)


class Tagger:
    """Forms and checks the tags of one sum.

    ``secret`` is the group's (32 bytes), ``epoch`` its number; ``binding`` that of the sum, so a
    tag fits no other study, round, attempt or state. Values are below 2^``bits`` at a site and
    below 2^32 in a sum.
    """

    def __init__(
        self, secret: bytes, epoch: int, binding: Binding, bits: int, chunk: int = CHUNK
    ) -> None:
        if not 1 <= chunk <= MAX_CHUNK or not 1 <= bits <= 24:
            raise LocalError(f"tags are over 1 to {MAX_CHUNK} values of at most 24 bits")
        self.bits = bits
        self.chunk = chunk
        self._secret, self._epoch, self._binding = secret, epoch, binding
        # VS-2.1
        key = purpose_key(secret, _WEIGHTS_LABEL, binding, epoch)
        self._weights = _elements(key, chunk)

    def tags(self, values: Words, added: int = 1) -> Tags:
        """Σ_j γ_j x_kj mod p for each chunk k of ``values``, without pads.

        (N,) uint32 to (ceil(N / chunk),) uint64; the last chunk may be shorter. How long it takes
        does not depend on values that a sum over ``added`` sites can have (CK-5.7).
        """
        possible = (added * ((1 << self.bits) - 1)).bit_length()
        largest = max(int(values.max(initial=0)).bit_length(), possible)
        width = _EXACT_BITS - largest - (self.chunk - 1).bit_length()
        pieces = _in_pieces(self._weights, width)
        full, rest = divmod(values.size, self.chunk)
        out = np.zeros(full + bool(rest), np.uint64)
        matrix = values[: full * self.chunk].reshape(full, self.chunk)
        for start in range(0, full, _ROWS):
            rows = matrix[start : start + _ROWS]
            out[start : start + len(rows)] = _inner(rows, pieces, width)
        if rest:
            out[full] = _inner(values[None, full * self.chunk :], pieces[:rest], width)[0]
        return out

    def pads(self, site: str, count: int) -> Tags:
        """The (count,) pads τ of a site's tags (VS-2.2)."""
        return _elements(
            purpose_key(self._secret, _PADS_LABEL, self._binding, self._epoch, site), count
        )

    def sealed(self, values: Words, site: str) -> Words:
        """The limbs of the site's tags of ``values``, limb after limb: (L·tags,) uint32."""
        tags = self.tags(values)
        return split(_add(tags, self.pads(site, tags.size)), self.bits)

    def tagged(self, values: Words, site: str) -> Words:
        """``values`` with the limbs of their tags behind them."""
        return np.concatenate([values, self.sealed(values, site)])

    def check(self, values: Words, limbs: Words, sites: Iterable[str]) -> None:
        """Return when ``limbs`` are the sum of the tags of ``sites`` over the sum ``values``.

        Raises :class:`BadTag`.
        """
        if limbs.size % limbs_of(self.bits):
            raise LocalError(f"{limbs.size} limbs are no tags of {limbs_of(self.bits)} limbs each")
        members = tuple(sites)
        expected = self.tags(values, len(members))
        for site in members:
            expected = _add(expected, self.pads(site, expected.size))
        # VS-3.2
        if not np.array_equal(joined(limbs, self.bits), expected):
            raise BadTag(
                COMBINER,
                "the sum is not that of the sites in it: the combiner changed it, or a site sent "
                "tags that do not fit its values",
            )

    def opened(self, total: Words, count: int, sites: Iterable[str]) -> Words:
        """The sum of the values in a sum of :meth:`tagged` vectors, after :meth:`check`."""
        if total.size != tagged_count(count, self.bits, self.chunk):
            raise LocalError(f"a tagged sum of {total.size} values for a vector of {count}")
        self.check(total[:count], total[count:], sites)
        return total[:count]

    def __repr__(self) -> str:
        return f"Tagger(epoch {self._epoch}, secret redacted)"


def split(tags: Tags, bits: int) -> Words:
    """Each tag in limbs, lowest first; all first limbs, then all second ones (VS-2.3)."""
    width = limb_bits(bits)
    mask = np.uint64((1 << width) - 1)
    limbs = [(tags >> np.uint64(width * at)) & mask for at in range(limbs_of(bits))]
    return np.concatenate(limbs).astype(np.uint32)


def joined(limbs: Words, bits: int) -> Tags:
    """The numbers mod p that limbs, or sums of up to 1,024 sites' limbs, stand for."""
    rows = limbs.reshape(limbs_of(bits), -1).astype(np.uint64)
    out = np.zeros(rows.shape[1], np.uint64)
    for at, row in enumerate(rows):
        out = _add(out, _shifted(row, limb_bits(bits) * at))
    return out


def _inner(rows: Words, pieces: NDArray[np.float64], width: int) -> Tags:
    # Every product and every partial sum is a whole number below 2^53, so neither the order of
    # operations nor a fused multiplication can change the result.
    parts = (rows.astype(np.float64) @ pieces).astype(np.uint64)
    out = np.zeros(parts.shape[0], np.uint64)
    for at in range(parts.shape[1]):
        out = _add(out, _shifted(parts[:, at], width * at))
    return out


def _in_pieces(weights: Tags, width: int) -> NDArray[np.float64]:
    """(chunk,) weights as (chunk, L) numbers of ``width`` bits."""
    mask = np.uint64((1 << width) - 1)
    shifts = range(0, PRIME_BITS, width)
    return np.stack([((weights >> np.uint64(s)) & mask).astype(np.float64) for s in shifts], axis=1)


def _elements(key: bytes, count: int) -> Tags:
    """(count,) numbers mod p from a keystream: the low 61 bits of each word, p as 0."""
    stream = Keystream(key)
    out = np.empty(count, np.uint64)
    for start in range(0, count, _PIECE // 8):
        piece = out[start : start + _PIECE // 8]
        piece[:] = np.frombuffer(stream.next(8 * piece.size), "<u8")
    out &= np.uint64(PRIME)
    return _reduced(out)


def _shifted(values: Tags, by: int) -> Tags:
    """values · 2^by mod p for values below 2^61: a rotation of 61 bits."""
    if by == 0:
        return _reduced(values)
    low = (values << np.uint64(by)) & np.uint64(PRIME)
    return _reduced(low + (values >> np.uint64(PRIME_BITS - by)))


def _add(a: Tags, b: Tags) -> Tags:
    return _reduced(a + b)


def _reduced(values: Tags) -> Tags:
    """Numbers up to 2p as numbers below p."""
    return np.where(values >= np.uint64(PRIME), values - np.uint64(PRIME), values)
