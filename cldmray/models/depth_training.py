"""Ray Train + Accelerate loop that fits the depth network on rendered people."""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import ray
import torch
from torch import Tensor

from cldmray import hashing
from cldmray.arrays import Images, channels_last, to_unit_range
from cldmray.conditions.depth_network import DepthArchitecture, DepthNetwork, depth_loss
from cldmray.engine.cluster import TASK_CPUS
from cldmray.engine.faces import blocks
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.faces.synthetic.scene import relative_depth, render
from cldmray.models.phases import (
    Curve,
    PhaseConfig,
    Share,
    TrainingRun,
    fit,
    open_accelerator,
    run_phase,
)

DepthMaps = npt.NDArray[np.uint8]
"""Relative depth, shape (N, height, width), background 0, nearest point 255."""


@dataclass(frozen=True, kw_only=True)
class DepthTraining(TrainingRun):
    """Everything that decides the weights of the depth network.

    Attributes:
        phase: schedule.
        noise: largest standard deviation of the noise that an image gets, in 0..1 of its range.
        contrast: largest change of an image's contrast and of each colour's brightness, in 0..1.
    """

    phase: PhaseConfig
    name: str = "depth"
    noise: float = 0.06
    contrast: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_shares("noise", "contrast")
        self.check_batch(self.phase)


class Rendered(NamedTuple):
    """Images, uint8 (N, h, w, 3), with their true relative depth."""

    images: Images
    depth: DepthMaps


def render_people(source: SyntheticFaces, block_rows: int = 64) -> Rendered:
    """Render every image of a synthetic source, with its depth, in order of sample id."""

    def load(block: Any) -> dict[str, Any]:
        places = [location.split("/") for location in block["location"].to_pylist()]
        images = [render(source.seed, int(i), int(j), source.size) for i, j in places]
        return {
            "sample_id": np.array(block["sample_id"].to_pylist()),
            "image": np.stack([image.image for image in images]),
            "depth": np.stack([relative_depth(image) for image in images]),
        }

    stream = ray.data.from_arrow(blocks(source.listing(), block_rows)).map_batches(
        load, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    rows = sorted(stream.iter_rows(), key=lambda row: str(row["sample_id"]))
    return Rendered(
        np.stack([row["image"] for row in rows]), np.stack([row["depth"] for row in rows])
    )


def disturb(batch: Tensor, noise: float, contrast: float, share: Share) -> Tensor:
    """Change contrast, colour balance and noise of each image at random.

    Args:
        batch: images of the share in -1..1, shape (N, 3, h, w).
        noise, contrast: see :class:`DepthTraining`.
    """
    count, generator = share.batch, share.generator
    gain = 1 + contrast * (2 * torch.rand((count, 1, 1, 1), generator=generator) - 1)
    shift = contrast * (2 * torch.rand((count, 3, 1, 1), generator=generator) - 1)
    level = 2 * noise * torch.rand((count, 1, 1, 1), generator=generator)
    grain = level * torch.randn((count, *batch.shape[1:]), generator=generator)
    return batch * share.own(gain) + share.own(shift) + share.own(grain)


def depth_loop(config: dict[str, Any]) -> None:
    """Ray Train worker function; half of the images are mirrored."""
    training: DepthTraining = config["training"]
    accelerator = open_accelerator(training)
    network = DepthNetwork(config["architecture"])
    channels_last(network)
    rendered = Rendered(*ray.get([config["images"], config["depth"]]))

    def loss_of(wrapped: torch.nn.Module, share: Share) -> Tensor:
        chosen = share.index.numpy()
        batch = to_unit_range(rendered.images[chosen])
        truth = torch.from_numpy(rendered.depth[chosen]).float()[:, None] / 255
        mirrored = share.own(torch.rand(share.batch, generator=share.generator) < 0.5)
        batch[mirrored], truth[mirrored] = batch[mirrored].flip(-1), truth[mirrored].flip(-1)
        batch = disturb(batch, training.noise, training.contrast, share)
        with accelerator.autocast():
            guess = wrapped(batch.to(accelerator.device))
        return depth_loss(guess.float(), truth.to(accelerator.device))

    size = len(rendered.images)
    run_phase(training.phase, training, accelerator, network, size, loss_of)


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
    weights, curve = fit(
        depth_loop,
        hashing.fingerprint(decisive),
        training,
        architecture=architecture,
        images=ray.put(rendered.images),
        depth=ray.put(rendered.depth),
    )
    network = DepthNetwork(architecture)
    network.load_state_dict(weights)
    return network, curve
