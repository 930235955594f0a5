from __future__ import annotations

import pytest
import torch

from fedbcs_secure.errors import FedBCSError
from fedbcs_secure.learning.device import choose, set_threads


def test_a_device_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(FedBCSError, match="'cuda'"):
        choose("cuda")


def test_cpu_runs_in_float32_unless_asked() -> None:
    assert str(choose("cpu")) == "cpu float32"
    assert str(choose("cpu", "bfloat16")) == "cpu bfloat16"


def test_auto_takes_what_is_there() -> None:
    kind = choose("auto").device.type
    best = next(
        k
        for k, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if there
    )
    assert kind == best


def test_determinism_ends_with_the_context() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    runtime = choose("cpu")
    assert torch.are_deterministic_algorithms_enabled() == before
    with runtime.repeatable():
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before


def test_threads_are_set_and_told() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(None) == before
        assert set_threads(1) == 1 == torch.get_num_threads()
    finally:
        set_threads(before)
