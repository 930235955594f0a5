"""Parameter sets: what fits into one ciphertext, proven before anything is encrypted (CK-1).

A sum needs no key switching, so a single prime is enough. With ring degree N and complex slots a
ciphertext holds N real components; each carries f digits in base B = n·2^b, so that n sites' sums
of b-bit values do not carry over. Encrypted is Δ times that. It comes out exact as long as

- the message fits:   Δ·√2·M + n·W < q/2   with M the largest component a sum can have, and
- the noise is small: Δ/2 ≥ √(2V·(ln 2C + λ ln 2)), so that the chance that any of C components is
  rounded wrong is at most 2^-λ, with V = (n·10.5 + n²/12)·N/2 + F² the variance of a component.

(10.5: SEAL's centred binomial noise; n²/12: the encoder's rounding, which is n/12 for different
vectors, but adds up if all sites send the same; a component of a slot is a sum of N such terms of
which half the variance is in its real part. W = 21.5 bounds one term. F = 2^-51·M·Δ: SEAL's
transforms compute in float64, and add that much if all components are as large as they can be.)
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

from fedbcs_protocols.binding import encode_fields
from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.tags import limbs_of

DEGREE = 4096
PRIME = 0x0FFF_FFFF_FFFF_C001
"""The largest prime below 2^60 that is 1 modulo 2·4096."""
PRIME_BITS = 60
SECURITY_BITS = 192
STANDARD_BITS = {128: 109, 192: 75, 256: 58}
"""The longest q, in bits, at which N = 4096 with ternary secrets has each level of security
(Homomorphic Encryption Standard 2018, table 1)."""

NOISE_VARIANCE = 10.5
ENCODING_VARIANCE = 1 / 12
LARGEST_TERM = 21.5
FLOAT_ERROR = 2.0**-51
"""Deviation of what float64 adds, over the largest message: at most 3.4 · 2^-53 was measured."""
FAILURE_BITS = 64
"""λ: the chance that a sum of 2^23 components comes out wrong is at most 2^-64."""
COMPONENTS = 1 << 23
_HALF_GAP = 16.0
"""Standard deviations of noise up to the next rounding error, where the message leaves room."""
_EXACT_BITS = 52
_SUM_BITS = 32
"""A sum is a vector of 32-bit words, whatever carries it."""


@dataclass(frozen=True)
class ParameterSet:
    """How values of ``bits`` bits from ``sites`` sites share a component: ``fields`` digits each.

    Raises :class:`LocalError` when the proof does not go through: the message says by how much.
    """

    sites: int
    bits: int
    fields: int

    def __post_init__(self) -> None:
        if not (1 <= self.sites <= 1024 and 8 <= self.bits <= 24 and 1 <= self.fields <= 4):
            raise LocalError("a parameter set is for 1-1024 sites, 8-24 bits and 1-4 fields")
        # CK-1.4
        if self.scale < self.needed_scale or self.largest >= 1 << _EXACT_BITS:
            raise LocalError(
                f"{self.fields} fields of {self.bits} bits from {self.sites} sites do not fit "
                f"into a ciphertext: {-self.margin_bits:.1f} bits too many"
            )
        if self.sites * ((1 << self.bits) - 1) >= 1 << _SUM_BITS:
            raise LocalError(
                f"sums of {self.bits} bits from {self.sites} sites need over {_SUM_BITS} bits"
            )
        if self.payload < self.sites + 1:
            raise LocalError("a ciphertext cannot hold a field for each site")

    @property
    def base(self) -> int:
        """B, what a digit of a sum has room for."""
        return self.sites << self.bits

    @property
    def largest(self) -> int:
        """M, the largest magnitude of a component of a sum (CK-1.2)."""
        half = self.base // 2
        return sum(half * self.base**power for power in range(self.fields))

    @property
    def variance(self) -> float:
        """V, of a component of a sum over all sites, before it is divided by the scale."""
        return self.noise_bounds(self.sites)[1]

    def noise_bounds(self, added: int) -> tuple[float, float]:
        """The variance of a component of a sum over ``added`` sites, at least and at most."""
        least, most = variance_bounds(added)
        # A sum of fewer is smaller.
        reach = FLOAT_ERROR * self.largest * self.scale * added / self.sites
        return least, most + reach**2

    @property
    def needed_scale(self) -> float:
        """The least scale at which the noise is small enough."""
        exponent = math.log(2 * COMPONENTS) + FAILURE_BITS * math.log(2)
        return 2 * math.sqrt(2 * self.variance * exponent)

    @property
    def room(self) -> float:
        """The largest scale at which the message fits."""
        return (PRIME / 2 - self.sites * LARGEST_TERM) / (math.sqrt(2) * self.largest)

    @property
    def margin_bits(self) -> float:
        """How many bits the scale could be larger or smaller; the set fails below 0."""
        return math.log2(self.room / self.needed_scale)

    @cached_property
    def scale(self) -> float:
        """Δ, a whole number."""
        noise = math.sqrt(variance_bounds(self.sites)[1])
        return float(math.floor(min(self.room, 2 * _HALF_GAP * noise)))

    @property
    def margin_sigmas(self) -> float:
        """Half a rounding step in standard deviations of the noise."""
        return self.scale / 2 / math.sqrt(self.variance)

    @property
    def capacity(self) -> int:
        """Values of a ciphertext, tags included."""
        return self.fields * DEGREE

    @property
    def payload(self) -> int:
        """Values of a ciphertext beside the limbs of its tag."""
        return self.capacity - limbs_of(self.bits)

    def chunks(self, count: int) -> int:
        """Ciphertexts of a vector of ``count`` values; the first also says who is in the sum."""
        return -(-(count + self.sites) // self.payload)

    @property
    def digest(self) -> bytes:
        """Names the set in signed messages (CK-1.6)."""
        return hashlib.sha256(
            encode_fields(
                "ckks parameters",
                1,
                DEGREE,
                PRIME,
                self.sites,
                self.bits,
                self.fields,
                int(self.scale),
            )
        ).digest()


def variance(sites: int) -> float:
    """Of a component of a sum over ``sites`` different vectors: n·(10.5 + 1/12)·N/2."""
    return sites * (NOISE_VARIANCE + ENCODING_VARIANCE) * DEGREE / 2


def variance_bounds(sites: int) -> tuple[float, float]:
    """The same where the encoder rounds nothing, and where all sites round alike."""
    noise = sites * NOISE_VARIANCE
    return noise * DEGREE / 2, (noise + sites**2 * ENCODING_VARIANCE) * DEGREE / 2


def parameter_set(sites: int, bits: int) -> ParameterSet:
    """The set with the most fields that fits. Raises :class:`LocalError` if none does."""
    for fields in (4, 3, 2):
        try:
            return ParameterSet(sites, bits, fields)
        except LocalError:
            continue
    return ParameterSet(sites, bits, 1)
