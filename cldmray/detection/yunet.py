"""Face detection: YuNet finds faces and their five landmarks in an image."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from cldmray.arrays import Images
from cldmray.detection.model_files import YUNET, file_version, model_file
from cldmray.settings import checked_dataclass

Floats = npt.NDArray[np.float32]
SMALLEST_SIDE = 256
"""Pixels; smaller images are enlarged, since YuNet finds faces from about 10 pixels on but
places their landmarks well only in larger ones."""
LARGEST_SIDE = 2560
"""Pixels that enlarging does not go beyond, whatever the shape: it would fill the memory with an
image one pixel wide."""
OVERLAP = 0.3
"""Intersection over union above which two boxes are one face, as in OpenCV's zoo."""
CANDIDATES = 5000


class Detection(NamedTuple):
    """One face; positions are in pixels of the given image, whose first pixel's centre is 0.

    Attributes:
        box: left, top, width, height; it may reach beyond the image. Shape (4,).
        landmarks: (x, y) of eyes, nose, corners of the mouth, left before right as seen in the
            image. Shape (5, 2).
        score: in 0..1.
    """

    box: Floats
    landmarks: Floats
    score: float


FindFaces = Callable[[Images], list[Detection]]
"""Finds all faces of one RGB image, uint8, shape (h, w, 3), of any size and in any order."""


class FaceDetector(ABC):
    """Finds faces and five landmarks of each; subclasses are frozen dataclasses of settings."""

    @abstractmethod
    def version(self) -> str:
        """Hash of the weights."""

    @abstractmethod
    def open(self) -> FindFaces:
        """Load the network, and return the function that finds faces; for one thread."""


@checked_dataclass
class YuNet(FaceDetector):
    """The face detector of Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023.

    Needs the extra ``recognizer``, which holds the weights; OpenCV runs them on the CPU.

    Attributes:
        threshold: lowest score of a face, in 0..1.
    """

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.6

    def version(self) -> str:
        """Hash of the weights.

        Raises:
            MissingDependencyError: the extra ``recognizer`` is not installed.
        """
        return file_version(model_file(YUNET))

    def detect(self, images: Images) -> list[Detection | None]:
        """The face of highest score in each image; None where no score reaches the threshold.

        Args:
            images: RGB, uint8, shape (N, h, w, 3), of any size; images whose shorter side is
                below 256 pixels are enlarged to it, but to no more than 2560 of the longer one.

        Returns:
            N detections.

        Raises:
            MissingDependencyError: the extra ``recognizer`` is not installed.
        """
        find = self.open()
        return [max(find(image), key=lambda face: face.score, default=None) for image in images]

    def open(self) -> FindFaces:
        """See :meth:`FaceDetector.open`; images are enlarged as :meth:`detect` says.

        Raises:
            MissingDependencyError: the extra ``recognizer`` is not installed.
        """
        start = (SMALLEST_SIDE, SMALLEST_SIDE)
        network = _quietly_loaded(str(model_file(YUNET)), start, self.threshold)

        def find(image: Images) -> list[Detection]:
            height, width = image.shape[:2]
            enough = min(SMALLEST_SIDE / min(height, width), LARGEST_SIDE / max(height, width))
            scale = max(1.0, enough)
            size = (round(width * scale), round(height * scale))
            seen = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            if scale > 1:
                seen = cv2.resize(seen, size, interpolation=cv2.INTER_CUBIC)
            network.setInputSize(size)
            faces = network.detect(seen)[1]
            enlarged = np.array([size[0] / width, size[1] / height], np.float32)
            return [] if faces is None else [_detection(row, enlarged) for row in faces]

        return find


def _detection(face: npt.NDArray[np.generic], enlarged: Floats) -> Detection:
    """A face in the given image's pixels, of YuNet's row (box, landmarks, score), shape (15,)."""
    row = np.asarray(face, np.float32)
    corner = (row[:2] + 0.5) / enlarged - 0.5
    landmarks = (row[4:14].reshape(5, 2) + 0.5) / enlarged - 0.5
    return Detection(np.concatenate([corner, row[2:4] / enlarged]), landmarks, float(row[-1]))


def _quietly_loaded(weights: str, size: tuple[int, int], threshold: float) -> cv2.FaceDetectorYN:
    """The network for one image size, without OpenCV 5's warning that it runs on the CPU."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return cv2.FaceDetectorYN.create(weights, "", size, threshold, OVERLAP, CANDIDATES)
    finally:
        cv2.utils.logging.setLogLevel(level)
