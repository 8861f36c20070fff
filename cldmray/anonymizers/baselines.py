"""Baselines: the no-op control, Gaussian blur, pixelation, and the condition map itself."""

from dataclasses import field
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch
from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.errors import BadInputError
from cldmray.results.names import Label
from cldmray.settings import checked_dataclass


@checked_dataclass
class NoOp(Anonymizer):
    """Publishes every image unchanged: what the attackers reach when nothing is hidden.

    Attributes:
        label: name in tables; None: ``no_op``.

    >>> images = np.full((1, 4, 4, 3), 9, np.uint8)
    >>> bool((NoOp().open()(Batch(["a"], images, np.zeros(1, np.int64))) == images).all())
    True
    """

    label: Label | None = None

    @property
    def name(self) -> str:
        return self.label or "no_op"

    @property
    def is_control(self) -> bool:
        return True

    @property
    def unchanged(self) -> bool:
        return True

    def open(self) -> AnonymizeFunction:
        return _copy


def _copy(batch: Batch) -> Images:
    return batch.images.copy()


@checked_dataclass
class Blur(Anonymizer):
    """Gaussian blur with a mirrored border.

    Attributes:
        sigma: standard deviation in pixels of the image as it is audited, > 0.
        label: name in tables; None: ``blur``.

    >>> image = np.zeros((1, 9, 9, 3), np.uint8)
    >>> image[0, 4, 4] = 255
    >>> batch = Batch(["a"], image, np.zeros(1, np.int64))
    >>> Blur(sigma=1.0).open()(batch)[0, 4, 2:7, 0]
    array([ 6, 25, 40, 25,  6], dtype=uint8)
    """

    sigma: Annotated[float, Field(gt=0)] = 4.0
    label: Label | None = None

    @property
    def name(self) -> str:
        return self.label or "blur"

    def open(self) -> AnonymizeFunction:
        return self._anonymize

    def _anonymize(self, batch: Batch) -> Images:
        blurred = np.empty_like(batch.images)
        for position, image in enumerate(batch.images):
            blurred[position] = cv2.GaussianBlur(
                image, (0, 0), self.sigma, borderType=cv2.BORDER_REFLECT
            )
        return blurred


@checked_dataclass
class Pixelate(Anonymizer):
    """Replaces each block by its mean colour: area averaging down, nearest neighbour up.

    Attributes:
        blocks: blocks along the shorter side, >= 1; those along the longer side are as many as
            keep them closest to square.
        label: name in tables; None: ``pixelate``.

    >>> image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1).repeat(3, 3)
    >>> Pixelate(blocks=1).open()(Batch(["a"], image, np.zeros(1, np.int64)))[0, ..., 0]
    array([[2, 2],
           [2, 2]], dtype=uint8)
    """

    blocks: Annotated[int, Field(ge=1)] = 8
    label: Label | None = None

    @property
    def name(self) -> str:
        return self.label or "pixelate"

    def open(self) -> AnonymizeFunction:
        return self._anonymize

    def _anonymize(self, batch: Batch) -> Images:
        """Mosaics of a batch.

        Raises:
            BadInputError: the images have fewer pixels than blocks along a side.
        """
        height, width = batch.images.shape[1:3]
        shorter = min(height, width)
        if len(batch.images) and self.blocks > shorter:
            raise BadInputError(
                f"{self.name}: {self.blocks} blocks asked of images of {width}x{height} pixels"
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


@checked_dataclass
class ConditionMap(Anonymizer):
    """Replaces each image by its condition map.

    A conditioned model knows no more of a person than its condition says, except for what it
    learnt of the same people. The attacks on the maps are therefore the upper end of what a better
    model under the same condition may leak.

    Attributes:
        condition: extractor of the maps.
        label: name in tables; None: ``<condition>-map``.
    """

    condition: Condition = field(default_factory=Canny)
    label: Label | None = None

    @property
    def name(self) -> str:
        return self.label or f"{self.condition.name}-map"

    def open(self) -> AnonymizeFunction:
        return self._anonymize

    def _anonymize(self, batch: Batch) -> Images:
        return self.condition(batch.images)
