"""Parameter sets: what fits into one ciphertext, proven before anything is encrypted (CK-1).

A ciphertext holds N coefficients modulo q. Each carries f digits in base B = 2^(b + ⌈log2 n⌉), so
that n sites' sums of b-bit values do not carry over, times Δ = 64·2^⌈log2 n⌉. Noise is bounded: a
coefficient of a sum is off by at most 21·n, less than Δ/2. So a sum comes out exact, always, when
the largest one fits: Δ·(M + 1) ≤ q, with M = Σ_d n·(2^b - 1)·B^d.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

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

NOISE_BOUND = 21
"""Noise of a fresh coefficient: the difference of two counts of 21 fair coins (CK-3.4)."""
NOISE_VARIANCE = 10.5

_SCALE_BITS = 6
_SUM_BITS = 32
"""A sum is a vector of 32-bit words, whatever carries it."""


@dataclass(frozen=True)
class ParameterSet:
    """How values of ``bits`` bits from ``sites`` sites share a coefficient: ``fields`` digits each.

    Raises :class:`LocalError` when the proof does not go through: the message says by how much.
    """

    sites: int
    bits: int
    fields: int

    def __post_init__(self) -> None:
        if not (1 <= self.sites <= 1024 and 8 <= self.bits <= 24 and 1 <= self.fields <= 4):
            raise LocalError("a parameter set is for 1-1024 sites, 8-24 bits and 1-4 fields")
        # CK-1.4
        if self.scale * (self.largest + 1) > PRIME:
            raise LocalError(
                f"{self.fields} fields of {self.bits} bits from {self.sites} sites do not fit "
                f"into a ciphertext: {-self.margin_bits:.1f} bits too many"
            )
        if self.sites * ((1 << self.bits) - 1) >= 1 << _SUM_BITS:
            raise LocalError(
                f"sums of {self.bits} bits from {self.sites} sites need over {_SUM_BITS} bits"
            )

    @property
    def digit_bits(self) -> int:
        """log2 B, what a digit of a sum has room for."""
        return self.bits + (self.sites - 1).bit_length()

    @property
    def scale_bits(self) -> int:
        """log2 Δ."""
        return _SCALE_BITS + (self.sites - 1).bit_length()

    @property
    def scale(self) -> int:
        """Δ: half of it is more than the noise of a sum can be."""
        return 1 << self.scale_bits

    @property
    def largest(self) -> int:
        """M, the largest coefficient of a sum (CK-1.2)."""
        most = self.sites * ((1 << self.bits) - 1)
        return sum(most << (self.digit_bits * field) for field in range(self.fields))

    @property
    def margin_bits(self) -> float:
        """How many bits more the message could have; the set fails below 0."""
        return math.log2(PRIME / (self.scale * (self.largest + 1)))

    @property
    def margin_sigmas(self) -> float:
        """Half a rounding step in standard deviations of the noise of a sum over all sites."""
        return self.scale / 2 / math.sqrt(self.sites * NOISE_VARIANCE)

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
        fields = DEGREE, PRIME, self.sites, self.bits, self.fields, self.scale
        return hashlib.sha256(encode_fields("ckks parameters", 2, *fields)).digest()


def parameter_set(sites: int, bits: int) -> ParameterSet:
    """The set with the most fields that fits. Raises :class:`LocalError` if none does."""
    for fields in (4, 3, 2):
        try:
            return ParameterSet(sites, bits, fields)
        except LocalError:
            continue
    return ParameterSet(sites, bits, 1)
