"""Cheap stand-ins for recognizers and reconstruction models, sent to Ray's workers by value."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from torch import Tensor

from cldmray.arrays import Images
from cldmray.attackers.nn.training import Call
from cldmray.attackers.reconstruction.base import (
    ReconstructionBatch,
    ReconstructionModel,
    Reconstructor,
    Seeds,
)
from cldmray.attackers.reconstruction.unet import UNetReconstruction, UNetReconstructor
from cldmray.recognizers.base import Recognizer

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True, kw_only=True)
class Pixels(Recognizer):
    """The pixels of an image, made small, are its embedding."""

    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    label: str = "pixels"

    @property
    def name(self) -> str:
        return self.label

    @property
    def dimension(self) -> int:
        return 192

    @property
    def side(self) -> int:
        return 8

    def version(self) -> str:
        return "1"

    def check(self) -> None:
        pass

    def embed_aligned(self, faces: Images) -> npt.NDArray[np.floating[Any]]:
        return faces.reshape(len(faces), -1).astype(np.float64) - 127.5


@dataclass(frozen=True)
class NoiseReconstruction(ReconstructionModel):
    """Two guesses that are nothing but the seed's noise."""

    @property
    def kind(self) -> str:
        return "noise"

    @property
    def guesses(self) -> int:
        return 2

    def build(self, device: str = "cpu") -> "Noise":
        return Noise()


class Noise(Reconstructor):
    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        shape = (2, *images.shape[1:])
        drawn = [np.random.default_rng(seed).integers(0, 256, shape) for seed in seeds]
        return np.array(drawn, np.uint8)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        pass


@dataclass(frozen=True)
class KilledOnce(UNetReconstruction):
    """Its process ends in the third step, unless the file ``marker`` is there already."""

    marker: str = ""

    def build(self, device: str = "cpu") -> "KilledReconstructor":
        return KilledReconstructor(self, device)


class KilledReconstructor(UNetReconstructor):
    calls = 0

    def loss(self, network: Call, batch: ReconstructionBatch) -> Tensor:
        self.calls += 1
        marker = Path(self.config.marker)  # type: ignore[attr-defined]
        if self.calls == 3 and not marker.exists():
            marker.touch()
            os._exit(1)
        return super().loss(network, batch)
