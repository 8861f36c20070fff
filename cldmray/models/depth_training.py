"""Training of the depth network on rendered heads, whose depth is exact."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from cldmray import hashing
from cldmray.arrays import Images, to_unit_range
from cldmray.attackers.nn.training import Call, Curve, Worker
from cldmray.conditions.depth_network import DepthArchitecture, DepthNetwork, depth_loss
from cldmray.engine.map_stages.faces import map_rows
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.faces.synthetic.scene import relative_depth, render
from cldmray.models.phases import BatchShard, PhaseConfig, PhaseTrainable, TrainingRun, fit
from cldmray.settings import Share, checked_dataclass

DepthMaps = npt.NDArray[np.uint8]
"""Relative depth, shape (N, height, width), background 0, nearest point 255."""


@checked_dataclass(kw_only=True)
class DepthTraining(TrainingRun):
    """Everything that decides the weights of the depth network.

    Attributes:
        phase: schedule.
        noise: largest standard deviation of the noise that an image gets, in 0..1 of its range.
        contrast: largest change of an image's contrast and of each colour's brightness, in 0..1.
    """

    phase: PhaseConfig
    name: str = "depth"
    noise: Share = 0.06
    contrast: Share = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_batch(self.phase)


class Rendered(NamedTuple):
    """Images, uint8 (N, h, w, 3), with their true relative depth."""

    images: Images
    depth: DepthMaps


def render_heads(source: SyntheticFaces, block_rows: int = 64) -> Rendered:
    """Render every image of a synthetic source, with its depth, in order of sample id."""

    def load(block: pa.Table) -> dict[str, Any]:
        places = [location.split("/") for location in block["location"].to_pylist()]
        images = [render(source.seed, int(i), int(j), source.size) for i, j in places]
        return {
            "sample_id": np.array(block["sample_id"].to_pylist()),
            "image": np.stack([image.image for image in images]),
            "depth": np.stack([relative_depth(image) for image in images]),
        }

    rows = map_rows(source, source.listing(), load, block_rows)
    return Rendered(
        np.stack([row["image"] for row in rows]), np.stack([row["depth"] for row in rows])
    )


def augment_colors(batch: Tensor, noise: float, contrast: float, shard: BatchShard) -> Tensor:
    """Change contrast, colour balance and noise of each image at random.

    Args:
        batch: images of the shard in -1..1, shape (N, 3, h, w).
        noise, contrast: see :class:`DepthTraining`.
    """
    count, generator = shard.batch_size, shard.generator
    gain = 1 + contrast * (2 * torch.rand((count, 1, 1, 1), generator=generator) - 1)
    shift = contrast * (2 * torch.rand((count, 3, 1, 1), generator=generator) - 1)
    level = 2 * noise * torch.rand((count, 1, 1, 1), generator=generator)
    grain = level * torch.randn((count, *batch.shape[1:]), generator=generator)
    return batch * shard.local(gain) + shard.local(shift) + shard.local(grain)


class DepthTrainable(PhaseTrainable):
    """The depth network on rendered images, half of which are mirrored."""

    def __init__(
        self, name: str, rendered: Rendered, training: DepthTraining, arch: DepthArchitecture
    ) -> None:
        super().__init__(name, training.phase, training, len(rendered.images))
        self._rendered = rendered
        self._architecture = arch
        self._noise, self._contrast = training.noise, training.contrast

    def build_network(self, worker: Worker) -> nn.Module:
        return DepthNetwork(self._architecture)

    def mean_loss(self, shard: BatchShard, call: Call) -> Tensor:
        rows = shard.rows.numpy()
        batch = to_unit_range(self._rendered.images[rows])
        truth = torch.from_numpy(self._rendered.depth[rows]).float()[:, None] / 255
        mirrored = shard.local(torch.rand(shard.batch_size, generator=shard.generator) < 0.5)
        batch[mirrored], truth[mirrored] = batch[mirrored].flip(-1), truth[mirrored].flip(-1)
        batch = augment_colors(batch, self._noise, self._contrast, shard)
        guess = call(batch.to(self.worker.device))
        return depth_loss(guess.float(), truth.to(self.worker.device))


def train_depth(
    rendered: Rendered, training: DepthTraining, architecture: DepthArchitecture
) -> tuple[DepthNetwork, Curve]:
    """Fit the network; a training that ``training.storage`` holds is resumed."""
    decisive = {
        "images": hashlib.sha256(rendered.images.tobytes()).hexdigest(),
        "architecture": hashing.canonicalize(architecture),
        "phase": hashing.canonicalize(training.phase),
        "rest": [training.seed, training.precision, training.noise],
        "contrast": training.contrast,
    }
    trainable = DepthTrainable(hashing.fingerprint(decisive), rendered, training, architecture)
    result = fit(trainable, training)
    network = DepthNetwork(architecture)
    network.load_state_dict(result.state)
    return network, result.curve
