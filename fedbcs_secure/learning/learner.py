"""One network on one device, used for every site that a process plays.

The seam between the numpy world (``federation``, ``cli``) and torch: flat weight vectors in, flat
weight vectors and metrics out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedbcs_secure.data.records import Patient
from fedbcs_secure.errors import PrivacyError
from fedbcs_secure.learning.device import DeviceChoice, Precision, choose
from fedbcs_secure.learning.evaluate import PatientMetrics, evaluate_patients, predict
from fedbcs_secure.learning.initial import initial_weights
from fedbcs_secure.learning.local import LocalResult, Progress, train_round
from fedbcs_secure.learning.private import PrivateRound, train_privately
from fedbcs_secure.learning.prototypes import GlobalPrototypes
from fedbcs_secure.learning.unet import NetworkConfig, UNet
from fedbcs_secure.learning.weights import TensorSpec, load_flat, tensor_specs
from fedbcs_secure.study import Study

PrototypeRows = Sequence[Mapping[int, NDArray[np.float32]]]
"""For each view, class -> (n, 3d) float32 global prototypes."""


class Learner:
    """Trains and evaluates flat weight vectors of one study's network.

    Holds no state between calls: the network is scratch space.
    """

    def __init__(
        self, study: Study, device: DeviceChoice = "auto", precision: Precision = "auto"
    ) -> None:
        self.study = study
        self.runtime = choose(device, precision)
        self._network = UNet(NetworkConfig.of(study)).to(self.runtime.device)
        self.tensors: tuple[TensorSpec, ...] = tensor_specs(self._network)
        # Now: some of it is read off the network, which training changes.
        self._initial = initial_weights(self._network, study.seed)

    @property
    def parameters(self) -> int:
        """P, the length of the flat vector."""
        return sum(spec.size for spec in self.tensors)

    @property
    def fused_channels(self) -> int:
        """Length of one prototype (3d), or 0 without alignment."""
        return 0 if self._network.fusion is None else 3 * int(self.study.model.fused_width or 0)

    def initial_weights(self) -> NDArray[np.float32]:
        """(P,) of round 0, from the study's seed: the same for every party."""
        return self._initial.copy()

    def train(
        self,
        weights: NDArray[np.float32],
        patients: Sequence[Patient],
        *,
        site: str,
        round_index: int,
        prototypes: PrototypeRows | None = None,
        private: PrivateRound | None = None,
        progress: Progress | None = None,
    ) -> LocalResult:
        """See :func:`fedbcs_secure.learning.local.train_round`, and for a study with ``[privacy]``

        :func:`fedbcs_secure.learning.private.train_privately`: it is never trained otherwise.
        """
        if self.study.privacy is not None:
            if private is None:
                raise PrivacyError("this study has [privacy]: it is not trained without noise")
            return train_privately(
                self._network,
                weights,
                patients,
                self.study,
                site=site,
                round_index=round_index,
                prototypes=self._prototypes(prototypes),
                private=private,
                runtime=self.runtime,
                progress=progress,
            )
        with self.runtime.repeatable():
            return train_round(
                self._network,
                weights,
                patients,
                self.study,
                site=site,
                round_index=round_index,
                prototypes=self._prototypes(prototypes),
                runtime=self.runtime,
                progress=progress,
            )

    def evaluate(
        self,
        weights: NDArray[np.float32],
        patients: Sequence[Patient],
        *,
        with_distances: bool = True,
    ) -> list[PatientMetrics]:
        """Metrics of each patient under ``weights``."""
        load_flat(self._network, weights)
        self._network.eval()
        return evaluate_patients(
            self._network, patients, device=self.runtime.device, with_distances=with_distances
        )

    def predict(
        self, weights: NDArray[np.float32], images: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Class masks (S, H, W) uint8 of images (S, C, H, W) float32."""
        load_flat(self._network, weights)
        self._network.eval()
        return predict(self._network, images, device=self.runtime.device)

    def _prototypes(self, rows: PrototypeRows | None) -> GlobalPrototypes | None:
        if rows is None or not any(rows):
            return None
        encoder, decoder = (
            {c: torch.tensor(r, device=self.runtime.device) for c, r in view.items()}
            for view in rows
        )
        return GlobalPrototypes((encoder, decoder))
