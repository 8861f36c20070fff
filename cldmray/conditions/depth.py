"""Depth maps of faces, estimated from one image by a small shipped network."""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.errors import BadInputError
from cldmray.hashing import digest, file_hash
from cldmray.settings import checked_dataclass

if TYPE_CHECKING:
    from cldmray.conditions.depth_network import DepthNetwork

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "weights" / "depth64"
WEIGHTS_FILE = "depth.safetensors"
CONFIG_FILE = "config.json"
BATCH = 128


@checked_dataclass
class Depth(Condition):
    """Depth relative to the person, near bright, background black, like MiDaS' maps.

    It stands where diffusion models expect MiDaS or Depth Anything (Ranftl et al. 2020): the
    nearest point of the person is 255, the farthest 64, the background 0. The network was trained
    on rendered heads with true depth; on real images its maps are estimates of the same kind.

    Attributes:
        model: ``embedded``, or a folder that ``jobs/train_depth.py`` wrote.
    """

    model: str = EMBEDDED

    @property
    def name(self) -> str:
        return "depth"

    @property
    def folder(self) -> Path:
        """Where the weights are."""
        return EMBEDDED_FOLDER if self.model == EMBEDDED else Path(self.model).expanduser()

    def version(self) -> str:
        """Fingerprint of the weights: 16 hexadecimal characters.

        Raises:
            BadInputError: the folder has none.
        """
        return _version(self.folder)

    def __call__(self, images: Images) -> Images:
        """See :meth:`Condition.__call__`.

        Raises:
            BadInputError: the folder has no usable weights; the message names the file.
        """
        import torch

        from cldmray.arrays import to_unit_range

        network, size = load_depth(self.folder)
        height, width = images.shape[1:3]
        maps = np.empty_like(images)
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            if (height, width) != (size, size):
                part = np.stack([cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA)
                                 for x in part])  # fmt: skip
            with torch.inference_mode():
                guess = network(to_unit_range(part))[:, 0].numpy()
            for position, depth in enumerate(guess, start):
                if (height, width) != (size, size):
                    depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR)
                grey = np.clip(np.rint(depth * 255), 0, 255).astype(np.uint8)
                maps[position] = grey[..., None]
        return maps


def load_depth(folder: Path) -> tuple["DepthNetwork", int]:
    """The network of a folder, loaded once for its content, and the size at which it looks.

    Raises:
        BadInputError: a file is missing or does not fit; the message names it.
    """
    return _loaded(folder, _version(folder))


def _version(folder: Path) -> str:
    try:
        return digest(*(file_hash(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)))[:16]
    except OSError as error:
        raise _unreadable(Path(error.filename), error) from error


@functools.lru_cache(maxsize=2)
def _loaded(folder: Path, version: str) -> tuple["DepthNetwork", int]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from cldmray.arrays import channels_last
    from cldmray.conditions.depth_network import DepthArchitecture, DepthNetwork

    try:
        settings = json.loads(_content(folder / CONFIG_FILE))
        arch = DepthArchitecture(settings["size"], tuple(settings["channels"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{folder / CONFIG_FILE} is no depth network's: {error}") from error
    network = DepthNetwork(arch)
    try:
        network.load_state_dict(load(_content(folder / WEIGHTS_FILE)))
    except (SafetensorError, RuntimeError) as error:
        raise BadInputError(f"{folder / WEIGHTS_FILE} cannot be used: {error}") from error
    return channels_last(network.float()).eval(), arch.size


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"depth network: {path} cannot be read: {error.strerror}")
