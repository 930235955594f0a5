"""What attacks on encrypted sums are made of, and how they are run one by one.

An attack is run in a process that may die of it: its line is begun before, and ended after, so a
crash names what it died in. Each starts from the same scene: all sites have sent their ciphertexts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ckks_world import World, scratch
from numpy.typing import NDArray

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks import CkksSession
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.outcome import Outcome
from fedbcs_protocols.ckks.packing import unpack
from fedbcs_protocols.ckks.params import DEGREE, PRIME, ParameterSet
from fedbcs_protocols.ckks.samples import CommonPolynomials, Small, upload_secret
from fedbcs_protocols.ckks.states import SiteState
from fedbcs_protocols.ckks.words import pack_words, unpack_words
from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.group import KeyRing

COUNT = 9000
"""Values of a vector: two ciphertexts a site."""
Q = np.uint64(PRIME)
Polynomial = NDArray[np.uint64]
Aggregate = list[bytes]


@dataclass(frozen=True)
class Attack:
    """``run`` must end in the refusal that README.md names, by the clause that stands here."""

    clause: str
    name: str
    run: Callable[[], object]


def perform(attacks: Iterable[Attack]) -> None:
    """A line an attack: clause, name, how it ended, how many ciphertexts were decrypted for it."""
    calls = counted()
    for attack in attacks:
        sys.stdout.write(f"{attack.clause}\t{attack.name}\t")
        sys.stdout.flush()
        calls.clear()
        try:
            attack.run()
        except ProtocolError as error:
            ended = type(error).__name__
        else:
            ended = "taken"
        sys.stdout.write(f"{ended}\t{len(calls)}\n")
        sys.stdout.flush()


def counted() -> list[int]:
    """A list that grows by one for each ciphertext that a site decrypts, from now on."""
    calls: list[int] = []
    decrypt = Decryptor.decrypt

    def counting(self: Decryptor, ciphertexts: Any) -> Any:
        calls.extend([1] * len(ciphertexts))
        return decrypt(self, ciphertexts)

    Decryptor.decrypt = counting  # type: ignore[method-assign]
    return calls


class Scene:
    """A world in which every site has sent its ciphertexts; it can be begun again."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World(count=COUNT)
        self.world.uploads  # noqa: B018
        self._rings = {n: k.read() for n, k in self.world.keepers.items()}
        self.honest = self.world.honest()

    def begin(self) -> World:
        for name, ring in self._rings.items():
            assert ring is not None
            self.world.keepers[name].write(ring)
        return self.world

    def tell(
        self,
        aggregate: Sequence[bytes],
        members: Sequence[str] | None = None,
        *,
        name: str = "site0",
        **forged: Any,
    ) -> Outcome:
        """One site reads an aggregate that the sites have signed for, from the beginning."""
        world = self.begin()
        return read(world, name, world.forged(aggregate, members, **forged))


def read(world: World, name: str, frame: bytes, seen: Mapping[int, bytes] | None = None) -> Outcome:
    """What is taken is the truth; what was decrypted and is not cost the key and a refusal."""
    before = world.keys(name).ring
    try:
        outcome = world.open(name, frame, seen)
    except ProtocolError:
        after = world.keys(name).ring
        # CK-5.7, GK-6.2
        asked = after.opened != before.opened
        assert after.refusals - before.refusals == asked
        assert (after.find(world.key.key_id) is None) == asked or after == before
        raise
    true = sum(world.vectors[n].astype(np.uint64) for n in outcome.survivors)
    assert outcome.total.tolist() == np.asarray(true).tolist()
    return outcome


def restarted(world: World, name: str) -> KeyRing:
    """The site's process ends and starts again: what it reads is what it wrote."""
    keeper = world.keepers[name]
    kept = keeper.read()
    assert kept is not None
    ring = KeyRing.decode(kept.encode())
    keeper.write(ring)
    return ring


# Polynomials -------------------------------------------------------------------------------------


def plus(ciphertext: bytes, other: Polynomial) -> bytes:
    """A ciphertext with another polynomial added, residues or not."""
    return pack_words((unpack_words(ciphertext, "x") + other) % Q)


def constant(value: int) -> Polynomial:
    """The polynomial that is a number."""
    return words(value % PRIME, 0)


def words(value: int, at: int | None = None) -> Polynomial:
    """A raw word everywhere or in one place, not reduced."""
    out = np.zeros(DEGREE, np.uint64)
    out[slice(None) if at is None else at] = value
    return out


def drawn(seed: int) -> Polynomial:
    return np.random.default_rng(seed).integers(0, PRIME, DEGREE, dtype=np.uint64)


def combined(*terms: tuple[int, bytes]) -> bytes:
    """The sum of small whole multiples of aggregates."""
    total = np.zeros(DEGREE, np.uint64)
    for factor, ciphertext in terms:
        one = unpack_words(ciphertext, "x")
        for _ in range(abs(factor)):
            total = (total + (one if factor > 0 else (Q - one) % Q)) % Q
    return pack_words(total)


def message(params: ParameterSet, values: Mapping[int, int]) -> Polynomial:
    """Δ times these whole numbers in these places of a chunk: what an encryption adds to noise."""
    out = np.zeros(DEGREE, np.uint64)
    for place, value in values.items():
        digit, at = divmod(place, DEGREE)
        term = value * params.scale << (digit * params.digit_bits)
        out[at] = (int(out[at]) + term) % PRIME
    return out


def turned(polynomial: Polynomial, by: int) -> Polynomial:
    """Times X^by: what leaves at the top comes back with the other sign."""
    out = np.roll(polynomial, by)
    out[:by] = (Q - out[:by]) % Q
    return out


def residues(numbers: NDArray[np.int64]) -> Polynomial:
    """Whole numbers, below zero or not, modulo q."""
    return (numbers.astype(np.int64) % np.int64(PRIME)).astype(np.uint64)


# What takes the group's key, or what is public ---------------------------------------------------


def opener(world: World, members: Sequence[str]) -> Decryptor:
    """What a site, and whoever a site works with, can do: open these members' sum."""
    return Decryptor(world.setting.binding, [secret(world, n) for n in members], scratch())


def secret(world: World, name: str) -> Small:
    """The secret of a site's upload."""
    key, binding = world.key, world.setting.binding
    return upload_secret(key.secret, key.epoch, binding, name, world.salt(name))


def noise_of(world: World, aggregate: Sequence[bytes]) -> NDArray[np.int64]:
    """(k, N): what all sites' encryptions added to an aggregate of up to four chunks."""
    polynomials = np.stack([unpack_words(each, "x") for each in aggregate])
    plain = opener(world, world.names).decrypt(polynomials)
    return unpack(plain, world.setting.params, world.sites)[1]


def common(binding: Binding, chunk: int) -> Polynomial:
    """a_j, which everybody knows."""
    return CommonPolynomials(binding).next(chunk + 1)[chunk]


def willing(world: World, name: str) -> CkksSession:
    """A site's session that has sent what it sent, and has signed nothing yet."""
    session = world.session(name)
    session.state, session._salt = SiteState.ENCRYPTED, world.salt(name)
    return session
