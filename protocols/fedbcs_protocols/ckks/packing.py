"""Integers in the slots of a plaintext, and back, exactly (CK-2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.params import DEGREE, ParameterSet
from fedbcs_protocols.errors import BadNoise, LocalError, SumOutOfRange
from fedbcs_protocols.ring import Words

Slots = NDArray[np.complex128]


def pack(values: Words, params: ParameterSet) -> Slots:
    """(f·N,) uint32 values below 2^b as (N/2,) complex slots.

    Component i holds Σ_d (v_(d·N + i) - 2^(b-1))·B^d; two neighbours are a slot (CK-2.1).
    """
    if values.shape != (params.capacity,) or int(values.max()) >> params.bits:
        raise LocalError(f"a chunk is {params.capacity} values of {params.bits} bits")
    digits = values.reshape(params.fields, DEGREE).astype(np.float64)
    digits -= 1 << (params.bits - 1)
    # All numbers are whole and below 2^52, so this is exact.
    components = digits[-1]
    for row in digits[-2::-1]:
        components = components * params.base + row
    return np.ascontiguousarray(components).view(np.complex128)


def unpack(slots: Slots, params: ParameterSet, added: int) -> tuple[Words, float]:
    """The (f·N,) uint32 sums over ``added`` sites, and the sum of squares of what was rounded off.

    Raises :class:`SumOutOfRange` for a digit that no sum of ``added`` values can have (CK-5.3).
    """
    components = np.ascontiguousarray(slots).view(np.float64)
    beyond = not np.isfinite(components).all() or float(np.abs(components).max()) >= 2.0**52
    if beyond:
        # CK-5.7: all that follows takes as long as for any other chunk.
        components = np.zeros_like(components)
    whole = np.rint(components)
    components = components - whole
    squares = float(np.dot(components, components))
    out = np.empty((params.fields, DEGREE), np.float64)
    base, half = float(params.base), params.base / 2
    for row in out[:-1]:
        # The digit nearest to zero, -B/2 <= d < B/2. Exact: numbers are whole and below 2^52, so a
        # quotient is off by at most half of 1/B, and none that is below a whole number reaches it.
        upper = np.floor((whole + half) / base)
        np.subtract(whole, upper * base, out=row)
        whole = upper
    out[-1] = whole
    out += added << (params.bits - 1)
    most = added * ((1 << params.bits) - 1)
    fits = float(out.min()) >= 0 and float(out.max()) <= most
    values = np.clip(out, 0, most, out=out).astype(np.uint32).reshape(-1)
    # CK-5.3
    if beyond:
        raise SumOutOfRange(COMBINER, "a decrypted value is beyond what a sum can be")
    if not fits:
        raise SumOutOfRange(COMBINER, f"a decrypted value is no sum of {added} sites' values")
    return values, squares


NOISE_TOLERANCE = 0.08


def check_noise(squares: float, components: int, params: ParameterSet, added: int) -> None:
    """Return when the rounding residue is as large as the noise of ``added`` ciphertexts (CK-5.4).

    ``squares`` is its sum of squares over ``components``. Raises :class:`BadNoise`.
    """
    least, most = (np.sqrt(v) / params.scale for v in params.noise_bounds(added))
    measured = np.sqrt(squares / components)
    if not (1 - NOISE_TOLERANCE) * least <= measured <= (1 + NOISE_TOLERANCE) * most:
        raise BadNoise(COMBINER, "the noise of the decrypted sum is not that of its ciphertexts")
