"""The tables of a study document, each a frozen value; unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["fedbcs", "fedavg", "fedprox", "local", "pooled"]
Protection = Literal["secagg", "ckks", "none"]
Alignment = Literal["gentle", "faithful", "off"]
Part = Literal[
    "enc0", "enc1", "enc2", "enc3", "mid", "up3", "up2", "up1", "up0",
    "dec3", "dec2", "dec1", "dec0", "fsr", "fusion",
]  # fmt: skip
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataContract(Section):
    """How every site turns its files into tensors."""

    size_px: int = Field(128, ge=16, le=2048, multiple_of=16)
    channels: Literal[1, 3] = 3
    classes: int = Field(2, ge=2, le=64, description="background included")
    labels: Literal["nonzero"] | tuple[int, ...] = "nonzero"
    """``nonzero``: any value above 0 is class 1. A list: ``labels[i]`` in the file is class i."""
    scaling: Literal["minmax", "percentile99", "fixed"] = "minmax"
    """Per image to [0, 1]: minimum to maximum; minimum to 99th percentile; fixed 8-bit /255."""
    volume: Literal["slices", "stack3"] = "slices"
    """How a 3-D volume is taken: single slices, or each slice with both neighbours as channels."""
    validation_fraction: float = Field(0.1, ge=0, lt=0.5)
    test_fraction: float = Field(0.2, ge=0, lt=0.9)
    split: Literal["counts", "independent"] | None = None
    """By exact counts, or each patient by a hash alone, so that none moves another (what a promise
    to a patient rests on); None: independent with ``[privacy]``, else counts."""

    @model_validator(mode="after")
    def _consistent(self) -> DataContract:
        if self.labels == "nonzero" and self.classes != 2:
            raise ValueError('labels = "nonzero" means classes = 2; list the label values instead')
        if isinstance(self.labels, tuple) and len(self.labels) != self.classes:
            raise ValueError(f"labels lists {len(self.labels)} values for {self.classes} classes")
        if isinstance(self.labels, tuple) and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels lists a value twice")
        if self.volume == "stack3" and self.channels != 3:
            raise ValueError('volume = "stack3" needs channels = 3')
        return self


class ModelConfig(Section):
    """The U-Net. ``fsr`` and ``fused_width`` default to what the method calls for."""

    width: int = Field(32, ge=4, le=256)
    norm: Literal["instance", "group", "batch"] = "instance"
    fsr: Literal["off", "published", "all"] | None = None
    """Style recalibration: none; encoder levels 1-3; every encoder and decoder level."""
    fused_width: int | None = Field(None, ge=2, le=1024)
    """Channels of one fused level (d); None: 16 for gentle alignment, 8·width for faithful."""
    initial: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the weights that the study starts from, as of a model file; None: its seed's."""
    frozen: tuple[Part, ...] = ()
    """Parts of the network that stay as they start. Noise grows with the number of weights that
    are trained, and most of them are in the deep levels (enc2, enc3, mid, up3, dec3, up2, dec2)."""


class Training(Section):
    """Local training of one round."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0, le=10)
    lr_end: float = Field(1.0, gt=0, le=1)
    """Learning rate of the last round over that of the first; it falls evenly between them."""
    momentum: float = Field(0.0, ge=0, lt=1, description="of SGD, within a round")
    weight_decay: float = Field(1e-4, ge=0, le=1)
    batch_size: int = Field(6, ge=1, le=1024)
    local_epochs: int = Field(1, ge=1, le=100)
    augment: bool = True
    foreground_weight: float = Field(1.0, gt=0, le=1000)
    """Weight of a pixel of any class but the background in the cross-entropy: a number that is
    agreed beforehand, never a statistic of the data."""
    prox_mu: float = Field(0.01, ge=0, description="used by method fedprox only")


class AlignmentConfig(Section):
    """CDPA: alignment of pixel features with the class prototypes of all sites."""

    form: Alignment = "gentle"
    weight: float | None = Field(None, ge=0)
    """Weight of L_MP; None: 0.1 for gentle, 1 for faithful."""
    temperature: float | None = Field(None, gt=0)
    """None: 0.3 for gentle, 0.005 (the paper's, nuclei) for faithful."""
    warmup_rounds: int | None = Field(None, ge=0)
    """Rounds without L_MP; None: 4 for gentle, 1 for faithful (round 0 has no prototypes)."""
    prototypes: Literal["mean", "finch"] = "mean"
    prototype_momentum: float | None = Field(None, ge=0, lt=1)
    """Share of the old global prototype that is kept; None: 0.5 for gentle, 0 for faithful."""


class Codec(Section):
    """Fixed-point form of what a site contributes."""

    bits: int = Field(16, ge=8, le=24)
    initial_update_range: float | None = Field(None, gt=0)
    """Largest |weighted weight update| that round 0 can carry; None: from lr and optimizer."""
    initial_prototype_range: float = Field(8.0, gt=0)


class Privacy(Section):
    """Differential privacy of what each site sends (docs/privacy.md). Absent: none.

    The unit is the patient: adding or removing one, with all images, changes little. All numbers
    are agreed beforehand; none may follow from the data.
    """

    unit: Literal["patient", "slice"] = "patient"
    """``slice`` hides single images only, which is weaker: a patient with several is shown more."""
    noise_multiplier: float = Field(gt=0, le=200)
    """Standard deviation of the noise of a step over the clip."""
    clip: float = Field(0.2, gt=0, le=1e6)
    """Largest L2 length of the gradient of a patient; near the median length is best."""
    sampling_rate: float = Field(0.2, gt=0, le=1)
    """q: chance of a patient to be in a step."""
    steps: int = Field(5, ge=1, le=100_000)
    """Optimizer steps a round, whatever the number of patients."""
    slices: int = Field(4, ge=1, le=10_000)
    """Slices of a patient that a step looks at, at most."""
    copies: int = Field(1, ge=1, le=64)
    """Augmented copies of each slice whose gradients are averaged before the clip."""
    average: float = Field(0.0, ge=0, lt=1)
    """Decay of the running mean of a round's weights that is sent in place of the last; 0: last."""
    delta: float = Field(1e-5, ge=1e-9, lt=0.01)
    """Epsilon is stated at this delta."""
    prototype_noise: float | None = Field(None, ge=0.5, le=100)
    """Noise multiplier of a release of prototypes; None: they are not sent, and nothing aligned."""
    prototype_every: int = Field(5, ge=1, le=1000)
    """Rounds from one release of prototypes to the next."""
    prototype_clip: float = Field(1.0, gt=0, le=1e6)
    """Largest L2 length of all class means of a patient together."""
    presence: float = Field(0.0, ge=0, le=10)
    """Lambda: length of the block that says which classes a patient has, over that clip. 0: sums
    are divided by nominal numbers of patients, which for directions is as good and has no noise."""
    noise: Literal["site", "shared"] = "site"
    """``site``: each site's noise alone suffices. ``shared``: that of all honest sites together
    (prototypes, secagg only)."""


class SiteEntry(Section):
    """One line of the roster. ``weight`` is nominal: agreed beforehand, never a count of today."""

    name: SiteName
    weight: float = Field(gt=0, le=1e9)
    steps: int = Field(ge=1, le=10_000_000)
    """Nominal optimizer steps a round (what initial ranges are computed from)."""
    classes: tuple[int, ...]
    """The classes that this site holds, background included."""
    patients: int | None = Field(None, ge=1, le=10_000_000)
    """Nominal number of patients, for differential privacy: what gradients are divided by."""
