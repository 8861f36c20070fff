"""Recognizer, which maps images of faces to embeddings; attackers, teachers and measures use it."""

from abc import ABC, abstractmethod
from dataclasses import field, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from cldmray.arrays import Images
from cldmray.detection.alignment import TEMPLATE, TEMPLATE_SIDE, crop_matrix, similarity, warp
from cldmray.detection.yunet import Detection, YuNet
from cldmray.errors import BadInputError
from cldmray.settings import checked_dataclass

Embeddings = npt.NDArray[np.float32]
"""Shape (N, d), unit norm."""
Align = Literal["fixed", "landmarks"]
Device = Literal["auto", "cpu", "cuda"]
Edges = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _square(crop: Edges) -> Edges:
    left, top, right, bottom = crop
    if not (right > left and abs((right - left) - (bottom - top)) < 1e-6):
        raise ValueError("left, top, right, bottom must span a square")
    return crop


Square = Annotated[Edges, AfterValidator(_square)]
"""A square as fractions of an image's side."""
SAME_IDENTITY = 0.363
"""Cosine of two SFace embeddings from which on OpenCV's zoo takes them for one person."""
LFW_CROP = (3 / 128, 8 / 128, 125 / 128, 130 / 128)
"""Rows and columns 64 to 186 of LFW's aligned images, within the crop of ``LfwFaces``."""
BATCH = 32


class AlignedEmbeddings(NamedTuple):
    """Embeddings (N, d), and for which images the landmarks of a face were used, bool (N,)."""

    embeddings: Embeddings
    by_landmarks: npt.NDArray[np.bool_]


@checked_dataclass(kw_only=True)
class Recognizer(ABC):
    """Maps images of faces to the unit sphere, where one person's images are close.

    Subclasses are frozen dataclasses whose fields are their settings; networks load on the first
    call and stay for the life of the process.

    Attributes:
        align: ``fixed`` takes the same square of every image, for images that are aligned
            already; ``landmarks`` turns each face upright by YuNet's five landmarks, and falls back
            to ``fixed`` where no face is found.
        crop: the square of ``fixed``: left, top, right, bottom as fractions of the image's side;
            beyond the edge the image is reflected. None: where the audited source has its faces
            (:func:`with_face_crop`), else as in the crop of ``LfwFaces``.
        detector: finds the landmarks.
        device: ``auto`` (the device that the engine reserves; elsewhere CUDA where there is one,
            else the CPU), ``cpu`` or ``cuda``.

    A recognizer of one's own writes ``name``, ``dimension``, ``side``, ``version`` and
    ``embed_aligned``:

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class MeanColour(Recognizer):
    ...     name, dimension, side = "mean_colour", 3, 8
    ...     def version(self):
    ...         return "1"
    ...     def embed_aligned(self, faces):
    ...         return faces.mean(axis=(1, 2))
    >>> red = np.zeros((1, 16, 16, 3), np.uint8)
    >>> red[..., 0] = 200
    >>> MeanColour().embed(red)
    array([[1., 0., 0.]], dtype=float32)
    """

    align: Align = "fixed"
    crop: Square | None = None
    detector: YuNet = field(default_factory=YuNet)
    device: Device = "auto"

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length d of an embedding."""

    @property
    @abstractmethod
    def side(self) -> int:
        """Side in pixels of the aligned faces that the network reads."""

    @property
    def square(self) -> Square:
        """The crop, or that of LFW where none is set."""
        return LFW_CROP if self.crop is None else self.crop

    @property
    def template(self) -> npt.NDArray[np.float64]:
        """Where the five landmarks belong in its faces, shape (5, 2), pixels: as ArcFace has it."""
        return (TEMPLATE + 0.5) * (self.side / TEMPLATE_SIDE) - 0.5

    @abstractmethod
    def version(self) -> str:
        """Hash of the weights."""

    @abstractmethod
    def embed_aligned(self, faces: Images) -> npt.NDArray[np.floating[Any]]:
        """The network's output for aligned faces (N, side, side, 3), shape (N, d), of any norm."""

    def check(self) -> None:
        """Embed one black image on the CPU, so that whatever is missing is found out at once.

        Raises:
            BadInputError, MissingDependencyError: as :meth:`embed` says.
        """
        if self.align == "landmarks":
            self.detector.version()
        replace(self, device="cpu").embed(np.zeros((1, self.side, self.side, 3), np.uint8))

    def embed(self, images: Images) -> Embeddings:
        """Embeddings of images: float32, shape (N, d), unit norm, row i of image i alone.

        Args:
            images: RGB, uint8, shape (N, h, w, 3), square unless every face is found.

        Raises:
            BadInputError: the images are of another shape, or the network's file is missing,
                unreadable or yields no embeddings.
            ConfigError: ``device`` is not there.
            MissingDependencyError: the extra ``recognizer`` is not installed.
        """
        return self.embed_with_report(images).embeddings

    def embed_with_report(self, images: Images) -> AlignedEmbeddings:
        """:meth:`embed`, and which images were aligned by landmarks: none if ``fixed``."""
        faces, by_landmarks = self.aligned(images)
        parts = [
            self.embed_aligned(faces[start : start + BATCH])
            for start in range(0, len(faces), BATCH)
        ]
        raw = np.concatenate(parts) if parts else np.zeros((0, self.dimension))
        if raw.ndim != 2 or len(raw) != len(faces) or not np.isfinite(raw).all():
            raise BadInputError(f"{self.name}: the network's output {raw.shape} is no embedding")
        norm = np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
        return AlignedEmbeddings((raw / np.maximum(norm, 1e-12)).astype(np.float32), by_landmarks)

    def aligned(self, images: Images) -> tuple[Images, npt.NDArray[np.bool_]]:
        """The faces as the network sees them, uint8 (N, side, side, 3), and bool (N,).

        Raises:
            BadInputError, MissingDependencyError: as :meth:`embed` says.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            got = f"{images.dtype} {images.shape}"
            raise BadInputError(f"images must be uint8 (N, h, w, 3), not {got}")
        faces = np.empty((len(images), self.side, self.side, 3), np.uint8)
        by_landmarks = np.zeros(len(images), bool)
        detections: list[Detection | None] = [None] * len(images)
        if self.align == "landmarks":
            detections = self.detector.detect(images)
        template = self.template
        for place, (image, face) in enumerate(zip(images, detections, strict=True)):
            if face is not None:
                matrix = similarity(face.landmarks, template)
            elif image.shape[0] == image.shape[1]:
                matrix = crop_matrix(self.square, image.shape[0], self.side)
            else:
                raise BadInputError(f"an image of {image.shape[:2]} pixels is not square")
            faces[place] = warp(image, matrix, self.side)
            by_landmarks[place] = face is not None
        return faces, by_landmarks


Settings = TypeVar("Settings")


def with_face_crop(settings: Settings, crop: Square) -> Settings:
    """Settings whose recognizers take a crop, unless they have one of their own.

    Args:
        settings: a recognizer, or a dataclass that may hold some; anything else is returned as is.
        crop: ArcFace's square in the audited images, as fractions of their side.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    if isinstance(settings, Recognizer):
        return replace(settings, crop=crop) if settings.crop is None else settings
    values = {item.name: getattr(settings, item.name) for item in fields(settings) if item.init}
    changed = {name: with_face_crop(value, crop) for name, value in values.items()}
    changed = {name: value for name, value in changed.items() if value is not values[name]}
    return replace(settings, **changed) if changed else settings
