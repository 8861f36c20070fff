"""What counts as no recovery: reconstructions that know nothing of the person."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cldmray.arrays import Images
from cldmray.attackers.reconstruction.base import ReconstructionModel, Reconstructor, Seeds
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError

CELLS = 4_000_000
"""Numbers of images that are compared at once."""


@dataclass(frozen=True)
class MeanFace(ReconstructionModel):
    """The mean of the attacker's images, whatever the image."""

    @property
    def kind(self) -> str:
        return "mean_face"

    @property
    def is_control(self) -> bool:
        return True

    def build(self, device: str = "cpu") -> "MeanFaceReconstructor":
        return MeanFaceReconstructor()


class MeanFaceReconstructor(Reconstructor):
    """See :class:`MeanFace`."""

    def __init__(self) -> None:
        self.mean: Images | None = None

    def learn(self, pairs: ReconstructionPairs) -> None:
        total = np.zeros(pairs.originals.shape[1:], np.int64)
        for original in pairs.originals:
            total += original
        self.mean = np.rint(total / len(pairs.originals)).astype(np.uint8)

    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        if self.mean is None:
            raise BadInputError("the mean face has learnt nothing yet")
        check_size(images, self.mean.shape)
        return np.repeat(self.mean[None, None], len(images), axis=0)

    def state(self) -> dict[str, Tensor]:
        return {} if self.mean is None else {"mean": torch.from_numpy(self.mean)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"].numpy()


@dataclass(frozen=True)
class NearestTrainingFace(ReconstructionModel):
    """The image whose anonymized image is nearest, pixel by pixel, to the given one."""

    @property
    def kind(self) -> str:
        return "nearest_training_face"

    @property
    def is_control(self) -> bool:
        return True

    def build(self, device: str = "cpu") -> "NearestTrainingFaceReconstructor":
        return NearestTrainingFaceReconstructor()


class NearestTrainingFaceReconstructor(Reconstructor):
    """See :class:`NearestTrainingFace`."""

    def __init__(self) -> None:
        self.anonymized = np.zeros((0, 1, 1, 3), np.uint8)
        self.originals = self.anonymized

    def learn(self, pairs: ReconstructionPairs) -> None:
        self.anonymized = pairs.anonymized
        self.originals = pairs.originals[pairs.source]

    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        if not len(self.anonymized):
            raise BadInputError("the nearest face has learnt from no images")
        check_size(images, self.anonymized.shape[1:])
        return self.originals[nearest_rows(images, self.anonymized)][:, None]

    def state(self) -> dict[str, Tensor]:
        parts = {"anonymized": self.anonymized, "originals": self.originals}
        return {name: torch.from_numpy(np.array(part)) for name, part in parts.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.anonymized, self.originals = state["anonymized"].numpy(), state["originals"].numpy()


def nearest_rows(images: Images, known: Images) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Row of the known image with the smallest mean squared difference, the first of several.

    Args:
        images: uint8 (N, h, w, 3).
        known: uint8 (M, h, w, 3), M >= 1.

    Returns:
        Shape (N,). Sums of whole numbers, exact, so that no neighbour in a batch matters.
    """
    asked = images.reshape(len(images), -1).astype(np.float64)
    best = np.full(len(asked), np.inf)
    rows = np.zeros(len(asked), np.int64)
    step = max(1, CELLS // asked.shape[1])
    for start in range(0, len(known), step):
        block = known[start : start + step].reshape(-1, asked.shape[1]).astype(np.float64)
        distances = (block**2).sum(1) - 2 * (asked @ block.T)
        nearest = distances.argmin(1)
        found = distances[np.arange(len(asked)), nearest]
        n_higher = found < best
        rows[n_higher], best[n_higher] = nearest[n_higher] + start, found[n_higher]
    return rows


def check_size(images: Images, shape: tuple[int, ...]) -> None:
    """Raise ``BadInputError`` unless images have the shape of those that were learnt from."""
    if images.shape[1:] != shape:
        raise BadInputError(f"images of {images.shape[1:]}, but {shape} was learnt from")
