"""Mosaic of coarse blocks."""

from dataclasses import dataclass

import cv2
import numpy as np

from cldmray.anonymizers.base import Anonymizer, Batch, Redraw
from cldmray.anonymizers.labels import check_label
from cldmray.errors import BadInputError
from cldmray.faces.records import Pictures


@dataclass(frozen=True)
class Pixelate(Anonymizer):
    """Replaces each block by its mean colour: area averaging down, nearest neighbour up.

    Attributes:
        blocks: blocks along the shorter side, >= 1; those along the longer side are as many as
            keep them closest to square.
        label: name in tables; None: ``pixelate``.
    """

    blocks: int = 8
    label: str | None = None

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {self.blocks}")
        check_label(self.label)

    @property
    def name(self) -> str:
        return self.label or "pixelate"

    def open(self) -> Redraw:
        return self._redraw

    def _redraw(self, batch: Batch) -> Pictures:
        """Mosaics of a batch.

        Raises:
            BadInputError: the pictures have fewer pixels than blocks along a side.
        """
        height, width = batch.images.shape[1:3]
        shorter = min(height, width)
        if len(batch.images) and self.blocks > shorter:
            raise BadInputError(
                f"{self.name}: {self.blocks} blocks asked of pictures of {width}x{height} pixels"
            )
        mosaics = np.empty_like(batch.images)
        for position, image in enumerate(batch.images):
            across = round(width * self.blocks / shorter)
            down = round(height * self.blocks / shorter)
            coarse = cv2.resize(image, (across, down), interpolation=cv2.INTER_AREA)
            mosaics[position] = cv2.resize(
                coarse, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
            )
        return mosaics
