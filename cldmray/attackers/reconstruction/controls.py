"""What counts as no recovery: reconstructions that know nothing of the person."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cldmray.arrays import Pictures
from cldmray.attackers.reconstruction.base import Inversion, Inverter, Seeds
from cldmray.attackers.reconstruction.pairs import InversionPairs
from cldmray.errors import BadInputError

CELLS = 4_000_000
"""Numbers of pictures that are compared at once."""


@dataclass(frozen=True)
class MeanFaceInversion(Inversion):
    """The mean of the attacker's photographs, whatever the picture."""

    @property
    def kind(self) -> str:
        return "mean_face"

    @property
    def is_control(self) -> bool:
        return True

    def build(self, device: str = "cpu") -> "MeanFace":
        return MeanFace()


class MeanFace(Inverter):
    """See :class:`MeanFaceInversion`."""

    def __init__(self) -> None:
        self.mean: Pictures | None = None

    def learn(self, pairs: InversionPairs) -> None:
        total = np.zeros(pairs.photos.shape[1:], np.int64)
        for photo in pairs.photos:
            total += photo
        self.mean = np.rint(total / len(pairs.photos)).astype(np.uint8)

    def _reconstruct(self, pictures: Pictures, seeds: Seeds) -> Pictures:
        if self.mean is None:
            raise BadInputError("the mean face has learnt nothing yet")
        check_size(pictures, self.mean.shape)
        return np.repeat(self.mean[None, None], len(pictures), axis=0)

    def state(self) -> dict[str, Tensor]:
        return {} if self.mean is None else {"mean": torch.from_numpy(self.mean)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"].numpy()


@dataclass(frozen=True)
class NearestFaceInversion(Inversion):
    """The photograph whose anonymized picture is nearest, pixel by pixel, to the given one."""

    @property
    def kind(self) -> str:
        return "nearest_training_face"

    @property
    def is_control(self) -> bool:
        return True

    def build(self, device: str = "cpu") -> "NearestTrainingFace":
        return NearestTrainingFace()


class NearestTrainingFace(Inverter):
    """See :class:`NearestFaceInversion`."""

    def __init__(self) -> None:
        self.anonymized = np.zeros((0, 1, 1, 3), np.uint8)
        self.photos = self.anonymized

    def learn(self, pairs: InversionPairs) -> None:
        self.anonymized = pairs.anonymized
        self.photos = pairs.photos[pairs.source]

    def _reconstruct(self, pictures: Pictures, seeds: Seeds) -> Pictures:
        if not len(self.anonymized):
            raise BadInputError("the nearest face has learnt from no pictures")
        check_size(pictures, self.anonymized.shape[1:])
        return self.photos[nearest_rows(pictures, self.anonymized)][:, None]

    def state(self) -> dict[str, Tensor]:
        parts = {"anonymized": self.anonymized, "photos": self.photos}
        return {name: torch.from_numpy(np.array(part)) for name, part in parts.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.anonymized, self.photos = state["anonymized"].numpy(), state["photos"].numpy()


def nearest_rows(pictures: Pictures, known: Pictures) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Row of the known picture with the smallest mean squared difference, the first of several.

    Args:
        pictures: uint8 (N, h, w, 3).
        known: uint8 (M, h, w, 3), M >= 1.

    Returns:
        Shape (N,). Sums of whole numbers, exact, so that no neighbour in a batch matters.
    """
    asked = pictures.reshape(len(pictures), -1).astype(np.float64)
    best = np.full(len(asked), np.inf)
    rows = np.zeros(len(asked), np.int64)
    step = max(1, CELLS // asked.shape[1])
    for start in range(0, len(known), step):
        block = known[start : start + step].reshape(-1, asked.shape[1]).astype(np.float64)
        distances = (block**2).sum(1) - 2 * (asked @ block.T)
        nearest = distances.argmin(1)
        found = distances[np.arange(len(asked)), nearest]
        better = found < best
        rows[better], best[better] = nearest[better] + start, found[better]
    return rows


def check_size(pictures: Pictures, shape: tuple[int, ...]) -> None:
    """Raise ``BadInputError`` unless pictures have the shape of those that were learnt from."""
    if pictures.shape[1:] != shape:
        raise BadInputError(f"pictures of {pictures.shape[1:]}, but {shape} was learnt from")
