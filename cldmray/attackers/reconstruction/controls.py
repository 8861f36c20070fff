"""Controls: reconstruction models that know nothing of the person behind an image."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cldmray.arrays import Images
from cldmray.attackers.reconstruction.base import ReconstructionModel, Reconstructor, Seeds
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError
from cldmray.settings import checked_dataclass

CELLS = 4_000_000
"""Numbers of images that are compared at once."""


@checked_dataclass
class MeanFace(ReconstructionModel):
    """The mean of the attacker's originals, whatever the image."""

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


@checked_dataclass
class NearestTrainingFace(ReconstructionModel):
    """The attacker's original whose anonymized image is nearest to the given one, by pixels."""

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


def nearest_rows(images: Images, candidates: Images) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Row of the candidate with the smallest mean squared difference; the first of several.

    Args:
        images: uint8 (N, h, w, 3).
        candidates: uint8 (M, h, w, 3), M >= 1.

    Returns:
        Shape (N,). Sums of whole numbers, exact, so that no neighbour in a batch matters.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    best = np.full(len(flat), np.inf)
    rows = np.zeros(len(flat), np.int64)
    step = max(1, CELLS // flat.shape[1])
    for start in range(0, len(candidates), step):
        block = candidates[start : start + step].reshape(-1, flat.shape[1]).astype(np.float64)
        # |b|^2 - 2 a.b, shape (N, block): |a - b|^2 without |a|^2, which does not change the order.
        distances = (block**2).sum(1) - 2 * (flat @ block.T)
        nearest = distances.argmin(1)
        smallest = distances[np.arange(len(flat)), nearest]
        nearer = smallest < best
        rows[nearer], best[nearer] = nearest[nearer] + start, smallest[nearer]
    return rows


def check_size(images: Images, shape: tuple[int, ...]) -> None:
    """Raise ``BadInputError`` unless images have the shape of those that were learnt from."""
    if images.shape[1:] != shape:
        raise BadInputError(f"images of {images.shape[1:]}, but {shape} was learnt from")
