"""What a fuzzing target is, how an input finds its target, and what counts as a finding."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedbcs_protocols.errors import ProtocolError
from fedbcs_protocols.wire import Kind, Limits

GENEROUS: Limits = dict.fromkeys(Kind, 1 << 20)


class Finding(Exception):
    """The package did what it must not."""


@dataclass(frozen=True)
class Target:
    """``run`` takes any bytes; only ``allowed`` errors may come out of the package.

    ``seeds`` are the first inputs; a single decoder takes all of its own. ``every`` > 1 is for a
    slow target: of the inputs that the fuzzer has for it, one in ``every`` goes to it, the others
    edit a seed of ``instead``. ``slots`` is its share of the 256 values of the byte that chooses.
    ``bounded``: it is held to allocate little.
    """

    name: str
    run: Callable[[bytes], None]
    allowed: tuple[type[ProtocolError], ...]
    seeds: tuple[bytes, ...]
    slots: int = 10
    every: int = 1
    instead: str = ""
    bounded: bool = True


def require(held: bool, what: str) -> None:
    if not held:
        raise Finding(what)


@contextmanager
def unfailing(what: str) -> Iterator[None]:
    """For what must work by now: an error that a target allows elsewhere is a finding here."""
    try:
        yield
    except ProtocolError as error:
        raise Finding(f"{what}: {error}") from error


def check(target: Target, data: bytes) -> bool:
    """Run ``target``; whether the input was taken. Raises whatever is not allowed."""
    try:
        target.run(data)
    except target.allowed:
        return False
    return True


def same(encoded: bytes, data: bytes) -> None:
    require(encoded == data, "two byte strings for one value")


def edited(body: bytes, script: bytes) -> bytes:
    """``body`` after the edits in ``script``: operation, two bytes of position, value each."""
    out = bytearray(body)
    for at in range(0, len(script) - 3, 4):
        operation, value = script[at] % 6, script[at + 3]
        position = int.from_bytes(script[at + 1 : at + 3], "big") % (len(out) + 1)
        if operation == 0:
            out[position : position + 1] = bytes([value])
        elif operation == 1 and position < len(out):
            out[position] ^= value or 1
        elif operation == 2:
            del out[position : position + value]
        elif operation == 3:
            out[position:position] = bytes([value])
        elif operation == 4:
            del out[position:]
        else:
            out += out[position : position + value]
    return bytes(out)


def chooser(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """256 targets: what each value of an input's first byte chooses."""
    wanted = [target for target in targets for _ in range(target.slots)]
    if len(wanted) > 256:
        raise ValueError(f"{len(wanted)} slots are wanted, a byte has 256")
    return tuple(wanted[i % len(wanted)] for i in range(256))


def chosen(choice: tuple[Target, ...], data: bytes) -> tuple[Target, bytes]:
    """The target of a fuzzer's input and what it gets; the same for the same input."""
    target, rest = choice[data[0] if data else 0], data[1:]
    if target.every > 1 and zlib.crc32(rest) % target.every:
        target = next(other for other in choice if other.name == target.instead)
        rest = edited(target.seeds[rest[0] % len(target.seeds)] if rest else b"", rest[1:])
    return target, rest
