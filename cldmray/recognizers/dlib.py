"""dlib's face recognizer: another network, other training images, another library than SFace's.

The held-out recognizer of attackers who have learnt with the help of SFace.
"""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.detection.model_files import file_version, load_module, package_file
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Align, Recognizer, Square
from cldmray.settings import checked_dataclass

PACKAGE = "face_recognition_models"
FILE = "dlib_face_recognition_resnet_model_v1.dat"
INSTALL = "pip install 'cldmray[dlib]'"

SIDE = 150
LANDMARKS = np.array(
    [
        [0.31699, 0.31066],
        [0.66984, 0.31066],
        [0.49342, 0.51042],
        [0.33610, 0.68682],
        [0.65074, 0.68682],
    ]
)
"""Eyes, nose and corners of the mouth in the faces that dlib cuts, as shares of their side: the
mean face of its landmarks with its padding of a quarter on each side."""
DLIB_LFW_CROP = (0.034, 0.143, 0.988, 1.097)
"""The square that dlib would cut of the mean face in the crop of ``LfwFaces``."""


@checked_dataclass
class DlibResNet(Recognizer):
    """The residual network of 29 layers that comes with dlib (King 2009; He et al. 2016).

    Its weights, which Davis King has put into the public domain, come with the extra ``dlib``; no
    pickle is read. On 500 images of 100 people of LFW, 64x64 pixels, rank-1 is 99.4 % with
    ``landmarks`` and 99.0 % with ``fixed``. dlib's own rule calls two faces one person where their
    unscaled embeddings are closer than 0.6; here embeddings have unit norm.

    Attributes:
        device: ``cpu`` or ``auto``; it runs on the CPU only.
    """

    align: Align = "landmarks"
    crop: Square | None = DLIB_LFW_CROP
    device: Literal["auto", "cpu"] = "cpu"

    @property
    def name(self) -> str:
        return "dlib"

    @property
    def dimension(self) -> int:
        return 128

    @property
    def side(self) -> int:
        return SIDE

    @property
    def template(self) -> npt.NDArray[np.float64]:
        return LANDMARKS * SIDE - 0.5

    def version(self) -> str:
        return file_version(_weights())

    def embed_aligned(self, faces: Images) -> npt.NDArray[np.floating[Any]]:
        network = _network(_weights(), self.version())
        return np.array(network.compute_face_descriptor(list(faces)), np.float64)


def _weights() -> Path:
    return package_file(PACKAGE, FILE, INSTALL)


@functools.cache
def _network(path: Path, version: str) -> Any:
    """The network in a file, loaded once a process for each version of the file."""
    dlib = load_module("dlib", INSTALL)
    try:
        return dlib.face_recognition_model_v1(str(path))
    except RuntimeError as error:
        raise BadInputError(f"{path} is no recognizer of dlib: {error}") from error
