"""SFace, the recognizer of OpenCV's zoo, run by torch."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.detection.model_files import SFACE, file_version, model_file
from cldmray.errors import ConfigError
from cldmray.recognizers.base import Recognizer
from cldmray.settings import checked_dataclass


@checked_dataclass
class SFace(Recognizer):
    """The recognizer of Zhong et al., "SFace", 2021 (:mod:`cldmray.recognizers.sface_network`).

    OpenCV zoo's weights from the extra ``recognizer``, run by torch. Two images whose
    embeddings' cosine is above ``SAME_IDENTITY`` count as one person.
    """

    @property
    def name(self) -> str:
        return "sface"

    @property
    def dimension(self) -> int:
        return 128

    @property
    def side(self) -> int:
        return 112

    def version(self) -> str:
        return file_version(model_file(SFACE))

    def network(self) -> Any:
        """SFace on its device, shared and frozen.

        It is a :class:`~cldmray.recognizers.sface_network.SFaceNet`.

        Raises:
            ConfigError, MissingDependencyError: as :meth:`embed` says.
        """
        return _sface(model_file(SFACE), self.version(), self.device)

    def embed_aligned(self, faces: Images) -> npt.NDArray[np.floating[Any]]:
        import torch

        network = self.network()
        with torch.inference_mode():
            batch = torch.from_numpy(faces).permute(0, 3, 1, 2)
            batch = batch.to(next(network.parameters()).device).float()
            output: npt.NDArray[np.float32] = network(batch).cpu().numpy()
        return output


@functools.cache
def _sface(path: Path, version: str, device: str) -> Any:
    """The network in a file, loaded once a process for each version of the file."""
    import torch

    from cldmray.recognizers.sface_network import load_sface

    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ConfigError("device is 'cuda', but torch sees no CUDA device")
    return load_sface(path).to("cuda" if cuda and device != "cpu" else "cpu")


def landmark_sface() -> Recognizer:
    """SFace on faces turned upright by their landmarks, which identifies clean images best."""
    return SFace(align="landmarks")
