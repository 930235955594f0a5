"""The global state of a federation: what all parties hold after each round, bit for bit."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.files import write_durably

_FORMAT = "fedbcs-secure state v1"
_DOMAIN = b"fedbcs-secure global state v1\x00"


@dataclass(frozen=True, eq=False)
class ClassPrototypes:
    """Global prototypes of one class in one view: ``rows`` is (n, 3d) float32."""

    view: int
    label: int
    rows: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, eq=False)
class GlobalState:
    """State before round ``round``.

    ``weights`` (P,) float32; ``velocity`` (P,) float32, or (0,) without server momentum;
    ``prototypes`` sorted by (view, label); ``exponents``: for each segment of the update vector,
    e of its range ±2^e in the coming round. ``digest`` names the whole: it is mixed into every
    key, so parties with different states cannot form a sum.
    """

    round: int
    weights: NDArray[np.float32] = field(repr=False)
    velocity: NDArray[np.float32] = field(repr=False)
    prototypes: tuple[ClassPrototypes, ...]
    exponents: tuple[int, ...]

    def __post_init__(self) -> None:
        flat = self.weights.ndim == self.velocity.ndim == 1
        rows = all(p.rows.ndim == 2 and min(p.view, p.label) >= 0 for p in self.prototypes)
        arrays = (self.weights, self.velocity, *(p.rows for p in self.prototypes))
        if not (flat and rows and 0 <= self.round < 2**32):
            raise ValueError("a state holds flat vectors, prototypes (n, 3d) and a round number")
        if any(array.dtype != np.float32 for array in arrays):
            raise ValueError("a state's arrays are float32")
        for array in (self.weights, self.velocity, *(p.rows for p in self.prototypes)):
            array.flags.writeable = False

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding."""
        digest = hashlib.sha256(_DOMAIN)
        for piece in self._pieces():
            digest.update(piece)
        return digest.digest()

    def encode(self) -> bytes:
        """The canonical encoding: little-endian float32, lengths before contents (RO-4.4)."""
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes | memoryview]:
        yield struct.pack("<Q", self.round)
        for array in (self.weights, self.velocity):
            yield struct.pack("<Q", array.size)
            yield np.ascontiguousarray(array, "<f4").data
        yield struct.pack("<Q", len(self.prototypes))
        for item in self.prototypes:
            yield struct.pack("<4Q", item.view, item.label, *item.rows.shape)
            yield np.ascontiguousarray(item.rows, "<f4").data
        yield struct.pack("<Q", len(self.exponents))
        yield np.asarray(self.exponents, "<i4").data

    @classmethod
    def decode(cls, data: bytes, *, digest: bytes) -> GlobalState:
        """The state that ``data`` is the canonical encoding of, if that has this ``digest``.

        Raises ValueError otherwise; nothing is read before the digest was compared.
        """
        if hashlib.sha256(_DOMAIN + data).digest() != digest:
            raise ValueError("these bytes are not those of the state with this digest")
        state = _Reader(data).state()
        if state.digest != digest:
            raise ValueError("these bytes are no state in its canonical form")
        return state

    def prototype_rows(self, views: int = 2) -> tuple[dict[int, NDArray[np.float32]], ...]:
        """For each view, class -> (n, 3d): the form that training takes."""
        out: tuple[dict[int, NDArray[np.float32]], ...] = tuple({} for _ in range(views))
        for item in self.prototypes:
            out[item.view][item.label] = item.rows
        return out


class _Reader:
    """Takes the canonical encoding apart."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def state(self) -> GlobalState:
        round_ = self._number()
        weights, velocity = self._floats(self._number()), self._floats(self._number())
        prototypes = []
        for _ in range(self._number()):
            view, label, rows, columns = (self._number() for _ in range(4))
            flat = self._floats(rows * columns)
            prototypes.append(ClassPrototypes(view, label, flat.reshape(rows, columns)))
        exponents = np.frombuffer(self._take(4 * self._number()), "<i4")
        return GlobalState(
            round_, weights, velocity, tuple(prototypes), tuple(int(e) for e in exponents)
        )

    def _number(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def _floats(self, count: int) -> NDArray[np.float32]:
        return np.frombuffer(self._take(4 * count), "<f4").astype(np.float32)

    def _take(self, size: int) -> memoryview:
        if size > len(self._data) - self._at:
            raise ValueError("these bytes are no state: they end early")
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece


def save_state(state: GlobalState, path: Path, *, study: bytes) -> None:
    """Write a checkpoint atomically and durably (temporary file, sync, rename, sync).

    ``study`` is the digest of the study that it belongs to.
    """
    arrays = {"weights": state.weights, "velocity": state.velocity}
    for item in state.prototypes:
        arrays[f"prototypes/{item.view}/{item.label}"] = item.rows
    metadata = {
        "format": _FORMAT,
        "study": study.hex(),
        "round": str(state.round),
        "exponents": json.dumps(state.exponents),
        "digest": state.digest.hex(),
    }
    write_durably(path, save(arrays, metadata=metadata))


def load_state(path: Path, *, study: bytes) -> GlobalState:
    """Read a checkpoint of the study with this digest.

    Raises :class:`RunFolderError` unless the state's digest comes out the same. That finds damage
    and mistakes; whoever can write the file can also write a fitting digest.
    """
    try:
        with safe_open(path, framework="numpy") as stream:
            metadata: dict[str, str] = stream.metadata() or {}
            prototypes = []
            for key in sorted(stream.keys()):
                if key.startswith("prototypes/"):
                    _, view, label = key.split("/")
                    prototypes.append(
                        ClassPrototypes(int(view), int(label), stream.get_tensor(key))
                    )
            state = GlobalState(
                round=int(metadata["round"]),
                weights=stream.get_tensor("weights"),
                velocity=stream.get_tensor("velocity"),
                prototypes=tuple(sorted(prototypes, key=lambda p: (p.view, p.label))),
                exponents=tuple(int(e) for e in json.loads(metadata["exponents"])),
            )
            if metadata["format"] != _FORMAT or metadata["study"] != study.hex():
                raise RunFolderError(
                    f"{path} belongs to another study than study.toml beside it; was that edited?"
                )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{path} is not a readable checkpoint: {error}") from None
    if state.digest.hex() != metadata.get("digest"):
        raise RunFolderError(f"{path} was altered: its content does not match its digest")
    return state


def completed_rounds(path: Path) -> int:
    """The round that a checkpoint goes on with; 0 when it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as stream:
            return int((stream.metadata() or {})["round"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return 0
