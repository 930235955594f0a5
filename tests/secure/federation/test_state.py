from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.state import ClassPrototypes, GlobalState, load_state, save_state

STUDY = bytes(range(32))


def make(round_index: int = 3) -> GlobalState:
    rng = np.random.default_rng(round_index)
    return GlobalState(
        round_index,
        rng.standard_normal(20).astype(np.float32),
        rng.standard_normal(20).astype(np.float32),
        (
            ClassPrototypes(0, 0, rng.standard_normal((1, 6)).astype(np.float32)),
            ClassPrototypes(1, 11, rng.standard_normal((2, 6)).astype(np.float32)),
        ),
        (-8, 3),
    )


def changed(state: GlobalState, **fields: object) -> GlobalState:
    values = {f: getattr(state, f) for f in state.__dataclass_fields__}
    return GlobalState(**(values | fields))


def test_digest_covers_every_field() -> None:
    state = make()
    weights = state.weights.copy()
    weights[7] = np.nextafter(weights[7], np.float32(9))
    velocity = state.velocity.copy()
    velocity[0] *= 2
    others = [
        changed(state, round=4),
        changed(state, weights=weights),
        changed(state, velocity=velocity),
        changed(state, prototypes=state.prototypes[:1]),
        changed(state, prototypes=(ClassPrototypes(1, 0, state.prototypes[0].rows),)),
        changed(state, exponents=(-8, 4)),
    ]
    assert len({s.digest for s in [state, *others]}) == len(others) + 1
    assert make().digest == state.digest


def test_signed_zero_is_another_state() -> None:
    zero = GlobalState(0, np.zeros(2, np.float32), np.zeros(0, np.float32), (), ())
    minus = GlobalState(0, -np.zeros(2, np.float32), np.zeros(0, np.float32), (), ())
    assert zero.digest != minus.digest


def test_state_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make().weights[0] = 1


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_state(make(), tmp_path / "global.safetensors", study=STUDY)
    assert load_state(tmp_path / "global.safetensors", study=STUDY).digest == make().digest
    assert [p.name for p in tmp_path.iterdir()] == ["global.safetensors"]


def test_a_changed_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "global.safetensors"
    save_state(make(), path, study=STUDY)
    with safe_open(path, framework="numpy") as stream:
        arrays = {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118 - no iterator
        metadata = stream.metadata()
    arrays["weights"] = arrays["weights"] * 2
    save_file(arrays, path, metadata=metadata)
    with pytest.raises(RunFolderError, match="altered"):
        load_state(path, study=STUDY)


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 200, b"{}"])
def test_bytes_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "global.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="readable checkpoint"):
        load_state(path, study=STUDY)


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "global.safetensors"
    save_state(make(), path, study=STUDY)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunFolderError, match="readable checkpoint"):
        load_state(path, study=STUDY)


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({"weights": np.ones(20)}, {}),
        ({"weights": np.ones((5, 4), np.float32)}, {}),
        ({"velocity": np.ones((2, 2), np.float32)}, {}),
        ({"prototypes/0/0": np.ones(6, np.float32)}, {}),
        ({"prototypes/-1/0": np.ones((1, 6), np.float32)}, {}),
        ({"prototypes/x/0": np.ones((1, 6), np.float32)}, {}),
        ({}, {"round": "-1"}),
        ({}, {"round": "4294967296"}),
        ({}, {"exponents": "7"}),
        ({}, {"exponents": "[" * 2000}),
        ({}, {"exponents": '["x"]'}),
    ],
)
def test_checkpoints_of_impossible_states(
    tmp_path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    path = tmp_path / "global.safetensors"
    save_state(make(), path, study=STUDY)
    with safe_open(path, framework="numpy") as stream:
        stored = {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118 - no iterator
        header = stream.metadata()
    save_file(stored | arrays, path, metadata=header | metadata)
    with pytest.raises(RunFolderError, match="readable checkpoint"):
        load_state(path, study=STUDY)


def test_digest_known_answer() -> None:
    """A second way to the same bytes: the encoding written out by hand."""
    rows = np.array([[1, -2]], np.float32)
    prototypes = (ClassPrototypes(1, 3, rows),)
    half, nothing = np.array([0.5], np.float32), np.zeros(0, np.float32)
    state = GlobalState(2, half, nothing, prototypes, (-4,))
    encoded = b"fedbcs-secure global state v1\x00" + b"".join(
        n.to_bytes(8, "little") for n in (2, 1)
    )
    encoded += bytes.fromhex("0000003f") + (0).to_bytes(8, "little")
    encoded += b"".join(n.to_bytes(8, "little") for n in (1, 1, 3, 1, 2))
    encoded += bytes.fromhex("0000803f000000c0")
    encoded += (1).to_bytes(8, "little") + (-4).to_bytes(4, "little", signed=True)
    assert state.digest == hashlib.sha256(encoded).digest()
