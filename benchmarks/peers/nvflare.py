"""NVFLARE's own classes for encrypted averages, called in the order of its jobs.

A site: ``HEModelEncryptor``, then the message becomes bytes (FOBS). The server: bytes to message,
``HEInTimeAccumulateWeightedAggregator``; at the end the average, serialised as by
``HEModelShareableGenerator``. A site: bytes to message, ``HEModelDecryptor``. No network.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray
from peers.tenseal_recipe import serialised_context

Tensors = Sequence[NDArray[np.float32]]


class PeerMissing(Exception):
    """NVFLARE is not installed, or has moved the classes that are measured."""

    def __init__(self, reason: ImportError) -> None:
        super().__init__(
            f"NVFLARE's encryption cannot be measured ({reason}); "
            "install it with: pip install 'nvflare>=2.9,<3'"
        )


@dataclass(frozen=True)
class _Classes:
    aggregator: Any
    app_constants: Any
    context: Any
    decryptor: Any
    dxo: Any
    encryptor: Any
    event: Any
    fobs: Any
    from_shareable: Any
    kind: Any
    meta: Any
    reserved: Any
    serialize: Any


@functools.cache
def _classes() -> _Classes:
    try:
        from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
        from nvflare.apis.event_type import EventType
        from nvflare.apis.fl_constant import ReservedKey
        from nvflare.apis.fl_context import FLContext
        from nvflare.app_common.app_constant import AppConstants
        from nvflare.app_opt.he.homomorphic_encrypt import serialize_nested_dict
        from nvflare.app_opt.he.intime_accumulate_model_aggregator import (
            HEInTimeAccumulateWeightedAggregator,
        )
        from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
        from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
        from nvflare.fuel.utils import fobs
    except ImportError as reason:
        raise PeerMissing(reason) from reason
    # It warns of what it has no engine for; what fails raises below.
    logging.disable(logging.ERROR)
    return _Classes(
        HEInTimeAccumulateWeightedAggregator,
        AppConstants,
        FLContext,
        HEModelDecryptor,
        DXO,
        HEModelEncryptor,
        EventType,
        fobs,
        from_shareable,
        DataKind,
        MetaKey,
        ReservedKey,
        serialize_nested_dict,
    )


def installed_version() -> str:
    """NVFLARE's version. Raises :class:`PeerMissing` when its classes cannot be imported."""
    _classes()
    return version("nvflare")


class NVFlare:
    """All parties of a round, under one key."""

    def __init__(self) -> None:
        flare = _classes()
        self._context = flare.context()
        self._context.set_prop(flare.app_constants.CURRENT_ROUND, 0)
        self._keys = tenseal.context_from(serialised_context())
        self._encryptor = flare.encryptor(weigh_by_local_iter=False)
        self._decryptor = flare.decryptor()
        self._encryptor.tenseal_context = self._decryptor.tenseal_context = self._keys

    def encrypt(self, tensors: Tensors) -> bytes:
        """A site's message."""
        flare = _classes()
        self._encryptor.encrypt_layers = [True]
        data = {f"tensor{i}": tensor for i, tensor in enumerate(tensors)}
        plain = flare.dxo(flare.kind.WEIGHTS, data, {flare.meta.NUM_STEPS_CURRENT_ROUND: 1})
        encrypted = self._encryptor._process(plain, self._context)
        return bytes(flare.fobs.dumps(encrypted.to_shareable()))

    def aggregator(self) -> Any:
        """A server's, at the start of a round."""
        flare = _classes()
        result = flare.aggregator(expected_data_kind=flare.kind.WEIGHTS)
        result.handle_event(flare.event.START_RUN, self._context)
        return result

    def add(self, aggregator: Any, message: bytes, name: str) -> None:
        """A site's message into the running sum."""
        flare = _classes()
        shareable = flare.fobs.loads(message)
        # What its communicator puts there.
        shareable.set_peer_props({flare.reserved.IDENTITY_NAME: name})
        shareable.add_cookie(flare.app_constants.CONTRIBUTION_ROUND, 0)
        if not aggregator.accept(shareable, self._context):
            raise RuntimeError("NVFLARE did not accept the message")

    def average(self, aggregator: Any) -> bytes:
        """The message to all sites."""
        flare = _classes()
        shareable = aggregator.aggregate(self._context)
        flare.serialize(flare.from_shareable(shareable).data)
        return bytes(flare.fobs.dumps(shareable))

    def decrypt(self, message: bytes) -> list[list[float]]:
        """Each tensor's values."""
        flare = _classes()
        dxo = flare.from_shareable(flare.fobs.loads(message))
        encrypted = dxo.get_meta_prop(flare.meta.PROCESSED_KEYS)
        return list(self._decryptor.decryption(dxo.data, encrypted, self._context).values())
