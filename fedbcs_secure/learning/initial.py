"""Initial weights that every party computes alike, from the public seed of the study.

torch's generators promise no stable stream between versions; the public stream of
``fedbcs_protocols.derive`` does, so all sites of a study start from the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedbcs_protocols.derive import public_words
from fedbcs_secure.learning.unet import UNet


def initial_weights(network: UNet, seed: int) -> NDArray[np.float32]:
    """The flat (P,) float32 vector of round 0, in the order of ``named_parameters``.

    Kernels (two or more dimensions) are uniform in ±1/sqrt(fan in), torch's own default scale;
    biases of convolutions are 0; gains, shifts and mixing logits keep their neutral values.
    """
    parts: list[NDArray[np.float32]] = []
    for name, parameter in network.named_parameters():
        shape = tuple(parameter.shape)
        if len(shape) >= 2:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            words = public_words(seed, "initial weights", name, count=parameter.numel())
            unit = (words.astype(np.float64) + 0.5) / 2.0**32
            parts.append(((2 * unit - 1) * bound).astype(np.float32))
        elif name.endswith("bias"):
            parts.append(np.zeros(shape, np.float32))
        else:
            parts.append(parameter.detach().cpu().numpy().astype(np.float32).reshape(-1))
    return np.concatenate(parts)
